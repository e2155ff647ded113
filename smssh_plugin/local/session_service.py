"""Session Manager on loopback: the SSM operations around sessions, and the websockets of agents and clients.

It speaks the protocol precisely enough for Amazon's own agent and session-manager-plugin. Where the real
service's behaviour is not known, it does what is hardest on the programs: a session whose client vanished
stays until the idle time-out, a node stays Online for minutes after its agent is gone, frames for a peer
that went away are dropped. One thing it does kindly: what an agent sends before the client's first
connection is held, so that the time of a login does not hang on a race.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from aiohttp import WSMsgType, web

from ..session.frames import FrameError, Message, MessageType
from .service_error import ServiceError
from .session_documents import DOCUMENTS, parameters_of
from .session_nodes import Nodes, page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Event", "Session", "SessionService"]

IDLE_SECONDS = 20 * 60.0
"""Session Manager's default; an account may set 1 to 60 minutes."""
_SHELL_TOPIC = "aws.ssm.mgs.interactive_shell"
_TICK_SECONDS = 0.25
_HELLO_SECONDS = 10.0
_CLOSE_SECONDS = 1.0
_MESSAGE_MAX = 16 * 1024 * 1024 + 4096
_HELD_MAX = 64
_TYPE = slice(4, 36)
_HEADER_MIN = 120
_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/")


@dataclass(frozen=True)
class Event:
    """Something that happened: for tests, and for a person who wonders."""

    time: float
    kind: str
    subject: str
    detail: str = ""


@dataclass
class Session:
    """One session. Times are seconds since the epoch, `active` is on the monotonic clock."""

    id: str
    target: str
    document: str
    owner: str
    reason: str
    started: float
    active: float
    ended: float | None = None
    status: str = "Connecting"
    output: str = ""
    client_token: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    client: web.WebSocketResponse | None = None
    agent: web.WebSocketResponse | None = None
    paused: bool = False
    closing: Message | None = None
    """The `channel_closed` of a session that has ended."""
    held: list[bytes] | None = field(default_factory=list)
    """The agent's frames until the client connects for the first time; None from then on."""

    def to_json(self) -> dict[str, Any]:
        """An entry of DescribeSessions."""
        shown = {
            "SessionId": self.id,
            "Target": self.target,
            "Status": self.status,
            "StartDate": self.started,
            "DocumentName": self.document,
            "Owner": self.owner,
            "Reason": self.reason,
            "Details": self.output,
        }
        if self.ended is not None:
            shown["EndDate"] = self.ended
        return shown


class SessionService:
    """The service: operations through `handle`, channels through the routes. All in one event loop.

    Args:
        base_url: where clients reach the routes, `http://127.0.0.1:4580`; may be set later, before the first
            StartSession.
        region: the region in ARNs.
        account: the account in ARNs.
        idle_seconds: the idle time-out of sessions.
        max_seconds: the longest duration of a session; None for no limit.
        signed_clients: whether a client's websocket upgrade has to be signed. The agent's always has to be.
    """

    def __init__(
        self,
        base_url: str = "",
        *,
        region: str = "us-east-1",
        account: str = "123456789012",
        idle_seconds: float = IDLE_SECONDS,
        max_seconds: float | None = None,
        signed_clients: bool = False,
    ) -> None:
        self.base_url = base_url
        self.nodes = Nodes()
        self.sessions: dict[str, Session] = {}
        self.events: list[Event] = []
        self.faults: dict[str, ServiceError] = {}
        """Operations that fail, and how; for tests."""
        self._owner = f"arn:aws:sts::{account}:assumed-role/local/smssh"
        self._region = region
        self._idle = idle_seconds
        self._max = max_seconds
        self._signed_clients = signed_clients
        self._control: dict[str, web.WebSocketResponse] = {}
        self._tokens: dict[str, str] = {}
        """Tokens for the first message of agents' channels, each with the channel's path; for one use."""
        self._sockets: set[web.WebSocketResponse] = set()
        self._watch: asyncio.Task[None] | None = None
        self._operations: dict[str, Callable[[dict[str, Any], str | None], Awaitable[dict[str, Any]]]] = {
            "AddTagsToResource": _without_key(self.nodes.add_tags),
            "CreateActivation": _without_key(self.nodes.create_activation),
            "DeleteActivation": _without_key(self.nodes.delete_activation),
            "DeregisterManagedInstance": self._deregister,
            "DescribeActivations": _without_key(self.nodes.describe_activations),
            "DescribeInstanceInformation": _without_key(self.nodes.describe),
            "DescribeSessions": self._describe_sessions,
            "GetConnectionStatus": self._connection_status,
            "ListInstanceAssociations": _without_key(lambda _body: {"Associations": []}),
            "ListTagsForResource": _without_key(self.nodes.list_tags),
            "RegisterManagedInstance": _without_key(self.nodes.register),
            "RemoveTagsFromResource": _without_key(self.nodes.remove_tags),
            "RequestManagedInstanceRoleToken": _with_key(self.nodes.role_token),
            "ResumeSession": self._resume_session,
            "StartSession": self._start_session,
            "TerminateSession": self._terminate_session,
            "UpdateInstanceInformation": _with_key(self.nodes.update_information),
            "UpdateManagedInstancePublicKey": _with_key(self.nodes.update_public_key),
        }
        self.operations = frozenset(self._operations)
        """The operations of the target prefix `AmazonSSM` that `handle` serves."""

    async def handle(self, operation: str, body: dict[str, Any], access_key: str | None) -> dict[str, Any]:
        """Answer one call of the SSM API.

        Args:
            operation: the name after `AmazonSSM.` in X-Amz-Target.
            body: the request's JSON.
            access_key: the access key id of its signature; None if it carries none.

        Raises:
            ServiceError: the answer is an error.
        """
        if operation in self.faults:
            raise self.faults[operation]
        if operation not in self._operations:
            raise ServiceError("UnknownOperationException", f"{operation} is not served here.")
        answer = await self._operations[operation](body, access_key)
        if not operation.startswith(("Describe", "Get", "List", "UpdateInstanceInformation")):
            self._note(
                operation, str(answer.get("SessionId") or answer.get("InstanceId") or access_key or "")
            )
        return answer

    def add_routes(self, app: web.Application) -> None:
        """Add the channels' routes to `app`, and the service's own start and end to the app's."""
        app.router.add_post("/v1/control-channel/{id}", self._create_control_channel)
        app.router.add_get("/v1/control-channel/{id}", self._control_channel)
        app.router.add_post("/v1/data-channel/{id}", self._create_data_channel)
        app.router.add_get("/v1/data-channel/{id}", self._data_channel)
        app.on_startup.append(self._start)
        app.on_shutdown.append(self._stop)

    async def close(self) -> None:
        """End every connection. Agents and clients see a cut, as in an outage of the service."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        await asyncio.gather(*(self._close(socket, 1001) for socket in list(self._sockets)))

    @property
    def active_sessions(self) -> list[Session]:
        """The sessions that have not ended."""
        return [session for session in self.sessions.values() if session.ended is None]

    async def drop(self, side: str, subject: str) -> None:
        """Cut a connection with no closing handshake, for tests.

        Args:
            side: `client`, `agent` or `control`.
            subject: the id of the session, of the node for `control`.
        """
        if side == "control":
            socket = self._control.get(subject)
        else:
            session = self.sessions[subject]
            socket = session.client if side == "client" else session.agent
        transport = socket and socket._req and socket._req.transport  # noqa: SLF001 - aiohttp has no public way
        if transport:
            transport.abort()
        self._note("drop", subject, side)

    # Operations.

    async def _deregister(self, body: dict[str, Any], _access_key: str | None) -> dict[str, Any]:
        node = self.nodes.deregister(str(body.get("InstanceId", "")))
        for session in self.active_sessions:
            if session.target == node.id:
                await self._end(session, "The target of the session was deregistered.")
        control = self._control.pop(node.id, None)
        if control is not None:
            await self._close(control, 1008)
        return {}

    async def _connection_status(self, body: dict[str, Any], _access_key: str | None) -> dict[str, Any]:
        target = str(body.get("Target", ""))
        return {"Target": target, "Status": "connected" if target in self._control else "notconnected"}

    async def _start_session(self, body: dict[str, Any], _access_key: str | None) -> dict[str, Any]:
        target = str(body.get("Target", ""))
        document = str(body.get("DocumentName") or "SSM-SessionManagerRunShell")
        parameters = parameters_of(document, body.get("Parameters") or {})
        control = self._control.get(target)
        if control is None:
            raise ServiceError("TargetNotConnected", f"{target} is not connected.")
        session = Session(
            id=f"smssh-0{secrets.token_hex(8)}",
            target=target,
            document=document,
            owner=self._owner,
            reason=str(body.get("Reason", "")),
            started=time.time(),
            active=time.monotonic(),
        )
        self.sessions[session.id] = session
        content = {
            "DocumentName": document,
            "DocumentContent": DOCUMENTS[document],
            "SessionId": session.id,
            "Parameters": parameters,
            "RunAsUser": "",
            "SessionOwner": session.owner,
        }
        task = {
            "Content": json.dumps(content),
            "TaskId": session.id,
            "Topic": _SHELL_TOPIC,
            "SchemaVersion": 1,
        }
        await self._send(control, Message.of(MessageType.INTERACTIVE_SHELL, task))
        return self._stream(session)

    async def _resume_session(self, body: dict[str, Any], _access_key: str | None) -> dict[str, Any]:
        session = self.sessions.get(str(body.get("SessionId", "")))
        if session is None:
            raise ServiceError("DoesNotExistException", f"Session {body.get('SessionId')} does not exist.")
        if session.ended is not None:
            return {"SessionId": session.id}  # no token: the plugin takes that for the session's end
        session.client_token = secrets.token_urlsafe(48)
        return self._stream(session)

    async def _terminate_session(self, body: dict[str, Any], _access_key: str | None) -> dict[str, Any]:
        session = self.sessions.get(str(body.get("SessionId", "")))
        if session is None:
            raise ServiceError("DoesNotExistException", f"Session {body.get('SessionId')} does not exist.")
        await self._end(session, "")
        return {"SessionId": session.id}

    async def _describe_sessions(self, body: dict[str, Any], _access_key: str | None) -> dict[str, Any]:
        state = body.get("State")
        if state not in ("Active", "History"):
            raise ServiceError(
                "ValidationException", "1 validation error detected: State is Active or History."
            )
        found = [
            one.to_json() for one in self.sessions.values() if (one.ended is None) == (state == "Active")
        ]
        for one in body.get("Filters") or ():
            key = {"SessionId": "SessionId", "Target": "Target", "Owner": "Owner", "Status": "Status"}.get(
                one["key"]
            )
            if key is None:
                raise ServiceError("InvalidFilterKey", f"The filter key {one['key']} isn't valid here.")
            found = [shown for shown in found if shown[key] == one["value"]]
        return page("Sessions", found, body, smallest=1)

    def _stream(self, session: Session) -> dict[str, Any]:
        base = re.sub("^http", "ws", self.base_url.rstrip("/"))
        return {
            "SessionId": session.id,
            "TokenValue": session.client_token,
            "StreamUrl": f"{base}/v1/data-channel/{session.id}?role=publish_subscribe&cell-number=AAEAAQ==",
        }

    # Channels.

    async def _create_control_channel(self, request: web.Request) -> web.Response:
        target = request.match_info["id"]
        if not self._may_act_for(request, target):
            return _denied(target)
        return self._channel_answer(request, "CreateControlChannelResponse")

    async def _create_data_channel(self, request: web.Request) -> web.Response:
        session = self.sessions.get(request.match_info["id"])
        if session is None or session.ended is not None or not self._may_act_for(request, session.target):
            return _denied(request.match_info["id"])
        return self._channel_answer(request, "CreateDataChannelResponse")

    def _channel_answer(self, request: web.Request, name: str) -> web.Response:
        token = secrets.token_urlsafe(48)
        self._tokens[token] = request.path
        text = (
            f"<{name}><MessageSchemaVersion>1.0</MessageSchemaVersion>"
            f"<TokenValue>{escape(token)}</TokenValue></{name}>"
        )
        return web.Response(status=201, text=text, content_type="application/xml")

    def _may_act_for(self, request: web.Request, target: str) -> bool:
        key = _access_key(request)
        node = self.nodes.nodes.get(target)
        if node is not None:
            return key in node.access_keys
        # Native remote debugging: an agent with the job's own credentials, and no registration.
        return key is not None and not target.startswith("mi-")

    async def _control_channel(self, request: web.Request) -> web.StreamResponse:
        target = request.match_info["id"]
        if not self._may_act_for(request, target):
            return _denied(target)
        socket = await self._accept(request)
        try:
            hello = await self._hello(socket)
            if self._tokens.pop(str(hello.get("TokenValue")), None) != request.path:
                self._note("refused", target, "control channel: wrong token")
                await self._close(socket, 1008)
                return socket
            before, self._control[target] = self._control.get(target), socket
            if before is not None:
                await self._close(before, 1001)
            self._note("control-open", target)
            async for message in socket:
                if message.type is WSMsgType.BINARY:
                    await self._from_agent_control(socket, target, message.data)
        finally:
            self._sockets.discard(socket)
            if self._control.get(target) is socket:
                del self._control[target]
                self._note("control-closed", target)
        return socket

    async def _from_agent_control(self, socket: web.WebSocketResponse, target: str, data: bytes) -> None:
        try:
            message = Message.decode(data)
            if message.type != MessageType.AGENT_TASK_COMPLETE:
                return  # telemetry, replies to jobs
            body = message.json()
        except FrameError as error:
            self._note("malformed", target, str(error))
            return
        answer = {
            "SchemaVersion": 1,
            "MessageId": str(message.id),
            "TaskId": body.get("TaskId"),
            "Topic": body.get("Topic"),
        }
        await self._send(socket, Message.of(MessageType.AGENT_TASK_ACKNOWLEDGE, answer))
        session = self.sessions.get(str(body.get("TaskId")))
        if session is not None and session.target == target and session.ended is None:
            output = body.get("Output")
            text = output if isinstance(output, str) else ""
            self._note("task-complete", session.id, f"{body.get('FinalTaskStatus')}: {text}")
            await self._end(session, text, tell_agent=False)

    async def _data_channel(self, request: web.Request) -> web.StreamResponse:
        session = self.sessions.get(request.match_info["id"])
        if session is None:
            return _denied(request.match_info["id"])
        signed = _access_key(request) is not None
        socket = await self._accept(request)
        try:
            token = str((await self._hello(socket)).get("TokenValue"))
            if self._tokens.pop(token, None) == request.path and session.ended is None:
                await self._serve_agent(session, socket)
            elif secrets.compare_digest(token, session.client_token) and (signed or not self._signed_clients):
                await self._serve_client(session, socket)
            else:
                self._note(
                    "refused", session.id, "data channel: wrong token" if signed else "data channel: unsigned"
                )
                await self._close(socket, 1008)
        finally:
            self._sockets.discard(socket)
        return socket

    async def _serve_agent(self, session: Session, socket: web.WebSocketResponse) -> None:
        before, session.agent = session.agent, socket
        if before is not None:
            await self._close(before, 1001)
        self._note("agent-open", session.id)
        try:
            async for message in socket:
                if message.type is not WSMsgType.BINARY:
                    continue
                kind = _kind(message.data)
                if kind in (MessageType.OUTPUT, MessageType.ACKNOWLEDGE):
                    if kind == MessageType.OUTPUT:
                        session.active = time.monotonic()
                    if session.held is None:
                        await self._forward(session.client, message.data)
                    elif len(session.held) < _HELD_MAX:
                        session.held.append(message.data)
                elif kind != MessageType.AGENT_SESSION_STATE:
                    self._note("malformed", session.id, f"from the agent: {kind or len(message.data)}")
        finally:
            if session.agent is socket:
                session.agent = None
            self._note("agent-closed", session.id)

    async def _serve_client(self, session: Session, socket: web.WebSocketResponse) -> None:
        if session.closing is not None:  # the agent was quicker to fail than the client to come
            await self._send(socket, session.closing)
            await self._close(socket, 1000)
            return
        before, session.client = session.client, socket
        if before is not None:
            await self._close(before, 1001)
        session.status = "Connected"
        self._note("client-open", session.id)
        held, session.held = session.held or (), None
        for data in held:
            await self._forward(socket, data)
        if session.paused:
            session.paused = False
            await self._send(session.agent, Message.new(MessageType.START_PUBLICATION))
        try:
            async for message in socket:
                if message.type is not WSMsgType.BINARY:
                    continue
                kind = _kind(message.data)
                if kind in (MessageType.INPUT, MessageType.ACKNOWLEDGE):
                    if kind == MessageType.INPUT:
                        session.active = time.monotonic()
                    await self._forward(session.agent, message.data)
                else:
                    self._note("malformed", session.id, f"from the client: {kind or len(message.data)}")
        finally:
            self._note("client-closed", session.id)
            if session.client is socket:
                session.client = None
                if session.ended is None:
                    session.status = "Disconnected"
                    session.paused = True
                    await self._send(session.agent, Message.new(MessageType.PAUSE_PUBLICATION))

    async def _end(self, session: Session, output: str, *, tell_agent: bool = True) -> None:
        """End a session. The agent is told on its control channel, the client on its data channel."""
        if session.ended is not None:
            return
        session.ended, session.status, session.output = time.time(), "Terminated", output
        self._note("session-ended", session.id, output)
        message_id = uuid.uuid4()
        closed = {
            "MessageId": str(message_id),
            "CreatedDate": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()),
            "DestinationId": session.target,
            "SessionId": session.id,
            "MessageType": MessageType.CHANNEL_CLOSED,
            "SchemaVersion": 1,
            "Output": output,
        }
        message = session.closing = Message.of(MessageType.CHANNEL_CLOSED, closed)._replace(id=message_id)
        if tell_agent:
            await self._send(self._control.get(session.target), message)
        client = session.client
        await self._send(client, message)
        if client is not None:
            await self._close(client, 1000)

    # Sockets.

    async def _accept(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(timeout=_CLOSE_SECONDS, max_msg_size=_MESSAGE_MAX, compress=False)
        await socket.prepare(request)
        self._sockets.add(socket)
        return socket

    async def _hello(self, socket: web.WebSocketResponse) -> dict[str, Any]:
        """The first message of a channel: text, with the token. Anything else is as good as no token."""
        with contextlib.suppress(asyncio.TimeoutError, ValueError, TypeError):
            body = json.loads(await socket.receive_str(timeout=_HELLO_SECONDS))
            if isinstance(body, dict):
                return body
        return {}

    async def _send(self, socket: web.WebSocketResponse | None, message: Message) -> None:
        await self._forward(socket, message.encode())

    async def _forward(self, socket: web.WebSocketResponse | None, data: bytes) -> None:
        if socket is None or socket.closed:
            return  # lost, as far as the sender can tell: it will send again
        with contextlib.suppress(ConnectionError):
            await socket.send_bytes(data)

    async def _close(self, socket: web.WebSocketResponse, code: int) -> None:
        self._sockets.discard(socket)
        with contextlib.suppress(ConnectionError, RuntimeError):
            await socket.close(code=code)

    async def _start(self, _app: web.Application) -> None:
        self._watch = asyncio.create_task(self._end_timed_out())

    async def _stop(self, _app: web.Application) -> None:
        await self.close()

    async def _end_timed_out(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            for session in self.active_sessions:
                if time.monotonic() - session.active > self._idle:
                    await self._end(session, "Your session timed out due to inactivity.")
                elif self._max is not None and time.time() - session.started > self._max:
                    await self._end(session, "Your session has reached its maximum duration.")

    def _note(self, kind: str, subject: str, detail: str = "") -> None:
        self.events.append(Event(time.time(), kind, subject, detail))


def _without_key(
    operation: Callable[[dict[str, Any]], dict[str, Any]],
) -> Callable[[dict[str, Any], str | None], Awaitable[dict[str, Any]]]:
    async def answer(body: dict[str, Any], _access_key: str | None) -> dict[str, Any]:
        return operation(body)

    return answer


def _with_key(
    operation: Callable[[dict[str, Any], str | None], dict[str, Any]],
) -> Callable[[dict[str, Any], str | None], Awaitable[dict[str, Any]]]:
    async def answer(body: dict[str, Any], access_key: str | None) -> dict[str, Any]:
        return operation(body, access_key)

    return answer


def _access_key(request: web.Request) -> str | None:
    found = _CREDENTIAL.search(request.headers.get("Authorization", ""))
    return found.group(1) if found else None


def _kind(data: bytes) -> str:
    """The type of a binary message, without reading the rest; "" if it is none."""
    return data[_TYPE].decode("ascii", "replace").strip(" \0") if len(data) >= _HEADER_MIN else ""


def _denied(subject: str) -> web.Response:
    text = f"<AccessDeniedException><Message>no access to {escape(subject)}</Message></AccessDeniedException>"
    return web.Response(status=403, text=text, content_type="application/xml")
