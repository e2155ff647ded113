"""SIGTERM (a CI runner that gives up) and SIGHUP (a closed terminal) end work in the same order as Ctrl-C."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

from .errors import ExitStatus

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Terminated"]


class Terminated:
    """Within this block SIGTERM and SIGHUP interrupt as Ctrl-C does; `status` is what to end with then."""

    def __init__(self) -> None:
        self.status = int(ExitStatus.INTERRUPTED)
        self._before: dict[int, object] = {}

    def __enter__(self) -> Terminated:  # noqa: PYI034 - Python 3.9 has no Self
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                # What was to be ignored still is: nohup.
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        self.status = 128 + number
        raise KeyboardInterrupt
