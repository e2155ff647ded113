"""One data channel's two reliable streams: numbers, acknowledgements, resends, order; no input or output.

The client and the fake agent use the same rules, mirrored. They are those of amazon-ssm-agent's and
session-manager-plugin's `datachannel.go`: every message but `acknowledge` has the next sequence number of
its side, is acknowledged one by one, is delivered in order, and only the oldest unacknowledged one is sent
again.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass

from .frames import FrameError, Message, MessageType, PayloadType

__all__ = ["CHUNK", "WINDOW", "Stream", "StreamLostError"]

CHUNK = 1024
"""Bytes of payload in a message: what the agent and the plugin send (`StreamDataPayloadSize`)."""
WINDOW = 256
"""Unacknowledged messages that we have under way at most. The peer's buffer takes 10,000."""
INCOMING_LIMIT = 10_000
"""Messages that came early and are kept; more are not acknowledged, so they come again."""
INCOMING_BYTES = 16 * 1024 * 1024
"""Bytes of theirs, likewise."""

_RTO_START = 0.2
_RTO_MAX = 1.0
_RTO_GRANULARITY = 0.010
_RTT_START = 0.1
_GIVE_UP = 300.0
"""Seconds after which an unacknowledged message ends the session; 3000 resends at 100 ms in the plugin."""
_ACKNOWLEDGE_FLAGS = 3


class StreamLostError(Exception):
    """The peer has acknowledged nothing for too long."""


@dataclass(slots=True)
class _Unacknowledged:
    frame: bytes
    first: float
    last: float
    resent: bool = False


class Stream:
    """The state of one side of a data channel. Times are seconds of one monotonic clock, which the caller reads.

    What is to be put on the wire collects in `outgoing`; the caller takes it from there. A stream outlives
    the websocket under it: after a reconnect call `resend_all()`.

    Args:
        sends: the message type of our stream: `input_stream_data` for a client, `output_stream_data` for an
            agent.
        receives: the message type of the peer's stream.
    """

    def __init__(self, *, sends: str, receives: str) -> None:
        self.outgoing: deque[bytes] = deque()
        self.paused = False
        """The service asked us to hold our stream back (`pause_publication`)."""
        self.confirmed = False
        """Whether the peer has gone on after its HandshakeComplete: it sent more, or sent that again."""
        self._complete: Message | None = None  # the HandshakeComplete, until then unacknowledged
        self._sends = sends
        self._receives = receives
        self._next = 0
        self._unacknowledged: dict[int, _Unacknowledged] = {}
        self._expected = 0
        self._early: dict[int, Message] = {}
        self._early_bytes = 0
        self._excused = float("-inf")
        self._rtt = _RTT_START
        self._rtt_variation = 0.0
        self._rto = _RTO_START

    @property
    def idle(self) -> bool:
        """Whether everything that was sent has been acknowledged."""
        return not self._unacknowledged

    @property
    def window(self) -> int:
        """How many messages may be sent now."""
        return 0 if self.paused else max(0, WINDOW - len(self._unacknowledged))

    def send(self, payload: bytes, payload_type: int, now: float) -> None:
        """Give `payload` the next number and put it out."""
        message = Message.new(
            self._sends,
            payload,
            payload_type=payload_type,
            sequence=self._next,
            # The agent marks the first message of its stream (SYN); readers do not look at it.
            flags=1 if self._next == 0 and self._sends == MessageType.OUTPUT else 0,
        )
        frame = message.encode()
        self._unacknowledged[self._next] = _Unacknowledged(frame, now, now)
        self._next += 1
        self.outgoing.append(frame)

    def receive(self, message: Message, now: float) -> list[Message]:
        """Take a message of the peer or of the service.

        Returns:
            What is the caller's to act on, in order: the peer's stream, and whatever is not part of it
            (`channel_closed`, ...).

        Raises:
            FrameError: an invalid acknowledgement.
        """
        if message.type == self._receives:
            return self._receive_data(message)
        if message.type == MessageType.ACKNOWLEDGE:
            self._receive_acknowledgement(message, now)
        elif message.type == MessageType.PAUSE_PUBLICATION:
            self.paused = True
        elif message.type == MessageType.START_PUBLICATION:
            self.paused = False
        else:
            return [message]
        return []

    def excuse(self, now: float) -> None:
        """Hold no time before `now` against the peer: its acknowledgements were not read."""
        self._excused = now

    def resend_due(self, now: float) -> None:
        """Put the oldest unacknowledged message out again if its time has come.

        Raises:
            StreamLostError: it has been tried for 300 s.
        """
        oldest = self._oldest()
        if oldest is None or self.paused:
            return
        if now - max(oldest.first, self._excused) > _GIVE_UP:
            raise StreamLostError(f"no acknowledgement for {_GIVE_UP:.0f} s")
        if now - oldest.last >= self._rto:
            oldest.last = now
            oldest.resent = True
            self.outgoing.append(oldest.frame)

    def resend_all(self, now: float) -> None:
        """Put everything unacknowledged out again, oldest first: the connection below is a new one."""
        self.outgoing.clear()
        for entry in self._unacknowledged.values():
            entry.last = now
            entry.resent = True
            self.outgoing.append(entry.frame)

    def timeout(self, now: float) -> float | None:
        """Seconds until `resend_due` has something to do; None if nothing is under way."""
        oldest = self._oldest()
        return None if oldest is None or self.paused else max(0.0, oldest.last + self._rto - now)

    def _oldest(self) -> _Unacknowledged | None:
        # Numbers are assigned in order and a dict keeps it, so that the first entry is the oldest.
        return next(iter(self._unacknowledged.values()), None)

    def _receive_data(self, message: Message) -> list[Message]:
        if message.sequence < self._expected:
            self._acknowledge(message)  # its acknowledgement was lost
            if message.payload_type == PayloadType.HANDSHAKE_COMPLETE:
                self.confirmed, self._complete = True, None
            return []
        if message.sequence > self._expected:
            if message.sequence in self._early:
                self._acknowledge(message)
            elif len(self._early) < INCOMING_LIMIT and self._early_bytes < INCOMING_BYTES:
                self._early[message.sequence] = message
                self._early_bytes += len(message.payload)
                self._acknowledge(message)
            return []
        if message.payload_type == PayloadType.HANDSHAKE_COMPLETE and not self.confirmed:
            self._complete = message
        else:
            self._acknowledge(message)
        ready = [message]
        self._expected += 1
        while self._early and (following := self._early.pop(self._expected, None)) is not None:
            ready.append(following)
            self._early_bytes -= len(following.payload)
            self._expected += 1
        if self._complete is not None and self._expected > self._complete.sequence + 1:
            self.confirm()
        # The agent resumes on any input, without a start_publication.
        self.paused = False
        return ready

    def confirm(self) -> None:
        """Wait no longer for a sign that the peer has gone on after its HandshakeComplete: acknowledge it."""
        self.confirmed = True
        if self._complete is not None:
            self._acknowledge(self._complete)
            self._complete = None

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
            body = json.loads(message.payload)
            type_, sequence = body["AcknowledgedMessageType"], int(body["AcknowledgedMessageSequenceNumber"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise FrameError(f"not an acknowledgement: {error!r}") from None
        if type_ != self._sends:
            return
        entry = self._unacknowledged.pop(sequence, None)
        if entry is None or entry.resent:
            return  # which of the sendings was acknowledged is not known, so that it measures nothing (Karn)
        sample = now - entry.first
        self._rtt_variation += (abs(sample - self._rtt) - self._rtt_variation) / 4
        self._rtt += (sample - self._rtt) / 8
        self._rto = min(_RTO_MAX, self._rtt + max(_RTO_GRANULARITY, 4 * self._rtt_variation))
