"""`smssh local`: start, use and stop the local emulator on this machine."""

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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .. import streams
from ..errors import ExitStatus, SmsshError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..local.environment import Access
    from ..local.state import State, StateFolder, Users

__all__ = ["local"]

Command = TypeVar("Command", bound="Callable[..., Any]")

_UP_PORT = 4580
_MESSAGE_MEGABYTES = 1024 / 1e6
"""The size of an agent's message."""
_RUN_PORT = 0
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
    # No default for click: what is asked for must fit the one that is up, a default need not.
    return click.option(
        "--port",
        type=click.IntRange(0, 65535),
        help=f"Port on 127.0.0.1; 0 takes a free one.  [default: {default}]",
    )


def _image_options(command: Command) -> Command:
    """What jobs are started from."""
    for option in (
        click.option(
            "--known-images-only",
            is_flag=True,
            envvar="SMSSH_LOCAL_KNOWN_IMAGES_ONLY",
            help="Refuse jobs and models of images that --image does not name, with SageMaker's errors.",
        ),
        click.option(
            "--image",
            "images",
            multiple=True,
            metavar="[NAME=]FOLDER",
            help="The folder of an image: a Python environment, or a root folder (docker export). NAME is the image's"
            " URI, its repository:tag or its repository; without NAME, of all images that have none of their own."
            " May be given several times.  [default: the environment smssh runs in]",
        ),
    ):
        command = option(command)
    return command


def _manner_options(command: Command) -> Command:
    """How like AWS it is: what each of them switches off is on."""
    for option in (
        click.option(
            "--latency",
            type=click.FloatRange(0, 10_000),
            envvar="SMSSH_LOCAL_LATENCY",
            metavar="MS",
            help="Latency of a session's messages in milliseconds, each way.  [default: 3]",
        ),
        click.option(
            "--agent-rate",
            type=click.FloatRange(0),
            envvar="SMSSH_LOCAL_AGENT_RATE",
            metavar="MB_PER_S",
            help="Highest rate of a session of the fake agent; 0 for no limit.  [default: 1.024]",
        ),
        click.option(
            "--unsigned-clients",
            is_flag=True,
            envvar="SMSSH_LOCAL_UNSIGNED_CLIENTS",
            help="Accept versions of session-manager-plugin that do not sign data channels (before 1.2.764).",
        ),
        click.option(
            "--iam",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            envvar="SMSSH_LOCAL_IAM",
            metavar="FOLDER",
            help="Enforce the policies in FOLDER, as smssh setup --write FOLDER writes them.",
        ),
        click.option(
            "--as",
            "client",
            type=click.Choice(["person", "ci", "cleanup", "costs"]),
            help="Whose credentials to use, where policies are enforced.  [default: the administrator's]",
        ),
    ):
        command = option(command)
    return command


@dataclass(frozen=True)
class _Manner:
    """What the options say; None where one says nothing."""

    latency: float | None
    pace: float | None
    unsigned: bool
    image: Path | None
    images: dict[str, Path]
    known_images_only: bool
    iam: Path | None
    client: str | None

    @classmethod
    def of(
        cls,
        latency: float | None,
        agent_rate: float | None,
        unsigned_clients: bool,
        images: tuple[str, ...],
        known_images_only: bool,
        iam: Path | None,
        client: str | None,
    ) -> _Manner:
        """From the options, in their units.

        Raises:
            SmsshError: an image cannot be what was said.
        """
        from ..local.images import parse

        choice = parse(images)
        return cls(
            None if latency is None else latency / 1000,
            None if agent_rate is None else _MESSAGE_MEGABYTES / agent_rate if agent_rate else 0.0,
            unsigned_clients,
            choice.default,
            choice.named,
            known_images_only,
            iam,
            client,
        )

    @property
    def image_env(self) -> Path:
        """The default image."""
        return (self.image or Path(sys.prefix)).absolute()

    def arguments(self) -> list[str]:
        """For the server's process."""
        found = ["--image", str(self.image_env)]
        for name, folder in self.images.items():
            found += ["--named-image", name, str(folder)]
        found += ["--known-images-only"] if self.known_images_only else []
        found += [] if self.latency is None else ["--latency", str(self.latency)]
        found += [] if self.pace is None else ["--pace", str(self.pace)]
        found += [] if self.iam is None else ["--iam", str(self.iam.absolute())]
        return [*found, "--unsigned-clients"] if self.unsigned else found

    def check_images(self) -> None:
        """See early that the images are some.

        Raises:
            SmsshError: one is not.
        """
        from ..local.images import Images

        Images(self.image_env, self.images, known_only=self.known_images_only)

    def check(self, state: State) -> None:
        """See that one that runs is as asked for.

        Raises:
            SmsshError: it is not.
        """
        self._check_images(state)
        if self.latency is not None and self.latency != state.latency:
            asked = f"--latency {self.latency * 1000:g}"
            raise _not_as_asked(state, asked, f"has a latency of {state.latency * 1000:g} ms")
        if self.pace is not None and self.pace != state.pace:
            rate = f"at {_MESSAGE_MEGABYTES / state.pace:g} MB/s" if state.pace else "as fast as it goes"
            raise _not_as_asked(state, "--agent-rate", f"has an agent that sends {rate}")
        if self.unsigned and state.signed_clients:
            raise _not_as_asked(state, "--unsigned-clients", "wants clients to sign")
        if self.iam is not None and os.path.realpath(self.iam) != os.path.realpath(state.iam or os.devnull):
            fact = f"enforces {state.iam}" if state.iam else "enforces no policies"
            raise _not_as_asked(state, f"--iam {self.iam}", fact)

        if self.client is not None and self.client not in state.clients:
            raise _not_as_asked(state, f"--as {self.client}", "enforces no policies")

    def _check_images(self, state: State) -> None:
        if self.image is not None and os.path.realpath(self.image) != os.path.realpath(state.image_env):
            raise _not_as_asked(state, f"--image {self.image}", f"has the image {state.image_env}")
        for name, folder in self.images.items():
            known = state.images.get(name)
            if known is None or os.path.realpath(folder) != os.path.realpath(known):
                fact = f"has no image {name}" if known is None else f"has the image {name} in {known}"
                raise _not_as_asked(state, f"--image {name}={folder}", fact)
        if self.known_images_only and not state.known_images_only:
            raise _not_as_asked(state, "--known-images-only", "takes every image")


@local.command()
@_port_option(_UP_PORT)
@_image_options
@_manner_options
@click.option("--foreground", is_flag=True, help="Stay in the foreground; Ctrl-C ends it.")
def up(port: int | None, foreground: bool, **manner_options: Any) -> None:
    """Start the emulator and print its environment variables. It runs until `smssh local down`.

    Use: eval "$(smssh local up)"
    """
    folder = _folder()
    manner = _Manner.of(**manner_options)
    began = time.monotonic()
    with _joined(folder), folder.turn_to_start():
        state = _running(folder, port, manner)
        if state is not None:
            if state.temporary:  # a `run` started it, and would end it
                folder.write(replace(state, temporary=False))
            click.echo(f"smssh local is already running at {state.endpoint} (process {state.pid}).", err=True)
        elif not foreground:
            state = _start(folder, _UP_PORT if port is None else port, manner)
            took = f"{time.monotonic() - began:.1f} s; log: {folder.log_file}"
            click.echo(f"smssh local is up at {state.endpoint} ({took}).", err=True)
    if state is None:
        _serve_here(folder, _UP_PORT if port is None else port, manner)
    else:
        _print_exports(state, folder, client=manner.client)


@local.command(context_settings={"ignore_unknown_options": True})
@_port_option(_RUN_PORT)
@_image_options
@_manner_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(port: int | None, command: tuple[str, ...], **manner_options: Any) -> None:
    """Run COMMAND against the emulator.

    For example: smssh local run -- python pipeline.py. If no emulator runs, one is started. It is stopped when COMMAND
    and every other command that was run against it have ended. The exit status is COMMAND's.
    """
    folder = _folder()
    manner = _Manner.of(**manner_options)
    with _joined(folder) as users:
        with folder.turn_to_start():
            state = _running(folder, port, manner)
            if state is None:
                state = _start(folder, _RUN_PORT if port is None else port, manner, temporary=True)
                click.echo(f"smssh local is up at {state.endpoint} for this command.", err=True)
        try:
            status = _run_command(command, folder, _access(state, manner.client))
        finally:
            _leave(users, state, folder)
    sys.exit(status)


@local.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Say whether the emulator is running. The exit status is 3 if it is not."""
    folder = _folder()
    state = folder.read()
    if as_json:
        facts = {} if state is None else {**state.shown(), "log": str(folder.log_file)}
        click.echo(json.dumps({"version": 1, "running": state is not None, **facts}))
    elif state is None:
        click.echo("smssh local is not running.")
    else:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.started))
        click.echo(f"smssh local is running at {state.endpoint} since {since}.")
        click.echo(f"  process {state.pid}, image {state.image_env}, log {folder.log_file}")
        for name, path in state.images.items():
            click.echo(f"  image {name}: {path}")
        if state.known_images_only:
            click.echo("  other images are refused")
        if state.iam:
            click.echo(
                f"  enforces the policies in {state.iam}; credentials: --as {', --as '.join(state.clients)}"
            )
        click.echo(f"  agents' channels {state.channels}, certified by {state.authority}")
        if state.temporary:
            click.echo("  it ends with the last smssh local run that uses it")
    if state is None:
        sys.exit(ExitStatus.NOT_FOUND)


@local.command()
def down() -> None:
    """Stop the emulator and every job in it."""
    folder = _folder()
    state = folder.read()
    if state is None:
        click.echo("smssh local is not running.", err=True)
        return
    _send(state, signal.SIGTERM)
    if not _gone(state, folder):
        raise SmsshError(
            f"smssh local (process {state.pid}) did not stop within {_STOP_SECONDS:.0f} seconds",
            hint=f"see {folder.log_file}; then: kill -KILL {state.pid}",
            reference="emulator-does-not-stop",
            status=ExitStatus.TIMEOUT,
        )
    click.echo("smssh local has stopped.", err=True)


def _folder() -> StateFolder:
    from ..local.state import StateFolder

    folder = StateFolder()
    folder.make()
    return folder


@contextlib.contextmanager
def _joined(folder: StateFolder) -> Iterator[Users]:
    """Be a user of what runs in a folder, or will; one that is being stopped for want of users goes first.

    Raises:
        SmsshError: that takes too long.
    """
    deadline = time.monotonic() + _STOP_SECONDS
    with folder.users() as users:
        while not users.join():
            if time.monotonic() > deadline:
                raise SmsshError(
                    f"the smssh local before this one did not stop within {_STOP_SECONDS:.0f} seconds",
                    hint=f"see {folder.log_file}",
                    reference="emulator-does-not-stop",
                    status=ExitStatus.TIMEOUT,
                )
            time.sleep(0.05)
        yield users


def _leave(users: Users, state: State, folder: StateFolder) -> None:
    """Stop a temporary one if nobody else uses it."""
    if not users.alone() and users.join():
        return
    now = folder.read()
    if not (now or state).temporary or (now is not None and now.birth != state.birth):
        return
    _send(state, signal.SIGTERM)
    if not _gone(state, folder):
        click.echo(f"smssh local (process {state.pid}) does not stop; it is killed.", err=True)
        _send(state, signal.SIGKILL)


def _running(folder: StateFolder, port: int | None, manner: _Manner) -> State | None:
    """The one that runs, if one does.

    Raises:
        SmsshError: it is not as asked for.
    """
    state = folder.read()
    if state is None:
        return None
    if port and port != state.port:
        raise _not_as_asked(state, f"--port {port}", f"listens on port {state.port}")
    manner.check(state)
    return state


def _not_as_asked(state: State, asked: str, fact: str) -> SmsshError:
    """The error for an option that the one that runs does not meet."""
    return SmsshError(
        f"smssh local is already running (process {state.pid}) and {fact}",
        hint=f"run `smssh local down`, which stops its jobs; or leave out {asked}; or set SMSSH_HOME to another folder",
        reference="already-running",
        status=ExitStatus.USAGE,
    )


def _check(port: int, manner: _Manner) -> None:
    """See early what would stop it from starting.

    Raises:
        SmsshError: the extra is not installed, an image is not one, no namespaces can be made, the port is in use.
    """
    for module in ("aiohttp", "moto", "flask"):
        if importlib.util.find_spec(module) is None:
            raise SmsshError(
                f"smssh local needs the package {module}, which is not installed",
                hint='install it: pip install "smssh-plugin[local]"',
                reference="extra-not-installed",
                status=ExitStatus.USAGE,
            )
    from ..local.sandbox.container import check_support

    manner.check_images()
    if manner.client is not None and manner.iam is None:
        raise SmsshError(
            f"--as {manner.client} means nothing without policies",
            hint="add --iam FOLDER, a folder that smssh setup --write wrote",
            reference="no-policies",
            status=ExitStatus.USAGE,
        )
    if manner.iam is not None:
        from ..local.iam.account import read_account

        read_account(manner.iam)
    check_support()
    with socket.socket() as probe:
        # As the server will: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            from ..local.state import port_in_use

            raise port_in_use(port) from None


def _access(state: State, client: str | None) -> Access:
    """What leads a client to an emulator, with its own credentials; `manner.check` has seen that it has some."""
    if client is None:
        return state.access
    return state.access_of(client)


def _serve_here(folder: StateFolder, port: int, manner: _Manner) -> None:
    import logging

    _check(port, manner)
    from ..local import server

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    before = dict(os.environ)
    config = server.Config(
        folder.path,
        port,
        manner.image_env,
        signed_clients=not manner.unsigned,
        images=manner.images,
        known_images_only=manner.known_images_only,
        iam=None if manner.iam is None else manner.iam.absolute(),
    )
    if manner.latency is not None:
        config = replace(config, latency=manner.latency)
    if manner.pace is not None:
        config = replace(config, pace=manner.pace)
    server.run(config, lambda state: _print_exports(state, folder, before, client=manner.client))


def _start(folder: StateFolder, port: int, manner: _Manner, *, temporary: bool = False) -> State:
    """Start one in the background and wait until it answers.

    Args:
        folder: its folder.
        port: its port.
        manner: how like AWS it is.
        temporary: whether it ends with its last user.

    Raises:
        SmsshError: it did not start.
    """
    _check(port, manner)
    from ..local.state import State

    reading, writing = os.pipe()
    command = [sys.executable, "-m", "smssh_plugin.local.server"]
    command += [
        "--folder",
        str(folder.path),
        "--port",
        str(port),
        "--report",
        str(writing),
        *manner.arguments(),
    ]
    if temporary:
        command.append("--temporary")
    with open(folder.log_file, "wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[writing],
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
            reference="emulator-does-not-start",
            status=ExitStatus.TIMEOUT,
        )
    report = json.loads(line or "{}")
    if "ready" in report:
        return State(**report["ready"])
    process.wait()
    raise _start_failed(report, folder)


def _start_failed(report: dict[str, Any], folder: StateFolder) -> SmsshError:
    """What kept an emulator from starting: what it reports, or else the end of its log."""
    if "error" in report:
        error = report["error"]
        return SmsshError(
            error["message"],
            hint=error["hint"],
            reference=error["reference"],
            status=ExitStatus(error["status"]),
        )
    tail = folder.log_file.read_text(errors="replace").splitlines()[-_LOG_TAIL:]
    return SmsshError(
        "smssh local ended while it started:\n" + "\n".join(f"    {text}" for text in tail),
        hint=f"see the whole log: {folder.log_file}",
        reference="emulator-does-not-start",
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


def _run_command(command: tuple[str, ...], folder: StateFolder, access: Access) -> int:
    """Run a command with the local emulator's variables; answers its exit status, 128 + N if a signal ended it.

    Ctrl-C is the command's: the terminal sends it SIGINT too, and we wait for what it makes of it. SIGTERM
    and SIGHUP are passed on.
    """
    from ..local.environment import client_environment, removed_variables

    environ = {name: value for name, value in os.environ.items() if name not in removed_variables()}
    environ |= client_environment(access, folder.path)
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
        process = subprocess.Popen(command, stdin=streams.own_stdin(), env=environ)
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


def _send(state: State, number: int) -> None:
    """Send a signal to a local emulator; one that has ended is not an error."""
    if state.runs():
        with contextlib.suppress(ProcessLookupError):
            os.kill(state.pid, number)


def _gone(state: State, folder: StateFolder) -> bool:
    """Wait until a local emulator has stopped; False if that takes too long."""
    deadline = time.monotonic() + _STOP_SECONDS
    while state.runs():
        if time.monotonic() > deadline:
            return False
        # Of a child, this takes the exit status, so that it does not stay as a zombie.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(state.pid, os.WNOHANG)
        time.sleep(0.05)
    folder.read()  # removes the file of one that was killed
    return True


def _print_exports(
    state: State,
    folder: StateFolder,
    environ: Mapping[str, str] = os.environ,
    *,
    client: str | None = None,
) -> None:
    from ..local.environment import client_environment, exports, removed_variables

    variables = client_environment(_access(state, client), folder.path, environ)
    click.echo(exports(variables, removed_variables(environ)))
