"""What a person sees while the debugger works: a live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, TextIO

from ..durations import format_duration
from ..terminal import line
from .causes.table import UNKNOWN

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console
    from rich.table import Table
    from typing_extensions import Self

    from .causes.find import Finding
    from .incidents import Event, Report, Step

__all__ = ["LiveView", "PlainView", "view_for"]

WHY_LIMIT = 160
"""Characters of a cause in the table."""
_MARKS = {
    "Succeeded": ("✓", "green"),
    "Failed": ("✗", "bold red"),
    "Stopped": ("■", "red"),
    "Executing": ("●", "cyan"),
    "Starting": ("○", "cyan"),
    "Stopping": ("■", "yellow"),
}
_STYLES = {"good": "green", "bad": "red", "warn": "yellow", "info": "default"}


class PlainView:
    """Lines for logs: time of day (UTC) and what happened.

    Args:
        out: where to; stderr where stdout is to carry JSON alone.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, event: Event) -> None:
        """Print a line of the event log, at once."""
        stamp = time.strftime("%H:%M:%S", time.gmtime(event.time))
        with self._lock:
            print(f"{stamp}  {line(event.text)}", file=self._out, flush=True)

    def update(self, report: Report) -> None:
        """Nothing: what changed was said in a line."""


class LiveView:
    """A table of the steps that stays at the bottom of the terminal; the event log scrolls above it."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        self._report: Report | None = None
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._table, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, event: Event) -> None:
        """Print a line of the event log above the table."""
        from rich.text import Text

        shown = Text(time.strftime("%H:%M:%S  ", time.gmtime(event.time)), style="dim")
        shown.append(line(event.text), style=_STYLES.get(event.level, "default"))
        self._console.print(shown, soft_wrap=True)

    def update(self, report: Report) -> None:
        """Draw the table from this report from now on."""
        self._report = report

    def _table(self) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        report = self._report
        table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False, header_style="dim")
        for name in ("", "step", "kind", "state", "time"):
            table.add_column(name, justify="right" if name == "time" else "left", no_wrap=name != "state")
        for step in report.steps if report else ():
            mark, style = _MARKS.get(step.status, ("·", "dim"))
            text, state_style = _state(step, report, style)
            table.add_row(
                Text(mark, style),
                Text(line(step.name)),
                Text(line(step.kind), "dim"),
                Text(line(text), state_style),
                _elapsed(step),
            )
        return table


def _state(step: Step, report: Report | None, style: str) -> tuple[str, str]:
    """What a step is doing, with what the debugger knows about it."""
    mine = [one for one in report.incidents if one.step == step.name] if report else []
    if mine and step.status == "Executing":
        last = mine[-1]
        if last.actions and last.actions[-1].what == "retry" and last.resolution == "open":
            return "runs again", "magenta"
        if last.resolution in ("open", "held"):
            return f"held{_why(last.cause)}", "yellow"
    if step.status == "Failed" and step.cause is not None:
        return f"{step.status}{_why(step.cause)}", style
    fixed = any(one.resolution == "fixed" for one in mine)
    parts = [
        step.status,
        "fixed" if fixed and step.status == "Succeeded" else "",
        "from an earlier execution" if step.cached else "",
        f"attempt {step.attempt}" if step.attempt > 1 else "",
    ]
    return ", ".join(filter(None, parts)), style


def _why(cause: Finding | None) -> str:
    """The cause, or where there is no known one the error, behind what a step is doing."""
    if cause is None:
        return ""
    said = cause.error if cause.id == UNKNOWN.id else cause.line
    return f": {said[:WHY_LIMIT]}" if said else ""


def _elapsed(step: Step) -> str:
    if step.started is None:
        return ""
    return format_duration(int((step.ended or time.time()) - step.started))


def view_for(out: TextIO | None = None) -> PlainView | LiveView:
    """The view that fits `out` (by default stdout): live on a terminal that can, plain lines elsewhere."""
    out = out or sys.stdout
    if not out.isatty():
        return PlainView(out)
    from rich.console import Console

    console = Console(file=out)
    return PlainView(out) if console.is_dumb_terminal else LiveView(console)
