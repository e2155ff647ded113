"""Amazon's agent as a managed node and as SageMaker's own: what is around the sessions."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.entrypoints import workers
from smssh_plugin.local.faults import Fault
from tests.session.support import proxy_command
from tests.session.test_kinds import Forward, run_shell
from tests.waiting import until

from .programs import AGENT, PROGRAMS, AmazonAgent, needs_agent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .conftest import Place

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def here(request: pytest.FixtureRequest) -> Place:
    needs_agent()
    place: Place = request.getfixturevalue("place")
    return place


@pytest.fixture
def new_agent(here: Place, tmp_path: Path) -> Iterator[Callable[..., AmazonAgent]]:
    """Starts agents that end with the test."""
    made: list[AmazonAgent] = []

    def make(native: str = "", **environment: str) -> AmazonAgent:
        agent = AmazonAgent(here.emulator, tmp_path / f"agent-{len(made)}", native, **environment)
        made.append(agent)
        agent.start()
        return agent

    yield make
    for session in here.emulator.service.active_sessions:
        here.emulator.call("TerminateSession", SessionId=session.id)
    for agent in made:
        agent.kill()


def ssh(here: Place, node: str, script: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ssh", *here.sshd.options(proxy_command(node, here.sshd.port, *more)), "job", script],
        env=here.emulator.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def connected(here: Place, node: str) -> bool:
    return bool(here.emulator.call("GetConnectionStatus", Target=node)["Status"] == "connected")


def test_it_registers_and_deregisters(here: Place, new_agent: Callable[..., AmazonAgent]) -> None:
    agent = new_agent()
    version = subprocess.run(
        [Path(AGENT, PROGRAMS[0]), "-version"], capture_output=True, text=True, check=True
    ).stdout.rpartition(" ")[2]

    def information() -> Any:
        found = here.emulator.call("DescribeInstanceInformation")["InstanceInformationList"]
        return [(one["PingStatus"], one["AgentVersion"]) for one in found if one["InstanceId"] == agent.node]

    until(lambda: information() == [("Online", version.strip())], what="its ping")
    assert connected(here, agent.node)
    assert ssh(here, agent.node, "echo in").stdout == "in\n"
    here.emulator.call("DeregisterManagedInstance", InstanceId=agent.node)
    assert information() == []
    until(lambda: not connected(here, agent.node), what="the end of its control channel")
    done = ssh(here, agent.node, "echo in", "wait=0")
    assert done.returncode == 255
    assert agent.node in done.stderr


def test_its_key_is_replaced_when_the_service_asks(
    here: Place, new_agent: Callable[..., AmazonAgent]
) -> None:
    """The local emulator verifies its signatures, so that a wrong key would be found out by the next token."""
    nodes = here.emulator.service.nodes
    before, nodes.token_seconds = nodes.token_seconds, 4.0
    try:
        agent = new_agent()
        first = nodes.nodes[agent.node].public_key
        nodes.nodes[agent.node].rotate = True
        until(lambda: nodes.nodes[agent.node].public_key != first, seconds=90, what="another key")
        asked = len(here.emulator.events("RequestManagedInstanceRoleToken"))
        until(
            lambda: len(here.emulator.events("RequestManagedInstanceRoleToken")) > asked,
            seconds=90,
            what="a token by the new key",
        )
        assert ssh(here, agent.node, "echo in").stdout == "in\n"
    finally:
        nodes.token_seconds = before


def test_eight_logins_at_once_and_a_session_that_outlives_it(
    here: Place, new_agent: Callable[..., AmazonAgent], tmp_path: Path
) -> None:
    agent = new_agent()
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda number: ssh(here, agent.node, f"echo {number}").stdout, range(8)))
    assert done == [f"{number}\n" for number in range(8)]
    until(lambda: not agent.workers(), what="the end of the sessions' workers")
    go = tmp_path / "go"
    os.mkfifo(go)
    process = subprocess.Popen(
        [
            *("ssh", *here.sshd.options(proxy_command(agent.node, here.sshd.port))),
            *("job", f"echo ready; read line < {go}; echo $line"),
        ],
        env=here.emulator.environment,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        assert agent.process is not None
        agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(60) == 0
        assert not connected(here, agent.node)
        go.write_text("still here\n")
        assert process.communicate(timeout=60)[0] == b"still here\n"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_it_refuses_the_metadata_service(here: Place, new_agent: Callable[..., AmazonAgent]) -> None:
    agent = new_agent()

    class World:
        stack = here.emulator
        node = agent.node

    forward = Forward(World, 80, "host='169.254.169.254'")  # type: ignore[arg-type]
    try:
        forward.connect().close()
        assert forward.process.wait(60) != 0
        assert "Forwarding to IP address 169.254.169.254 is forbidden" in forward.errors()
    finally:
        forward.process.kill()
        forward.process.wait()


def test_a_shell_that_the_account_encrypts(here: Place, new_agent: Callable[..., AmazonAgent]) -> None:
    agent = new_agent()
    key = here.emulator.client("kms").create_key()["KeyMetadata"]["Arn"]
    ssm = here.emulator.client("ssm")
    name = "SSM-SessionManagerRunShell"
    before = ssm.get_document(Name=name)["Content"]

    def prefer(content: str) -> None:
        ssm.update_document(Name=name, Content=content, DocumentVersion="$LATEST")

    encrypted = json.loads(before)
    encrypted.setdefault("inputs", {})["kmsKeyId"] = key
    prefer(json.dumps(encrypted))
    try:
        done = run_shell(here.emulator, agent.node, typed=b"echo $((6 * 7))-seen; exit\n")  # type: ignore[arg-type]
        assert done.returncode == 0, done.stderr
        assert b"42-seen" in done.stdout
        assert b"This session is encrypted using AWS KMS" in done.stdout + done.stderr
    finally:
        prefer(before)


def test_as_sagemakers_own(here: Place, new_agent: Callable[..., AmazonAgent]) -> None:
    """A target without a node: SSH by SSH's document and by port forwarding's, a shell, and a line for one."""
    target = "sagemaker-training-job:my-job_algo-1"
    emulator = here.emulator
    nodes = set(emulator.service.nodes.nodes)
    agent = new_agent(target)
    assert ssh(here, target, "echo in; id -un").stdout == "in\nroot\n"
    emulator.service.faults.add(Fault("ssm:StartSession", "AccessDeniedException", times=1))
    assert ssh(here, target, "echo in").stdout == "in\n"
    started = [one.document for one in emulator.service.sessions.values() if one.target == target]
    assert started == ["AWS-StartSSHSession", "AWS-StartPortForwardingSession"]
    assert set(emulator.service.nodes.nodes) == nodes
    done = run_shell(emulator, target, typed=b"id -un; echo $((6 * 7))-seen; exit\n")  # type: ignore[arg-type]
    assert b"42-seen" in done.stdout
    assert b"root" in done.stdout
    # In container mode the agent splits the words by itself.
    line = "echo $((6 * 7))-seen | tr s S; echo 'it'\"'\"'s'; exit 3"
    done = run_shell(emulator, target, repr(line), typed=b"")  # type: ignore[arg-type]
    assert done.stdout.endswith(b"42-Seen\r\nit's\r\n"), done
    assert done.returncode == 3
    until(lambda: not agent.workers(), what="the end of the sessions' workers")


INSTALL = """
import json, sys
from smssh_plugin.aws.session import AwsSession
from smssh_plugin.cli.remote_debug import _archive
from smssh_plugin.session.remote_install import install
from smssh_plugin.submit import bundle
bundle.wheels_for = lambda _version: {}  # they would come from PyPI; this Python has them
print(json.dumps(install(AwsSession(), lambda _anew: sys.argv[1], _archive, idle="5m")))
"""


def test_a_server_is_put_there_through_its_shell(
    here: Place, new_agent: Callable[..., AmazonAgent], tmp_path: Path
) -> None:
    """What `smssh remote-debug --install` does."""
    target = "sagemaker-training-job:bare-job_algo-1"
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    new_agent(target, SMSSH_RUN_DIR=str(run_dir), PATH=path)
    environment = {**here.emulator.environment, "SMSSH_HOME": str(tmp_path / "smssh")}
    try:
        done = subprocess.run(
            [sys.executable, "-c", INSTALL, target],
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        server = json.loads(done.stdout)
        (tmp_path / "known").write_text(f"job {server['host_key']}\n")
        command = shlex.join(proxy_command(target, server["port"])).replace("%", "%%")
        chosen = {
            "ProxyCommand": command,
            "IdentityFile": str(tmp_path / "smssh" / "id_ed25519"),
            "UserKnownHostsFile": str(tmp_path / "known"),
            "HostKeyAlias": "job",
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "User": server["user"],
        }
        options = [part for item in chosen.items() for part in ("-o", "=".join(item))]
        login = subprocess.run(
            ["ssh", "-F", "none", *options, "job", "command -v smssh-hook; echo in"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert login.stdout.endswith("smssh-hook\nin\n"), login.stderr
    finally:
        end_all_that_carry(str(run_dir))


def end_all_that_carry(text: str) -> None:
    """End every process that has it in its environment."""
    for one in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if one.name.isdigit() and text.encode() in (one / "environ").read_bytes():
                os.kill(int(one.name), signal.SIGKILL)


def test_which_of_its_sessions_are_a_persons(  # noqa: PLR0915 - each kind of session once, with one agent
    here: Place, new_agent: Callable[..., AmazonAgent], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What a session is for, its process does not say; what it is connected to, and for how long, does."""
    agent = new_agent()
    monkeypatch.setattr(workers, "SETTLE_SECONDS", 2.0)
    port, counted = here.sshd.port, workers.Workers()

    class World:
        stack = here.emulator
        node = agent.node

    def people() -> int:
        return counted.count((port, 0), os.getpid())

    def none_left() -> bool:
        return not agent.workers() and people() == 0

    def shell(typed: str) -> subprocess.CompletedProcess[bytes]:
        return run_shell(here.emulator, agent.node, typed=typed.encode())  # type: ignore[arg-type]

    # SSH, by either document: it is for the SSH server to say who logged in.
    refused = Fault("ssm:StartSession", "AccessDeniedException", times=1)
    for fault in (None, refused):
        if fault is not None:
            here.emulator.service.faults.add(fault)
        fifo = tmp_path / f"go-{fault is None}"
        os.mkfifo(fifo)
        with ThreadPoolExecutor(1) as threads:
            asked = threads.submit(ssh, here, agent.node, f"read line < {fifo}")
            until(agent.workers, what="the session")
            end = time.monotonic() + 4
            while time.monotonic() < end:
                assert people() == 0
                time.sleep(0.1)
            fifo.write_text("go\n")
            assert asked.result().returncode == 0
        while agent.workers():
            assert people() == 0

    # Forwarded ports, used or not.
    forward = Forward(World, here.echo.port)  # type: ignore[arg-type]
    try:
        until(lambda: people() == 1, what="the forward")
        with forward.connect() as connection:
            connection.sendall(b"in use")
            assert connection.recv(100)
            assert people() == 1
        forward.end()
    finally:
        forward.process.kill()
        forward.process.communicate()
    until(none_left, what="the end of the forward")

    # A shell of a person's, and one that `smssh remote-debug --install` uses.
    for word, count in (("", 1), (workers.CONTROL.decode(), 0)):
        fifo = tmp_path / f"shell-{count}"
        os.mkfifo(fifo, 0o666)
        os.chmod(fifo, 0o666)
        let_in = [each for each in fifo.parents if each.stat().st_uid == os.getuid() and each != Path("/")]
        for each in let_in:
            each.chmod(each.stat().st_mode | 0o011)
        with ThreadPoolExecutor(1) as threads:
            asked_shell = threads.submit(shell, f"exec sh -c 'read line < {fifo}; :' {word}\n")
            until(agent.workers, what="the shell")
            end = time.monotonic() + 5
            seen = 0
            while time.monotonic() < end:
                seen = max(seen, people())
                time.sleep(0.1)
            fifo.write_text("go\n")
            asked_shell.result()
        assert seen == count
        until(none_left, what="the end of the shell")
