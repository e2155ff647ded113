"""What is added to one request, decided by what was asked for: the way from `SSHOptions` to `requests`.

The pure transformer decides nothing, stores nothing and says nothing; that is done here, for steps, definitions of
pipelines and clients alike.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Callable, Mapping

from .. import settings
from ..errors import ExitStatus, SmsshError
from ..plugins import Plugins
from . import bundle, repack, switch
from .agent import agent_for
from .cautions import Caution, Held, cache_caution, cautions, say
from .leaves import is_text
from .requests import Injection, name_of, transform_request

if TYPE_CHECKING:
    from .options import SSHOptions

__all__ = ["Attachment", "inject", "step_with_ssh", "subject_of"]

_NAMES = {
    "training": "TrainingJobName",
    "processing": "ProcessingJobName",
    "transform": "TransformJobName",
    "model": "ModelName",
    "tuning": "HyperParameterTuningJobName",
}
"""What a request calls what it makes."""
_PLACEHOLDER = "s3://bundle/{}/".format("0" * 64)


@dataclass(frozen=True)
class Attachment:
    """What was attached to a step.

    Attributes:
        options: what was asked for.
        named: whether a person named this step; what can't be entered is an error then, else a warning.
        session: a SageMaker session to fall back on where the step has none.
        compiled: whether requests are parts of a pipeline definition, in JSON.
    """

    options: SSHOptions
    named: bool = True
    session: Any = None
    compiled: bool = False


def inject(
    kind: str,
    name: str | None,
    request: Mapping[str, Any],
    attachment: Attachment,
    session_of: Callable[[], Any],
) -> Mapping[str, Any]:
    """The request with SSH in it, or as it is where SSH is off.

    Args:
        kind: a value of `KINDS`.
        name: the name of the step, if there is one.
        request: the request.
        attachment: what was asked for.
        session_of: answers the SageMaker or boto3 session that knows where bundles go; asked only if one is
            needed.

    Raises:
        SmsshError: this request can't have SSH and was named, or the bundle can't be stored.
    """
    options = attachment.options
    if not options.active:
        return request
    where = name_of(kind, name)
    session = functools.lru_cache(maxsize=None)(lambda: session_of() or attachment.session)
    injection = _injection(kind, name, attachment, session)
    try:
        # With a placeholder first: what can't be entered needs no bundle.
        changed = transform_request(kind, request, injection)
        if injection.repacked and changed is not request:
            repack.check(where, request)
    except SmsshError as error:
        if attachment.named:
            raise
        reason = Caution(error.message.replace(f"{where}: ", "", 1), closed=True)
        say(f"no SSH for {subject_of(kind, name, request)}", [reason])
        return request
    if changed is request:
        return request
    say(where, cautions(kind, request, changed, injection, _held(options)))
    if switch.is_variable(options.enabled):
        say(where, [_PARAMETER])
    if kind != "transform" and not injection.baked:
        uri = bundle.publish(options, session())
        variables = {**bundle.announce_variable(options, session(), uri), **injection.environment}
        changed = transform_request(kind, request, replace(injection, bundle=uri, environment=variables))
    return _plugins().transform_request(kind, changed, options)


def subject_of(kind: str, name: str | None, request: Mapping[str, Any]) -> str:
    """A request as a person knows it, by its own name where it is no step's.

    Args:
        kind: a value of `KINDS`.
        name: the name of the step, if there is one.
        request: the request.
    """
    where = name_of(kind, name)
    own = request.get(_NAMES[kind])
    return f"{where} {own!r}" if name is None and is_text(own) else where


_PARAMETER = Caution(
    "enabled is a pipeline parameter, which an execution can only use as the value of SMSSH_ENABLE",
    ": where it is 0, the container's side does nothing, and the request still has the bundle and what starts it, in "
    "the key of step caching too; a bool or an environment variable leaves no trace",
    each=False,
)


def _injection(kind: str, name: str | None, attachment: Attachment, session: Callable[[], Any]) -> Injection:
    """What is to be added, but for the address of the bundle."""
    options = attachment.options
    as_leaf = switch.as_json if attachment.compiled else _same
    variables = {name: as_leaf(value) for name, value in options.environment.items()}
    if options.baked:
        variables = {**_settings(options, session()), **variables}
    return Injection(
        _PLACEHOLDER,
        name,
        as_leaf(options.role),
        options.transport,
        options.carrier,
        as_leaf(switch.as_text(options.enabled)) if switch.is_variable(options.enabled) else "1",
        variables,
        options.baked,
        options.endpoints,
        options.repack and kind == "model",
    )


def _same(value: Any) -> Any:
    return value


def _settings(options: SSHOptions, session: Any) -> Mapping[str, str]:
    """What `options.json` would say, as variables of the job."""
    import boto3

    document = options.document(bundle.authorized_keys(options))
    if document.get("transport") == "ssm":
        del document["transport"]  # the default: variables are scarce
    if options.transport == "native":
        place = bundle.destination(options, session)
        document.setdefault("announce", "s3://" + "/".join(filter(None, (place.bucket, place.prefix))))
    elif options.transport == "ssm" and options.agent_source != "found":
        client = (getattr(session, "boto_session", session) or boto3.Session()).client("s3")
        document.update(agent_for(options, client.meta.endpoint_url, client.meta.region_name).options)
    try:
        return settings.variables(document)
    except SmsshError as error:
        raise SmsshError(
            f"SSHOptions: {error.message}",
            hint="an image that has smssh-plugin gets variables only, and no options.json to carry it",
            reference="bad-option",
            status=ExitStatus.USAGE,
        ) from None


def _held(options: SSHOptions) -> Held:
    read = settings.load({}, {**options.document(()), "agent": "auto"})
    return Held(read.wait_seconds or 0, read.hold_max_seconds if read.hold else 0)


def step_with_ssh(step: Mapping[str, Any], kind: str, options: SSHOptions) -> Mapping[str, Any]:
    """A step of a definition whose request has SSH in it, with what becomes of its caching.

    Args:
        step: the whole step, as a definition has it.
        kind: the kind of its request.
        options: what was asked for.
    """
    caching = step.get("CacheConfig")
    on = isinstance(caching, Mapping) and caching.get("Enabled") is True
    if not on or options.cache == "keep":
        return step
    if options.cache == "drop":
        return {name: value for name, value in step.items() if name != "CacheConfig"}
    caution = cache_caution(kind)
    if caution is not None:
        say(name_of(kind, step.get("Name")), [caution])
    return step


@functools.lru_cache(maxsize=None)
def _plugins() -> Plugins:
    return Plugins()
