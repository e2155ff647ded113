"""The image's own sshd, as a second server: loopback only, own port, own configuration, own host key.

Nothing of the image's SSH is touched: not port 22, not /etc/ssh, not ~/.ssh; MPI needs them.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Sequence

from ..errors import SmsshError
from ..hookspecs import Context, Failure, Server, hookimpl
from . import _login
from ._child import Child, tail
from .asyncssh_server import available as asyncssh_available

START_LIMIT = 5.0
"""Seconds from the start of sshd to its greeting; 13 ms is usual."""
NO_SHELL = ("nologin", "false")
PENALTIES_SINCE = (9, 8)
"""OpenSSH 9.8 locks out an address that fails often; through a session everybody comes from 127.0.0.1."""

CONFIGURATION = """\
AddressFamily inet
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_ed25519
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PermitUserEnvironment no
AllowUsers {user}
AllowAgentForwarding yes
AllowTcpForwarding yes
AllowStreamLocalForwarding yes
GatewayPorts no
X11Forwarding no
PrintMotd no
PrintLastLog no
UseDNS no
LoginGraceTime 60
MaxStartups 100:30:200
MaxSessions 100
ClientAliveInterval 60
ClientAliveCountMax 3
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
"""


class _State:
    """The server of this supervisor; there is one supervisor in a process."""

    child: Child | None = None
    configuration = ""
    port = 0
    # The start runs in one thread, attempts of the entry point report in others.
    lock = threading.Lock()


@hookimpl
def smssh_start_server(context: Context) -> Server | None:
    """Start sshd if the settings allow it and it can work here."""
    if context.settings.ssh_server == "asyncssh":
        return None
    program = shutil.which(
        "sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    )
    reason = "the image has none" if program is None else unusable(context)
    if program is None or reason is not None:
        context.log.info("sshd is not used: %s", reason)
        return None
    for attempt in range(3):
        # The port may be taken between its choice and its use.
        server = _start(context, os.path.realpath(program), _login.free_port(context.settings.ssh_port))
        if server is not None:
            return server
        context.log.info("sshd did not start (attempt %d)", attempt + 1)
    raise SmsshError(
        "sshd does not start: {}.".format(tail(_login.ssh_dir(context) / "sshd.log")),
        reference="no-ssh-server",
    )


@hookimpl
def smssh_before_entry_point(context: Context) -> None:
    """The job's environment may have grown: the toolkits add the SM_* variables."""
    _refresh(context)


@hookimpl
def smssh_entry_point_failed(context: Context, failure: Failure) -> None:  # noqa: ARG001 - the hook's signature
    """See `smssh_before_entry_point`: a hold follows, and people log in."""
    _refresh(context)


@hookimpl
def smssh_stop() -> None:
    """Stop the server; logins that are open end with the container."""
    if _State.child is not None:
        _State.child.stop(2.0)


def unusable(context: Context) -> str | None:
    """Why sshd cannot let anybody in here; None when it can."""
    try:
        account = _login.account()
    except KeyError:
        return f"user id {os.geteuid()} has no account"
    if os.path.basename(account.pw_shell) in NO_SHELL:
        return f"the account {account.pw_name} has no login shell"
    if os.geteuid() == 0:
        return _unusable_as_root(account.pw_name)
    # Commands and copies work without terminals: better this server than none, or than another that was not
    # asked for.
    wanted = context.settings.ssh_server == "sshd"
    if not wanted and not _can_own_terminals() and asyncssh_available(context):
        return "it could not hand a terminal over (devpts without gid=5)"
    return None


def _unusable_as_root(name: str) -> str | None:
    try:
        separated = pwd.getpwnam("sshd")
    except KeyError:
        return "the account sshd, which it drops its privileges to, does not exist"
    for mapping, number in (("uid_map", separated.pw_uid), ("gid_map", separated.pw_gid)):
        if not _mapped(Path("/proc/self", mapping), number):
            return "the account sshd is not mapped in this user namespace"
    with contextlib.suppress(OSError):
        if Path("/proc/self/setgroups").read_text(encoding="ascii").strip() == "deny":
            return "setgroups is denied in this user namespace"
    with contextlib.suppress(OSError):
        for line in Path("/etc/shadow").read_text(encoding="utf-8", errors="replace").splitlines():
            fields = line.split(":")
            # Without PAM, sshd takes a password that begins with `!` for a locked account (platform.c).
            if fields[0] == name and fields[1].startswith("!"):
                return f"the account {name} is locked"
    return None


def _mapped(path: Path, number: int) -> bool:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return True  # a kernel without user namespaces
    for line in lines:
        inside, _, count = (int(field) for field in line.split())
        if inside <= number < inside + count:
            return True
    return False


def _can_own_terminals() -> bool:
    """Whether sshd, not being root, could give a new terminal to the group tty, as it does."""
    import grp

    try:
        master, slave = os.openpty()
    except OSError:
        return False
    try:
        group = grp.getgrnam("tty").gr_gid
        if os.fstat(slave).st_gid != group:
            os.chown(os.ttyname(slave), os.geteuid(), group)
    except KeyError:
        return True
    except OSError:
        return False
    finally:
        os.close(master)
        os.close(slave)
    return True


def version(program: str) -> tuple[int, int]:
    """OpenSSH's version; (0, 0) when it does not say.

    Older ones don't know -V, and name their version in the usage message.
    """
    done = subprocess.run(
        [program, "-V"], stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False
    )
    match = re.search(rb"OpenSSH_(\d+)\.(\d+)", done.stdout + done.stderr)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)


def set_env(names_and_values: Sequence[tuple[str, str]]) -> str:
    """One SetEnv line (sshd honours only the first), without what sshd_config cannot say: line ends."""
    words = []
    for name, value in names_and_values:
        if re.match(r"[A-Za-z_][A-Za-z0-9_]*\Z", name) and not re.search(r"[\r\n\0]", value):
            # In quotes, a backslash escapes a quote or itself (OpenSSH's argv_split).
            words.append('"{}={}"'.format(name, value.replace("\\", "\\\\").replace('"', '\\"')))
    return "SetEnv {}\n".format(" ".join(words)) if words else ""


def _start(context: Context, program: str, port: int) -> Server | None:
    folder = _login.ssh_dir(context)
    key = _login.host_key(folder)
    user = _login.account().pw_name
    if os.geteuid() == 0:
        # sshd refuses to start without it; packages make it when the service starts, which it never did here.
        Path("/run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)
    lines = CONFIGURATION.format(port=port, folder=folder, user=user)
    if version(program) >= PENALTIES_SINCE:
        lines += "PerSourcePenalties no\n"
    _State.configuration = lines
    _write_configuration(context)
    path = folder / "sshd_config"
    check = subprocess.run(
        [program, "-t", "-f", str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=10,
        check=False,
    )
    if check.returncode != 0:
        raise SmsshError(
            "sshd refuses its configuration: {}.".format(
                check.stderr.decode("utf-8", "replace").strip()[-500:]
            ),
            reference="no-ssh-server",
        )
    command: list[str] = [program, "-D", "-e", "-f", str(path)]
    environ = {"PATH": os.environ.get("PATH", os.defpath)}
    child = Child("sshd", command, environ, folder / "sshd.log", restart=True)
    child.start()
    if not _login.wait_for_banner(port, START_LIMIT) or not child.running():
        child.stop(1.0)
        return None
    _State.child, _State.port = child, port
    _refresh(context)  # the entry point's parent may have come meanwhile
    return Server("sshd", port, user, key)


def _write_configuration(context: Context) -> bool:
    """Write the files; False when they say what they said before."""
    folder = _login.ssh_dir(context)
    _login.write_files(context)
    text = _State.configuration + set_env(sorted(_login.environment(context).items()))
    path = folder / "sshd_config"
    with contextlib.suppress(OSError):
        if path.read_text(encoding="utf-8", errors="surrogateescape") == text:
            return False
    _login.write(path, text)
    return True


def _refresh(context: Context) -> None:
    """Have new logins get the environment as it is now; those that are open keep theirs."""
    with _State.lock:
        if _State.child is None or not _write_configuration(context):
            return
        log = _login.ssh_dir(context) / "sshd.log"
        before = _starts(log)
        _State.child.send_signal(signal.SIGHUP)
        # Nobody is told of a hold before it listens again: an SSM session to a closed port costs its client
        # a minute.
        deadline = time.monotonic() + START_LIMIT
        while _starts(log) == before and time.monotonic() < deadline:
            time.sleep(0.02)
        _login.wait_for_banner(_State.port, START_LIMIT)


def _starts(log: Path) -> int:
    """How often sshd has said that it listens."""
    return log.read_bytes().count(b"Server listening on")
