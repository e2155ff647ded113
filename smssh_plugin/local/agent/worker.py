"""One session, from its data channel to its end: the fake agent of the real agent's ssm-session-worker.

The order of things is that of agent/session/plugins/sessionplugin/sessionplugin.go and
agent/session/datachannel/datachannel.go: open the channel, say `Connected`, shake hands where the session
needs it, let the plugin work, wait until what was sent is acknowledged, close.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import random
import secrets
import select
import time
import uuid
from typing import TYPE_CHECKING, Any

from ...errors import SmsshError
from ...session.wire.frames import FrameError, Message, MessageType, PayloadType
from ...session.wire.websocket import WebSocketClosedError
from .agent_stream import Stream
from .command import CommandSession
from .crypto import BlockCipher
from .port import PortSession
from .pseudo_terminal import TerminalSession
from .service_client import SESSION_ENDED, CallFailed
from .session_kind import Plugin, Result
from .setup import AGENT_VERSION

if TYPE_CHECKING:
    from .service_client import Api, Socket
    from .session_kind import Task

__all__ = ["PLUGINS", "Worker"]

PLUGINS: dict[str, type[Plugin]] = {
    "Port": PortSession,
    "Standard_Stream": TerminalSession,
    "InteractiveCommands": TerminalSession,
    "NonInteractiveCommands": CommandSession,
}
"""By session type."""

HANDSHAKE_SECONDS = 15.0
_KEEPALIVE_SECONDS = 54.0
_SILENCE_SECONDS = 60.0
_ATTEMPTS = 5
_PAUSE_LONGEST = 5.0
_CLOSE_SECONDS = 2.0
_MALFORMED_MAX = 5
"""Connections in a row that ended for what is not a message; then nobody there speaks the protocol."""
_ENCRYPTED = (PayloadType.OUTPUT, PayloadType.STANDARD_ERROR, PayloadType.EXIT_CODE)
_PENDING_MAX = 1 << 20
_INVALID = 1007
"""Close code for a malformed message (RFC 6455, 7.4.1)."""

_LOG = logging.getLogger("ssm-session-worker")


class _Cancelled(Exception):  # noqa: N818 - no error
    """Somebody ended the session."""


class Worker:
    """Runs one session. It is the output of its plugin.

    Args:
        task: the session.
        api: the calls of the node.
        cancel: a descriptor that becomes readable when the session is to end.
        pace: seconds from one message of output to the next; the real agent sleeps 1 ms (`time.Sleep` in the
            plugins of agent/session/plugins).
    """

    def __init__(self, task: Task, api: Api, cancel: int, pace: float = 0.0) -> None:
        self._pace = pace
        self._next = 0.0
        self._task = task
        self._api = api
        self._cancel = cancel
        self._client = str(uuid.uuid4())
        self._stream = Stream(self._take)
        self._cipher: BlockCipher | None = None
        self._sealed = False
        self._challenge = b""
        self._handshake = "none"
        self._deadline: float | None = None
        self._began = time.monotonic_ns()
        self._version = ""
        self._socket: Socket | None = None
        self._plugin: Plugin | None = None
        self._pinged = 0.0
        self._malformed = 0

    def run(self) -> Result:
        """Run it to its end; whatever goes wrong becomes its result."""
        try:
            return self._run()
        except _Cancelled:
            _LOG.info("%s: the session was cancelled", self._task.session_id)
            return Result.success()
        except SmsshError as error:
            return Result.failed(error.message)
        finally:
            if self._plugin is not None:
                self._plugin.close()
            if self._socket is not None:
                self._socket.close()

    # The way to the client: `plugin.Output`.

    @property
    def open(self) -> bool:
        """Whether more should be read and sent."""
        pending = self._socket.pending if self._socket is not None else 0
        return self._stream.open and pending < _PENDING_MAX and time.monotonic() >= self._next

    def send(self, payload_type: int, payload: bytes) -> None:
        """Send one message of the session's."""
        if self._sealed and payload_type in _ENCRYPTED:
            assert self._cipher is not None
            payload = self._cipher.seal(payload)
        now = time.monotonic()
        if payload_type in _ENCRYPTED:
            self._next = max(self._next, now) + self._pace
        self._stream.send(payload_type, payload, now)

    # The course of things.

    def _run(self) -> Result:
        try:
            self._socket = self._connect()
        except CallFailed as error:
            text = f"Setting up data channel with id {self._task.session_id} failed: {error}"
            raise SmsshError(text) from error
        self._say_state("Connected")
        kind = PLUGINS[self._task.session_type]
        if self._task.key_id:
            self._cipher = BlockCipher(self._task.key_id, self._api.decrypt)
        if kind.handshake or self._cipher is not None:
            self._request_handshake(kind.properties(self._task))
            while self._handshake != "done":
                self._step()
        else:
            self._handshake = "done"
        plugin = self._plugin = kind(self._task, self)
        plugin.start(self._version)
        plugin.act({})
        while plugin.result is None:
            self._step(plugin)
        result = plugin.result
        self._finish(plugin)
        return result

    def _finish(self, plugin: Plugin) -> None:
        """Give the client time for what it has not acknowledged, and the plugin none for more."""
        plugin.close()
        deadline = time.monotonic() + _CLOSE_SECONDS
        with contextlib.suppress(SmsshError, _Cancelled):
            while not self._stream.idle and time.monotonic() < deadline:
                self._step(None, deadline)
            if self._task.session_type != "Port":
                self._say_state("Terminating")

    def _step(self, plugin: Plugin | None = None, until: float | None = None) -> None:
        """Wait for something to do, and do it."""
        now = time.monotonic()
        self._tick(now)
        socket = self._socket
        assert socket is not None
        wanted = dict(plugin.watched()) if plugin is not None else {}
        wanted[self._cancel] = select.POLLIN
        wanted[socket.fileno()] = select.POLLIN | (select.POLLOUT if socket.pending else 0)
        poll = select.poll()
        for fd, events in wanted.items():
            if events:
                poll.register(fd, events)
        ready = dict(poll.poll(self._timeout(now, plugin, until) * 1000))
        if self._cancel in ready:
            raise _Cancelled
        if socket.fileno() in ready or socket.ended:
            self._receive(socket)
        if plugin is not None and plugin.result is None:
            plugin.act(ready)
            self._stream.take_early()
        self._flush()

    def _timeout(self, now: float, plugin: Plugin | None, until: float | None) -> float:
        assert self._socket is not None
        if self._socket.ended:
            return 0.0
        due = [
            _KEEPALIVE_SECONDS + max(self._socket.last_received, self._pinged) - now,
            self._stream.timeout(now) if self._handshake != "completing" else None,
            plugin.timeout() if plugin is not None else None,
            until - now if until is not None else None,
            self._deadline - now if self._deadline is not None else None,
            self._next - now if self._next > now else None,
        ]
        return max(0.0, min(seconds for seconds in due if seconds is not None))

    def _tick(self, now: float) -> None:
        assert self._socket is not None
        if self._handshake == "completing" and self._deadline is not None and now >= self._deadline:
            self._handshake, self._deadline = "done", None
        if self._deadline is not None and now > self._deadline:
            raise _handshake_failed(
                "Timed out waiting for encryption challenge."
                if self._handshake == "challenged"
                else "Handshake timed out. Please ensure that you have the latest version of the session "
                "manager plugin."
            )
        if self._handshake != "completing":  # such an agent does not get the processor
            self._stream.resend_due(now)
        heard = self._socket.last_received
        if now - heard > _KEEPALIVE_SECONDS + _SILENCE_SECONDS:
            self._reconnect(WebSocketClosedError(None, "nothing was heard for two minutes"))
        elif now - max(heard, self._pinged) > _KEEPALIVE_SECONDS:
            self._pinged = now
            self._socket.ping()
        self._flush()

    def _flush(self) -> None:
        assert self._socket is not None
        outgoing = self._stream.outgoing
        while outgoing:
            self._socket.send_binary(outgoing.popleft())
        try:
            self._socket.flush()
        except WebSocketClosedError as cut:
            self._reconnect(cut)

    def _receive(self, socket: Socket) -> None:
        try:
            arrived = socket.receive()
        except WebSocketClosedError as cut:
            self._reconnect(cut)
            return
        now = time.monotonic()
        for data in arrived:
            try:
                message = Message.decode(data)
                if message.type == MessageType.CHANNEL_CLOSED:
                    message.json()
                    raise _Cancelled
                self._stream.receive(message, now)
                self._go_on()
            except FrameError as error:
                self._refuse(socket, error)
                return
            self._malformed = 0

    def _refuse(self, socket: Socket, error: FrameError) -> None:
        """Close the connection for what is not a message, and open another: it may have been damaged on its way.

        Raises:
            SmsshError: it was not.
        """
        self._malformed += 1
        _LOG.warning("%s: %s", self._task.session_id, error)
        socket.refuse(_INVALID, str(error))
        if self._malformed >= _MALFORMED_MAX:
            raise SmsshError(f"the other end does not speak the protocol: {error}")
        self._reconnect(WebSocketClosedError(_INVALID, str(error)))

    # Connections.

    def _connect(self) -> Socket:
        """Open the data channel; five attempts.

        Raises:
            CallFailed: the last attempt's answer.
        """
        pause = random.uniform(0.1, 0.2)  # noqa: S311 - spreads agents, hides nothing
        hello = {"ClientInstanceId": self._task.target, "ClientId": self._client}
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                opened = self._api.open_channel(
                    f"data-channel/{self._task.session_id}",
                    {"ClientId": self._client},
                    "role=publish_subscribe",
                    hello,
                )
            except CallFailed as error:  # noqa: PERF203 - it waits
                if attempt == _ATTEMPTS or SESSION_ENDED in str(error):
                    raise
                _LOG.info("%s: no data channel: %s", self._task.session_id, error)
                self._sleep(pause)
                pause = min(pause * 2, _PAUSE_LONGEST)
            else:
                self._pinged = time.monotonic()
                return opened
        raise AssertionError

    def _reconnect(self, cut: WebSocketClosedError) -> None:
        """Open the data channel again. What was under way is not sent again but by its turn.

        Raises:
            SmsshError: it cannot be obtained.
        """
        assert self._socket is not None
        _LOG.info("%s: the data channel ended: %s", self._task.session_id, cut)
        self._socket.abort()
        try:
            self._socket = self._connect()
        except CallFailed as error:
            raise SmsshError(
                f"the data channel ended ({cut}), and no other can be opened: {error}"
            ) from error
        self._stream.paused = False

    def _sleep(self, seconds: float) -> None:
        if select.select([self._cancel], [], [], seconds)[0]:
            raise _Cancelled

    # Handshake.

    def _request_handshake(self, properties: Any) -> None:
        kind = {"SessionType": self._task.session_type, "Properties": properties}
        actions: list[dict[str, Any]] = [{"ActionType": "SessionType", "ActionParameters": kind}]
        if self._cipher is not None:
            parameters = {"KMSKeyId": self._cipher.key_id, "Challenge": self._cipher.challenge}
            actions.append({"ActionType": "KMSEncryption", "ActionParameters": parameters})
        self._handshake = "requested"
        self._deadline = time.monotonic() + HANDSHAKE_SECONDS
        body = {"AgentVersion": AGENT_VERSION, "RequestedClientActions": actions}
        self._send_json(PayloadType.HANDSHAKE_REQUEST, body)

    def _take(self, message: Message) -> bool:
        """A message of the client in its turn; whether it is to be acknowledged."""
        kind = message.payload_type
        payload = message.payload
        if self._sealed and kind == PayloadType.OUTPUT:
            assert self._cipher is not None
            payload = self._cipher.open(payload)
        if kind == PayloadType.HANDSHAKE_RESPONSE:
            if self._handshake == "requested":
                self._take_response(message)
        elif kind == PayloadType.ENCRYPTION_CHALLENGE_RESPONSE:
            if self._handshake == "challenged":
                self._take_challenge(message)
        elif self._handshake == "done":
            plugin = self._plugin
            if plugin is None or plugin.result is not None or not plugin.ready:
                return False
            if plugin.full or self._stream.congested:
                return False
            plugin.take(kind, payload)
        # Whatever comes before the end of the handshake is acknowledged and thrown away.
        return True

    def _take_response(self, message: Message) -> None:
        body = message.json()
        self._version = str(body.get("ClientVersion") or "")
        actions = body.get("ProcessedClientActions")
        for action in actions if isinstance(actions, list) else ():
            if not isinstance(action, dict):
                raise FrameError(f"no client action: {action!r}"[:200])
            kind, status = action.get("ActionType"), action.get("ActionStatus")
            if status != 1:
                said = action.get("Error")
                raise _handshake_failed(f"{kind} failed on client with status {status} error: {said}")
            if kind == "KMSEncryption" and self._cipher is not None:
                self._cipher.finish(action.get("ActionResult"), self._task.session_id, self._task.target)
                self._sealed = True
        if self._cipher is not None and not self._sealed:
            raise _handshake_failed("the client did not encrypt")
        self._handshake = "answered"

    def _go_on(self) -> None:
        """Go on with the handshake, once the client's last word is acknowledged: a client may rely on that order."""
        if self._handshake == "proven" or (self._handshake == "answered" and self._cipher is None):
            self._complete_handshake()
        elif self._handshake == "answered":
            assert self._cipher is not None
            self._challenge = secrets.token_bytes(64)
            self._handshake = "challenged"
            self._deadline = time.monotonic() + HANDSHAKE_SECONDS
            sealed = base64.b64encode(self._cipher.seal(self._challenge)).decode()
            self._send_json(PayloadType.ENCRYPTION_CHALLENGE_REQUEST, {"Challenge": sealed})

    def _take_challenge(self, message: Message) -> None:
        assert self._cipher is not None
        try:
            sealed = base64.b64decode(message.json()["Challenge"], validate=True)
        except (KeyError, TypeError, ValueError) as error:
            raise FrameError(f"no encryption challenge: {error!r}") from None
        if self._cipher.open(sealed) != self._challenge:
            raise _handshake_failed("Encryption challenge does not match!")
        self._handshake = "proven"

    def _complete_handshake(self) -> None:
        window = self._task.configuration.handshake_window
        self._handshake = "completing" if window else "done"
        self._deadline = time.monotonic() + window if window else None
        text = "This session is encrypted using AWS KMS." if self._sealed else ""
        taken = time.monotonic_ns() - self._began
        body = {"HandshakeTimeToComplete": taken, "CustomerMessage": text}
        self._send_json(PayloadType.HANDSHAKE_COMPLETE, body)

    def _send_json(self, payload_type: PayloadType, body: dict[str, Any]) -> None:
        self.send(payload_type, json.dumps(body, separators=(",", ":")).encode())

    def _say_state(self, state: str) -> None:
        assert self._socket is not None
        body = {"SchemaVersion": 1, "SessionState": state, "SessionId": self._task.session_id}
        self._socket.send_binary(Message.of(MessageType.AGENT_SESSION_STATE, body, flags=3).encode())
        self._flush()


def _handshake_failed(what: str) -> SmsshError:
    return SmsshError(f"Encountered error while initiating handshake. {what}")
