"""Any sequence of cuts, in a model: the client's channel and the agent's stream over a wire that is cut anywhere.

Time and network are simulated, so that thousands of sequences are tried: cuts after any number of messages of either
way, several in a row, in the handshake, right after a connection was resumed; connections and ResumeSession calls
that fail; an agent that throws its first input away.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smssh_plugin.errors import SmsshError
from smssh_plugin.local.agent.agent_stream import Stream as AgentStream
from smssh_plugin.session.wire import channel as channels
from smssh_plugin.session.wire.channel import ClientChannel, Opening
from smssh_plugin.session.wire.frames import Message, PayloadType
from smssh_plugin.session.wire.websocket import WebSocketClosedError, WebSocketRefusedError
from tests.session.peer import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECES = 12
STEP = 0.02
MOST_SECONDS = 400.0


@dataclass(frozen=True)
class Cut:
    """What happens to one connection, and to the attempts to have the next.

    Args:
        sent: messages of the client that still arrive.
        received: messages for the client that still arrive.
        code: the close code; None: a cut.
        refused: attempts to open the next connection that fail.
        failed: ResumeSession calls that fail before it.
    """

    sent: int
    received: int
    code: int | None
    refused: int
    failed: int


cuts = st.lists(
    st.builds(
        Cut,
        sent=st.integers(0, 12),
        received=st.integers(0, 12),
        code=st.sampled_from([None, 1000, 1001, 1006, 1011]),
        refused=st.integers(0, 2),
        failed=st.integers(0, 2),
    ),
    max_size=7,
)


class Socket:
    """The client's websocket, as far as the wire lets through what it sends."""

    def __init__(self, wire: Wire, cut: Cut | None) -> None:
        self._wire = wire
        self._cut = cut
        self._left = [cut.sent, cut.received] if cut is not None else [10**9, 10**9]
        self._queue: list[bytes] = []
        self.arrived: deque[bytes] = deque()
        self.last_received = wire.now
        self.gone = False

    @property
    def pending(self) -> int:
        return 0

    def _end(self) -> WebSocketClosedError:
        code = self._cut.code if self._cut is not None else None
        return WebSocketClosedError(code, "Bye")

    def send_binary(self, data: bytes) -> None:
        self._queue.append(data)

    def ping(self) -> None:
        pass

    def flush(self) -> None:
        queue, self._queue = self._queue, []
        for data in queue:
            if self._left[0] > 0:
                self._left[0] -= 1
                self._wire.to_agent.append(data)
            else:
                self.gone = True  # what is written before the cut is noticed is lost
        if self.gone and self._cut is not None and self._cut.sent % 2:
            raise self._end()  # it is noticed by writing, or by reading

    def deliver(self, data: bytes) -> None:
        if self._left[1] > 0 and not self.gone:
            self._left[1] -= 1
            self.arrived.append(data)
        else:
            self.gone = True

    def receive(self) -> list[bytes]:
        if not self.arrived and (self.gone or not any(self._left)):
            raise self._end()
        arrived = list(self.arrived)
        self.arrived.clear()
        self.last_received = self._wire.now
        return arrived

    def abort(self) -> None:
        self.gone = True
        self._wire.socket = None

    def close(self) -> None:
        self.abort()

    def fileno(self) -> int:
        return -1


class Wire:
    """The network, the service, the agent and the clock."""

    def __init__(self, sequence: list[Cut], window: float) -> None:
        self.now = 1000.0
        self.sequence = deque(sequence)
        self.refusals = 0
        self.failures = 0
        self.to_agent: deque[bytes] = deque()
        self.socket: Socket | None = None
        self.opened: list[str] = []
        self.resumed: list[str] = []
        self.agent = AgentStream(self._take)
        self.got = b""
        self.said = 0
        self._state = "new"
        self._window = window
        self._listens_at = float("inf")

    def monotonic(self) -> float:
        return self.now

    # What the client calls.

    def open(self, _url: str, token: str, _hello: object, **_: object) -> Socket:
        if self.refusals:
            self.refusals -= 1
            raise WebSocketRefusedError("connection refused")
        self.opened.append(token)
        cut = self.sequence.popleft() if self.sequence else None
        if cut is not None:
            self.refusals, self.failures = cut.refused, cut.failed
        self.socket = Socket(self, cut)
        return self.socket

    def resume(self) -> Opening:
        if self.failures:
            self.failures -= 1
            error = SmsshError("AWS cannot be reached")
            error.passing = True
            raise error
        self.resumed.append(f"token-{len(self.resumed) + 1}")
        return Opening("s", self.resumed[-1], "ws://x")

    # The agent.

    def _take(self, message: Message) -> bool:
        if message.payload_type == PayloadType.HANDSHAKE_RESPONSE:
            if self._state == "asked":
                self._state = "complete"
                self._listens_at = self.now + self._window
                self.agent.send(PayloadType.HANDSHAKE_COMPLETE, b"{}", self.now)
        elif self.now >= self._listens_at:
            self.got += message.payload
        return True

    def step(self) -> None:
        self.now += STEP
        if self._state == "new":
            self._state = "asked"
            request = {"AgentVersion": "3.3.0.0", "RequestedClientActions": [PORT]}
            self.agent.send(PayloadType.HANDSHAKE_REQUEST, json.dumps(request).encode(), self.now)
        while self.to_agent:
            self.agent.receive(Message.decode(self.to_agent.popleft()), self.now)
        if self.now >= self._listens_at and self.said < PIECES and self.agent.open and self.got:
            self.agent.send(PayloadType.OUTPUT, b"<%d>" % self.said, self.now)
            self.said += 1
        self.agent.resend_due(self.now)
        while self.agent.outgoing:
            frame = self.agent.outgoing.popleft()
            if self.socket is not None:
                self.socket.deliver(frame)


@pytest.fixture(scope="module")
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@settings(max_examples=400)
@given(sequence=cuts, window=st.sampled_from([0.0, 0.1]))
def test_nothing_is_lost_doubled_or_waited_for_without_end(
    patched: pytest.MonkeyPatch, sequence: list[Cut], window: float
) -> None:
    wire = Wire(sequence, window)
    patched.setattr(channels, "time", wire)
    patched.setattr(channels, "open_websocket", wire.open)
    channel = ClientChannel(
        Opening("s", "token-0", "ws://x"), resume=wire.resume, pause=lambda seconds: _pass(wire, seconds)
    )
    sent, got = [b"[%d]" % number for number in range(PIECES)], b""
    waiting = list(sent)
    began = wire.now
    expected = b"".join(b"<%d>" % number for number in range(PIECES))
    while wire.got != b"".join(sent) or got != expected or not channel.stream.idle:
        assert wire.now - began < MOST_SECONDS, (wire.got, got, channel.cut)
        wire.step()
        if channel.cut is None:
            got += b"".join(channel.receive(wire.now))
        channel.tick(wire.now)
        if waiting and channel.cut is None and channel.window:
            channel.send(waiting.pop(0), wire.now)
            channel.flush()
    # No call is missed: each connection but the first was opened with the answer of a call of its own.
    assert wire.opened[0] == "token-0"
    assert len(set(wire.opened)) == len(wire.opened)
    assert set(wire.opened[1:]) <= set(wire.resumed)
    assert channel.reconnects == len(wire.opened) - 1


def _pass(wire: Wire, seconds: float) -> None:
    wire.now += seconds


def test_connections_that_are_cut_at_once_are_not_tried_without_end(patched: pytest.MonkeyPatch) -> None:
    """The service lets the client in and throws it out again, each time."""
    wire = Wire([Cut(12, 12, None, 0, 0), *[Cut(0, 0, 1011, 0, 0)] * 1000], 0.0)
    patched.setattr(channels, "time", wire)
    patched.setattr(channels, "open_websocket", wire.open)
    channel = ClientChannel(Opening("s", "token-0", "ws://x"), resume=wire.resume)

    def go() -> None:
        while wire.now < 1000 + MOST_SECONDS:
            wire.step()
            if channel.cut is None:
                channel.receive(wire.now)
            channel.tick(wire.now)
            if channel.cut is None and channel.window:
                channel.send(b"x", wire.now)

    with pytest.raises(SmsshError, match="could not be resumed"):
        go()
    assert len(wire.resumed) <= 250
    assert wire.now - 1000 > 60


def test_an_idle_session_is_resumed_hour_after_hour(patched: pytest.MonkeyPatch) -> None:
    """The service closes each websocket after about an hour, with 1000; nothing may have come on it meanwhile."""
    wire = Wire([], 0.0)
    patched.setattr(channels, "time", wire)
    patched.setattr(channels, "open_websocket", wire.open)
    channel = ClientChannel(Opening("s", "token-0", "ws://x"), resume=wire.resume)
    while not channel.settled:
        wire.step()
        channel.receive(wire.now)
        channel.tick(wire.now)
    for _ in range(30):
        assert wire.socket is not None
        wire.now += 3600
        wire.socket.last_received = wire.now
        wire.socket._cut = Cut(0, 0, 1000, 0, 0)
        wire.socket.gone = True
        assert channel.receive(wire.now) == []
        channel.tick(wire.now)
        assert channel.cut is None
    assert len(wire.resumed) == 30
