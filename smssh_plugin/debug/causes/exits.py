"""By which signal or status something ended, as exit codes and the lines of launchers tell."""

from __future__ import annotations

import re
import signal
from typing import NamedTuple

__all__ = ["Exit", "of_code", "of_line"]

_NAMES = {one.value: one.name for one in signal.Signals}
_STATUS = (
    re.compile(r"died with <Signals\.SIG\w{1,10}: (?P<signal>\d{1,2})>"),
    re.compile(r"Signal (?P<signal>\d{1,2}) \(SIG\w{1,10}\) received"),
    re.compile(r"^ExitCode (?P<code>-?\d{1,3})\b"),
    re.compile(r"exit(?:ed)?(?: with)?(?: status| code|code)\s{0,8}:? ?(?P<code>-?\d{1,3})\b(?! \(pid)"),
    re.compile(r"exitcode\s{0,6}: (?P<code>-?\d{1,3})\b"),
    re.compile(r"exited on signal (?P<signal>\d{1,2})\b"),
    re.compile(r"return(?: |ed )code\s{0,3}[:=]? ?(?P<code>-?\d{1,3})\b"),
    re.compile(r"Received (?P<code>-?\d{1,3}) from exiting process"),
    re.compile(r"returned non-zero exit status (?P<code>-?\d{1,3})\b"),
)
"""As Python's subprocess, torchrun, the training toolkit, mpirun, DeepSpeed and shells print it."""


class Exit(NamedTuple):
    """How something ended.

    Attributes:
        signal: the number of the signal that ended it; None if none did, or none is known.
        status: its exit status, if no signal ended it; None if unknown.
    """

    signal: int | None = None
    status: int | None = None

    @property
    def sign(self) -> str:
        """As the table has it; "" if it is unknown or a success."""
        if self.signal is not None:
            return f"signal {self.signal}"
        return f"status {self.status}" if self.status else ""

    @property
    def sentence(self) -> str:
        """For a person; "" if it is unknown or a success."""
        if self.signal is not None:
            return f"ended by {_NAMES[self.signal]}"
        return f"ended with status {self.status}" if self.status else ""


def of_code(code: int | None) -> Exit:
    """What an exit code tells: negative, or above 128, for a signal."""
    if code is None:
        return Exit()
    number = -code if code < 0 else code - 128
    return Exit(signal=number) if number in _NAMES else Exit(status=code)


def of_line(text: str) -> Exit:
    """What a line of a log tells."""
    for pattern in _STATUS:
        found = pattern.search(text)
        if found is not None:
            told = found.groupdict()
            ended = of_code(-int(told["signal"]) if told.get("signal") else int(told["code"]))
            if ended.sign:
                return ended
    return Exit()
