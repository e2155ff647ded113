"""Real ssh and scp, through the proxy, the service and an agent, to a real sshd."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.waiting import until

from .support import Sshd, proxy_command

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import World

pytestmark = pytest.mark.e2e


def _more(world: World, kind: str, session: str, before: int) -> bool:
    return world.stack.events(kind).count(session) > before


def ssh(
    world: World,
    sshd: Sshd,
    *command: str,
    program: str = "ssh",
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [program, *sshd.options(proxy_command(world.node, sshd.port)), *command],
        env=world.stack.environment,
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_a_login_ends_with_the_commands_status_and_leaves_nothing(world: World, sshd: Sshd) -> None:
    done = ssh(world, sshd, "job", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    until(lambda: not world.stack.service.active_sessions, what="the end of the session")


def test_ten_logins_leave_no_session(world: World, sshd: Sshd) -> None:
    """With session-manager-plugin half of them stay: ssh ends it by SIGHUP before the agent hears of it."""
    assert [ssh(world, sshd, "job", "true").returncode for _ in range(10)] == [0] * 10
    until(lambda: not world.stack.service.active_sessions, what="the end of the sessions")


def test_files_are_copied_both_ways_to_the_byte(world: World, sshd: Sshd, tmp_path: Path) -> None:
    content = os.urandom(5 * 1024 * 1024)
    (tmp_path / "here").write_bytes(content)
    up = ssh(world, sshd, str(tmp_path / "here"), f"job:{tmp_path}/there", program="scp")
    assert (up.returncode, up.stderr) == (0, b"")
    down = ssh(world, sshd, f"job:{tmp_path}/there", str(tmp_path / "back"), program="scp")
    assert (down.returncode, down.stderr) == (0, b"")
    assert (tmp_path / "there").read_bytes() == content
    assert (tmp_path / "back").read_bytes() == content


def test_a_login_survives_a_cut_on_either_side(world: World, sshd: Sshd, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    process = subprocess.Popen(
        [
            "ssh",
            *sshd.options(proxy_command(world.node, sshd.port)),
            "job",
            f"echo ready; read line < {go}; seq 20000",
        ],
        env=world.stack.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    (session,) = world.stack.service.active_sessions
    for side in ("client", "agent"):
        opened = f"{side}-open"
        before = world.stack.events(opened).count(session.id)
        world.stack.do(world.stack.service.drop(side, session.id))
        until(partial(_more, world, opened, session.id, before), what=f"a new {side}")
    with go.open("w") as pipe:
        pipe.write("go\n")
    output, errors = process.communicate(timeout=30)
    assert output == b"".join(b"%d\n" % number for number in range(1, 20001))
    assert process.returncode == 0, errors


def test_a_wrong_host_key_is_refused_and_leaves_nothing(world: World, sshd: Sshd, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    known = tmp_path / "known"
    known.write_text("job " + (tmp_path / "other.pub").read_text())
    # The first value of an option counts.
    done = subprocess.run(
        [
            "ssh",
            "-o",
            f"UserKnownHostsFile={known}",
            *sshd.options(proxy_command(world.node, sshd.port)),
            "job",
            "true",
        ],
        env=world.stack.environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 255
    assert b"HOST IDENTIFICATION HAS CHANGED" in done.stderr
    until(lambda: not world.stack.service.active_sessions, what="the end of the session")
