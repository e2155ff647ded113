from __future__ import annotations

import contextlib
import hashlib
import struct
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smssh_plugin.session.wire.frames import Flag, FrameError, Message, MessageType, PayloadType

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=32)


@given(
    type_=NAMES,
    payload=st.binary(max_size=3000),
    payload_type=st.integers(0, 2**32 - 1),
    sequence=st.integers(0, 2**63 - 1),
    flags=st.integers(0, 2**64 - 1),
)
def test_what_is_encoded_is_decoded(
    type_: str, payload: bytes, payload_type: int, sequence: int, flags: int
) -> None:
    message = Message.new(type_, payload, payload_type=payload_type, sequence=sequence, flags=flags)
    assert Message.decode(message.encode()) == message


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(FrameError):
        Message.decode(data)


@given(st.data())
def test_no_damage_to_a_payload_goes_unnoticed(data: st.DataObject) -> None:
    frame = bytearray(Message.new(MessageType.OUTPUT, b"some payload").encode())
    place = data.draw(st.integers(80, len(frame) - 1))
    frame[place] ^= data.draw(st.integers(1, 255))
    if 112 <= place < 116:  # the payload type, which nothing protects
        return
    with pytest.raises(FrameError):
        Message.decode(bytes(frame))


def test_the_layout_is_the_agents() -> None:
    """Every offset as in amazon-ssm-agent's agentmessage.go, put together by hand."""
    id_ = uuid.UUID("dd01e56b-ff48-483e-a508-b5f073f31b16")
    message = Message(MessageType.INPUT, b"payload", PayloadType.OUTPUT, 7, 3, id_, 1503434274948)
    expected = (
        struct.pack(">I", 116)
        + b"input_stream_data".ljust(32)
        + struct.pack(">IQqQ", 1, 1503434274948, 7, 3)
        # The two halves of the id change places.
        + bytes.fromhex("a508b5f073f31b16" + "dd01e56bff48483e")
        + hashlib.sha256(b"payload").digest()
        + struct.pack(">II", 1, 7)
        + b"payload"
    )
    assert message.encode() == expected
    assert len(expected) == 120 + 7
    assert Message.decode(expected) == message


def changed(place: int, value: bytes) -> bytes:
    frame = bytearray(Message.new(MessageType.OUTPUT, b"abc").encode())
    frame[place : place + len(value)] = value
    return bytes(frame)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (b"", "at least 120 bytes, not 0"),
        (Message.new(MessageType.OUTPUT).encode()[:-1], "at least 120 bytes, not 119"),
        (changed(0, struct.pack(">I", 115)), "header's length is 116, not 115"),
        (changed(0, struct.pack(">I", 4000)), "header's length is 116, not 4000"),
        (changed(4, b"\xff"), "not ASCII"),
        (changed(4, b" " * 32), "type is empty"),
        (changed(36, struct.pack(">I", 2)), "schema version is 1, not 2"),
        (changed(40, bytes(8)), "the date is missing"),
        (changed(48, struct.pack(">q", -1)), "sequence number is negative: -1"),
        (changed(80, bytes(32)), "SHA-256"),
        (changed(116, struct.pack(">I", 4)), "4 bytes of payload were announced, 3 are there"),
        (
            Message.new(MessageType.OUTPUT, b"abc").encode() + b"d",
            "3 bytes of payload were announced, 4 are there",
        ),
    ],
)
def test_a_malformed_message_is_refused_with_the_reason(frame: bytes, words: str) -> None:
    with pytest.raises(FrameError, match=words):
        Message.decode(frame)


def test_types_padded_with_nuls_and_empty_payloads_without_digest_are_read() -> None:
    frame = bytearray(Message.new(MessageType.PAUSE_PUBLICATION).encode())
    frame[4:36] = b"pause_publication".ljust(32, b"\0")
    frame[80:112] = bytes(32)
    assert Message.decode(bytes(frame)).type == MessageType.PAUSE_PUBLICATION


def test_a_date_of_zero_cannot_be_sent() -> None:
    with pytest.raises(FrameError, match="needs a date"):
        Message.new(MessageType.OUTPUT)._replace(created=0).encode()


def test_a_type_has_32_characters_at_most() -> None:
    with pytest.raises(FrameError, match="1 to 32 characters"):
        Message.new("x" * 33).encode()


def test_a_payload_that_is_no_json_object_is_refused() -> None:
    for payload in (b"", b"[1]", b"\xff", b"{"):
        with pytest.raises(FrameError):
            Message.new(MessageType.ACKNOWLEDGE, payload).json()


def test_a_flag_is_four_bytes_big_endian() -> None:
    assert Flag.TERMINATE_SESSION.payload() == b"\0\0\0\2"
