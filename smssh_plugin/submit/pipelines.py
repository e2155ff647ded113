"""Whole pipelines, and pipeline definitions as JSON.

Attaching to the steps covers all but `@step` functions that are only reached through what another step takes
from them. So the pipeline's `definition()` is hooked as well, in the same way as the steps; create, upsert
and update go through it.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping

from . import steps
from .requests import KINDS

if TYPE_CHECKING:
    from .options import SSHOptions

__all__ = ["attach_pipeline", "transform_definition"]

_MARK = "__smssh__"

Change = Callable[[str, str, Mapping[str, Any]], Mapping[str, Any]]


def attach_pipeline(pipeline: Any, options: SSHOptions) -> None:
    """Let the jobs of all steps be entered; does nothing where that was done before.

    Steps with options of their own keep them. A step that can't be entered is left as it is, with a warning.

    Args:
        pipeline: a pipeline of SageMaker SDK v2 or v3.
        options: what is asked for.
    """
    if hasattr(type(pipeline), _MARK):
        return
    base = type(pipeline)

    def definition(self: Any, *args: Any, **kwargs: Any) -> str:
        if not options.active:
            text: str = base.definition(self, *args, **kwargs)
            return text
        # Once more: steps may have been added since.
        _attach_steps(self, options)
        return _completed(self, base.definition(self, *args, **kwargs), options)

    functools.update_wrapper(definition, base.definition)
    namespace: dict[str, Any] = {
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        "definition": definition,
        _MARK: options,
    }
    hooked = type(base.__name__, (base,), namespace)
    pipeline.__class__ = hooked
    # Now as well: local mode compiles the steps without asking for a definition.
    _attach_steps(pipeline, options)


def transform_definition(definition: Mapping[str, Any], change: Change) -> Mapping[str, Any]:
    """A pipeline definition with each request changed, nested ones too; the same object if nothing is.

    Args:
        definition: the definition, as parsed from JSON.
        change: (kind, step name, arguments) -> arguments, for steps that can be entered.
    """
    found = definition.get("Steps")
    if not isinstance(found, list):
        return definition
    changed = _transform_steps(found, change)
    return definition if changed is found else {**definition, "Steps": changed}


def _transform_steps(found: list[Any], change: Change) -> list[Any]:
    changed = [_transform_step(step, change) for step in found]
    return found if all(new is old for new, old in zip(changed, found)) else changed


def _transform_step(step: Any, change: Change) -> Any:
    arguments = step.get("Arguments") if isinstance(step, dict) else None
    if not isinstance(arguments, dict):
        return step
    kind = KINDS.get(step.get("Type", ""))
    if kind is not None:
        new: Mapping[str, Any] = change(kind, step.get("Name", ""), arguments)
        return step if new is arguments else {**step, "Arguments": new}
    nested = {}
    for name in ("IfSteps", "ElseSteps", "ForEachBody"):
        inner = arguments.get(name)
        if isinstance(inner, list):
            changed = _transform_steps(inner, change)
            if changed is not inner:
                nested[name] = changed
    return {**step, "Arguments": {**arguments, **nested}} if nested else step


def _completed(pipeline: Any, text: str, options: SSHOptions) -> str:
    """The definition with those steps changed too that were not seen before it was compiled."""
    seen = {step.name for step in _walk(pipeline) if steps.attachment_of(step) is not None}
    session = getattr(pipeline, "sagemaker_session", None)
    attachment = steps.Attachment(options, named=False, session=session)

    def change(kind: str, name: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        if name in seen:
            return request
        return steps.inject(kind, name, request, attachment, lambda: session)

    definition = json.loads(text)
    changed = transform_definition(definition, change)
    return text if changed is definition else json.dumps(changed)


def _attach_steps(pipeline: Any, options: SSHOptions) -> None:
    session = getattr(pipeline, "sagemaker_session", None)
    for step in _walk(pipeline):
        if steps.kind_of(step) is not None:
            steps.attach(step, options, named=False, session=session)


def _walk(pipeline: Any) -> Iterator[Any]:
    """The steps of a pipeline and those that they depend on, each once."""
    known: set[int] = set()
    waiting = list(getattr(pipeline, "steps", None) or ())
    while waiting:
        for step in steps.steps_in(waiting.pop(0)):
            if id(step) in known:
                continue
            known.add(id(step))
            yield step
            # A dependency is a step, something that stands for one, or a name.
            waiting.extend(each for each in _depends_on(step) if not isinstance(each, str))


def _depends_on(step: Any) -> list[Any]:
    found: list[Any] | None = getattr(step, "depends_on", None)
    # v3 can wrap a dependency to say when it counts.
    return [getattr(each, "step", each) if not isinstance(each, str) else each for each in found or ()]
