"""`with_ssh`: the decorator for pipeline steps, for what returns them, and for whole pipelines.

Steps of SageMaker SDK v2 and v3 are told by what they have, never by their classes: nothing of the SDK is
imported. What is hooked is the `arguments` property of the step's instance, through a class of its own,
because every way out of a step goes through it (definition, upsert, local mode) and because it is evaluated
late: the SDK uploads code then, under keys that depend on the pipeline that is being compiled.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Iterable, Iterator, NamedTuple

from ..errors import ExitStatus, SmsshError
from . import local_mode, repack
from .inject import REPACKED, step_with_ssh
from .models import Link, Model, Transform
from .options import SSHOptions
from .requests import KINDS
from .selection import EVERYTHING, Selection

__all__ = ["attach", "kind_of", "link_of", "steps_in", "with_ssh"]

_MARK = "__smssh__"
_STAGED = "__smssh_staged__"

_RIGHT_ORDER = """write @with_ssh above @step, not below it:

    @with_ssh
    @step(...)
    def {}(...):
        ..."""


def with_ssh(
    target: Any = None,
    options: SSHOptions | None = None,
    *,
    steps: str | Iterable[str] | None = None,
    **changes: Any,
) -> Any:
    """Let the jobs of a step, or of many, be entered over SSH.

    Forms:

        @with_ssh                              a function that returns a step, a list or a collection
        @with_ssh(hold="failure")              the same, with options
        @with_ssh                              a function that is a step: above @step
        @step(...)
        with_ssh(step), with_ssh([a, b])       steps there are already
        with_ssh(pipeline, SSHOptions(...))    all steps of a pipeline that run in a container
        with_ssh(pipeline, steps="Train*")     some of them

    A transform step takes the step that makes its model with it, because the model carries what the job
    needs; other models are left alone, unless they are decorated by themselves, or `steps` names them. Decorating twice
    is decorating once: the options that came first stay.

    Args:
        target: what to decorate; None, or an `SSHOptions`, makes a decorator.
        options: what is asked for; see `SSHOptions`.
        steps: which steps of the target are meant: names, patterns as in a shell, or kinds (`training`, `processing`,
            `transform`, `model`, `tuning`); all, if it is left out.
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
    selection = EVERYTHING if steps is None else Selection(steps)
    if target is None:
        return lambda later: _decorate(later, wanted, selection)
    return _decorate(target, wanted, selection)


def _decorate(target: Any, options: SSHOptions, selection: Selection) -> Any:
    if _is_function(target):
        return _decorated(target, options, selection)
    if not _attach_all(target, options, selection):
        raise SmsshError(
            f"with_ssh can't decorate {_describe(target)}",
            hint="it takes a step, a list of steps, a pipeline, or a function that returns steps; for estimators, "
            "trainers, processors and clients outside of pipelines there is smssh_plugin.enable(session)",
            reference="not-a-step",
            status=ExitStatus.USAGE,
        )
    return target


def _decorated(function: Callable[..., Any], options: SSHOptions, selection: Selection) -> Callable[..., Any]:
    @functools.wraps(function)
    def with_steps(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if not _attach_all(result, options, selection):
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


def _attach_all(target: Any, options: SSHOptions, selection: Selection) -> bool:
    """Attach to whatever it is; False if it is nothing that has steps."""
    if _is_pipeline(target):
        from .pipelines import attach_pipeline

        attach_pipeline(target, options, selection)
        return True
    if isinstance(target, (list, tuple)) and any(_is_pipeline(each) for each in target):
        return all(_attach_all(each, options, selection) for each in target)
    if isinstance(target, (list, tuple)) and not all(any(steps_in(each)) for each in target):
        return False
    found = list(steps_in(target))
    selection.check((kind_of(each.step), each.names) for each in found)
    # Beside steps that can be entered, those that can't (a model that is registered, say) are passed over.
    if found and all(kind_of(each.step) is None for each in found):
        step = found[0].step
        raise SmsshError(
            f"step {step.name!r} is of type {_type_of(step)}, and no container runs there to be entered",
            hint="the types that can be entered are " + ", ".join(KINDS),
            reference="step-type",
            status=ExitStatus.USAGE,
        )
    for step, names, own in found:
        kind = kind_of(step)
        if kind is not None and selection.has(kind, names):
            alone = own == len(names)
            attach(step, options, alone=alone, named=alone or selection.names(kind, names[:own]))
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


class Found(NamedTuple):
    """A step behind something.

    Attributes:
        step: the step.
        names: its name, before those of what it is part of.
        own: how many of these stand for the step itself: its name, and those of collections right around it, such as a
            ModelStep of SDK v2; not those of conditions and loops.
    """

    step: Any
    names: tuple[str, ...]
    own: int


def steps_in(target: Any, around: tuple[str, ...] = (), own: int = 0) -> Iterator[Found]:
    """The steps behind one thing, nested ones too: of a DelayedReturn, a collection, a condition, a loop, a list.

    Args:
        target: the thing.
        around: the names of what it is part of.
        own: how many of these are of collections right around it.

    Yields:
        Each step.
    """
    if isinstance(target, (list, tuple)):
        for each in target:
            yield from steps_in(each, around, own)
        return
    step = _plain(target)
    inner = [*_listed(step, "if_steps"), *_listed(step, "else_steps"), *_listed(step, "for_each_body")]
    name = getattr(step, "name", None)
    if isinstance(name, str):
        around, own = (name, *around), own + 1
    if _is_step(step) and not inner:
        yield Found(step, around, own)
    for each in inner:
        yield from steps_in(each, around)
    # `steps` are those of a StepCollection, or what a ModelStep of v3 needs: the step that repacks its model.
    for each in _listed(step, "steps"):
        yield from steps_in(each, around, own)


def _listed(step: Any, name: str) -> list[Any]:
    found = getattr(step, name, None)
    return list(found) if isinstance(found, (list, tuple)) else []


def _describe(target: Any) -> str:
    return "None" if target is None else f"a {type(target).__module__}.{type(target).__qualname__}"


# -------------------------------------------------------------------------------- attach


def attach(
    step: Any,
    options: SSHOptions,
    *,
    alone: bool = False,
    named: bool = False,
    chosen: bool = True,
    session: Any = None,
) -> None:
    """Hook the step's `arguments`; where that was done before, its options stay.

    Args:
        step: a step whose `kind_of` is known.
        options: what is asked for.
        alone: whether it was decorated by itself.
        named: whether a person named it.
        chosen: whether it is meant itself, and does not only come along with a transform step.
        session: a SageMaker session to fall back on.
    """
    link = link_of(step)
    if link is None:
        link = _link(step, options, session)
        _hook(step, link)
    link.alone, link.named = link.alone or alone, link.named or named
    if isinstance(link, Model):
        link.chosen = link.chosen or chosen


def link_of(step: Any) -> Link | None:
    """What was asked for the step; None where nothing was."""
    found = getattr(type(step), _MARK, None)
    return found if isinstance(found, Link) else None


def _hook(step: Any, link: Link) -> None:
    """Let a step's requests, and the whole step of a definition, be changed."""
    base = type(step)
    own: property = base.arguments
    entered = False  # whether the request that was made last has SSH in it

    def arguments(self: Any) -> Any:
        nonlocal entered
        session_of = functools.partial(_session_of, self)
        entered = False
        if link.options.active and local_mode.is_local_step(session_of(), link.session):
            local_mode.warn(f"step {self.name!r}")
            return own.__get__(self)
        request = own.__get__(self)
        changed = link.enter(request, session_of)
        entered = changed is not request
        return changed

    @functools.wraps(base.to_request)
    def to_request(self: Any) -> Any:
        whole = base.to_request(self)
        return step_with_ssh(whole, link.kind, link.options) if entered else whole

    _subclass(
        step, {"arguments": property(arguments, doc=own.__doc__), "to_request": to_request, _MARK: link}
    )


def _subclass(step: Any, namespace: dict[str, Any]) -> None:
    """Give a step a class of its own, which is like its class but for these members."""
    base = type(step)
    like = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    step.__class__ = type(base.__name__, (base,), {**like, **namespace})


def _stage(step: Any, model: Model) -> None:
    """Let a step of the SDK's that repacks a model bring the bundle into it; the step itself is not entered by that."""
    if getattr(type(step), _STAGED, None) is not None:
        return
    own: property = type(step).arguments

    def arguments(self: Any) -> Any:
        session_of = functools.partial(_session_of, self)
        local = local_mode.is_local_step(session_of(), model.session)
        if local or model.foresee(session_of).way != REPACKED:
            return own.__get__(self)
        with repack.staged(self, model.options, lambda: session_of() or model.session):
            return repack.whole_source(own.__get__(self))

    _subclass(step, {"arguments": property(arguments, doc=own.__doc__), _STAGED: model})


# -------------------------------------------------------------------------------- sessions and models


def _session_of(step: Any) -> Any:
    """The SageMaker session of what the step runs; None where none is found."""
    # NotebookJobStep is its own job, and has the session once its request has been made.
    for holder in (*_jobs_of(step), step):
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


def _link(step: Any, options: SSHOptions, session: Any) -> Link:
    """What was asked for a step, and what else its kind has to know."""
    kind = kind_of(step)
    assert kind is not None
    if kind == "transform":
        model = _model_of(step, options, session)
        return Transform(kind, step.name, options, session=session, model=model)
    if kind != "model":
        return Link(kind, step.name, options, session=session)
    peek = functools.partial(repack.request_of, step)
    link = Model(kind, step.name, options, session=session, peek=peek)
    request = repack.request_of(step)
    for maker in repack.makers(request) if request is not None else ():
        if maker is not None:
            _stage(maker, link)
    return link


def _model_of(step: Any, options: SSHOptions, session: Any) -> Model | None:
    """The step that makes a transform step's model, which gets the same options, unless it has some; None if unseen."""
    names = (getattr(job, "model_name", None) for job in _jobs_of(step))
    name = next((found for found in names if found is not None), None)
    try:
        maker = object.__getattribute__(name, "_step")
    except AttributeError:
        return None
    if not _is_step(maker) or kind_of(maker) != "model":
        return None
    attach(maker, options, chosen=False, session=session)
    link = link_of(maker)
    return link if isinstance(link, Model) else None
