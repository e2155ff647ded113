"""`Tunnel`: a loopback port here that is a port inside a job's container; sshtunnel over `smssh proxy`.

What sshtunnel 0.5 leaves to its user is settled here: it would listen on all interfaces, accept any host key,
try every key of `~/.ssh`, read `~/.ssh/config` in its own way, use a ProxyCommand once only and leave its
process behind. What it cannot do
stays: a client that shuts its writing side down and goes on reading loses the answer (HTTP, debugpy, Jupyter
and TensorBoard do not do that; rsync's own protocol does).
"""

from __future__ import annotations

import base64
import contextlib
import logging
import socket
import subprocess
import tempfile
import threading
from typing import IO, TYPE_CHECKING, Any

import paramiko
import sshtunnel

from ..errors import SmsshError
from . import refusals
from .certificates import beside
from .endpoint import Endpoint, reach
from .identities import remedy

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Buffer, Self

    from ..aws.session import AwsSession

__all__ = ["Tunnel"]

LOOPBACK = "127.0.0.1"
KEEPALIVE_SECONDS = 30.0
STOP_SECONDS = 5.0


class Tunnel:
    """A port of a job's container as a port of this machine's loopback; a context manager.

    ```python
    with Tunnel("my-job.training.sagemaker", 8080) as tunnel:
        urllib.request.urlopen(f"http://127.0.0.1:{tunnel.local_port}/")
    ```

    Args:
        target: an address; or the end of a login that was already found.
        remote_port: the port in the container.
        remote_host: the host as the container sees it.
        local_port: the port here; 0: a free one.
        region: the AWS region, for an address; by default the environment's.
        session: the AWS session, for an address; by default a new one.
        wait: seconds to wait for a job that has not started yet, for an address.

    Raises:
        SmsshError: as `lookup.resolve`, for an address.
    """

    def __init__(
        self,
        target: str | Endpoint,
        remote_port: int,
        *,
        remote_host: str = LOOPBACK,
        local_port: int = 0,
        region: str | None = None,
        session: AwsSession | None = None,
        wait: float = 0.0,
    ) -> None:
        if isinstance(target, str):
            if session is None:
                from ..aws.session import AwsSession

                session = AwsSession(region)
            target = reach(target, session, wait=wait)
        self.endpoint = target
        self.remote = (remote_host, remote_port)
        self._wanted_port = local_port
        self._forwarder: Any = None
        self._proxy: _Proxy | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if self._forwarder is None:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def local_port(self) -> int:
        """The port on 127.0.0.1.

        Raises:
            SmsshError: the tunnel is not started.
        """
        if self._forwarder is None:
            raise SmsshError("the tunnel is not started", hint="call start(), or use it in a `with`")
        return int(self._forwarder.local_bind_port)

    @property
    def alive(self) -> bool:
        """Whether the login under the tunnel still stands."""
        return self._forwarder is not None and bool(self._forwarder.is_active)

    def start(self) -> None:
        """Log in and listen. May be called again after `stop`; each start is a login of its own.

        Raises:
            SmsshError: REFUSED (key, host key), UNREACHABLE, or FAILED where the local port is taken.
        """
        with self._lock:
            if self._forwarder is not None:
                raise SmsshError("the tunnel is started already")
            said = _Said()
            proxy = _Proxy(self.endpoint.proxy)
            forwarder = None
            try:
                forwarder = sshtunnel.SSHTunnelForwarder(
                    # Only names the other end; the proxy is the way there. check_host() wants no longer names
                    # than DNS has.
                    ssh_address_or_host=("localhost", 22),
                    ssh_config_file=None,
                    ssh_host_key=_public_key(self.endpoint.host_key),
                    ssh_pkey=_own_key(self.endpoint.key),
                    ssh_proxy=proxy,
                    ssh_username=self.endpoint.user,
                    local_bind_address=(LOOPBACK, self._wanted_port),
                    remote_bind_address=self.remote,
                    set_keepalive=KEEPALIVE_SECONDS,
                    allow_agent=False,
                    host_pkey_directories=[],
                    compression=True,
                    logger=said.logger,
                )
                forwarder.start()
            except (
                sshtunnel.BaseSSHTunnelForwarderError,
                paramiko.SSHException,
                EOFError,
                OSError,
                ValueError,
            ) as error:
                raise self._refused(said.text() or str(error), proxy.last_words()) from error
            finally:
                if forwarder is None or not forwarder.is_alive:
                    _abandon(forwarder)
                    proxy.close()
            self._forwarder, self._proxy = forwarder, proxy

    def stop(self) -> None:
        """Stop listening, cut what still goes through, end the login and its proxy. Twice is fine."""
        with self._lock:
            forwarder, self._forwarder = self._forwarder, None
            proxy, self._proxy = self._proxy, None
            try:
                if forwarder is not None:
                    forwarder.stop(force=True)
            finally:
                if proxy is not None:
                    proxy.close()

    def _refused(self, text: str, proxy_said: str) -> SmsshError:
        """The error for a tunnel that did not start."""
        address = self.endpoint.address
        if "host key" in text.lower() or "no acceptable host key" in text.lower():
            return refusals.other_host_key(address)
        if "open connection to gateway" in text or "uthentication" in text:
            return refusals.key_refused(self.endpoint, remedy(self.endpoint))
        if "might be in use" in text:
            return SmsshError(
                f"port {self._wanted_port} of this machine is taken",
                hint="name another local port, or 0 for a free one",
                reference="port-taken",
            )
        return refusals.login_failed(f"cannot open a tunnel to {address}: {proxy_said or text}", address)


class _Proxy(paramiko.ProxyCommand):
    """A ProxyCommand on a socket pair.

    paramiko's own never notices that its command ended (it takes the empty read for "nothing yet" and spins),
    and leaves a zombie.
    """

    def __init__(self, words: tuple[str, ...]) -> None:
        self.cmd = list(words)
        ours, theirs = socket.socketpair()
        self._socket = ours
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._said = ""
        self._lock = threading.Lock()
        try:
            self.process = subprocess.Popen(
                self.cmd,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._errors,
                start_new_session=True,
            )
        except OSError:
            ours.close()
            self._errors.close()
            raise
        finally:
            theirs.close()

    def send(self, content: Buffer) -> int:
        return self._socket.send(content)

    def recv(self, size: int) -> bytes:
        return self._socket.recv(size)

    def settimeout(self, timeout: float | None) -> None:
        self._socket.settimeout(timeout)

    @property
    def closed(self) -> bool:
        return self._socket.fileno() < 0

    @property
    def _closed(self) -> bool:
        return self.closed

    def last_words(self) -> str:
        """The line of what the command wrote to standard error that says most."""
        with self._lock:
            if not self._errors.closed:
                self._errors.seek(0)
                lines = self._errors.read(1 << 16).decode("utf-8", "replace").splitlines()
                telling = [line for line in lines if line.strip()]
                self._said = telling[-1].removeprefix("error: ").removeprefix("smssh: ") if telling else ""
            return self._said

    def close(self) -> None:
        """Close the connection, end the command and wait for it, in bounded time.

        paramiko's transport thread closes it too, at its own end.
        """
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.last_words()
        with self._lock:
            self._errors.close()


class _Said(logging.Handler):
    """Collects what sshtunnel logs: the reason of a failure is told nowhere else."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []
        # Its own, not a registered one: two tunnels must not read each other's reasons.
        self.logger = logging.Logger("smssh.tunnel", logging.WARNING)  # noqa: LOG001
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())

    def text(self) -> str:
        return "\n".join(self._lines)


def _abandon(forwarder: Any) -> None:
    """Close what a forwarder that did not start has open; its own stop() waits for threads that never ran."""
    for server in getattr(forwarder, "_server_list", ()):
        server.server_close()
    transport = getattr(forwarder, "_transport", None)
    if transport is not None:
        transport.close()


def _own_key(path: Path) -> paramiko.PKey:
    """The private key, with the certificate that lies beside it, if there is one."""
    try:
        key: paramiko.PKey = paramiko.Ed25519Key.from_private_key_file(str(path))
    except paramiko.SSHException:  # see keys.make_key
        key = paramiko.ECDSAKey.from_private_key_file(str(path))
    if beside(path).exists():
        key.load_certificate(str(beside(path)))
    return key


def _public_key(host_key: str) -> paramiko.PKey:
    """A host key as paramiko compares it; the text was checked when it was found."""
    kind, blob = host_key.split()[:2]
    return paramiko.PKey.from_type_string(kind, base64.b64decode(blob))


# Without a handler Python prints a library's warnings to stderr; every failure is raised as an error anyway.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
