"""What is to happen to one thing of an account, found by looking at it; nothing here changes anything."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = [
    "CHANGE",
    "KEEP",
    "LEAVE",
    "MAKE",
    "REFUSE",
    "REMOVE",
    "Change",
    "Resource",
    "compared",
    "difference",
]

MAKE, CHANGE, KEEP, REFUSE = "make", "change", "keep", "refuse"
REMOVE, LEAVE = "remove", "leave"


@dataclass(frozen=True)
class Change:
    """What is to happen to one thing.

    Attributes:
        verb: `make`, `change`, `keep` or `refuse`; for an undo `remove` or `leave`.
        what: the thing, as `policy smssh-job`.
        why: the reason, or what is left to do by hand.
        lines: what differs, line by line.
        ours: whether the setup made it, or will.
    """

    verb: str
    what: str
    why: str = ""
    lines: tuple[str, ...] = ()
    ours: bool = True

    @property
    def acts(self) -> bool:
        """Whether something is done."""
        return self.verb in (MAKE, CHANGE, REMOVE)


class Resource(Protocol):
    """One thing of an account. `make` and `remove` do what the last look found, and can be repeated."""

    def wanted(self) -> Change:
        """Look at it: what has to be done, so that it is as the setup has it."""

    def make(self) -> None:
        """Do that."""

    def removal(self) -> Change | None:
        """Look at it: what an undo does with it; None if it is not there."""

    def remove(self) -> None:
        """Do that."""


def difference(before: Any, after: Any) -> tuple[str, ...]:
    """The lines of two JSON documents that differ, with a few around them."""
    old, new = (json.dumps(each, indent=2, sort_keys=True).splitlines() for each in (before, after))
    return tuple(difflib.unified_diff(old, new, "in the account", "with this setup", n=2, lineterm=""))


def compared(what: str, current: Any, wanted: Any, stranger: str, changed: bool, *, replace: bool) -> Change:
    """What is to happen to a document that is there.

    Args:
        what: the thing.
        current: its content.
        wanted: the content that the setup has.
        stranger: whose it is, if not this setup's.
        changed: whether its content is not what the setup wrote last.
        replace: whether it is written over what others have changed.
    """
    same = current == wanted
    if stranger and same:
        return Change(KEEP, what, f"{stranger}, and is as it should be", ours=False)
    lines = difference(current, wanted)
    if stranger:
        return Change(REFUSE, what, stranger, lines, ours=False)
    if same and not changed:
        return Change(KEEP, what)
    if changed and not same and not replace:
        return Change(REFUSE, what, "somebody has changed it: --replace writes over it", lines)
    return Change(CHANGE, what, "somebody has changed it" if changed else "", lines)
