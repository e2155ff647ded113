from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smssh_plugin.session.wire.frames import FrameError, Message, MessageType, PayloadType
from smssh_plugin.session.wire.stream import INCOMING_LIMIT, WINDOW, Stream, StreamLostError

OUTPUT = PayloadType.OUTPUT


def client() -> Stream:
    return Stream(sends=MessageType.INPUT, receives=MessageType.OUTPUT)


def agent() -> Stream:
    return Stream(sends=MessageType.OUTPUT, receives=MessageType.INPUT)


def taken(stream: Stream) -> list[Message]:
    frames = [Message.decode(frame) for frame in stream.outgoing]
    stream.outgoing.clear()
    return frames


def data(sequence: int, payload: bytes = b"x") -> Message:
    return Message.new(MessageType.OUTPUT, payload, payload_type=OUTPUT, sequence=sequence)


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=20), max_size=60),
    loss=st.floats(0, 0.6),
    seed=st.integers(0, 2**32),
)
def test_everything_arrives_once_and_in_order_over_a_bad_connection(
    chunks: list[bytes], loss: float, seed: int
) -> None:
    """Losses, repetitions and disorder both ways: the peer gets what was sent, and the sender knows it."""
    chance = random.Random(seed)
    sender, receiver, arrived, now = client(), agent(), [], 0.0
    for chunk in chunks:
        sender.send(chunk, OUTPUT, now)
    for _ in range(20_000):
        if sender.idle:
            break
        now += 0.05
        sender.resend_due(now)
        for source, sink in ((sender, receiver), (receiver, sender)):
            frames = taken(source)
            frames += [frame for frame in frames if chance.random() < 0.1]
            chance.shuffle(frames)
            for frame in frames:
                if chance.random() >= loss:
                    arrived += [one.payload for one in sink.receive(frame, now)]
    assert arrived == chunks
    assert sender.idle


def test_an_acknowledgement_names_type_id_and_number_and_is_not_numbered() -> None:
    stream = client()
    stream.send(b"mine", OUTPUT, 0)
    taken(stream)
    message = data(0)
    assert stream.receive(message, 0) == [message]
    (sent,) = taken(stream)
    assert (sent.type, sent.sequence, sent.flags, sent.payload_type) == ("acknowledge", 0, 3, 0)
    assert json.loads(sent.payload) == {
        "AcknowledgedMessageType": "output_stream_data",
        "AcknowledgedMessageId": str(message.id),
        "AcknowledgedMessageSequenceNumber": 0,
        "IsSequentialMessage": True,
    }


def test_early_messages_are_acknowledged_and_wait_for_the_gap() -> None:
    stream = client()
    assert stream.receive(data(2, b"c"), 0) == []
    assert stream.receive(data(1, b"b"), 0) == []
    assert len(taken(stream)) == 2
    assert [one.payload for one in stream.receive(data(0, b"a"), 0)] == [b"a", b"b", b"c"]


def test_a_message_that_was_delivered_is_acknowledged_again() -> None:
    stream = client()
    stream.receive(data(0), 0)
    taken(stream)
    assert stream.receive(data(0), 0) == []
    assert len(taken(stream)) == 1


def test_what_is_too_early_for_the_buffer_is_not_acknowledged() -> None:
    stream = client()
    for sequence in range(1, INCOMING_LIMIT + 1):
        stream.receive(data(sequence), 0)
    stream.outgoing.clear()
    stream.receive(data(INCOMING_LIMIT + 1), 0)
    assert not stream.outgoing


def test_only_the_oldest_is_sent_again_and_after_its_time() -> None:
    stream = client()
    stream.send(b"a", OUTPUT, 0)
    stream.send(b"b", OUTPUT, 0)
    taken(stream)
    stream.resend_due(0.19)
    assert not stream.outgoing
    assert stream.timeout(0.19) == pytest.approx(0.01)
    stream.resend_due(0.2)
    assert [one.payload for one in taken(stream)] == [b"a"]
    stream.resend_due(0.3)
    assert not stream.outgoing


def test_the_time_to_resend_follows_the_round_trips_within_bounds() -> None:
    stream = client()
    for round_trip, bound in ((0.001, 0.2), (30.0, 1.0)):
        now = 0.0
        for _ in range(60):
            stream.send(b"a", OUTPUT, now)
            sent = taken(stream)[0]
            now += round_trip
            body = {
                "AcknowledgedMessageType": MessageType.INPUT,
                "AcknowledgedMessageId": str(sent.id),
                "AcknowledgedMessageSequenceNumber": sent.sequence,
                "IsSequentialMessage": True,
            }
            stream.receive(Message.of(MessageType.ACKNOWLEDGE, body), now)
        stream.send(b"a", OUTPUT, now)
        due = stream.timeout(now)
        assert due is not None
        assert round_trip < due <= bound or due == bound == 1.0
        stream.resend_all(now)
        stream = client()


def test_a_peer_that_acknowledges_nothing_is_given_up_after_five_minutes() -> None:
    stream = client()
    stream.send(b"a", OUTPUT, 0)
    stream.resend_due(299)
    with pytest.raises(StreamLostError):
        stream.resend_due(301)


def test_the_window_is_bounded() -> None:
    stream = client()
    for _ in range(WINDOW):
        assert stream.window > 0
        stream.send(b"a", OUTPUT, 0)
    assert stream.window == 0


def test_a_pause_holds_data_and_resends_until_start_or_data() -> None:
    for resume in (Message.new(MessageType.START_PUBLICATION), data(0)):
        stream = client()
        stream.send(b"a", OUTPUT, 0)
        taken(stream)
        assert stream.receive(Message.new(MessageType.PAUSE_PUBLICATION), 0) == []
        assert stream.window == 0
        assert stream.timeout(0) is None
        stream.resend_due(10)
        assert not stream.outgoing
        stream.receive(resume, 10)
        stream.outgoing.clear()
        assert stream.window == WINDOW - 1
        stream.resend_due(10)
        assert len(stream.outgoing) == 1


def test_after_a_reconnect_everything_unacknowledged_goes_again_in_order() -> None:
    stream = client()
    for payload in (b"a", b"b", b"c"):
        stream.send(payload, OUTPUT, 0)
    taken(stream)
    stream.resend_all(1)
    assert [one.payload for one in taken(stream)] == [b"a", b"b", b"c"]


def test_acknowledgements_of_the_other_stream_are_not_ours() -> None:
    stream = client()
    stream.send(b"a", OUTPUT, 0)
    body = {"AcknowledgedMessageType": MessageType.OUTPUT, "AcknowledgedMessageSequenceNumber": 0}
    stream.receive(Message.of(MessageType.ACKNOWLEDGE, body), 0)
    assert not stream.idle


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"AcknowledgedMessageType":"x"}', b"\xff"])
def test_what_is_not_an_acknowledgement_is_refused(payload: bytes) -> None:
    with pytest.raises(FrameError, match="not an acknowledgement"):
        client().receive(Message.new(MessageType.ACKNOWLEDGE, payload), 0)


def test_what_is_not_of_the_streams_is_handed_on() -> None:
    closed = Message.of(MessageType.CHANNEL_CLOSED, {"Output": ""})
    assert client().receive(closed, 0) == [closed]
