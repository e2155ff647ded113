"""The real parts around a session, for tests: the service in a thread, agents as processes, sshd."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web

from smssh_plugin.local.agent.installed import install
from smssh_plugin.local.service_error import ServiceError
from smssh_plugin.local.sessions.control_routes import add_control_routes
from smssh_plugin.local.sessions.session_service import SessionService
from tests import needs
from tests.waiting import LIMIT, until

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

T = TypeVar("T")

KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST", "AWS_SECRET_ACCESS_KEY": "secret"}
_CREDENTIAL = re.compile(r"Credential=([^/]+)/")


class Stack:
    """The session service on a port of its own, with as much of a gateway as it needs."""

    def __init__(self, **options: Any) -> None:
        self.service = SessionService(**options)
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._started.wait(LIMIT)
        self.calls: list[str] = []

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        self.service.add_routes(app)
        add_control_routes(app, self.service)
        app.router.add_post("/", self._api)
        self._runner = web.AppRunner(app, shutdown_timeout=1)

        async def start() -> None:
            await self._runner.setup()
            site = web.TCPSite(self._runner, "127.0.0.1", 0)
            await site.start()
            port = self._runner.addresses[0][1]
            self.url = f"http://127.0.0.1:{port}"
            self.service.base_url = self.url

        self._loop.run_until_complete(start())
        self._started.set()
        self._loop.run_forever()

    async def _api(self, request: web.Request) -> web.Response:
        operation = request.headers["X-Amz-Target"].partition(".")[2]
        self.calls.append(operation)
        found = _CREDENTIAL.search(request.headers.get("Authorization", ""))
        try:
            answer = await self.service.handle(
                operation, json.loads(await request.read()), found.group(1) if found else None
            )
        except ServiceError as error:
            return web.json_response(
                error.to_json(), status=error.status, content_type="application/x-amz-json-1.1"
            )
        return web.json_response(answer, content_type="application/x-amz-json-1.1")

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the service's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT)

    def call(self, operation: str, access_key: str | None = "AKIATEST", **body: Any) -> dict[str, Any]:
        return self.do(self.service.handle(operation, body, access_key))

    def events(self, kind: str) -> list[str]:
        return [event.subject for event in self.service.events if event.kind == kind]

    @property
    def environment(self) -> dict[str, str]:
        """What a client's process needs, and nothing of the test's own AWS environment."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {
            **kept,
            **KEYS,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def close(self) -> None:
        async def stop() -> None:
            await self._runner.cleanup()

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(LIMIT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT)
        self._loop.close()


class Agent:
    """An fake agent in a folder of its own, registered, as a process."""

    def __init__(
        self,
        stack: Stack,
        folder: Path,
        *,
        faults: dict[str, Any] | None = None,
        pace: float = 0.0,
        **profile: Any,
    ) -> None:
        self.stack = stack
        self.folder = folder
        # As fast as it goes, unless a test is about that: many of them move many bytes.
        self.program = install(folder, pace)
        (folder / "configuration").mkdir()
        (folder / "configuration" / "amazon-ssm-agent.json").write_text(
            json.dumps(
                {
                    "Ssm": {"Endpoint": stack.url},
                    "Mgs": {"Region": "us-east-1", "Endpoint": stack.url},
                    "Agent": {"Region": "us-east-1"},
                    "Identity": {"ConsumptionOrder": ["OnPrem"]},
                    "Profile": {"ShareCreds": False, **profile},
                    "Faults": faults or {},
                }
            )
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.node = ""

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the program, from another folder and with an empty environment."""
        return subprocess.run(
            [self.program, *arguments],
            cwd="/",
            env={"HOME": str(self.folder), **options.pop("env", {})},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
            **options,
        )

    def register(self, **activation: Any) -> str:
        made = self.stack.call("CreateActivation", IamRole="role/SSM", **activation)
        done = self.run(
            "-register",
            "-id",
            made["ActivationId"],
            "-code",
            made["ActivationCode"],
            "-region",
            "us-east-1",
            "-y",
        )
        assert done.returncode == 0, done.stderr
        found = re.search(r"Managed instance-id: (mi-[0-9a-f]{17})$", done.stdout.strip())
        assert found, done.stdout
        self.node = found.group(1)
        return self.node

    def start(self, **environment: str) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.program],
                cwd="/",
                env={"HOME": str(self.folder), **environment},
                stdin=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    def wait_connected(self) -> None:
        until(
            lambda: self.stack.call("GetConnectionStatus", Target=self.node)["Status"] == "connected",
            what="the control channel",
        )

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(LIMIT)

    def kill(self) -> None:
        """Kill it and its sessions, which outlive an agent that only stops."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class LoopbackServer:
    """A server on a port of its own; a subclass says what it does with a connection, in `serve`."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.serve(connection)

    def serve(self, connection: socket.socket) -> None:
        """Serve one; the next one waits meanwhile."""
        raise NotImplementedError

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class EchoServer(LoopbackServer):
    """Sends back what it gets, until the other side ends."""

    def __init__(self) -> None:
        self.connections: list[socket.socket] = []
        super().__init__()

    def serve(self, connection: socket.socket) -> None:
        self.connections.append(connection)
        threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    @property
    def open(self) -> int:
        """Connections that nobody has ended."""
        return sum(connection.fileno() >= 0 for connection in self.connections)

    def close(self) -> None:
        super().close()
        for connection in self.connections:
            connection.close()


def proxy(stack: Stack, target: str, port: int, *more: str, **options: Any) -> subprocess.Popen[bytes]:
    """`session.proxy.run` as a process, the way `smssh proxy` is one."""
    return subprocess.Popen(
        proxy_command(target, port, *more),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=stack.environment,
        bufsize=0,
        **options,
    )


def proxy_command(target: str, port: int, *more: str) -> list[str]:
    arguments = ", ".join(["AwsSession()", "'job.training.sagemaker'", f"{target=}", f"{port=}", *more])
    imports = (
        "from smssh_plugin.aws.session import AwsSession; from smssh_plugin.session.proxy import Route, run"
    )
    return [sys.executable, "-c", f"import sys; {imports}; sys.exit(run(Route({arguments})))"]


def read_exactly(process: subprocess.Popen[bytes], size: int) -> bytes:
    assert process.stdout is not None
    parts = []
    while size and (data := process.stdout.read(min(size, 65536))):
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


class Sshd:
    """A real sshd on loopback, in the foreground, with its own configuration."""

    def __init__(self, folder: Path) -> None:
        program = needs.program("sshd")
        needs.program("ssh")
        shell = pwd.getpwuid(os.getuid()).pw_shell
        if Path(shell).name in ("nologin", "false"):
            needs.does_not_apply(f"this user cannot log in: the shell is {shell}")
        self.folder = folder
        self.key = folder / "id"
        for name in ("host", "id"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        shutil.copy(folder / "id.pub", folder / "authorized")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPasswordAuthentication no\n"
            "Subsystem sftp internal-sftp\nMaxStartups 100\n"  # by default parallel logins are dropped by chance
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True, mode=0o755)
        self.process = subprocess.Popen(
            [program, "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.DEVNULL
        )
        until(self._up, what="sshd")

    def _up(self) -> bool:
        assert self.process.poll() is None, "sshd ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def options(self, command: list[str]) -> list[str]:
        """The options of ssh and scp that lead through `command`."""
        quoted = " ".join("'" + part.replace("'", "'\\''").replace("%", "%%") + "'" for part in command)
        known = self.folder / "known_hosts"
        known.write_text("job " + (self.folder / "host.pub").read_text())
        settings = {
            "ProxyCommand": quoted,
            "IdentityFile": str(self.key),
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": str(known),
            "HostKeyAlias": "job",
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
        }
        return ["-F", "/dev/null", *(part for item in settings.items() for part in ("-o", "=".join(item)))]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(LIMIT)


@contextlib.contextmanager
def closing(thing: T) -> Iterator[T]:
    try:
        yield thing
    finally:
        thing.close()  # type: ignore[attr-defined]
