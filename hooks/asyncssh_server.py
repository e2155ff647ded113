"""The SSH server for images without a usable sshd: asyncssh, in a process of its own.

As a module it is the plugin; run with `python -m smssh_plugin.hooks.asyncssh_server FOLDER` it is the
server. It needs no account, no privileges and no /dev/pts of a certain kind. asyncssh is the image's, or
comes from the bundle's wheels.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import json
import logging
import os
import platform
import pty
import pwd
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

from ..errors import SmsshError
from ..hookspecs import Context, Server, hookimpl
from . import _login
from ._child import Child, tail

START_LIMIT = 30.0
"""Seconds from the start of the server to its first connection; 0.4 s is usual."""
CHUNK = 65536

_log = logging.getLogger("smssh.asyncssh")


# ------------------------------------------------------------------------------------------------ the plugin


class _State:
    """The server of this supervisor; there is one supervisor in a process."""

    child: Child | None = None
    # The start runs in one thread, attempts of the entry point report in others.
    lock = threading.Lock()


@hookimpl
def smssh_start_server(context: Context) -> Server | None:
    """Start the server if the settings allow it and asyncssh is to be had."""
    if context.settings.ssh_server == "sshd":
        return None
    if not available(context):
        context.log.info("asyncssh is not used: neither the image nor the bundle has it")
        return None
    folder = _login.ssh_dir(context)
    ready = folder / "asyncssh.json"
    with contextlib.suppress(FileNotFoundError):
        ready.unlink()
    with contextlib.suppress(SmsshError):
        _login.host_key(folder)  # else the server makes one itself
    _write_files(context)
    environ = {
        name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if name in os.environ
    }
    # asyncssh asks for a home at its start, and an image may be run with a user id that has none.
    environ["HOME"] = os.environ.get("HOME") or str(context.run_dir)
    environ["PYTHONPATH"] = os.pathsep.join(part for part in (context.python_path, _wheels(context)) if part)
    command = [sys.executable, "-m", "smssh_plugin.hooks.asyncssh_server"]
    command += [str(folder), str(_login.free_port(context.settings.ssh_port))]
    child = Child("asyncssh", command, environ, folder / "asyncssh.log", restart=True)
    child.start()
    deadline = time.monotonic() + START_LIMIT
    while not ready.exists():
        if not child.running() or time.monotonic() >= deadline:
            child.stop(1.0)
            raise SmsshError(
                "asyncssh does not start: {}.".format(tail(folder / "asyncssh.log")),
                reference="no-ssh-server",
            )
        time.sleep(0.02)
    _State.child = child
    _write_files(context)  # the entry point's parent may have come meanwhile
    answer = json.loads(ready.read_text(encoding="utf-8"))
    return Server("asyncssh", int(answer["port"]), str(answer["user"]), str(answer["host_key"]))


@hookimpl
def smssh_before_entry_point(context: Context) -> None:
    """The job's environment may have grown: the toolkits add the SM_* variables."""
    if _State.child is not None:
        _write_files(context)


@hookimpl
def smssh_entry_point_failed(context: Context) -> None:
    """See `smssh_before_entry_point`: a hold follows, and people log in."""
    if _State.child is not None:
        _write_files(context)


@hookimpl
def smssh_stop() -> None:
    """Stop the server."""
    if _State.child is not None:
        _State.child.stop(2.0)


def available(context: Context) -> bool:
    """Whether asyncssh is in the image or in the bundle."""
    return importlib.util.find_spec("asyncssh") is not None or bool(_wheel_files(context))


def _wheel_files(context: Context) -> list[Path]:
    """The bundle's wheels for this Python and machine."""
    if context.bundle is None:
        return []
    own = f"{sys.version_info[0]}.{sys.version_info[1]}-{platform.machine()}"
    return sorted((context.bundle / "wheels" / own).glob("*.whl"))


def _wheels(context: Context) -> str:
    """A private folder with the bundle's wheels unpacked; '' when the image has asyncssh itself."""
    if importlib.util.find_spec("asyncssh") is not None:
        return ""
    folder = context.run_dir / "site"
    folder.mkdir(mode=0o700, exist_ok=True)
    for wheel in _wheel_files(context):
        with zipfile.ZipFile(str(wheel)) as archive:
            archive.extractall(str(folder))
    return str(folder)


def _write_files(context: Context) -> None:
    with _State.lock:
        _login.write_files(context)
        text = json.dumps(_login.environment(context))
        _login.write(_login.ssh_dir(context) / "environment.json", text)


# ------------------------------------------------------------------------------------------------ the server


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM.

    Args:
        arguments: the folder with authorized_keys, environment.json and the host key; the port, 0 for any.
    """
    # At INFO, asyncssh logs every command that people run.
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    asyncio.run(_serve(Path(arguments[0]), int(arguments[1])))


async def _serve(folder: Path, port: int) -> None:
    import asyncssh

    class Files(asyncssh.SFTPServer):  # type: ignore[misc]
        """SFTP that says how it ended: without an exit status, OpenSSH's scp (9.0 on) fails after copying."""

        def __init__(self, channel: Any) -> None:
            super().__init__(channel)
            self._smssh_channel = channel

        def exit(self) -> None:
            """End of the session."""
            super().exit()
            self._smssh_channel.exit(0)

    user, home, shell = _account()

    class Access(asyncssh.SSHServer):  # type: ignore[misc]
        """One account, by key only; every kind of forwarding."""

        def connection_made(self, connection: Any) -> None:
            self._connection = connection

        def begin_auth(self, username: str) -> bool:
            if username == user:
                self._connection.set_authorized_keys(str(folder / "authorized_keys"))
            return True

        def password_auth_supported(self) -> bool:
            return False

        def kbdint_auth_supported(self) -> bool:
            return False

        def connection_requested(self, *_: Any) -> bool:
            return True

        def server_requested(self, host: str, port: int) -> bool:  # noqa: ARG002 - a signature that others call
            return host in ("", "localhost", "127.0.0.1", "::1")

        def unix_connection_requested(self, _: str) -> bool:
            return True

        def unix_server_requested(self, _: str) -> bool:
            return True

    private = folder / "host_ed25519"
    key = (
        asyncssh.read_private_key(str(private))
        if private.exists()
        else asyncssh.generate_private_key("ssh-ed25519")
    )
    if not private.exists():
        handle = os.open(str(private), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "wb") as file:
            file.write(key.export_private_key())

    async def handle_process(process: Any) -> None:
        await Session(process, folder, home, shell).run()

    server = await asyncssh.create_server(
        Access,
        "127.0.0.1",
        port,
        server_host_keys=[key],
        process_factory=handle_process,
        sftp_factory=Files,
        allow_scp=True,
        agent_forwarding=True,
        encoding=None,
        line_editor=False,
        keepalive_interval=60,
        login_timeout=60,
    )
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    public = " ".join(key.export_public_key().decode("ascii").split()[:2])
    answer = {"port": server.sockets[0].getsockname()[1], "user": user, "host_key": public}
    new = folder / "asyncssh.new"
    new.write_text(json.dumps(answer), encoding="utf-8")
    new.replace(folder / "asyncssh.json")
    await stopped.wait()
    server.close()


def _account() -> tuple[str, str, str]:
    """Name, home and shell of whoever runs this; images may be run with a user id that has no account."""
    try:
        found = pwd.getpwuid(os.geteuid())
        name, home, shell = found.pw_name, found.pw_dir, found.pw_shell
    except KeyError:
        name, home, shell = "sagemaker-user", os.environ.get("HOME", "/"), ""
    if os.path.basename(shell) in ("", "nologin", "false") or not os.access(shell, os.X_OK):
        shell = "/bin/bash" if os.access("/bin/bash", os.X_OK) else "/bin/sh"
    # A mapped root (user namespace) is not let into the home of the real one; sshd, too, goes to / then.
    return name, home if os.access(home, os.R_OK | os.X_OK) else "/", shell


class Session:
    """One `ssh` session: a command or a shell, with or without a terminal.

    Bytes are pumped here: asyncssh's redirection to a StreamReader drops the connection under back-pressure.

    Args:
        process: asyncssh's side of it.
        folder: where environment.json is; read at each login, because the job's environment grows.
        home: the working directory.
        shell: the account's shell.
    """

    def __init__(self, process: Any, folder: Path, home: str, shell: str) -> None:
        self._process = process
        self._home = home
        self._shell = shell
        self._environ = self._environment(folder)
        self._terminal = -1

    async def run(self) -> None:
        """Run it, pump bytes both ways, report how it ended."""
        process = self._process
        try:
            if process.get_terminal_type() is None:
                status = await self._run_with_pipes()
            else:
                status = await self._run_with_terminal()
        except OSError as error:
            process.stderr.write(f"smssh: {error}\n".encode())
            process.exit(127)
            return
        except asyncio.CancelledError:
            process.close()
            raise
        if status < 0:
            process.exit_with_signal(signal.Signals(-status).name[3:])
        else:
            process.exit(status)

    def _environment(self, folder: Path) -> dict[str, str]:
        try:
            environ = dict(json.loads((folder / "environment.json").read_text(encoding="utf-8")))
        except (OSError, ValueError):
            environ = {"PATH": os.environ.get("PATH", os.defpath)}
        process = self._process
        user = process.get_extra_info("username")
        environ.update({"SHELL": self._shell, "USER": user, "LOGNAME": user})
        environ.setdefault("HOME", self._home)
        for name, value in process.env.items():
            environ[_plain(name)] = _plain(value)
        address, here = process.get_extra_info("peername"), process.get_extra_info("sockname")
        environ["SSH_CLIENT"] = f"{address[0]} {address[1]} {here[1]}"
        environ["SSH_CONNECTION"] = f"{address[0]} {address[1]} {here[0]} {here[1]}"
        agent = process.get_extra_info("connection").get_agent_path()
        if agent:
            environ["SSH_AUTH_SOCK"] = _plain(agent)
        if process.get_terminal_type() is not None:
            environ["TERM"] = _plain(process.get_terminal_type()) or "dumb"
        return environ

    def _command(self) -> list[str]:
        command = self._process.command
        if command is None:
            return ["-" + os.path.basename(self._shell)]  # a login shell, as sshd starts it
        return [os.path.basename(self._shell), "-c", _plain(command)]

    # ------------------------------------------------------------------------------ without a terminal

    async def _run_with_pipes(self) -> int:
        child = await asyncio.create_subprocess_exec(
            *self._command(),
            executable=self._shell,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environ,
            cwd=self._home,
            start_new_session=True,
            preexec_fn=_default_signals,
        )
        feed = asyncio.ensure_future(self._feed_pipe(child))
        outputs = [
            asyncio.ensure_future(self._pump(child.stdout, self._process.stdout)),
            asyncio.ensure_future(self._pump(child.stderr, self._process.stderr)),
        ]
        closed = asyncio.ensure_future(self._process.channel.wait_closed())
        waited = asyncio.ensure_future(child.wait())
        # A client that goes away takes its command with it, as sshd's SIGHUP does.
        await asyncio.wait([waited, closed], return_when=asyncio.FIRST_COMPLETED)
        if not waited.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGHUP)
        status = await waited
        # What a command left in the background may keep the pipes: as with sshd, until it or the client goes.
        await asyncio.wait(
            [asyncio.gather(*outputs, return_exceptions=True), closed], return_when=asyncio.FIRST_COMPLETED
        )
        for task in (feed, closed, *outputs):
            task.cancel()
        return status

    async def _feed_pipe(self, child: Any) -> None:
        import asyncssh

        while True:
            try:
                data = await self._process.stdin.read(CHUNK)
            except asyncssh.SignalReceived as received:
                self._signal(child.pid, received.signal)
                continue
            except (asyncssh.BreakReceived, asyncssh.TerminalSizeChanged):
                continue
            except (OSError, asyncssh.Error):
                break
            if not data:
                break
            try:
                child.stdin.write(data)
                await child.stdin.drain()
            except OSError:  # the command reads no more
                return
        child.stdin.close()

    @staticmethod
    async def _pump(source: Any, sink: Any) -> None:
        while True:
            data = await source.read(CHUNK)
            if not data:
                return
            sink.write(data)
            await sink.drain()

    # ------------------------------------------------------------------------------ with a terminal

    async def _run_with_terminal(self) -> int:
        self._terminal, slave = pty.openpty()
        try:
            self._set_size(*self._process.get_terminal_size())
            environ = dict(self._environ, SSH_TTY=os.ttyname(slave))
            child = await asyncio.create_subprocess_exec(
                *self._command(),
                executable=self._shell,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=environ,
                cwd=self._home,
                start_new_session=True,
                preexec_fn=_take_terminal,
            )
        finally:
            os.close(slave)
        os.set_blocking(self._terminal, False)
        feed = asyncio.ensure_future(self._feed_terminal(child))
        output = asyncio.ensure_future(self._pump_terminal())
        closed = asyncio.ensure_future(self._process.channel.wait_closed())
        waited = asyncio.ensure_future(child.wait())
        try:
            await asyncio.wait([waited, closed], return_when=asyncio.FIRST_COMPLETED)
            if not waited.done():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGHUP)
            status = await waited
            await asyncio.wait([output, closed], timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (feed, output, closed):
                task.cancel()
            await asyncio.gather(feed, output, closed, return_exceptions=True)
            os.close(self._terminal)
        return status

    async def _feed_terminal(self, child: Any) -> None:
        import asyncssh

        while True:
            try:
                data = await self._process.stdin.read(CHUNK)
            except asyncssh.TerminalSizeChanged as changed:
                self._set_size(changed.width, changed.height, changed.pixwidth, changed.pixheight)
                continue
            except asyncssh.SignalReceived as received:
                self._signal(child.pid, received.signal)
                continue
            except asyncssh.BreakReceived:
                termios.tcsendbreak(self._terminal, 0)
                continue
            except (OSError, asyncssh.Error):
                return
            if not data:
                # The end of input is ^D to whoever reads the terminal.
                data = b"\x04"
                await self._write_terminal(data)
                return
            await self._write_terminal(data)

    async def _write_terminal(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._terminal, data) :]
            except BlockingIOError:  # noqa: PERF203 - the terminal's buffer is full
                await self._when(
                    asyncio.get_running_loop().add_writer, asyncio.get_running_loop().remove_writer
                )
            except OSError:
                return

    async def _pump_terminal(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = os.read(self._terminal, CHUNK)
            except BlockingIOError:
                await self._when(loop.add_reader, loop.remove_reader)
                continue
            except OSError:  # EIO: nobody has the terminal open any more
                return
            if not data:
                return
            self._process.stdout.write(data)
            await self._process.stdout.drain()

    async def _when(self, add: Any, remove: Any) -> None:
        """Wait until the terminal can be read or written."""
        possible = asyncio.get_running_loop().create_future()

        def ready() -> None:
            if not possible.done():
                possible.set_result(None)

        add(self._terminal, ready)
        try:
            await possible
        finally:
            remove(self._terminal)

    def _set_size(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        fcntl.ioctl(
            self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, pixwidth, pixheight)
        )

    def _signal(self, pid: int, name: str) -> None:
        number = getattr(signal, "SIG" + _plain(name), None)
        if number is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)


def _plain(text: Any) -> str:
    """The text of what asyncssh gives: text or bytes, depending on its version and on the encoding."""
    return text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else str(text)


def _default_signals() -> None:
    """In the fork: a server that was started with `&` has ^C ignored, and its children would have too."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _take_terminal() -> None:
    """In the fork, a session leader: make the terminal its own."""
    _default_signals()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
