"""Kinds of parameters and lines of progress that several commands share."""

from __future__ import annotations

import re
from typing import Any

import click

from ..terminal import line, put

__all__ = ["Seconds", "show_waiting"]

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Seconds(click.ParamType):  # type: ignore[type-arg] # generic from click 8.3 on
    """A span of time: `90`, `90s`, `10m`, `2h`. Converts to seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it; click shows the message of a `fail`."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", str(value).strip())
        if found is None:
            self.fail(f"{value!r} is no span of time; say 90s, 10m or 2h", param, ctx)
        return float(found.group(1)) * _UNITS[found.group(2)]


def show_waiting(what: str) -> None:
    """Say on stderr what is waited for."""
    put(f"smssh: waiting: {line(what)}", error=True)
