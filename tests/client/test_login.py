"""`ssh ADDRESS` through our own configuration, from the service to a real SSH server: its cost and its leavings."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from smssh_plugin.aws.session import AwsSession
from smssh_plugin.client.connection import connect
from smssh_plugin.client.tunnels import Tunnel
from tests.session.support import KEYS, Agent, Stack
from tests.waiting import LIMIT, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import SshServer

ADDRESS = "algo-1.My-Job.training.sagemaker"
LOGIN = ["DescribeInstanceInformation", "ListTagsForResource", "StartSession", "TerminateSession"]
CROWD = 10_000

pytestmark = pytest.mark.e2e


class World:
    """A service, a node with a real SSH server behind its agent, and a home that is set up for it."""

    def __init__(self, server: SshServer, folder: Path) -> None:
        self.stack = Stack()
        self.server = server
        self.agent = Agent(self.stack, folder / "agent")
        self.agent.register(Tags=self.tags("My-Job", HostKey=server.endpoint.host_key, Port=str(server.port)))
        self.agent.start()
        self.agent.wait_connected()
        own = folder / "home" / "smssh"
        own.mkdir(mode=0o700, parents=True)
        for suffix in ("", ".pub"):
            shutil.copy(f"{server.endpoint.key}{suffix}", own / f"id_ed25519{suffix}")
        self.environment = {**self.stack.environment, "HOME": str(own.parent), "SMSSH_HOME": str(own)}
        self.home = own
        self.smssh("ssh-config", "--write")

    def tags(self, job: str, **more: str) -> list[dict[str, str]]:
        found = {"": "1", "Job": job, "Kind": "training", "Host": "algo-1", **more}
        found.setdefault("User", self.server.endpoint.user)
        return [{"Key": f"SMSSH{name}", "Value": value} for name, value in found.items()]

    def smssh(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "smssh_plugin.cli", *words)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, env=self.environment, capture_output=True, text=True, timeout=LIMIT, check=False
        )

    def ssh(self, *command: str, address: str = ADDRESS) -> subprocess.CompletedProcess[str]:
        options = ["-F", str(self.home / "ssh_config"), "-o", "BatchMode=yes"]
        return self.run("ssh", *options, "-l", self.server.endpoint.user, address, *command)

    def calls(self, *command: str) -> list[str]:
        """The API calls of one login."""
        before = len(self.stack.calls)
        done = self.ssh(*command)
        assert (done.returncode, done.stderr) == (0, "")
        until(lambda: not self.stack.service.active_sessions, what="the end of the session")
        return [call for call in self.stack.calls[before:] if call != "UpdateInstanceInformation"]

    def close(self) -> None:
        self.agent.kill()
        self.stack.close()


@pytest.fixture
def world(any_server: SshServer, tmp_path: Path) -> Iterator[World]:
    with contextlib.closing(World(any_server, tmp_path)) as made:
        yield made


def test_a_login_is_three_calls_before_its_session_and_one_the_second_time(world: World) -> None:
    assert world.calls("true") == LOGIN
    assert world.calls("true") == LOGIN[2:]
    (known,) = (world.home / "known").iterdir()
    assert known.name == ADDRESS.lower()


def test_it_is_the_same_among_ten_thousand_nodes(world: World) -> None:
    nodes = world.stack.service.nodes
    for number in range(CROWD):
        made = nodes.create_activation({"IamRole": "role", "Tags": world.tags(f"other-{number}")})
        node = nodes.register({**made, "PublicKey": "key", "Fingerprint": "print"})["InstanceId"]
        nodes.update_information({"InstanceId": node, "AgentVersion": "3.3.0.0"}, node)
    assert world.calls("true") == LOGIN


def test_a_host_that_shows_another_key_is_refused_however_it_was_found(world: World) -> None:
    assert world.ssh("true").returncode == 0
    node = world.stack.service.nodes.nodes[world.agent.node]
    for tag in ("SMSSHHostKey",):
        node.tags[tag] = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINQQx6MFgikuayP3KjGtBfmH0qBGmr9Jsm+oj438aNTJ"
    shutil.rmtree(world.home / "nodes")
    done = world.ssh("true")
    assert done.returncode == 255
    assert "HOST IDENTIFICATION HAS CHANGED" in done.stderr
    node.tags["SMSSHHostKey"] = ""
    shutil.rmtree(world.home / "nodes")
    done = world.ssh("true")
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


def test_a_wrong_user_is_told(world: World) -> None:
    options = ["-F", str(world.home / "ssh_config"), "-o", "BatchMode=yes", "-l", "nobody-here"]
    done = world.run("ssh", *options, ADDRESS, "true")
    user = world.server.endpoint.user
    assert (
        f"smssh: the SSH server accepts the user {user!r}, not 'nobody-here': use ssh -l {user}\n"
        in done.stderr
    )


def test_a_profile_that_was_named_is_the_proxys_too(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "aws-config"
    config.write_text(
        "[profile other account]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = secret\n"
    )
    for name in KEYS:
        del world.environment[name]
    world.environment["AWS_CONFIG_FILE"] = str(config)
    assert "no AWS credentials were found" in world.smssh("connect", ADDRESS, "--", "true").stderr
    done = world.smssh("connect", ADDRESS, "--profile", "other account", "--", "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr

    for name in ("AWS_PROFILE", *KEYS):
        monkeypatch.delenv(name, raising=False)
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    session = AwsSession(profile="other account")
    with connect(ADDRESS, session=session) as connection:
        assert connection.run("echo in").text == "in\n"
    with Tunnel(ADDRESS, world.server.port, session=session) as tunnel:
        assert tunnel.alive


def test_known_hosts_command_is_another_way(world: World) -> None:
    command = f"{sys.executable} -m smssh_plugin.cli known-hosts %n %H"
    options = ["-F", str(world.home / "ssh_config"), "-o", "BatchMode=yes", "-l", world.server.endpoint.user]
    options += ["-o", f"KnownHostsCommand={command}", "-o", "UserKnownHostsFile=none"]
    done = world.run("ssh", *options, "-o", f"HostKeyAlias={ADDRESS}", ADDRESS, "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr


def test_what_is_wrong_is_one_line_with_a_remedy(world: World) -> None:
    done = world.ssh("true", address="nonesuch.nokind.sagemaker")
    lines = [line for line in done.stderr.splitlines() if line.startswith("smssh: ")]
    assert len(lines) == 1
    assert "there is no kind 'nokind'" in lines[0]
    world.agent.kill()
    until(lambda: world.stack.call("GetConnectionStatus", Target=world.agent.node)["Status"] != "connected")
    done = world.smssh("proxy", ADDRESS, "--wait", "1s")
    assert done.stdout == ""
    said = done.stderr.splitlines()
    assert said[0].startswith(f"smssh: waiting for the agent of {world.agent.node}")
    assert said[1].startswith(f"smssh: {world.agent.node} is not connected after 1 s (")
    assert done.returncode == 4
