"""Who is logged in to this container, and since when nobody is.

What counts is a connection, whatever it carries: a shell, a file copy, an IDE, or port forwards alone, which show at
the SSH server like any other. How many bytes pass says nothing: keep-alives look like traffic, and a debugger that
stands at a breakpoint looks like nobody. A connection that nobody has at its other end any more is ended by the SSH
server (it asks every minute, three times), and Session Manager ends a session in which no byte has passed for its
idle time-out. One that is forgotten, with its laptop open, counts: that is what SMSSH_HOLD_MAX_SECONDS and
`placeholder --max` are for.

A shell of Session Manager without SSH (`aws ssm start-session`, the web console) counts too.
"""

from __future__ import annotations

import os
import sys
import threading
import time

TYPE_CHECKING = False  # typing itself is not imported in the job's interpreters
if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["Watch", "connections", "is_last_session_timeout", "sessions", "workers"]

ESTABLISHED = "01"
"""TCP_ESTABLISHED in /proc/net/tcp (proc(5); the kernel's include/net/tcp_states.h)."""
WORKER = b"ssm-session-worker"
"""The agent runs one for each of its sessions."""


def connections(port: int) -> int:
    """Established TCP connections to a local port, as /proc/net/tcp counts them.

    One that has not logged in yet counts as well; sshd ends those after LoginGraceTime.
    """
    count = 0
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(name, encoding="ascii") as file:
                lines = file.read().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == ESTABLISHED and int(fields[1].rpartition(":")[2], 16) == port:
                count += 1
    return count


def workers(below: int | None = None) -> int:
    """Sessions of the SSM agent: of a shell as of a connection to a port.

    Args:
        below: only those of an agent that this process has started.
    """
    parents: dict[int, int] = {}
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parents[int(name)] = int(file.read().rsplit(b")", 1)[1].split()[1])
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    program = file.read().split(b"\0", 1)[0]
            except (OSError, IndexError, ValueError):
                continue
            if program.rsplit(b"/", 1)[-1] == WORKER:
                found.append(int(name))
    return sum(1 for pid in found if below is None or _is_below(pid, below, parents))


def _is_below(pid: int, above: int, parents: dict[int, int]) -> bool:
    while pid > 1 and pid != above:
        pid = parents.get(pid, 0)
    return pid == above


def sessions(port: int) -> int:
    """Who is connected now, for the supervisor: SSH connections, else sessions of its agent."""
    return connections(port) or workers(os.getpid())


class Watch:
    """For how long nobody has been connected.

    Args:
        seconds: after which nobody comes any more.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def over(self, connected: int) -> bool:
        """Whether time is up.

        Args:
            connected: how many are connected now.
        """
        if connected:
            self._last = time.monotonic()
        return time.monotonic() - self._last >= self._seconds

    @property
    def left(self) -> float:
        """Seconds until time is up, if nobody connects."""
        return max(0.0, self._seconds - (time.monotonic() - self._last))


_imported = time.monotonic()
_lock = threading.Lock()


def is_last_session_timeout(time_delta: timedelta) -> bool:
    """Whether nobody has been connected to this container for `time_delta`; for the loop of a placeholder script.

    As sagemaker-ssh-helper's function of this name, whose clock starts with its import too:

        while not is_last_session_timeout(timedelta(minutes=30)):
            time.sleep(10)

    What counts stands at the top of this module. Where no supervisor answers, nobody can be connected over SSH.

    Args:
        time_delta: how long a last session is waited for.
    """
    global _imported  # noqa: PLW0603 - the function has no other place for it
    connected = _connected()
    with _lock:
        if connected:
            _imported = time.monotonic()
        left = time_delta.total_seconds() - (time.monotonic() - _imported)
    sys.stdout.write(
        f"smssh: {connected} connected" + ("\n" if connected else f", {max(0, round(left))} s left\n")
    )
    sys.stdout.flush()
    return not connected and left <= 0


def _connected() -> int:
    from . import parent

    link = parent.Link.open()
    if link is None:
        return workers()
    try:
        answer = link.ask({"op": "status"})
    except (OSError, ValueError):
        answer = None
    finally:
        link.close()
    return max(int((answer or {}).get("connected") or 0), workers())
