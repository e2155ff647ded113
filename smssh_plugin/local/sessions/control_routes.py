"""The local emulator's control API: what a test, or a curious person, may ask of it that AWS has nothing for.

Below `/_smssh/`, which is not a bucket's name, in JSON:

* `GET events?after=NUMBER&kind=KIND&subject=ID&wait=SECONDS`: what has happened, oldest first. With `wait` it
  answers as soon as there is something, and at the latest after so many seconds.
* `GET sessions`: the sessions that have not ended, with the bytes that went through each.
* `GET faults`, `POST faults`, `DELETE faults`, `DELETE faults/ID`: what is to go wrong; a fault is written as
  `faults.Fault` has it, for example `{"operation": "ssm:StartSession", "code": "ThrottlingException"}`.
* `GET cuts`, `POST cuts`, `DELETE cuts/ID`: connections that are to be cut, as `session_channels.Cut` has it,
  for example `{"side": "agent", "after": 70000}`; without `after`, what is open now is cut now.
* `GET settings`, `POST settings`: `idle_seconds`, `max_seconds`, `signed_clients`, `tier`,
  `token_seconds`; `latency_seconds`, which holds for connections from then on.
* `GET iam?after=NUMBER`, `POST iam`: with `--iam`, the decisions so far; and the statements, as `POLICY/SID`, that do
  not count from now on: `{"without": ["smssh-people/Find"]}`; those of session policies are `session/SID`.
* `POST nodes/ID`: `{"rotate": true}` has its agent replace its key.
"""

from __future__ import annotations

import time
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web

from ..faults import Fault
from .channels import Cut

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..iam.enforcement import Enforcement
    from .session_service import SessionService

__all__ = ["ROOT", "add_control_routes"]

ROOT = "/_smssh"
_WAIT_MAX = 60.0
_BODY_MAX = 1 << 20
_T = TypeVar("_T", Fault, Cut)


class _Refused(Exception):  # noqa: N818 - an answer
    """A request that cannot be acted on, with the reason."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


def add_control_routes(app: web.Application, service: SessionService, iam: Enforcement | None = None) -> None:
    """Add the routes."""
    control = _Control(service, iam)
    for method, path, handler in (
        ("GET", "events", control.events),
        ("GET", "sessions", control.sessions),
        ("GET", "faults", control.faults),
        ("POST", "faults", control.add_fault),
        ("DELETE", "faults", control.clear_faults),
        ("DELETE", "faults/{id}", control.remove_fault),
        ("GET", "cuts", control.cuts),
        ("POST", "cuts", control.add_cut),
        ("DELETE", "cuts/{id}", control.remove_cut),
        ("GET", "settings", control.settings),
        ("POST", "settings", control.change_settings),
        ("GET", "iam", control.decisions),
        ("POST", "iam", control.change_policies),
        ("POST", "nodes/{id}", control.change_node),
    ):
        app.router.add_route(method, f"{ROOT}/{path}", _answered(handler))
    app.router.add_route("*", ROOT + "/{path:.*}", _answered(_unknown))


def _answered(
    handler: Callable[[web.Request], Awaitable[Any]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        try:
            return web.json_response(await handler(request))
        except _Refused as refused:
            return web.json_response({"error": str(refused)}, status=refused.status)

    return answer


async def _unknown(request: web.Request) -> Any:
    raise _Refused(f"there is no {request.method} {request.path}", 404)


class _Control:
    """The handlers."""

    def __init__(self, service: SessionService, iam: Enforcement | None) -> None:
        self._service = service
        self._iam = iam

    async def events(self, request: web.Request) -> Any:
        query = request.query
        try:
            after, wait = int(query.get("after", 0)), float(query.get("wait", 0))
        except ValueError:
            raise _Refused("`after` is a number, `wait` are seconds") from None
        channels = self._service.channels
        loop_end = time.monotonic() + min(wait, _WAIT_MAX)
        while True:
            found = [
                asdict(event)
                for event in channels.events
                if event.number > after
                and query.get("kind", event.kind) == event.kind
                and query.get("subject", event.subject) == event.subject
            ]
            left = loop_end - time.monotonic()
            if found or left <= 0:
                return {"events": found}
            await channels.noted(left)

    async def sessions(self, _request: web.Request) -> Any:
        shown = [
            {
                **session.to_json(),
                "Sent": session.sent,
                "Received": session.received,
                "ClientConnected": session.client is not None,
                "AgentConnected": session.agent is not None,
            }
            for session in self._service.active_sessions
        ]
        return {"sessions": shown}

    async def faults(self, _request: web.Request) -> Any:
        return {"faults": [fault.to_json() for fault in self._service.faults]}

    async def add_fault(self, request: web.Request) -> Any:
        fault = _made(Fault, await _body(request))
        return self._service.faults.add(fault).to_json()

    async def clear_faults(self, _request: web.Request) -> Any:
        self._service.faults.clear()
        return {}

    async def remove_fault(self, request: web.Request) -> Any:
        if not self._service.faults.remove(request.match_info["id"]):
            raise _Refused("there is no such fault", 404)
        return {}

    async def cuts(self, _request: web.Request) -> Any:
        return {"cuts": [asdict(cut) for cut in self._service.channels.cuts.values()]}

    async def add_cut(self, request: web.Request) -> Any:
        body = await _body(request)
        cut = _made(Cut, body)
        if "after" in body:
            self._service.channels.add_cut(cut)
        elif cut.subject == "*":
            raise _Refused("`subject` is needed to cut what is open now: a session's id, or a node's")
        else:
            self._service.channels.drop(cut.side, cut.subject)
        return asdict(cut)

    async def remove_cut(self, request: web.Request) -> Any:
        if self._service.channels.cuts.pop(request.match_info["id"], None) is None:
            raise _Refused("there is no such cut", 404)
        return {}

    async def settings(self, _request: web.Request) -> Any:
        service = self._service
        return {
            "idle_seconds": service.idle_seconds,
            "max_seconds": service.max_seconds,
            "signed_clients": service.channels.signed_clients,
            "latency_seconds": service.channels.latency,
            "tier": service.tier,
            "token_seconds": service.nodes.token_seconds,
        }

    async def change_settings(self, request: web.Request) -> Any:
        service = self._service
        body = await _body(request)
        rules: dict[str, tuple[Callable[[Any], bool], str, Any]] = {
            "idle_seconds": (_positive, "more than 0", service),
            "max_seconds": (lambda value: value is None or _positive(value), "more than 0, or null", service),
            "signed_clients": (lambda value: isinstance(value, bool), "true or false", service.channels),
            "latency_seconds": (lambda value: value == 0 or _positive(value), "0 or more", service.channels),
            "tier": (lambda value: value in ("standard", "advanced"), "standard or advanced", service),
            "token_seconds": (_positive, "more than 0", service.nodes),
        }
        for name, value in body.items():
            if name not in rules:
                raise _Refused(f"there is no setting {name}; there are {', '.join(rules)}")
            if not rules[name][0](value):
                raise _Refused(f"`{name}` is {rules[name][1]}, not {value!r}")
        for name, value in body.items():
            setattr(rules[name][2], "latency" if name == "latency_seconds" else name, value)
        return await self.settings(request)

    async def decisions(self, request: web.Request) -> Any:
        iam = self._enforced()
        try:
            after = int(request.query.get("after", 0))
        except ValueError:
            raise _Refused("`after` is a number") from None
        return {"decisions": [each.to_json() for each in list(iam.entries) if each.number > after]}

    async def change_policies(self, request: web.Request) -> Any:
        iam = self._enforced()
        body = await _body(request)
        labels = body.get("without")
        if body.keys() != {"without"} or not isinstance(labels, list):
            raise _Refused("`without` is all that can be changed: a list of POLICY/SID")
        unknown = [label for label in labels if not iam.may_have(str(label))]
        if unknown:
            raise _Refused(f"there is no statement {unknown[0]}")
        iam.without = frozenset(labels)
        return {"without": sorted(iam.without)}

    def _enforced(self) -> Enforcement:
        if self._iam is None:
            raise _Refused("no policies are enforced: start smssh local with --iam FOLDER")
        return self._iam

    async def change_node(self, request: web.Request) -> Any:
        node = self._service.nodes.nodes.get(request.match_info["id"])
        if node is None:
            raise _Refused("there is no such node", 404)
        body = await _body(request)
        if body.keys() != {"rotate"} or not isinstance(body["rotate"], bool):
            raise _Refused("`rotate` is all that can be changed: true or false")
        node.rotate = body["rotate"]
        return {"id": node.id, "rotate": node.rotate}


async def _body(request: web.Request) -> dict[str, Any]:
    if (request.content_length or 0) > _BODY_MAX:
        raise _Refused("the request is too large", 413)
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        raise _Refused("the request is not JSON") from None
    if not isinstance(body, dict):
        raise _Refused("the request is JSON, but no object")
    return body


def _made(kind: type[_T], body: dict[str, Any]) -> _T:
    names = {field.name for field in fields(kind)} - {"happened"}
    wrong = sorted(body.keys() - names)
    if wrong:
        raise _Refused(f"there is no `{wrong[0]}`; there are {', '.join(sorted(names))}")
    try:
        return kind(**body)
    except (TypeError, ValueError) as error:
        raise _Refused(str(error)) from None


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
