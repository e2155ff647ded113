"""The processes of this machine, as /proc/PID/stat has them (proc(5)).

Runs in the job's interpreters too: CPython 3.7 and later, standard library only. entrypoints/boot.py, which every
Python process of a job imports, has a reader of its own and so one import less.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing itself is not imported in the job's interpreters
if TYPE_CHECKING:
    from typing import Iterator

__all__ = ["Process", "process", "process_ids", "processes"]


class Process:
    """A process, as it was when it was read.

    Attributes:
        pid: its id.
        name: the kernel's, the first 15 bytes of its program's.
        alive: False for a zombie: it runs nothing any more.
        parent: the id of its parent.
        group: its process group.
        session: its session.
        started: clock ticks between the start of the machine and its own. With the id it names a process once and
            for all: ids are used again, the pair is not.
        resident: its memory, in pages.
    """

    def __init__(self, pid: int, stat: bytes) -> None:
        head, _, tail = stat.rpartition(b")")  # a name may have blanks and brackets
        fields = tail.split()
        self.pid = pid
        self.name = head.partition(b"(")[2]
        self.alive = fields[0] not in (b"Z", b"X")
        self.parent, self.group, self.session = map(int, fields[1:4])
        self.started = int(fields[19])
        self.resident = int(fields[21])


def process(pid: int) -> Process | None:
    """A process; None if no process has this id."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return Process(pid, file.read())
    except (OSError, IndexError, ValueError):
        return None


def process_ids() -> list[int]:
    """The ids of everything that runs now, in order; empty where /proc cannot be read."""
    try:
        return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
    except OSError:
        return []


def processes() -> Iterator[Process]:
    """Everything that runs now, zombies included."""
    for pid in process_ids():
        found = process(pid)
        if found is not None:
            yield found
