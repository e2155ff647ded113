"""Waiting for a job or step that has not started yet."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, TypeVar

from ..errors import ExitStatus, SmsshError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "NotYet",
    "patiently",
]

T = TypeVar("T")
POLL_FIRST_SECONDS = 0.5
POLL_LONGEST_SECONDS = 5.0


class NotYet(Exception):  # noqa: N818 - control flow inside resolve
    """Nothing to connect to now, but there may be soon; `error` is what to say if there is no more time.

    Args:
        error: see above.
        patience: seconds from the first look after which it will not come any more.
    """

    def __init__(self, error: SmsshError, patience: float = math.inf) -> None:
        super().__init__(str(error))
        self.error = error
        self.patience = patience


def patiently(attempt: Callable[[], T], wait: float, on_wait: Callable[[str], None] | None) -> T:
    """What `attempt` answers, made once or until the time is over; its `NotYet` becomes the error in it."""
    began = time.monotonic()
    pause = POLL_FIRST_SECONDS
    said = None
    while True:
        try:
            return attempt()
        except NotYet as not_yet:  # noqa: PERF203 - it waits anyway
            left = began + min(wait, not_yet.patience) - time.monotonic()
            if left <= 0:
                if wait > 0:
                    not_yet.error.status = ExitStatus.TIMEOUT
                raise not_yet.error from None
            if on_wait is not None and not_yet.error.message != said:
                said = not_yet.error.message
                on_wait(said)
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, POLL_LONGEST_SECONDS)
