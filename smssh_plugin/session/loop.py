"""The event loop of a session: a data channel and what a kind of session moves through it, in one thread."""

from __future__ import annotations

import contextlib
import enum
import os
import selectors
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ..errors import ExitStatus, SmsshError
from .wire.frames import FrameError
from .wire.stream import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .wire.channel import Channel

__all__ = ["Ending", "Loop", "nonblocking"]

_LINGER = 5.0
"""Seconds that the peer has to acknowledge the rest, or a local program to read on, after the end."""
_LINGER_STOPPED = 1.0
"""The same after a signal, a request to end or a broken sink: the user waits for the end."""
_ANSWERS_LIMIT = 4 * 1024 * 1024
"""Bytes that may wait for the websocket; above that it is not read. Only a peer that sends without end and reads
nothing comes near it: all that an honest one can make us say is a window's worth of acknowledgements."""


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
    """Why a loop ended."""

    SOURCE = "the source ended"
    SINK = "nobody reads the sink any more"
    CLOSED = "the session was closed; see `Channel.closed`"
    STOPPED = "the wake descriptor became readable, or `edit` said so"


class Loop(ABC):
    """Runs a data channel until its end. Subclasses move the bytes of local programs.

    Args:
        channel: an open channel; the loop does its handshake too. It isn't closed.
        selector: waits for descriptors; not epoll where one may be a regular file.
        limit: bytes that may wait for local programs; above that the channel is not read, so that TCP holds the peer
            back.
        wake: a descriptor that ends the loop when it is readable, if `ending` says so.
        ending: asked then; it has to take what is there to read if it says no.
    """

    def __init__(
        self,
        channel: Channel,
        selector: selectors.BaseSelector,
        limit: int,
        wake: int | None,
        ending: Callable[[], bool],
    ) -> None:
        self.received = 0
        """Bytes that came through the channel."""
        self._channel = channel
        self._selector = selector
        self._limit = limit
        self._wake = wake
        self._asked_to_end = ending
        self._out = bytearray()
        """Bytes that wait for the channel's window."""
        self._waiting = 0
        """Bytes that wait for local programs, in all."""
        self._listened = 0.0
        """Seconds spent waiting for something to read from the channel: the clock of what is quiet."""
        self._watched: dict[int, int] = {}
        self._polled: object = None
        self._polled_fd = -1
        """The channel's socket that is watched, which is another one after each cut."""
        self._ending: Ending | None = None
        self._give_up = float("inf")

    def run(self) -> Ending:
        """Run until the end. What was received is written first, if local programs take it.

        Raises:
            SmsshError: see `Channel`.
        """
        try:
            while not self._over(time.monotonic()):
                self._step()
        except FrameError as error:
            raise SmsshError(
                f"the session broke the protocol: {error}",
                reference="session-protocol",
                status=ExitStatus.UNREACHABLE,
            ) from error
        finally:
            self._release()
        return self._ending or Ending.CLOSED

    # --------------------------------------------------------------------------------- what subclasses add

    @abstractmethod
    def _turn(self, now: float) -> None:
        """Do what is due; called in each turn once the handshake is over."""

    @abstractmethod
    def _prepare(self, now: float) -> float:
        """Watch the descriptors of local programs; the seconds until there is something to do without them."""

    @abstractmethod
    def _receive(self, data: bytes, now: float) -> None:
        """Take what came through the channel."""

    @abstractmethod
    def _move(self, ready: Mapping[int, int], now: float) -> None:
        """Read and write local programs: the events of the descriptors that are ready."""

    def _unfinished(self) -> bool:
        """Whether there is more to do after an end than to have everything acknowledged."""
        return False

    def _release(self) -> None:
        self._selector.close()

    # ------------------------------------------------------------------------------------------- one turn

    def _over(self, now: float) -> bool:
        channel = self._channel
        if channel.closed is None:
            channel.tick(now)
        if channel.closed is not None:
            self._end(Ending.CLOSED, now)
            return now >= self._give_up or not self._waiting
        if channel.ready:
            self._turn(now)
        self._send(now)
        channel.flush()
        if self._ending is None:
            return False
        if channel.cut is not None and self._ending is Ending.SOURCE:
            self._give_up = now + _LINGER  # the rest is still to be sent
        busy = self._out or not channel.stream.idle or channel.socket.pending or self._unfinished()
        return now >= self._give_up or not busy

    def _step(self) -> None:
        channel = self._channel
        now = time.monotonic()
        # Not while a peer takes no answers: one that lives would, so that its silence counts all the same.
        channel.listening = self._waiting < self._limit
        self._watch_channel()
        if self._wake is not None:
            self._watch(self._wake, selectors.EVENT_READ if self._ending is None else 0)
        due = min(self._prepare(now), self._give_up - now)
        if channel.closed is None:
            due = min(due, channel.timeout(now))
        ready = {key.fd: events for key, events in self._selector.select(max(0.0, due))}
        before, now = now, time.monotonic()
        if self._hears:
            self._listened += now - before
        if self._wake is not None and ready.pop(self._wake, 0) and self._asked_to_end():
            self._end(Ending.STOPPED, now)
        if self._polled_fd >= 0 and ready.pop(self._polled_fd, 0) & selectors.EVENT_READ:
            for data in channel.receive(now):
                self.received += len(data)
                self._receive(data, now)
            self._watch_channel()  # its descriptor may be another connection's in a moment
        self._move(ready, now)

    @property
    def _hears(self) -> bool:
        """Whether the channel is read, as of the last look."""
        channel = self._channel
        return channel.listening and channel.cut is None and channel.closed is None

    def _send(self, now: float) -> None:
        channel = self._channel
        while self._out and channel.window > 0:
            channel.send(bytes(self._out[:CHUNK]), now)
            del self._out[:CHUNK]

    def _end(self, ending: Ending, now: float) -> None:
        if self._ending is None:
            self._ending = ending
        linger = _LINGER
        if ending in (Ending.SINK, Ending.STOPPED):
            linger = _LINGER_STOPPED
            self._channel.resumable = False  # nobody waits for what a new connection would bring
        self._give_up = min(self._give_up, now + linger)

    def _was_read(self, now: float) -> None:
        """Note that a local program took something: after the session's end, a slow reader is a reader."""
        if self._ending is Ending.CLOSED:
            self._give_up = now + _LINGER

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

    def _watch_channel(self) -> None:
        channel = self._channel
        connected = channel.cut is None and channel.closed is None
        if self._polled is not channel.socket or not connected:
            if self._polled_fd >= 0:
                self._watch(self._polled_fd, 0)
            self._polled, self._polled_fd = channel.socket, -1
        if not connected:
            return
        self._polled_fd = channel.socket.fileno()
        pending = channel.socket.pending
        read = selectors.EVENT_READ if channel.listening and pending < _ANSWERS_LIMIT else 0
        self._watch(self._polled_fd, read | (selectors.EVENT_WRITE if pending else 0))
