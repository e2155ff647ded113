"""`with_ssh`: the decorator for pipeline steps, for what returns them, and for whole pipelines."""

from __future__ import annotations

import functools
from typing import Any, Callable, Iterable

from ..errors import ExitStatus, SmsshError
from .options import SSHOptions
from .pipelines import attach_pipeline
from .request.add_ssh import KINDS
from .selection import EVERYTHING, Selection
from .steps import MARK, attach, is_step, kind_of, steps_in, type_of

__all__ = ["with_ssh"]


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

    As a decorator, `@with_ssh` or `@with_ssh(hold="failure")`, it takes a function that returns a step, a list of steps
    or a collection. On a function that is a step itself, it stands above `@step`. As a function:

    ```python
    with_ssh(step)
    with_ssh([first, second])
    with_ssh(pipeline, SSHOptions(...))  # every step that runs in a container
    with_ssh(pipeline, steps="Train*")  # some of them
    ```

    A transform step brings SSH to the step that makes its model, because the model carries what the job needs. Other
    models are left alone, unless they are decorated themselves or `steps` names them. A step that is decorated twice
    keeps the options that came first.

    Args:
        target: what to decorate; None, or an `SSHOptions`, makes a decorator.
        options: what is asked for; see `SSHOptions`.
        steps: which steps of the target are meant: names, patterns as in a shell, or kinds (`training`, `processing`,
            `transform`, `model`, `tuning`); all, if it is left out.
        changes: single options, which go before `options`.

    Returns:
        The target itself, or for a function one that does the same and decorates what it returns.

    Raises:
        SmsshError: the target is not one of these, or can't be entered, or an option is wrong. What only a
            compiled request shows (network isolation, limits) is raised when the pipeline is compiled.
    """
    if isinstance(target, SSHOptions):
        target, options = None, target
    options = (options if options is not None else SSHOptions()).merged(changes)
    selection = EVERYTHING if steps is None else Selection(steps)
    if target is None:
        return lambda later: _decorate(later, options, selection)
    return _decorate(target, options, selection)


def _decorate(target: Any, options: SSHOptions, selection: Selection) -> Any:
    if _is_function(target):
        return _decorated(target, options, selection)
    if not _attach_all(target, options, selection):
        raise SmsshError(
            f"with_ssh can't decorate {_describe(target)}",
            hint="decorate a step, a list of steps, a pipeline, or a function that returns steps; for estimators, "
            "trainers, processors and clients outside of pipelines call smssh_plugin.enable(session)",
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
        setattr(with_steps, MARK, _NeverInJob(getattr(function, "__name__", "f")))
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
            f"step {step.name!r} is of type {type_of(step)}, which has no container to enter",
            hint="decorate a step of one of these types: " + ", ".join(KINDS),
            reference="step-type",
            status=ExitStatus.USAGE,
        )
    for step, names, own in found:
        kind = kind_of(step)
        if kind is not None and selection.has(kind, names):
            alone = own == len(names)
            attach(step, options, alone=alone, named=alone or selection.names(kind, names[:own]))
    return bool(found)


def _is_function(target: Any) -> bool:
    return (
        callable(target) and not isinstance(target, type) and not is_step(target) and not _is_pipeline(target)
    )


def _is_pipeline(target: Any) -> bool:
    return callable(getattr(type(target), "definition", None)) and hasattr(target, "steps")


def _is_step_function(function: Any) -> bool:
    """Whether the SDK's `@step` made it; known by the file it comes from, in v2 and v3 alike."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.replace("\\", "/").endswith("/workflow/function_step.py")


def _describe(target: Any) -> str:
    return "None" if target is None else f"a {type(target).__module__}.{type(target).__qualname__}"
