"""What runs because of us in a test container: found in /proc, told from the job's own by their parents."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.entrypoints.container import Container

SUPERVISOR = "supervisor"


class Process(NamedTuple):
    """A process, named once and for all by its id and its start time."""

    pid: int
    started: int
    """Clock ticks since the machine started, field 22 of /proc/PID/stat (proc(5))."""

    def alive(self) -> bool:
        """Whether it still runs; a zombie doesn't."""
        found = _stat(self.pid)
        return found is not None and found[1] == self.started


def _stat(pid: int) -> tuple[int, int] | None:
    """Parent and start time of a process that runs."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else (int(fields[1]), int(fields[19]))


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


class Ours:
    """All processes that were ever seen to work for a container without being the job's.

    Those are the ones with the run folder on their command line, and what they have started. A process that was
    seen once is remembered: an orphan would not be found again.
    """

    def __init__(self, container: Container) -> None:
        self._run_dir = str(container.run_dir)
        self.seen: dict[Process, str] = {}
        """Each with its role."""

    def look(self) -> dict[Process, str]:
        """Those that run now, with their roles: `supervisor`, `server`, `agent`, `session` or `child`."""
        table = {pid: found for pid in _pids() if (found := _stat(pid)) is not None}
        commands = {pid: _command(pid) for pid in table}
        now = {}
        for pid, (_, started) in table.items():
            process = Process(pid, started)
            role = self.seen.get(process) or self._role(pid, table, commands)
            if role:
                now[process] = role
        self.seen.update(now)
        return now

    def _role(self, pid: int, table: dict[int, tuple[int, int]], commands: dict[int, str]) -> str:
        own = self._by_command(commands[pid])
        if own:
            return own
        above, ancestor = [], table[pid][0]
        while ancestor in table and ancestor != 1 and len(above) < 64:
            above.append(self._by_command(commands[ancestor]))
            ancestor = table[ancestor][0]
        if "server" in above or "agent" in above:
            return "session"
        return "child" if SUPERVISOR in above else ""

    def _by_command(self, command: str) -> str:
        if self._run_dir not in command:
            return ""
        if "supervisor.main" in command:
            return SUPERVISOR
        if "sshd" in command or "asyncssh_program" in command:
            return "server"
        return "agent" if "amazon-ssm-agent" in command else "child"

    def left(self) -> list[tuple[Process, str, str]]:
        """Those of all times that run still: process, role, command line."""
        self.look()
        return [(one, role, _command(one.pid)) for one, role in self.seen.items() if one.alive()]

    def end(self) -> None:
        """Kill what is left."""
        import signal

        for process, _, _ in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())
