"""The SSH server for images without a usable sshd: asyncssh, in a process of its own (`container.asyncssh_program`).

It needs no account, no privileges and no /dev/pts of a certain kind. asyncssh is the image's, or comes from the
bundle's wheels. Nothing of asyncio is imported here: the supervisor needs none.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Mapping, Sequence

from ..container import authorized_keys, login_shell
from ..container.asyncssh_package import available, unpacked
from ..container.child import Child, tail
from ..errors import SmsshError
from ..hookspecs import Context, Failure, Server, hookimpl

if TYPE_CHECKING:
    from pathlib import Path

START_LIMIT = 30.0
"""Seconds from the start of the server to its first connection; 0.4 s is usual."""


class _State:
    """The server of this supervisor; there is one supervisor in a process."""

    child: Child | None = None
    command: Sequence[str] = ()
    """The entry point's, once it is known."""


@hookimpl
def smssh_start_server(context: Context) -> Server | None:
    """Start the server if the settings allow it and asyncssh is available."""
    if context.settings.ssh_server == "sshd":
        return None
    if not available(context):
        context.log.info("asyncssh is not used: neither the image nor the bundle has it")
        return None
    folder = login_shell.ssh_dir(context)
    with contextlib.suppress(SmsshError):
        login_shell.host_key(folder)  # else the server makes one itself
    _say_what_is_left_out(context)
    login_shell.write_files(context, context.authorized_keys, _State.command)
    environ = {
        name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if name in os.environ
    }
    # asyncssh asks for a home at its start, and an image may be run with a user id that has none.
    environ["HOME"] = login_shell.home(context)
    environ["TMPDIR"] = str(folder)  # for the sockets of forwarded agents, where /tmp cannot be written
    # Not `-m`, which would look for modules in the working directory.
    code = "import sys; sys.path[:] = sys.argv.pop(1).split(':') + sys.path[1:]; "
    code += "from smssh_plugin.container.asyncssh_program import main; main(sys.argv[1:])"
    path = os.pathsep.join(part for part in (context.python_path, unpacked(context)) if part)
    for attempt in range(3):
        # The port may be taken between its choice and its use.
        ports = map(str, login_shell.free_ports(context.settings.ssh_port))
        command = [sys.executable, "-E", "-s", "-c", code, path or "/nonexistent", str(folder), *ports]
        server = _start(command, environ, folder)
        if server is not None:
            # The entry point's parent may have come meanwhile.
            login_shell.write_files(context, context.authorized_keys, _State.command)
            return server
        context.log.info("asyncssh did not start (attempt %d)", attempt + 1)
    raise SmsshError(
        "asyncssh does not start: {}".format(tail(folder / "asyncssh.log")), reference="no-ssh-server"
    )


def _say_what_is_left_out(context: Context) -> None:
    """Who wonders why a key does not work here reads it in the job's log."""
    for entry in authorized_keys.entries(context):
        try:
            authorized_keys.for_asyncssh(entry, 0.0)
        except ValueError as error:  # noqa: PERF203 - a few keys
            message = f"a public key is left out: {error}"
            context.log.warning("%s: ...%s", message, entry.key[-40:])
            context.say(f"smssh: {message}")


def _start(command: Sequence[str], environ: Mapping[str, str], folder: Path) -> Server | None:
    ready = folder / "asyncssh.json"
    with contextlib.suppress(FileNotFoundError):
        ready.unlink()
    log = folder / "asyncssh.log"
    child = Child("asyncssh", command, environ, log, restart=True)
    child.start()
    deadline = time.monotonic() + START_LIMIT
    while not ready.exists():
        if not child.running() or time.monotonic() >= deadline:
            child.stop(1.0)
            return None
        time.sleep(0.02)
    _State.child = child
    answer = json.loads(ready.read_text(encoding="utf-8"))
    return Server(
        "asyncssh",
        int(answer["port"]),
        str(answer["user"]),
        str(answer["host_key"]),
        int(answer["control_port"]),
        log,
    )


@hookimpl
def smssh_before_entry_point(context: Context, command: Sequence[str]) -> None:
    """The job's environment may have grown: the toolkits add the SM_* variables."""
    _refresh(context, command)


@hookimpl
def smssh_entry_point_failed(context: Context, failure: Failure) -> None:
    """See `smssh_before_entry_point`: a hold follows, and people log in."""
    _refresh(context, failure.command)


def _refresh(context: Context, command: Sequence[str]) -> None:
    _State.command = tuple(command)
    if _State.child is not None:
        login_shell.write_files(context, context.authorized_keys, _State.command)


@hookimpl
def smssh_stop() -> None:
    """Stop the server."""
    if _State.child is not None:
        _State.child.stop(2.0)
