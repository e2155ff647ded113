"""One Port session of the agent double: a data channel on one side, TCP to a local port on the other."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from ...errors import SmsshError
from ...session.channel import Channel, open_websocket, signed_headers
from ...session.frames import Flag, Message, MessageType, PayloadType
from ...session.pump import Ending, Pump
from ...session.websocket import WebSocket, WebSocketRefusedError
from .api import Api, CallFailed
from .setup import AGENT_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PortSession"]

_HANDSHAKE_SECONDS = 15.0
_DIAL_SECONDS = 10.0


class AgentChannel(Channel):
    """The agent's side of a data channel."""

    def __init__(self, connect: Callable[[], WebSocket], session: str, properties: dict[str, Any]) -> None:
        super().__init__(
            sends=MessageType.OUTPUT,
            receives=MessageType.INPUT,
            connect=connect,
            handshake_seconds=_HANDSHAKE_SECONDS,
        )
        self._started = time.monotonic_ns()
        state = {"SchemaVersion": 1, "SessionState": "Connected", "SessionId": session}
        self.stream.outgoing.append(Message.of(MessageType.AGENT_SESSION_STATE, state).encode())
        action = {
            "ActionType": "SessionType",
            "ActionParameters": {"SessionType": "Port", "Properties": properties},
        }
        request = {"AgentVersion": AGENT_VERSION, "RequestedClientActions": [action]}
        self._send_json(request, PayloadType.HANDSHAKE_REQUEST)

    def handle(self, message: Message, now: float) -> None:
        """The agent's part of the handshake, and the client's flags."""
        del now
        if message.payload_type == PayloadType.HANDSHAKE_RESPONSE and not self.ready:
            body = message.json()
            for action in body.get("ProcessedClientActions") or ():
                if action.get("ActionStatus") != 1:
                    reason = action.get("Error") or "no reason given"
                    raise SmsshError(f"the client cannot do {action.get('ActionType')}: {reason}")
            taken = time.monotonic_ns() - self._started
            complete = {"HandshakeTimeToComplete": taken, "CustomerMessage": ""}
            self._send_json(complete, PayloadType.HANDSHAKE_COMPLETE)
            self.ready = True
        elif message.payload_type == PayloadType.FLAG and int.from_bytes(message.payload, "big") in (
            Flag.TERMINATE_SESSION,
            Flag.DISCONNECT_TO_PORT,
        ):
            self.closed = ""

    def handle_early(self, message: Message) -> None:
        """Input before the end of the handshake is acknowledged and thrown away, as the real agent does."""

    def _send_json(self, body: dict[str, Any], payload_type: PayloadType) -> None:
        payload = json.dumps(body, separators=(",", ":")).encode()
        self.stream.send(payload, payload_type, time.monotonic())


class PortSession(threading.Thread):
    """Runs a session to its end, then says so.

    The real agent connects to the port after the handshake, and tells the client of a port where nothing
    listens only after 60 s. The double connects first and tells at once.

    Args:
        api: creates the data channel.
        node: the managed node's id.
        session: the session's id.
        properties: the document's properties, `{"portNumber": "22"}`.
        done: is called at the end with the session's id, Success or Failed, and the text for the user.
    """

    def __init__(
        self,
        api: Api,
        node: str,
        session: str,
        properties: dict[str, Any],
        done: Callable[[str, str, str], None],
    ) -> None:
        super().__init__(name=session, daemon=True)
        self._api = api
        self._node = node
        self._session = session
        self._properties = properties
        self._done = done
        self._wake, self._waker = os.pipe()

    def stop(self) -> None:
        """End the session from another thread."""
        with contextlib.suppress(OSError):
            os.write(self._waker, b"x")

    def run(self) -> None:
        """The thread's body."""
        status, output = "Failed", ""
        try:
            self._serve()
            status = "Success"
        except SmsshError as error:
            output = error.message
        except (WebSocketRefusedError, CallFailed) as error:
            output = f"Failed to open the data channel: {error}"
        finally:
            self._done(self._session, status, output)
            os.close(self._wake)
            os.close(self._waker)

    def _serve(self) -> None:
        port = int(self._properties["portNumber"])
        try:
            connection = socket.create_connection(("localhost", port), _DIAL_SECONDS)
        except OSError as error:
            raise SmsshError(
                f"Unable to connect to specified port: localhost:{port}: {error.strerror}"
            ) from error
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            channel = AgentChannel(self._connect, self._session, self._properties)
            writing = os.dup(connection.fileno())
            try:
                ending = Pump(channel, connection.fileno(), writing, wake=self._wake).run()
            finally:
                os.close(writing)
                channel.close()
            if ending is Ending.CLOSED and channel.closed:
                raise SmsshError(channel.closed)

    def _connect(self) -> WebSocket:
        client = str(uuid.uuid4())
        try:
            token, url = self._api.create_channel(f"data-channel/{self._session}", {"ClientId": client})
        except CallFailed as error:
            if error.code:
                raise
            raise WebSocketRefusedError(str(error)) from error
        url += "?role=publish_subscribe"
        hello = {"ClientInstanceId": self._node, "ClientId": client}
        return open_websocket(
            url, token, hello, headers=signed_headers(url, self._api.credentials, self._api.region)
        )
