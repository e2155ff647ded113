"""Waiting in tests: for what has to come, with a bound, and never for a time."""

from __future__ import annotations

import inspect
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LIMIT", "until"]

T = TypeVar("T")

LIMIT = 120.0
"""Seconds in which what a test waits for happens on the busiest machine; pytest's own limit for a test is longer."""
PAUSE = 0.01
LONGEST_PAUSE = 0.5


def until(
    condition: Callable[[], T], what: str | Callable[[], object] | None = None, *, seconds: float = LIMIT
) -> T:
    """Wait for a condition to come true, and return what it returned.

    Between two looks it waits for as long as a look takes, so that a condition that runs programs leaves the machine
    to those that it waits for.

    Args:
        condition: looks once.
        what: what is waited for, or a function that says it once it did not come, with what is there instead. By
            default the line in which the condition stands.
        seconds: how long it may take.

    Raises:
        AssertionError: it did not come true; the message says what.
    """
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        value = condition()
        if value:
            return value
        ended = time.monotonic()
        if ended >= deadline:
            said = what() if callable(what) else what or _source(condition)
            raise AssertionError(f"not within {seconds:g} s: {said}")
        time.sleep(min(max(ended - began, PAUSE), LONGEST_PAUSE, deadline - ended))


def _source(condition: Callable[[], object]) -> str:
    try:
        return inspect.getsource(condition).strip()
    except (OSError, TypeError):
        return repr(condition)
