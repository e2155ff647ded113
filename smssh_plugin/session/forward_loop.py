"""Connections through a port forwarding session: a loop over a data channel, a listener and what it accepts.

What the agent cannot do stays: it closes a connection to the port as a whole when we send no more (`port_mux.go`,
handleDataTransfer). So the end of a local program's output is told at once only where the program has closed its
connection altogether; else when the answer has come to rest.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import ExitStatus, SmsshError
from .local_peer import LocalPeers
from .pump import Ending
from .wire.frames import FrameError
from .wire.smux import Command, Mux
from .wire.stream import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable

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
"""Seconds without accepting where no more descriptors can be had, unless one is given back before."""
_CROWDED_QUIET_SECONDS = 0.25
"""The same as `QUIET_SECONDS`, for the one that has been quiet longest where descriptors are wanting."""
_NO_MORE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_WAITING_LIMIT = 4 * 1024 * 1024
"""Bytes that may wait for local programs, all together; above that the channel is not read. smux 1 has no windows,
so that one program that does not read holds all others up: as with the agent, whose own limit is this."""
_OUT_LIMIT = 64 * 1024
"""Bytes that may wait for the channel's window; above that no local program is read."""
_READ = 16 * 1024
_ACCEPTS = 64
"""Connections that are accepted in one turn."""
_LINGER = 5.0


@dataclass(eq=False)
class _Connection:
    """A local program's connection. Its two descriptors may be one."""

    number: int
    source: int
    sink: int
    socket: socket.socket | None
    heard: float
    """When something came last, or the program's end was noticed or told; see `Forwarder._listened`."""
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


class Forwarder:
    """Forwards until it is stopped, the session is closed, or the attached connection is over.

    Args:
        channel: an open channel; the handshake is done here, too. It isn't closed.
        listener: accepts connections; not blocking. None where one is attached.
        wake: a descriptor that ends it when it is readable, if `ending` says so.
        ending: asked then.
        on_ready: called when the handshake is over and the agent is sure to take what is sent.
        on_unreachable: called when the agent cannot connect to the port.
        on_full: called when no more connections can be accepted here: out of descriptors.
    """

    def __init__(
        self,
        channel: ClientChannel,
        listener: socket.socket | None = None,
        *,
        wake: int | None = None,
        ending: Callable[[], bool] = lambda: True,
        on_ready: Callable[[], None] = lambda: None,
        on_unreachable: Callable[[], None] = lambda: None,
        on_full: Callable[[], None] = lambda: None,
    ) -> None:
        self.received = 0
        """Bytes that came through the channel."""
        self._channel = channel
        self._listener = listener
        self._wake = wake
        self._asked_to_end = ending
        self._on_ready = on_ready
        self._on_full = on_full
        channel.on_unreachable = on_unreachable
        self._mux = Mux()
        self._out = bytearray()
        self._connections: dict[int, _Connection] = {}
        self._unknown: dict[int, _Connection] = {}
        """Those that the agent may not know of yet."""
        self._closing: dict[int, _Connection] = {}
        """Those whose programs have no more to say."""
        self._waiting = 0
        """Bytes that wait for local programs, all together."""
        self._listened = 0.0
        """Seconds spent waiting for something to read from the channel: the clock of what is quiet."""
        self._attached: _Connection | None = None
        self._peers = LocalPeers()
        # Where it is attached the source may be a regular file, which epoll does not take.
        self._selector: selectors.BaseSelector = (
            selectors.DefaultSelector() if listener is not None else selectors.PollSelector()
        )
        self._watched: dict[int, int] = {}
        self._by_fd: dict[int, _Connection] = {}
        self._polled: object = None
        self._polled_fd = -1
        """The channel's socket that is watched, which is another one after each cut."""
        self._may_read = False
        self._full_until = float("-inf")
        self._said_ready = False
        self._ending: Ending | None = None
        self._give_up = float("inf")

    def attach(self, source: int, sink: int) -> None:
        """Forward one pair of descriptors, not blocking, until either side ends; instead of a listener."""
        self._attached = self._open(source, sink, None)

    def run(self) -> Ending:
        """Forward until the end.

        Raises:
            SmsshError: see `Channel`.
        """
        try:
            while not self._over(time.monotonic()):
                self._step()
        except FrameError as error:
            raise SmsshError(
                f"the session does not keep to the protocol: {error}",
                reference="session-protocol",
                status=ExitStatus.UNREACHABLE,
            ) from error
        finally:
            for connection in list(self._connections.values()):
                self._drop(connection)
            self._selector.close()
            self._peers.close()
        return self._ending or Ending.CLOSED

    def _over(self, now: float) -> bool:
        channel = self._channel
        if channel.closed is None:
            channel.tick(now)
        if channel.closed is not None:
            self._end(Ending.CLOSED, now)
            return now >= self._give_up or not self._waiting
        if channel.ready:
            self._introduce(now)
        if channel.settled and not self._said_ready:
            self._said_ready = True
            self._on_ready()
        for connection in list(self._closing.values()):
            self._settle(connection, now)
        self._send(now)
        channel.flush()
        if self._ending is None:
            return False
        done = not self._out and channel.stream.idle and not channel.socket.pending
        return now >= self._give_up or (done and not (self._attached and self._attached.waiting))

    def _end(self, ending: Ending, now: float) -> None:
        if self._ending is None:
            self._ending = ending
            self._give_up = now + _LINGER
            if ending is not Ending.CLOSED:
                self._channel.resumable = False  # nobody waits for what a new connection would bring

    # ------------------------------------------------------------------------------------------- one turn

    def _step(self) -> None:
        now = time.monotonic()
        channel = self._channel
        open_ = channel.closed is None
        channel.listening = self._waiting < _WAITING_LIMIT
        may_open = open_ and channel.ready and len(self._out) < _OUT_LIMIT and self._ending is None
        self._watch_programs(may_open and channel.settled)
        self._watch_channel(open_ and channel.listening)
        if self._listener is not None:
            accepting = may_open and now >= self._full_until
            self._watch(self._listener.fileno(), selectors.EVENT_READ if accepting else 0)
        if self._wake is not None:
            self._watch(self._wake, selectors.EVENT_READ if self._ending is None else 0)
        before = now
        ready = {key.fd: events for key, events in self._selector.select(self._timeout(now, may_open))}
        now = time.monotonic()
        if self._hears:
            self._listened += now - before
        if self._wake is not None and ready.pop(self._wake, 0) and self._asked_to_end():
            self._end(Ending.STOPPED, now)
        if self._polled_fd >= 0 and ready.pop(self._polled_fd, 0) & selectors.EVENT_READ:
            for data in channel.receive(now):
                self._receive(data, now)
            self._watch_channel(True)  # its descriptor may be another connection's in a moment
        accepting = self._listener is not None and bool(ready.pop(self._listener.fileno(), 0))
        for fd, events in ready.items():
            one = self._by_fd.get(fd)
            if one is not None and fd == one.sink and events & selectors.EVENT_WRITE:
                self._write(one, now)
            one = self._by_fd.get(fd)
            if one is not None and fd == one.source and events & selectors.EVENT_READ and one.reading:
                self._read(one, now)
        if accepting:
            self._accept(now)

    def _timeout(self, now: float, may_open: bool) -> float:
        due = [self._give_up - now]
        if self._channel.closed is not None:
            return max(0.0, *due)  # only what came is still to be written
        due.append(self._channel.timeout(now))
        if may_open and self._full_until > now:
            due.append(self._full_until - now)
        for one in self._closing.values():
            due.append(one.look_at - now)
            if self._hears and not (one.finished and one.waiting):
                due.append(one.heard + (GONE_SECONDS if one.finished else QUIET_SECONDS) - self._listened)
        return max(0.0, min(due))

    @property
    def _hears(self) -> bool:
        """Whether the channel is read, as of the last look."""
        channel = self._channel
        return channel.listening and channel.cut is None and channel.closed is None

    # -------------------------------------------------------------------------------------- what is watched

    def _watch(self, fd: int, events: int) -> None:
        before = self._watched.get(fd, 0)
        if events == before:
            return
        if not before:
            self._selector.register(fd, events)
        elif events:
            self._selector.modify(fd, events)
        else:
            self._selector.unregister(fd)
        if events:
            self._watched[fd] = events
        else:
            del self._watched[fd]

    def _watch_channel(self, listening: bool) -> None:
        channel = self._channel
        connected = channel.cut is None and channel.closed is None
        if self._polled is not channel.socket or not connected:
            if self._polled_fd >= 0:
                self._watch(self._polled_fd, 0)
            self._polled, self._polled_fd = channel.socket, -1
        if not connected:
            return
        self._polled_fd = channel.socket.fileno()
        events = selectors.EVENT_READ if listening else 0
        self._watch(self._polled_fd, events | (selectors.EVENT_WRITE if channel.socket.pending else 0))

    def _watch_programs(self, may_read: bool) -> None:
        if may_read != self._may_read:
            self._may_read = may_read
            for one in self._connections.values():
                self._watch_program(one)

    def _watch_program(self, one: _Connection) -> None:
        read = selectors.EVENT_READ if self._may_read and one.reading else 0
        write = selectors.EVENT_WRITE if one.waiting else 0
        if one.source == one.sink:
            self._watch(one.source, read | write)
        else:
            self._watch(one.source, read)
            self._watch(one.sink, write)

    # ----------------------------------------------------------------------------------------- connections

    def _accept(self, now: float) -> None:
        assert self._listener is not None
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
            self._open(accepted.fileno(), accepted.fileno(), accepted)

    def _make_room(self) -> None:
        """Where nobody can say who is gone, end the one that has been quiet for longest."""
        long_ago = self._listened - _CROWDED_QUIET_SECONDS
        quiet = [one for one in self._closing.values() if one.heard <= long_ago]
        if quiet:
            oldest = min(quiet, key=lambda one: one.heard)
            self._finish(oldest)
            self._drop(oldest)

    def _open(self, source: int, sink: int, accepted: socket.socket | None) -> _Connection:
        number = self._mux.next()
        made = self._connections[number] = _Connection(number, source, sink, accepted, self._listened)
        self._unknown[number] = made
        self._by_fd[source] = self._by_fd[sink] = made
        self._watch_program(made)
        return made

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

    def _receive(self, data: bytes, now: float) -> None:
        self.received += len(data)
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

    def _read(self, one: _Connection, now: float) -> None:
        if len(self._out) >= _OUT_LIMIT:
            return  # its turn comes: the kernel names them in turn
        # Not before: what is sent of a connection comes after its SYN.
        if one.number in self._unknown:
            self._introduce(now)
        try:
            data = os.read(one.source, _READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # a reset
            self._broken(one, now)
            return
        if data:
            self._out += self._mux.data(one.number, data)
            return
        one.reading = False
        one.heard = self._listened
        if one is self._attached:
            self._finish(one)
            self._end(Ending.SOURCE, now)
        else:
            one.look_at = now
        self._closing[one.number] = one
        self._watch_program(one)
        self._settle(one, now)

    def _write(self, one: _Connection, now: float) -> None:
        try:
            written = os.write(one.sink, one.waiting)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._broken(one, now)
            return
        del one.waiting[:written]
        self._waiting -= written
        self._watch_program(one)
        if self._ending is not None:
            self._give_up = now + _LINGER  # a slow reader is a reader
        self._settle(one, now)

    def _settle(self, one: _Connection, now: float) -> None:
        """Do what the state of a connection asks for."""
        if one.answered and not one.waiting:
            if one is self._attached:
                self._end(Ending.CLOSED, now)
            self._finish(one)
            self._drop(one)
        elif self._is_gone(one, now):
            self._broken(one, now)
        elif one.finished:
            if self._listened - one.heard >= GONE_SECONDS and not one.waiting:
                self._drop(one)
        elif not one.reading and self._listened - one.heard >= QUIET_SECONDS:
            self._finish(one)

    def _is_gone(self, one: _Connection, now: float) -> bool:
        """Whether the program has closed its connection; asked now and then once it sends no more."""
        if one.socket is None or now < one.look_at:
            return False
        one.look_at = now + LOOK_SECONDS[min(one.looks, len(LOOK_SECONDS) - 1)]
        one.looks += 1
        closed = self._peers.closed(one.socket)
        if closed is None:
            one.look_at = now + QUIET_SECONDS
        return bool(closed)

    def _broken(self, one: _Connection, now: float) -> None:
        """The local program is gone."""
        if one is self._attached:
            self._end(Ending.SINK, now)
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
        for fd in {one.source, one.sink}:
            self._watch(fd, 0)
            del self._by_fd[fd]
        if one.socket is not None:
            one.socket.close()
            self._full_until = float("-inf")

    def _send(self, now: float) -> None:
        channel = self._channel
        while self._out and channel.window > 0:
            channel.send(bytes(self._out[:CHUNK]), now)
            del self._out[:CHUNK]
