"""Connections through a port forwarding session: a loop over a data channel, a listener and what it accepts.

What the agent cannot do stays: it closes a connection to the port as a whole when we send no more (`port_mux.go`,
handleDataTransfer). So the end of a local program's output is told at once only where the program has closed its
connection altogether; else when the answer has come to rest.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .local_peer import LocalPeers
from .loop import Loop
from .wire.smux import Command, Mux

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .wire.channel import ClientChannel

__all__ = ["Forwarder"]

QUIET_SECONDS = 5.0
"""How long nothing may have come before the end of a local program's output is told, unless it is gone. Like the next,
it counts only while the channel is read: what another program, or a cut, keeps from being read is still to come."""
GONE_SECONDS = 30.0
"""How long nothing may have come before a connection whose end was told is dropped."""
LOOK_SECONDS = (0.01, 0.1, 0.5)
"""Seconds between looks whether a program that sends no more is gone; the last again and again. The kernel tells of the
end before the socket counts as closed."""
FULL_SECONDS = 0.5
"""Seconds without accepting once there are no free descriptors, unless a connection ends before."""
_CROWDED_QUIET_SECONDS = 0.25
"""The same as `QUIET_SECONDS`, for the one that has been quiet longest where descriptors are wanting."""
_NO_MORE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_WAITING_LIMIT = 4 * 1024 * 1024
"""Bytes that may wait for local programs, in all; above that the channel is not read. smux 1 has no windows,
so that one program that does not read holds all others up: as with the agent, whose own limit is this."""
_OUT_LIMIT = 64 * 1024
"""Bytes that may wait for the channel's window; above that no local program is read."""
_READ = 16 * 1024
_ACCEPTS = 64
"""Connections that are accepted in one turn."""


@dataclass(eq=False)
class _Connection:
    """A local program's connection."""

    number: int
    socket: socket.socket
    heard: float
    """When something came last, or the program's end was noticed or told; see `Loop._listened`."""
    waiting: bytearray = field(default_factory=bytearray)
    reading: bool = True
    """Whether the program may have more to say."""
    told: bool = False
    """Whether the agent has been told of it, perhaps at a time when it does not listen yet."""
    known: bool = False
    """Whether the agent is sure to know of it."""
    answered: bool = False
    """Whether the other side has said that it is done."""
    finished: bool = False
    """Whether we have said so."""
    looks: int = 0
    look_at: float = float("inf")
    """When to look whether the program is gone."""


class Forwarder(Loop):
    """Forwards connections until it is stopped or the session is closed.

    Args:
        channel: see `Loop`.
        listener: accepts connections; not blocking.
        wake: see `Loop`.
        ending: see `Loop`.
        on_ready: called when the handshake is over and the agent is sure to take what is sent.
        on_unreachable: called when the agent cannot connect to the port.
        on_full: called when no more connections can be accepted here: out of descriptors.
    """

    def __init__(
        self,
        channel: ClientChannel,
        listener: socket.socket,
        *,
        wake: int | None = None,
        ending: Callable[[], bool] = lambda: True,
        on_ready: Callable[[], None] = lambda: None,
        on_unreachable: Callable[[], None] = lambda: None,
        on_full: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(channel, selectors.DefaultSelector(), _WAITING_LIMIT, wake, ending)
        self._listener = listener
        self._on_ready = on_ready
        self._on_full = on_full
        channel.on_unreachable = on_unreachable
        self._mux = Mux()
        self._connections: dict[int, _Connection] = {}
        self._unknown: dict[int, _Connection] = {}
        """Those that the agent may not know of yet."""
        self._closing: dict[int, _Connection] = {}
        """Those whose programs have no more to say."""
        self._peers = LocalPeers()
        self._by_fd: dict[int, _Connection] = {}
        self._may_read = False
        self._full_until = float("-inf")
        self._said_ready = False

    def _release(self) -> None:
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._peers.close()
        super()._release()

    # ------------------------------------------------------------------------------------------- one turn

    def _turn(self, now: float) -> None:
        self._introduce(now)
        if self._channel.settled and not self._said_ready:
            self._said_ready = True
            self._on_ready()
        for connection in list(self._closing.values()):
            self._settle(connection, now)

    def _prepare(self, now: float) -> float:
        channel = self._channel
        may_open = (
            channel.closed is None and channel.ready and len(self._out) < _OUT_LIMIT and self._ending is None
        )
        accepting = may_open and now >= self._full_until
        self._watch(self._listener.fileno(), selectors.EVENT_READ if accepting else 0)
        if self._may_read != (may_open and channel.settled):
            self._may_read = not self._may_read
            for one in self._connections.values():
                self._watch_program(one)
        return float("inf") if channel.closed is not None else self._due(now, may_open)

    def _due(self, now: float, may_open: bool) -> float:
        due = [float("inf")]
        if may_open and self._full_until > now:
            due.append(self._full_until - now)
        for one in self._closing.values():
            due.append(one.look_at - now)
            if self._hears and not (one.finished and one.waiting):
                due.append(one.heard + (GONE_SECONDS if one.finished else QUIET_SECONDS) - self._listened)
        return min(due)

    def _receive(self, data: bytes, now: float) -> None:
        for frame in self._mux.feed(data):
            one = self._connections.get(frame.connection)
            if one is None:
                continue  # of one that is over here
            one.heard = self._listened
            one.known = True
            if frame.command is Command.PSH:
                one.waiting += frame.data
                self._waiting += len(frame.data)
                self._watch_program(one)
            elif frame.command is Command.FIN:
                one.answered = True
                self._settle(one, now)

    def _move(self, ready: Mapping[int, int], now: float) -> None:
        for fd, events in ready.items():
            one = self._by_fd.get(fd)
            if one is not None and events & selectors.EVENT_WRITE:
                self._write(one, now)
            if one is not None and events & selectors.EVENT_READ and one.reading:
                self._read(one, now)
        if self._listener.fileno() in ready:
            self._accept(now)

    def _watch_program(self, one: _Connection) -> None:
        read = selectors.EVENT_READ if self._may_read and one.reading else 0
        self._watch(one.socket.fileno(), read | (selectors.EVENT_WRITE if one.waiting else 0))

    # ----------------------------------------------------------------------------------------- connections

    def _accept(self, now: float) -> None:
        for _ in range(_ACCEPTS):
            try:
                accepted, _ = self._listener.accept()
            except OSError as error:
                if error.errno in _NO_MORE:
                    self._full_until = now + FULL_SECONDS
                    self._on_full()
                    self._make_room()
                return
            accepted.setblocking(False)
            with contextlib.suppress(OSError):
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open(accepted)

    def _make_room(self) -> None:
        """Where nobody can say who is gone, end the one that has been quiet for longest."""
        long_ago = self._listened - _CROWDED_QUIET_SECONDS
        quiet = [one for one in self._closing.values() if one.heard <= long_ago]
        if quiet:
            oldest = min(quiet, key=lambda one: one.heard)
            self._finish(oldest)
            self._drop(oldest)

    def _open(self, accepted: socket.socket) -> None:
        number = self._mux.next()
        made = self._connections[number] = _Connection(number, accepted, self._listened)
        self._unknown[number] = made
        self._by_fd[accepted.fileno()] = made
        self._watch_program(made)

    def _introduce(self, now: float) -> None:
        """Tell the agent of connections.

        Before the channel is settled too, so that a server that speaks first is heard at once; but what is sent then
        may be lost, and is sent again. The agent passes over a second SYN (`recvLoop` in smux's session.go).
        """
        for one in list(self._unknown.values()):
            if self._channel.settled:
                del self._unknown[one.number]
                if not one.known:
                    self._out += self._mux.open(one.number)
            elif not one.told:
                one.told = True
                self._channel.send(self._mux.open(one.number), now)

    def _read(self, one: _Connection, now: float) -> None:
        if len(self._out) >= _OUT_LIMIT:
            return  # its turn comes: the kernel names them in turn
        # Not before: what is sent of a connection comes after its SYN.
        if one.number in self._unknown:
            self._introduce(now)
        try:
            data = one.socket.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # a reset
            self._broken(one)
            return
        if data:
            self._out += self._mux.data(one.number, data)
            return
        one.reading = False
        one.heard = self._listened
        one.look_at = now
        self._closing[one.number] = one
        self._watch_program(one)
        self._settle(one, now)

    def _write(self, one: _Connection, now: float) -> None:
        try:
            written = one.socket.send(one.waiting)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._broken(one)
            return
        del one.waiting[:written]
        self._waiting -= written
        self._watch_program(one)
        self._was_read(now)
        self._settle(one, now)

    def _settle(self, one: _Connection, now: float) -> None:
        """Do what the state of a connection asks for."""
        if one.answered and not one.waiting:
            self._finish(one)
            self._drop(one)
        elif self._is_gone(one, now):
            self._broken(one)
        elif one.finished:
            if self._listened - one.heard >= GONE_SECONDS and not one.waiting:
                self._drop(one)
        elif not one.reading and self._listened - one.heard >= QUIET_SECONDS:
            self._finish(one)

    def _is_gone(self, one: _Connection, now: float) -> bool:
        """Whether the program has closed its connection; asked now and then once it sends no more."""
        if now < one.look_at:
            return False
        one.look_at = now + LOOK_SECONDS[min(one.looks, len(LOOK_SECONDS) - 1)]
        one.looks += 1
        closed = self._peers.closed(one.socket)
        if closed is None:
            one.look_at = now + QUIET_SECONDS
        return bool(closed)

    def _broken(self, one: _Connection) -> None:
        """The local program is gone."""
        self._finish(one)
        self._drop(one)

    def _finish(self, one: _Connection) -> None:
        if not one.finished:
            one.finished = True
            one.heard = self._listened
            one.reading = False
            self._out += self._mux.finish(one.number)
            self._watch_program(one)

    def _drop(self, one: _Connection) -> None:
        if self._connections.pop(one.number, None) is None:
            return
        self._unknown.pop(one.number, None)
        self._closing.pop(one.number, None)
        self._waiting -= len(one.waiting)
        one.waiting.clear()  # nobody reads it any more
        fd = one.socket.fileno()
        self._watch(fd, 0)
        del self._by_fd[fd]
        one.socket.close()
        self._full_until = float("-inf")
