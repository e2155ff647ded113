"""`connect(address)`: commands, files and forwarded ports of a job's container, for programs.

One `ssh` master a connection: all commands and copies share its login and its Session Manager session. The
master runs a remote `cat` whose input is a pipe that this process holds: when this process goes, however it
goes, the pipe closes and the master ends.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ..errors import ExitStatus, SmsshError
from . import identities, ssh
from .endpoint import Endpoint, reach
from .known_hosts import alias

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from ..aws.session import AwsSession
    from .nodes import Node
    from .tunnels import Tunnel

__all__ = ["Connection", "Result", "connect", "control"]

READY = b"smssh-connection-ready"
STOP_SECONDS = 5.0
CHUNK = 1 << 16

OnOutput = Callable[[str, bytes], None]


@dataclass(frozen=True)
class Result:
    """What a remote command ended with.

    Attributes:
        status: its exit status; 255 also where a signal ended it.
        stdout: all it wrote to standard output.
        stderr: all it wrote to standard error.
    """

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text, UTF-8; bytes that are none are shown as U+FFFD."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def error_text(self) -> str:
        """Standard error as text, the same way."""
        return self.stderr.decode("utf-8", "replace")


def connect(
    address: str,
    *,
    wait: float = 0.0,
    on_wait: Callable[[str], None] | None = None,
    timeout: float = 60.0,
    region: str | None = None,
    session: AwsSession | None = None,
) -> Connection:
    """Log in to a job's container.

    ```python
    with connect("my-job.training.sagemaker") as job:
        print(job.run("nvidia-smi").text)
        job.put("train.py", "/opt/ml/code/train.py")
    ```

    Args:
        address: `[<host>.]<job>.<kind>.sagemaker` or
            `[<host>.]<step>[.<execution>].<pipeline>.pipeline.sagemaker`.
        wait: seconds to wait for a job or step that has not started yet.
        on_wait: is told what is waited for.
        timeout: seconds the login may take.
        region: the AWS region; by default the environment's.
        session: an AWS session to use instead of a new one.

    Raises:
        SmsshError: NOT_FOUND, UNREACHABLE, REFUSED (the key, the host key, IAM) or TIMEOUT.
    """
    if session is None:
        from ..aws.session import AwsSession

        session = AwsSession(region)
    return Connection(reach(address, session, wait=wait, on_wait=on_wait), timeout=timeout)


def control(address: str, session: AwsSession, *, node: Node | None = None) -> Connection:
    """Log in for a command of smssh itself, which no hold waits for; see `reach`, which has the parameters.

    A session document of one's own may allow the SSH server's port and no other: then it is a login like any other.

    Raises:
        SmsshError: as `connect`.
    """
    try:
        return Connection(reach(address, session, node=node, control=True))
    except SmsshError as error:
        if not session.document("ssh", "") or error.status is not ExitStatus.UNREACHABLE:
            raise
    return Connection(reach(address, session, node=node))


class Connection:
    """A login that stays, and what can be done through it: a context manager, for any number of threads.

    Args:
        endpoint: where to log in.
        timeout: seconds the login may take.

    Raises:
        SmsshError: REFUSED, UNREACHABLE or TIMEOUT.
    """

    def __init__(self, endpoint: Endpoint, *, timeout: float = 60.0) -> None:
        self.endpoint = endpoint
        self._ssh = ssh.program("ssh")
        self._alias = alias(endpoint.address)
        self._tunnels: list[Tunnel] = []
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._folder = ssh.socket_folder()
        self._errors = bytearray()
        try:
            self._master = self._log_in_with_any_key(timeout)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether the login still stands."""
        return self._master.poll() is None

    def run(
        self,
        command: str | Sequence[str],
        *,
        input: bytes | str | None = None,  # noqa: A002 - the name that subprocess.run has for it
        timeout: float | None = None,
        on_output: OnOutput | None = None,
        limit: int | None = None,
    ) -> Result:
        """Run a command in the container and wait for it.

        Args:
            command: a line for the login shell, or words that it shall take literally.
            input: what it gets on standard input; nothing by default.
            timeout: seconds it may take; its remote end is hung up on then, and may go on if it ignores that.
            on_output: called as output comes, with "stdout" or "stderr" and a piece of it; one call at a
                time.
            limit: bytes that are kept of each of the two, the last ones; all by default.

        Raises:
            SmsshError: TIMEOUT, or UNREACHABLE where the connection was lost.
        """
        line = command if isinstance(command, str) else shlex.join(command)
        data = input.encode() if isinstance(input, str) else input
        return self._execute(
            [*self._words("ssh"), "-T", self._alias, "--", line], data, timeout, on_output, limit
        )

    def put(self, local: Path | str, remote: str, *, timeout: float | None = None) -> None:
        """Copy a file or a folder into the container, byte for byte, modes and times kept.

        Args:
            local: the file or folder here.
            remote: its path there (relative: to the login's home); where a folder is there already, it is put
                into that.
            timeout: seconds it may take.

        Raises:
            SmsshError: it could not be copied; TIMEOUT; UNREACHABLE.
        """
        source = Path(local)
        if not source.exists():
            raise SmsshError(
                f"cannot copy {source}: there is no such file or folder here", status=ExitStatus.USAGE
            )
        self._copy(f"put -rp {_sftp(source)} {_sftp(remote)}", f"copy {source} to {remote}", timeout)

    def get(self, remote: str, local: Path | str, *, timeout: float | None = None) -> None:
        """Copy a file or a folder out of the container, byte for byte, modes and times kept.

        Args:
            remote: its path there (relative: to the login's home).
            local: its path here; where a folder is here already, it is put into that.
            timeout: seconds it may take.

        Raises:
            SmsshError: it could not be copied; TIMEOUT; UNREACHABLE.
        """
        self._copy(f"get -rp {_sftp(remote)} {_sftp(local)}", f"copy {remote} to {local}", timeout)

    def forward(self, remote_port: int, local_port: int = 0) -> Tunnel:
        """Forward a loopback port of this machine to a port of the container, until `close` at the latest.

        Args:
            remote_port: the port in the container, on its loopback.
            local_port: the port here; 0: a free one, see `Tunnel.local_port`.

        Raises:
            SmsshError: REFUSED, UNREACHABLE, or the local port is taken.
        """
        from .tunnels import Tunnel

        tunnel = Tunnel(self.endpoint, remote_port, local_port=local_port)
        tunnel.start()
        with self._lock:
            self._tunnels.append(tunnel)
        return tunnel

    def close(self) -> None:
        """End running commands, tunnels and the login. Nothing is left behind; closing twice is fine."""
        with self._lock:
            tunnels, self._tunnels = self._tunnels, []
            running = list(self._running)
        for tunnel in tunnels:
            tunnel.stop()
        for process in running:
            process.kill()
        _end(self._master)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _log_in_with_any_key(self, timeout: float) -> subprocess.Popen[bytes]:
        """Log in with our own key; where the job refuses that, with the keys in `~/.ssh` and of the agent.

        One after the other: ssh offers an agent's keys first, and such a key may ask a person for a touch.
        """
        deadline = time.monotonic() + timeout
        self._configure({"IdentitiesOnly": "yes", "IdentityAgent": "none"}, [self.endpoint.key])
        try:
            return self._log_in(timeout, deadline)
        except SmsshError as error:
            if error.reference != "key-refused" or not identities.others(self.endpoint.key):
                raise
        self._errors.clear()
        self._configure({}, identities.offered(self.endpoint.key))
        return self._log_in(timeout, deadline)

    def _configure(self, which: dict[str, str], keys: Sequence[Path]) -> None:
        """Write the files that ssh reads: its whole configuration, and the one host key.

        Args:
            which: options about which keys are offered.
            keys: the files of private keys.
        """
        known = self._folder / "known_hosts"
        known.write_text(f"{self._alias} {self.endpoint.host_key}\n", encoding="ascii")
        chosen = ssh.options(self.endpoint, known)
        chosen.update(
            BatchMode="yes",
            ForwardAgent="no",
            ForwardX11="no",
            ClearAllForwardings="yes",
            EscapeChar="none",
            # INFO names the reason of a failed negotiation; the commands that ride on the master add nothing
            # of their own.
            LogLevel="INFO",
            ControlPath=ssh.quoted(self._folder / "s"),
            **which,
        )
        self._config = self._folder / "config"
        self._config.write_text(ssh.render(chosen, keys), encoding="utf-8")
        # The same for the commands that ride on the master; should it be gone, they fail instead of logging
        # in anew.
        riding = {**chosen, "ProxyCommand": "false", "ControlMaster": "no", "LogLevel": "ERROR"}
        (self._folder / "riding").write_text(ssh.render(riding, keys), encoding="utf-8")

    def _words(self, name: str) -> list[str]:
        """The beginning of a command line that rides on the master."""
        return [ssh.program(name), "-F", str(self._folder / "riding")]

    def _log_in(self, timeout: float, deadline: float) -> subprocess.Popen[bytes]:
        """Start the master and wait until it stands, or for the deadline of the monotonic clock."""
        master = subprocess.Popen(
            [
                self._ssh,
                "-F",
                str(self._config),
                "-M",
                "-T",
                self._alias,
                "--",
                f"echo {READY.decode()}; exec cat >/dev/null",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ssh.environment(),
            start_new_session=True,  # Ctrl-C is ours to handle, in order
        )
        assert master.stdout is not None
        assert master.stderr is not None
        seen = b""
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(master.stdout, selectors.EVENT_READ)
                selector.register(master.stderr, selectors.EVENT_READ)
                while READY not in seen:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise SmsshError(
                            f"logging in to {self.endpoint.address} took longer than {timeout:g} s",
                            hint=_last_words(self._errors) or "is the job still running? `smssh list`",
                            reference="login-timeout",
                            status=ExitStatus.TIMEOUT,
                        )
                    for key, _ in selector.select(left):
                        piece = os.read(key.fd, CHUNK)
                        if not piece:
                            selector.unregister(key.fileobj)
                        elif key.fileobj is master.stdout:
                            # Only a tail is kept: a login shell may greet at length.
                            seen = (seen + piece)[-CHUNK:]
                        else:
                            self._errors += piece
                    if not selector.get_map():
                        raise self._refused()
        except BaseException:
            _end(master)
            raise
        threading.Thread(target=self._drain, args=(master.stdout, None), daemon=True).start()
        threading.Thread(target=self._drain, args=(master.stderr, self._errors), daemon=True).start()
        return master

    def _drain(self, stream: IO[bytes], into: bytearray | None) -> None:
        """Read what the master still says, so that it never blocks; keep the end of it."""
        with contextlib.suppress(OSError, ValueError):
            while piece := os.read(stream.fileno(), CHUNK):
                if into is not None:
                    into += piece
                    del into[:-CHUNK]

    def _refused(self) -> SmsshError:
        """What kept the master from logging in, from what ssh and the proxy wrote."""
        text = self._errors.decode("utf-8", "replace")
        address = self.endpoint.address
        detail = _last_words(self._errors)
        if "Host key verification failed" in text or "HOST IDENTIFICATION HAS CHANGED" in text:
            return SmsshError(
                f"{address} shows another host key than its container announced: refusing to log in",
                hint="somebody may be in between, or the container was replaced; look at the job first",
                reference="host-key-mismatch",
                status=ExitStatus.REFUSED,
            )
        too_many = "Too many authentication failures" in text
        if "Permission denied (" in text or too_many:
            return SmsshError(
                f"{address} does not accept your SSH key {self.endpoint.key}, nor another of yours "
                f"(user {self.endpoint.user})",
                hint=identities.remedy(self.endpoint, too_many=too_many),
                reference="key-refused",
                status=ExitStatus.REFUSED,
            )
        if "no mutual signature" in text or "no matching host key type" in text:
            return SmsshError(
                f"{address} does not have the host key that its container announced: refusing to log in",
                hint=detail,
                reference="host-key-mismatch",
                status=ExitStatus.REFUSED,
            )
        return SmsshError(
            f"cannot log in to {address}: {detail or 'ssh said nothing'}",
            hint="is the job still running? `smssh list` shows what is online",
            reference="login-failed",
            status=ExitStatus.UNREACHABLE,
        )

    def _copy(self, batch: str, what: str, timeout: float | None) -> None:
        """Run one line of sftp's batch language."""
        words = [*self._words("sftp"), "-q", "-b", "-", self._alias]
        done = self._execute(words, batch.encode() + b"\n", timeout, None)
        if done.status:
            lines = [line for line in done.error_text.splitlines() if line.strip()]
            raise SmsshError(
                f"could not {what}: {lines[-1] if lines else f'sftp ended with {done.status}'}",
                reference="copy-failed",
            )

    def _execute(
        self,
        words: list[str],
        data: bytes | None,
        timeout: float | None,
        on_output: OnOutput | None,
        limit: int | None = None,
    ) -> Result:
        """Run a local program that rides on the master."""
        if not self.alive:
            raise self._lost()
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ssh.environment(),
            start_new_session=True,
        )
        with self._lock:
            self._running.add(process)
        kept = {"stdout": bytearray(), "stderr": bytearray()}
        try:
            in_time = _pump(process, data, timeout, kept, on_output, limit)
            if in_time:
                status = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            with self._lock:
                self._running.discard(process)
        if not in_time:
            raise SmsshError(
                f"a command in {self.endpoint.address} took longer than {timeout:g} s: {words[-1][:200]}",
                reference="command-timeout",
                status=ExitStatus.TIMEOUT,
            )
        # 255 is ssh's own word for trouble, and that of a remote command which a signal ended.
        if status == 255 and not self._stands():
            raise self._lost()
        if status < 0:  # killed here, by close()
            raise self._lost()
        last = slice(None) if limit is None else slice(-limit, None)
        return Result(status, bytes(kept["stdout"][last]), bytes(kept["stderr"][last]))

    def _stands(self) -> bool:
        """Whether the master answers."""
        if not self.alive:
            return False
        try:
            asked = subprocess.run(
                [*self._words("ssh"), "-O", "check", self._alias],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=ssh.environment(),
                timeout=STOP_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return asked.returncode == 0

    def _lost(self) -> SmsshError:
        return SmsshError(
            f"the connection to {self.endpoint.address} is gone",
            hint=_last_words(self._errors) or "the container may have ended; connect again",
            reference="connection-lost",
            status=ExitStatus.UNREACHABLE,
        )


def _pump(
    process: subprocess.Popen[bytes],
    data: bytes | None,
    timeout: float | None,
    kept: dict[str, bytearray],
    on_output: OnOutput | None,
    limit: int | None,
) -> bool:
    """Feed a process and collect its output until its pipes are closed; False: the time was over first."""
    deadline = None if timeout is None else time.monotonic() + timeout
    view = memoryview(data or b"")
    with selectors.DefaultSelector() as selector:
        for name, stream in (("stdout", process.stdout), ("stderr", process.stderr)):
            assert stream is not None
            selector.register(stream, selectors.EVENT_READ, name)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE, "stdin")
        while selector.get_map():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            for key, _ in selector.select(left):
                if key.data == "stdin":
                    try:
                        view = view[os.write(key.fd, view[:CHUNK]) :] if view else view
                    except BrokenPipeError:  # it does not want to read it all: its own affair
                        view = view[len(view) :]
                    if not view:
                        selector.unregister(key.fileobj)
                        assert process.stdin is not None
                        process.stdin.close()
                    continue
                piece = os.read(key.fd, CHUNK)
                if not piece:
                    selector.unregister(key.fileobj)
                    continue
                kept[key.data] += piece
                if limit is not None and len(kept[key.data]) > 2 * limit:
                    del kept[key.data][:-limit]
                if on_output is not None:
                    on_output(key.data, piece)
    return True


def _end(master: subprocess.Popen[bytes]) -> None:
    """End a master: its input closes, which ends its remote side; then by force, in bounded time."""
    if master.stdin is not None:
        with contextlib.suppress(OSError):
            master.stdin.close()
    if master.poll() is None:
        # Asking first lets ssh end its proxy, which then ends the Session Manager session.
        master.terminate()
        try:
            master.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            master.kill()
            master.wait()
    for stream in (master.stdout, master.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _last_words(errors: bytes | bytearray) -> str:
    """The line of what ssh and its proxy wrote that tells a person most."""
    lines = [line.strip() for line in bytes(errors).decode("utf-8", "replace").splitlines() if line.strip()]
    for mark in ("error: ", "smssh: "):  # of our own proxy: nearer to the cause than what ssh makes of it
        said = [line.removeprefix(mark) for line in lines if line.startswith(mark)]
        if said:
            return said[-1]
    telling = [line for line in lines if not line.startswith("Connection closed by UNKNOWN")]
    return telling[-1] if telling else ""


def _sftp(path: Path | str) -> str:
    """A path as one word of sftp's batch language, with nothing in it taken for a pattern.

    Raises:
        SmsshError: sftp has no way to say a line break.
    """
    text = str(path)
    if "\n" in text or "\r" in text:
        raise SmsshError(f"cannot copy a path with a line break in it: {text!r}", status=ExitStatus.USAGE)
    if text.startswith("-"):
        text = "./" + text
    for special in ("\\", '"'):
        text = text.replace(special, "\\" + special)
    return f'"{text}"'
