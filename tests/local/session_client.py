"""A client of data channels for tests, with nothing of `smssh_plugin.session` but frames and websockets.

It acknowledges everything in order, and shakes hands as it is told to.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import select
import struct
import threading
import uuid
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from smssh_plugin.aws.signing import signed
from smssh_plugin.session.wire.frames import Message, MessageType, PayloadType
from smssh_plugin.session.wire.websocket import WebSocket, WebSocketClosedError
from tests.waiting import LIMIT, until

from .service_harness import KEY

if TYPE_CHECKING:
    from collections.abc import Callable

    from smssh_plugin.local.keyring import Key

VERSION = "1.2.677.0"
OUTPUTS = (PayloadType.OUTPUT, PayloadType.STANDARD_ERROR, PayloadType.EXIT_CODE)


class Client:
    """One session's client.

    Args:
        opening: StartSession's answer.
        version: what it says it is.
        status: what it answers to what the agent asks for in the handshake.
        key: what it signs its connection with.
        data_key: makes a data key for an encryption context: the plain key and its ciphertext.
    """

    def __init__(
        self,
        opening: dict[str, Any],
        *,
        version: str = VERSION,
        status: int = 1,
        key: Key = KEY,
        data_key: Callable[[str, dict[str, str]], tuple[bytes, bytes]] | None = None,
    ) -> None:
        self.id = opening["SessionId"]
        self.output = b""
        self.errors = b""
        self.exit_code = b""
        self.flags: list[int] = []
        self.closed: str | None = None
        """The Output of `channel_closed`."""
        self.request: dict[str, Any] | None = None
        self.complete: dict[str, Any] | None = None
        self.messages: list[Message] = []
        self.acknowledged: set[int] = set()
        self.on_output: Callable[[bytes], None] | None = None
        self._version = version
        self._key = key
        self._status = status
        self._data_key = data_key
        self._sealing: AESGCM | None = None
        self._opening: AESGCM | None = None
        self._next = 0
        self._expected = 0
        self._early: dict[int, Message] = {}
        self._unacknowledged: dict[int, bytes] = {}
        self._connect(opening)

    def _connect(self, opening: dict[str, Any]) -> None:
        url = opening["StreamUrl"]
        headers = signed("GET", url, {}, b"", self._key, "us-east-1", "ssmmessages")
        socket = WebSocket(url, {name: value for name, value in headers.items() if name != "Host"})
        socket.send_text(json.dumps({"TokenValue": opening["TokenValue"], "ClientId": str(uuid.uuid4())}))
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, args=(socket, self._outgoing), daemon=True).start()

    def resume(self, opening: dict[str, Any]) -> None:
        """Connect again; send what was not acknowledged again."""
        self._connect(opening)
        self.resend()

    def send(self, payload: bytes, kind: int = PayloadType.OUTPUT) -> int:
        """Send one message; answers its number."""
        if self._sealing is not None and kind == PayloadType.OUTPUT:
            nonce = os.urandom(12)
            payload = nonce + self._sealing.encrypt(nonce, payload, None)
        number, self._next = self._next, self._next + 1
        message = Message.new(MessageType.INPUT, payload, payload_type=kind, sequence=number)
        self._unacknowledged[number] = message.encode()
        self.put(self._unacknowledged[number])
        return number

    def resend(self) -> None:
        """Send what was not acknowledged again."""
        for frame in list(self._unacknowledged.values()):
            self.put(frame)

    def put(self, frame: bytes) -> None:
        """Send bytes as they are."""
        self._outgoing.put(frame)

    def send_json(self, body: dict[str, Any], kind: int) -> None:
        self.send(json.dumps(body).encode(), kind)

    def size(self, columns: int, rows: int) -> None:
        self.send_json({"cols": columns, "rows": rows}, PayloadType.SIZE)

    def flag(self, number: int) -> None:
        self.send(struct.pack(">I", number), PayloadType.FLAG)

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = LIMIT) -> Any:
        """Poll a condition; what the agent has not taken is sent again meanwhile."""

        def look() -> Any:
            value = condition()
            if not value:
                self.resend()
            return value

        return until(look, lambda: (what, self.output[-500:], self.closed), seconds=seconds)

    def wait_complete(self) -> dict[str, Any]:
        found: dict[str, Any] = self.wait(lambda: self.complete, "the end of the handshake")
        return found

    def wait_closed(self) -> str:
        self.wait(lambda: self.closed is not None, "channel_closed")
        assert self.closed is not None
        return self.closed

    def wait_output(self, words: bytes) -> bytes:
        """All output up to now, once these words are in it."""
        self.wait(lambda: words in self.output, f"output with {words!r}")
        return self.output

    def close(self) -> None:
        self._outgoing.put(None)

    def _run(self, socket: WebSocket, outgoing: queue.SimpleQueue[bytes | None]) -> None:
        with contextlib.suppress(WebSocketClosedError, queue.Empty):
            while True:
                while not outgoing.empty():
                    frame = outgoing.get_nowait()
                    if frame is None:
                        return socket.close()
                    socket.send_binary(frame)
                with contextlib.suppress(WebSocketClosedError):  # what it sent before is still to be read
                    socket.flush()
                select.select([socket.fileno()], [socket.fileno()] if socket.pending else [], [], 0.005)
                for data in socket.receive():
                    self._receive(data)
        socket.abort()
        return None

    def _receive(self, data: bytes) -> None:
        message = Message.decode(data)
        self.messages.append(message)
        if message.type == MessageType.OUTPUT:
            self._take(message)
        elif message.type == MessageType.ACKNOWLEDGE:
            number = message.json()["AcknowledgedMessageSequenceNumber"]
            self.acknowledged.add(number)
            self._unacknowledged.pop(number, None)
        elif message.type == MessageType.CHANNEL_CLOSED:
            self.closed = message.json()["Output"]

    def _take(self, message: Message) -> None:
        self._early[message.sequence] = message
        body = {
            "AcknowledgedMessageType": message.type,
            "AcknowledgedMessageId": str(message.id),
            "AcknowledgedMessageSequenceNumber": message.sequence,
            "IsSequentialMessage": True,
        }
        self.put(Message.of(MessageType.ACKNOWLEDGE, body, flags=3).encode())
        while self._expected in self._early:
            self._act(self._early.pop(self._expected))
            self._expected += 1

    def _act(self, message: Message) -> None:
        kind, payload = message.payload_type, message.payload
        if self._opening is not None and kind in OUTPUTS:
            payload = self._opening.decrypt(payload[:12], payload[12:], None)
        if kind == PayloadType.OUTPUT:
            self.output += payload
            if self.on_output is not None:
                self.on_output(payload)
        elif kind == PayloadType.STANDARD_ERROR:
            self.errors += payload
        elif kind == PayloadType.EXIT_CODE:
            self.exit_code += payload
        elif kind == PayloadType.FLAG:
            self.flags.append(int.from_bytes(payload, "big"))
        elif kind == PayloadType.HANDSHAKE_REQUEST:
            self.request = message.json()
            self._shake(self.request)
        elif kind == PayloadType.ENCRYPTION_CHALLENGE_REQUEST:
            self._answer_challenge(base64.b64decode(message.json()["Challenge"]))
        elif kind == PayloadType.HANDSHAKE_COMPLETE:
            self.complete = message.json()

    def _shake(self, request: dict[str, Any]) -> None:
        processed = []
        for action in request["RequestedClientActions"]:
            result = None
            if action["ActionType"] == "KMSEncryption" and self._data_key is not None:
                key, blob = self._data_key(self.id, action["ActionParameters"])
                self._opening, self._sealing = AESGCM(key[:32]), AESGCM(key[32:])
                result = {"KMSCipherTextKey": base64.b64encode(blob).decode()}
            processed.append(
                {
                    "ActionType": action["ActionType"],
                    "ActionStatus": self._status,
                    "ActionResult": result,
                    "Error": "" if self._status == 1 else "no",
                }
            )
        body = {"ClientVersion": self._version, "ProcessedClientActions": processed, "Errors": None}
        self.send_json(body, PayloadType.HANDSHAKE_RESPONSE)

    def _answer_challenge(self, sealed: bytes) -> None:
        assert self._opening is not None
        assert self._sealing is not None
        plain = self._opening.decrypt(sealed[:12], sealed[12:], None)
        nonce = os.urandom(12)
        answer = base64.b64encode(nonce + self._sealing.encrypt(nonce, plain, None)).decode()
        self.send_json({"Challenge": answer}, PayloadType.ENCRYPTION_CHALLENGE_RESPONSE)
