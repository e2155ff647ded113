"""TCP connections to the container's SSH server, and which of them are logins."""

from __future__ import annotations

import re
import time

TYPE_CHECKING = False  # typing itself is not imported in the job's interpreters
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Iterator

__all__ = ["LOGIN_SECONDS", "Logins", "connections", "established"]

ESTABLISHED = "01"
"""TCP_ESTABLISHED in /proc/net/tcp (proc(5); the kernel's include/net/tcp_states.h)."""
LOGIN_SECONDS = 75.0
"""Both of our servers end a connection that has not logged in after 60 s: one that lasts longer has."""

# Lines of OpenSSH's log (auth_log in auth.c, sshpkt_vfatal in packet.c), which our other server writes in the same
# words. What a client says of itself never begins a line, and OpenSSH escapes line breaks in it.
_CAME = re.compile(rb"Accepted \S+ for .* from \S+ port (\d+)\b")
_WENT = re.compile(
    rb"(?:Disconnected from|Disconnecting|Connection (?:closed|reset) by|Timeout)\b.* port (\d+)\b"
)


def established() -> Iterator[tuple[int, int, str]]:
    """Each established TCP connection's end in this network namespace: its own port, the other's, the inode."""
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(name, encoding="ascii") as file:
                lines = file.read().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == ESTABLISHED:
                own, other = (int(end.rpartition(":")[2], 16) for end in fields[1:3])
                yield own, other, fields[9]


def connections(*ports: int) -> int:
    """Established TCP connections to these local ports, whether they have logged in or not."""
    return sum(1 for own, _, _ in established() if own in ports)


class Logins:
    """Who is logged in over SSH; what a connection is used for does not matter, and neither how many bytes pass.

    A connection counts from the moment when the server says in its log that a key was accepted. Should it not say
    so (a full disk), it counts as soon as it has lasted for longer than the server lets anybody stay without a key.

    Args:
        log: the server's log; None for a server that does not say who logs in: each of its connections counts.
    """

    def __init__(self, log: Path | None) -> None:
        self._log = log
        self._read = 0
        self._rest = b""
        self._accepted: set[int] = set()
        self._seen: dict[int, float] = {}

    def count(self, port: int) -> int:
        """How many are logged in now.

        Args:
            port: the server's.
        """
        self._follow_log()  # first: then each client that it names is among the connections
        there = {other for own, other, _ in established() if own == port}
        if self._log is None:
            return len(there)
        now = time.monotonic()
        self._accepted &= there
        self._seen = {other: self._seen.get(other, now) for other in there}
        return sum(
            1 for other, seen in self._seen.items() if other in self._accepted or now - seen >= LOGIN_SECONDS
        )

    def _follow_log(self) -> None:
        """Take what was written since the last time. A log that became shorter was cut, see `container.child.trim`."""
        if self._log is None:
            return
        try:
            with open(str(self._log), "rb") as file:
                if file.seek(0, 2) < self._read:
                    self._read = 0
                file.seek(self._read)
                data = file.read()
        except OSError:
            return
        if self._read == 0:
            self._rest = _before(self._log)
        self._read += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            came = _CAME.match(line)
            went = None if came else _WENT.match(line)
            if came:
                self._accepted.add(int(came.group(1)))
            elif went:
                self._accepted.discard(int(went.group(1)))


def _before(log: Path) -> bytes:
    """What a log that was cut said before."""
    try:
        with open(f"{log}.old", "rb") as file:
            return file.read() + b"\n"
    except OSError:
        return b""
