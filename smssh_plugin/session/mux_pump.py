"""A pump through a session whose stream carries several connections, of which it makes one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .loop import Ending
from .pump import Pump
from .wire.smux import Command, Mux

if TYPE_CHECKING:
    from collections.abc import Callable

    from .wire.channel import Channel

__all__ = ["MuxPump"]


class MuxPump(Pump):
    """Copies between a pair of descriptors and one connection of a port forwarding session, until either side ends.

    The arguments are those of `Pump`.
    """

    def __init__(
        self,
        channel: Channel,
        source: int,
        sink: int,
        *,
        wake: int | None = None,
        ending: Callable[[], bool] = lambda: True,
    ) -> None:
        self._mux = Mux()
        self._number = self._mux.next()
        self._told = False
        """Whether the agent has been told of the connection, perhaps at a time when it does not listen yet."""
        self._known = False
        """Whether the agent is sure to know of it."""
        self._answered = False
        """Whether the other side has said that it is done."""
        super().__init__(
            channel, source, sink, wake=wake, ending=ending, turn=self._introduce, edit=self._framed
        )

    def _framed(self, data: bytes) -> bytes:
        return self._mux.data(self._number, data)

    def _introduce(self, now: float) -> None:
        """Tell the agent of the connection, twice where it may have missed it; see `Forwarder._introduce`."""
        settled = self._channel.settled
        if not self._known and (settled or not self._told):
            self._channel.send(self._mux.open(self._number), now)
        self._told, self._known = True, self._known or settled
        if self._answered and not self._shown:
            self._source_open = False
            self._out += self._mux.finish(self._number)
            self._end(Ending.CLOSED, now)

    def _receive(self, data: bytes, _now: float) -> None:
        for frame in self._mux.feed(data):
            if frame.connection == self._number:
                self._known = True
                self._answered = self._answered or frame.command is Command.FIN
                super()._receive(frame.data, _now)

    def _source_ended(self, now: float) -> None:
        self._out += self._mux.finish(self._number)
        self._end(Ending.SOURCE, now)
