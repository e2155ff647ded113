"""OpenSSH's sshd as a second server: loopback only, own port, own configuration, own host key.

Nothing of the image's SSH is touched: not port 22, not /etc/ssh, not ~/.ssh; MPI needs them.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path
from typing import Sequence

from ..errors import SmsshError
from ..files import write_atomically
from ..hookspecs import Context, Server
from . import authorized_keys, login_shell
from .asyncssh_package import available as asyncssh_available
from .child import Child, tail

START_LIMIT = 5.0
"""Seconds from the start of sshd to its greeting; 13 ms is usual."""


CHECK_LIMIT = 10.0
"""Seconds that sshd may take to check its configuration."""


NO_SHELL = ("nologin", "false")


NOT_DEMANDED = (
    *("SetEnv", "PerSourcePenalties", "KbdInteractiveAuthentication", "ChallengeResponseAuthentication"),
    *("UsePAM", "PermitUserEnvironment"),
)
"""Keywords that not every sshd knows; it is asked, and those that it refuses are left out."""


CONFIGURATION = """\
AddressFamily inet
ListenAddress 127.0.0.1
Port {port}
LogLevel INFO
HostKey "{folder}/host_ed25519"
AuthorizedKeysFile "{patterns}/authorized_keys"
PidFile none
StrictModes no
UsePAM no
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
ChallengeResponseAuthentication no
PermitRootLogin yes
PermitUserEnvironment no
AllowUsers {user}
AllowAgentForwarding yes
AllowTcpForwarding yes
AllowStreamLocalForwarding {unix_forwarding}
GatewayPorts no
X11Forwarding no
PrintMotd no
PrintLastLog no
UseDNS no
LoginGraceTime 60
MaxStartups 100:30:200
MaxSessions 100
MaxAuthTries 100
ClientAliveInterval 60
ClientAliveCountMax 3
AcceptEnv {accepted}
PerSourcePenalties no
SetEnv "HOME={folder}/start" SHLVL=1
"""


class _State:
    """The server of this supervisor; there is one supervisor in a process."""

    child: Child | None = None
    command: Sequence[str] = ()
    """The entry point's, once it is known."""
    sftp = ""


def find() -> str | None:
    """The sshd of the image; sshd wants to be started by its full path."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/sbin"])
    program = shutil.which("sshd", path=path)
    return None if program is None else os.path.realpath(program)


def start(context: Context, program: str) -> Server:
    """Start the sshd, restarted with a growing pause should it end.

    Raises:
        SmsshError: it refuses its configuration, or does not come to listen.
    """
    for attempt in range(3):
        # The port may be taken between its choice and its use.
        server = _start(context, program, *login_shell.free_ports(context.settings.ssh_port))
        if server is not None:
            return server
        context.log.info("sshd did not start (attempt %d)", attempt + 1)
    raise SmsshError(
        "sshd does not start: {}".format(tail(login_shell.ssh_dir(context) / "sshd.log")),
        reference="no-ssh-server",
    )


def unusable(context: Context, program: str) -> str | None:
    """Why this sshd cannot let anybody in here; None when it can."""
    try:
        account = login_shell.account()
    except KeyError:
        return f"user id {os.geteuid()} has no account"
    if os.path.basename(account.pw_shell) in NO_SHELL:
        return f"the account {account.pw_name} has no login shell"
    if not os.access(account.pw_shell or "/bin/sh", os.X_OK):
        return f"the shell of the account {account.pw_name}, {account.pw_shell}, is not there"
    reason = _unusable_as_root(account.pw_name) if os.geteuid() == 0 else None
    # What follows is not a reason to have no server, or another than was asked for: commands work all the same.
    if reason is None and context.settings.ssh_server == "auto" and asyncssh_available(context):
        if not login_shell.sftp_server(program):
            return "the image has no sftp-server"
        if os.geteuid() != 0 and not _can_own_terminals():
            return "it could not hand a terminal over (devpts without gid=5)"
    return reason


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


def _start(context: Context, program: str, port: int, control: int) -> Server | None:
    folder = login_shell.ssh_dir(context)
    key = login_shell.host_key(folder)
    user = login_shell.account().pw_name
    _State.sftp = login_shell.sftp_server(program)
    if not _State.sftp:
        context.log.warning("the image has no sftp-server: scp needs its option -O, and sftp does not work")
    (folder / "start").mkdir(mode=0o700, exist_ok=True)
    _write_files(context)
    path = folder / "sshd_config"
    write_atomically(path, configuration(context, port, user, _State.sftp, control))
    accept(program, path)
    command: list[str] = [program, "-D", "-e", "-f", str(path)]
    environ = {"PATH": os.environ.get("PATH", os.defpath)}
    log = folder / "sshd.log"
    child = Child("sshd", command, environ, log, restart=True)
    child.start()
    if not login_shell.wait_for_banner(port, START_LIMIT) or not child.running():
        child.stop(1.0)
        return None
    _State.child = child
    refresh(context, _State.command)  # the entry point's parent may have come meanwhile
    # sshd serves one port where the other one was taken meanwhile.
    if not login_shell.wait_for_banner(control, START_LIMIT):
        context.log.info("sshd has no control port: %s", tail(log))
        control = 0
    return Server("sshd", port, user, key, control, log)


def configuration(context: Context, port: int, user: str, sftp: str, control: int = 0) -> str:
    """What sshd is told, in keywords of OpenSSH 10; see `accept` for older ones.

    Args:
        context: the supervisor's context.
        port: its port on loopback.
        user: the one account that may log in.
        sftp: the program of its SFTP server; "" for none.
        control: its second port; 0 for none.
    """
    folder = str(login_shell.ssh_dir(context))
    text = CONFIGURATION.format(
        port=port,
        folder=folder,
        patterns=folder.replace("%", "%%"),
        user=user,
        accepted=_accepted(context),
        unix_forwarding=_unix_forwarding(context),
    )
    if control:
        text += f"Port {control}\n"
    # Not internal-sftp, which a forced command rules out.
    return text + (f'Subsystem sftp "{sftp}"\n' if sftp else "")


def _accepted(context: Context) -> str:
    """The variables that clients may send: sshd does not ask whose key it is, and BASH_ENV is as good as a shell."""
    forced = any(entry.forced is not None for entry in authorized_keys.entries(context))
    return "LANG LC_*" if forced else "*"


def _unix_forwarding(context: Context) -> str:
    """Whether Unix sockets may be forwarded: for all keys or for none, because sshd cannot tell by the key."""
    return "no" if any(entry.restricted for entry in authorized_keys.entries(context)) else "yes"


def accept(program: str, path: Path) -> None:
    """Make the configuration one that this sshd takes, and the folder that it wants to be there.

    Args:
        program: the sshd.
        path: the configuration; lines that it does not know, of those that can be missed, are taken out.

    Raises:
        SmsshError: it does not take what is left.
    """
    for _ in range(len(NOT_DEMANDED) + 2):
        check = subprocess.run(
            [program, "-t", "-f", str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CHECK_LIMIT,
            check=False,
        )
        if check.returncode == 0:
            return
        said = check.stderr.decode("utf-8", "replace")
        # As root, sshd refuses to start without it; packages make it when the service starts, which it never
        # did here.
        missing = re.search(r"Missing privilege separation directory: (/\S+)", said)
        if missing:
            if not _made(Path(missing.group(1))):
                break
            continue
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines(keepends=True)
        refused = {int(number) for number in re.findall(r" line (\d+): (?:Bad|Unsupported|Deprecated)", said)}
        kept = [
            line
            for number, line in enumerate(lines, 1)
            if number not in refused or line.split()[0] not in NOT_DEMANDED
        ]
        if len(kept) == len(lines):
            break
        write_atomically(path, "".join(kept))
    raise SmsshError(
        "sshd refuses its configuration: {}".format(" ".join(said.split())[-500:]), reference="no-ssh-server"
    )


def _made(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o755, parents=True)
    except OSError:
        return False
    folder.chmod(0o755)  # the umask may say less, and sshd refuses more
    return True


def refresh(context: Context, command: Sequence[str]) -> None:
    """Have new logins get the environment as it is now; those that are open keep theirs."""
    _State.command = tuple(command)
    if _State.child is not None:
        _write_files(context)


def _write_files(context: Context) -> None:
    def session_command(forced: str | None) -> str:
        return login_shell.session_command(context, forced)

    keys = [authorized_keys.for_sshd(entry, session_command) for entry in authorized_keys.entries(context)]
    login_shell.write_files(context, keys, _State.command, _State.sftp)


def stop() -> None:
    """Stop the server; logins that are open end with the container."""
    if _State.child is not None:
        _State.child.stop(2.0)
