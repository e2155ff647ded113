"""The service and the agent in one, following a script, over a real websocket."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.sync.server import ServerConnection, serve

from smssh_plugin.session.wire.channel import Opening
from smssh_plugin.session.wire.frames import Message, MessageType, PayloadType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    import pytest

PORT = {
    "ActionType": "SessionType",
    "ActionParameters": {"SessionType": "Port", "Properties": {"portNumber": "22"}},
}


class Peer:
    """The service and the agent in one, as seen from a client."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.hello = json.loads(socket.recv(timeout=10))
        self.sequence = 0
        self.pings = 0
        take = socket.protocol.recv_frame

        def counted(frame: Frame) -> None:
            self.pings += frame.opcode is Opcode.PING
            take(frame)

        socket.protocol.recv_frame = counted  # type: ignore[method-assign]

    def send(
        self, payload: bytes, payload_type: int = PayloadType.OUTPUT, *, sequence: int | None = None
    ) -> None:
        number = self.sequence if sequence is None else sequence
        message = Message.new(MessageType.OUTPUT, payload, payload_type=payload_type, sequence=number)
        self.socket.send(message.encode())
        self.sequence += sequence is None

    def send_until(self, over: Callable[[], bool], payload: bytes) -> int:
        """Send the same again and again, once what was sent is acknowledged; answers how often."""
        sent = 0
        while not over():
            self.send(payload)
            sent += 1
            acknowledged = False
            while not acknowledged and not over():
                with suppress(TimeoutError):
                    message = Message.decode(self.socket.recv(timeout=0.1, decode=False))
                    acknowledged = (
                        message.type == MessageType.ACKNOWLEDGE
                        and message.json()["AcknowledgedMessageSequenceNumber"] == self.sequence - 1
                    )
        return sent

    def send_json(self, body: object, payload_type: int) -> None:
        self.send(json.dumps(body).encode(), payload_type)

    def receive(self, type_: str = MessageType.INPUT) -> Message:
        while True:
            message = Message.decode(self.socket.recv(timeout=10, decode=False))
            if message.type == MessageType.INPUT:
                self.acknowledge(message)
            if message.type == type_:
                return message

    def inputs(self, expected: int = 1) -> Iterator[Message]:
        """The client's stream from a number on, acknowledged, each message once."""
        while True:
            message = Message.decode(self.socket.recv(timeout=120, decode=False))
            if message.type != MessageType.INPUT:
                continue
            self.acknowledge(message)
            if message.sequence >= expected:
                assert message.sequence == expected
                expected += 1
                yield message

    def hears_no_input(self) -> None:
        """For 0.3 s; acknowledgements may come."""
        with contextlib.suppress(TimeoutError):
            while True:
                assert (
                    Message.decode(self.socket.recv(timeout=0.3, decode=False)).type
                    == MessageType.ACKNOWLEDGE
                )

    def acknowledge(self, message: Message) -> None:
        body = {
            "AcknowledgedMessageType": message.type,
            "AcknowledgedMessageId": str(message.id),
            "AcknowledgedMessageSequenceNumber": message.sequence,
            "IsSequentialMessage": True,
        }
        self.socket.send(Message.of(MessageType.ACKNOWLEDGE, body, flags=3).encode())

    def handshake(self, *actions: dict[str, Any]) -> dict[str, Any]:
        self.send_json({"AgentVersion": "3.3.987.0", "RequestedClientActions": actions or [PORT]}, 5)
        response = self.receive()
        assert response.payload_type == PayloadType.HANDSHAKE_RESPONSE
        assert response.sequence == 0
        return response.json()

    def complete(self) -> None:
        self.send_json({"HandshakeTimeToComplete": 1, "CustomerMessage": "be kind"}, 7)

    def close_channel(self, output: str = "") -> None:
        self.socket.send(Message.of(MessageType.CHANNEL_CLOSED, {"Output": output}).encode())


@contextmanager
def scripted(*scripts: Callable[[Peer], None]) -> Iterator[Opening]:
    """A service that follows one script a connection. What goes wrong in a script fails the test."""
    left, trouble, done = list(scripts), [], threading.Semaphore(0)

    def connection(socket: ServerConnection) -> None:
        try:
            left.pop(0)(Peer(socket))
        except ConnectionClosed:
            pass
        except BaseException as error:  # noqa: BLE001 - an assertion too is for the test
            trouble.append(error)
        finally:
            done.release()

    with serve(connection, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            port = server.socket.getsockname()[1]
            yield Opening("s-1", "token", f"ws://127.0.0.1:{port}/v1/data-channel/s-1?role=publish_subscribe")
            for _ in scripts:
                assert done.acquire(timeout=60)
        finally:
            server.shutdown()
            thread.join(10)
    assert not trouble, trouble


class Clock:
    """The clock of some modules, which a test may put forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
        self.ahead = 0.0
        for module in modules:
            monkeypatch.setattr(module, "time", self)

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


class Pipes:
    """A source that the test writes and a sink that it reads."""

    def __init__(self) -> None:
        self.source, self.writer = os.pipe()
        self.reader, self.sink = os.pipe()
        for fd in (self.source, self.sink):
            os.set_blocking(fd, False)

    def close(self) -> None:
        for fd in (self.source, self.writer, self.reader, self.sink):
            with suppress(OSError):
                os.close(fd)
