"""report.html: one file, no script, nothing from elsewhere; readable in ten years and as an attachment.

Everything that comes from a job, a patch or a service goes through `_e` (html.escape); nothing else is put
between the tags.
"""

from __future__ import annotations

import datetime as dt
import json
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ..durations import format_duration
from ..terminal import block

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .model import Action, Incident, Report, Step

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
_MOST_PROCESSES = 40
_LINES_IN_SIGHT = 14
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_TICKS = 5


def page(report: Report) -> str:
    """The whole page."""
    css = files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    body = "".join(
        (
            _head(report),
            _timeline(report),
            _incidents(report),
            _failures(report),
            _protocol(report),
            _foot(report),
        )
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Belt and braces: even if an escape were missed, a browser runs and loads nothing.
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{_e(report.pipeline)}: {_e(report.status)}</title>\n<style>\n{css}</style>\n</head>\n"
        f"<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )


def _head(report: Report) -> str:
    facts = [
        ("Execution", report.execution),
        ("Started", _when(report.started)),
        ("Took" if report.ended else "Running for", _span(report.started, report.ended or report.generated)),
        ("Steps", _count(report)),
        ("Region", report.region),
    ]
    cells = "".join(f"<div><dt>{_e(name)}</dt><dd>{_e(value)}</dd></div>" for name, value in facts if value)
    badge = _badge(_LEVELS.get(report.status, ""), report.status, big=True)
    return (
        '<p class="eyebrow">SageMaker pipeline, debugged by smssh</p>\n'
        f'<div class="head"><h1>{_e(report.pipeline)}</h1>{badge}</div>\n'
        f'<p class="lead">{_e(_summary(report))}</p>\n<dl class="facts">{cells}</dl>\n'
    )


def _count(report: Report) -> str:
    done = sum(step.status == "Succeeded" for step in report.steps)
    return f"{done} of {len(report.steps)} succeeded"


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
        parts.append(f"The debugger {why} while the pipeline was still running.")
    return " ".join(parts)


def _attempts_of(steps: Sequence[str], report: Report) -> str:
    """How often and how well the entry points of these steps ran, in words."""
    said = []
    for step in steps:
        count = max((one.attempt for one in report.attempts if one.step == step), default=0)
        said.append(f"{step} succeeded" + (f" on attempt {count}" if count > 1 else ""))
    return _join(said)


def _timeline(report: Report) -> str:
    """The steps over time, as bars: one row a step, parts of it by what it was doing."""
    shown = [step for step in report.steps if step.started is not None]
    if not shown:
        return ""
    first = min(step.started for step in shown if step.started is not None)
    last = max([step.ended or report.generated for step in shown])
    whole = max(last - first, 0.001)

    def percent(seconds: float) -> float:
        return round(min(max(seconds / whole * 100, 0), 100), 3)

    rows: list[str] = []
    used = {"good"}
    for step in shown:
        assert step.started is not None
        bars = ""
        parts = _parts(step, report)
        for number, (kind, begin, end) in enumerate(parts):
            used.add(kind)
            edges = " first" * (number == 0) + " last" * (number == len(parts) - 1)
            title = f"{_PARTS[kind]}, {_span(begin, end)}"
            place = f"left:{percent(begin - first)}%;width:{percent(end - begin)}%"
            bars += f'<i class="bar {kind}{edges}" style="{place}" title="{_e(title)}"></i>'
        end = step.ended or report.generated
        rows.append(
            f'<div class="row"><div class="name" title="{_e(step.name)}">{_e(step.name)}'
            f"<small>{_e(_sub(step))}</small></div>"
            f'<div class="track">{bars}</div><div class="took">{_e(_span(step.started, end))}</div></div>\n'
        )
    ticks = "".join(
        f'<span style="left:{100 * n / (_TICKS - 1):g}%">{_e(_offset(whole * n / (_TICKS - 1)))}</span>'
        for n in range(_TICKS)
    )
    legend = "".join(
        f'<span><i class="bar {kind}"></i>{_e(text)}</span>' for kind, text in _PARTS.items() if kind in used
    )
    return (
        f'<h2>Timeline</h2>\n<section class="card lines">\n{"".join(rows)}'
        f'<div class="row axis"><span></span><div class="track">{ticks}</div><span></span></div>\n'
        f'<div class="legend">{legend}</div>\n</section>\n'
    )


_PARTS = {
    "run": "running",
    "bad": "failed",
    "hold": "held",
    "retry": "running again",
    "good": "succeeded",
}


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


def _sub(step: Step) -> str:
    return " · ".join(part for part in (step.kind, "from the cache" if step.cached else step.status) if part)


def _incidents(report: Report) -> str:
    """What failed and what was done, a card each."""
    if not report.incidents:
        return ""
    cards = "".join(_incident(one, report) for one in report.incidents)
    return f"<h2>What failed, and what was done</h2>\n{cards}"


def _incident(incident: Incident, report: Report) -> str:
    level, text = _RESOLUTIONS.get(incident.resolution, ("warn", incident.resolution))
    told = incident.report
    which = f", attempt {incident.attempt}" if incident.attempt > 1 else ""
    found = f"held at {_clock(incident.held_since or incident.found)}{which}"
    out = [
        f'<article class="card">\n<header><h3>{_e(incident.step)}</h3>{_badge(level, text)}</header>\n',
        f'<p class="where"><code>{_e(incident.address)}</code> · {_e(found)}</p>\n',
    ]
    if incident.point == "failure":
        out.append(f'<p class="message">{_e(incident.error)}</p>\n')
        if told.get("traceback"):
            out.append(f"<h4>Traceback</h4>\n{_traceback(str(told['traceback']))}")
    ran = [one for one in report.attempts if (one.step, one.address) == (incident.step, incident.address)]
    if len(ran) > 1:
        rows = [
            (one.attempt, one.exit_code, _took(one.seconds), _STARTED_BY.get(one.by, one.by)) for one in ran
        ]
        table = _table(("Attempt", "Exit status", "Took", "Started by"), rows, numbers=(0, 1, 2))
        out.append(f"<h4>Attempts</h4>\n{table}")
    if incident.actions:
        steps = "".join(_action(one) for one in incident.actions)
        out.append(f'<h4>What was done</h4>\n<ol class="done">{steps}</ol>\n')
    out.append(_output(incident, report))
    out.extend(_folded(f"Probe {name}", _text(found)) for name, found in incident.probes.items())
    out.append(_container(told))
    return "".join(out) + "</article>\n"


_STARTED_BY = {"job": "the job", "debugger": "smssh debug", "somebody": "somebody else"}


def _took(seconds: float | None) -> str:
    return "" if seconds is None else format_duration(seconds)


def _traceback(text: str) -> str:
    """The traceback, its last line in colour: that is where one looks first."""
    lines = text.rstrip("\n").split("\n")
    last = max((number for number, line in enumerate(lines) if line and not line[0].isspace()), default=0)
    shown = "\n".join(
        f"<b>{_e(line)}</b>" if number == last else _e(line) for number, line in enumerate(lines)
    )
    return f'<pre class="error">{shown}</pre>\n'


def _action(action: Action) -> str:
    level = "warn" if action.what == "leave" else "" if action.ok else "bad"
    took = f"<small>{_e(format_duration(action.seconds))}</small>" if action.seconds >= 0.05 else ""
    summary = action.summary[:1].upper() + action.summary[1:]
    out = f'<li class="{level}"><p>{_e(summary)}{took}</p>'
    if action.detail.strip():
        if action.what == "patch" and action.ok:
            out += _diff(action.detail)
        else:
            out += f"<pre>{_e(action.detail.rstrip())}</pre>"
    return out + "</li>\n"


def _diff(text: str) -> str:
    """A patch in colours. `---` and `+++` begin a header only between hunks; the counts tell."""
    out = ""
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
        out += f'<span class="{kind}">{_e(line) or " "}</span>' if kind else f"<span>{_e(line) or ' '}</span>"
    return f'<pre class="diff">{out}</pre>'


def _counts(line: str) -> tuple[int, int]:
    """The numbers of old and new lines of a hunk, from `@@ -1,4 +1,5 @@`."""
    sizes = [1, 1]
    for number, word in enumerate(line.split()[1:3]):
        count = word.partition(",")[2]
        if count.isdigit():
            sizes[number] = int(count)
    return sizes[0], sizes[1]


def _output(incident: Incident, report: Report) -> str:
    """The last lines that the job wrote: before the hold, and, once it ended, at its end."""
    step = next((one for one in report.steps if one.name == incident.step), None)
    out = ""
    if incident.log_tail:
        out += _folded("Last output before the hold", _lines(incident.log_tail))
    last = next((one for one in reversed(report.incidents) if one.step == incident.step), None)
    if step is not None and step.log_tail and incident is last and step.log_tail != incident.log_tail:
        opened = incident.resolution == "fixed"
        out += _folded(
            "Last output of the job" if step.ended else "Output since", _lines(step.log_tail), opened=opened
        )
    return out


def _text(found: Any) -> str:
    """What a plugin gave: text as it is, all else as JSON."""
    shown = found if isinstance(found, str) else json.dumps(found, indent=2, ensure_ascii=False)
    return _lines(shown.splitlines())


def _container(told: dict[str, Any]) -> str:
    """What the container looked like."""
    out = ""
    facts: list[tuple[str, str]] = []
    if told.get("command"):
        facts.append(("Command", " ".join(map(str, told["command"]))))
    for name, key in (("Python", "python"), ("Exit status", "exit_code"), ("GPU", "gpu")):
        if told.get(key) not in (None, ""):
            facts.append((name, str(told[key])))
    if facts:
        rows = "".join(
            f"<tr><th>{_e(name)}</th><td><code>{_e(value)}</code></td></tr>" for name, value in facts
        )
        out += f'<div class="table"><table>{rows}</table></div>'
    disks = _dicts(told.get("disk"))
    if disks:
        body = [
            [
                one.get("path", ""),
                _bytes(one.get("used_bytes")),
                _bytes(one.get("free_bytes")),
                _bytes(one.get("total_bytes")),
            ]
            for one in disks
        ]
        out += f"<h4>Disk</h4>{_table(('Path', 'Used', 'Free', 'Size'), body, numbers=(1, 2, 3))}"
    processes = _dicts(told.get("processes"))
    if processes:
        body = [
            [one.get("pid", ""), one.get("ppid", ""), _bytes(one.get("rss_bytes")), one.get("command", "")]
            for one in processes[:_MOST_PROCESSES]
        ]
        out += f"<h4>Processes</h4>{_table(('PID', 'Parent', 'Memory', 'Command'), body, numbers=(0, 1, 2))}"
    names = told.get("environment_names")
    if isinstance(names, list) and names:
        listed = ", ".join(map(str, names))
        out += f'<h4>Environment (names only)</h4><p class="names"><code>{_e(listed)}</code></p>'
    return f"<details><summary>The container</summary>{out}</details>\n" if out else ""


def _failures(report: Report) -> str:
    """Steps that failed without a hold: what the service says, and the end of the log."""
    held = {one.step for one in report.incidents}
    out = ""
    for step in report.steps:
        if step.status != "Failed" or step.name in held:
            continue
        reason = f'<p class="message">{_e(step.failure_reason)}</p>' if step.failure_reason else ""
        where = f'<p class="where"><code>{_e(step.job)}</code></p>' if step.job else ""
        tail = _folded("Last output", _lines(step.log_tail), opened=True) if step.log_tail else ""
        head = f"<header><h3>{_e(step.name)}</h3>{_badge('bad', 'failed')}</header>"
        out += f'<article class="card">{head}{where}{reason}{tail}</article>\n'
    return f"<h2>Failed without a hold</h2>\n{out}" if out else ""


def _protocol(report: Report) -> str:
    if not report.events:
        return ""
    rows = "".join(
        f'<tr><td>{_e(_clock(one.time))}</td><td class="{_e(one.level)}">{_e(one.text)}</td></tr>'
        for one in report.events
    )
    table = f'<div class="table"><table class="protocol">{rows}</table></div>'
    return f'<h2>Protocol</h2>\n<section class="card">{table}</section>\n'


def _foot(report: Report) -> str:
    return (
        f"<footer>{_e(report.generator)} · {_e(_when(report.generated))} · times are UTC · "
        f"<code>{_e(report.arn)}</code></footer>\n"
    )


def _folded(title: str, content: str, *, opened: bool = False) -> str:
    return f"<details{' open' * opened}><summary>{_e(title)}</summary>{content}</details>\n"


def _lines(lines: Sequence[str]) -> str:
    """The end of a log: its last lines in sight, the others folded away above them."""
    before, last = lines[:-_LINES_IN_SIGHT], lines[-_LINES_IN_SIGHT:]
    shown = f"<pre>{_e(chr(10).join(last))}</pre>"
    if not before:
        return shown
    return _folded(f"{len(before)} lines before", f"<pre>{_e(chr(10).join(before))}</pre>") + shown


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[int] = ()) -> str:
    def cell(tag: str, number: int, value: object) -> str:
        kind = ' class="number"' if number in numbers else ""
        return f"<{tag}{kind}>{_e(value)}</{tag}>"

    head = "".join(cell("th", number, name) for number, name in enumerate(heads))
    body = "".join(
        "<tr>" + "".join(cell("td", n, value) for n, value in enumerate(row)) + "</tr>" for row in rows
    )
    return f'<div class="table"><table><tr>{head}</tr>{body}</table></div>'


def _badge(level: str, text: str, *, big: bool = False) -> str:
    return f'<span class="badge{" big" * big} {level}">{_e(text)}</span>'


def _dicts(value: object) -> list[dict[str, Any]]:
    """The dicts of a list that another program wrote; anything else is left out."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _e(value: object) -> str:
    """Text between tags or in an attribute, with no characters that turn a line around or are not seen."""
    return escape(block(value))


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


def _offset(seconds: float) -> str:
    """A point of the time axis."""
    return "0" if seconds < 0.001 else format_duration(seconds)


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
