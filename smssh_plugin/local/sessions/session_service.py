"""Session Manager on loopback: the SSM operations around activations, nodes, documents and sessions.

The websockets of agents and clients are in session_channels.py.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
import secrets
import time
from typing import TYPE_CHECKING, Any

from ..faults import Faults
from ..service_error import ServiceError
from .channels import Channels, Event, Session
from .documents import PREFERENCES, Documents, seconds_of
from .node_signatures import SignedRequest, signed_by
from .nodes import Nodes, page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

__all__ = ["LATENCY_SECONDS", "NODE_SIGNED", "Event", "Session", "SessionService"]

NODE_SIGNED = frozenset(
    {"AmazonSSM.RequestManagedInstanceRoleToken", "AmazonSSM.UpdateManagedInstancePublicKey"}
)
"""Calls that a node signs with its RSA key; see session_signatures.py."""

IDLE_SECONDS = 20 * 60.0
"""Session Manager's default; an account may set 1 to 60 minutes."""
LATENCY_SECONDS = 0.003
"""A few milliseconds, as to a region nearby: what is done in less shows races that AWS never has, and hides others."""
TIER = "/ssm/managed-instance/activation-tier"
"""The service setting that Session Manager needs at `advanced` for hybrid nodes."""
_IDLE_MINUTES_MAX = 60
_MAX_MINUTES_MAX = 1440
_SHELL_TOPIC = "aws.ssm.mgs.interactive_shell"
_TICK_SECONDS = 0.25
_HISTORY_MAX = 1000
_DOCUMENT_OPERATIONS = frozenset(
    {
        "CreateDocument",
        "UpdateDocument",
        "UpdateDocumentDefaultVersion",
        "DeleteDocument",
        "GetDocument",
        "DescribeDocument",
    }
)
_TAG_OPERATIONS = frozenset({"AddTagsToResource", "RemoveTagsFromResource", "ListTagsForResource"})
_QUIET = ("Describe", "Get", "List", "UpdateInstanceInformation")


class SessionService:
    """The service: operations through `handle`, channels through the routes. All in one event loop.

    Args:
        base_url: where clients reach the routes, `http://127.0.0.1:4580`; may be set later, before the first
            StartSession.
        region: the region in ARNs.
        account: the account in ARNs.
        idle_seconds: the idle time-out of sessions, where the account's preferences have none.
        max_seconds: the longest duration of a session, likewise; None for no limit.
        signed_clients: whether a client's websocket upgrade has to be signed. The agent's always has to be.
        latency: seconds that each message of a channel is under way, each way.
    """

    def __init__(
        self,
        base_url: str = "",
        *,
        region: str = "us-east-1",
        account: str = "123456789012",
        idle_seconds: float = IDLE_SECONDS,
        max_seconds: float | None = None,
        signed_clients: bool = True,
        latency: float = LATENCY_SECONDS,
    ) -> None:
        self.base_url = base_url
        self.nodes = Nodes()
        self.documents = Documents(account)
        self.faults = Faults()
        """What is to go wrong, in this service and in whatever else asks them."""
        self.channels = Channels(self.faults, self._may_act_for)
        self.channels.signed_clients = signed_clients
        self.channels.latency = latency
        self.idle_seconds = idle_seconds
        self.max_seconds = max_seconds
        self.tier = "advanced"
        self.tier_set_by = ""
        """The activation tier, and who set it; `standard` has no sessions with hybrid nodes."""
        self._account = account
        self._region = region
        self._owner = f"arn:aws:sts::{account}:assumed-role/local/smssh"
        self._watch: asyncio.Task[None] | None = None
        self._operations: dict[str, Callable[[dict[str, Any], str | None], Awaitable[dict[str, Any]]]] = {
            "AddTagsToResource": _without_key(lambda body: self._tagged(body).add_tags(body)),
            "CreateActivation": _without_key(self.nodes.create_activation),
            "CreateDocument": _without_key(self.documents.create),
            "DeleteActivation": _without_key(self.nodes.delete_activation),
            "DeleteDocument": _without_key(self.documents.delete),
            "DeregisterManagedInstance": self._deregister,
            "DescribeActivations": _without_key(self.nodes.describe_activations),
            "DescribeDocument": _without_key(self.documents.describe),
            "DescribeInstanceInformation": _without_key(self.nodes.describe),
            "DescribeSessions": _without_key(self._describe_sessions),
            "GetConnectionStatus": _without_key(self._connection_status),
            "GetDocument": _without_key(self.documents.read),
            "GetServiceSetting": _without_key(self._get_setting),
            "ListInstanceAssociations": _without_key(lambda _body: {"Associations": []}),
            "ListTagsForResource": _without_key(lambda body: self._tagged(body).list_tags(body)),
            "RegisterManagedInstance": _without_key(self.nodes.register),
            "RemoveTagsFromResource": _without_key(lambda body: self._tagged(body).remove_tags(body)),
            "RequestManagedInstanceRoleToken": _with_key(self.nodes.role_token),
            "ResetServiceSetting": _without_key(self._reset_setting),
            "ResumeSession": _without_key(self._resume_session),
            "StartSession": self._start_session,
            "TerminateSession": self._terminate_session,
            "UpdateDocument": _without_key(self.documents.update),
            "UpdateDocumentDefaultVersion": _without_key(self.documents.set_default),
            "UpdateInstanceInformation": _with_key(self.nodes.update_information),
            "UpdateManagedInstancePublicKey": _with_key(self.nodes.update_public_key),
            "UpdateServiceSetting": _without_key(self._update_setting),
        }
        self.operations = frozenset(self._operations)
        """The operations of the target prefix `AmazonSSM` that `handle` serves, as far as `serves` says."""

    def serves(self, operation: str, body: dict[str, Any]) -> bool:
        """Whether a request is for this service, and not for the rest of SSM."""
        if operation in _TAG_OPERATIONS:
            if body.get("ResourceType") == "Document":
                return self.documents.has(str(body.get("ResourceId", "")))
            return body.get("ResourceType") == "ManagedInstance"
        if operation == "CreateDocument":
            return body.get("DocumentType") == "Session"
        if operation in _DOCUMENT_OPERATIONS:
            return self.documents.has(str(body.get("Name", "")))
        return operation in self.operations

    def _tagged(self, body: dict[str, Any]) -> Nodes | Documents:
        """What keeps the tags that a call is about."""
        return self.documents if body.get("ResourceType") == "Document" else self.nodes

    async def handle(
        self,
        operation: str,
        body: dict[str, Any],
        access_key: str | None,
        request: SignedRequest | None = None,
    ) -> dict[str, Any]:
        """Answer one call of the SSM API.

        Args:
            operation: the name after `AmazonSSM.` in X-Amz-Target.
            body: the request's JSON.
            access_key: the access key id of its signature; None if it carries none.
            request: the request as it came; with it, the signatures of nodes' RSA keys are verified. Other
                signatures are the gateway's to verify.

        Raises:
            ServiceError: the answer is an error.
        """
        await self.faults.apply(f"ssm:{operation}")
        if operation not in self._operations:
            raise ServiceError("UnknownOperationException", f"{operation} is not served here.")
        if request is not None and f"AmazonSSM.{operation}" in NODE_SIGNED:
            self._verify(request, access_key)
        answer = await self._operations[operation](body, access_key)
        if not operation.startswith(_QUIET):
            subject = answer.get("SessionId") or answer.get("InstanceId") or access_key or ""
            self.channels.note(operation, str(subject))
        return answer

    def add_routes(self, app: web.Application) -> None:
        """Add the channels' routes to `app`, and the service's own start and end."""
        self.channels.add_routes(app)
        app.on_startup.append(self._start)
        app.on_shutdown.append(self._stop)

    async def close(self) -> None:
        """End every connection. Agents and clients see a cut, as in an outage of the service."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        await self.channels.close()

    @property
    def sessions(self) -> dict[str, Session]:
        """All sessions, those that have ended included."""
        return self.channels.sessions

    @property
    def active_sessions(self) -> list[Session]:
        """The sessions that have not ended."""
        return list(self.channels.active.values())

    @property
    def events(self) -> list[Event]:
        """What has happened, oldest first."""
        return list(self.channels.events)

    async def drop(self, side: str, subject: str) -> None:
        """Cut a connection with no closing handshake; see `Channels.drop`."""
        self.channels.drop(side, subject)

    async def end(self, session: Session, output: str) -> None:
        """End a session, as TerminateSession or a time-out does, with a text for its user."""
        await self.channels.end(session, output)

    # Operations.

    def _may_act_for(self, access_key: str | None, target: str) -> bool:
        node = self.nodes.nodes.get(target)
        if node is not None:
            return node.access_keys.get(access_key or "", 0.0) > time.time()
        # Native remote debugging: an agent with the job's own credentials, and no registration.
        return access_key is not None and not target.startswith("mi-")

    def _verify(self, request: SignedRequest, access_key: str | None) -> None:
        node = self.nodes.nodes.get(access_key or "")
        if node is not None and not signed_by(request, node.public_key):
            raise ServiceError(
                "AccessDeniedException",
                "The request signature we calculated does not match the signature you provided.",
            )

    async def _deregister(self, body: dict[str, Any], _access_key: str | None) -> dict[str, Any]:
        node = self.nodes.deregister(str(body.get("InstanceId", "")))
        await self.channels.forget_node(node.id)
        return {}

    def _connection_status(self, body: dict[str, Any]) -> dict[str, Any]:
        target = str(body.get("Target", ""))
        return {
            "Target": target,
            "Status": "connected" if target in self.channels.control else "notconnected",
        }

    async def _start_session(self, body: dict[str, Any], _access_key: str | None) -> dict[str, Any]:
        target = str(body.get("Target", ""))
        document = str(body.get("DocumentName") or PREFERENCES)
        parameters = self.documents.parameters_of(document, body.get("Parameters") or {})
        if target.startswith("mi-") and self.tier != "advanced":
            raise ServiceError(
                "BadRequest",
                "Enable advanced-instances tier to use Session Manager with your on-premises instances",
            )
        content = self.documents.content_of(document)
        session = Session(
            id=f"smssh-0{secrets.token_hex(8)}",
            target=target,
            document=document,
            owner=self._owner,
            reason=str(body.get("Reason", "")),
            started=time.time(),
            active=time.monotonic(),
            idle_seconds=seconds_of(content, "idleSessionTimeout", _IDLE_MINUTES_MAX),
            max_seconds=seconds_of(content, "maxSessionDuration", _MAX_MINUTES_MAX),
        )
        told = {
            "DocumentName": document,
            "DocumentContent": content,
            "SessionId": session.id,
            "Parameters": parameters,
            "RunAsUser": "",
            "SessionOwner": session.owner,
        }
        task = {
            "Content": json.dumps(told),
            "TaskId": session.id,
            "Topic": _SHELL_TOPIC,
            "SchemaVersion": 1,
        }
        self._forget_old()
        await self.channels.start(session, task)
        return self._stream(session)

    def _forget_old(self) -> None:
        """Keep the history within bounds."""
        sessions = self.channels.sessions
        if len(sessions) >= _HISTORY_MAX + len(self.channels.active):
            oldest = next((key for key, one in sessions.items() if one.ended is not None), None)
            if oldest is not None:
                del sessions[oldest]

    def _resume_session(self, body: dict[str, Any]) -> dict[str, Any]:
        session = self._session(body)
        if session.ended is not None:
            return {"SessionId": session.id}  # no token: the plugin takes that for the session's end
        session.client_token = secrets.token_urlsafe(48)
        return self._stream(session)

    async def _terminate_session(self, body: dict[str, Any], _access_key: str | None) -> dict[str, Any]:
        session = self._session(body)
        await self.channels.end(session, "")
        return {"SessionId": session.id}

    def _session(self, body: dict[str, Any]) -> Session:
        session = self.sessions.get(str(body.get("SessionId", "")))
        if session is None:
            raise ServiceError("DoesNotExistException", f"Session {body.get('SessionId')} does not exist.")
        return session

    def _describe_sessions(self, body: dict[str, Any]) -> dict[str, Any]:
        state = body.get("State")
        if state not in ("Active", "History"):
            raise ServiceError(
                "ValidationException", "1 validation error detected: State is Active or History."
            )
        active = self.channels.active
        chosen = active.values() if state == "Active" else self.sessions.values()
        found = [one.to_json() for one in chosen if (one.ended is None) == (state == "Active")]
        for one in body.get("Filters") or ():
            found = [shown for shown in found if _shows(shown, str(one.get("key")), str(one.get("value")))]
        return page("Sessions", found, body, smallest=1)

    def _stream(self, session: Session) -> dict[str, Any]:
        base = re.sub("^http", "ws", self.base_url.rstrip("/"))
        return {
            "SessionId": session.id,
            "TokenValue": session.client_token,
            "StreamUrl": f"{base}/v1/data-channel/{session.id}?role=publish_subscribe&cell-number=AAEAAQ==",
        }

    # The one service setting that matters to sessions.

    def _get_setting(self, body: dict[str, Any]) -> dict[str, Any]:
        self._check_setting(body)
        return {"ServiceSetting": self._setting()}

    def _update_setting(self, body: dict[str, Any]) -> dict[str, Any]:
        self._check_setting(body)
        if body.get("SettingValue") not in ("standard", "advanced"):
            raise ServiceError("ValidationException", "The activation tier is standard or advanced.")
        self.tier, self.tier_set_by = str(body["SettingValue"]), self._owner
        return {}

    def _reset_setting(self, body: dict[str, Any]) -> dict[str, Any]:
        self._check_setting(body)
        self.tier, self.tier_set_by = "standard", ""
        return {"ServiceSetting": self._setting()}

    @staticmethod
    def _check_setting(body: dict[str, Any]) -> None:
        # By its name, or by its ARN.
        if not str(body.get("SettingId", "")).endswith(TIER):
            raise ServiceError(
                "ServiceSettingNotFound", f"The local emulator has the service setting {TIER} only."
            )

    def _setting(self) -> dict[str, Any]:
        by = {"LastModifiedUser": self.tier_set_by} if self.tier_set_by else {}
        return {
            **by,
            "SettingId": TIER,
            "SettingValue": self.tier,
            "ARN": f"arn:aws:ssm:{self._region}:{self._account}:servicesetting{TIER}",
            "Status": "Default" if self.tier == "standard" else "Customized",
        }

    # Time-outs.

    async def _start(self, _app: web.Application) -> None:
        self._watch = asyncio.create_task(self._end_timed_out())

    async def _stop(self, _app: web.Application) -> None:
        await self.close()

    async def _end_timed_out(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            ended = [(session, why) for session in self.active_sessions if (why := self._timed_out(session))]
            # Together, and whatever comes of one: another's time must not wait for somebody who is stuck.
            await asyncio.gather(*(self.channels.end(*one) for one in ended), return_exceptions=True)

    def _timed_out(self, session: Session) -> str:
        """Why a session is over; "" if it is not."""
        idle = self.idle_seconds if session.idle_seconds is None else session.idle_seconds
        longest = self.max_seconds if session.max_seconds is None else session.max_seconds
        if time.monotonic() - session.active > idle:
            return "Your session timed out due to inactivity."
        if longest is not None and time.time() - session.started > longest:
            return "Your session has reached its maximum duration."
        return ""


def _shows(shown: dict[str, Any], key: str, value: str) -> bool:
    """Whether an entry of DescribeSessions passes a filter."""
    if key in ("SessionId", "Target", "Owner", "Status", "AccessType"):
        return bool(shown[key] == value)
    if key in ("InvokedAfter", "InvokedBefore"):
        started = float(shown["StartDate"])
        moment = _moment(value)
        return started > moment if key == "InvokedAfter" else started < moment
    raise ServiceError("InvalidFilterKey", f"The filter key {key} isn't valid here.")


def _moment(text: str) -> float:
    """A time of a filter, `2018-08-29T00:00:00Z`, in seconds since the epoch."""
    try:
        return dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z").timestamp()
    except ValueError:
        raise ServiceError(
            "ValidationException", f"{text!r} is not a time as 2018-08-29T00:00:00Z."
        ) from None


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
