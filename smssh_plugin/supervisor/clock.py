"""The time, as what waits in the supervisor needs it; tests hand in one of their own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    import threading

__all__ = ["Clock"]


class Clock:
    """The machine's clocks."""

    def now(self) -> float:
        """Seconds since the epoch; a person or a program may set this clock."""
        return time.time()

    def steady(self) -> float:
        """Seconds of a clock that nobody sets."""
        return time.monotonic()

    def wait(self, condition: threading.Condition, predicate: Callable[[], bool], seconds: float) -> bool:
        """Wait until the predicate is true; returns its value, False after `seconds`.

        Args:
            condition: is held by the caller, and notified when the predicate may have changed.
            predicate: what is waited for.
            seconds: how long at most.
        """
        return condition.wait_for(predicate, seconds)
