"""`smssh local`: start, use and stop the stand-in on this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import ExitStatus, SmsshError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..local.state import State, StateFolder

__all__ = ["local"]

Command = TypeVar("Command", bound="Callable[..., Any]")

_PORT = 4580
_START_SECONDS = 60.0
"""The longest that a start may take. It takes one to three seconds, most of them moto's import."""
_STOP_SECONDS = 45.0
"""The longest that a stop may take: jobs get SIGTERM, then a grace period, then SIGKILL."""
_LOG_TAIL = 20
"""Lines of the log that are shown when a start fails."""


@click.group()
def local() -> None:
    """SageMaker jobs, pipelines and Session Manager on this machine, for development and tests."""


def _port_option(default: int) -> Callable[[Command], Command]:
    return click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=default,
        show_default=True,
        help="Port on 127.0.0.1; 0 takes a free one.",
    )


_image_option = click.option(
    "--image",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="ENV_DIR",
    help="Python environment that plays the jobs' image.  [default: the one smssh runs in]",
)


@local.command()
@_port_option(_PORT)
@_image_option
@click.option("--foreground", is_flag=True, help="Do not go into the background; end with Ctrl-C.")
def up(port: int, image: Path | None, foreground: bool) -> None:
    """Start it, and print the variables that lead to it.

    Use: eval "$(smssh local up)"
    """
    folder = _folder()
    state = folder.read()
    if state is not None:
        click.echo(f"smssh local is already running at {state.endpoint} (process {state.pid}).", err=True)
        _print_exports(state, folder)
        return
    _check(port)
    env = (image or Path(sys.prefix)).absolute()
    if foreground:
        _serve_here(folder, port, env)
        return
    began = time.monotonic()
    state = _start(folder, port, env)
    seconds = time.monotonic() - began
    click.echo(f"smssh local is up at {state.endpoint} ({seconds:.1f} s; log: {folder.log_file}).", err=True)
    _print_exports(state, folder)


@local.command(context_settings={"ignore_unknown_options": True})
@_port_option(0)
@_image_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(port: int, image: Path | None, command: tuple[str, ...]) -> None:
    """Run COMMAND against it, as in: smssh local run -- python pipeline.py.

    Where none is up, one is started, and stopped when COMMAND has ended. The exit status is COMMAND's.
    """
    folder = _folder()
    state = folder.read()
    if state is not None:
        sys.exit(_run_command(command, state, folder))
    _check(port)
    with _started(folder, port, (image or Path(sys.prefix)).absolute()) as state:
        status = _run_command(command, state, folder)
    sys.exit(status)


@local.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Say whether it is running; exit status 3 if it is not."""
    folder = _folder()
    state = folder.read()
    if as_json:
        facts = {} if state is None else {**asdict(state), "log": str(folder.log_file)}
        click.echo(json.dumps({"version": 1, "running": state is not None, **facts}))
    elif state is None:
        click.echo("smssh local is not running.")
    else:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.started))
        click.echo(f"smssh local is running at {state.endpoint} since {since}.")
        click.echo(f"  process {state.pid}, image {state.image_env}, log {folder.log_file}")
        click.echo(f"  agents' channels {state.channels}, certified by {state.authority}")
    if state is None:
        sys.exit(ExitStatus.NOT_FOUND)


@local.command()
def down() -> None:
    """Stop it, and every job in it."""
    folder = _folder()
    state = folder.read()
    if state is None:
        click.echo("smssh local is not running.", err=True)
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(state.pid, signal.SIGTERM)
    if not _gone(state, folder):
        raise SmsshError(
            f"smssh local (process {state.pid}) did not stop within {_STOP_SECONDS:.0f} seconds",
            hint=f"see {folder.log_file}; then: kill -KILL {state.pid}",
            reference="stand-in-does-not-stop",
            status=ExitStatus.TIMEOUT,
        )
    click.echo("smssh local has stopped.", err=True)


def _folder() -> StateFolder:
    from ..local.state import StateFolder

    folder = StateFolder()
    folder.make()
    return folder


def _check(port: int) -> None:
    """See early what would stop it from starting.

    Raises:
        SmsshError: the extra is not installed, no namespaces can be had, the port is in use.
    """
    for module in ("aiohttp", "moto", "flask"):
        if importlib.util.find_spec(module) is None:
            raise SmsshError(
                f"smssh local needs the package {module}, which is not installed",
                hint='pip install "smssh-plugin[local]"',
                reference="extra-not-installed",
                status=ExitStatus.USAGE,
            )
    from ..local.sandbox import check_support

    check_support()
    with socket.socket() as probe:
        # As the server will: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            from ..local.state import port_in_use

            raise port_in_use(port) from None


def _serve_here(folder: StateFolder, port: int, image: Path) -> None:
    import logging

    from ..local import server

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    before = dict(os.environ)
    server.run(server.Config(folder.path, port, image), lambda state: _print_exports(state, folder, before))


def _start(folder: StateFolder, port: int, image: Path, lifeline: int | None = None) -> State:
    """Start one in the background and wait until it answers.

    Args:
        folder: its folder.
        port: its port.
        image: the image's environment.
        lifeline: the reading end of a pipe; it ends when the writing end is closed.

    Raises:
        SmsshError: it did not start.
    """
    from ..local.state import State

    reading, writing = os.pipe()
    command = [sys.executable, "-m", "smssh_plugin.local.server"]
    command += [
        "--folder",
        str(folder.path),
        "--port",
        str(port),
        "--image",
        str(image),
        "--report",
        str(writing),
    ]
    passed = [writing]
    if lifeline is not None:
        command += ["--lifeline", str(lifeline)]
        passed.append(lifeline)
    with open(folder.log_file, "wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=passed,
            start_new_session=True,
            cwd=folder.path,
        )
    os.close(writing)
    try:
        line = _read_line(reading)
    except BaseException:
        process.terminate()
        raise
    finally:
        os.close(reading)
    if line is None:
        process.kill()
        raise SmsshError(
            f"smssh local did not start within {_START_SECONDS:.0f} seconds",
            hint=f"see {folder.log_file}",
            reference="stand-in-does-not-start",
            status=ExitStatus.TIMEOUT,
        )
    report = json.loads(line or "{}")
    if "ready" in report:
        return State(**report["ready"])
    process.wait()
    if "error" in report:
        error = report["error"]
        raise SmsshError(
            error["message"],
            hint=error["hint"],
            reference=error["reference"],
            status=ExitStatus(error["status"]),
        )
    tail = folder.log_file.read_text(errors="replace").splitlines()[-_LOG_TAIL:]
    raise SmsshError(
        "smssh local ended while it started:\n" + "\n".join(f"    {text}" for text in tail),
        hint=f"the whole log: {folder.log_file}",
        reference="stand-in-does-not-start",
    )


def _read_line(descriptor: int) -> str | None:
    """What comes through a pipe before its end; None if that takes too long."""
    deadline = time.monotonic() + _START_SECONDS
    parts: list[bytes] = []
    while True:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        part = os.read(descriptor, 65536)
        parts.append(part)
        if not part or part.endswith(b"\n"):
            return b"".join(parts).decode()


@contextlib.contextmanager
def _started(folder: StateFolder, port: int, image: Path) -> Iterator[State]:
    """One that ends with the block; it ends with this process too, however that ends."""
    reading, writing = os.pipe()
    try:
        try:
            state = _start(folder, port, image, lifeline=reading)
        finally:
            os.close(reading)
        click.echo(f"smssh local is up at {state.endpoint} for this command.", err=True)
        try:
            yield state
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(state.pid, signal.SIGTERM)
            if not _gone(state, folder):
                click.echo(f"smssh local (process {state.pid}) does not stop; it is killed.", err=True)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(state.pid, signal.SIGKILL)
    finally:
        os.close(writing)


def _run_command(command: tuple[str, ...], state: State, folder: StateFolder) -> int:
    """Run a command with the stand-in's variables; answers its exit status, 128 + N if a signal ended it.

    Ctrl-C is the command's: the terminal sends it SIGINT too, and we wait for what it makes of it. SIGTERM
    and SIGHUP are passed on.
    """
    from ..local.environment import client_environment, removed_variables

    environ = {name: value for name, value in os.environ.items() if name not in removed_variables()}
    environ |= client_environment(state.endpoint, folder.path)
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    # Before the command starts: a signal in between would end us and leave it.
    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        process = subprocess.Popen(command, env=environ)
        for number in early:
            process.send_signal(number)
        code = process.wait()
    except OSError as error:
        raise SmsshError(
            f"cannot run {command[0]}: {error.strerror}",
            reference="command-not-found",
            status=ExitStatus.NOT_FOUND,
        ) from None
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)
    return code if code >= 0 else 128 - code


def _gone(state: State, folder: StateFolder) -> bool:
    """Wait until a stand-in has stopped; False if that takes too long."""
    from ..local.state import process_birth

    deadline = time.monotonic() + _STOP_SECONDS
    while process_birth(state.pid) == state.birth:
        if time.monotonic() > deadline:
            return False
        # Of a child, this takes the exit status, so that it does not stay as a zombie.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(state.pid, os.WNOHANG)
        time.sleep(0.05)
    folder.read()  # removes the file of one that was killed
    return True


def _print_exports(state: State, folder: StateFolder, environ: Mapping[str, str] = os.environ) -> None:
    from ..local.environment import client_environment, exports, removed_variables

    click.echo(exports(client_environment(state.endpoint, folder.path, environ), removed_variables(environ)))
