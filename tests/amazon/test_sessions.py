"""Each kind of session between Amazon's programs and ours: their agent, their plugin, and both."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import socket
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import needs
from tests.session.support import Agent, proxy_command
from tests.session.test_kinds import Forward, echoed, run_shell
from tests.waiting import until

from .programs import PLUGIN, AmazonAgent, needs_agent, needs_plugin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Place

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
NAME = "session-manager-plugin"


class Pair:
    """A client and an agent.

    Args:
        place: the local emulator, sshd and echo server.
        agent: the agent.
        plugin: a folder that has Amazon's plugin; None where the client is ours.
    """

    def __init__(self, place: Place, agent: Any, plugin: Path | None) -> None:
        self.place = place
        self.stack = place.emulator
        self.service = place.emulator.service
        self.agent = agent
        self.node = agent.node
        self.plugin = plugin
        self.environment = dict(self.stack.environment)
        if plugin is not None:
            self.environment["PATH"] = f"{plugin}:{self.environment['PATH']}"

    def words(self, program: str, *words: object) -> list[str]:
        via = () if self.plugin is None else ("via='plugin'",)
        sshd = self.place.sshd
        return [
            program,
            *sshd.options(proxy_command(self.node, sshd.port, *via)),
            *(str(one) for one in words),
        ]

    def run(self, program: str, *words: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.words(program, *words), env=self.environment, capture_output=True, timeout=120, check=False
        )

    def start(self, script: str) -> subprocess.Popen[bytes]:
        """An ssh that runs a script there."""
        return subprocess.Popen(
            self.words("ssh", "job", script),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def plugin_words(self, **request: Any) -> tuple[list[str], dict[str, str], str]:
        """The plugin as the AWS CLI starts it; the session's id."""
        assert self.plugin is not None
        asked = {"Target": self.node, **request}
        answer = self.stack.client("ssm").start_session(**asked)
        variable = "AWS_SSM_START_SESSION_RESPONSE"
        opening = {name: answer[name] for name in ("SessionId", "TokenValue", "StreamUrl")}
        words = [NAME, variable, "us-east-1", "StartSession", "", json.dumps(asked), self.stack.url]
        return words, {**self.environment, variable: json.dumps(opening)}, answer["SessionId"]

    @contextlib.contextmanager
    def forward(self, port: int) -> Iterator[int]:
        """A port here that leads to one there."""
        if self.plugin is None:
            forward = Forward(self, port)  # type: ignore[arg-type]
            try:
                yield forward.port
                assert forward.end() == 0
            finally:
                stop(forward.process)
            return
        with socket.create_server(("127.0.0.1", 0)) as free:
            local = free.getsockname()[1]
        words, environment, session = self.plugin_words(
            DocumentName="AWS-StartPortForwardingSession",
            Parameters={"portNumber": [str(port)], "localPortNumber": [str(local)]},
        )
        process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            while b"Waiting for connections" not in (line := process.stdout.readline()):
                assert line, "the plugin ended"
            yield local
            self.stack.call("TerminateSession", SessionId=session)
            process.wait(30)
        finally:
            stop(process)

    def shell(self, typed: bytes) -> bytes:
        """What a shell shows that is typed into, up to its end."""
        if self.plugin is None:
            done = run_shell(self.stack, self.node, typed=typed)  # type: ignore[arg-type]
            assert done.returncode == 0, done.stderr
            return done.stdout
        words, environment, _ = self.plugin_words()
        master, slave = pty.openpty()
        process = subprocess.Popen(
            words, env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        shown, written = b"", False
        deadline = time.monotonic() + 60
        try:
            while time.monotonic() < deadline and process.poll() is None:
                if select.select([master], [], [], 0.2)[0]:
                    with contextlib.suppress(OSError):
                        shown += os.read(master, 65536)
                if not written and shown.rstrip().endswith((b"$", b"#")):
                    os.write(master, typed)
                    written = True
            assert process.poll() == 0, shown
            return shown
        finally:
            stop(process)
            os.close(master)

    def end_all(self) -> None:
        for session in self.service.active_sessions:
            self.stack.call("TerminateSession", SessionId=session.id)

    def nothing_left(self) -> bool:
        until(lambda: not self.service.active_sessions, what="the end of the sessions")
        if isinstance(self.agent, AmazonAgent):
            until(lambda: not self.agent.workers(), what="the end of the sessions' workers")
        return True


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


@pytest.fixture(scope="module", params=["smssh-amazon", "plugin-fake", "plugin-amazon"])
def shared_pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    client, _, kind = request.param.partition("-")
    plugin = None
    if client == "plugin":
        needs_plugin()
        plugin = tmp_path_factory.mktemp("plugin")
        (plugin / NAME).symlink_to(Path(PLUGIN).resolve())
    if kind == "amazon":
        needs_agent()
    # Not before: without the programs there is nothing to be set up.
    place: Place = request.getfixturevalue("place")
    folder = tmp_path_factory.mktemp("agent") / kind
    agent: Any
    if kind == "amazon":
        agent = AmazonAgent(place.emulator, folder)
    else:
        agent = Agent(place.emulator, folder)  # type: ignore[arg-type]
        agent.register()
    try:
        agent.start()
        until(
            lambda: place.emulator.call("GetConnectionStatus", Target=agent.node)["Status"] == "connected",
            what="the control channel",
        )
        yield Pair(place, agent, plugin)
    finally:
        agent.kill()


@pytest.fixture
def pair(shared_pair: Pair) -> Iterator[Pair]:
    yield shared_pair
    shared_pair.end_all()
    shared_pair.nothing_left()


def test_ssh(pair: Pair) -> None:
    done = pair.run("ssh", "job", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, b"out\n")
    assert b"err\n" in done.stderr
    assert [pair.run("ssh", "job", "true").returncode for _ in range(5)] == [0] * 5
    assert pair.nothing_left()


def test_scp_both_ways(pair: Pair, tmp_path: Path) -> None:
    content = os.urandom(1_000_000)
    (tmp_path / "here").write_bytes(content)
    for source, sink in (
        (tmp_path / "here", f"job:{tmp_path}/there"),
        (f"job:{tmp_path}/there", tmp_path / "back"),
    ):
        done = pair.run("scp", source, sink)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "there").read_bytes() == content
    assert (tmp_path / "back").read_bytes() == content


def test_a_port_is_forwarded(pair: Pair) -> None:
    echo = pair.place.echo
    with pair.forward(echo.port) as port:
        data = [os.urandom(60_000) for _ in range(4)]
        connections = [socket.create_connection(("127.0.0.1", port), 10) for _ in data]
        for connection in connections:
            connection.settimeout(60)
        assert [echoed(*both) for both in zip(connections, data, strict=True)] == data
        for connection in connections:
            connection.close()
        until(lambda: not echo.open, what="the end of all connections")


def test_a_shell(pair: Pair) -> None:
    shown = pair.shell(b"echo user-$(id -un) $((6 * 7))-seen; exit\n")
    assert b"42-seen" in shown
    if isinstance(pair.agent, AmazonAgent):
        assert b"user-ssm-user" in shown
    assert pair.nothing_left()


@pytest.mark.parametrize("command", ["exit 3", "kill -KILL $$", "echo seen; no-such-program-here"])
def test_a_commands_status(pair: Pair, command: str) -> None:
    if pair.plugin is not None:
        needs.does_not_apply("Amazon's plugin ends with 0 whatever happened")
    done = run_shell(pair.stack, pair.node, repr(command), typed=b"")  # type: ignore[arg-type]
    assert done.returncode == {"exit 3": 3, "kill -KILL $$": 137}.get(command, 127), done.stderr
    assert b"\x1b]" not in done.stdout
    assert pair.nothing_left()


def test_a_session_is_resumed_after_cuts(pair: Pair, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    process = pair.start(f"echo ready; read line < {go}; seq 20000")
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        (session,) = pair.service.active_sessions
        events = pair.stack.events

        def more(kind: str, before: int) -> bool:
            return events(kind).count(session.id) > before

        async def drop(side: str) -> None:
            pair.service.channels.drop(side, session.id)

        for side in ("client", "agent", "client"):
            before = events(f"{side}-open").count(session.id)
            pair.stack.do(drop(side))
            until(partial(more, f"{side}-open", before), seconds=30, what=f"a new {side}")
        assert events("ResumeSession").count(session.id) == 2
        with go.open("w") as pipe:
            pipe.write("go\n")
        output, errors = process.communicate(timeout=60)
        assert output == b"".join(b"%d\n" % number for number in range(1, 20001))
        assert process.returncode == 0, errors
    finally:
        stop(process)


def test_a_session_that_is_terminated(pair: Pair) -> None:
    process = pair.start("echo ready; exec sleep 100")
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        (session,) = pair.service.active_sessions
        pair.stack.call("TerminateSession", SessionId=session.id)
        assert process.wait(30) == 255
    finally:
        stop(process)
    assert pair.nothing_left()


def test_a_session_that_is_idle(pair: Pair) -> None:
    process = pair.start("echo ready; exec sleep 100")
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        pair.service.idle_seconds = 1.0
        assert process.wait(30) == 255
        if pair.plugin is None:
            assert b"timed out due to inactivity" in process.stderr.read()
    finally:
        pair.service.idle_seconds = 1200.0
        stop(process)
    assert pair.nothing_left()


def test_a_client_that_is_hung_up_on_leaves_nothing(pair: Pair) -> None:
    process = pair.start("echo ready; exec sleep 100")
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)  # and ssh sends SIGHUP to its ProxyCommand
        process.wait(30)
    finally:
        stop(process)
    assert pair.nothing_left()
