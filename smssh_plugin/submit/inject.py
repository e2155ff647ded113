"""One request: from what was asked for to the request with SSH in it.

What was asked for has three forms on its way here, and each later one answers what the one before left open:

1. `SSHOptions`, what a person asked for; with the steps that it is for, a `selection.Choice`.
2. `Attachment`, the same for one step or call, with how it was asked for. `models.ModelAttachment` and
   `models.TransformAttachment` add what these two have to know of each other.
3. `Injection`, what goes into the request: values, with nothing left to decide or to look up.

The request is then changed twice, by the same pure function. The first pass has a placeholder for the bundle's
address and finds out whether the request can have SSH at all; a bundle, which costs a build and an upload, is made only
then, and the second pass puts its address in.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, Mapping

from .. import settings
from ..aws.s3_address import with_owner
from ..errors import ExitStatus, SmsshError
from ..plugins import Plugins
from . import authorized, switch
from .bundle import expiry, publish, store
from .bundle.agent import agent_for
from .options import SSHOptions
from .owners import owned
from .request.add_ssh import Injection, add_ssh, name_of
from .request.values import is_text
from .sessions import SdkSession, SessionOf, boto_session_of
from .warnings import Held, RequestWarning, cache_warning, say, warnings_of

__all__ = [
    "ADDED",
    "BAKED",
    "REPACKED",
    "SOURCES",
    "Attachment",
    "first_pass",
    "inject",
    "refused",
    "step_with_ssh",
]

BAKED, REPACKED, ADDED, SOURCES = "baked", "repacked", "added", "sources"
"""The ways by which a model brings our files: its image has them; they are in the `code/` of an artefact that the SDK
repacks, or that a step of our own repacks; they are one of its AdditionalModelDataSources."""

_NAMES = {
    "training": "TrainingJobName",
    "processing": "ProcessingJobName",
    "transform": "TransformJobName",
    "model": "ModelName",
    "tuning": "HyperParameterTuningJobName",
}
"""What a request calls what it makes."""
_PLACEHOLDER = "s3://bundle/{}/".format("0" * 64)


@dataclass(eq=False)
class Attachment:
    """What was asked for one step or call, and how.

    Attributes:
        kind: the kind of its request, a value of `KINDS`.
        name: the step; None outside of pipelines.
        options: what was asked for.
        alone: whether the step was decorated by itself: what can't be entered is an error then, else a warning.
        named: whether a person named it, by its name or its kind.
        sagemaker_session: to fall back on where the step has none.
        compiled: whether requests are parts of a pipeline definition, in JSON.
        way: how a model brings our files.
        has_ssh: whether the request that was made last has SSH in it.
    """

    kind: str
    name: str | None
    options: SSHOptions
    alone: bool = False
    named: bool = False
    sagemaker_session: Any = None
    compiled: bool = False
    way: str = SOURCES
    has_ssh: bool = False

    @property
    def model_options(self) -> SSHOptions | None:
        """What was asked for a transform step's model, whose bundle the job gets; None where that is not known."""
        return None

    def subject(self, request: Mapping[str, Any]) -> str:
        """The request as a person knows it, by its own name where it is not a step's."""
        where = name_of(self.kind, self.name)
        own = request.get(_NAMES[self.kind])
        return f"{where} {own!r}" if self.name is None and is_text(own) else where

    def add_ssh(self, request: Mapping[str, Any], session_of: SessionOf) -> Mapping[str, Any]:
        """The request with SSH in it; as it is where SSH is off, or can't be; see `inject`."""
        return inject(self, request, session_of)


def inject(attachment: Attachment, request: Mapping[str, Any], session_of: SessionOf) -> Mapping[str, Any]:
    """The request with SSH in it, or as it is where SSH is off.

    Args:
        attachment: what was asked for.
        request: the request.
        session_of: answers the session that knows where bundles go; asked only if one is
            needed.

    Raises:
        SmsshError: this request can't have SSH and was decorated by itself, or the bundle can't be stored.
    """
    kind, options = attachment.kind, attachment.options
    if not options.active:
        return request
    session_of = _with_fallback(attachment, session_of)
    injection = _injection(attachment, session_of)
    changed = _with_placeholder(kind, request, injection)
    if isinstance(changed, SmsshError):
        refused(changed, attachment, request, alone=attachment.alone)
        return request
    if changed is request:
        return request
    where = name_of(kind, attachment.name)
    say(where, warnings_of(kind, request, changed, injection, _held(options)))
    if switch.is_variable(options.enabled) and (kind != "model" or options.endpoints):
        say(where, [_PARAMETER])
    if kind != "transform" and not injection.baked:
        changed = _with_bundle(attachment, request, injection, session_of())
    return _plugins().transform_request(kind, changed, options)


def first_pass(
    attachment: Attachment, request: Mapping[str, Any], session_of: SessionOf
) -> Mapping[str, Any] | SmsshError:
    """What `inject` would do up to the bundle: the request with a placeholder for its address, or why it has no SSH.

    Nothing is stored, and nothing said. The arguments are those of `inject`.

    Raises:
        SmsshError: what was asked for is wrong, whatever the request.
    """
    injection = _injection(attachment, _with_fallback(attachment, session_of))
    return _with_placeholder(attachment.kind, request, injection)


def _with_placeholder(
    kind: str, request: Mapping[str, Any], injection: Injection
) -> Mapping[str, Any] | SmsshError:
    """The first pass: whether the request can have SSH, before a bundle is made for it."""
    try:
        return add_ssh(kind, request, injection)
    except SmsshError as error:
        return error


def _with_bundle(
    attachment: Attachment, request: Mapping[str, Any], injection: Injection, session: SdkSession
) -> Mapping[str, Any]:
    """The second pass: the bundle is stored, and the request gets its address."""
    options, kind = attachment.options, attachment.kind
    uri = publish.publish(options, session)
    expiry.warn_of(uri, lasting=attachment.name is not None or kind == "model")
    variables = {**publish.announce_variable(options, session, uri), **injection.environment}
    return add_ssh(kind, request, replace(injection, bundle=uri, environment=variables))


def refused(error: SmsshError, attachment: Attachment, request: Mapping[str, Any], *, alone: bool) -> None:
    """Say that a request goes without SSH, and why, and what can be done.

    Args:
        error: the reason.
        attachment: what was asked for.
        request: the request.
        alone: see `Attachment`.

    Raises:
        SmsshError: the reason, where the step was decorated by itself.
    """
    if alone:
        raise error
    headline = error.message.replace(f"{name_of(attachment.kind, attachment.name)}: ", "", 1)
    rest = "" if error.hint is None else f"; {error.hint}"
    say(f"no SSH for {attachment.subject(request)}", [RequestWarning(headline, rest, closed=True)])


def _with_fallback(attachment: Attachment, session_of: SessionOf) -> SessionOf:
    return functools.lru_cache(maxsize=None)(lambda: session_of() or attachment.sagemaker_session)


_PARAMETER = RequestWarning(
    "enabled is a pipeline parameter, which an execution can only use as the value of SMSSH_ENABLE",
    ": where it is 0, the container's side does nothing, and the request still has the bundle and what starts it, in "
    "the key of step caching too; a bool or an environment variable leaves no trace",
    each=False,
)


def _injection(attachment: Attachment, session_of: SessionOf) -> Injection:
    """What goes into the request, with a placeholder for the bundle's address."""
    kind, options = attachment.kind, attachment.options
    as_leaf = switch.as_json if attachment.compiled else _same
    variables = {name: as_leaf(value) for name, value in options.environment.items()}
    model = attachment.model_options
    if options.baked or (model is not None and model.baked):
        variables = {**_settings(options, session_of()), **variables}
    elif kind == "transform":
        variables = {**_beside_model(options, model or SSHOptions(), session_of), **variables}
    return Injection(
        bundle=_PLACEHOLDER,
        step=attachment.name,
        role=as_leaf(options.role),
        transport=options.transport,
        launcher=options.launcher,
        enable=as_leaf(switch.as_text(options.enabled)) if switch.is_variable(options.enabled) else "1",
        environment=variables,
        endpoints=options.endpoints,
        repacked=kind == "model" and attachment.way in (REPACKED, ADDED),
    )


def _same(value: Any) -> Any:
    return value


def _settings(options: SSHOptions, session: SdkSession) -> Mapping[str, str]:
    """What `options.json` would say, as variables of the job."""
    options = owned(options, lambda: session)
    document = options.document(authorized.authorized_keys(options))
    if document.get("transport") == "ssm":
        del document["transport"]  # the default: variables are scarce
    if options.transport == "native":
        place = store.destination(options, session)
        document.setdefault("announce", with_owner(place.address, options.bucket_owner))
    else:
        document.update(_pinned_agent(options, session))
    try:
        return settings.variables(document)
    except SmsshError as error:
        raise SmsshError(
            f"SSHOptions: {error.message}",
            hint="leave it out: an image that has smssh-plugin gets variables only, and no options.json",
            reference="bad-option",
            status=ExitStatus.USAGE,
        ) from None


def _beside_model(options: SSHOptions, model: SSHOptions, session_of: SessionOf) -> Mapping[str, str]:
    """What a transform step asks for and the bundle of its model does not say, as variables of the job.

    What only a bundle can carry, files and keys of hooks, is the model's.

    Args:
        options: what was asked for the step.
        model: what was asked for its model; the defaults where that is not known.
        session_of: answers the session that reads keys and knows the agent's region.
    """
    known = {each.field for each in settings.SETTINGS}
    asked = options.owner or options.owner_scheme
    options, model = owned(options, session_of), owned(model, session_of)
    there = model.document(())
    document = {
        name: value
        for name, value in options.document(()).items()
        if name in known and (name not in there or there[name] != value)
    }
    # Nobody asked for these here: the submitting process's owner, the default transport.
    if asked is None:
        document.pop("owner", None)
    if options.transport == "ssm":
        document.pop("transport", None)
    if options.authorized_keys and options.authorized_keys != model.authorized_keys:
        document["authorized_keys"] = list(authorized.authorized_keys(options, session_of()))
    if options.agent_source == "bundle":
        document.pop("agent", None)
    elif model.agent_source != "bundle" and _pins_another(options, model):
        document.update(_pinned_agent(options, session_of()))
    return settings.variables(document)


def _pins_another(options: SSHOptions, model: SSHOptions) -> bool:
    """Whether a transform step names a version or a machine of the agent that its model does not."""
    return options.agent_version not in (None, model.agent_version) or options.machines not in (
        SSHOptions.machines,
        model.machines,
    )


def _pinned_agent(options: SSHOptions, session: SdkSession) -> Mapping[str, Any]:
    """What `options.json` would say of the agent that is pinned."""
    if options.transport != "ssm" or options.agent_source == "found":
        return {}
    client = boto_session_of(session).client("s3")
    return agent_for(options, client.meta.endpoint_url, client.meta.region_name).options


def _held(options: SSHOptions) -> Held:
    read = settings.load({}, {**options.document(()), "agent": "auto"})
    after = any(point != "start" for point in read.hold)
    return Held(read.wait_seconds or 0, read.hold_max_seconds if read.hold else 0, after)


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
    warning = cache_warning(kind)
    if warning is not None:
        say(name_of(kind, step.get("Name")), [warning])
    return step


@functools.lru_cache(maxsize=None)
def _plugins() -> Plugins:
    return Plugins()
