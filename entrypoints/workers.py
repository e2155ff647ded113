"""Sessions of the SSM agent without SSH: shells and forwarded ports.

The agent runs one process for each of its sessions, also for those that carry an SSH connection. What a session is
for, it does not say; its sockets do.
"""

from __future__ import annotations

import contextlib
import os
import time

from .connections import established

TYPE_CHECKING = False  # typing itself is not imported in the job's interpreters
if TYPE_CHECKING:
    from typing import Collection

__all__ = ["CONTROL", "SETTLE_SECONDS", "Workers"]

WORKER = b"ssm-session-worker"
SETTLE_SECONDS = 20.0
"""What lasts shorter is not counted: it may be about to connect to the SSH server, or be one that nobody came for.
The agent gives the handshake 15 s."""
CONTROL = b"smssh-control"
"""A word on the command line of a program of ours that uses a shell, for instance `smssh remote-debug --install`."""


class _Process:
    """What /proc says of a process.

    Attributes:
        parent: its parent's id.
        name: the kernel's, the first 15 bytes of its program's.
        began: ticks since the machine's start.
    """

    def __init__(self, stat: bytes) -> None:
        head, _, tail = stat.rpartition(b")")
        fields = tail.split()
        self.name = head.partition(b"(")[2]
        self.parent = int(fields[1])
        self.began = int(fields[19])


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
        processes = _processes()
        found = {
            (pid, process.began)
            for pid, process in processes.items()
            if process.name == WORKER[:15]
            and (below is None or _is_below(pid, below, processes))
            and os.path.basename(_command_line(pid)[0]) == WORKER
        }
        self._ssh &= found
        if found - self._ssh:
            clients = {inode for _, other, inode in established() if other in ports}
            self._ssh |= {each for each in found - self._ssh if clients & _sockets(each[0])}
        oldest = time.clock_gettime(time.CLOCK_BOOTTIME) - SETTLE_SECONDS
        ticks = os.sysconf("SC_CLK_TCK")
        return sum(
            1 for pid, began in found - self._ssh if began / ticks <= oldest and not _is_ours(pid, processes)
        )


def _processes() -> dict[int, _Process]:
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError), open(
                f"/proc/{name}/stat", "rb"
            ) as file:
                found[int(name)] = _Process(file.read())
    return found


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


def _is_below(pid: int, above: int, processes: dict[int, _Process]) -> bool:
    while pid > 1 and pid != above:
        process = processes.get(pid)
        pid = 0 if process is None else process.parent
    return pid == above


def _is_ours(worker: int, processes: dict[int, _Process]) -> bool:
    """Whether a program of ours uses the session, and no person."""
    return any(
        CONTROL in _command_line(pid)
        for pid in processes
        if pid != worker and _is_below(pid, worker, processes)
    )
