"""The agent double's main loop: credentials, pings, the control channel, the sessions that it asks for."""

from __future__ import annotations

import configparser
import contextlib
import json
import logging
import os
import platform
import select
import signal
import socket
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...session.channel import open_websocket, signed_headers
from ...session.frames import FrameError, Message, MessageType
from ...session.websocket import WebSocket, WebSocketClosedError, WebSocketRefusedError
from .api import Api, CallFailed
from .port_session import PortSession
from .setup import AGENT_VERSION

if TYPE_CHECKING:
    from types import FrameType

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from .setup import Configuration, Registration

__all__ = ["Agent"]

_LOG = logging.getLogger("amazon-ssm-agent")
_SHELL_TOPIC = "aws.ssm.mgs.interactive_shell"
_PING_SECONDS = 300.0
_KEEPALIVE_SECONDS = 54.0
_SILENCE_SECONDS = 60.0
_PAUSE_FIRST = 0.5
_PAUSE_LONGEST = 30.0
"""The real agent starts at 2.5 s, then 10, 18, up to 40 minutes."""
_STOP_SECONDS = 2.0
_COMPLETE_TRIES = 3
_COMPLETE_SECONDS = 1.0


class _Completion:
    """An agent_task_complete that has not been acknowledged."""

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.left = _COMPLETE_TRIES
        self.due = 0.0


class Agent:
    """The agent of one managed node.

    Args:
        configuration: the endpoints, and whether credentials are shared.
        registration: the node's identity.
    """

    def __init__(self, configuration: Configuration, registration: Registration) -> None:
        self._configuration = configuration
        self._registration = registration
        self._api = Api(configuration.ssm, configuration.mgs, registration.region)
        self._key = _private_key(registration.private_key)
        self._wake, self._waker = os.pipe()
        for fd in (self._wake, self._waker):
            os.set_blocking(fd, False)
        self._stopping = False
        self._socket: WebSocket | None = None
        self._sessions: dict[str, PortSession] = {}
        self._finished: deque[tuple[str, str, str]] = deque()
        self._completions: dict[str, _Completion] = {}
        self._refresh_at = 0.0
        self._ping_at = 0.0
        self._pinged = 0.0

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT. To be called in the main thread.

        Returns:
            The exit status.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        pause = _PAUSE_FIRST
        while not self._stopping:
            try:
                self._report()
                self._open()
                pause = _PAUSE_FIRST
                while not self._stopping:
                    self._report()
                    self._step()
            except (CallFailed, WebSocketRefusedError, WebSocketClosedError, FrameError) as error:  # noqa: PERF203 - it waits
                if self._socket is not None:
                    self._socket.abort()
                    self._socket = None
                if not self._stopping:
                    _LOG.warning("no control channel: %s; again in %.1f s", error, pause)
                    self._sleep(pause)
                    pause = min(pause * 2, _PAUSE_LONGEST)
        self._shut_down()
        return 0

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        self._awake()

    def _awake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is awake already
            os.write(self._waker, b"x")

    def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._stopping and (left := deadline - time.monotonic()) > 0:
            select.select([self._wake], [], [], left)
            self._drain()

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake, 512):
                pass

    def _report(self) -> None:
        """Refresh the role's credentials and ping, if it is time."""
        now = time.monotonic()
        node = self._registration.node
        if now >= self._refresh_at:
            answer = self._api.role_token(self._key, node, self._registration.fingerprint)
            life = float(answer["TokenExpirationDate"]) - time.time()
            self._refresh_at = now + max(30.0, life / 2)
            if self._configuration.share_credentials:
                _share(answer, self._configuration.share_profile)
        if now >= self._ping_at:
            if not self._ping_at:
                self._api.call("UpdateInstanceInformation", {"InstanceId": node})
            self._api.call("UpdateInstanceInformation", {"InstanceId": node, **_information()})
            self._ping_at = now + _PING_SECONDS

    def _open(self) -> None:
        node = self._registration.node
        token, url = self._api.create_channel(f"control-channel/{node}", {})
        url += "?role=subscribe&stream=input"
        hello = {"AgentVersion": AGENT_VERSION, "PlatformType": "linux"}
        self._socket = open_websocket(
            url, token, hello, headers=signed_headers(url, self._api.credentials, self._registration.region)
        )
        self._socket.flush()
        self._pinged = time.monotonic()
        _LOG.info("control channel of %s is open", node)

    def _step(self) -> None:
        """Wait for something to do, and do it."""
        assert self._socket is not None
        now = time.monotonic()
        self._complete(now)
        heard = self._socket.last_received
        if now - heard > _KEEPALIVE_SECONDS + _SILENCE_SECONDS:
            raise WebSocketClosedError(None, "nothing was heard for two minutes")
        if now - max(heard, self._pinged) > _KEEPALIVE_SECONDS:
            self._pinged = now
            self._socket.ping()
        self._socket.flush()
        writing = [self._socket.fileno()] if self._socket.pending else []
        due = min((one.due for one in self._completions.values()), default=now + _KEEPALIVE_SECONDS)
        timeout = max(0.0, min(due, self._ping_at, self._refresh_at, now + _KEEPALIVE_SECONDS) - now)
        readable, _, _ = select.select([self._socket.fileno(), self._wake], writing, [], timeout)
        if self._wake in readable:
            self._drain()
        if self._socket.fileno() in readable:
            for data in self._socket.receive():
                self._act(Message.decode(data))

    def _act(self, message: Message) -> None:
        if message.type == MessageType.INTERACTIVE_SHELL:
            self._start_session(message.json())
        elif message.type == MessageType.CHANNEL_CLOSED:
            session = self._sessions.get(str(message.json().get("SessionId")))
            if session is not None:
                session.stop()
        elif message.type == MessageType.AGENT_TASK_ACKNOWLEDGE:
            self._completions.pop(str(message.json().get("TaskId")), None)

    def _start_session(self, task: dict[str, Any]) -> None:
        try:
            content = json.loads(task["Content"])
            session = str(content["SessionId"])
            document, parameters = content["DocumentContent"], content.get("Parameters") or {}
        except (KeyError, ValueError, TypeError) as error:
            _LOG.error("a task that cannot be read: %r", error)
            return
        trouble, properties = _properties(document, parameters)
        if trouble:
            self._finish(session, "Failed", trouble)
            return
        _LOG.info("session %s to port %s", session, properties["portNumber"])
        thread = PortSession(self._api, self._registration.node, session, properties, self._finish)
        self._sessions[session] = thread
        thread.start()

    def _finish(self, session: str, status: str, output: str) -> None:
        """Called in a session's thread at its end."""
        self._finished.append((session, status, output))
        self._awake()

    def _complete(self, now: float) -> None:
        """Tell the service of sessions that have ended, up to three times each."""
        assert self._socket is not None
        while self._finished:
            session, status, output = self._finished.popleft()
            self._sessions.pop(session, None)
            _LOG.info("session %s ended: %s %s", session, status, output)
            body = {
                "SchemaVersion": 1,
                "TaskId": session,
                "Topic": _SHELL_TOPIC,
                "FinalTaskStatus": status,
                "IsRoutingFailure": False,
                "AwsAccountId": "",
                "InstanceId": self._registration.node,
                "Output": output,
                "RetryNumber": 0,
            }
            self._completions[session] = _Completion(
                Message.of(MessageType.AGENT_TASK_COMPLETE, body).encode()
            )
        for session, completion in list(self._completions.items()):
            if now < completion.due:
                continue
            if not completion.left:
                del self._completions[session]
                continue
            completion.left -= 1
            completion.due = now + _COMPLETE_SECONDS
            self._socket.send_binary(completion.frame)

    def _shut_down(self) -> None:
        """End the sessions, tell the service, go. The real agent leaves its sessions behind, as processes."""
        deadline = time.monotonic() + _STOP_SECONDS
        for session in list(self._sessions.values()):
            session.stop()
        if self._socket is None:
            return
        try:
            while (self._sessions or self._finished or self._completions) and time.monotonic() < deadline:
                self._complete(time.monotonic())
                self._socket.flush()
                select.select([self._socket.fileno(), self._wake], [], [], 0.1)
                self._drain()
                for data in self._socket.receive():
                    message = Message.decode(data)
                    if message.type == MessageType.AGENT_TASK_ACKNOWLEDGE:
                        self._act(message)
        except (WebSocketClosedError, FrameError) as error:
            _LOG.info("the control channel ended first: %s", error)
        self._socket.close()


def _properties(document: dict[str, Any], parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What keeps the double from this session ("" for nothing), and the properties with the parameters in."""
    kind = document.get("sessionType")
    if kind != "Port":
        return f"the agent double serves sessions of type Port only, not {kind}", {}
    properties: dict[str, Any] = {}
    for name, template in (document.get("properties") or {}).items():
        value = template
        for key, given in parameters.items():
            if not isinstance(given, str):
                # The real agent's words for what it answers to a list here.
                return f"json: cannot unmarshal array into Go struct field {key} of type string", {}
            value = value.replace("{{ " + key + " }}", given).replace("{{" + key + "}}", given)
        properties[name] = value
    if properties.get("type") == "LocalPortForwarding":
        return "the agent double has no multiplexed port forwarding: use AWS-StartSSHSession", {}
    if properties.get("host"):
        return "the agent double connects to its own host only", {}
    if not str(properties.get("portNumber", "")).isdigit():
        return f"not a port: {properties.get('portNumber')!r}", {}
    return "", properties


def _private_key(pem: str) -> RSAPrivateKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, RSAPrivateKey)
    return key


def _share(token: dict[str, Any], profile: str) -> None:
    """Write the role's credentials where the real agent does: over the user's, unless told otherwise."""
    named = os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
    path = Path(named) if named else Path.home() / ".aws" / "credentials"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    parser = configparser.RawConfigParser()
    parser.read(path)
    parser[profile] = {
        "aws_access_key_id": token["AccessKeyId"],
        "aws_secret_access_key": token["SecretAccessKey"],
        "aws_session_token": token["SessionToken"],
    }
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        parser.write(file)


def _information() -> dict[str, str]:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    return {
        "AgentName": "amazon-ssm-agent",
        "AgentVersion": AGENT_VERSION,
        "AgentStatus": "Active",
        "PlatformType": "Linux",
        "PlatformName": release.get("NAME", "Linux"),
        "PlatformVersion": release.get("VERSION_ID", ""),
        "ComputerName": socket.gethostname(),
        "IPAddress": "127.0.0.1",
        "SSMConnectionChannel": "ssmmessages",
    }
