"""Which keys a login offers, and what is said when the job accepts none of them.

Our own key is for every job. A job may also let in a person's other keys (`authorized_keys=("github:ann",)`): those of
`~/.ssh` and of an ssh-agent. ssh offers the agent's by itself unless IdentitiesOnly is set, but the files of `~/.ssh`
only where no IdentityFile is named. Our servers allow for many keys (`MaxAuthTries`).
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .. import terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from .endpoint import Endpoint

__all__ = ["offered", "others", "remedy", "watch_refusal"]

DEFAULTS = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk")
"""The files that ssh tries by itself, ssh_config(5), IdentityFile; those that need a touch come last."""
LONGEST_LINE = 1024
"""Bytes. What ssh says of a refusal is shorter: an address has at most 255."""
LONGEST_END = 1 << 16
"""Bytes at the end of a file of stderr that are read for it."""


def offered(own: Path) -> list[Path]:
    """The files of private keys that a login names: our own, then those in `~/.ssh` that exist.

    Args:
        own: the file of our own private key.
    """
    folder = Path(os.path.expanduser("~/.ssh"))
    return [own, *(path for name in DEFAULTS if (path := folder / name) != own and path.is_file())]


def others(own: Path) -> bool:
    """Whether there are keys beside our own: files in `~/.ssh`, or an agent that may have some."""
    return len(offered(own)) > 1 or bool(os.environ.get("SSH_AUTH_SOCK"))


def remedy(endpoint: Endpoint, *, too_many: bool = False) -> str:
    """One line for a person that the job did not let in: whose keys it knows, and what to do.

    Args:
        endpoint: where the login was refused.
        too_many: the server refused because of the number of keys, before it had seen all of them.
    """
    if too_many:
        return terminal.line(
            "ssh offers the keys of your ssh-agent first, and the job's SSH server takes no more of them: "
            f"`smssh connect -o IdentityAgent=none {endpoint.address}` offers the smssh key and those in ~/.ssh alone"
        )
    owner = f" (SSHOwner: {endpoint.owner})" if endpoint.owner else ""
    public = f"{endpoint.key}.pub"
    return terminal.line(
        f"the job knows the smssh key of the machine that submitted it{owner}, and the keys that its authorized_keys "
        f"named then: log in with one of those, or submit it with SSHOptions(authorized_keys=({public!r},))"
    )


class _Refusal:
    """What ssh says of a refusal, and what is said after it."""

    def __init__(self, endpoint: Endpoint) -> None:
        account = re.escape(f"{endpoint.user}@{endpoint.address}".encode())
        said = (
            (rb"%s: Permission denied \(" % account, remedy(endpoint)),
            (
                rb"Received disconnect from [^\n]*: Too many authentication failures",
                remedy(endpoint, too_many=True),
            ),
        )
        self._said = [
            (re.compile(pattern, re.IGNORECASE), f"smssh: {told}\n".encode()) for pattern, told in said
        ]

    def after(self, line: bytes) -> bytes:
        """The line that is said after this one; b"" after most."""
        return next((told for pattern, told in self._said if pattern.match(line)), b"")


def watch_refusal(endpoint: Endpoint) -> None:
    """Have `remedy` said on stderr where the ssh that this process becomes is refused.

    This process keeps its id, its terminal and its signals when it becomes ssh, so another one watches. It copies
    stderr, byte for byte. Where stderr is a file, whose reader need not wait for more than the end of ssh, ssh writes
    it itself, and the file is read once ssh has ended (Linux only).

    Args:
        endpoint: where ssh will log in.
    """
    refusal = _Refusal(endpoint)
    sys.stderr.flush()
    sys.stdout.flush()
    state = os.fstat(2)
    if not stat.S_ISREG(state.st_mode):
        reading, writing = os.pipe()
        if _apart(reading, lambda: _copy(reading, refusal)):
            os.dup2(writing, 2)
        os.close(reading)
        os.close(writing)
        return
    with contextlib.suppress(AttributeError, OSError):  # not Linux, or an old kernel
        process = os.pidfd_open(os.getpid())
        _apart(process, lambda: _read(process, state.st_size, refusal))
        os.close(process)


def _apart(kept: int, work: Callable[[], None]) -> bool:
    """Do some work in a process of its own that no other waits for.

    Args:
        kept: the descriptor that it needs beside stderr.
        work: what it does.

    Returns:
        Whether there is such a process: not where there are as many as there may be. ssh matters more than the line.
    """
    try:
        child = os.fork()
    except OSError:
        return False
    if child:
        # Its own child goes on: ssh must not get one that it does not know.
        return os.waitpid(child, 0)[1] == 0
    status = 1
    with contextlib.suppress(BaseException):
        if os.fork():
            status = 0
        else:
            os.setsid()  # Ctrl-C and Ctrl-Z are for ssh
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            _keep_only(kept)
            work()
    os._exit(status)


def _keep_only(reading: int) -> None:
    """Close all but the pipe and stderr: who reads the output of ssh waits for the end of stdout."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.closerange(3, reading)
    os.closerange(reading + 1, 65536)


def _copy(reading: int, refusal: _Refusal) -> None:
    """Copy to stderr until the pipe ends, and add the line after that of a refusal."""
    line = b""
    while piece := os.read(reading, 1 << 16):
        for part in piece.splitlines(keepends=True):
            _write(part)
            line = (line + part)[:LONGEST_LINE] if len(line) < LONGEST_LINE else line
            if part.endswith((b"\n", b"\r")):
                # "\r\n" is one end of a line, in two pieces maybe.
                told = refusal.after(line)
                _write(told if part.endswith(b"\n") or not told else b"\n" + told)
                line = b""


def _read(process: int, start: int, refusal: _Refusal) -> None:
    """Wait for the end of a process, and add to the file that stderr is what is to be said after its last words."""
    select.select([process], [], [])
    with open("/proc/self/fd/2", "rb") as said:
        said.seek(max(start, os.fstat(2).st_size - LONGEST_END))
        told = {found: None for line in said if (found := refusal.after(line))}
    _write(b"".join(told))


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(2, data) :]
