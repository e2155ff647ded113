"""Finds and ends the orphans of an attempt of the entry point: they may hold ports, files or a GPU.

Imported for a retry, never before. CPython 3.7 and later, standard library only.

Ranks have sessions and process groups of their own (torchrun starts them so, as setsid does), and
those whose parent has died are somebody else's children. What they all keep is the environment that they were
started with, and in it `SMSSH_ENTRY`, which init and the toolkit's import hook set for the entry point alone. A
process that was started with an environment of its own is found below one that was not, or in the entry point's
process group; a daemon that gave up all three is not ours to end.
"""

from __future__ import annotations

import os
import signal
import time

from .. import processes
from . import boot

TYPE_CHECKING = False  # typing itself is not imported in the job's interpreters
if TYPE_CHECKING:
    from typing import Callable

ENTRY = "SMSSH_ENTRY"
"""Names who runs the entry point: its process id and start time, so that no two containers are confused."""
GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL."""
KILL_LIMIT = 5.0
"""Seconds for the kernel to take away what was killed."""
PAUSE = 0.05


def entry() -> str:
    """The value of SMSSH_ENTRY for an entry point that this process runs."""
    return f"{os.getpid()}.{boot.start_time(os.getpid())}"


def running() -> frozenset[tuple[int, int]]:
    """Everything that runs now."""
    return frozenset((each.pid, each.started) for each in processes.processes() if each.alive)


def find(
    name: str,
    group: int | None = None,
    children: bool = False,
    keep: frozenset[tuple[int, int]] = frozenset(),
) -> list[int]:
    """The processes of an entry point that still run, without this one.

    Args:
        name: its SMSSH_ENTRY.
        group: a process group of its own.
        children: whether the children of this process belong to it. Of those of a process 1, only the ones in its
            own session: it is given everybody's orphans, and a login has a session of its own.
        keep: processes that are not part of it.
    """
    wanted = f"{ENTRY}={name}".encode()
    me = os.getpid()
    session = os.getsid(0) if me == 1 else None
    table = [
        each
        for each in processes.processes()
        if each.alive and each.pid != me and (each.pid, each.started) not in keep
    ]
    found = {
        each.pid
        for each in table
        if each.group == group
        or (children and each.parent == me and session in (None, each.session))
        or _has(each.pid, wanted)
    }
    size = -1
    while size != len(found):
        size = len(found)
        found |= {each.pid for each in table if each.parent in found}
    return sorted(found)


def end(find_left: Callable[[], list[int]], pause: Callable[[float], object] = time.sleep) -> list[int]:
    """SIGTERM to each, SIGKILL to what is there GRACE later; what is left after KILL_LIMIT more.

    Args:
        find_left: what still runs.
        pause: waits for so many seconds; init reaps meanwhile.
    """
    began = time.monotonic()
    asked: set[int] = set()
    while True:
        left = find_left()
        waited = time.monotonic() - began
        if not left or waited >= GRACE + KILL_LIMIT:
            return left
        for pid in left:
            if waited < GRACE and pid in asked:  # a second SIGTERM interrupts the handler of the first
                continue
            asked.add(pid)
            try:
                os.kill(pid, signal.SIGTERM if waited < GRACE else signal.SIGKILL)
            except OSError:  # it has ended meanwhile
                continue
        pause(PAUSE)


def _has(pid: int, variable: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return variable in file.read().split(b"\0")
    except OSError:  # it has ended, or is another user's
        return False
