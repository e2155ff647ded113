"""Which keys a login offers, and what is said when the job accepts none of them.

Our own key is for every job. A job may also let in a person's other keys (`authorized_keys=("github:ann",)`): those of
`~/.ssh` and of an ssh-agent. ssh offers the agent's by itself unless IdentitiesOnly is set, but the files of `~/.ssh`
only where no IdentityFile is named. Our servers allow for many keys (`MaxAuthTries`).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .. import terminal

if TYPE_CHECKING:
    from .endpoint import Endpoint

__all__ = ["offered", "others", "remedy", "watch_refusal"]

DEFAULTS = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk")
"""The files that ssh tries by itself, ssh_config(5), IdentityFile; those that need a touch come last."""
LONGEST_LINE = 1024
"""Bytes. What ssh says of a refusal is shorter: an address has at most 255."""


def offered(own: Path) -> list[Path]:
    """The files of private keys that a login names: our own, then those in `~/.ssh` that exist.

    Args:
        own: the file of our own private key.
    """
    folder = Path("~/.ssh").expanduser()
    return [own, *(path for name in DEFAULTS if (path := folder / name) != own and path.is_file())]


def others(own: Path) -> bool:
    """Whether there are keys beside our own: files in `~/.ssh`, or an agent that may have some."""
    return len(offered(own)) > 1 or bool(os.environ.get("SSH_AUTH_SOCK"))


def remedy(endpoint: Endpoint) -> str:
    """One line for a person whom the job did not let in: whose keys it knows, and what to do."""
    owner = f" (SSHOwner: {endpoint.owner})" if endpoint.owner else ""
    public = f"{endpoint.key}.pub"
    return terminal.line(
        f"the job knows the smssh key of the machine that submitted it{owner}, and the keys that its authorized_keys "
        f"named then: log in with one of those, or submit it with SSHOptions(authorized_keys=({public!r},))"
    )


def watch_refusal(endpoint: Endpoint) -> None:
    """Have `remedy` said on stderr where the ssh that this process becomes is refused.

    A process of its own copies stderr from then on, byte for byte: this one keeps its id, its terminal and its signals
    when it becomes ssh.

    Args:
        endpoint: where ssh will log in.
    """
    said = re.compile(
        rb"(%s: Permission denied \(|Received disconnect from [^\n]*: Too many authentication failures)"
        % re.escape(f"{endpoint.user}@{endpoint.address}".encode()),
        re.IGNORECASE,
    )
    told = f"smssh: {remedy(endpoint)}\n".encode()
    reading, writing = os.pipe()
    sys.stderr.flush()
    sys.stdout.flush()
    try:
        child = os.fork()
    except OSError:  # as many processes as there may be: ssh matters more than the line
        os.close(reading)
        os.close(writing)
        return
    if child:
        os.close(reading)
        os.waitpid(child, 0)  # its own child goes on: ssh must not get one that it does not know
        os.dup2(writing, 2)
        os.close(writing)
        return
    with contextlib.suppress(BaseException):
        if not os.fork():
            os.setsid()  # Ctrl-C and Ctrl-Z are for ssh
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            _keep_only(reading)
            _copy(reading, said, told)
    os._exit(0)


def _keep_only(reading: int) -> None:
    """Close all but the pipe and stderr: who reads the output of ssh waits for the end of stdout."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.closerange(3, reading)
    os.closerange(reading + 1, 65536)


def _copy(reading: int, said: re.Pattern[bytes], told: bytes) -> None:
    """Copy to stderr until the pipe ends, and `told` after the line that `said` is the beginning of."""
    line = b""
    while piece := os.read(reading, 1 << 16):
        for part in piece.splitlines(keepends=True):
            _write(part)
            line = (line + part)[:LONGEST_LINE] if len(line) < LONGEST_LINE else line
            if part.endswith((b"\n", b"\r")):
                # "\r\n" is one end of a line, in two pieces maybe.
                if said.match(line):
                    _write(told if part.endswith(b"\n") else b"\n" + told)
                line = b""


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(2, data) :]
