"""Moves bytes between a data channel and a pair of descriptors until one of them ends."""

from __future__ import annotations

import os
import selectors
from typing import TYPE_CHECKING

from .loop import Ending, Loop
from .wire.stream import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .wire.channel import Channel

__all__ = ["Pump"]

_SINK_LIMIT = 1024 * 1024
"""Bytes that may wait for the sink."""
_SOCKET_LIMIT = 512 * 1024
"""Bytes that may wait for the websocket; above that nothing is read from the source."""


class Pump(Loop):
    """Copies `source` into the channel and the channel into `sink`.

    Args:
        channel: see `Loop`.
        source: a descriptor to read; not blocking.
        sink: a descriptor to write, and not the same number as `source`; not blocking.
        wake: see `Loop`.
        ending: see `Loop`.
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
        super().__init__(channel, selectors.PollSelector(), _SINK_LIMIT, wake, ending)
        self._source = source
        self._sink = sink
        self._on_turn = turn
        self._edit = edit
        self._ahead = ahead
        self._show = show
        self._farewell = farewell
        self._shown = bytearray()
        self._source_open = True
        self._sink_open = True

    def _turn(self, now: float) -> None:
        if self._ending is None:
            self._on_turn(now)

    def _unfinished(self) -> bool:
        # The source may still hold something that was written before an end was called.
        return bool(self._shown) or (self._source_open and self._channel.settled)

    def _prepare(self, _now: float) -> float:
        reading = self._may_read()
        self._watch(self._source, selectors.EVENT_READ if reading else 0)
        self._watch(self._sink, selectors.EVENT_WRITE if self._shown else 0)
        return 0.0 if reading and self._ending is Ending.STOPPED else float("inf")

    def _receive(self, data: bytes, _now: float) -> None:
        if self._sink_open:
            self._shown += self._show(data)
            self._waiting = len(self._shown)

    def _move(self, ready: Mapping[int, int], now: float) -> None:
        if self._channel.ready:
            self._turn(now)  # before the first output is shown
        if self._shown:
            self._write(now)
        if self._source in ready and self._may_read():
            self._read(now)
        elif self._ending is Ending.STOPPED and self._source in self._watched:
            self._source_open = False  # all that was there has been taken

    def _may_read(self) -> bool:
        channel = self._channel
        return (
            self._source_open
            and channel.closed is None
            and channel.ready
            and (channel.window > 0 or len(self._out) < self._ahead)
            and channel.socket.pending < _SOCKET_LIMIT
        )

    def _read(self, now: float) -> None:
        try:
            data = os.read(self._source, min(max(self._channel.window, 1), 64) * CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # a reset, or a terminal that hung up: an end as any other
            data = b""
        if not data:
            self._source_open = False
            self._source_ended(now)
        elif (edited := self._edit(data)) is not None:
            self._out += edited
        else:
            self._source_open = False
            self._end(Ending.STOPPED, now)

    def _source_ended(self, now: float) -> None:
        if self._farewell is None:
            self._end(Ending.SOURCE, now)
        else:
            self._out += self._farewell

    def _write(self, now: float) -> None:
        try:
            written = os.write(self._sink, self._shown)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._sink_open = False
            written = len(self._shown)
            self._end(Ending.SINK, now)
        del self._shown[:written]
        self._waiting = len(self._shown)
        self._was_read(now)
