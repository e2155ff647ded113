"""What the service asks for on the control channel, and what the agent makes of the document in it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ...errors import SmsshError
from .session_kind import Task
from .tasks import valid_id
from .worker import PLUGINS

if TYPE_CHECKING:
    from .setup import Configuration

__all__ = ["task_of"]

_SCHEMA = "1.0"
_DEPTH_MAX = 32


def task_of(body: dict[str, Any], target: str, configuration: Configuration) -> tuple[str, Task | SmsshError]:
    """Read an `interactive_shell`.

    Args:
        body: its payload.
        target: the node.
        configuration: the agent's.

    Returns:
        The session's id, and the session; or why it cannot be run, which is for its user.

    Raises:
        ValueError: not even an id can be made out.
    """
    content = json.loads(str(body.get("Content")))
    if not isinstance(content, dict):
        raise ValueError("the content is not an object")
    session_id = str(content.get("SessionId") or "")
    if not valid_id(session_id):
        raise ValueError(f"no session id: {session_id!r}"[:200])
    try:
        return session_id, _task(content, session_id, target, configuration)
    except SmsshError as error:
        return session_id, error


def _task(content: dict[str, Any], session_id: str, target: str, configuration: Configuration) -> Task:
    document, parameters = content.get("DocumentContent"), content.get("Parameters") or {}
    if not isinstance(document, dict) or not isinstance(parameters, dict):
        raise SmsshError("the session's document cannot be read")
    if document.get("schemaVersion") != _SCHEMA:
        raise SmsshError(
            f"Document with schema version {document.get('schemaVersion')} is not supported by this version "
            "of ssm agent, please update to latest version"
        )
    kind = str(document.get("sessionType"))
    if kind not in PLUGINS:
        raise SmsshError(
            f"Plugin with name {kind} is not supported by this version of ssm agent, please update to latest "
            f"version. Step name: {kind}"
        )
    declared = document.get("parameters")
    values: dict[str, Any] = {}
    for name, rule in declared.items() if isinstance(declared, dict) else ():
        values[name] = rule.get("default") if isinstance(rule, dict) else None
    values.update(parameters)
    for name, value in values.items():
        if value is not None and not isinstance(value, str):
            # The real agent's words for what it answers to a list here.
            kind_of = "array" if isinstance(value, list) else type(value).__name__
            raise SmsshError(f"json: cannot unmarshal {kind_of} into Go struct field {name} of type string")
    inputs = document.get("inputs")
    inputs = dict(inputs) if isinstance(inputs, dict) else {}
    if content.get("RunAsUser"):
        inputs["runAsDefaultUser"] = content["RunAsUser"]
    return Task(
        session_id=session_id,
        target=target,
        session_type=kind,
        properties=_filled(document.get("properties"), values),
        inputs=inputs,
        configuration=configuration,
    )


def _filled(value: Any, parameters: dict[str, Any], depth: int = 0) -> Any:
    """A document's part with `{{ name }}` replaced wherever it stands."""
    if depth > _DEPTH_MAX:
        raise SmsshError("the session's document is too deep")
    if isinstance(value, dict):
        return {key: _filled(part, parameters, depth + 1) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, parameters, depth + 1) for part in value]
    if isinstance(value, str):
        return re.sub(
            r"\{\{\s*([\w.-]+)\s*\}\}", lambda found: str(parameters.get(found[1]) or found[0]), value
        )
    return value
