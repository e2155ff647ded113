"""Moves bytes between a data channel and a pair of descriptors, in one thread, until one of them ends."""

from __future__ import annotations

import contextlib
import enum
import os
import selectors
import time
from typing import TYPE_CHECKING

from .wire.stream import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .wire.channel import Channel

__all__ = ["Ending", "Pump", "nonblocking"]

_SINK_LIMIT = 1024 * 1024
"""Bytes that may wait for the sink; above that the channel is not read, so that TCP holds the peer back."""
_SOCKET_LIMIT = 512 * 1024
"""Bytes that may wait for the websocket; above that nothing is read from the source."""
_ANSWERS_LIMIT = 4 * 1024 * 1024
"""The same for reading the websocket. Only a peer that sends without end and reads nothing comes near it: all that
an honest one can make us say is a window's worth of acknowledgements."""
_LINGER = 5.0
"""Seconds that the peer has to acknowledge the rest after the source ended."""
_LINGER_STOPPED = 1.0
"""The same after a signal, a word to end or a broken sink: somebody waits for us to end."""


@contextlib.contextmanager
def nonblocking(*fds: int) -> Iterator[None]:
    """Reads and writes do not block in this block. Restored after it: a terminal's descriptors are shared."""
    before = [(fd, os.get_blocking(fd)) for fd in fds]
    try:
        for fd in fds:
            os.set_blocking(fd, False)
        yield
    finally:
        for fd, blocking in before:
            os.set_blocking(fd, blocking)


class Ending(enum.Enum):
    """Why a pump ended."""

    SOURCE = "the source ended"
    SINK = "nobody reads the sink any more"
    CLOSED = "the session was closed; see `Channel.closed`"
    STOPPED = "the wake descriptor became readable, or `edit` said so"


class Pump:
    """Copies `source` into the channel and the channel into `sink`.

    Args:
        channel: an open channel; the pump does its handshake too. It isn't closed.
        source: a descriptor to read; not blocking.
        sink: a descriptor to write, and not the same number as `source`; not blocking.
        wake: a descriptor that ends the pump when it is readable, if `ending` says so.
        ending: asked then; it has to take what is there to read if it says no.
        turn: called with the time in each turn once the handshake is over.
        edit: makes what is sent of what was read; None ends the pump.
        ahead: bytes that may be read before they can be sent, so that `edit` sees them.
        show: makes what is written of what came.
        farewell: is sent at the end of the source, which does not end the pump then.
    """

    def __init__(
        self,
        channel: Channel,
        source: int,
        sink: int,
        *,
        wake: int | None = None,
        ending: Callable[[], bool] = lambda: True,
        turn: Callable[[float], None] = lambda _now: None,
        edit: Callable[[bytes], bytes | None] = lambda data: data,
        ahead: int = 0,
        show: Callable[[bytes], bytes] = lambda data: data,
        farewell: bytes | None = None,
    ) -> None:
        self.received = 0
        """Bytes that came through the channel."""
        self._channel = channel
        self._source = source
        self._sink = sink
        self._wake = wake
        self._asked_to_end = ending
        self._turn = turn
        self._edit = edit
        self._ahead = ahead
        self._show = show
        self._farewell = farewell
        self._unsent = bytearray()
        self._waiting = bytearray()
        self._source_open = True
        self._sink_open = True
        self._ending: Ending | None = None
        self._give_up = float("inf")
        self._selector = selectors.PollSelector()  # not epoll: stdin may be a regular file
        self._watched: dict[int, int] = {}

    def run(self) -> Ending:
        """Pump until the end. Whatever was received is written to the sink first, if the sink takes it.

        Raises:
            SmsshError: see `Channel`.
        """
        try:
            while not self._over(time.monotonic()):
                self._step()
        finally:
            self._selector.close()
        assert self._ending is not None
        return self._ending

    def _over(self, now: float) -> bool:
        channel = self._channel
        if channel.closed is None:
            self._send(now)
            channel.tick(now)
        if channel.closed is not None:
            self._end(Ending.CLOSED, now, _LINGER)
            return not self._waiting or now >= self._give_up
        if self._ending is None:
            if channel.ready:
                self._turn(now)
            return False
        if channel.cut is not None and self._ending is Ending.SOURCE:
            self._give_up = now + _LINGER  # the rest is still to be sent
        return now >= self._give_up or (
            channel.stream.idle
            and not channel.socket.pending
            and not (self._waiting or self._unsent or self._readable)
        )

    @property
    def _readable(self) -> bool:
        """Whether the source may hold something still that was written before an end was called."""
        return self._source_open and self._channel.settled

    def _step(self) -> None:
        channel = self._channel
        now = time.monotonic()
        read, write = selectors.EVENT_READ, selectors.EVENT_WRITE
        open_ = channel.closed is None
        connected = open_ and channel.cut is None
        # Not while a peer takes no answers: one that lives would, so that its silence counts all the same.
        channel.listening = len(self._waiting) < _SINK_LIMIT
        listening = connected and channel.listening and channel.socket.pending < _ANSWERS_LIMIT
        wanted = {
            channel.socket.fileno(): (read if listening else 0)
            | (write if connected and channel.socket.pending else 0),
            self._source: read if self._may_read() else 0,
            self._sink: write if self._waiting else 0,
        }
        if self._wake is not None:
            wanted[self._wake] = read if self._ending is None else 0
        self._watch(wanted)
        timeout = min(channel.timeout(now) if open_ else _LINGER, self._give_up - now)
        last_read = self._ending is Ending.STOPPED and bool(wanted[self._source])
        if last_read:
            timeout = 0.0
        ready = {key.fd: events for key, events in self._selector.select(max(0.0, timeout))}
        now = time.monotonic()
        if self._wake is not None and self._wake in ready and self._asked_to_end():
            self._end(Ending.STOPPED, now, _LINGER_STOPPED)
        if listening and ready.get(channel.socket.fileno(), 0) & read:
            for data in channel.receive(now):
                self.received += len(data)
                if self._sink_open:
                    self._waiting += self._show(data)
            if channel.ready:
                self._turn(now)  # before the first output is shown
        if self._waiting:
            self._write(now)
        if self._source in ready and self._may_read():
            self._read(now)
        elif last_read:
            self._source_open = False  # all that was there has been taken

    def _watch(self, wanted: dict[int, int]) -> None:
        if wanted == self._watched:
            return
        for fd in self._watched.keys() - wanted.keys():
            if self._watched[fd]:
                self._selector.unregister(fd)
        for fd, events in wanted.items():
            before = self._watched.get(fd, 0)
            if events and not before:
                self._selector.register(fd, events)
            elif before and not events:
                self._selector.unregister(fd)
            elif events != before:
                self._selector.modify(fd, events)
        self._watched = wanted

    def _may_read(self) -> bool:
        channel = self._channel
        return (
            self._source_open
            and channel.closed is None
            and channel.ready
            and (channel.window > 0 or len(self._unsent) < self._ahead)
            and channel.socket.pending < _SOCKET_LIMIT
        )

    def _read(self, now: float) -> None:
        channel = self._channel
        try:
            data = os.read(self._source, min(max(channel.window, 1), 64) * CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # a reset, or a terminal that hung up: an end as any other
            data = b""
        edited = self._edit(data) if data else self._farewell
        if not data:
            self._source_open = False
        if edited is None:
            self._source_open = False
            if data:
                self._end(Ending.STOPPED, now, _LINGER_STOPPED)
            else:
                self._end(Ending.SOURCE, now, _LINGER)
            return
        self._unsent += edited
        self._send(now)

    def _send(self, now: float) -> None:
        channel = self._channel
        while self._unsent and channel.window > 0:
            channel.send(bytes(self._unsent[:CHUNK]), now)
            del self._unsent[:CHUNK]

    def _write(self, now: float) -> None:
        try:
            written = os.write(self._sink, self._waiting)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._sink_open = False
            self._waiting.clear()
            self._end(Ending.SINK, now, _LINGER_STOPPED)
            return
        del self._waiting[:written]
        if self._ending is Ending.CLOSED:
            self._give_up = now + _LINGER  # a slow reader is a reader

    def _end(self, ending: Ending, now: float, linger: float) -> None:
        if self._ending is None:
            self._ending = ending
        if ending in (Ending.SINK, Ending.STOPPED):
            self._channel.resumable = False  # nobody waits for what a new connection would bring
        self._give_up = min(self._give_up, now + linger)
