"""Sessions of the SSM agent without SSH: shells and forwarded ports.

The agent runs one process for each of its sessions, also for those that carry an SSH connection. What a session is
for, it does not say; its sockets do.
"""

from __future__ import annotations

import contextlib
import os
import time

from ..processes import processes
from .connections import established

TYPE_CHECKING = False  # typing itself is not imported in the job's interpreters
if TYPE_CHECKING:
    from typing import Collection

__all__ = ["CONTROL", "SETTLE_SECONDS", "Workers"]

WORKER = b"ssm-session-worker"
SETTLE_SECONDS = 20.0
"""What lasts shorter is not counted: it may be about to connect to the SSH server, or be one that no person uses.
The agent gives the handshake 15 s."""
CONTROL = b"smssh-control"
"""A word on the command line of a program of ours that uses a shell, for instance `smssh remote-debug --install`."""


class Workers:
    """Who uses Session Manager without SSH."""

    def __init__(self) -> None:
        self._ssh: set[tuple[int, int]] = set()
        """Processes that were seen with a connection to an SSH server: they stay what they were when it has ended."""

    def count(self, ports: Collection[int], below: int | None = None) -> int:
        """How many sessions there are that last and are a person's.

        Args:
            ports: of the SSH server: a session that is connected to one of them is counted there, or not at all.
            below: only those of an agent that this process has started.
        """
        parents = {}
        workers = []
        for each in processes():
            parents[each.pid] = each.parent
            if each.name == WORKER[:15]:
                workers.append(each)
        found = {
            (each.pid, each.started)
            for each in workers
            if (below is None or _is_below(each.pid, below, parents))
            and os.path.basename(_command_line(each.pid)[0]) == WORKER
        }
        self._ssh &= found
        if found - self._ssh:
            clients = {inode for _, other, inode in established() if other in ports}
            self._ssh |= {each for each in found - self._ssh if clients & _sockets(each[0])}
        oldest = time.clock_gettime(time.CLOCK_BOOTTIME) - SETTLE_SECONDS
        ticks = os.sysconf("SC_CLK_TCK")
        return sum(
            1
            for pid, started in found - self._ssh
            if started / ticks <= oldest and not _is_ours(pid, parents)
        )


def _command_line(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return [b""]


def _sockets(pid: int) -> set[str]:
    """The inodes of its sockets; nothing of a process of another user."""
    found = set()
    with contextlib.suppress(OSError):
        for handle in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                kind, _, inode = os.readlink(f"/proc/{pid}/fd/{handle}").partition(":[")
                if kind == "socket":
                    found.add(inode.rstrip("]"))
    return found


def _is_below(pid: int, above: int, parents: dict[int, int]) -> bool:
    while pid > 1 and pid != above:
        pid = parents.get(pid, 0)
    return pid == above


def _is_ours(worker: int, parents: dict[int, int]) -> bool:
    """Whether a program of ours uses the session, and no person."""
    return any(
        CONTROL in _command_line(pid) for pid in parents if pid != worker and _is_below(pid, worker, parents)
    )
