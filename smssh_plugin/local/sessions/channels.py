"""The session service's websockets: control channels of agents, data channels of agents and clients.

It speaks the protocol precisely enough for Amazon's own agent and session-manager-plugin. Where the real
service's behaviour is not known, it does what is hardest on the programs: a session whose client vanished
stays until the idle time-out, frames for a peer that went away are dropped. One thing it does kindly: what an
agent sends before the client's first connection is held, so that the time of a login does not hang on a race.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from aiohttp import web

from ...session.wire.frames import FrameError, Message, MessageType
from ..faults import HangUpError
from ..service_error import ServiceError
from .channel_end import GOING_AWAY, INVALID, POLICY, ChannelEnd, kind_of, sequence_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..faults import Faults

__all__ = ["Channels", "Cut", "Event", "Session", "access_key_of", "refusal"]

EVENTS_MAX = 20_000
_HELD_MAX = 64
_HELD_BYTES_MAX = 1 << 20
_TOKENS_MAX = 10_000
_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/")
_ENDED = "Session is already terminated"
"""Words for which an agent asks for no other data channel (`SessionAlreadyTerminatedError`)."""


@dataclass(frozen=True)
class Event:
    """Something that happened: for tests, and for a person who wonders."""

    time: float
    kind: str
    subject: str
    detail: str = ""
    number: int = 0


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
    userid: str = ""
    """`aws:userid` of who started it, where policies are enforced."""
    idle_seconds: float | None = None
    """Its own idle time-out, where its document, or the account, has one."""
    max_seconds: float | None = None
    ended: float | None = None
    status: str = "Connecting"
    output: str = ""
    client_token: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    client: ChannelEnd | None = None
    agent: ChannelEnd | None = None
    paused: bool = False
    sent: int = 0
    """Bytes of messages that came from the client."""
    received: int = 0
    """Bytes of messages that came from the agent."""
    closing: Message | None = None
    """The `channel_closed` of a session that has ended."""
    held: list[bytes] | None = field(default_factory=list)
    """The agent's frames until the client connects for the first time; None from then on."""

    highest: dict[str, int] = field(default_factory=dict)
    """By side: the highest sequence number that came from it."""

    def saw(self, side: str, data: bytes) -> None:
        """Count a frame of data as activity, unless it is one that was sent before."""
        sequence = sequence_of(data)
        if sequence > self.highest.get(side, -1):
            self.highest[side] = sequence
            self.active = time.monotonic()

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
            "AccessType": "Standard",
        }
        if self.ended is not None:
            shown["EndDate"] = self.ended
        if self.max_seconds is not None:
            shown["MaxSessionDuration"] = f"{self.max_seconds / 60:.0f}"
        return shown


@dataclass
class Cut:
    """Connections that are to be cut once they have moved some bytes.

    Args:
        side: `client`, `agent` or `control`.
        subject: a session's id, a node's, or `*` for any.
        after: bytes of messages, both ways together, on one connection.
        times: how many connections.
    """

    side: str
    subject: str = "*"
    after: int = 0
    times: int = 1
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def __post_init__(self) -> None:
        if self.side not in ("client", "agent", "control"):
            raise ValueError(f"`side` is client, agent or control, not {self.side!r}")
        if self.after < 0 or self.times < 1:
            raise ValueError("`after` is 0 or more, `times` is 1 or more")


class Channels:
    """The websockets, and the sessions that they are for.

    Args:
        faults: what is to go wrong.
        may_act_for: whether somebody with this access key is the agent of a target.
    """

    def __init__(self, faults: Faults, may_act_for: Callable[[str | None, str], bool]) -> None:
        self.sessions: dict[str, Session] = {}
        self.active: dict[str, Session] = {}
        """The sessions that have not ended."""
        self.control: dict[str, ChannelEnd] = {}
        """The control channels that are open, by node."""
        self.events: deque[Event] = deque(maxlen=EVENTS_MAX)
        self.signed_clients = True
        """Whether a client's websocket upgrade has to be signed. The agent's always has to be."""
        self.latency = 0.0
        """Seconds that each message is under way, each way."""
        self.cuts: dict[str, Cut] = {}
        self._faults = faults
        self._may_act_for = may_act_for
        self._tokens: dict[str, str] = {}
        """Tokens for the first message of agents' channels, each with the channel's path; for one use."""
        self._links: set[ChannelEnd] = set()
        self._noted = asyncio.Event()
        self._numbers = 0

    def add_routes(self, app: web.Application) -> None:
        """Add the channels' routes to `app`."""
        app.router.add_post("/v1/control-channel/{id}", self._answered(self._create_control_channel))
        app.router.add_get("/v1/control-channel/{id}", self._answered(self._control_channel))
        app.router.add_post("/v1/data-channel/{id}", self._answered(self._create_data_channel))
        app.router.add_get("/v1/data-channel/{id}", self._answered(self._data_channel))

    async def close(self) -> None:
        """End every connection. Agents and clients see a cut, as in an outage of the service."""
        await asyncio.gather(*(link.close(GOING_AWAY) for link in list(self._links)))

    def note(self, kind: str, subject: str, detail: str = "") -> None:
        """Write an event down."""
        self._numbers += 1
        self.events.append(Event(time.time(), kind, subject, detail, self._numbers))
        self._noted.set()
        self._noted = asyncio.Event()

    async def noted(self, seconds: float) -> None:
        """Wait for the next event, or until some seconds are over."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._noted.wait(), seconds)

    # What the operations of the API do here.

    async def start(self, session: Session, task: dict[str, Any]) -> None:
        """Have the target's agent start a session.

        Raises:
            ServiceError: the target has no control channel.
        """
        control = self.control.get(session.target)
        if control is None:
            raise ServiceError("TargetNotConnected", f"{session.target} is not connected.")
        self.sessions[session.id] = self.active[session.id] = session
        if not await control.say(Message.of(MessageType.INTERACTIVE_SHELL, task)):
            await self.end(session, "", tell_agent=False)
            raise ServiceError("TargetNotConnected", f"{session.target} is not connected.")

    async def end(self, session: Session, output: str, *, tell_agent: bool = True) -> None:
        """End a session. The agent is told on its control channel, the client on its data channel."""
        if session.ended is not None:
            return
        session.ended, session.status, session.output = time.time(), "Terminated", output
        self.active.pop(session.id, None)
        self.note("session-ended", session.id, output)
        message = session.closing = _channel_closed(session)
        told = []
        if tell_agent:
            told.append(self._tell(self.control.get(session.target) or session.agent, message))
        client = session.client
        if client is not None:
            told.append(self._tell(client, message, close=True))
        await asyncio.gather(*told)

    @staticmethod
    async def _tell(link: ChannelEnd | None, message: Message, *, close: bool = False) -> None:
        if link is not None:
            await link.say(message)
            if close:
                await link.close(1000)

    async def forget_node(self, node: str) -> None:
        """End what belongs to a node that is deregistered."""
        for session in [one for one in self.active.values() if one.target == node]:
            await self.end(session, "The target of the session was deregistered.")
        control = self.control.pop(node, None)
        if control is not None:
            await control.close(POLICY, "the managed instance is not registered")

    # Cuts.

    def add_cut(self, cut: Cut) -> None:
        """Cut connections: those that are open count from now on, others from their start."""
        self.cuts[cut.id] = cut
        for link in list(self._links):
            self._arm(link)

    def drop(self, side: str, subject: str) -> None:
        """Cut a connection now, with no closing handshake; a connection that does not exist is not an error.

        Args:
            side: `client`, `agent` or `control`.
            subject: the id of the session, of the node for `control`.
        """
        for link in self._links:
            if link.side == side and link.subject == subject:
                link.abort()
        self.note("drop", subject, side)

    def _arm(self, link: ChannelEnd) -> None:
        if link.cut_at is not None:
            return
        for cut in list(self.cuts.values()):
            session = self.sessions.get(link.subject)
            names = ("*", link.subject, session.target if session is not None else "*")
            if cut.side == link.side and cut.subject in names:
                link.cut_at = link.moved + cut.after
                cut.times -= 1
                if not cut.times:
                    del self.cuts[cut.id]
                return

    # Routes.

    def _answered(
        self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Have what a handler raises answered as the service does it: in XML."""

        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except HangUpError:
                if request.transport is not None:
                    request.transport.abort()
                return web.Response(status=500)
            except ServiceError as error:
                return refusal(error)

        return answer

    async def _create_control_channel(self, request: web.Request) -> web.Response:
        target = request.match_info["id"]
        await self._faults.apply("ssmmessages:CreateControlChannel")
        self._check_agent(request, target)
        return self._channel_answer(request, "CreateControlChannelResponse")

    async def _create_data_channel(self, request: web.Request) -> web.Response:
        session = self.sessions.get(request.match_info["id"])
        await self._faults.apply("ssmmessages:CreateDataChannel")
        if session is None:
            raise _denied(request.match_info["id"])
        self._check_agent(request, session.target)
        if session.ended is not None:
            raise ServiceError("InvalidRequestException", _ENDED)
        return self._channel_answer(request, "CreateDataChannelResponse")

    def _check_agent(self, request: web.Request, target: str) -> None:
        if not self._may_act_for(access_key_of(request), target):
            raise _denied(target)

    def _channel_answer(self, request: web.Request, name: str) -> web.Response:
        token = secrets.token_urlsafe(48)
        while len(self._tokens) >= _TOKENS_MAX:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[token] = request.path
        text = (
            f"<{name}><MessageSchemaVersion>1.0</MessageSchemaVersion>"
            f"<TokenValue>{escape(token)}</TokenValue></{name}>"
        )
        return web.Response(status=201, text=text, content_type="application/xml")

    async def _control_channel(self, request: web.Request) -> web.StreamResponse:
        target = request.match_info["id"]
        await self._faults.apply("ssmmessages:OpenControlChannel")
        self._check_agent(request, target)
        link = await self._accept(request, "control", target)
        try:
            if self._tokens.pop(str((await link.hello()).get("TokenValue")), None) != request.path:
                self.note("refused", target, "control channel: wrong token")
                await link.close(POLICY, "wrong token")
                return link.socket
            before, self.control[target] = self.control.get(target), link
            if before is not None:
                await before.close(GOING_AWAY, "another control channel was opened")
            self.note("control-open", target)
            await self._read(link, lambda data: self._from_agent_control(link, target, data))
        finally:
            self._links.discard(link)
            if self.control.get(target) is link:
                del self.control[target]
                self.note("control-closed", target)
        await link.settle()
        return link.socket

    async def _from_agent_control(self, link: ChannelEnd, target: str, data: bytes) -> None:
        kind_of(data)
        message = Message.decode(data)
        if message.type != MessageType.AGENT_TASK_COMPLETE:
            return  # telemetry, replies to jobs
        body = message.json()
        answer = {
            "SchemaVersion": 1,
            "MessageId": str(message.id),
            "TaskId": body.get("TaskId"),
            "Topic": body.get("Topic"),
        }
        await link.say(Message.of(MessageType.AGENT_TASK_ACKNOWLEDGE, answer))
        session = self.active.get(str(body.get("TaskId")))
        if session is not None and session.target == target:
            output = body.get("Output")
            text = output if isinstance(output, str) else ""
            self.note("task-complete", session.id, f"{body.get('FinalTaskStatus')}: {text}")
            await self.end(session, text, tell_agent=False)

    async def _data_channel(self, request: web.Request) -> web.StreamResponse:
        session = self.sessions.get(request.match_info["id"])
        await self._faults.apply("ssmmessages:OpenDataChannel")
        if session is None:
            raise _denied(request.match_info["id"])
        signed = access_key_of(request) is not None
        link = await self._accept(request, "client", session.id)
        try:
            token = str((await link.hello()).get("TokenValue"))
            if self._tokens.pop(token, None) == request.path and session.ended is None:
                link.side = "agent"
                await self._serve_agent(session, link)
            elif secrets.compare_digest(token.encode(), session.client_token.encode()) and (
                signed or not self.signed_clients
            ):
                await self._serve_client(session, link)
            else:
                why = "wrong token" if signed else "wrong token, and unsigned"
                self.note("refused", session.id, f"data channel: {why}")
                await link.close(POLICY, why)
        finally:
            self._links.discard(link)
        await link.settle()
        return link.socket

    async def _serve_agent(self, session: Session, link: ChannelEnd) -> None:
        before, session.agent = session.agent, link
        if before is not None:
            await before.close(GOING_AWAY, "another data channel was opened")
        self.note("agent-open", session.id)
        self._arm(link)
        try:
            await self._read(link, lambda data: self._from_agent(session, data))
        finally:
            if session.agent is link:
                session.agent = None
            self.note("agent-closed", session.id)

    async def _from_agent(self, session: Session, data: bytes) -> None:
        kind = kind_of(data)
        if kind not in (MessageType.OUTPUT, MessageType.ACKNOWLEDGE):
            if kind != MessageType.AGENT_SESSION_STATE:
                self.note("malformed", session.id, f"from the agent: {kind}")
            return
        if kind == MessageType.OUTPUT:
            session.saw("agent", data)
            session.received += len(data)
        if session.held is None:
            if session.client is not None:
                await session.client.forward(data)
        elif len(session.held) < _HELD_MAX and sum(map(len, session.held)) < _HELD_BYTES_MAX:
            session.held.append(data)

    async def _serve_client(self, session: Session, link: ChannelEnd) -> None:
        if session.closing is not None:  # the agent was quicker to fail than the client to come
            await self._tell(link, session.closing, close=True)
            return
        before, session.client = session.client, link
        if before is not None:
            await before.close(GOING_AWAY, "another data channel was opened")
        session.status = "Connected"
        self.note("client-open", session.id)
        self._arm(link)
        held, session.held = session.held or (), None
        for data in held:
            await link.forward(data)
        if session.paused:
            session.paused = False
            await self._tell(session.agent, Message.new(MessageType.START_PUBLICATION))
        try:
            await self._read(link, lambda data: self._from_client(session, data))
        finally:
            self.note("client-closed", session.id)
            if session.client is link:
                session.client = None
                if session.ended is None:
                    session.status = "Disconnected"
                    session.paused = True
                    await self._tell(session.agent, Message.new(MessageType.PAUSE_PUBLICATION))

    async def _from_client(self, session: Session, data: bytes) -> None:
        kind = kind_of(data)
        if kind not in (MessageType.INPUT, MessageType.ACKNOWLEDGE):
            self.note("malformed", session.id, f"from the client: {kind}")
            return
        if kind == MessageType.INPUT:
            session.saw("client", data)
            session.sent += len(data)
        if session.agent is not None:
            await session.agent.forward(data)

    async def _accept(self, request: web.Request, side: str, subject: str) -> ChannelEnd:
        link = await ChannelEnd.accept(request, side, subject)
        link.latency = self.latency
        self._links.add(link)
        if side == "control":
            self._arm(link)
        return link

    async def _read(self, link: ChannelEnd, act: Callable[[bytes], Awaitable[None]]) -> None:
        """Act on what comes, to the end of the connection; what is not a message ends it, with the reason."""
        try:
            async for data in link.messages():
                await act(data)
        except FrameError as error:
            self.note("malformed", link.subject, f"from the {link.side}: {error}")
            await link.close(INVALID, str(error))


def refusal(error: ServiceError) -> web.Response:
    """An error as the service says it of a channel: in XML."""
    text = f"<{error.code}><Message>{escape(error.message)}</Message></{error.code}>"
    return web.Response(status=error.status, text=text, content_type="application/xml")


def access_key_of(request: web.Request) -> str | None:
    """The access key id of a request's signature; None if it carries none."""
    found = _CREDENTIAL.search(request.headers.get("Authorization", ""))
    return found.group(1) if found else None


def _channel_closed(session: Session) -> Message:
    message_id = uuid.uuid4()
    body = {
        "MessageId": str(message_id),
        "CreatedDate": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()),
        "DestinationId": session.target,
        "SessionId": session.id,
        "MessageType": MessageType.CHANNEL_CLOSED,
        "SchemaVersion": 1,
        "Output": session.output,
    }
    return Message.of(MessageType.CHANNEL_CLOSED, body)._replace(id=message_id)


def _denied(subject: str) -> ServiceError:
    # <AccessDeniedException> is what makes an agent fall back to ec2messages.
    return ServiceError("AccessDeniedException", f"no access to {subject}", 403)
