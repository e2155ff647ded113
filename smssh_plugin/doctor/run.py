"""Runs checks side by side, each within its time, those with a cause that is known not at all."""

from __future__ import annotations

import queue
import subprocess
import threading
import time
import traceback
from typing import TYPE_CHECKING

from .._version import __version__
from ..aws.json_client import denied
from ..errors import SmsshError
from .checks import Check, Finding, Outcome, Result, unknown
from .simulation import layer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .case import Case

__all__ = ["LIMIT_SECONDS", "run"]

LIMIT_SECONDS = 20.0
"""For one check."""
THREADS = 8


def run(
    checks: Sequence[Check],
    case: Case,
    *,
    limit: float = LIMIT_SECONDS,
    progress: Callable[[int, Sequence[str]], None] | None = None,
) -> list[Result]:
    """Run checks; the results are in the order of the checks.

    Args:
        checks: what to run; a check that others come `after` counts only if it is among them.
        case: what they look at.
        limit: seconds for one check; one that takes longer is left behind in its thread.
        progress: is told how many checks have ended, and which are under way.
    """
    found: queue.Queue[tuple[Check, Finding, float]] = queue.Queue()
    waiting = {check.id: check for check in checks}
    wanted = set(waiting)
    running: dict[str, tuple[Check, float]] = {}
    done: dict[str, Result] = {}
    while waiting or running:
        started = False
        for check in list(waiting.values()):
            needed = [done.get(each) for each in check.after if each in wanted]
            if None in needed:
                continue
            causes = _causes([each for each in needed if each is not None])
            if causes:
                done[check.id] = Result(waiting.pop(check.id), _waits(causes), 0.0)
                started = True
            elif len(running) < THREADS:
                running[check.id] = (waiting.pop(check.id), time.monotonic())
                threading.Thread(target=_look, args=(check, case, found), name=check.id, daemon=True).start()
        if started:
            continue  # what waits for those has to be looked at again
        if not running:  # plugins' checks that come after each other
            for each in waiting.values():
                circle = unknown("cannot tell: it depends on itself", fix="update or uninstall the plugin")
                done[each.id] = Result(each, circle, 0.0)
            break
        if progress is not None:
            progress(len(done), list(running))
        _receive(found, running, done, limit)
    return [done[check.id] for check in checks]


def _receive(
    found: queue.Queue[tuple[Check, Finding, float]],
    running: dict[str, tuple[Check, float]],
    done: dict[str, Result],
    limit: float,
) -> None:
    """Wait until a check ends, or has no more time; it is moved from those that run to those that are done."""
    next_limit = min(since for _, since in running.values()) + limit
    try:
        check, finding, seconds = found.get(timeout=max(0.0, next_limit - time.monotonic()))
    except queue.Empty:
        for each, since in list(running.values()):
            if time.monotonic() >= since + limit:
                running.pop(each.id)
                done[each.id] = Result(each, unknown(f"no answer within {limit:g} s", fix="try again"), limit)
        return
    if running.pop(check.id, None) is not None:
        done[check.id] = Result(check, finding, seconds)


def _causes(needed: Sequence[Result]) -> tuple[str, ...]:
    """The checks at the root of what is wrong with those that another one needs."""
    causes: dict[str, None] = {}
    for each in needed:
        if each.finding.waits_for:
            causes.update(dict.fromkeys(each.finding.waits_for))
        elif each.finding.outcome is Outcome.PROBLEM:
            causes[each.check.id] = None
    return tuple(causes)


def _waits(causes: tuple[str, ...]) -> Finding:
    named = ", ".join(causes)
    return Finding(Outcome.UNKNOWN, f"not looked at: first solve {named}", waits_for=causes)


def _look(check: Check, case: Case, found: queue.Queue[tuple[Check, Finding, float]]) -> None:
    began = time.monotonic()
    try:
        finding = check.run(case)
    except SmsshError as error:
        finding = _unknown(error)
    except (OSError, subprocess.SubprocessError) as error:
        # A file that cannot be read, a program that does not start or end: no mistake of ours.
        finding = unknown(f"cannot tell: {error}", fix="see whether it can be read or run by hand")
    except BaseException as error:  # noqa: BLE001 - one check's mistake does not end the others
        finding = _crash(check, error)
    found.put((check, finding, time.monotonic() - began))


def _unknown(error: SmsshError) -> Finding:
    """A check that could not do its work."""
    if error.reference == "access-denied":
        action, resource = denied(error.message) or ("", "")
        needs = f"cannot tell: needs {action}" if action else "cannot tell: access is denied"
        statement = {"Effect": "Allow", "Action": action, "Resource": resource or "*"} if action else None
        blamed = layer(error.message)  # one more statement in the caller's own policies would not help
        return unknown(
            f"{needs}, which {blamed} denies" if blamed else needs,
            error.message,
            fix=error.hint or "",
            who="an administrator of the organization"
            if "control policy" in blamed
            else "an administrator of the account",
            statement=None if blamed else statement,
        )
    return unknown(f"cannot tell: {error.message}", fix=error.hint or "")


def _crash(check: Check, error: BaseException) -> Finding:
    """A check that failed, and what to report."""
    lines = [
        f"{each.filename.rpartition('smssh_plugin')[2].lstrip('/') or each.filename}:{each.lineno} in {each.name}"
        for each in traceback.extract_tb(error.__traceback__)
    ]
    return Finding(
        Outcome.CRASH,
        f"the check failed: {type(error).__name__}: {error}",
        f"report it with this line and what -v shows: smssh {__version__}, {check.id}",
        "you",
        details=tuple(lines),
    )
