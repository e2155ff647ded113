"""An SSH server through a shell: into a real shell in a real terminal, and then a login to what it started."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed

from smssh_plugin.aws.session import AwsSession
from smssh_plugin.cli import main
from smssh_plugin.client.connection import Connection
from smssh_plugin.client.endpoint import Endpoint
from smssh_plugin.errors import ExitStatus, SmsshError
from smssh_plugin.keys import ensure_key
from smssh_plugin.session import remote_install as installs
from smssh_plugin.session.converse import Shell, converse
from smssh_plugin.session.wire.frames import PayloadType
from tests.aws.peers import Api
from tests.client.test_lookup import NATIVE, NO_NODES
from tests.waiting import until

from .peer import Peer, scripted
from .test_shell import STREAM, answer

if TYPE_CHECKING:
    from collections.abc import Iterator


class ShellPeer:
    """An agent whose shell is a real one, on a pseudo-terminal."""

    def __init__(self, *command: str, environment: dict[str, str]) -> None:
        self._command = command
        self._environment = environment
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self, peer: Peer) -> None:
        peer.handshake(STREAM)
        peer.complete()
        master, slave = pty.openpty()
        self.process = subprocess.Popen(
            self._command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=self._environment,
            start_new_session=True,
        )
        os.close(slave)
        showing = threading.Thread(target=self._show, args=(peer, master), daemon=True)
        showing.start()
        try:
            for message in peer.inputs():
                if message.payload_type == PayloadType.FLAG:
                    return
                if message.payload_type == PayloadType.OUTPUT:
                    data = message.payload
                    while data:
                        data = data[os.write(master, data) :]
        finally:
            self.process.kill()
            self.process.wait()
            showing.join(10)
            os.close(master)

    def _show(self, peer: Peer, master: int) -> None:
        with contextlib.suppress(OSError, ConnectionClosed):  # the end of a terminal, or of the session
            while data := os.read(master, 1024):
                peer.send(data)
        with contextlib.suppress(Exception):
            peer.close_channel()


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    made = Api()
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_SSM", "AWS_ENDPOINT_URL_SAGEMAKER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("SMSSH_HOME", str(tmp_path / "smssh"))
    yield made
    made.close()


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a shell in a container; what was started in it is ended."""
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    (tmp_path / "tmp").mkdir()
    folders = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path / "tmp"), "SMSSH_RUN_DIR": str(run)}
    yield {"PATH": path, **folders, "TERM": "dumb", "PS1": "# "}
    for pid in started_in(run):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def started_in(run: Path | str) -> list[int]:
    """The processes that live of what was started in such a container."""
    found = []
    for one in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if one.name.isdigit() and str(run).encode() in (one / "environ").read_bytes():
                found.append(int(one.name))
    return found


def login(server: dict[str, Any], folder: Path) -> str:
    """What a command says over a login to it."""
    from tests.client.conftest import RELAY as RELAY_PROGRAM

    relay = folder / "relay.py"
    relay.write_text(RELAY_PROGRAM)
    endpoint = Endpoint(
        address="algo-1.job.training.sagemaker",
        user=server["user"],
        host_key=server["host_key"],
        proxy=(sys.executable, str(relay), str(server["port"])),
        key=ensure_key().private,
    )
    with Connection(endpoint) as connection:
        return connection.run("echo from $0; command -v smssh-hook").text


@pytest.fixture
def _no_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheels of asyncssh would come from PyPI; the container's Python is this one, which has them."""
    monkeypatch.setattr("smssh_plugin.submit.bundle.build.wheels_for", lambda _version: {})


def enable_install(api: Api, peer: ShellPeer, home: Path, idle: str = "5m") -> dict[str, Any]:
    """`smssh remote-debug job --install`, where the job's agent is this; answers what is remembered of the server."""
    native = {**NATIVE, "TrainingJobName": "job", "InputDataConfig": []}
    with scripted(peer) as opening:
        answer(api, opening)
        started = api.answers
        api.answers = [(200, {}), NO_NODES, (200, native), *started, (200, {}), NO_NODES, (200, native)]
        assert main(["remote-debug", "job", "--install", "--idle", idle]) == 0
    assert not api.answers
    (record,) = (home / "installed").iterdir()
    found: dict[str, Any] = json.loads(record.read_text())
    return found


@pytest.mark.usefixtures("_no_wheels")
@pytest.mark.parametrize("shell", [("sh", "-i"), ("bash", "--norc", "-i")])
def test_a_server_is_started_and_entered(
    api: Api,
    inside: dict[str, str],
    shell: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The way of `smssh remote-debug --install`, whose second time finds the server of the first."""
    servers = []
    for _ in range(2):
        servers.append(enable_install(api, ShellPeer(*shell, environment=inside), tmp_path / "smssh"))
        shown = capsys.readouterr()
        assert shown.out == "remote debugging is on: smssh connect algo-1.job.training.sagemaker\n"
        assert "starting the server" in shown.err
        assert "smssh-hook" in login(servers[-1], tmp_path)
    assert servers[0] == servers[1]
    assert len(list(Path(inside["TMPDIR"]).glob("smssh-*"))) == 1  # what the second time sent is gone


@pytest.mark.usefixtures("_no_wheels")
def test_a_server_that_has_ended_is_started_again(api: Api, inside: dict[str, str], tmp_path: Path) -> None:
    peer = ShellPeer("sh", "-i", environment=inside)
    enable_install(api, peer, tmp_path / "smssh", idle="1s")
    until(lambda: not started_in(inside["SMSSH_RUN_DIR"]), what="the end of a server that nobody uses")
    server = enable_install(api, peer, tmp_path / "smssh")
    assert "smssh-hook" in login(server, tmp_path)


def test_a_container_that_is_not_fit_says_why(api: Api, inside: dict[str, str]) -> None:
    inside["PATH"] = "/nonexistent"
    with scripted(ShellPeer("/bin/sh", "-i", environment=inside)) as opening:
        answer(api, opening)
        with pytest.raises(
            SmsshError, match=r"no SSH server could be started|does not answer|the shell ended"
        ):
            installs.install(AwsSession(), lambda _anew: "t", lambda _container: b"")
    assert api.operations == ["StartSession", "TerminateSession"]


def test_a_shell_that_ends_or_says_nothing_is_an_error(api: Api, inside: dict[str, str]) -> None:
    with scripted(ShellPeer("/bin/echo", "bye", environment=inside)) as opening:
        answer(api, opening)
        with pytest.raises(SmsshError, match="the shell ended: bye"):
            converse(AwsSession(), lambda _anew: "t", lambda shell: shell.expect(b"never", 30))
    with scripted(ShellPeer("/bin/sh", "-i", environment=inside)) as opening:
        answer(api, opening)

        def hopeless(shell: Shell) -> None:
            shell.send(b"echo seen\n")
            shell.expect(b"seen", 30)
            shell.expect(b"never", 0.2)

        with pytest.raises(SmsshError, match="does not answer") as caught:
            converse(AwsSession(), lambda _anew: "t", hopeless)
    assert caught.value.status is ExitStatus.TIMEOUT


def test_what_a_talk_answers_comes_back(api: Api, inside: dict[str, str]) -> None:
    def talk(shell: Shell) -> bytes:
        shell.send(b"printf '%s%s' a b; echo; exec cat\n")
        shell.expect(b"ab", 30)
        big = b"z" * 3000 + b"\n"
        for _ in range(100):
            shell.send(big)
        shell.send(b"the end\n")
        return shell.expect(b"the end", 60)

    with scripted(ShellPeer("/bin/sh", "-c", "stty raw; exec sh -i", environment=inside)) as opening:
        answer(api, opening)
        assert converse(AwsSession(), lambda _anew: "t", talk).count(b"z") >= 300_000


@pytest.mark.parametrize(
    "said",
    [
        "no JSON",
        "[]",
        "5",
        '{"port": "x", "host_key": "y", "user": "root"}',
        '{"port": [1], "host_key": "y", "user": "root"}',
        '{"port": 1e999, "host_key": "y", "user": "root"}',
        '{"port": 5, "host_key": "y"}',
        "[" * 100_000,
    ],
)
def test_an_answer_of_the_start_program_that_is_not_understood(said: str) -> None:
    with pytest.raises(SmsshError, match="the answer of the start program is not understood"):
        installs._server(said)
