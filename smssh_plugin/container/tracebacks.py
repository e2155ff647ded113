"""Which of the uncaught exceptions that boot recorded ended the attempt.

Not the first one: a helper may fail and be handled. Not the last one: a launcher fails because a rank did, and
other ranks fail because the first one is gone. A parent's failure stands for those of its children, unless all that
it says is that a child has failed. What ended a thread counts where nothing ended its process.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Iterable, Sequence

__all__ = ["Record", "fatal", "read", "signal_text"]

FILE_LIMIT = 2 << 20
"""Bytes of a file that are read; one of boot's is smaller."""
BEGAN_TOLERANCE = 1.0
"""Seconds that a process may seem to have begun before its attempt: the kernel counts in ticks."""
CRASH_SECONDS = 5.0
"""How long before the end of an attempt that a crash ended an exception counts as what led to it."""
CRASHES = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL)

_WRAPPER = re.compile(
    r"(?:[\w.]+\.)?(?:CalledProcessError|ChildFailedError|ExecuteUserScriptError|Py4JJavaError"
    r"|ProcessExitedException|ProcessRaisedException)\b"
)
"""Exceptions that say that something else has failed."""
_SECONDARY = re.compile(
    r"(?i)closed by peer|connection (?:reset|refused|aborted)|broken ?pipe|\bEOFError|nccl|gloo|timed? ?out|SIGTERM"
    r"|TerminatedWorker|KeyboardInterrupt"
)
"""What a process dies of when another one is gone."""
_TORCH_ROOT_CAUSE = re.compile(r"exitcode\s*:\s*(-?[0-9]{1,9}) \(pid: ([0-9]{1,9})\)")


class Record(NamedTuple):
    """One uncaught exception.

    Attributes:
        pid: of the process.
        began: when that started, in seconds since the epoch.
        lineage: `PID:START` of the process itself and of those above it, nearest first.
        time: when it failed, in seconds since the epoch.
        command: its command line.
        program: the script or module that it runs; "" for others. The ranks of a job run the same.
        error: the exception, as in the last line of a traceback.
        traceback: all of it.
        thread: the thread that it ended; "" where it ended the process.
    """

    pid: int
    began: float
    lineage: tuple[str, ...]
    time: float
    command: tuple[str, ...]
    program: str
    error: str
    traceback: str
    thread: str = ""

    def below(self, other: Record) -> bool:
        """Whether the other's process is above this one's."""
        return bool(other.lineage) and other.lineage[0] in self.lineage[1:]


def read(run_dir: Path, since: float) -> list[Record]:
    """The records of the attempt that began at `since` (seconds since the epoch), oldest first."""
    found = []
    for path in run_dir.glob("traceback-*.json"):
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                record = _parsed(json.loads(file.read(FILE_LIMIT)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
            continue  # processes end while they are looked at
        if record.time >= since and record.began >= since - BEGAN_TOLERANCE:
            found.append(record)
    return sorted(found, key=lambda record: record.time)


def _parsed(told: dict[str, Any]) -> Record:
    record = Record(
        pid=int(told["pid"]),
        began=float(told["began"]),
        lineage=tuple(map(str, told["lineage"])),
        time=float(told["time"]),
        command=tuple(map(str, told["command"])),
        program=str(told["program"]),
        error=str(told["error"]),
        traceback=str(told["traceback"]),
        thread=str(told.get("thread") or ""),
    )
    if not (math.isfinite(record.time) and math.isfinite(record.began)):
        raise ValueError(told)
    return record


def fatal(records: Iterable[Record], exit_code: int | None, ended: float) -> Record | None:
    """The exception that ended an attempt; None where none of them did, as far as can be told.

    Args:
        records: those of the attempt.
        exit_code: of the attempt; None while it runs.
        ended: when it ended, in seconds since the epoch.
    """
    if not exit_code:
        return None
    chosen = _fatal(list(records))
    number = _signal(exit_code)
    if chosen is not None and number is not None:
        # An exception is not a signal's cause, but interpreters crash while they clean up after one.
        return chosen if number in CRASHES and ended - chosen.time <= CRASH_SECONDS else None
    return chosen


def signal_text(exit_code: int | None) -> str | None:
    """What a shell's status above 128 says, as in `ended by SIGKILL (exit status 137)`; None for others."""
    number = _signal(exit_code or 0)
    return None if number is None else f"ended by {number.name} (exit status {exit_code})"


def _signal(exit_code: int) -> signal.Signals | None:
    try:
        return signal.Signals(exit_code - 128) if exit_code > 128 else None
    except ValueError:
        return None


def _fatal(records: Sequence[Record]) -> Record | None:
    # A process goes on without its thread, and may end because of that: by a status, or for lack of an answer.
    if any(not record.thread and not _SECONDARY.search(record.error) for record in records):
        records = [record for record in records if not record.thread]
    tops = [record for record in records if not any(record.below(other) for other in records)]
    if not tops:
        return None
    last = max(tops, key=lambda record: (not _SECONDARY.search(record.error), record.time))
    # Those that ran the same program at the same time are ranks: the first took the others along.
    ranks = [each for each in tops if each.program == last.program and each.time >= last.began]
    first = min(ranks or [last], key=lambda record: (bool(_SECONDARY.search(record.error)), record.time))
    if not _WRAPPER.match(first.error):
        return first
    return _behind(first, [record for record in records if record.below(first)]) or first


def _behind(wrapper: Record, children: Sequence[Record]) -> Record | None:
    """The failure that a wrapper tells of, among those of its children; None where it is another."""
    causes = _TORCH_ROOT_CAUSE.findall(wrapper.error)
    if causes:
        status, pid = causes[-1]
        if int(status) < 0:
            return None  # a signal
        named = [record for record in children if record.pid == int(pid)]
        return _fatal(named) or _fatal(children)
    found = _fatal(children)
    if found is None or "CalledProcessError" not in wrapper.error:
        return found
    # Python ends with 1 after an exception; and it was not the command of another, handled, child.
    named = [record for record in children if _names(wrapper.error, record)]
    if "exit status 1." not in wrapper.error:
        return None
    return _fatal(named) or (found if wrapper.time - found.time <= CRASH_SECONDS else None)


def _names(error: str, record: Record) -> bool:
    return bool(record.program) and os.path.basename(record.program) in error
