"""What a check is, and what it finds."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from .case import Case

__all__ = ["Check", "Finding", "Outcome", "Result", "hint", "ok", "problem", "unknown"]


class Outcome(str, enum.Enum):
    """How a check ends."""

    OK = "ok"
    PROBLEM = "problem"
    """It keeps people from logging in, or will."""
    HINT = "hint"
    """It works, and is worth knowing."""
    UNKNOWN = "cannot tell"
    """What the check needs is missing: a permission, an answer, or another check that found a problem."""
    CRASH = "crash"
    """The check itself failed: a mistake in smssh."""


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        outcome: how it ended.
        message: what is so, in one sentence, with the values that were looked at.
        fix: what to do about it; "" where there is nothing to do.
        who: who has to do that: `you`, `an administrator of the account`, ...; "" where there is nothing to do.
        statement: the IAM statement to add, as a policy has it.
        details: more lines, shown with -v.
        waits_for: the ids of the checks whose problem has to be solved first.
    """

    outcome: Outcome
    message: str
    fix: str = ""
    who: str = ""
    statement: dict[str, Any] | None = None
    details: tuple[str, ...] = ()
    waits_for: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        id: `SUBJECT.NAME`, which stays the same over versions.
        summary: what it looks at, for the table of checks.
        run: looks. An SmsshError that it raises is "cannot tell", any other exception a crash.
        after: the ids of checks without which this one has nothing to look at. It does not run where one of them
            found a problem: that is the cause, and this would be its consequence.
    """

    id: str
    summary: str
    run: Callable[[Case], Finding]
    after: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """What comes before the dot of the id."""
        return self.id.partition(".")[0]


@dataclass(frozen=True)
class Result:
    """What one check found, and how long that took in seconds."""

    check: Check
    finding: Finding
    seconds: float


def ok(message: str, *details: str) -> Finding:
    """All is well."""
    return Finding(Outcome.OK, message, details=details)


def problem(
    message: str,
    *details: str,
    fix: str,
    who: str = "you",
    statement: dict[str, Any] | None = None,
) -> Finding:
    """Something keeps people from logging in; the arguments are those of `Finding`."""
    return Finding(Outcome.PROBLEM, message, fix, who, statement, details)


def hint(
    message: str,
    *details: str,
    fix: str = "",
    who: str = "",
    statement: dict[str, Any] | None = None,
) -> Finding:
    """It works, and is worth knowing; the arguments are those of `Finding`."""
    return Finding(Outcome.HINT, message, fix, who or ("you" if fix else ""), statement, details)


def unknown(
    message: str,
    *details: str,
    fix: str = "",
    who: str = "",
    statement: dict[str, Any] | None = None,
) -> Finding:
    """It cannot be told; the arguments are those of `Finding`."""
    return Finding(Outcome.UNKNOWN, message, fix, who or ("you" if fix else ""), statement, details)
