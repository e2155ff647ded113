"""`with_ssh`: the decorator for pipeline steps, for what returns them, and for whole pipelines.

Steps of SageMaker SDK v2 and v3 are told by what they have, never by their classes: nothing of the SDK is
imported. What is hooked is the `arguments` property of the step's instance, through a class of its own,
because every way out of a step goes through it (definition, upsert, local mode) and because it is evaluated
late: the SDK uploads code then, under keys that depend on the pipeline that is being compiled.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass, replace
from typing import Any, Callable, Iterator, Mapping

from ..errors import ExitStatus, SmsshError
from ..plugins import Plugins
from . import bundle
from .options import SmsshWarning, SSHOptions
from .requests import KINDS, Injection, cautions, transform_request

__all__ = ["Attachment", "attach", "attachment_of", "inject", "kind_of", "steps_in", "with_ssh"]

_MARK = "__smssh__"
_PLACEHOLDER = "s3://bundle/{}/".format("0" * 64)

_RIGHT_ORDER = """write @with_ssh above @step, not below it:

    @with_ssh
    @step(...)
    def {}(...):
        ..."""


def with_ssh(target: Any = None, options: SSHOptions | None = None, **changes: Any) -> Any:
    """Let the jobs of a step, or of many, be entered over SSH.

    Forms:

        @with_ssh                              a function that returns a step, a list or a collection
        @with_ssh(hold="failure")              the same, with options
        @with_ssh                              a function that is a step: above @step
        @step(...)
        with_ssh(step), with_ssh([a, b])       steps there are already
        with_ssh(pipeline, SSHOptions(...))    all steps of a pipeline that run in a container

    A transform step takes the step that makes its model with it, because the model carries what the job
    needs. Decorating twice is decorating once: the options that came first stay.

    Args:
        target: what to decorate; None, or an `SSHOptions`, makes a decorator.
        options: what is asked for; see `SSHOptions`.
        changes: single options, which go before `options`.

    Returns:
        The target itself, or for a function one that does the same and decorates what it returns.

    Raises:
        SmsshError: the target is none of these, or can't be entered, or an option is wrong. What only a
            compiled request shows (network isolation, limits) is raised when the pipeline is compiled.
    """
    if isinstance(target, SSHOptions):
        target, options = None, target
    wanted = (options if options is not None else SSHOptions()).merged(changes)
    if target is None:
        return lambda later: _decorate(later, wanted)
    return _decorate(target, wanted)


def _decorate(target: Any, options: SSHOptions) -> Any:
    if _is_function(target):
        return _decorated(target, options)
    if not _attach_all(target, options):
        raise SmsshError(
            f"with_ssh can't decorate {_describe(target)}",
            hint="it takes a step, a list of steps, a pipeline, or a function that returns steps",
            reference="not-a-step",
            status=ExitStatus.USAGE,
        )
    return target


def _decorated(function: Callable[..., Any], options: SSHOptions) -> Callable[..., Any]:
    @functools.wraps(function)
    def with_steps(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if not _attach_all(result, options):
            name = getattr(function, "__name__", "it")
            raise SmsshError(
                f"with_ssh decorates functions that return a step, and {name} returned {_describe(result)}; "
                "if it is to be a step itself, " + _RIGHT_ORDER.format(name),
                reference="not-a-step",
                status=ExitStatus.USAGE,
            )
        return result

    if not _is_step_function(function):
        setattr(with_steps, _MARK, _NeverInJob(getattr(function, "__name__", "f")))
    return with_steps


class _NeverInJob:
    """Lies on decorated functions, and turns being pickled into an error.

    `@step` above `@with_ssh` would run without SSH and say nothing: it never calls our function where the
    pipeline is made, but pickles it to run in the job.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> Any:
        raise SmsshError(
            f"{self._name}: " + _RIGHT_ORDER.format(self._name),
            reference="decorator-order",
            status=ExitStatus.USAGE,
        )


def _attach_all(target: Any, options: SSHOptions) -> bool:
    """Attach to whatever it is; False if it is nothing that has steps."""
    if _is_pipeline(target):
        from .pipelines import attach_pipeline

        attach_pipeline(target, options)
        return True
    if isinstance(target, (list, tuple)):
        results = [_attach_all(each, options) for each in target]
        return bool(results) and all(results)
    found = list(steps_in(target))
    for step in found:
        # In a collection (a v2 ModelStep registering a model, say) what can't be entered is passed over.
        if kind_of(step) is not None:
            attach(step, options)
        elif step is _plain(target):
            raise SmsshError(
                f"step {step.name!r} is of type {_type_of(step)}, and no container runs there to be entered",
                hint="the types that can be entered are " + ", ".join(KINDS),
                reference="step-type",
                status=ExitStatus.USAGE,
            )
    return bool(found)


# -------------------------------------------------------------------------------- what is what


def _is_function(target: Any) -> bool:
    return (
        callable(target)
        and not isinstance(target, type)
        and not _is_step(target)
        and not _is_pipeline(target)
    )


def _is_step(target: Any) -> bool:
    return isinstance(getattr(type(target), "arguments", None), property) and hasattr(target, "step_type")


def _is_pipeline(target: Any) -> bool:
    return callable(getattr(type(target), "definition", None)) and hasattr(target, "steps")


def _is_step_function(function: Any) -> bool:
    """Whether the SDK's `@step` made it; known by the file it comes from, in v2 and v3 alike."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.replace("\\", "/").endswith("/workflow/function_step.py")


def _plain(target: Any) -> Any:
    """The step behind a DelayedReturn, or behind what names it as a dependency; anything else as it is."""
    try:
        # DelayedReturn makes an item of everything that is asked of it, so its attributes are asked for
        # directly.
        return object.__getattribute__(target, "_step")
    except AttributeError:
        return target


def _type_of(step: Any) -> str:
    found = getattr(step, "step_type", None)
    return str(getattr(found, "value", found))


def kind_of(step: Any) -> str | None:
    """The kind of request behind a step, a value of `KINDS`; None when no container of the user's runs."""
    return KINDS.get(_type_of(step))


def steps_in(target: Any) -> Iterator[Any]:
    """The steps behind one thing, nested ones too: of a DelayedReturn, a collection, a condition, a loop."""
    step = _plain(target)
    nested = [*(getattr(step, "if_steps", None) or ()), *(getattr(step, "else_steps", None) or ())]
    body = getattr(step, "for_each_body", None) or ()
    nested.extend(body if isinstance(body, (list, tuple)) else [body])
    if _is_step(step) and not nested:
        yield step
        return
    if not nested and isinstance(getattr(step, "steps", None), (list, tuple)):
        nested.extend(step.steps)  # a StepCollection
    for each in nested:
        yield from steps_in(each)


def _describe(target: Any) -> str:
    return "None" if target is None else f"a {type(target).__module__}.{type(target).__qualname__}"


# -------------------------------------------------------------------------------- attach


@dataclass(frozen=True)
class Attachment:
    """What was attached to a step.

    Attributes:
        options: what was asked for.
        named: whether a person named this step; what can't be entered is an error then, else a warning.
        session: a SageMaker session to fall back on where the step has none.
    """

    options: SSHOptions
    named: bool = True
    session: Any = None


def attach(step: Any, options: SSHOptions, *, named: bool = True, session: Any = None) -> None:
    """Hook the step's `arguments`; does nothing where that was done before.

    Args:
        step: a step whose `kind_of` is known.
        options: what is asked for.
        named: whether a person named this step.
        session: a SageMaker session to fall back on.
    """
    if attachment_of(step) is not None:
        return
    base = type(step)
    own: property = base.arguments
    attachment = Attachment(options, named, session)

    def arguments(self: Any) -> Any:
        request = own.__get__(self)
        kind = kind_of(self)
        if kind is None:
            return request
        return inject(kind, self.name, request, attachment, functools.partial(_session_of, self))

    namespace: dict[str, Any] = {
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        "arguments": property(arguments, doc=own.__doc__),
        _MARK: attachment,
    }
    hooked = type(base.__name__, (base,), namespace)
    step.__class__ = hooked
    if kind_of(step) == "transform":
        _attach_model(step, options, named=named, session=session)


def attachment_of(step: Any) -> Attachment | None:
    """What was attached to the step; None where nothing was."""
    found = getattr(type(step), _MARK, None)
    return found if isinstance(found, Attachment) else None


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
    # A model's variables would be those of every job and endpoint that is made from it.
    environment = {} if kind == "model" else options.environment
    injection = Injection(_PLACEHOLDER, name, options.role, options.transport, environment)
    try:
        # With a placeholder first: what can't be entered needs no bundle.
        changed = transform_request(kind, request, injection)
    except SmsshError as error:
        if attachment.named:
            raise
        warnings.warn(f"no SSH for {error.message}", SmsshWarning, stacklevel=2)
        return request
    if changed is request:
        return request
    for caution in cautions(kind, request, name):
        warnings.warn(caution, SmsshWarning, stacklevel=2)
    if kind != "transform":
        uri = bundle.publish(options, session_of() or attachment.session)
        changed = transform_request(kind, request, replace(injection, bundle=uri))
    return _plugins().transform_request(kind, changed, options)


@functools.lru_cache(maxsize=None)
def _plugins() -> Plugins:
    return Plugins()


# -------------------------------------------------------------------------------- sessions and models


def _session_of(step: Any) -> Any:
    """The SageMaker session of what the step runs; None where none is found."""
    for holder in _jobs_of(step):
        session = getattr(holder, "sagemaker_session", None)
        if getattr(session, "boto_session", None) is not None:
            return session
    return None


def _jobs_of(step: Any) -> Iterator[Any]:
    """What may be the trainer, processor, transformer, tuner or model of a step, likeliest first."""
    arguments = getattr(step, "step_args", None)
    positional = getattr(arguments, "func_args", None)
    if positional:
        yield positional[0]
    yield getattr(arguments, "model", None)
    # `@step` functions, once their request has been made; v2's steps without step_args.
    for name in ("_job_settings", "_model", "estimator", "processor", "transformer", "tuner", "model"):
        yield getattr(step, name, None)


def _attach_model(step: Any, options: SSHOptions, *, named: bool, session: Any) -> None:
    """Attach to the step that makes a transform step's model, or say what the model needs."""
    names = (getattr(job, "model_name", None) for job in _jobs_of(step))
    name = next((found for found in names if found is not None), None)
    try:
        maker = object.__getattribute__(name, "_step")
    except AttributeError:
        maker = None
    if maker is not None and _is_step(maker) and kind_of(maker) == "model":
        attach(maker, options, named=named, session=session)
    elif named:
        warnings.warn(
            f"step {step.name!r}: its model is not made by a step seen from here; decorate what makes "
            "it too, or use an image that has smssh-plugin installed",
            SmsshWarning,
            stacklevel=2,
        )
