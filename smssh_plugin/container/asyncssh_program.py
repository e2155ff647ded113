"""The program of the SSH server that `asyncssh_server` starts: FOLDER PORT [CONTROL-PORT].

It serves one account, by key only, on loopback. asyncssh is on sys.path; nothing of the supervisor is imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import pty
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import termios
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

import asyncssh

from ..files import write_atomically
from . import authorized_keys

CHUNK = 65536
KEEP_SECONDS = 12.0
"""How long the first copy waits until the job's code is kept as it is."""
TERMINAL_LINGER = 0.2
"""Seconds without output after which a terminal whose shell has ended is closed."""


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM.

    Args:
        arguments: the folder with authorized_keys, the session script and the host key; the port; the control
            port, if it is to have one.
    """
    # At INFO, asyncssh logs every command that people run.
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    # Where the relative names of copies begin, and what files that are copied here may be, as with sshd.
    with contextlib.suppress(OSError, KeyError):
        os.chdir(os.environ["HOME"])
    asyncio.run(_serve(Path(arguments[0]), *map(int, arguments[1:])))


async def _serve(folder: Path, port: int, control: int = 0) -> None:
    user, shell = _account()
    _extend(asyncssh.SSHServerChannel)
    key = _host_key(folder / "host_ed25519")
    os.umask(0o022)

    async def handle_process(process: Any) -> None:
        await Session(process, folder, user, shell).run()

    async def listen(port: int) -> Any:
        access = partial(_Access, user, folder / "authorized_keys")
        return await _listen(port, key, access, handle_process, partial(_Files, folder.parent))

    servers = [await listen(port)]
    try:
        if control:
            servers.append(await listen(control))
    except OSError as error:  # somebody has taken it since it was free
        logging.getLogger("smssh").warning("no control port: %s", error)
        control = 0
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    public = " ".join(key.export_public_key().decode("ascii").split()[:2])
    answer = {"port": port, "control_port": control, "user": user, "host_key": public}
    write_atomically(folder / "asyncssh.json", json.dumps(answer))
    await stopped.wait()
    for server in servers:
        server.close()


async def _listen(
    port: int,
    key: Any,
    access: Callable[[], _Access],
    handle_process: Callable[[Any], Any],
    files: Callable[[Any], _Files],
) -> Any:
    # A socket of our own: it is not an error of asyncssh's that the port of a server that was killed is still
    # in use by the connections that it had.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return await asyncssh.create_server(
        access,
        sock=listener,
        server_host_keys=[key],
        # OpenSSH's client says only to what calls itself so that the reader of the output is gone; see _extend.
        server_version=f"OpenSSH-like_AsyncSSH_{asyncssh.__version__}",
        process_factory=handle_process,
        sftp_factory=files,
        allow_scp=True,
        agent_forwarding=True,
        encoding=None,
        line_editor=False,
        keepalive_interval=60,
        login_timeout=60,
    )


class _Files(asyncssh.SFTPServer):  # type: ignore[misc]
    """SFTP that says how it ended: without an exit status, OpenSSH's scp (9.0 on) fails after copying.

    Args:
        run: the container's private folder.
        channel: asyncssh's channel.
    """

    def __init__(self, run: Path, channel: Any) -> None:
        # As the session script does, which is not run for this: the code is kept before it may be changed.
        if not (run / "code" / "kept").exists():
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(
                    [str(run / "bin" / "smssh-hook"), "logged-in"],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=KEEP_SECONDS,
                    check=False,
                )
        super().__init__(channel)
        self._smssh_channel = channel

    def exit(self) -> None:
        """End of the session."""
        super().exit()
        self._smssh_channel.exit(0)


class _Access(asyncssh.SSHServer):  # type: ignore[misc]
    """One account, by key only; every kind of forwarding that the key permits.

    Args:
        user: the name of the account.
        keys: the file of the keys.
    """

    def __init__(self, user: str, keys: Path) -> None:
        self._user = user
        self._keys = keys

    def connection_made(self, connection: Any) -> None:
        self._connection = connection
        host, port = (connection.get_extra_info("peername") or ("nobody", 0))[:2]
        self._peer = f"{host} port {port}"
        self._logged_in = False

    def auth_completed(self) -> None:
        self._logged_in = True
        _log_login(f"Accepted publickey for {self._user} from {self._peer} ssh2")

    def connection_lost(self, _: Exception | None) -> None:
        if self._logged_in:
            _log_login(f"Disconnected from user {self._user} {self._peer}")

    def begin_auth(self, username: str) -> bool:
        if username == self._user:
            self._connection.set_authorized_keys(_authorized_keys(self._keys))
        return True

    def password_auth_supported(self) -> bool:
        return False

    def kbdint_auth_supported(self) -> bool:
        return False

    def connection_requested(self, *_: Any) -> bool:
        return True

    def server_requested(self, host: str, port: int) -> bool:  # noqa: ARG002 - a signature that others call
        # asyncssh does not know what `permitlisten` permits: nothing, then.
        return not self._connection.get_key_option("permitlisten") and host in (
            "",
            "localhost",
            "127.0.0.1",
            "::1",
        )

    def unix_connection_requested(self, _: str) -> bool:
        return self._may_forward_unix_sockets()

    def unix_server_requested(self, _: str) -> bool:
        return self._may_forward_unix_sockets()

    def _may_forward_unix_sockets(self) -> bool:
        forced = self._connection.get_certificate_option("force-command")
        permitted: bool = self._connection.check_key_permission(authorized_keys.UNIX_FORWARDING)
        return permitted and forced is None


def _log_login(line: str) -> None:
    """Say who comes and goes, in the words of OpenSSH's sshd: entrypoints/connections.py reads them."""
    with contextlib.suppress(OSError):  # a full disk
        os.write(2, f"{line}\n".encode())


def _authorized_keys(path: Path) -> Any:
    """The keys that may log in now, line by line: a line that asyncssh does not take costs only itself."""
    known = asyncssh.SSHAuthorizedKeys()
    for line in path.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        with contextlib.suppress(ValueError):  # said at the start, see asyncssh_server
            kept = authorized_keys.for_asyncssh(authorized_keys.parse(line), time.time())
            if kept is not None:
                known.load(kept)
    return known


def _host_key(path: Path) -> Any:
    """The private host key; made, and kept for a restart, where ssh-keygen could not."""
    if path.exists():
        return asyncssh.read_private_key(str(path))
    try:
        key = asyncssh.generate_private_key("ssh-ed25519")
    except Exception:  # noqa: BLE001 - the library below says in its own ways that FIPS mode has none
        key = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    write_atomically(path, key.export_private_key().decode("ascii"))
    return key


def _extend(channel: Any) -> None:
    """Teach asyncssh's channels some things; it finds them by the names of methods (2.21 to 2.24 looked at).

    A command that is not UTF-8, which it refuses: file names are any bytes. What the client asked for, which it forgets
    for a forced command. And OpenSSH's word that the reader of the output is gone (PROTOCOL, 2.1), without which
    `ssh HOST 'cat LOG' | head` goes on to the log's end.
    """

    def process_exec_request(self: Any, packet: Any) -> bool:
        command = packet.get_string().decode("utf-8", "surrogateescape")
        packet.check_end()
        return bool(self._start_session(command=command))

    start_session: Callable[..., Any] = getattr(channel, "_start_session", lambda *_, **__: False)

    def remember_and_start(self: Any, command: str | None = None, subsystem: str | None = None) -> bool:
        self.smssh_asked = subsystem if command is None else command
        return bool(start_session(self, command=command, subsystem=subsystem))

    def process_eow(self: Any, packet: Any) -> bool:
        packet.check_end()
        reader_gone = getattr(self, "smssh_reader_gone", None)
        if reader_gone is not None:
            reader_gone()
        return True

    if hasattr(channel, "_process_exec_request") and hasattr(channel, "_start_session"):
        channel._process_exec_request = process_exec_request  # noqa: SLF001 - see above
        channel._start_session = remember_and_start  # noqa: SLF001 - see above
    channel._process_eow_at_openssh_dot_com_request = process_eow  # noqa: SLF001 - see above


def _account() -> tuple[str, str]:
    """Name and shell of the user that runs this; images may be run with a user id that has no account."""
    try:
        found = pwd.getpwuid(os.geteuid())
        name, shell = found.pw_name, found.pw_shell
    except KeyError:
        name, shell = "sagemaker-user", ""
    if os.path.basename(shell) in ("", "nologin", "false") or not os.access(shell, os.X_OK):
        shell = shutil.which("bash", path="/bin:/usr/bin:/usr/local/bin") or "/bin/sh"
    return name, shell


class Session:
    """One `ssh` session: a command or a shell, with or without a terminal.

    Bytes are pumped here: asyncssh's redirection to StreamReaders drops the connection when the client reads slowly,
    because it then reads a second time from the one that has nothing to say (2.24).

    Args:
        process: asyncssh's side of it.
        folder: where the session script is; see `login_shell`.
        user: the name of the account.
        shell: the account's shell.
    """

    def __init__(self, process: Any, folder: Path, user: str, shell: str) -> None:
        self._process = process
        self._script = str(folder / "session")
        self._user = user
        self._shell = shell
        self._input = -1
        self._outputs: list[tuple[int, Any]] = []
        self._terminal = False
        self._terminal_name: str | None = None
        self._blocked = 0
        """How many outputs wait for the client to read on."""

    async def run(self) -> None:
        """Run it, pump bytes both ways, report how it ended."""
        process = self._process
        try:
            status = await self._run()
        except OSError as error:
            process.stderr.write(f"smssh: {error}\n".encode())
            process.exit(127)
            return
        name = _signal_name(-status)
        with contextlib.suppress(OSError):  # the client is gone
            if name:
                process.exit_with_signal(name)
            else:
                process.exit(status if status >= 0 else 128 - status)

    def _environment(self) -> dict[bytes, bytes]:
        """What sshd gives to the session script, which knows the rest."""
        process = self._process
        address, here = process.get_extra_info("peername"), process.get_extra_info("sockname")
        environ: dict[str, str | None] = {
            "SHELL": self._shell,
            "USER": self._user,
            "LOGNAME": self._user,
            "SSH_CLIENT": f"{address[0]} {address[1]} {here[1]}",
            "SSH_CONNECTION": f"{address[0]} {address[1]} {here[0]} {here[1]}",
            "SSH_ORIGINAL_COMMAND": getattr(process.channel, "smssh_asked", process.command),
            "SSH_AUTH_SOCK": process.get_extra_info("connection").get_agent_path(),
        }
        if self._terminal:
            environ["SSH_TTY"] = self._terminal_name
            environ["TERM"] = process.get_terminal_type() or "dumb"
        sent = {
            bytes(name): bytes(value)
            for name, value in process.channel.get_environment_bytes().items()
            if b"=" not in name and b"\0" not in name + value
        }
        if self._forced() is not None:
            # BASH_ENV is as good as a shell.
            sent = {name: value for name, value in sent.items() if name == b"LANG" or name.startswith(b"LC_")}
            own = process.get_extra_info("connection").get_key_option("environment", {})
            sent.update((_bytes(name), _bytes(value)) for name, value in own.items())
        return {
            **sent,
            **{_bytes(name): _bytes(value) for name, value in environ.items() if value is not None},
        }

    def _forced(self) -> str | None:
        """The command that the certificate, or the key, is restricted to."""
        connection = self._process.get_extra_info("connection")
        forced: str | None = connection.get_certificate_option(
            "force-command", connection.get_key_option("command")
        )
        return forced

    async def _run(self) -> int:
        """Start the script, and answer its exit status, negative for a signal."""
        theirs = (
            self._open_terminal() if self._process.get_terminal_type() is not None else self._open_pipes()
        )
        forced = self._forced()
        try:
            child = await asyncio.create_subprocess_exec(
                *("/bin/sh", self._script, *([] if forced is None else [forced])),
                stdin=theirs[0],
                stdout=theirs[1],
                stderr=theirs[2],
                env=self._environment(),
                cwd="/",
                start_new_session=True,
                preexec_fn=_take_terminal if self._terminal else _default_signals,
            )
        except BaseException:
            self._close()
            raise
        finally:
            for handle in set(theirs):
                os.close(handle)
        feed = asyncio.ensure_future(self._feed(child.pid))
        outputs = [asyncio.ensure_future(self._pump(handle, sink)) for handle, sink in self._outputs]
        self._process.channel.smssh_reader_gone = lambda: self._stop_reading(outputs[0])
        closed = asyncio.ensure_future(self._process.channel.wait_closed())
        waited = asyncio.ensure_future(child.wait())
        await asyncio.wait([waited, closed], return_when=asyncio.FIRST_COMPLETED)
        if waited.done():
            await self._let_out(outputs, closed)
        for task in (feed, closed, *outputs):
            task.cancel()
        await asyncio.gather(feed, closed, *outputs, return_exceptions=True)
        # A client that went away ends its command as with sshd: a terminal hangs up, a pipe breaks when it is
        # written to, and what does neither (a server that an IDE started) goes on.
        self._close()
        return await waited

    async def _let_out(self, outputs: Sequence[asyncio.Future[None]], closed: asyncio.Future[Any]) -> None:
        """Until the rest of the output is with the client, or the client is gone.

        What a command left in the background may keep its pipes open: as with sshd, they are waited for. A
        terminal is not: its shell has ended.
        """
        everything = asyncio.gather(*outputs, return_exceptions=True)
        while True:
            pause = TERMINAL_LINGER if self._terminal else None
            await asyncio.wait([everything, closed], timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            if everything.done() or closed.done() or not self._blocked:
                return

    def _stop_reading(self, output: asyncio.Future[None]) -> None:
        """The client has nobody for the output any more: the command's next write must fail."""
        if not self._terminal and self._outputs:
            output.cancel()
            output.add_done_callback(lambda _: self._close_output())

    def _close_output(self) -> None:
        if len(self._outputs) == 2:  # else all is closed
            os.close(self._outputs.pop(0)[0])

    def _open_terminal(self) -> tuple[int, int, int]:
        self._terminal = True
        ours, theirs = pty.openpty()
        os.set_blocking(ours, False)
        with contextlib.suppress(OSError):  # it is of another /dev/pts
            self._terminal_name = os.ttyname(theirs)
        self._input = ours
        self._outputs = [(ours, self._process.stdout)]
        self._set_size(*self._process.get_terminal_size())
        set_modes(theirs, self._process.channel.get_terminal_modes())
        return theirs, theirs, theirs

    def _open_pipes(self) -> tuple[int, int, int]:
        their_input, self._input = os.pipe()
        output, their_output = os.pipe()
        error, their_error = os.pipe()
        for handle in (self._input, output, error):
            os.set_blocking(handle, False)
        self._outputs = [(output, self._process.stdout), (error, self._process.stderr)]
        return their_input, their_output, their_error

    def _close(self) -> None:
        handles = {self._input, *(handle for handle, _ in self._outputs)}
        self._input, self._outputs = -1, []
        for handle in handles - {-1}:
            os.close(handle)

    async def _feed(self, pid: int) -> None:
        """From the client to the command."""
        while True:
            try:
                data = await self._process.stdin.read(CHUNK)
            except asyncssh.TerminalSizeChanged as changed:
                self._set_size(changed.width, changed.height, changed.pixwidth, changed.pixheight)
                continue
            except asyncssh.SignalReceived as received:
                self._signal(pid, received.signal)
                continue
            except asyncssh.BreakReceived:
                if self._terminal:
                    termios.tcsendbreak(self._input, 0)
                continue
            except (OSError, asyncssh.Error):
                return
            if not data and self._terminal:
                data = b"\x04"  # the end of input is ^D to the reader of the terminal
                await self._write(data)
                return
            if not data:
                os.close(self._input)
                self._input = -1
                return
            await self._write(data)

    async def _write(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        while data:
            try:
                data = data[os.write(self._input, data) :]
            except BlockingIOError:  # noqa: PERF203 - the command reads slower than the client sends
                await _when(self._input, loop.add_writer, loop.remove_writer)
            except OSError:  # it reads no more
                return

    async def _pump(self, handle: int, sink: Any) -> None:
        """From the command to the client."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = os.read(handle, CHUNK)
            except BlockingIOError:
                await _when(handle, loop.add_reader, loop.remove_reader)
                continue
            except OSError:  # EIO: nobody has the terminal open any more
                return
            if not data:
                return
            sink.write(data)
            self._blocked += 1
            try:
                await sink.drain()
            finally:
                self._blocked -= 1
            await asyncio.sleep(0)  # the others' turn

    def _set_size(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        if self._terminal:
            size = struct.pack(
                "HHHH", *(min(max(value, 0), 65535) for value in (height, width, pixwidth, pixheight))
            )
            fcntl.ioctl(self._input, termios.TIOCSWINSZ, size)

    @staticmethod
    def _signal(pid: int, name: Any) -> None:
        number = getattr(signal, "SIG" + (name.decode() if isinstance(name, bytes) else str(name)), None)
        if number is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)


# Terminal modes of RFC 4254, section 8 (IUTF8: RFC 8160), by their number, under their names in termios.
_CHARACTERS = {
    **dict(
        enumerate(
            ["VINTR", "VQUIT", "VERASE", "VKILL", "VEOF", "VEOL", "VEOL2", "VSTART", "VSTOP", "VSUSP"], 1
        )
    ),
    **dict(enumerate(["VREPRINT", "VWERASE", "VLNEXT"], 12)),
    18: "VDISCARD",
}
_INPUT = "IGNPAR PARMRK INPCK ISTRIP INLCR IGNCR ICRNL IUCLC IXON IXANY IXOFF IMAXBEL IUTF8"
_OUTPUT = "OPOST OLCUC ONLCR OCRNL ONOCR ONLRET"
_LOCAL = "ISIG ICANON XCASE ECHO ECHOE ECHOK ECHONL NOFLSH TOSTOP IEXTEN ECHOCTL ECHOKE PENDIN"
_FLAGS = {
    0: dict(enumerate(_INPUT.split(), 30)),
    1: dict(enumerate(_OUTPUT.split(), 70)),
    3: dict(enumerate(_LOCAL.split(), 50)),
}
_IUTF8 = 0o40000
"""<asm-generic/termbits.h>; Python's termios has no name for it before 3.14."""


def set_modes(terminal: int, modes: Mapping[int, int]) -> None:
    """Give a new terminal the modes of the client's: the erase character, UTF-8, and so on.

    Args:
        terminal: a descriptor of it.
        modes: values by RFC 4254's numbers.
    """
    attributes = termios.tcgetattr(terminal)
    for number, name in _CHARACTERS.items():
        index = getattr(termios, name, None)
        if number in modes and index is not None:
            # 255 is RFC 4254's for none, 0 is Linux's.
            attributes[6][index] = bytes([0 if modes[number] >= 255 else modes[number]])
    for which, names in _FLAGS.items():
        for number, name in names.items():
            bit = _IUTF8 if name == "IUTF8" else getattr(termios, name, 0)
            if number in modes:
                attributes[which] = attributes[which] | bit if modes[number] else attributes[which] & ~bit
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)


async def _when(handle: int, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
    """Wait until a descriptor can be read, or written."""
    possible = asyncio.get_running_loop().create_future()

    def ready() -> None:
        if not possible.done():
            possible.set_result(None)

    add(handle, ready)
    try:
        await possible
    finally:
        remove(handle)


def _signal_name(number: int) -> str:
    """The name of a signal as SSH says it; '' for those without one, and for an ordinary end."""
    try:
        return signal.Signals(number).name[3:] if number > 0 else ""
    except ValueError:  # a real-time signal
        return ""


def _bytes(text: Any) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape")


def _default_signals() -> None:
    """In the fork: a server that was started with `&` has ^C ignored, and its children would have too."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _take_terminal() -> None:
    """In the fork, a session leader: make the terminal its own."""
    _default_signals()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
