"""The agent's two reliable streams over a data channel: numbers, acknowledgements, resends, order.

Written after the real agent's `agent/session/datachannel/datachannel.go`, and on purpose not with the
client's `session.wire.stream`: a mistake that both ends share is found by nobody. Where an agent differs from a
client: it acknowledges a message only when somebody took it, it goes on after `pause_publication` when it
hears anything of the client, and it never gives up sending again.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...session.wire.frames import FrameError, Message, MessageType

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CHUNK", "Stream"]

CHUNK = 1024
"""Bytes of payload in a message (`StreamDataPayloadSize`)."""
WINDOW = 64
"""Unacknowledged messages from which on no more output is read.

The real agent has no such bound but its pace of a message a millisecond, which has about as many under way.
"""
CONGESTED = 4 * WINDOW
"""Unacknowledged messages from which on no more input is taken: some of it is answered at once."""
EARLY_MAX = 100_000
"""Messages ahead of the next one that are kept (`IncomingMessageBufferCapacity`)."""
EARLY_BYTES_MAX = 100 * 1024 * 1024
"""And their bytes: what 100,000 messages of a real client come to."""

_RTT_START = 0.1
_RTO_START = 0.2
_RTO_MAX = 1.0
_CLOCK = 0.010
_ACKNOWLEDGE_FLAGS = 3
_FIRST_FLAG = 1


@dataclass
class _Sent:
    frame: bytes
    last: float


class Stream:
    """The state of the agent's side. Times are seconds of one monotonic clock.

    What is to be put on the wire collects in `outgoing`; the caller takes it from there. It outlives the
    websocket under it.

    Args:
        take: is given each message of the client's stream in its turn; whether it was taken. One that was not
            is not acknowledged, so that the client sends it again.
    """

    def __init__(self, take: Callable[[Message], bool]) -> None:
        self.outgoing: deque[bytes] = deque()
        self.paused = False
        """The service asked to hold back what is sent."""
        self._take = take
        self._next = 0
        self._sent: dict[int, _Sent] = {}
        self._expected = 0
        self._early: dict[int, Message] = {}
        self._early_bytes = 0
        self._rtt = _RTT_START
        self._variation = 0.0
        self._rto = _RTO_START

    @property
    def idle(self) -> bool:
        """Whether everything that was sent has been acknowledged."""
        return not self._sent

    @property
    def open(self) -> bool:
        """Whether output is to be read, and sent."""
        return not self.paused and len(self._sent) < WINDOW

    @property
    def congested(self) -> bool:
        """Whether the client asks for more than it listens to, so that nothing more should be done for it."""
        return len(self._sent) >= CONGESTED

    def send(self, payload_type: int, payload: bytes, now: float) -> None:
        """Give a payload the next number and put it out; while paused it waits for its resend."""
        message = Message.new(
            MessageType.OUTPUT,
            payload,
            payload_type=payload_type,
            sequence=self._next,
            flags=_FIRST_FLAG if self._next == 0 else 0,
        )
        frame = message.encode()
        self._sent[self._next] = _Sent(frame, now)
        self._next += 1
        if not self.paused:
            self.outgoing.append(frame)

    def receive(self, message: Message, now: float) -> None:
        """Act on a message of the client's stream, an acknowledgement, or a pause; others are passed over.

        Raises:
            FrameError: it is not an acknowledgement.
        """
        if message.type == MessageType.INPUT:
            self.paused = False
            self._receive_data(message)
        elif message.type == MessageType.ACKNOWLEDGE:
            self.paused = False
            self._receive_acknowledgement(message, now)
        elif message.type == MessageType.PAUSE_PUBLICATION:
            self.paused = True
        elif message.type == MessageType.START_PUBLICATION:
            self.paused = False

    def resend_due(self, now: float) -> None:
        """Put the oldest unacknowledged message out again if its time has come, and none but that."""
        oldest = self._oldest()
        if oldest is not None and not self.paused and now - oldest.last >= self._rto:
            oldest.last = now
            self.outgoing.append(oldest.frame)

    def timeout(self, now: float) -> float | None:
        """Seconds until `resend_due` has something to do; None if nothing is under way."""
        oldest = self._oldest()
        return None if oldest is None or self.paused else max(0.0, oldest.last + self._rto - now)

    def _oldest(self) -> _Sent | None:
        # Numbers are given in order and a dict keeps it.
        return next(iter(self._sent.values()), None)

    def _receive_data(self, message: Message) -> None:
        if message.sequence < self._expected:
            self._acknowledge(message)  # its acknowledgement was lost
        elif message.sequence > self._expected:
            self._keep(message)
        elif self._take(message):
            self._acknowledge(message)
            self._expected += 1
            self.take_early()

    def _keep(self, message: Message) -> None:
        """Keep a message that came before its turn; where there is no room, it has to come again."""
        if message.sequence not in self._early:
            size = len(message.payload)
            if len(self._early) >= EARLY_MAX or self._early_bytes + size > EARLY_BYTES_MAX:
                return
            self._early[message.sequence] = message
            self._early_bytes += size
        self._acknowledge(message)

    def take_early(self) -> None:
        """Give away what came before its turn, as far as it is taken now.

        It has been acknowledged: nothing that the client sends asks for it again, so that a caller that did not take it
        has to be asked.
        """
        while (following := self._early.get(self._expected)) is not None and self._take(following):
            del self._early[self._expected]
            self._early_bytes -= len(following.payload)
            self._expected += 1

    def _acknowledge(self, message: Message) -> None:
        body = {
            "AcknowledgedMessageType": message.type,
            "AcknowledgedMessageId": str(message.id),
            "AcknowledgedMessageSequenceNumber": message.sequence,
            "IsSequentialMessage": True,
        }
        self.outgoing.append(Message.of(MessageType.ACKNOWLEDGE, body, flags=_ACKNOWLEDGE_FLAGS).encode())

    def _receive_acknowledgement(self, message: Message, now: float) -> None:
        try:
            sequence = json.loads(message.payload)["AcknowledgedMessageSequenceNumber"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FrameError(f"not an acknowledgement: {error!r}") from None
        if not isinstance(sequence, int):
            raise FrameError("not an acknowledgement: its sequence number is not a number")
        sent = self._sent.pop(sequence, None)
        if sent is not None:
            sample = now - sent.last
            self._variation = 0.75 * self._variation + 0.25 * abs(self._rtt - sample)
            self._rtt = 0.875 * self._rtt + 0.125 * sample
            self._rto = min(_RTO_MAX, self._rtt + max(_CLOCK, 4 * self._variation))
