"""A real SSH server on loopback for one test session: sshd where the machine has it, else asyncssh."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from smssh_plugin.client.endpoint import Endpoint
from tests import needs
from tests.local.service_harness import Service
from tests.waiting import LIMIT, until

if TYPE_CHECKING:
    from collections.abc import Iterator

RELAY = """
import os, selectors, socket, sys
peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
ways = selectors.DefaultSelector()
ways.register(0, selectors.EVENT_READ, peer.sendall)
ways.register(peer, selectors.EVENT_READ, lambda piece: os.write(1, piece))
while True:
    for key, _ in ways.select():
        piece = os.read(key.fd, 65536)
        if not piece:
            sys.exit()
        while piece:
            piece = piece[key.data(piece) or len(piece):]
"""

SERVER = """
import asyncio, os, signal, sys
import asyncssh

class Sftp(asyncssh.SFTPServer):
    def exit(self):
        super().exit()
        self.channel.exit(0)  # OpenSSH's scp takes a missing exit status for a failure

async def handle(process):
    child = await asyncio.create_subprocess_exec("/bin/sh", "-c", process.command or "exec cat",
        stdin=-1, stdout=-1, stderr=-1, start_new_session=True)
    async def feed():
        try:
            while piece := await process.stdin.read(65536):
                child.stdin.write(piece)
                await child.stdin.drain()
        except (ConnectionError, asyncssh.Error):
            pass
        child.stdin.close()
    async def drain(source, sink):
        while piece := await source.read(65536):
            sink.write(piece)
            await sink.drain()
    feeding = asyncio.ensure_future(feed())
    await asyncio.gather(drain(child.stdout, process.stdout), drain(child.stderr, process.stderr))
    process.exit(await child.wait())
    feeding.cancel()

async def main():
    acceptor = await asyncssh.listen("127.0.0.1", 0,
        server_host_keys=[sys.argv[1]], authorized_client_keys=sys.argv[2],
        process_factory=handle, encoding=None, sftp_factory=lambda channel: with_channel(channel),
        allow_scp=False, server_factory=Server)
    print(acceptor.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()

def with_channel(channel):
    made = Sftp(channel)
    return made

class Server(asyncssh.SSHServer):
    def connection_requested(self, *_):
        return True

asyncio.run(main())
"""


@dataclass(frozen=True)
class SshServer:
    """A running SSH server, and what a login to it needs; its commands have `folder`/bin on their PATH."""

    port: int
    endpoint: Endpoint
    folder: Path

    def with_key(self, path: Path) -> Endpoint:
        return replace(self.endpoint, key=path)

    def with_host_key(self, host_key: str) -> Endpoint:
        return replace(self.endpoint, host_key=host_key)


def make_key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return " ".join(path.with_name(path.name + ".pub").read_text().split()[:2])


def _leash() -> list[str]:
    """Words in front of a server's: it ends with the tests, even where they are killed."""
    return ["setpriv", "--pdeathsig", "KILL"] if needs.find("setpriv") else []


def _start_sshd(folder: Path, program: str) -> tuple[subprocess.Popen[bytes], int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        f"SetEnv PATH={folder}/bin:{os.environ['PATH']}\n"
        "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
        "Subsystem sftp internal-sftp\nAllowTcpForwarding yes\nMaxStartups 100\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's privilege separation folder
    server = subprocess.Popen(
        [*_leash(), program, "-D", "-e", "-f", str(config)],
        stdin=subprocess.DEVNULL,
        stderr=(folder / "log").open("wb"),
    )

    def answers() -> bool:
        assert server.poll() is None, (folder / "log").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as peer:
            return peer.recv(4) == b"SSH-"
        return False

    until(answers, lambda: f"sshd's greeting: {(folder / 'log').read_text()}")
    return server, port


def _start_asyncssh(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    needs.program("asyncssh")
    server = subprocess.Popen(
        [*_leash(), sys.executable, "-c", SERVER, str(folder / "host"), str(folder / "authorized")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PATH": f"{folder}/bin:{os.environ['PATH']}"},
    )
    assert server.stdout is not None
    return server, int(server.stdout.readline())


class UnusableError(Exception):
    """sshd lets nobody in here: an account that is locked, or has no login shell."""


def _log_in_once(endpoint: Endpoint, folder: Path) -> None:
    """Whether sshd takes this user at all, by plain ssh."""
    known = folder / "known"
    known.write_text(f"any {endpoint.host_key}\n")
    words = ["ssh", "-F", "none", "-i", str(endpoint.key), "-o", f"ProxyCommand={shlex.join(endpoint.proxy)}"]
    words += ["-o", f"UserKnownHostsFile={known}", "-o", "HostKeyAlias=any", "-o", "BatchMode=yes"]
    done = subprocess.run(
        [*words, f"{endpoint.user}@any", "true"], capture_output=True, timeout=LIMIT, check=False
    )
    if done.returncode:
        lines = (folder / "log").read_text().strip().splitlines()
        raise UnusableError(next((line for line in lines if "not allowed" in line), lines[-1]))


@contextlib.contextmanager
def running_server(kind: str, folder: Path) -> Iterator[SshServer]:
    """A server of a kind (sshd, asyncssh) that accepts one key, and shows one host key."""
    (folder / "bin").mkdir()
    host_key = make_key(folder / "host")
    (folder / "authorized").write_text(make_key(folder / "user") + "\n")
    if kind == "sshd":
        server, port = _start_sshd(folder, needs.program("sshd"))
    else:
        server, port = _start_asyncssh(folder)
    relay = folder / "relay.py"
    relay.write_text(RELAY)
    endpoint = Endpoint(
        address="algo-1.My-Job.training.sagemaker",
        user=pwd.getpwuid(os.getuid()).pw_name,
        host_key=host_key,
        proxy=(sys.executable, str(relay), str(port)),
        key=folder / "user",
    )
    try:
        if kind == "sshd":
            _log_in_once(endpoint, folder)
        yield SshServer(port, endpoint, folder)
    finally:
        server.kill()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()


@pytest.fixture(scope="session", params=["sshd", "asyncssh"])
def ssh_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SshServer]:
    """Each kind of server in turn."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(running_server(request.param, tmp_path_factory.mktemp("server")))
        except UnusableError as error:
            needs.does_not_apply(f"sshd lets this user not in: {error}")
        yield server


@pytest.fixture(scope="session")
def any_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """One server, of whichever kind there is."""
    with contextlib.ExitStack() as stack:
        for kind in ("sshd", "asyncssh") if needs.find("sshd") else ("asyncssh",):
            with contextlib.suppress(UnusableError):
                server = stack.enter_context(running_server(kind, tmp_path_factory.mktemp("server")))
                break
        yield server


@pytest.fixture
def service() -> Iterator[Service]:
    """The local emulator's service, its jobs steered by the test."""
    running = Service()
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's user is read or changed."""
    monkeypatch.setenv("SMSSH_HOME", str(tmp_path / "smssh"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
