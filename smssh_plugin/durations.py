"""Durations as people write and read them."""

from __future__ import annotations

import math
import re

__all__ = ["format_duration", "parse_duration"]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SHOWN = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def parse_duration(text: str) -> float:
    """Seconds in a duration: `90`, `90s`, `30m`, `1.5h`, `2d`.

    Raises:
        ValueError: it is not a duration.
    """
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"{text!r} is not a duration; use 90s, 10m or 2h")
    seconds = float(found.group(1)) * _SECONDS[found.group(2)]
    if math.isinf(seconds):
        raise ValueError(f"{text[:20] + '...'!r} is too long for a duration")
    return seconds


def format_duration(seconds: float) -> str:
    """A duration in its two largest units: 0.4 s, 12 s, 3 min 05 s, 2 h, 1 d 04 h. A negative one is 0 s."""
    if seconds < 9.95:
        return f"{round(max(seconds, 0), 1):g} s"
    whole = round(seconds)
    for size, unit, smaller, small_unit in _SHOWN:
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest:02d} {small_unit}" if rest else "")
    return f"{whole} s"
