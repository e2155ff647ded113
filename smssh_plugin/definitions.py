"""The steps of a pipeline definition, as parsed from JSON: those inside of conditions and loops too.

Standard library only, and nothing from the package: requests are changed by it, and executions looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["bodies", "named_steps"]

_BODIES = ("IfSteps", "ElseSteps", "ForEachBody")


def bodies(step: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The lists of steps inside of a step, by the argument that holds them."""
    arguments = step.get("Arguments")
    found = {name: arguments.get(name) for name in _BODIES} if isinstance(arguments, dict) else {}
    return {name: inner for name, inner in found.items() if isinstance(inner, list)}


def named_steps(definition: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], tuple[str, ...]]]:
    """All steps of a definition, each with its name before those of the steps around it."""
    yield from _named(definition.get("Steps"), ())


def _named(steps: Any, around: tuple[str, ...]) -> Iterator[tuple[Mapping[str, Any], tuple[str, ...]]]:
    for step in steps if isinstance(steps, list) else ():
        if not isinstance(step, dict):
            continue
        names = (str(step.get("Name", "")), *around)
        yield step, names
        for inner in bodies(step).values():
            yield from _named(inner, names)
