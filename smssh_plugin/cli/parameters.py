"""Kinds of parameters and lines of progress that several commands share."""

from __future__ import annotations

from typing import Any

import click

from ..durations import parse_duration
from ..terminal import line, put

__all__ = ["Seconds", "show_waiting", "wait_option"]


class Seconds(click.ParamType):  # type: ignore[type-arg] # generic from click 8.3 on
    """A duration, as `durations.parse_duration` takes it. Converts to seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it; click shows the message of a `fail`."""
        if isinstance(value, float):
            return value
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


wait_option = click.option(
    "--wait", type=Seconds(), default="10m", show_default=True, help="How long to wait for a job to start."
)
"""The option of every command that enters a job."""


def show_waiting(what: str) -> None:
    """Say on stderr what is waited for."""
    put(f"smssh: waiting: {line(what)}", error=True)
