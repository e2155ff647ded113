"""Whole pipelines, and pipeline definitions as JSON.

Attaching to the steps covers all but `@step` functions that are only reached through what another step takes
from them. So the pipeline becomes a `PipelineWithSSH`, as a step becomes a `StepWithSSH`; create, upsert and
update go through its `definition()`.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping

from ..definitions import bodies, named_steps
from ..errors import ExitStatus, SmsshError
from . import local_mode, steps
from .bundle import publish
from .inject import Attachment, step_with_ssh
from .models import ModelAttachment, TransformAttachment
from .repack_step import with_repack_step
from .request.add_ssh import KINDS
from .request.values import at
from .selection import Choice
from .warnings import forgettable, gathered

if TYPE_CHECKING:
    from .options import SSHOptions
    from .selection import Selection
    from .sessions import SessionOf

__all__ = ["attach_pipeline", "inject_definition", "transform_definition"]

Change = Callable[[str, Mapping[str, Any], "tuple[str, ...]"], "Mapping[str, Any] | list[Mapping[str, Any]]"]


def attach_pipeline(pipeline: Any, options: SSHOptions, selection: Selection) -> None:
    """Let the jobs of some steps be entered, or of all.

    Steps with options of their own keep them. A step that can't be entered is left as it is, with a warning.

    Args:
        pipeline: a pipeline of SageMaker SDK v2 or v3.
        options: what is asked for.
        selection: which steps are meant.
    """
    asked: _Asked | None = getattr(type(pipeline), steps.MARK, None)
    if asked is None:
        asked = _Asked()
        _become_with_ssh(pipeline, asked)
    asked.add(Choice(options, selection))
    if _stays_local(pipeline, asked):
        return
    # Now as well: what is decorated later leaves the steps alone that this chooses.
    with gathered(getattr(pipeline, "name", None)):
        _attach_steps(pipeline, asked.choices)


class _Asked:
    """What was asked of a pipeline.

    Attributes:
        choices: what for which steps, in order.
        refused: the choice that the pipeline could not be compiled for last.
    """

    def __init__(self) -> None:
        self.choices: list[Choice] = []
        self.refused: Choice | None = None

    def add(self, choice: Choice) -> None:
        """One more, in place of one that was refused: who asks again has seen why, and fixed it."""
        self.choices = [*(each for each in self.choices if each is not self.refused), choice]
        self.refused = None


def _become_with_ssh(pipeline: Any, asked: _Asked) -> None:
    base: Any = type(pipeline)

    class PipelineWithSSH(base):  # type: ignore[misc]
        """A pipeline that was decorated: its definition has SSH in the steps that were chosen."""

        @functools.wraps(base.definition)
        def definition(self, *args: Any, **kwargs: Any) -> str:
            compiled = functools.partial(super().definition, *args, **kwargs)
            if _stays_local(self, asked):
                return str(compiled())
            with gathered(getattr(self, "name", None)):
                # Once more: steps may have been added since. To choices that are off, too, which keep them from
                # later ones.
                _attach_steps(self, asked.choices)
                return _completed(self, _compiled(self, compiled), asked)

    setattr(PipelineWithSSH, steps.MARK, asked)
    steps.become(pipeline, PipelineWithSSH)


def _stays_local(pipeline: Any, asked: _Asked) -> bool:
    """Whether a pipeline runs in local mode, which leaves it as it is; warns of it."""
    if not local_mode.is_local(getattr(pipeline, "sagemaker_session", None)):
        return False
    if any(choice.options.active for choice in asked.choices):
        local_mode.warn(f"pipeline {getattr(pipeline, 'name', None)!r}")
    return True


_COMPILATIONS = 3
"""How often a pipeline is compiled at most: what a transform step finds out changes its model, and that no more."""


def _compiled(pipeline: Any, definition: Callable[[], str]) -> str:
    """The definition, compiled again where a step was told what turned out to be otherwise: see `models`."""
    sagemaker_session = getattr(pipeline, "sagemaker_session", None)
    attachments = [steps.attachment_of(found.step) for found in _walk(pipeline)]
    models = [each for each in attachments if isinstance(each, ModelAttachment)]
    transforms = [each for each in attachments if isinstance(each, TransformAttachment)]
    models += [each.model for each in transforms if each.model is not None and each.model not in models]
    for model in models:
        model.addable = True
    try:
        for number in range(_COMPILATIONS):
            forget = forgettable()
            for model in models:
                model.decided_by.clear()
            text = definition()
            stale = any(model.stale for model in models)
            if not stale and not any(each.stale(lambda: sagemaker_session) for each in transforms):
                break
            if number + 1 < _COMPILATIONS:
                forget()
    finally:
        for model in models:
            model.addable = False
    repacked = {each.name: each for each in models if each.name is not None and each.repacked_by_us}
    if not repacked:
        return text
    return json.dumps(_with_repack_steps(json.loads(text), repacked, lambda: sagemaker_session))


def _with_repack_steps(
    definition: Mapping[str, Any], models: Mapping[str, ModelAttachment], session_of: SessionOf
) -> Mapping[str, Any]:
    """A definition with a step before each of these models that repacks it."""

    def change(kind: str, step: Mapping[str, Any], names: tuple[str, ...]) -> Any:
        model = models.get(names[0])
        if model is None or kind != "model":
            return step
        uri = publish.publish(model.options, session_of() or model.sagemaker_session)
        return with_repack_step(step, uri, f"{uri.rstrip('/').rpartition('/')[0]}/repacked/")

    return transform_definition(definition, change)


def _completed(pipeline: Any, text: str, asked: _Asked) -> str:
    """The definition with those steps changed too that were not seen before it was compiled."""
    if not any(choice.options.active for choice in asked.choices):
        return text
    definition = json.loads(text)
    known: list[tuple[str | None, tuple[str, ...]]] = [
        (KINDS.get(step.get("Type", "")), names) for step, names in named_steps(definition)
    ]
    walked = list(_walk(pipeline))
    known += [(steps.kind_of(each.step), each.names) for each in walked]
    seen = {each.step.name for each in walked if steps.attachment_of(each.step) is not None}
    sagemaker_session = getattr(pipeline, "sagemaker_session", None)
    changed = definition
    declared = {each.get("Name") for each in definition.get("Parameters") or ()}
    for choice in asked.choices:
        if choice.options.active:
            asked.refused = choice
            choice.selection.check(known)
            _check_parameter(choice.options.enabled, declared)
            asked.refused = None
            changed = inject_definition(
                changed, choice.options, choice.selection, lambda: sagemaker_session, except_for=seen
            )
        seen |= {names[0] for kind, names in known if choice.selection.has(kind, names)}
    return text if changed is definition else json.dumps(changed)


def _check_parameter(enabled: Any, declared: set[Any]) -> None:
    """Refuse a switch that the pipeline does not know: the service would, without naming the option."""
    name = getattr(enabled, "name", None) if hasattr(enabled, "parameter_type") else None
    if name is not None and name not in declared:
        raise SmsshError(
            f"enabled is the parameter {name!r}, which the pipeline does not declare",
            hint="declare it: Pipeline(parameters=[...])",
            reference="no-such-parameter",
            status=ExitStatus.USAGE,
        )


def inject_definition(
    definition: Mapping[str, Any],
    options: SSHOptions,
    selection: Selection,
    session_of: SessionOf,
    *,
    except_for: set[str] | frozenset[str] = frozenset(),
) -> Mapping[str, Any]:
    """A pipeline definition with SSH in its steps; the same object where nothing is changed.

    Args:
        definition: the definition, as parsed from JSON.
        options: what is asked for.
        selection: which steps are meant; a transform step takes the step that makes its model with it.
        session_of: answers the session that knows where bundles go.
        except_for: names of steps to leave alone.
    """
    attachments = _attachments(definition, options, selection, except_for)
    for step, names in named_steps(definition):
        attachment = attachments.get(names[0])
        if isinstance(attachment, TransformAttachment):
            attachment.look(step["Arguments"], session_of)

    def change(kind: str, step: Mapping[str, Any], names: tuple[str, ...]) -> Mapping[str, Any]:
        attachment, request = attachments.get(names[0]), step["Arguments"]
        changed = request if attachment is None else attachment.add_ssh(request, session_of)
        return step if changed is request else step_with_ssh({**step, "Arguments": changed}, kind, options)

    with gathered():
        changed = transform_definition(definition, change)
    repacked = {
        name: each
        for name, each in attachments.items()
        if isinstance(each, ModelAttachment) and each.repacked_by_us
    }
    return _with_repack_steps(changed, repacked, session_of) if repacked else changed


def _attachments(
    definition: Mapping[str, Any],
    options: SSHOptions,
    selection: Selection,
    except_for: set[str] | frozenset[str],
) -> dict[str, Attachment]:
    """What is asked for the steps of a definition that are meant, and for those that make models, by name."""
    found: dict[str, Attachment] = {}
    scored: list[tuple[Mapping[str, Any], tuple[str, ...]]] = []
    for step, names in named_steps(definition):
        kind, request, name = KINDS.get(step.get("Type", "")), step.get("Arguments"), names[0]
        if kind is None or name in except_for or not isinstance(request, dict):
            continue
        chosen = selection.has(kind, names)
        if kind == "model":
            peek = functools.partial(_same, request)
            named = selection.names(kind, [name])
            found[name] = ModelAttachment(
                kind, name, options, named=named, compiled=True, chosen=chosen, peek=peek, addable=True
            )
        elif kind == "transform" and chosen:
            scored.append((request, names))
        elif chosen:
            found[name] = Attachment(kind, name, options, compiled=True)
    for request, (name, *_) in scored:
        maker, named = found.get(_maker_of(request) or ""), selection.names("transform", [name])
        model = maker if isinstance(maker, ModelAttachment) else None
        found[name] = TransformAttachment("transform", name, options, named=named, compiled=True, model=model)
    return found


def _same(value: Any) -> Any:
    return value


def transform_definition(definition: Mapping[str, Any], change: Change) -> Mapping[str, Any]:
    """A pipeline definition with each step changed, nested ones too; the same object if nothing is.

    Args:
        definition: the definition, as parsed from JSON.
        change: (kind, step, its name before those of the steps around it) -> step, for steps that can be entered; or
            several steps, which take its place.
    """
    found = definition.get("Steps")
    if not isinstance(found, list):
        return definition
    changed = _transform_steps(found, change, ())
    return definition if changed is found else {**definition, "Steps": changed}


def _transform_steps(found: list[Any], change: Change, around: tuple[str, ...]) -> list[Any]:
    changed: list[Any] = []
    for step in found:
        new = _transform_step(step, change, around)
        changed += new if isinstance(new, list) else [new]
    same = len(changed) == len(found) and all(new is old for new, old in zip(changed, found))
    return found if same else changed


def _transform_step(step: Any, change: Change, around: tuple[str, ...]) -> Any:
    arguments = step.get("Arguments") if isinstance(step, dict) else None
    if not isinstance(arguments, dict):
        return step
    names = (str(step.get("Name", "")), *around)
    kind = KINDS.get(step.get("Type", ""))
    if kind is not None:
        return change(kind, step, names)
    nested = {}
    for name, inner in bodies(step).items():
        changed = _transform_steps(inner, change, names)
        if changed is not inner:
            nested[name] = changed
    return {**step, "Arguments": {**arguments, **nested}} if nested else step


def _maker_of(request: Any) -> str | None:
    """The name of the step that makes the model of a transform request; None where it is made elsewhere."""
    model: Any = at(request, "ModelName")
    reference = model.get("Get") if isinstance(model, dict) else None
    if not isinstance(reference, str) or not reference.startswith("Steps."):
        return None
    return reference.split(".")[1]


def _attach_steps(pipeline: Any, choices: list[Choice]) -> None:
    sagemaker_session = getattr(pipeline, "sagemaker_session", None)
    # Transform steps last: they take models with them, which may have been chosen for something else.
    for step, names, own in sorted(
        _walk(pipeline), key=lambda found: steps.kind_of(found.step) == "transform"
    ):
        kind = steps.kind_of(step)
        for choice in choices:
            if kind is not None and choice.selection.has(kind, names):
                named = choice.selection.names(kind, names[:own])
                steps.attach(step, choice.options, named=named, sagemaker_session=sagemaker_session)


def _walk(pipeline: Any) -> Iterator[steps.Found]:
    """The steps of a pipeline and those that they depend on, each once."""
    known: set[int] = set()
    waiting = list(getattr(pipeline, "steps", None) or ())
    while waiting:
        for found in steps.steps_in(waiting.pop(0)):
            if id(found.step) in known:
                continue
            known.add(id(found.step))
            yield found
            # A dependency is a step, something that stands for one, or a name.
            waiting.extend(each for each in _depends_on(found.step) if not isinstance(each, str))


def _depends_on(step: Any) -> list[Any]:
    found: list[Any] | None = getattr(step, "depends_on", None)
    # v3 can wrap a dependency to say when it counts.
    return [getattr(each, "step", each) if not isinstance(each, str) else each for each in found or ()]
