"""The binary message of Session Manager's data and control channels.

One layout serves both directions: AgentMessage in the agent, ClientMessage in session-manager-plugin
(`agent/session/contracts/agentmessage.go` of amazon-ssm-agent, `src/message/messageparser.go` of the plugin):
a header of 120 bytes, big endian, and the payload.
"""

from __future__ import annotations

import enum
import hashlib
import json
import struct
import time
import uuid
from typing import Any, NamedTuple

__all__ = ["MAX_PAYLOAD", "Flag", "FrameError", "Message", "MessageType", "PayloadType"]

_HEADER = struct.Struct(">I32sIQqQ16s32sII")
_HEADER_LENGTH = (
    _HEADER.size - 4
)  # the field does not count PayloadLength, so the payload starts 4 bytes later

MAX_PAYLOAD = 16 * 1024 * 1024
"""Bytes of payload that a reader accepts. Real peers send 1024; a document is some KiB."""


class MessageType:
    """What a message is for. Names, since a reader has to pass over those that it does not know."""

    INPUT = "input_stream_data"
    OUTPUT = "output_stream_data"
    ACKNOWLEDGE = "acknowledge"
    CHANNEL_CLOSED = "channel_closed"
    START_PUBLICATION = "start_publication"
    PAUSE_PUBLICATION = "pause_publication"
    AGENT_SESSION_STATE = "agent_session_state"
    INTERACTIVE_SHELL = "interactive_shell"
    AGENT_TASK_COMPLETE = "agent_task_complete"
    AGENT_TASK_ACKNOWLEDGE = "agent_task_acknowledge"


class PayloadType(enum.IntEnum):
    """What the payload of a stream message is. A reader may meet others."""

    NONE = 0
    OUTPUT = 1
    ERROR = 2
    SIZE = 3
    PARAMETER = 4
    HANDSHAKE_REQUEST = 5
    HANDSHAKE_RESPONSE = 6
    HANDSHAKE_COMPLETE = 7
    ENCRYPTION_CHALLENGE_REQUEST = 8
    ENCRYPTION_CHALLENGE_RESPONSE = 9
    FLAG = 10
    STANDARD_ERROR = 11
    EXIT_CODE = 12


class Flag(enum.IntEnum):
    """The payload of `PayloadType.FLAG`, an unsigned 32-bit number."""

    DISCONNECT_TO_PORT = 1
    TERMINATE_SESSION = 2
    CONNECT_TO_PORT_ERROR = 3

    def payload(self) -> bytes:
        """The number as it goes into a message."""
        return self.to_bytes(4, "big")


class FrameError(ValueError):
    """Bytes that are not message: cut short, inconsistent, or damaged (digest)."""


class Message(NamedTuple):
    """One message. `created` is in milliseconds since the epoch, and never 0, which agents refuse."""

    type: str
    payload: bytes
    payload_type: int
    sequence: int
    flags: int
    id: uuid.UUID
    created: int

    @classmethod
    def new(
        cls,
        type_: str,
        payload: bytes = b"",
        *,
        payload_type: int = PayloadType.NONE,
        sequence: int = 0,
        flags: int = 0,
    ) -> Message:
        """A message of now, with an id of its own."""
        return cls(type_, payload, payload_type, sequence, flags, uuid.uuid4(), time.time_ns() // 1_000_000)

    @classmethod
    def of(cls, type_: str, body: object, **fields: Any) -> Message:
        """A message of now whose payload is `body` in JSON."""
        return cls.new(type_, json.dumps(body, separators=(",", ":")).encode(), **fields)

    def json(self) -> dict[str, Any]:
        """The payload as a JSON object.

        Raises:
            FrameError: it is not one.
        """
        try:
            body = json.loads(self.payload)
        except (ValueError, RecursionError) as error:
            raise FrameError(f"the payload of {self.type} is not JSON: {error}") from None
        if not isinstance(body, dict):
            raise FrameError(f"the payload of {self.type} is not a JSON object")
        return body

    def encode(self) -> bytes:
        """The bytes on the wire.

        Raises:
            FrameError: a field does not fit its place.
        """
        type_ = self.type.encode("ascii", "replace")
        if not 0 < len(type_) <= 32:
            raise FrameError(f"a message type has 1 to 32 characters, not {len(type_)}: {self.type!r}")
        if self.created <= 0:
            raise FrameError("a message needs a date: agents refuse one without")
        raw = self.id.bytes
        try:
            header = _HEADER.pack(
                _HEADER_LENGTH,
                type_.ljust(32),
                1,
                self.created,
                self.sequence,
                self.flags,
                raw[8:] + raw[:8],
                hashlib.sha256(self.payload).digest(),
                self.payload_type,
                len(self.payload),
            )
        except struct.error as error:
            raise FrameError(f"a field of {self.type} is out of range: {error}") from None
        return header + self.payload

    @classmethod
    def decode(cls, data: bytes) -> Message:
        """Read one message; the digest is verified.

        Raises:
            FrameError: the bytes are not exactly one whole message.
        """
        if len(data) < _HEADER.size:
            raise FrameError(f"a message has at least {_HEADER.size} bytes, not {len(data)}")
        length, type_, schema, created, sequence, flags, raw, digest, payload_type, size = (
            _HEADER.unpack_from(data)
        )
        if not _HEADER_LENGTH <= length <= len(data) - 4:
            raise FrameError(f"the header's length is {_HEADER_LENGTH}, not {length}")
        try:
            name = type_.decode("ascii").strip(" \0")
        except UnicodeDecodeError:
            raise FrameError(f"the message type is not ASCII: {type_!r}") from None
        if not name:
            raise FrameError("the message type is empty")
        if schema != 1:
            raise FrameError(f"{name}: the schema version is 1, not {schema}")
        if created == 0:
            raise FrameError(f"{name}: the date is missing")
        if sequence < 0:
            raise FrameError(f"{name}: the sequence number is negative: {sequence}")
        payload = bytes(data[length + 4 :])
        if size != len(payload):
            raise FrameError(f"{name}: {size} bytes of payload were announced, {len(payload)} are there")
        if size > MAX_PAYLOAD:
            raise FrameError(f"{name}: {size} bytes of payload are over the limit of {MAX_PAYLOAD}")
        # Nothing is at stake in an empty payload, and a sender may leave its digest out.
        if hashlib.sha256(payload).digest() != digest and (payload or any(digest)):
            raise FrameError(f"{name}: the payload's SHA-256 is not the one in the header")
        return cls(name, payload, payload_type, sequence, flags, uuid.UUID(bytes=raw[8:] + raw[:8]), created)
