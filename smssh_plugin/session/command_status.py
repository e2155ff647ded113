"""A command's exit status, carried in its output.

Amazon's agent sends no exit code for AWS-StartInteractiveCommand. So the command runs under a shell that writes a
marker with its status when it is over: an operating system command of terminals, which shows nothing even where nobody
takes it out, with a token that is new for each session, so that no output has it by accident.
"""

from __future__ import annotations

import re
import secrets
import shlex

__all__ = ["CommandStatus"]

_KIND = "7337"
"""A number that terminals have no meaning for."""
_WRAPPER = (
    f"trap : INT QUIT; printf '\\033]{_KIND};%s;\\007' \"$0\"; "
    f'sh -c "$1"; printf \'\\033]{_KIND};%s;%d\\007\' "$0" "$?"'
)
"""It says at once that it is there: a session without a handshake begins with its first output, and a command that
reads its input may wait for that before it writes. Ctrl-C is for the command: its shell has to live on to tell
the status. A trap, unlike `trap ''`, is not inherited."""
_LONGEST = 3
"""Digits of a status."""


class CommandStatus:
    """Wraps a command, and takes the marker out of what it writes.

    Args:
        token: what the marker is known by; by default a new one.
    """

    def __init__(self, token: str | None = None) -> None:
        self.status: int | None = None
        """The command's exit status, 128 + N where signal N ended it; None as long as nothing said so."""
        self._token = token or secrets.token_hex(16)
        self._begin = f"\x1b]{_KIND};{self._token};".encode()
        self._whole = re.compile(re.escape(self._begin) + rb"(\d{0,%d})\x07" % _LONGEST)
        self._held = b""

    def wrap(self, command: str) -> str:
        """The command line to run, quoted for a shell.

        An agent in container mode, as SageMaker's own is, splits them by itself and runs no shell (`shell_unix.go`).
        """
        return shlex.join(["sh", "-c", _WRAPPER, self._token, command])

    def take(self, data: bytes) -> bytes:
        """What of the output is to be shown now; what may be the beginning of the marker waits for more."""
        data = self._held + data
        shown = bytearray()
        while (found := self._whole.search(data)) is not None:
            if found.group(1):
                self.status = int(found.group(1))
            shown += data[: found.start()]
            data = data[found.end() :]
        keep = self._partial(data)
        self._held = data[len(data) - keep :]
        return bytes(shown) + data[: len(data) - keep]

    def rest(self) -> bytes:
        """What still waited when the output ended."""
        held, self._held = self._held, b""
        return held

    def _partial(self, data: bytes) -> int:
        """How many of the last bytes may be the beginning of a marker."""
        longest = len(self._begin) + _LONGEST
        start = data.rfind(b"\x1b", max(0, len(data) - longest))
        if start < 0:
            return 0
        tail = data[start:]
        known, digits = tail[: len(self._begin)], tail[len(self._begin) :]
        matches = self._begin.startswith(known) and (not digits or digits.isdigit())
        return len(tail) if matches else 0
