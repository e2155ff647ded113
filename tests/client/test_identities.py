"""Which keys a login offers: our own, and a person's in `~/.ssh` or an agent; what is said of a refusal."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from smssh_plugin.client.connection import Connection
from smssh_plugin.errors import ExitStatus, SmsshError
from tests.waiting import LIMIT, until

from .conftest import make_key
from .test_login import ADDRESS, World, world  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import SshServer


@contextlib.contextmanager
def agent(folder: Path, *keys: Path) -> Iterator[str]:
    """An ssh-agent with these keys; its socket."""
    path = folder / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline()  # it listens
        for key in keys:
            subprocess.run(
                ["ssh-add", "-q", str(key)], env={**os.environ, "SSH_AUTH_SOCK": str(path)}, check=True
            )
        yield str(path)
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def kept(where: str, server: SshServer, home: Path) -> Iterator[dict[str, str]]:
    """A person who has the key that the server accepts in `~/.ssh` or an agent; the variables that it needs."""
    (home / ".ssh").mkdir(mode=0o700, exist_ok=True)
    if where == "agent":
        with agent(home, server.endpoint.key) as path:
            yield {"SSH_AUTH_SOCK": path}
    else:
        shutil.copy(server.endpoint.key, home / ".ssh" / where)
        yield {}


def strange(world: World) -> Path:  # noqa: F811
    """Give the world's person an smssh key that no server knows."""
    own = world.home / "id_ed25519"
    for path in (own, own.with_name("id_ed25519.pub")):
        path.unlink()
    make_key(own)
    return own


@pytest.mark.e2e
@pytest.mark.parametrize("way", ["ssh", "connect"])
def test_a_key_that_only_the_person_has_opens_the_job(
    world: World,  # noqa: F811
    any_server: SshServer,
    way: str,
    tmp_path: Path,
) -> None:
    for number, where in enumerate(("id_ecdsa", "agent")):
        strange(world)
        home = tmp_path / str(number)
        home.mkdir()
        with kept(where, any_server, home) as more:
            world.environment.update(HOME=str(home), **more)
            assert world.smssh("ssh-config", "--write").returncode == 0
            command = ["echo in; echo out >&2"]
            done = world.ssh(*command) if way == "ssh" else world.smssh("connect", ADDRESS, "--", *command)
            assert (done.returncode, done.stdout, done.stderr) == (0, "in\n", "out\n")


@pytest.mark.parametrize("where", ["id_rsa", "agent"])
def test_a_connection_takes_them_where_ours_is_refused(
    ssh_server: SshServer, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_key(tmp_path / "own")
    with kept(where, ssh_server, tmp_path) as more:
        for name, value in more.items():
            monkeypatch.setenv(name, value)
        with Connection(ssh_server.with_key(tmp_path / "own")) as connection:
            assert connection.run("echo in").text == "in\n"


def test_a_connection_that_ours_opens_asks_no_agent(
    ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its keys may want a person's touch, at night."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "agent"))
        listening.listen()
        listening.setblocking(False)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        with Connection(ssh_server.endpoint) as connection:
            assert connection.run("echo in").text == "in\n"
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_a_connection_that_is_refused_says_whose_keys_are_known(
    ssh_server: SshServer, tmp_path: Path
) -> None:
    make_key(tmp_path / "own")
    with pytest.raises(SmsshError, match="nor another of yours") as caught:
        Connection(replace(ssh_server.with_key(tmp_path / "own"), owner="ann"))
    assert caught.value.status is ExitStatus.REFUSED
    assert "machine that submitted it (SSHOwner: ann)" in caught.value.hint
    assert f"authorized_keys=('{tmp_path}/own.pub',)" in caught.value.hint


@pytest.mark.e2e
def test_after_a_refusal_one_line_says_whose_keys_are_known(world: World) -> None:  # noqa: F811
    own = strange(world)
    world.stack.service.nodes.nodes[world.agent.node].tags["SSHOwner"] = "ann"
    done = world.smssh("connect", ADDRESS, "--", "true")
    assert done.returncode == 255
    refused, told = done.stderr.splitlines()
    assert "Permission denied (publickey" in refused
    assert told.startswith(
        "smssh: the job knows the smssh key of the machine that submitted it (SSHOwner: ann)"
    )
    assert f"authorized_keys=('{own}.pub',)" in told


@pytest.mark.e2e
@pytest.mark.applies(hasattr(os, "pidfd_open"), "a file is read once ssh has ended, which Linux tells")
def test_after_a_refusal_the_line_is_in_a_file_too(world: World, tmp_path: Path) -> None:  # noqa: F811
    """And whatever ssh says is there when ssh ends: a script reads the file at once."""
    strange(world)
    path = tmp_path / "errors"
    path.write_text(f"root@{ADDRESS}: Permission denied (publickey).\n")  # of another day
    with path.open("ab") as errors:
        done = subprocess.run(
            [sys.executable, "-m", "smssh_plugin.cli", "connect", ADDRESS, "--", "true"],
            env=world.environment,
            stdout=errors,
            stderr=errors,
            timeout=LIMIT,
            check=False,
        )
    assert done.returncode == 255
    assert path.read_text().splitlines()[1].startswith(("root@", getpass.getuser()))
    until(lambda: "smssh: " in path.read_text())
    _, refused, told = path.read_text().splitlines()
    assert "Permission denied (publickey" in refused
    assert told.startswith("smssh: the job knows the smssh key of the machine that submitted it")


def test_an_agent_with_too_many_keys_for_a_server_is_told(
    ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers of jobs that started before ours allowed for many."""
    for number in range(20):
        make_key(tmp_path / str(number))
    with agent(tmp_path, *(tmp_path / str(number) for number in range(20))) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        with Connection(ssh_server.endpoint) as connection:  # ours is the first
            assert connection.run("echo in").text == "in\n"
        make_key(tmp_path / "own")
        with pytest.raises(SmsshError, match="does not accept") as caught:
            Connection(ssh_server.with_key(tmp_path / "own"))
    if (ssh_server.folder / "sshd_config").exists():  # asyncssh takes any number
        assert f"`smssh connect -o IdentityAgent=none {ssh_server.endpoint.address}`" in caught.value.hint


@pytest.mark.e2e
def test_what_a_command_writes_to_stderr_arrives_as_it_is(world: World) -> None:  # noqa: F811
    """A refusal of another server's, git's for one, is not a refusal of ours; and the output ends with the command."""
    said = r"git@github.com: Permission denied (publickey).\r\n\tx\rno end"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "smssh_plugin.cli",
            "connect",
            ADDRESS,
            "--",
            f"printf '{said}' >&2; exit 255",
        ],
        env=world.environment,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stdout) == (255, b"")
    assert done.stderr == b"git@github.com: Permission denied (publickey).\r\n\tx\rno end"
