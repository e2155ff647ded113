"""Connections through a port forwarding session: a loop over a data channel, a listener and what it accepts.

What the agent cannot do stays: it closes a connection to the port as a whole when we send no more (`port_mux.go`,
handleDataTransfer). So the end of a local program's output is told only when the answer has come to rest.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import ExitStatus, SmsshError
from .frames import FrameError
from .mux import Command, Mux
from .pump import Ending
from .stream import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable

    from .channel import ClientChannel

__all__ = ["Forwarder"]

QUIET_SECONDS = 5.0
"""How long nothing may have come before the end of a local program's output is told."""
GONE_SECONDS = 30.0
"""How long an ended connection is kept for the other side's end."""
_WAITING_LIMIT = 4 * 1024 * 1024
"""Bytes that may wait for local programs, all together; above that the channel is not read. smux 1 has no windows,
so that one program that does not read holds all others up: as with the agent, whose own limit is this."""
_OUT_LIMIT = 64 * 1024
"""Bytes that may wait for the channel's window; above that no local program is read."""
_READ = 16 * 1024
_CONNECTIONS = 200
"""Connections at a time; more wait in the listener's backlog."""
_LINGER = 5.0


@dataclass(eq=False)
class _Connection:
    """A local program's connection. Its two descriptors may be one."""

    number: int
    source: int
    sink: int
    socket: socket.socket | None
    heard: float
    waiting: bytearray = field(default_factory=bytearray)
    reading: bool = True
    """Whether the program may have more to say."""
    told: bool = False
    """Whether the agent has been told of it, perhaps at a time when it does not listen yet."""
    known: bool = False
    """Whether the agent is sure to know of it."""
    answered: bool = False
    """Whether the other side has said that it is done."""
    finished: float | None = None
    """When we have said so."""


class Forwarder:
    """Forwards until it is stopped, the session is closed, or the attached connection is over.

    Args:
        channel: an open channel; the handshake is done here, too. It isn't closed.
        listener: accepts connections; not blocking. None where one is attached.
        wake: a descriptor that ends it when it is readable, if `ending` says so.
        ending: asked then.
        on_ready: called when the handshake is over and the agent is sure to take what is sent.
        on_unreachable: called when the agent cannot connect to the port.
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
    ) -> None:
        self.received = 0
        """Bytes that came through the channel."""
        self._channel = channel
        self._listener = listener
        self._wake = wake
        self._asked_to_end = ending
        self._on_ready = on_ready
        channel.on_unreachable = on_unreachable
        self._mux = Mux()
        self._out = bytearray()
        self._connections: dict[int, _Connection] = {}
        self._attached: _Connection | None = None
        self._selector = selectors.PollSelector()
        self._said_ready = False
        self._ending: Ending | None = None
        self._give_up = float("inf")

    def attach(self, source: int, sink: int) -> None:
        """Forward one pair of descriptors, not blocking, until either side ends; instead of a listener."""
        self._attached = self._open(source, sink, None, time.monotonic())

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
            self._selector.close()
            for connection in list(self._connections.values()):
                self._drop(connection)
        return self._ending or Ending.CLOSED

    def _over(self, now: float) -> bool:
        channel = self._channel
        if channel.closed is None:
            channel.tick(now)
        if channel.closed is not None:
            self._end(Ending.CLOSED, now)
            return now >= self._give_up or not any(one.waiting for one in self._connections.values())
        self._introduce(now)
        if channel.settled and not self._said_ready:
            self._said_ready = True
            self._on_ready()
        for connection in list(self._connections.values()):
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
        channel.listening = sum(len(one.waiting) for one in self._connections.values()) < _WAITING_LIMIT
        connected = open_ and channel.cut is None
        listening = connected and channel.listening
        wanted: dict[int, int] = {}

        def want(fd: int, read: bool, write: bool = False) -> None:
            events = selectors.EVENT_READ * read | selectors.EVENT_WRITE * write
            if events:
                wanted[fd] = wanted.get(fd, 0) | events

        want(channel.socket.fileno(), listening, connected and bool(channel.socket.pending))
        may_open = open_ and channel.ready and len(self._out) < _OUT_LIMIT and self._ending is None
        may_read = may_open and channel.settled
        for one in self._connections.values():
            want(one.source, may_read and one.reading)
            want(one.sink, False, bool(one.waiting))
        if self._listener is not None and may_open and len(self._connections) < _CONNECTIONS:
            want(self._listener.fileno(), True)
        if self._wake is not None and self._ending is None:
            want(self._wake, True)
        for fd, events in wanted.items():
            self._selector.register(fd, events)
        try:
            ready = {key.fd: events for key, events in self._selector.select(self._timeout(now))}
        finally:
            for fd in wanted:
                self._selector.unregister(fd)
        now = time.monotonic()
        if self._wake is not None and self._wake in ready and self._asked_to_end():
            self._end(Ending.STOPPED, now)
        if listening and ready.get(channel.socket.fileno(), 0) & selectors.EVENT_READ:
            for data in channel.receive(now):
                self._receive(data, now)
        for one in list(self._connections.values()):
            if one.waiting:
                self._write(one, now)
            if may_read and one.reading and ready.get(one.source, 0) & selectors.EVENT_READ:
                self._read(one, now)
        if self._listener is not None and self._listener.fileno() in ready:
            self._accept(now)

    def _timeout(self, now: float) -> float:
        due = [self._give_up - now]
        if self._channel.closed is None:
            due.append(self._channel.timeout(now))
        due += [
            one.heard + QUIET_SECONDS - now if one.finished is None else GONE_SECONDS
            for one in self._connections.values()
            if not one.reading
        ]
        return max(0.0, min(due))

    def _accept(self, now: float) -> None:
        assert self._listener is not None
        try:
            accepted, _ = self._listener.accept()
        except OSError:
            return
        accepted.setblocking(False)
        with contextlib.suppress(OSError):
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open(accepted.fileno(), accepted.fileno(), accepted, now)

    def _open(self, source: int, sink: int, accepted: socket.socket | None, now: float) -> _Connection:
        number = self._mux.next()
        made = self._connections[number] = _Connection(number, source, sink, accepted, now)
        return made

    def _introduce(self, now: float) -> None:
        """Tell the agent of connections.

        Before the channel is settled too, so that a server that speaks first is heard at once; but what is sent then
        may be lost, and is sent again. The agent passes over a second SYN (`recvLoop` in smux's session.go).
        """
        channel = self._channel
        if not channel.ready:
            return
        for one in self._connections.values():
            if one.known:
                continue
            if channel.settled:
                one.known = True
                self._out += self._mux.open(one.number)
            elif not one.told:
                one.told = True
                channel.send(self._mux.open(one.number), now)

    def _receive(self, data: bytes, now: float) -> None:
        self.received += len(data)
        for frame in self._mux.feed(data):
            one = self._connections.get(frame.connection)
            if one is None:
                continue  # of one that is over here
            one.heard = now
            one.known = True
            if frame.command is Command.PSH:
                one.waiting += frame.data
            elif frame.command is Command.FIN:
                one.answered = True

    def _read(self, one: _Connection, now: float) -> None:
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
        one.heard = now
        if one is self._attached:
            self._finish(one, now)
            self._end(Ending.SOURCE, now)

    def _write(self, one: _Connection, now: float) -> None:
        try:
            written = os.write(one.sink, one.waiting)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._broken(one, now)
            return
        del one.waiting[:written]
        if self._ending is not None:
            self._give_up = now + _LINGER  # a slow reader is a reader

    def _settle(self, one: _Connection, now: float) -> None:
        """Do what the state of a connection asks for."""
        if one.answered and not one.waiting:
            if one is self._attached:
                self._end(Ending.CLOSED, now)
            self._finish(one, now)
            self._drop(one)
        elif not one.reading and one.finished is None and now - one.heard >= QUIET_SECONDS:
            self._finish(one, now)
        elif one.finished is not None and now - one.finished >= GONE_SECONDS:
            self._drop(one)

    def _broken(self, one: _Connection, now: float) -> None:
        """The local program is gone."""
        if one is self._attached:
            self._end(Ending.SINK, now)
        self._finish(one, now)
        self._drop(one)

    def _finish(self, one: _Connection, now: float) -> None:
        if one.finished is None:
            one.finished = now
            one.reading = False
            self._out += self._mux.finish(one.number)

    def _drop(self, one: _Connection) -> None:
        self._connections.pop(one.number, None)
        if one.socket is not None:
            one.socket.close()

    def _send(self, now: float) -> None:
        channel = self._channel
        while self._out and channel.window > 0:
            channel.send(bytes(self._out[:CHUNK]), now)
            del self._out[:CHUNK]
