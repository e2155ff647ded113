"""The lines that teach `ssh` our addresses: one file of ours, `Include`d at the top of `~/.ssh/config`.

At the top, since ssh takes the first value it finds: a user's `Host *` further down cannot override it then.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from ..errors import ExitStatus, SmsshError
from ..files import write_atomically
from ..home import home, private_folder
from . import certificates, identities, known_hosts, ssh
from .endpoint import own_command

__all__ = [
    "INCLUDE",
    "NAME",
    "TOKENS",
    "block",
    "include_line",
    "install",
    "openssh_version",
    "users_config",
    "users_text",
]

NAME = "ssh_config"
PROXY_SECONDS = 700
"""More than the proxy waits for a job to start, and for its agent, and for the server."""
INCLUDE, TOKENS, RECENT = (7, 3), (8, 5), (9, 0)
"""The OpenSSH since which there is Include; %n in ProxyCommand, and %h in UserKnownHostsFile; one with all of it."""
NEWER = {"RemoteCommand": (7, 6), "KnownHostsCommand": (8, 5)}
"""Keywords that a user's `Host *` may have and ours must not, and the OpenSSH since which there are such."""


def block(region: str | None = None, profile: str | None = None) -> str:
    """The configuration text. It names this very `smssh`, so it works whatever PATH an IDE has.

    Args:
        region: the AWS region that its logins go to; by default the environment's of each login.
        profile: the AWS profile that they use; by default the environment's: an IDE may have none.

    Raises:
        SmsshError: a path that ssh cannot take, or no key.
    """
    version = _version()
    command = _text(shlex.join(own_command()))
    pinned = [*(("--region", region) if region else ()), *(("--profile", profile) if profile else ())]
    # ssh has read the certificate by the time that its proxy runs; this comes before. On a machine that is
    # not an authority, it costs a shell's `test`.
    authority = _text(shlex.quote(str(certificates.authority_file())))
    before = [f"test ! -e {authority} || {command} certify --own"]
    # %n, not %h: ssh takes %h in lower case, and names of jobs and steps have capitals. The files of host
    # keys go by %h; the proxy has written the one in question before the host says a word. (KnownHostsCommand
    # would do as well, but is started twice a login.)
    name, known = "%n", f'"{_text(known_hosts.folder())}/%h"'
    if version < TOKENS:
        before.append(f"{command} proxy --note '%n'")
        name, known = "%h --noted", f'"{_text(known_hosts.gathered())}"'
    proxy = " ".join([f"{command} proxy {name} --user %r", *(_text(shlex.quote(word)) for word in pinned)])
    lines = [("ProxyCommand", proxy), ("UserKnownHostsFile", known), *_options(version)]
    return (
        "# smssh: SageMaker jobs as ssh hosts. Written by `smssh ssh-config --write`.\n"
        f'# VS Code overrides ConnectTimeout: set "remote.SSH.connectTimeout": {PROXY_SECONDS} there.\n'
        # Another ssh of this machine may be older than the one that was asked; what the user ignores stays ignored.
        f"IgnoreUnknown {','.join(dict.fromkeys([*NEWER, *_ignored()]))}\n"
        + "".join(f'Match originalhost *.sagemaker exec "{each}"\n' for each in before)
        + "Host *.sagemaker\n"
        + "".join(f"  {keyword} {value}\n" for keyword, value in lines)
        # What comes after an `Include` at the top would belong to our hosts otherwise.
        + "Match all\n"
    )


def _options(version: tuple[int, int]) -> list[tuple[str, str]]:
    """The keywords of ssh that are the same for all addresses, and their values.

    Args:
        version: the OpenSSH that reads them.
    """
    return [
        ("GlobalKnownHostsFile", "none"),
        ("StrictHostKeyChecking", "yes"),
        ("UpdateHostKeys", "no"),
        ("CheckHostIP", "no"),
        ("User", "root"),
        # No IdentitiesOnly: a job may let in a key that only an agent has.
        *(("IdentityFile", ssh.quoted(key)) for key in identities.offered(certificates.own_key().private)),
        ("PreferredAuthentications", "publickey"),
        # The proxy waits for a job that is starting, for ten minutes; what comes after that has limits of its own.
        ("ConnectTimeout", str(PROXY_SECONDS)),
        ("ServerAliveInterval", str(ssh.ALIVE_SECONDS)),
        ("ServerAliveCountMax", str(ssh.ALIVE_COUNT)),
        ("Compression", "yes"),
        # What a `Host *` further down may say would lead elsewhere: an address that names the newest execution means
        # another container each time, and a socket of ours would be longer than a path of one may be.
        ("ControlMaster", "no"),
        ("ControlPath", "none"),
        ("ControlPersist", "no"),
        ("CanonicalizeHostname", "no"),
        ("HostName", "%h"),
        ("Port", "22"),
        ("ProxyUseFdpass", "no"),
        ("VerifyHostKeyDNS", "no"),
        *((keyword, "none") for keyword, since in NEWER.items() if version >= since),
    ]


def install(region: str | None = None, profile: str | None = None) -> tuple[Path, bool]:
    """Write our file and include it in `~/.ssh/config`; answers its path, and whether that was changed.

    Args:
        region: see `block`.
        profile: see `block`.

    Raises:
        SmsshError: the ssh of this machine has no Include; or see `block`.
    """
    version = _version()
    if version < INCLUDE:
        raise SmsshError(
            f"OpenSSH {'.'.join(map(str, version))} has no Include: nothing was written",
            hint="put what `smssh ssh-config` prints at the top of ~/.ssh/config, or update OpenSSH to 7.3 or newer",
            reference="old-openssh",
            status=ExitStatus.UNREACHABLE,
            check="laptop.openssh",
        )
    path = private_folder(home()) / NAME
    write_atomically(path, block(region, profile), mode=None)
    config = users_config()
    config.parent.mkdir(mode=0o700, exist_ok=True)
    before = users_text() if config.exists() else ""
    line = include_line()
    if line in before.splitlines():
        return path, False
    # A symlink (dotfiles kept elsewhere) stays one.
    write_atomically(
        config.resolve(), f"{line}\n\n{before}" if before else f"{line}\n", mode=None, durable=True
    )
    return path, True


def include_line() -> str:
    """The line of the user's configuration file that includes ours.

    Raises:
        SmsshError: ssh cannot take the path of our folder.
    """
    return f"Include {ssh.quoted(home() / NAME)}"


def _version() -> tuple[int, int]:
    """The version of the `ssh` on PATH; one that cannot be told is taken for a recent one."""
    return openssh_version() or RECENT


def openssh_version() -> tuple[int, int] | None:
    """The version of the `ssh` on PATH; None if there is no `ssh`, or its version is unknown."""
    program = shutil.which("ssh")
    if program is None:
        return None
    try:
        asked = subprocess.run(
            [program, "-V"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, UnicodeDecodeError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"OpenSSH_(?:for_Windows_)?(\d+)\.(\d+)", asked.stderr + asked.stdout)
    return (int(found.group(1)), int(found.group(2))) if found else None


def _ignored() -> list[str]:
    """What the user's own file has ssh ignore: the first IgnoreUnknown that ssh reads is the one that counts."""
    try:
        text = users_text()
    except OSError:
        return []
    values = re.findall(r"^\s*IgnoreUnknown(?:\s+|\s*=\s*)(.+?)\s*$", text, re.MULTILINE | re.IGNORECASE)
    return [
        word for value in values for word in re.split(r"[\s,]+", value.strip('"')) if word.isascii() and word
    ]


def users_text() -> str:
    """The user's own file, to the byte: whatever its line ends, and the encoding of its comments."""
    return users_config().read_bytes().decode("utf-8", "surrogateescape")


def users_config() -> Path:
    """The configuration file of the user's ssh."""
    return Path(os.path.expanduser("~/.ssh/config"))


def _text(value: object) -> str:
    """Text in which ssh takes no `%` for a token."""
    return str(value).replace("%", "%%")
