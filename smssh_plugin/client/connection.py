"""`connect(address)`: commands, files and forwarded ports of a job's container, for programs.

All commands and copies of a connection share one login, and so one Session Manager session; see `login`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ExitStatus, SmsshError
from . import ssh
from .endpoint import Endpoint, reach
from .login import Login

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from ..aws.session import AwsSession
    from .managed_nodes import Node
    from .tunnels import Tunnel

__all__ = ["Connection", "Result", "connect", "control"]

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
        """Standard output as text, UTF-8; other bytes are shown as U+FFFD."""
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


def control(address: str, aws: AwsSession, *, node: Node | None = None) -> Connection:
    """Log in for a command of smssh itself, which no hold waits for; see `reach`, which has the parameters.

    A session document of one's own may allow the SSH server's port and no other: then it is a login like any other.

    Raises:
        SmsshError: as `connect`.
    """
    try:
        return Connection(reach(address, aws, node=node, control=True))
    except SmsshError as error:
        if not aws.document("ssh", "") or error.status is not ExitStatus.UNREACHABLE:
            raise
    return Connection(reach(address, aws, node=node))


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
        self._tunnels: list[Tunnel] = []
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._login = Login(endpoint, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether the login still stands."""
        return self._login.alive

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
            command: a line for the login shell, or words that it takes literally.
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
            [*self._login.command("ssh"), "-T", self._login.alias, "--", line],
            data,
            timeout,
            on_output,
            limit,
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
        self._login.close()

    def _copy(self, batch: str, what: str, timeout: float | None) -> None:
        """Run one line of sftp's batch language."""
        words = [*self._login.command("sftp"), "-q", "-b", "-", self._login.alias]
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
            raise self._login.lost()
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
        if status == 255 and not self._login.stands():
            raise self._login.lost()
        if status < 0:  # killed here, by close()
            raise self._login.lost()
        last = slice(None) if limit is None else slice(-limit, None)
        return Result(status, bytes(kept["stdout"][last]), bytes(kept["stderr"][last]))


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
                    view = _feed(selector, key, view)
                    continue
                piece = os.read(key.fd, CHUNK)
                if not piece:
                    selector.unregister(key.fileobj)
                    continue
                _keep(kept[key.data], piece, limit)
                if on_output is not None:
                    on_output(key.data, piece)
    return True


def _feed(selector: selectors.BaseSelector, key: selectors.SelectorKey, view: memoryview) -> memoryview:
    """Write what a process takes now, and close its input after the last of it; answers what is left."""
    try:
        view = view[os.write(key.fd, view[:CHUNK]) :] if view else view
    except BrokenPipeError:  # it does not want to read it all: its own affair
        view = view[len(view) :]
    if not view:
        selector.unregister(key.fileobj)
        assert not isinstance(key.fileobj, int)
        key.fileobj.close()  # type: ignore[attr-defined]
    return view


def _keep(kept: bytearray, piece: bytes, limit: int | None) -> None:
    kept += piece
    if limit is not None and len(kept) > 2 * limit:
        del kept[:-limit]


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
