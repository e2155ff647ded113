"""Frames that are wrong in some way, or right and absurd: what a broken or hostile peer may send."""

from __future__ import annotations

import json
import struct
import uuid
from typing import TYPE_CHECKING, Any

from smssh_plugin.session.wire.frames import Message, MessageType

if TYPE_CHECKING:
    import random

TYPES = [
    MessageType.INPUT,
    MessageType.OUTPUT,
    MessageType.ACKNOWLEDGE,
    MessageType.CHANNEL_CLOSED,
    MessageType.START_PUBLICATION,
    MessageType.PAUSE_PUBLICATION,
    MessageType.AGENT_SESSION_STATE,
    MessageType.INTERACTIVE_SHELL,
    MessageType.AGENT_TASK_COMPLETE,
    MessageType.AGENT_TASK_ACKNOWLEDGE,
    "from_the_future",
]
NUMBERS = [0, 1, 2, 3, 255, 2**31, 2**32 - 1, 2**63 - 1]
SCALARS: list[Any] = [None, True, 0, -1, 2**80, 1e308, float("inf"), float("nan"), "", "x", "\ud800", [], {}]
KEYS = [
    "AcknowledgedMessageType",
    "AcknowledgedMessageSequenceNumber",
    "RequestedClientActions",
    "ProcessedClientActions",
    "ActionType",
    "ActionParameters",
    "ActionStatus",
    "SessionType",
    "Properties",
    "AgentVersion",
    "ClientVersion",
    "Challenge",
    "CustomerMessage",
    "Output",
    "TaskId",
    "Content",
    "DocumentContent",
    "Parameters",
    "portNumber",
]
WORDS = [
    "SessionType",
    "KMSEncryption",
    "Port",
    "Standard_Stream",
    MessageType.INPUT,
    MessageType.OUTPUT,
    "3.3.0.0",
]


# Message type, payload type, and a body as it should be; what is sent has some of it replaced.
RIGHT: list[tuple[str, int, Any]] = [
    (
        MessageType.OUTPUT,
        5,
        {
            "AgentVersion": "3.3.987.0",
            "RequestedClientActions": [
                {"ActionType": "KMSEncryption", "ActionParameters": {"KMSKeyId": "k"}},
                {
                    "ActionType": "SessionType",
                    "ActionParameters": {"SessionType": "Port", "Properties": {"portNumber": "22"}},
                },
            ],
        },
    ),
    (
        MessageType.INPUT,
        6,
        {
            "ClientVersion": "1.2.677.0",
            "ProcessedClientActions": [
                {"ActionType": "SessionType", "ActionStatus": 1, "ActionResult": None, "Error": ""}
            ],
            "Errors": None,
        },
    ),
    (MessageType.OUTPUT, 7, {"HandshakeTimeToComplete": 1, "CustomerMessage": ""}),
    (MessageType.OUTPUT, 8, {"Challenge": "YWJj"}),
    (MessageType.INPUT, 9, {"Challenge": "YWJj"}),
    (MessageType.INPUT, 3, {"cols": 80, "rows": 24}),
    (MessageType.OUTPUT, 12, 0),
    (
        MessageType.ACKNOWLEDGE,
        0,
        {
            "AcknowledgedMessageType": MessageType.INPUT,
            "AcknowledgedMessageId": "x",
            "AcknowledgedMessageSequenceNumber": 0,
            "IsSequentialMessage": True,
        },
    ),
    (MessageType.CHANNEL_CLOSED, 0, {"SessionId": "s", "Output": ""}),
    (
        MessageType.AGENT_TASK_COMPLETE,
        0,
        {"TaskId": "t", "Topic": "aws.ssm.mgs.interactive_shell", "FinalTaskStatus": "Success", "Output": ""},
    ),
    (
        MessageType.INTERACTIVE_SHELL,
        0,
        {"Content": "{}", "TaskId": "t", "Topic": "aws.ssm.mgs.interactive_shell", "SchemaVersion": 1},
    ),
]


def absurd(chance: random.Random, right: Any) -> Any:
    """The body with some of its parts replaced by others."""
    if chance.random() < 0.12:
        return value(chance, 2)
    if isinstance(right, dict):
        return {key: absurd(chance, part) for key, part in right.items() if chance.random() < 0.97}
    if isinstance(right, list):
        return [absurd(chance, part) for part in right]
    return right


def malformed(chance: random.Random) -> bytes:
    """One frame. Some are well-formed, so that what comes after them is met in all states."""
    way = chance.random()
    if way < 0.05:
        return chance.randbytes(chance.choice([0, 1, 4, 119, 120, 121, 300]))
    if chance.random() < 0.4:
        type_, payload_type, right = chance.choice(RIGHT)
        body = json.dumps(absurd(chance, right)).encode()
    else:
        type_, payload_type = chance.choice(TYPES), chance.choice([*range(14), 2**32 - 1])
        body = payload(chance)
    frame = bytearray(
        Message(
            type=type_,
            payload=body,
            payload_type=payload_type,
            sequence=chance.choice([0, 0, 1, 2, chance.randrange(20), *NUMBERS]),
            flags=chance.choice([0, 1, 3, 2**64 - 1]),
            id=uuid.UUID(int=chance.getrandbits(128)),
            created=chance.choice([1, 2**63]),
        ).encode()
    )
    if way < 0.5:
        return bytes(frame)
    if way < 0.7:
        for _ in range(chance.randrange(1, 4)):
            frame[chance.randrange(len(frame))] = chance.randrange(256)
    elif way < 0.8:
        del frame[chance.randrange(len(frame)) :]
    elif way < 0.9:
        place = chance.choice([0, 36, 112, 116])
        frame[place : place + 4] = struct.pack(">I", chance.choice([0, 115, 117, 4000, 2**31, 2**32 - 1]))
    else:
        frame += chance.randbytes(chance.randrange(1, 50))
    return bytes(frame)


def payload(chance: random.Random) -> bytes:
    way = chance.random()
    if way < 0.3:
        return chance.randbytes(chance.choice([0, 1, 4, 5, 200]))
    if way < 0.32:
        return b"[" * 3000
    text = json.dumps(value(chance, 3), ensure_ascii=True)
    return text.encode() if way < 0.95 else text.encode("utf-16")


def value(chance: random.Random, depth: int) -> Any:
    way = chance.random()
    if depth == 0 or way < 0.2:
        return chance.choice([*SCALARS, *WORDS])
    if way < 0.4:
        return [value(chance, depth - 1) for _ in range(chance.randrange(3))]
    return {chance.choice(KEYS): value(chance, depth - 1) for _ in range(chance.randrange(1, 4))}
