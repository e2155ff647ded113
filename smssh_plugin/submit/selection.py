"""Which steps are meant: `with_ssh(pipeline, steps=...)`."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterable, Sequence

from ..errors import ExitStatus, SmsshError
from .request.add_ssh import KINDS

if TYPE_CHECKING:
    from .options import SSHOptions

__all__ = ["EVERYTHING", "Choice", "Selection"]


class Selection:
    """Steps by name, pattern or kind; a step that matches one of several is chosen.

    Args:
        steps: names (`Train`), patterns as in a shell (`Train*`), or kinds (`training`, `processing`, `transform`,
            `model`, `tuning`); a text with one or several, with commas between, or any iterable of such. None is all.

    Raises:
        SmsshError: it is something else.
    """

    def __init__(self, steps: str | Iterable[str] | None = None) -> None:
        parts: Any = steps.split(",") if isinstance(steps, str) else steps
        try:
            found = None if parts is None else tuple(dict.fromkeys(part.strip() for part in parts))
        except (AttributeError, TypeError):
            found = ()
        if found is not None and not all(found or ("",)):
            raise SmsshError(
                f"steps={steps!r} does not name steps",
                hint="use names, patterns or kinds: steps='Train', steps=['Train*', 'processing']; the kinds are "
                + ", ".join(KINDS.values()),
                reference="bad-selection",
                status=ExitStatus.USAGE,
            )
        self._parts = found

    @property
    def everything(self) -> bool:
        """Whether all steps are meant."""
        return self._parts is None

    def has(self, kind: str | None, names: Sequence[str]) -> bool:
        """Whether a step is meant.

        Args:
            kind: its kind.
            names: its name, and those of the steps and collections that it is part of.
        """
        return self._parts is None or any(_matches(each, kind, names) for each in self._parts)

    def names(self, kind: str | None, own: Sequence[str]) -> bool:
        """Whether a person named a step: its kind, or its own name, by a pattern too.

        `*` names no step, and neither does the name of a condition that the step is part of.

        Args:
            kind: its kind.
            own: its name, and those of the collections that stand for it, such as a ModelStep of SDK v2.
        """
        return any(each.strip("*?") and _matches(each, kind, own) for each in self._parts or ())

    def check(self, known: Iterable[tuple[str | None, Sequence[str]]]) -> None:
        """Refuse what matches no step: it is misspelt, or the step has another name by now.

        Args:
            known: kind and names of each step.

        Raises:
            SmsshError: a name, pattern or kind matches no step.
        """
        found = list(known)
        for each in self._parts or ():
            if not any(_matches(each, kind, names) for kind, names in found):
                entered = sorted({names[0] for kind, names in found if kind is not None})
                raise SmsshError(
                    f"steps: {each!r} matches no step that supports SSH",
                    hint=f"use one of {', '.join(entered)}"
                    if entered
                    else "choose a step whose job runs in a container",
                    reference="no-such-step",
                    status=ExitStatus.NOT_FOUND,
                )


def _matches(part: str, kind: str | None, names: Sequence[str]) -> bool:
    if kind is None:
        return False
    return part == kind or any(fnmatch.fnmatchcase(name, part) for name in names)


EVERYTHING = Selection()


@dataclass(frozen=True)
class Choice:
    """What was asked for some steps.

    Attributes:
        options: what is asked for.
        selection: which steps are meant.
    """

    options: SSHOptions
    selection: Selection
