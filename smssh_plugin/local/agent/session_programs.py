"""Programs that sessions start: what of, as which user, in which environment.

After agent/session/shell/shell_unix.go of the real agent, except for one thing: that one makes a user `ssm-user`
with the rights of root if there is no such user. The fake agent runs on developers' machines and makes no users; it
uses `ssm-user` where that exists, and stays who it is elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import signal
import subprocess
from typing import TYPE_CHECKING, Any

from ...errors import SmsshError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .session_kind import Task

__all__ = ["boolean", "commands_of", "kill", "linux", "split", "start"]

USER = "ssm-user"


def linux(task: Task) -> dict[str, Any]:
    """The part of a document's properties that is for Linux.

    Raises:
        SmsshError: it is not an object.
    """
    properties = task.properties or {}
    found = properties.get("linux") or {} if isinstance(properties, dict) else None
    if not isinstance(found, dict):
        raise SmsshError(f"Invalid format in session properties {task.properties}")
    return found


def commands_of(settings: dict[str, Any], task: Task) -> str:
    """The document's commands.

    Raises:
        SmsshError: there are no commands.
    """
    commands = str(settings.get("commands") or "")
    if not commands.strip():
        raise SmsshError(f"Commands cannot be empty for session type {task.session_type}")
    return commands


def split(commands: str) -> list[str]:
    """The words of a command that no shell reads.

    Raises:
        SmsshError: a quote is missing.
    """
    try:
        return shlex.split(commands)
    except ValueError as error:
        raise SmsshError(f"Unable to start command: Failed to parse commands input: {error}") from error


def boolean(value: Any) -> bool:
    """A setting that documents write as a boolean or as its text.

    Raises:
        SmsshError: neither.
    """
    if value in (None, "", False, "false", "False"):
        return False
    if value in (True, "true", "True"):
        return True
    raise SmsshError(f"{value!r} is neither true nor false")


def start(
    argv: list[str],
    task: Task,
    *,
    stdin: int,
    stdout: int,
    stderr: int,
    preexec: Callable[[], None] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own.

    Raises:
        SmsshError: it does not start, or not as the user that the document wants.
    """
    environment = _environment()
    account: dict[str, Any] = {}
    if linux(task).get("runAsElevated"):
        environment["HOME"] = "/root"
    elif not task.configuration.container:
        account = _account(task)
        name = account.get("user") or ("" if os.geteuid() == 0 else _own_name())
        if name:
            environment["HOME"] = f"/home/{name}"
    try:
        return subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            start_new_session=True,
            preexec_fn=preexec,  # noqa: PLW1509 - a session's process has one thread
            **account,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise SmsshError(f"Unable to start command: {error}") from error


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a program and what it started, in its process group, and wait for it."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _environment() -> dict[str, str]:
    environment = {**os.environ, "TERM": "xterm-256color"}
    if not environment.get("LANG"):
        environment["LANG"] = "C.UTF-8"
    return environment


def _account(task: Task) -> dict[str, Any]:
    """The arguments that make subprocess change to the session's user; none to stay."""
    wanted = (
        str(task.inputs.get("runAsDefaultUser") or "") if boolean(task.inputs.get("runAsEnabled")) else None
    )
    if wanted == "":
        raise SmsshError("Unable to start command: please set the RunAs default user")
    if wanted is not None and os.geteuid() != 0:
        raise SmsshError("Unable to start command: the agent must run as root to use RunAs")
    name = wanted or USER
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        if wanted is None:
            return {}
        raise SmsshError(
            f"Unable to start command: failed to start pty since RunAs user {wanted} does not exist"
        ) from None
    if os.geteuid() != 0:
        return {}
    groups = os.getgrouplist(name, entry.pw_gid)
    return {"user": name, "group": entry.pw_gid, "extra_groups": groups}


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""
