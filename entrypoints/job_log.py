"""The job's log: which open file of a process it is, and one line into it.

A container's standard output is its log until somebody sends it elsewhere: `exec > predictions.csv`,
`exec > >(gzip > rows.gz)`, `python predict.py > predictions.csv`. What is written there is a result of the job's, and a
line of ours in it would spoil it. So a line is only written to what is neither a regular file nor a pipe that a process
of the job reads; where the output belongs to another process, it also has to be the one that it began with.

Runs in the job's interpreters too: CPython 3.7 and later, standard library only.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat

from ..processes import processes
from . import boot

__all__ = ["JobLog", "is_log", "say"]

SAY_SECONDS = 1.0
"""Seconds that a line of ours waits for the job's log."""


class JobLog:
    """The standard output of the job's first process, written to from another one.

    Args:
        entry: that process.
        began_with: what its output was when boot ran, see `boot.output_identity`; "" where it could not be told.
    """

    def __init__(self, entry: int, began_with: str) -> None:
        self._entry = entry
        self._began_with = began_with
        self._path = f"/proc/{entry}/fd/1"
        self._is_log: bool | None = None

    def say(self, line: str) -> bool:
        """Write one line, beside what else is written there; False where that cannot be done."""
        if not self._same():
            return False
        with contextlib.suppress(OSError):
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY)
            try:
                # Checked once more, on the open file: the process may have sent its output elsewhere meanwhile.
                if boot.output_identity(handle) != self._began_with:
                    return False
                os.write(handle, line.encode("utf-8", "replace") + b"\n")
                return True
            finally:
                os.close(handle)
        return False

    def _same(self) -> bool:
        if not self._began_with or boot.output_identity(self._path) != self._began_with:
            return False
        if self._is_log is None:
            self._is_log = is_log(self._path, self._entry)
        return self._is_log


def say(line: str) -> None:
    """One line from this process into the job's log, past Python's buffers; left out where the log is not taken.

    A hold must not wait for it: a retry or a stop is answered at once.
    """
    handle = next((each for each in (1, 2) if is_log(each, boot.entry_process())), None)
    if handle is None:
        return
    with contextlib.suppress(OSError, ValueError):  # nobody reads the log any more
        if select.select([], [handle], [], SAY_SECONDS)[1]:
            whole = line.encode("utf-8", "replace")[: select.PIPE_BUF - 1]
            os.write(handle, whole.decode("utf-8", "ignore").encode() + b"\n")


def is_log(file: int | str, entry: int) -> bool:
    """Whether an open file can be the job's log: no regular file, and no pipe to a process of the job.

    Args:
        file: a descriptor, or its path below /proc.
        entry: the job's first process: what began before it (a container's runtime, where it can be seen) is
            not the job's.
    """
    try:
        status = os.stat(file)
    except OSError:
        return False
    if stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode) or stat.S_ISDIR(status.st_mode):
        return False
    return not stat.S_ISFIFO(status.st_mode) or not _read_by_the_job(status, entry)


def _read_by_the_job(pipe: os.stat_result, entry: int) -> bool:
    began = boot.start_time(entry) or 0
    # This process may read its own output (a Tee); it passes everything on.
    return any(
        _reads(each.pid, pipe)
        for each in processes()
        if each.pid not in (os.getpid(), entry) and each.alive and each.started >= began
    )


def _reads(pid: int, pipe: os.stat_result) -> bool:
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):  # it has ended, or belongs to another user
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                status = os.stat(os.path.join(folder, name))
                if (status.st_dev, status.st_ino) == (pipe.st_dev, pipe.st_ino) and _open_for_reading(
                    pid, name
                ):
                    return True
    return False


def _open_for_reading(pid: int, name: str) -> bool:
    with open(f"/proc/{pid}/fdinfo/{name}") as file:
        for line in file:
            if line.startswith("flags:"):
                return int(line.split()[1], 8) & os.O_ACCMODE != os.O_WRONLY
    return False
