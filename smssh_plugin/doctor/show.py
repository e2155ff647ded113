"""What was found, as text for a person and as JSON for a program; and the exit status."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .._version import __version__
from ..errors import ExitStatus
from ..terminal import line
from .checks import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .checks import Result

__all__ = ["SCHEMA", "as_json", "exit_status", "lines"]

SCHEMA = 1
"""The version of the JSON; it changes if a member is removed or means something else."""


def exit_status(results: Sequence[Result]) -> ExitStatus:
    """FAILED with a problem or a crash, UNKNOWN where a check cannot tell, else OK."""
    outcomes = {each.finding.outcome for each in results}
    if outcomes & {Outcome.PROBLEM, Outcome.CRASH}:
        return ExitStatus.FAILED
    return ExitStatus.UNKNOWN if Outcome.UNKNOWN in outcomes else ExitStatus.OK


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """The results as JSON: every member is always there, with null where there is nothing."""
    return {
        "schema": SCHEMA,
        "smssh": __version__,
        "status": int(exit_status(results)),
        "checks": [
            {
                "id": each.check.id,
                "subject": each.check.subject,
                "outcome": each.finding.outcome.value,
                "message": each.finding.message,
                "fix": each.finding.fix or None,
                "who": each.finding.who or None,
                "statement": each.finding.statement,
                "details": list(each.finding.details),
                "waits_for": list(each.finding.waits_for),
                "seconds": round(each.seconds, 3),
            }
            for each in results
        ],
    }


def lines(results: Sequence[Result], *, details: bool) -> Iterator[str]:
    """The results as lines of text.

    Args:
        results: what was found.
        details: whether what is well, what waits for something else, and details are shown.
    """
    subject = ""
    for each in results:
        found = each.finding
        if found.waits_for and not details:
            continue
        if each.check.subject != subject:
            subject = each.check.subject
            yield subject
        yield line(f"  {found.outcome.value:11}  {each.check.id}: {found.message}")
        if found.fix:
            who = "" if found.who in ("", "you") else f" ({found.who})"
            yield line(f"{'':15}fix{who}: {found.fix}")
        if found.statement is not None and found.outcome is not Outcome.OK:
            yield line(f"{'':15}statement: {json.dumps(found.statement)}")
        if details or found.outcome is Outcome.CRASH:
            yield from (line(f"{'':15}{one}") for one in found.details)
            if details:
                yield f"{'':15}{each.seconds:.1f} s"
    yield _summary(results)


def _summary(results: Sequence[Result]) -> str:
    count = dict.fromkeys(Outcome, 0)
    waiting = 0
    for each in results:
        if each.finding.waits_for:
            waiting += 1
        else:
            count[each.finding.outcome] += 1
    if count[Outcome.OK] + count[Outcome.HINT] == len(results):
        return f"no problem found by {len(results)} checks"
    parts = [
        f"{count[outcome]} {text}"
        for outcome, text in (
            (Outcome.PROBLEM, "with a problem"),
            (Outcome.CRASH, "that crashed"),
            (Outcome.UNKNOWN, "that cannot tell"),
            (Outcome.HINT, "with a hint"),
            (Outcome.OK, "ok"),
        )
        if count[outcome]
    ]
    if waiting:
        parts.append(f"{waiting} that wait for another's problem to be solved")
    return f"{len(results)} checks: {', '.join(parts)}"
