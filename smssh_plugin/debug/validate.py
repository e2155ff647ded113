"""What a container told, with types, ranges and sizes checked once, where it comes in.

A container is somebody else's program: it may answer anything. What these functions return can be shown, compared
with a clock and written as JSON; what is not as it should be is left out.
"""

from __future__ import annotations

import math
from typing import Any

__all__ = ["attempts", "plain", "report", "seconds", "state", "whole"]

TEXT_LIMIT = 1 << 17
"""Characters of one text; the end of longer ones is kept, which is where errors are."""
ITEMS_LIMIT = 2000
DEPTH_LIMIT = 8
NUMBER_LIMIT = 2**63
LATEST = 4_102_444_800.0
"""The year 2100, in seconds since the epoch: later moments are nonsense, and some cannot be written as dates."""


def plain(value: Any, depth: int = 0) -> Any:
    """A value of JSON's, bounded: no NaN, no number beyond 64 bits, no text, list or nesting without end."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return _number(value)
    if isinstance(value, str):
        return value[-TEXT_LIMIT:]
    if depth >= DEPTH_LIMIT:
        return None
    if isinstance(value, (list, tuple)):
        return [plain(item, depth + 1) for item in value[:ITEMS_LIMIT]]
    if isinstance(value, dict):
        items = list(value.items())[:ITEMS_LIMIT]
        return {str(key)[:200]: plain(item, depth + 1) for key, item in items}
    return str(value)[-TEXT_LIMIT:]


def seconds(value: Any) -> float | None:
    """A moment in seconds since the epoch, between 1970 and 2100; None for all else."""
    number = None if isinstance(value, bool) or not isinstance(value, (int, float)) else _number(value)
    return float(number) if number is not None and 0 <= number < LATEST else None


def whole(value: Any, least: int, most: int) -> int | None:
    """A whole number in a range, both ends included; None for all else."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        return None
    return value


def state(told: dict[str, Any]) -> dict[str, Any]:
    """What `smssh-hook status --json` said: state, point, attempt, hold, code_dir and note, each of its type."""
    hold = told.get("hold")
    hold = hold if isinstance(hold, dict) else {}
    return {
        "state": _text(told.get("state")),
        "point": _text(told.get("point")),
        "attempt": whole(told.get("attempt"), 1, 1_000_000) or 1,
        "since": seconds(hold.get("since")),
        "deadline": seconds(hold.get("deadline")),
        "code_dir": _text(told.get("code_dir")),
        "note": _text(told.get("note")),
        "attempts": attempts(told.get("attempts")),
    }


def attempts(told: Any) -> list[tuple[int, int, float | None]]:
    """Number, exit status and seconds of each attempt that has ended."""
    found = []
    for one in told[:ITEMS_LIMIT] if isinstance(told, list) else ():
        if not isinstance(one, dict):
            continue
        number, code = whole(one.get("attempt"), 1, 1_000_000), whole(one.get("exit_code"), -255, 255)
        if number is not None and code is not None:
            found.append((number, code, seconds(one.get("seconds"))))
    return found


def report(told: dict[str, Any]) -> dict[str, Any]:
    """What `smssh-hook report --json` said; a known field of another type is left out, unknown ones are bounded."""
    found: dict[str, Any] = plain(told)
    for name, check in _FIELDS.items():
        if name in found:
            kept = check(found[name])
            if kept is None:
                del found[name]
            else:
                found[name] = kept
    return found


def _number(value: float) -> float | None:
    """The number itself (an int stays one), or None if others cannot read it as JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if -NUMBER_LIMIT <= value < NUMBER_LIMIT else None


def _text(value: Any) -> str:
    return value[:4096] if isinstance(value, str) else ""


def _said(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _texts(value: Any) -> list[str] | None:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else None


def _rows(value: Any) -> list[dict[str, Any]] | None:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else None


_FIELDS = {
    "attempt": lambda value: whole(value, 1, 1_000_000),
    "code_dir": _said,
    "command": _texts,
    "disk": _rows,
    "environment_names": _texts,
    "error": _said,
    "exit_code": lambda value: whole(value, -255, 255),
    "error_thread": _said,
    "gpu": _said,
    "log_tail": _texts,
    "memory": lambda value: value if isinstance(value, dict) else None,
    "other_errors": _rows,
    "processes": _rows,
    "python": _said,
    "time": seconds,
    "traceback": _said,
}
