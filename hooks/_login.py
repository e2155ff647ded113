"""What every login gets, whichever server lets it in: environment, account, host key, free port."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from ..errors import SmsshError

if TYPE_CHECKING:
    from pathlib import Path

    from ..hookspecs import Context

__all__ = [
    "account",
    "environment",
    "free_port",
    "host_key",
    "ssh_dir",
    "wait_for_banner",
    "write",
    "write_files",
]

LOGIN_SCRIPT = """\
# Run before the first prompt of an interactive login: a login shell's /etc/profile has replaced PATH.
export PATH={path}
unset PROMPT_COMMAND
case $PWD in
    "$HOME" | {home} | /) [ ! -d {code} ] || cd {code} ;;
esac
"""


def ssh_dir(context: Context) -> Path:
    """The private folder of the SSH server's files."""
    folder = context.run_dir / "ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def account() -> pwd.struct_passwd:
    """The account that people log in to: the one the job runs as.

    Raises:
        KeyError: the user id has no account, as in an image that is run with any id.
    """
    return pwd.getpwuid(os.geteuid())


def environment(context: Context) -> dict[str, str]:
    """The variables of a login: the job's own, smssh-hook on the PATH, and where the user's code lies."""
    variables = dict(context.environment)
    path = variables.get("PATH") or os.defpath
    own = str(context.run_dir / "bin")
    variables["PATH"] = path if path.split(os.pathsep)[0] == own else own + os.pathsep + path
    variables["SMSSH_CODE_DIR"] = context.code_dir
    variables["SMSSH_RUN_DIR"] = str(context.run_dir)
    variables["PROMPT_COMMAND"] = ". {}".format(_quoted(str(context.run_dir / "ssh" / "login.sh")))
    # The server says these itself, for each login.
    for name in ("USER", "LOGNAME", "SHELL", "MAIL", "TERM", "PWD"):
        variables.pop(name, None)
    if not os.path.isdir(variables.get("HOME", "")):
        variables.pop("HOME", None)
    return variables


def write_files(context: Context) -> None:
    """The files that both servers use: the keys that may log in, and what an interactive login runs."""
    folder = ssh_dir(context)
    write(folder / "authorized_keys", "".join(key + "\n" for key in context.authorized_keys))
    path = environment(context)["PATH"]
    try:
        home = account().pw_dir
    except KeyError:
        home = "/"
    script = LOGIN_SCRIPT.format(path=_quoted(path), home=_quoted(home), code=_quoted(context.code_dir))
    write(folder / "login.sh", script)


def host_key(folder: Path) -> str:
    """The public host key: made once by ssh-keygen, as type and base64.

    Raises:
        SmsshError: there is no ssh-keygen, or it failed.
    """
    private = folder / "host_ed25519"
    if not private.exists():
        program = shutil.which("ssh-keygen")
        if program is None:
            raise SmsshError("No ssh-keygen in this image.", reference="no-ssh-keygen")
        command = [program, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(private)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
        if done.returncode != 0:
            message = done.stderr.decode("utf-8", "replace").strip()
            raise SmsshError(f"ssh-keygen failed: {message}.", reference="no-host-key")
    return " ".join(private.with_suffix(".pub").read_text(encoding="ascii").split()[:2])


def free_port(wanted: int) -> int:
    """The port that is wanted, or for 0 one that is free on loopback now."""
    if wanted:
        return wanted
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_banner(port: int, seconds: float) -> bool:
    """Whether an SSH server greets on the port within `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2.0) as connection:
                if connection.recv(4) == b"SSH-":
                    return True
        except OSError:
            pass  # not listening yet
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)


def _quoted(text: str) -> str:
    """For a shell, always in quotes (shlex.quote leaves plain words bare, which hides mistakes here)."""
    return "'" + re.sub("'", "'\"'\"'", text) + "'"


def write(path: Path, text: str) -> None:
    """Write a private file, whole or not at all."""
    new = path.with_name(path.name + ".new")
    handle = os.open(str(new), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    os.replace(str(new), str(path))
