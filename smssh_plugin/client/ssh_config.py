"""The lines that teach `ssh` our addresses: one file of ours, `Include`d at the top of `~/.ssh/config`.

At the top, since ssh takes the first value it finds: a user's `Host *` further down cannot override it then.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from ..home import home, private_folder
from . import certificates, known_hosts, ssh
from .endpoint import own_command

__all__ = ["block", "install"]

NAME = "ssh_config"
PROXY_SECONDS = 700
"""More than the proxy waits for a job to start, and for its agent, and for the server."""


def block() -> str:
    """The configuration text. It names this very `smssh`, so it works whatever PATH an IDE has."""
    command = shlex.join(own_command()).replace("%", "%%")
    # %n, not %h: ssh takes %h in lower case, and names of jobs and steps have capitals. The files of host
    # keys go by %h; the proxy has written the one in question before the host says a word. (KnownHostsCommand
    # would do as well, but is started twice a login.)
    known = str(known_hosts.folder()).replace("%", "%%")
    authority = shlex.quote(str(certificates.authority_file())).replace("%", "%%")
    return (
        "# smssh: SageMaker jobs as ssh hosts. Written by `smssh ssh-config --write`.\n"
        # ssh has read the certificate by the time that its proxy runs; this comes before. Of a machine that is no
        # authority it takes a shell's `test`.
        f'Match originalhost *.sagemaker exec "test ! -e {authority} || {command} certify --own"\n'
        "Host *.sagemaker\n"
        f"  ProxyCommand {command} proxy %n --user %r\n"
        f'  UserKnownHostsFile "{known}/%h"\n'
        "  KnownHostsCommand none\n"
        "  GlobalKnownHostsFile none\n"
        "  StrictHostKeyChecking yes\n"
        "  UpdateHostKeys no\n"
        "  CheckHostIP no\n"
        "  User root\n"
        f"  IdentityFile {ssh.quoted(certificates.own_key().private)}\n"
        "  IdentitiesOnly yes\n"
        "  PreferredAuthentications publickey\n"
        # The proxy waits for a job that is starting, for ten minutes; what comes after that has limits of its own.
        f"  ConnectTimeout {PROXY_SECONDS}\n"
        f"  ServerAliveInterval {ssh.ALIVE_SECONDS}\n"
        f"  ServerAliveCountMax {ssh.ALIVE_COUNT}\n"
        "  Compression yes\n"
    )


def install() -> tuple[Path, bool]:
    """Write our file and include it in `~/.ssh/config`; answers its path, and whether that was changed."""
    path = private_folder(home()) / NAME
    _replace(path, block())
    config = Path("~/.ssh/config").expanduser()
    config.parent.mkdir(mode=0o700, exist_ok=True)
    before = config.read_text(encoding="utf-8") if config.exists() else ""
    line = f"Include {ssh.quoted(path)}"
    if line in before.splitlines():
        return path, False
    # A symlink (dotfiles kept elsewhere) stays one.
    _replace(config.resolve(), f"{line}\n\n{before}" if before else f"{line}\n")
    return path, True


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all, for its owner only unless it was open to more before."""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    fresh.chmod(mode)
    fresh.replace(path)
