"""The command lines of OpenSSH's client programs.

Whose configuration holds? For `smssh connect` the person's own `~/.ssh/config` does (agent forwarding, escape
keys, `SendEnv`, ...), and what makes the login right and safe is given with `-o`, which wins over any file.
Automation (`connect()`) is run with `-F` and a file of its own instead: a `Host *` with a ProxyJump,
RemoteCommand or ControlPath must not decide whether a pipeline gets fixed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ExitStatus, SmsshError
from ..keys import missing_openssh
from .known_hosts import alias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .endpoint import Endpoint

__all__ = ["environment", "options", "program", "quoted", "render", "socket_folder"]

ALIVE_SECONDS = 30
ALIVE_COUNT = 4
CONNECT_SECONDS = 120
"""More than the proxy gives to the agent (30 s), and the channel to its handshake (75 s): they say what is wrong."""
# A Unix socket's path holds 107 bytes (Linux; 103 on macOS), and ssh binds "<path>.<16 random characters>"
# first.
SOCKET_BYTES = 103 - 17


def program(name: str) -> str:
    """The path of `ssh`, `sftp`, ...

    Raises:
        SmsshError: it is not installed.
    """
    found = shutil.which(name)
    if found is None:
        raise missing_openssh(name)
    return found


def quoted(path: Path | str) -> str:
    """A path as a value in ssh's configuration: spaces kept together, `%` not taken for a token."""
    text = str(path).replace("%", "%%")
    if '"' in text or "\n" in text:
        raise SmsshError(
            f"ssh cannot use a path with a quote or a line break in it: {path!s}", status=ExitStatus.USAGE
        )
    return f'"{text}"' if " " in text or "#" in text else text


def options(endpoint: Endpoint, known_hosts: Path) -> dict[str, str]:
    """The ssh_config options that a login to `endpoint` needs, by hand and automated alike; `identities` has the keys.

    Args:
        endpoint: where to log in.
        known_hosts: a file that holds the one host key, under the alias of the address.
    """
    return {
        # Expanded by ssh (%) and then by a shell.
        "ProxyCommand": shlex.join(endpoint.proxy).replace("%", "%%"),
        "User": endpoint.user,
        "HostKeyAlias": alias(endpoint.address),
        "UserKnownHostsFile": quoted(known_hosts),
        "GlobalKnownHostsFile": "none",
        "KnownHostsCommand": "none",
        "StrictHostKeyChecking": "yes",
        "HostKeyAlgorithms": _algorithms(endpoint.host_key),
        "UpdateHostKeys": "no",
        "VerifyHostKeyDNS": "no",
        "CheckHostIP": "no",
        "CanonicalizeHostname": "no",
        "PreferredAuthentications": "publickey",
        "PasswordAuthentication": "no",
        "ConnectTimeout": str(CONNECT_SECONDS),
        "ServerAliveInterval": str(ALIVE_SECONDS),
        "ServerAliveCountMax": str(ALIVE_COUNT),
        # Session Manager is slow (below 1 MB/s), processors are not.
        "Compression": "yes",
    }


def render(chosen: dict[str, str], keys: Sequence[Path]) -> str:
    """The text of a configuration file with these options, and these private keys, for any host.

    Raises:
        SmsshError: a value is more than a line.
    """
    lines = [*chosen.items(), *(("IdentityFile", quoted(key)) for key in keys)]
    for name, value in lines:
        if "\n" in value or "\r" in value:  # what follows would be a line of its own, such as `Match exec`
            raise SmsshError(f"ssh cannot use {value!r} as {name}", status=ExitStatus.USAGE)
    return "".join(f"{name} {value}\n" for name, value in lines)


def environment() -> dict[str, str]:
    """The environment of automated ssh: a POSIX shell for ProxyCommand, messages in English, no windows."""
    made = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    made.update(SHELL="/bin/sh", LC_ALL="C", SSH_ASKPASS_REQUIRE="never")
    return made


def socket_folder() -> Path:
    """A new private folder whose path is short enough for a control socket in it (`<folder>/s`).

    Raises:
        SmsshError: no folder for temporary files is both writable and short.
    """
    public = ("/tmp", "/var/tmp")  # noqa: S108 - only a private folder is made there
    for candidate in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), *public):
        if not candidate or len(os.fsencode(candidate)) + len("/smssh-12345678/s") > SOCKET_BYTES:
            continue
        try:
            return Path(tempfile.mkdtemp(prefix="smssh-", dir=candidate))  # mode 0700
        except OSError:
            continue
    raise SmsshError(
        "no folder for a control socket: XDG_RUNTIME_DIR, TMPDIR, /tmp, /var/tmp are unwritable or too long",
        hint="set TMPDIR to a short, writable folder",
        reference="no-socket-folder",
    )


def _algorithms(host_key: str) -> str:
    """Only the algorithms of the announced key: a server with several keys must show that one."""
    kind = host_key.partition(" ")[0]
    return "rsa-sha2-512,rsa-sha2-256" if kind == "ssh-rsa" else kind
