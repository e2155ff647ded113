"""What a person sees: plain lines in a log, a table on a terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from smssh_plugin.debug.incidents import Event
from smssh_plugin.debug.view import LiveView, PlainView, view_for

from .test_report import full


def test_plain_lines_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    with view_for(out) as view:
        assert isinstance(view, PlainView)
        view.show(Event(3661.0, "Train: [bold]failed", "bad"))
        view.update(full())
    assert out.getvalue() == "01:01:01  Train: [bold]failed\n"


def test_a_table_on_a_terminal() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    with LiveView(console) as view:
        view.update(full())
        view.show(Event(3661.0, "Train: [bold]failed", "bad"))
    text = out.getvalue()
    assert "01:01:01  Train: [bold]failed" in text
    for part in ("Prepare", "Succeeded, fixed", "held", "17 s"):
        assert part in text


HOSTILE = "Train\x1b]52;c;cm0=\x07\x9b2K\r\nerror: forged ##[error]\u202e"


@pytest.mark.parametrize("terminal", [False, True])
def test_what_a_job_says_is_no_command_to_the_terminal(terminal: bool) -> None:
    report = full()
    report.steps[0].name = HOSTILE
    report.steps[0].status = HOSTILE
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=200, color_system=None)
    with LiveView(console) if terminal else PlainView(out) as view:
        view.update(report)
        view.show(Event(3661.0, HOSTILE, "bad"))
    text = re.sub("\x1b\\[[0-9;?]*[A-Za-z]|\r", "", out.getvalue()) if terminal else out.getvalue()
    assert "forged" in text
    for each in ("\x1b", "\x07", "\x9b", "\r", "\u202e", "##[", "\nerror"):
        assert each not in text
