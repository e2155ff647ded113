"""The lines of `smssh ssh-config`, read by the real ssh: beside a user's own, and written for an older one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from smssh_plugin.client import ssh_config
from smssh_plugin.errors import SmsshError
from tests import needs

from .test_login import ADDRESS, World, world  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from pathlib import Path

USERS = """
Host *
  ControlMaster auto
  ControlPath ~/.ssh/%r@%h:%p
  ControlPersist 10m
  ProxyJump bastion
  RemoteCommand tmux
  Port 2222
  HostName elsewhere
  HostKeyAlias x
  CanonicalizeHostname always
  KnownHostsCommand /bin/echo %H
  IgnoreUnknown UseKeychain,Other*
  UseKeychain yes
  OtherThing yes
"""


def fake(folder: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ssh that says it is of a version, and is the real one besides."""
    program = folder / "bin" / "ssh"
    program.parent.mkdir(exist_ok=True)
    program.write_text(
        f'#!/bin/sh\n[ "$1" = -V ] && {{ echo "{version}" >&2; exit 0; }}\nexec {needs.program("ssh")} "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def chosen(config: Path, host: str = "Algo-1.My-Job.training.sagemaker") -> dict[str, str]:
    """What ssh makes of a configuration for a host."""
    done = subprocess.run(["ssh", "-F", str(config), "-G", host], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(line.partition(" ")[::2] for line in done.stdout.splitlines())


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / ".ssh" / "config"
    path.parent.mkdir(exist_ok=True)
    path.write_text(USERS.replace("  HostKeyAlias x\n", ""))
    return path


def test_what_a_user_says_for_all_hosts_leads_nowhere_else(users: Path) -> None:
    ssh_config.install()
    found = chosen(users)
    assert found["controlmaster"] == "false"
    assert found.get("controlpath", "none") == "none"
    assert found["port"] == "22"
    assert found["hostname"] == "algo-1.my-job.training.sagemaker"
    assert found["canonicalizehostname"] == "false"
    assert " proxy " in found["proxycommand"]
    for name in ("proxyjump", "remotecommand", "knownhostscommand"):
        assert found.get(name, "none") == "none"
    # And the user's other hosts are as they were.
    theirs = chosen(users, "example.com")
    users.write_text(USERS.replace("  HostKeyAlias x\n", ""))
    assert {**theirs, "ignoreunknown": ""} == {**chosen(users, "example.com"), "ignoreunknown": ""}


def test_the_keys_of_a_person_are_offered_after_ours(users: Path) -> None:
    for name in ("id_rsa", "id_ed25519", "id_ed25519.pub", "id_ecdsa_sk"):
        (users.parent / name).touch()
    ssh_config.install()
    done = subprocess.run(
        ["ssh", "-F", str(users), "-G", "My-Job.training.sagemaker"],
        capture_output=True,
        text=True,
        check=True,
    )
    named = [line.partition(" ")[2] for line in done.stdout.splitlines() if line.startswith("identityfile ")]
    ours = str(users.parent.parent / "smssh" / "id_ed25519")
    assert named == [ours, *(str(users.parent / name) for name in ("id_ed25519", "id_rsa", "id_ecdsa_sk"))]
    assert "identitiesonly no" in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("version", "remote", "command", "noted"),
    [
        ("OpenSSH_7.4p1, OpenSSL 1.0.2k-fips", False, False, True),
        ("OpenSSH_8.0p1, OpenSSL 1.1.1k  FIPS", True, False, True),
        ("OpenSSH_8.2p1 Ubuntu-4ubuntu0.11, OpenSSL 1.1.1f", True, False, True),
        ("OpenSSH_8.5p1, LibreSSL 3.3.6", True, True, False),
        ("OpenSSH_for_Windows_9.5p1, LibreSSL 3.8.2", True, True, False),
        ("OpenSSH_10.0p2 Debian-7, OpenSSL 3.5.1", True, True, False),
        ("Sun_SSH_2.4", True, True, False),
    ],
)
def test_no_more_is_written_than_that_ssh_knows(
    version: str,
    remote: bool,
    command: bool,
    noted: bool,
    users: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    fake(tmp_path, version, monkeypatch)
    path, _ = ssh_config.install()
    lines = path.read_text().splitlines()
    ignored = next(line for line in lines if line.startswith("IgnoreUnknown "))
    assert {"KnownHostsCommand", "RemoteCommand", "UseKeychain", "Other*"} <= set(
        ignored.split()[1].split(",")
    )
    keywords = {line.split()[0] for line in lines if line.startswith("  ")}
    assert ("RemoteCommand" in keywords, "KnownHostsCommand" in keywords) == (remote, command)
    (proxy,) = (line for line in lines if "ProxyCommand" in line)
    assert ("%n" in proxy) is not noted
    known = next(line for line in lines if "UserKnownHostsFile" in line)
    assert ("%" in known) is not noted
    chosen(users)


def test_an_ssh_without_include_is_left_alone(
    users: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake(tmp_path, "OpenSSH_6.6.1p1, OpenSSL 1.0.1e", monkeypatch)
    before = users.read_text()
    with pytest.raises(SmsshError, match=r"OpenSSH 6\.6 has no Include"):
        ssh_config.install()
    assert users.read_text() == before


@pytest.mark.e2e
def test_an_old_ssh_logs_in_by_the_name_that_was_typed(
    world: World,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake(tmp_path, "OpenSSH_8.2p1 Ubuntu-4ubuntu0.11, OpenSSL 1.1.1f", monkeypatch)
    world.environment["PATH"] = os.environ["PATH"]
    assert world.smssh("ssh-config", "--write").returncode == 0
    text = (world.home / "ssh_config").read_text()
    # As that ssh would: no token of either line, but those it knows.
    assert not re.search("UserKnownHostsFile.*%|ProxyCommand.*%n", text)
    assert ADDRESS.lower() != ADDRESS
    for _ in range(2):
        done = world.ssh("echo in")
        assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
    node = world.stack.service.nodes.nodes[world.agent.node]
    node.tags["SMSSHHostKey"] = (
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINQQx6MFgikuayP3KjGtBfmH0qBGmr9Jsm+oj438aNTJ"
    )
    shutil.rmtree(world.home / "nodes")
    assert "HOST IDENTIFICATION HAS CHANGED" in world.ssh("true").stderr


@pytest.mark.e2e
def test_profile_and_region_are_pinned(world: World, tmp_path: Path) -> None:  # noqa: F811
    config = tmp_path / "aws-config"
    keys = {name: world.environment.pop(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    config.write_text(
        f"[profile it's mine]\naws_access_key_id = {keys['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {keys['AWS_SECRET_ACCESS_KEY']}\n"
    )
    region = world.environment.pop("AWS_REGION")
    del world.environment["AWS_DEFAULT_REGION"]
    world.environment["AWS_CONFIG_FILE"] = str(config)
    assert world.ssh("true").returncode == 255
    done = world.smssh("ssh-config", "--write", "--profile", "it's mine", "--region", region)
    assert done.returncode == 0, done.stderr
    done = world.ssh("echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
