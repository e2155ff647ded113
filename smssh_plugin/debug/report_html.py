"""report.html: what the page says of a report; how it looks is in `templates/`.

Jinja2 escapes every value; before that, `_visible` takes out characters that turn a line around or are not seen.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
from typing import TYPE_CHECKING, NamedTuple

import jinja2
from markupsafe import Markup

from ..durations import format_duration
from ..terminal import block
from .why import SURE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .incidents import HostChanges, Incident, Report, Step

__all__ = ["page"]

_LEVELS = {
    "Succeeded": "good",
    "Failed": "bad",
    "CompletedWithFailures": "bad",
    "Stopped": "bad",
    "Executing": "warn",
    "Stopping": "warn",
}
_RESOLUTIONS = {
    "fixed": ("good", "fixed"),
    "failed": ("bad", "still failing"),
    "held": ("warn", "left held"),
    "by hand": ("good", "settled by hand"),
    "over": ("bad", "its hold is over"),
    "running": ("warn", "its retry still runs"),
    "released": ("bad", "released"),
    "lost": ("bad", "lost"),
    "open": ("warn", "open"),
}
_TICKS = 5
_PARTS = {
    "run": "running",
    "bad": "failed",
    "hold": "held",
    "retry": "running again",
    "good": "succeeded",
}
_HOLDS = {
    "y": "can be fixed in a held container and retried",
    "part": "a held container shows more; the fix is in the request",
    "n": "a held container does not help",
}
_STARTED_BY = {"job": "the job", "debugger": "smssh debug", "somebody": "somebody else"}


def page(report: Report) -> str:
    """The whole page."""
    held = {one.step for one in report.incidents}
    template = _environment().get_template("report.html")
    return template.render(
        report=report,
        summary=_summary(report),
        timeline=_timeline(report),
        held=[(one, list(_logs(one, report)), *_changes(one, report)) for one in report.incidents],
        failed=[step for step in report.steps if step.status == "Failed" and step.name not in held],
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        levels=_LEVELS,
        resolutions=_RESOLUTIONS,
        started_by=_STARTED_BY,
        span=_span,
        sources=SURE,
        holds=_HOLDS,
    )
    environment.filters.update(
        bytes=_bytes, clock=_clock, diff=_diff, seconds=format_duration, traceback=_traceback, when=_when
    )
    return environment


def _visible(value: object) -> object:
    """A value without characters that do harm in a line; what a template made is left as it is."""
    return value if isinstance(value, Markup) else block(value)


def _summary(report: Report) -> str:
    """What happened, in words."""
    failed = [one for one in report.incidents if one.point == "failure"]
    steps = list(dict.fromkeys(one.step for one in failed))
    fixed = [step for step in steps if any(one.step == step and one.resolution == "fixed" for one in failed)]
    parts: list[str] = []
    if steps:
        parts.append(f"{_join(steps)} failed and {'was' if len(steps) == 1 else 'were'} held.")
        if fixed:
            them = "it" if len(fixed) == 1 == len(steps) else _join(fixed)
            parts.append(f"The fix was put into the running container, and {them} succeeded on the retry.")
        last_of = {one.step: one for one in failed}
        by_hand = [step for step in steps if step not in fixed and last_of[step].resolution == "by hand"]
        if by_hand:
            parts.append(f"Somebody worked on {_join(by_hand)} meanwhile: {_attempts_of(by_hand, report)}.")
        for step in steps:
            if step not in fixed and step not in by_hand:
                last = last_of[step]
                parts.append(f"{step} was not fixed ({_RESOLUTIONS[last.resolution][1]}).")
    elif report.status == "Succeeded":
        parts.append("Every step succeeded; nothing had to be fixed.")
    if report.status == "Succeeded" and steps:
        parts.append("The pipeline went on to its end.")
    elif report.finished:
        reason = f": {report.failure_reason.splitlines()[0]}" if report.failure_reason else ""
        how = {"CompletedWithFailures": "completed with failures"}.get(report.status, report.status.lower())
        parts.append(f"The pipeline {how}{reason}{'' if reason.endswith('.') else '.'}")
    elif not report.finished:
        why = {"interrupted": "was interrupted", "timeout": "ran out of time"}.get(
            report.stopped_because, "stopped"
        )
        parts.append(
            f"The debugger does not know the pipeline's status {report.status}, and stopped when no step ran any more."
            if report.stopped_because == "unknown"
            else f"The debugger {why} while the pipeline was still running."
        )
    return " ".join(parts)


def _attempts_of(steps: Sequence[str], report: Report) -> str:
    """How often and how well the entry points of these steps ran, in words."""
    said = []
    for step in steps:
        count = max((one.attempt for one in report.attempts if one.step == step), default=0)
        said.append(f"{step} succeeded" + (f" on attempt {count}" if count > 1 else ""))
    return _join(said)


class _Bar(NamedTuple):
    """What a step did for a part of its time: a key of `_PARTS`, its place in percent, and how long in words."""

    kind: str
    left: float
    width: float
    took: str


class _Timeline(NamedTuple):
    """The steps over time: each with its bars, times on the axis (percent, text), and the bars that occur."""

    rows: list[tuple[Step, list[_Bar]]]
    ticks: list[tuple[float, str]]
    legend: dict[str, str]


def _timeline(report: Report) -> _Timeline | None:
    shown = [step for step in report.steps if step.started is not None]
    if not shown:
        return None
    first = min(step.started for step in shown if step.started is not None)
    whole = max(max(step.ended or report.generated for step in shown) - first, 0.001)

    def percent(seconds: float) -> float:
        return round(min(max(seconds / whole * 100, 0), 100), 3)

    def bar(kind: str, begin: float, end: float) -> _Bar:
        return _Bar(kind, percent(begin - first), percent(end - begin), _span(begin, end))

    rows = [(step, [bar(*part) for part in _parts(step, report)]) for step in shown]
    times = [whole * n / (_TICKS - 1) for n in range(_TICKS)]
    used = {"good", *(each.kind for _, bars in rows for each in bars)}
    return _Timeline(
        rows,
        [(percent(time), format_duration(time) if time >= 0.001 else "0") for time in times],
        {kind: text for kind, text in _PARTS.items() if kind in used},
    )


def _parts(step: Step, report: Report) -> list[tuple[str, float, float]]:
    """What a step was doing when: kind of bar, begin, end; without gaps."""
    begin, end = step.started or 0.0, step.ended or report.generated
    closing = {"Succeeded": "good", "Failed": "bad", "Stopped": "bad"}.get(step.status, "run")
    mine = [one for one in report.incidents if one.step == step.name]
    if not mine:
        return [(closing, begin, end)]
    parts: list[tuple[str, float, float]] = []
    at = begin

    def until(kind: str, when: float) -> None:
        nonlocal at
        # The container's clock and the service's may differ a little: no part begins before the last one
        # ended.
        when = min(max(when, at), end)
        if when > at:
            parts.append((kind, at, when))
            at = when

    for incident in mine:
        before = "bad" if incident.point == "failure" else "run"
        until(before, incident.held_since or incident.found)
        retry = next((action for action in incident.actions if action.what == "retry"), None)
        if retry is None:
            continue
        until("hold", retry.began)
        until(("retry" if retry.ok else "bad"), retry.began + retry.seconds)
    last = mine[-1]
    still = last.resolution in ("held", "open") and step.status == "Executing"
    running = last.resolution == "running" and step.status == "Executing"
    until("hold" if still else "retry" if running else closing, end)
    return parts or [(closing, begin, end)]


def _traceback(text: str) -> list[tuple[str, bool]]:
    """The lines of a traceback, and of each whether it names the error: that is where one looks first."""
    lines = text.rstrip("\n").split("\n")
    last = max((number for number, line in enumerate(lines) if line and not line[0].isspace()), default=0)
    return [(line, number == last) for number, line in enumerate(lines)]


def _diff(text: str) -> Iterator[tuple[str, str]]:
    """The lines of a patch, each with what it is.

    `---` and `+++` begin a header only between hunks; the counts tell.
    """
    old = new = 0
    for line in text.rstrip("\n").split("\n"):
        kind = ""
        if old > 0 or new > 0:
            kind = {"+": "add", "-": "cut"}.get(line[:1], "")
            old -= line[:1] not in ("+", "\\")
            new -= line[:1] not in ("-", "\\")
        elif line.startswith("@@"):
            kind = "hunk"
            old, new = _counts(line)
        elif line.startswith(("---", "+++", "diff ", "index ")):
            kind = "file"
        yield kind, line


def _counts(line: str) -> tuple[int, int]:
    """The numbers of old and new lines of a hunk, from `@@ -1,4 +1,5 @@`."""
    sizes = [1, 1]
    for number, word in enumerate(line.split()[1:3]):
        count = word.partition(",")[2]
        if count.isdecimal() and len(count) < 10:  # "²" is a digit, and no number
            sizes[number] = int(count)
    return sizes[0], sizes[1]


def _logs(incident: Incident, report: Report) -> Iterator[tuple[str, Sequence[str], bool]]:
    """What is folded away below a held step: title, lines, and whether it is shown at once.

    The last lines that the job wrote, before the hold and, once it ended, at its end; and what probes found.
    """
    if incident.log_tail:
        yield "Last output before the hold", incident.log_tail, False
    step = next((one for one in report.steps if one.name == incident.step), None)
    last = next(one for one in reversed(report.incidents) if one.step == incident.step)
    if step is not None and step.log_tail and incident is last and step.log_tail != incident.log_tail:
        title = "Last output of the job" if step.ended else "Output since"
        yield title, step.log_tail, incident.resolution == "fixed"
    for name, found in incident.probes.items():
        shown = found if isinstance(found, str) else json.dumps(found, indent=2, ensure_ascii=False)
        yield f"Probe {name}", shown.splitlines(), False


def _changes(incident: Incident, report: Report) -> tuple[bool, HostChanges | None]:
    """Whether an incident is the last of its host, and what was changed there."""
    mine = (incident.step, incident.address)
    last = next(one for one in reversed(report.incidents) if (one.step, one.address) == mine)
    return incident is last, next((one for one in report.changes if (one.step, one.address) == mine), None)


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _utc(when: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(when, dt.timezone.utc)


def _when(when: float | None) -> str:
    return "" if when is None else _utc(when).strftime("%Y-%m-%d %H:%M:%S")


def _clock(when: float) -> str:
    return _utc(when).strftime("%H:%M:%S")


def _span(begin: float | None, end: float | None) -> str:
    return "" if begin is None or end is None else format_duration(end - begin)


def _bytes(value: object) -> str:
    """An amount of memory in the unit that gives one to four digits."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**63:
        return ""
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
