"""Data channels: a websocket, the two streams on it, and the handshake.

By hand: Amazon's client is a program to install and to start for each login, and uploads many times slower (see
`benchmarks/`).

`Channel` is what both sides have in common, `ClientChannel` is ours. A channel waits for nothing once it is
open, save in one attempt to connect again: `pump.Pump` polls it, after a cut, too.
"""

from __future__ import annotations

import base64
import json
import random
import re
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...aws.signing import signed
from ...errors import ExitStatus, SmsshError
from .client_version import CLIENT_VERSION
from .encryption import Encryption
from .frames import Flag, FrameError, Message, MessageType, PayloadType
from .stream import Stream, StreamLostError
from .websocket import WebSocket, WebSocketClosedError, WebSocketRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from ...aws.signing import Keys
    from .encryption import DataKey

__all__ = [
    "COMMANDS",
    "PORT",
    "SHELL",
    "Channel",
    "ClientChannel",
    "Opening",
    "open_websocket",
    "signed_headers",
]

PORT = "Port"
"""The session type of SSH and port forwarding documents."""
SHELL = "Standard_Stream"
"""That of a shell in a terminal."""
COMMANDS = "InteractiveCommands"
"""That of a command in a terminal."""

_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})*")
"""What an agent says of itself can be anything."""

HANDSHAKE_SECONDS = 75.0
"""From the open websocket to HandshakeComplete. An agent that finds nothing on the port says so after 60."""

SETTLE_SECONDS = 1.0
"""From HandshakeComplete on, how long a sign is waited for that the agent takes input; see `Channel.settled`."""

_KEEPALIVE = 54.0
"""Seconds of silence after which a ping is sent; the agent's own figure."""
_SILENCE = 60.0
"""Seconds after that ping with no sign of life, after which the connection counts as cut."""
_CONNECT_PAUSES = (0.3, 1.0)
"""Seconds between attempts to connect for the first time."""
_RECONNECT_PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0, 30.0)
"""Seconds before each attempt to reconnect: two minutes, after which ssh's ServerAlive gives up as well."""
_FRUITLESS_SECONDS = 120.0
"""How long connections are opened that are cut before anything comes: since they open, the other pauses never grow."""
_FRUITLESS_PAUSE = 0.5
"""Seconds before each of them, except for the first two."""
_STEADY_SECONDS = 15.0
"""A connection that lasted as long was a good one, though nothing came on it."""
_RECONNECT_REFUSALS = 5
"""Attempts that the other side refuses, of these; as many as the agent makes."""
_MULTIPLEXING_AGENT = (3, 0, 196, 0)
"""The last agent whose port forwarding is not multiplexed (`versionutil` of the agent's port plugin)."""


@dataclass(frozen=True)
class Opening:
    """What StartSession and ResumeSession answer."""

    session_id: str
    token: str
    url: str


class Channel:
    """One side of a data channel.

    Args:
        sends: the message type of our stream.
        receives: the message type of the peer's stream.
        connect: opens the websocket, first message included; called again after a cut. It raises
            `WebSocketRefusedError` where another attempt may help, and anything else where none will.
        pause: sleeps between attempts to connect for the first time; may raise, to end the channel.
        handshake_seconds: the time the peer has for the handshake.
    """

    def __init__(
        self,
        *,
        sends: str,
        receives: str,
        connect: Callable[[], WebSocket],
        pause: Callable[[float], None] = time.sleep,
        handshake_seconds: float = HANDSHAKE_SECONDS,
    ) -> None:
        self.stream = Stream(sends=sends, receives=receives)
        self.ready = False
        """Whether the handshake is over, so that `Output` may be sent."""
        self.settled = False
        """Whether what is sent as `Output` is sure to be taken; until then `window` is 0.

        The agent sends HandshakeComplete first and takes input after it: what arrives between the two it acknowledges
        and throws away (`PerformHandshake` and `processStreamDataMessage` in the agent's datachannel.go), for as long
        as the container's other processes keep it from the processor. So HandshakeComplete is acknowledged only when
        the agent is seen to have gone on: it sent more, as an SSH server's greeting, or it sent HandshakeComplete
        again, 0.2 to 0.3 s later. Where neither comes, it is trusted after `SETTLE_SECONDS`.
        """
        self.closed: str | None = None
        """Once the service or the peer ended the session: its text for the user, mostly empty."""
        self.resumable = True
        """Whether a cut is worth a new connection; if not, it closes the channel."""
        self.cut: WebSocketClosedError | None = None
        """Why there is no connection now; `tick` tries to have a new one, and what is sent waits for it."""
        self.listening = True
        """Whether what arrives is read; the caller says so before it waits. While nobody listens, neither silence
        nor a missing acknowledgement says anything of the peer."""
        self.reconnects = 0
        self._heard = False  # whether anything came on the present connection
        self._fruitless: float | None = None  # since when each connection was cut before it did
        self._pauses = iter(_RECONNECT_PAUSES)
        self._refusals = 0
        self._receives = receives
        self._connect = connect
        self._pause = pause
        self._pinged = 0.0
        self._deaf = float("-inf")  # when nobody listened last
        self.socket = self._first_connection()
        self._connected = time.monotonic()
        self._handshake_seconds = handshake_seconds
        self._handshake_deadline = time.monotonic() + handshake_seconds
        self._settle_at = float("inf")

    @property
    def window(self) -> int:
        """How many messages of `Output` may be sent now."""
        return self.stream.window if self.settled else 0

    def send(self, data: bytes, now: float) -> None:
        """Send at most a chunk as `Output`; allowed while `window` is not 0.

        Before that, once the channel is `ready`, for what may be lost and does no harm when it is sent again.
        """
        self.stream.send(data, PayloadType.OUTPUT, now)

    def receive(self, now: float) -> list[bytes]:
        """Read what has arrived and act on it.

        Returns:
            The peer's output, in order. Look at `closed` after it.

        Raises:
            SmsshError: the protocol was broken, or the connection cut and could not be resumed.
        """
        output: list[bytes] = []
        try:
            for message in self._arrived(now):
                output += self._take(message, now)
                if self.closed is not None:
                    return output
        except FrameError as error:
            raise _broken(str(error)) from error
        self._settle(now)
        return output

    def _arrived(self, now: float) -> Iterator[Message]:
        """What there is to act on, in order."""
        try:
            arrived = self.socket.receive()
        except WebSocketClosedError as cut:
            self._lost(cut)
            return
        self._heard = self._heard or bool(arrived)
        for data in arrived:
            yield from self.stream.receive(Message.decode(data), now)

    def _take(self, message: Message, now: float) -> Iterator[bytes]:
        """Act on a message; yields the output in it."""
        if message.type == MessageType.CHANNEL_CLOSED:
            self.closed = str(message.json().get("Output") or "").strip()
        elif message.type != self._receives:
            pass  # agent_session_state, and what later versions may bring
        elif message.payload_type != PayloadType.OUTPUT:
            self.handle(message, now)
        else:
            if not self.ready:
                self.handle_early(message)
            if self.ready:
                self.settled = True
                yield self.opened(message)

    def _settle(self, now: float) -> None:
        if self.settled or not self.ready or self.cut is not None:
            return
        if self._settle_at == float("inf"):
            self._settle_at = now + SETTLE_SECONDS
        if now >= self._settle_at:
            self.stream.confirm()
        self.settled = self.stream.confirmed

    def opened(self, message: Message) -> bytes:
        """The payload of an `Output` as it was meant."""
        return message.payload

    def handle(self, message: Message, now: float) -> None:
        """Act on a message of the peer's stream that is not an `Output`."""
        raise NotImplementedError

    def handle_early(self, message: Message) -> None:
        """Act on `Output` that came before the end of the handshake; it counts if the channel is `ready` then."""
        raise NotImplementedError

    def tick(self, now: float) -> None:
        """Do what is due: resends, keep-alive, time-out of the handshake; and write what the socket takes.

        After a cut it is an attempt to connect, which may take its time.

        Raises:
            SmsshError: the peer is gone, or the connection is cut and could not be resumed.
        """
        if self.cut is not None:
            self._reconnect(self.cut, now)
            return
        if not self.ready and now > self._handshake_deadline:
            raise SmsshError(
                f"the other end did not complete the handshake within {self._handshake_seconds:.0f} s",
                hint="check that the agent of that container and its SSH server run",
                reference="handshake-timeout",
                status=ExitStatus.TIMEOUT,
            )
        self._settle(now)
        if self.listening:
            try:
                self.stream.resend_due(now)
            except StreamLostError as error:
                raise SmsshError(
                    f"the other end of the session is gone: {error}",
                    reference="session-lost",
                    status=ExitStatus.UNREACHABLE,
                ) from error
        else:
            self._deaf = now
            self.stream.excuse(now)
        if now - max(self.socket.last_received, self._deaf) > _KEEPALIVE + _SILENCE:
            self._lost(WebSocketClosedError(None, "nothing was heard for two minutes"))
        elif now - max(self.socket.last_received, self._pinged) > _KEEPALIVE:
            self._pinged = now
            self.socket.ping()
        self.flush()

    def flush(self) -> None:
        """Put the stream's messages on the wire, as far as the socket takes them."""
        if self.cut is not None:
            return
        outgoing = self.stream.outgoing
        while outgoing:
            self.socket.send_binary(outgoing.popleft())
        try:
            self.socket.flush()
        except WebSocketClosedError as cut:
            self._lost(cut)

    def timeout(self, now: float) -> float:
        """Seconds until `tick` has something to do."""
        if self.cut is not None:
            return max(0.0, self._attempt_at - now) if self.resumable else 0.0
        heard = self.socket.last_received
        due = max(heard, self._pinged) + _KEEPALIVE - now
        resend = self.stream.timeout(now) if self.listening else None
        if resend is not None:
            due = min(due, resend)
        if not self.ready:
            due = min(due, self._handshake_deadline - now)
        elif not self.settled:
            due = min(due, self._settle_at - now)
        return max(0.0, due)

    def close(self) -> None:
        """Write out what waits, as far as that goes at once, and close the websocket."""
        while self.stream.outgoing:
            self.socket.send_binary(self.stream.outgoing.popleft())
        self.socket.close()

    def _first_connection(self) -> WebSocket:
        for seconds in _CONNECT_PAUSES:
            try:
                return self._connect()
            except WebSocketRefusedError as refused:  # noqa: PERF203 - it pauses
                if refused.status:
                    raise  # an answer: the next one would be the same
                self._pause(seconds)
        return self._connect()

    def _lost(self, cut: WebSocketClosedError) -> None:
        """Note that the connection is cut.

        Raises:
            SmsshError: each of the last ones was cut before anything came: another would be, too.
        """
        self.socket.abort()
        self.cut = cut
        now = time.monotonic()
        pause = 0.0
        if self._heard or now - self._connected >= _STEADY_SECONDS:
            self._fruitless = None
        elif self._fruitless is None:
            # Perhaps by chance: what was sent may have arrived, and its acknowledgement have been cut off.
            self._fruitless = now
        elif now - self._fruitless >= _FRUITLESS_SECONDS:
            raise _not_resumed(cut, "each new connection was cut before anything came", denied=False)
        else:
            pause = _FRUITLESS_PAUSE
        self._heard = False
        self._pauses = iter(_RECONNECT_PAUSES)
        self._refusals = 0
        self._attempt_at = now + next(self._pauses) + pause

    def _reconnect(self, cut: WebSocketClosedError, now: float) -> None:
        """Try to connect again, if it is time to."""
        if not self.resumable:
            self.closed = ""
            return
        if now < self._attempt_at:
            return
        try:
            self.socket = self._connect()
        except WebSocketRefusedError as refused:
            self._refusals += bool(refused.status)
            pause = next(self._pauses, None)
            if pause is None or self._refusals == _RECONNECT_REFUSALS:
                raise _not_resumed(cut, str(refused), denied=refused.status in (401, 403)) from refused
            pause *= random.uniform(0.7, 1.0)  # noqa: S311 - all who were cut come back
            self._attempt_at = time.monotonic() + pause
            return
        self.cut = None
        self._connected = time.monotonic()
        if not self.ready:
            self._handshake_deadline = self._connected + self._handshake_seconds
        self.reconnects += 1
        self._pinged = 0.0
        self.stream.resend_all(time.monotonic())
        self.flush()


class ClientChannel(Channel):
    """The client's side of a session.

    Args:
        opening: StartSession's answer.
        resume: calls ResumeSession, after a cut; once, since it is asked again if the error is a passing one.
        sign: the headers of the websocket upgrade for an address; session-manager-plugin
            signs since 1.2.764, as 1.2.688 did, and 1.2.694 to 1.2.707 did not.
        pause: see `Channel`.
        ca_bundle: see `WebSocket`.
        kinds: the session types that may be asked for, of `PORT`, `SHELL` and `COMMANDS`.
        data_key: makes a data key with the KMS key of this id, where the session is to be encrypted.

    Raises:
        SmsshError: no connection.
    """

    def __init__(
        self,
        opening: Opening,
        *,
        resume: Callable[[], Opening],
        sign: Callable[[str], dict[str, str]] = lambda _url: {},
        pause: Callable[[float], None] = time.sleep,
        ca_bundle: str | None = None,
        kinds: Collection[str] = (PORT,),
        data_key: Callable[[str], DataKey] | None = None,
    ) -> None:
        self.customer_message = ""
        """What the account's administrators say to everybody who opens a session."""
        self.agent_version = ""
        self.properties: dict[str, Any] = {}
        """Those of the session's document, from the handshake on."""
        self.exit_code: int | None = None
        """Of a command, where the agent said one."""
        self.on_error: Callable[[bytes], None] = lambda _data: None
        """Takes what a command wrote to its standard error, where the agent tells it apart."""
        self.on_unreachable: Callable[[], None] | None = None
        """Is told that the agent could not connect to the port; None: that ends the session."""
        self._opening: Opening | None = opening
        self._resume = resume
        self._sign = sign
        self._ca_bundle = ca_bundle
        self._client_id = str(uuid.uuid4())
        self._kinds = kinds
        self._data_key = data_key
        self._encryption: Encryption | None = None
        self._greeted = False

        try:
            super().__init__(
                sends=MessageType.INPUT,
                receives=MessageType.OUTPUT,
                connect=self._open,
                pause=pause,
                # A command without a handshake may be silent for as long as it likes.
                handshake_seconds=HANDSHAKE_SECONDS if PORT in kinds else float("inf"),
            )
        except WebSocketRefusedError as refused:
            raise _not_opened(refused) from refused

    def _open(self) -> WebSocket:
        try:
            current = self._opening or self._resume()
        except SmsshError as error:
            if error.passing:  # the network is away, and may come back
                raise WebSocketRefusedError(error.message) from error
            raise
        hello = {"ClientId": self._client_id, "ClientVersion": CLIENT_VERSION}
        headers = self._sign(current.url)
        opened = open_websocket(current.url, current.token, hello, headers=headers, ca_bundle=self._ca_bundle)
        self._opening = None
        return opened

    @property
    def multiplexed(self) -> bool:
        """Whether the stream carries several connections (smux), as port forwarding documents want it."""
        return self.properties.get("type") == "LocalPortForwarding"

    def send(self, data: bytes, now: float) -> None:
        """Send at most a chunk as `Output`, encrypted where that was agreed on."""
        super().send(data if self._encryption is None else self._encryption.encrypt(data), now)

    def resize(self, columns: int, rows: int, now: float) -> None:
        """Tell a shell how large its terminal is."""
        body = json.dumps({"cols": columns, "rows": rows}, separators=(",", ":")).encode()
        self.stream.send(body, PayloadType.SIZE, now)

    def terminate(self, now: float) -> None:
        """Tell the agent that the session is over. TerminateSession has to be called all the same."""
        if self.ready and self.closed is None:
            self.stream.send(Flag.TERMINATE_SESSION.payload(), PayloadType.FLAG, now)

    def opened(self, message: Message) -> bytes:
        """The payload as it was meant, decrypted where that was agreed on."""
        return message.payload if self._encryption is None else self._encryption.decrypt(message.payload)

    # Deep: one branch for each type of message.
    def handle(self, message: Message, now: float) -> None:
        """The client's part of the handshake, flags, and what commands have besides their output."""
        match message.payload_type:
            case PayloadType.HANDSHAKE_REQUEST:
                self._answer_handshake(message, now)
            case PayloadType.HANDSHAKE_COMPLETE:
                self.customer_message = str(message.json().get("CustomerMessage") or "")
                self.ready = True
            case PayloadType.FLAG:
                self._handle_flag(int.from_bytes(message.payload[:4], "big"))
            case PayloadType.ENCRYPTION_CHALLENGE_REQUEST:
                self._answer_challenge(message, now)
            case PayloadType.STANDARD_ERROR:
                self.on_error(self.opened(message))
            case PayloadType.EXIT_CODE:
                text = self.opened(message).strip()
                self.exit_code = int(text) if text.isdigit() and len(text) < 4 else None

    def _handle_flag(self, flag: int) -> None:
        if flag == Flag.DISCONNECT_TO_PORT:
            self.closed = ""
        elif flag == Flag.CONNECT_TO_PORT_ERROR and self.on_unreachable is not None:
            self.on_unreachable()
        elif flag == Flag.CONNECT_TO_PORT_ERROR:
            self.closed = "the agent cannot connect to the port: is the server up?"

    def handle_early(self, message: Message) -> None:
        """A shell that is not encrypted begins without a handshake (`RequireHandshake` in the agent's plugins).

        Raises:
            SmsshError: it is not a shell: an agent that skips the handshake is too old (before 2.3.750) for what we
                need of it.
        """
        if not self._greeted and not {SHELL, COMMANDS}.isdisjoint(self._kinds):
            self.ready = True
            return
        raise _broken(f"output (message {message.sequence}) before the handshake; the agent may be too old")

    def _answer_handshake(self, message: Message, now: float) -> None:
        self._greeted = True
        request = message.json()
        self.agent_version = str(request.get("AgentVersion") or "")
        actions = request.get("RequestedClientActions") or []
        if not isinstance(actions, list) or not all(isinstance(action, dict) for action in actions):
            raise FrameError("the handshake asks for no list of actions")
        processed: list[dict[str, Any]] = []
        trouble: SmsshError | None = None
        for action in actions:
            done: dict[str, Any] = {
                "ActionType": action.get("ActionType"),
                "ActionStatus": 1,
                "ActionResult": None,
                "Error": "",
            }
            parameters = action.get("ActionParameters")
            try:
                done["ActionResult"] = self._act(
                    done["ActionType"], parameters if isinstance(parameters, dict) else {}
                )
            except SmsshError as error:
                done.update(
                    ActionStatus=3 if error.reference == "session-unsupported" else 2, Error=error.message
                )
                trouble = trouble or error
            processed.append(done)
        answer = {
            "ClientVersion": CLIENT_VERSION,
            "ProcessedClientActions": processed,
            "Errors": [done["Error"] for done in processed if done["Error"]] or None,
        }
        body = json.dumps(answer, separators=(",", ":")).encode()
        self.stream.send(body, PayloadType.HANDSHAKE_RESPONSE, now)
        if trouble is not None:
            raise trouble

    def _act(self, kind: object, parameters: dict[str, Any]) -> dict[str, Any] | None:
        """Do what the agent asks for in the handshake; the result that it wants to hear.

        Raises:
            SmsshError: we do not know it, or it could not be done.
        """
        if kind == "KMSEncryption" and self._data_key is not None:
            key = self._data_key(str(parameters.get("KMSKeyId") or parameters.get("KMSKeyID") or ""))
            self._encryption = Encryption(key.plain)
            return {"KMSCipherTextKey": base64.b64encode(key.encrypted).decode(), "KMSCipherTextHash": None}
        if kind == "KMSEncryption":
            raise _unsupported("encryption with a KMS key")
        if kind != "SessionType":
            raise _unsupported(f"the action {kind}")
        session_type = str(parameters.get("SessionType"))
        if session_type not in self._kinds:
            raise _unsupported(f"a session of type {session_type}")
        properties = parameters.get("Properties")
        self.properties = properties if isinstance(properties, dict) else {}
        if self.multiplexed and not _newer(self.agent_version, _MULTIPLEXING_AGENT):
            raise _unsupported(f"port forwarding by an agent of version {self.agent_version or '(unknown)'}")
        return None

    def _answer_challenge(self, message: Message, now: float) -> None:
        if self._encryption is None:
            raise FrameError("a challenge without an agreed encryption")
        try:
            challenge = base64.b64decode(message.json().get("Challenge") or "", validate=True)
        except (ValueError, TypeError):
            raise FrameError("a challenge that is not base64") from None
        answer = self._encryption.encrypt(self._encryption.decrypt(challenge))
        body = json.dumps({"Challenge": base64.b64encode(answer).decode()}).encode()
        self.stream.send(body, PayloadType.ENCRYPTION_CHALLENGE_RESPONSE, now)


def open_websocket(
    url: str,
    token: str,
    hello: dict[str, str],
    *,
    headers: dict[str, str] | None = None,
    ca_bundle: str | None = None,
) -> WebSocket:
    """Connect, and say who we are: the first message of every channel is text, and carries the token.

    Raises:
        WebSocketRefusedError: no websocket.
    """
    connection = WebSocket(url, headers, ca_bundle=ca_bundle)
    message = {"MessageSchemaVersion": "1.0", "RequestId": str(uuid.uuid4()), "TokenValue": token, **hello}
    connection.send_text(json.dumps(message))
    return connection


def signed_headers(url: str, credentials: Keys | None, region: str) -> dict[str, str]:
    """The SigV4 headers of a websocket upgrade; none without credentials."""
    if credentials is None:
        return {}
    return signed("GET", url, {}, b"", credentials, region, "ssmmessages")


def _not_resumed(cut: WebSocketClosedError, why: str, *, denied: bool) -> SmsshError:
    return SmsshError(
        f"the connection to the session was cut ({cut}) and could not be resumed: {why}",
        hint="log in to AWS again, and connect again: the credentials may have expired"
        if denied
        else "check the network",
        reference="session-cut",
        status=ExitStatus.REFUSED if denied else ExitStatus.UNREACHABLE,
    )


def _newer(version: str, than: tuple[int, ...]) -> bool:
    """Whether an agent's version, 3.3.987.0, is newer than another; True where it is not a version."""
    if not _VERSION.fullmatch(version):
        return True
    return tuple(map(int, version.split("."))) > than


def _unsupported(what: str) -> SmsshError:
    return SmsshError(
        f"the session needs what smssh does not support: {what}",
        hint="use the public documents (AWS-StartSSHSession, ...) and a current agent",
        reference="session-unsupported",
        status=ExitStatus.UNREACHABLE,
    )


def _not_opened(refused: WebSocketRefusedError) -> SmsshError:
    denied = refused.status in (401, 403)
    return SmsshError(
        f"the session's data channel cannot be opened: {refused}",
        hint="check that ssmmessages is reachable from here (HTTPS_PROXY, VPC endpoint)"
        if not denied
        else "allow ssmmessages:OpenDataChannel, and check the clock",
        reference="no-data-channel",
        status=ExitStatus.REFUSED if denied else ExitStatus.UNREACHABLE,
        check="permissions.open-channel laptop.clock" if denied else "laptop.endpoints",
    )


def _broken(detail: str) -> SmsshError:
    return SmsshError(
        f"the session broke the protocol: {detail}",
        hint="if it happens again, update the SSM agent in the container",
        reference="session-protocol",
        status=ExitStatus.UNREACHABLE,
    )
