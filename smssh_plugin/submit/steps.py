"""One pipeline step: its requests get SSH when they are made.

Steps of SageMaker SDK v2 and v3 are told by what they have, never by their classes: nothing of the SDK is
imported. A step that is decorated becomes a `StepWithSSH` of its own class, whose `arguments` property adds SSH:
every way out of a step goes through that (definition, upsert, local mode), and it is evaluated late: the SDK
uploads code then, under keys that depend on the pipeline that is being compiled.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Iterator, NamedTuple

from . import local_mode, repack
from .inject import REPACKED, Attachment, step_with_ssh
from .models import ModelAttachment, TransformAttachment
from .request.add_ssh import KINDS

if TYPE_CHECKING:
    from .options import SSHOptions

__all__ = ["MARK", "attach", "attachment_of", "become", "is_step", "kind_of", "steps_in", "type_of"]

MARK = "__smssh__"
_BUNDLE_OF = "__smssh_bundle_of__"


# -------------------------------------------------------------------------------- what is what


def is_step(target: Any) -> bool:
    """Whether it is a pipeline step, of either major of the SDK."""
    return isinstance(getattr(type(target), "arguments", None), property) and hasattr(target, "step_type")


def _plain(target: Any) -> Any:
    """The step behind a DelayedReturn, or behind what names it as a dependency; anything else as it is."""
    try:
        # DelayedReturn makes an item of everything that is asked of it, so its attributes are asked for
        # directly.
        return object.__getattribute__(target, "_step")
    except AttributeError:
        return target


def type_of(step: Any) -> str:
    """The step's type, as pipeline definitions name it."""
    found = getattr(step, "step_type", None)
    return str(getattr(found, "value", found))


def kind_of(step: Any) -> str | None:
    """The kind of request behind a step, a value of `KINDS`; None when no container of the user's runs."""
    return KINDS.get(type_of(step))


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
    if is_step(step) and not inner:
        yield Found(step, around, own)
    for each in inner:
        yield from steps_in(each, around)
    # `steps` are those of a StepCollection, or what a ModelStep of v3 needs: the step that repacks its model.
    for each in _listed(step, "steps"):
        yield from steps_in(each, around, own)


def _listed(step: Any, name: str) -> list[Any]:
    found = getattr(step, name, None)
    return list(found) if isinstance(found, (list, tuple)) else []


# -------------------------------------------------------------------------------- attach


def attach(
    step: Any,
    options: SSHOptions,
    *,
    alone: bool = False,
    named: bool = False,
    chosen: bool = True,
    sagemaker_session: Any = None,
) -> None:
    """Make the step a `StepWithSSH`, whose requests get SSH; if it is one already, its options stay.

    Args:
        step: a step whose `kind_of` is known.
        options: what is asked for.
        alone: whether it was decorated by itself.
        named: whether a person named it.
        chosen: whether it is meant itself, and does not only come along with a transform step.
        sagemaker_session: to fall back on.
    """
    attachment = attachment_of(step)
    if attachment is None:
        attachment = _attachment(step, options, sagemaker_session)
        _become_with_ssh(step, attachment)
    attachment.alone, attachment.named = attachment.alone or alone, attachment.named or named
    if isinstance(attachment, ModelAttachment):
        attachment.chosen = attachment.chosen or chosen


def attachment_of(step: Any) -> Attachment | None:
    """What was asked for the step; None where nothing was."""
    found = getattr(type(step), MARK, None)
    return found if isinstance(found, Attachment) else None


def become(target: Any, subclass: Any) -> None:
    """Make one object an instance of a subclass of its class, which is shown under the name of that."""
    base = type(target)
    subclass.__name__, subclass.__qualname__ = base.__name__, base.__qualname__
    subclass.__module__, subclass.__doc__ = base.__module__, base.__doc__
    target.__class__ = subclass


def _become_with_ssh(step: Any, attachment: Attachment) -> None:
    base: Any = type(step)

    class StepWithSSH(base):  # type: ignore[misc]
        """A step that was decorated: its requests have SSH in them."""

        @property
        def arguments(self) -> Any:
            """The request, with SSH in it where it can have that."""
            session_of = functools.partial(_sagemaker_session_of, self)
            attachment.has_ssh = False
            if attachment.options.active and local_mode.is_local_step(
                session_of(), attachment.sagemaker_session
            ):
                local_mode.warn(f"step {self.name!r}")
                return super().arguments
            request = super().arguments
            changed = attachment.add_ssh(request, session_of)
            attachment.has_ssh = changed is not request
            return changed

        def to_request(self) -> Any:
            """The whole step of a definition."""
            whole = super().to_request()
            return step_with_ssh(whole, attachment.kind, attachment.options) if attachment.has_ssh else whole

    setattr(StepWithSSH, MARK, attachment)
    become(step, StepWithSSH)


def _add_bundle(step: Any, model: ModelAttachment) -> None:
    base: Any = type(step)
    if hasattr(base, _BUNDLE_OF):
        return

    class RepackStepWithBundle(base):  # type: ignore[misc]
        """A step of the SDK's that repacks a model, and puts the bundle into it; it gets no SSH itself by that."""

        @property
        def arguments(self) -> Any:
            """The request; the bundle lies beside the model's script while it is made."""
            session_of = functools.partial(_sagemaker_session_of, self)
            local = local_mode.is_local_step(session_of(), model.sagemaker_session)
            if local or model.foresee(session_of).way != REPACKED:
                return super().arguments
            with repack.staged(self, model.options, lambda: session_of() or model.sagemaker_session):
                return repack.whole_source(super().arguments)

    setattr(RepackStepWithBundle, _BUNDLE_OF, model)
    become(step, RepackStepWithBundle)


# -------------------------------------------------------------------------------- sessions and models


def _sagemaker_session_of(step: Any) -> Any:
    """The SageMaker session of what the step runs; None where none is found."""
    # NotebookJobStep is its own job, and has the session once its request has been made.
    for holder in (*_jobs_of(step), step):
        sagemaker_session = getattr(holder, "sagemaker_session", None)
        if getattr(sagemaker_session, "boto_session", None) is not None:
            return sagemaker_session
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


def _attachment(step: Any, options: SSHOptions, sagemaker_session: Any) -> Attachment:
    """What was asked for a step, and what else its kind has to know."""
    kind = kind_of(step)
    assert kind is not None
    if kind == "transform":
        model = _model_of(step, options, sagemaker_session)
        return TransformAttachment(kind, step.name, options, sagemaker_session=sagemaker_session, model=model)
    if kind != "model":
        return Attachment(kind, step.name, options, sagemaker_session=sagemaker_session)
    peek = functools.partial(repack.request_of, step)
    model = ModelAttachment(kind, step.name, options, sagemaker_session=sagemaker_session, peek=peek)
    request = repack.request_of(step)
    for maker in repack.makers(request) if request is not None else ():
        if maker is not None:
            _add_bundle(maker, model)
    return model


def _model_of(step: Any, options: SSHOptions, sagemaker_session: Any) -> ModelAttachment | None:
    """The step that makes a transform step's model, which gets the same options, unless it has some; None if unseen."""
    names = (getattr(job, "model_name", None) for job in _jobs_of(step))
    name = next((found for found in names if found is not None), None)
    try:
        maker = object.__getattribute__(name, "_step")
    except AttributeError:
        return None
    if not is_step(maker) or kind_of(maker) != "model":
        return None
    attach(maker, options, chosen=False, sagemaker_session=sagemaker_session)
    attachment = attachment_of(maker)
    return attachment if isinstance(attachment, ModelAttachment) else None
