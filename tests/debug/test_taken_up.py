"""`smssh debug` that was killed, and another one that goes on: nothing is done twice."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.debug.repair import Progress
from tests.client.nodes import set_state
from tests.waiting import until

from .container import GOOD_PATCH
from .test_debug import world  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from pathlib import Path

    from tests.client.conftest import SshServer

    from .test_debug import World

DEBUG = """\
import pathlib, pickle, sys
from smssh_plugin.aws.session import AwsSession
from smssh_plugin.client.connection import Connection
from smssh_plugin.debug import repair, run
from smssh_plugin.debug.view import PlainView

endpoint = pickle.loads(bytes.fromhex(sys.argv[1]))
repair.login = lambda _session, _node: Connection(endpoint)
options = run.Options("pipe", poll=0.1, fixes=pathlib.Path(sys.argv[2]))
run.debug(options, AwsSession(), PlainView(sys.stdout))
"""
SLOW = GOOD_PATCH.replace(
    'print("trained")',
    "import os, time; open('runs', 'w'); any(time.sleep(0.05) for _ in iter(lambda: os.path.exists('go'), True))",
)


class Killed:
    """A debugger in a process of its own."""

    def __init__(self, server: SshServer, fixes: Path) -> None:
        self._log = fixes.with_name("debug.log")
        self._process = subprocess.Popen(
            [sys.executable, "-c", DEBUG, pickle.dumps(server.endpoint).hex(), str(fixes)],
            stdout=(log := self._log.open("w")),
            start_new_session=True,
        )
        log.close()

    def left(self) -> bool:
        """Whether it has left a step to a person."""
        return "left held" in self._log.read_text()

    def kill(self) -> None:
        """And the ssh programs that it has started, as a machine that is switched off does."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def notes(world: World) -> list[dict[str, Any]]:  # noqa: F811
    found = [Progress.read(call.partition(" ")[2]) for call in world.container.calls if call[:4] == "note"]
    return [vars(one) for one in found if one is not None]


def retries(world: World) -> int:  # noqa: F811
    return world.container.calls.count("retry --json")


def test_killed_during_the_retry_that_succeeds(world: World, any_server: SshServer) -> None:  # noqa: F811
    world.start()
    world.follow()
    fixes = world.container.fixes(Train_patch=SLOW)
    first = Killed(any_server, fixes)
    until((world.container.code / "runs").exists, "the retry runs")
    first.kill()
    set_state(world.service, world.node, "running")
    world.view.on_event = lambda event: (
        (world.container.code / "go").touch() if "step runs" in event.text else None
    )
    found = world.debug(fixes=fixes, timeout=60)
    assert found.status == "Succeeded"
    assert retries(world) == 1


def test_killed_during_the_retry_that_fails(world: World, any_server: SshServer) -> None:  # noqa: F811
    world.start()
    fixes = world.container.fixes(Train_patch=SLOW + "+sys.exit(3)\n")
    text = fixes / "Train.patch"
    text.write_text(text.read_text().replace("@@ -1,2 +1,2 @@", "@@ -1,2 +1,3 @@"))
    first = Killed(any_server, fixes)
    until((world.container.code / "runs").exists, "the retry runs")
    first.kill()
    (world.container.code / "go").touch()
    until(lambda: world.container.state["attempt"] == 2 and world.container.state["state"] == "held")
    world.follow()
    world.container.set(attempts=[{"attempt": 2, "exit_code": 3, "seconds": 1.0}])
    found = world.debug(fixes=fixes, release=True, timeout=60)
    assert retries(world) == 1
    assert "it fails with its fix, too: released it" in world.view.text
    assert [(one.attempt, one.by) for one in found.attempts if one.attempt == 2] == [(2, "debugger")]


def test_killed_while_the_script_runs(world: World, any_server: SshServer) -> None:  # noqa: F811
    """Nobody knows how far it came: it is not run again."""
    world.start()
    world.follow()
    fixes = world.container.fixes(Train_sh="echo once >> ran; sleep 600\n")
    first = Killed(any_server, fixes)
    until((world.container.code / "ran").exists, "the script runs")
    first.kill()
    world.debug(fixes=fixes, release=True, timeout=60)
    assert (world.container.code / "ran").read_text() == "once\n"
    assert retries(world) == 0
    assert "the connection was lost while Train.sh ran: released it" in world.view.text


def test_the_script_failed_in_an_earlier_run(world: World, any_server: SshServer) -> None:  # noqa: F811
    """It is not run again, and no connection was lost."""
    world.start()
    world.follow()
    fixes = world.container.fixes(Train_sh="echo once >> ran; exit 4\n")
    first = Killed(any_server, fixes)
    until(first.left, "the step is left held")
    first.kill()
    world.debug(fixes=fixes, release=True, timeout=60)
    assert (world.container.code / "ran").read_text() == "once\n"
    assert retries(world) == 0
    assert "Train.sh failed, and is not run again until the fix is changed: released it" in world.view.text
    assert "the connection was lost" not in world.view.text


def test_killed_between_the_patch_and_the_script(world: World, any_server: SshServer) -> None:  # noqa: F811
    world.start()
    world.follow()
    script = "test -e go || exec sleep 600\n"
    fixes = world.container.fixes(Train_patch=GOOD_PATCH, Train_sh=script)
    first = Killed(any_server, fixes)
    until(lambda: len(notes(world)) == 2, "the script runs")
    first.kill()
    assert [(one["patched"], one["script"]) for one in notes(world)] == [(True, ""), (True, "started")]
    world.container.set(note=Progress(**notes(world)[0]).note())  # as it was a moment before
    (world.container.code / "go").touch()
    found = world.debug(fixes=fixes, timeout=60)
    assert found.status == "Succeeded"
    assert "an earlier smssh debug has begun to fix it, and this one goes on" in world.view.text
    assert [action.what for action in found.incidents[0].actions] == ["script", "retry"]


def test_another_fix_is_tried_although_one_was_before(world: World) -> None:  # noqa: F811
    world.start()
    world.follow()
    world.container.set(
        attempt=2, note=Progress(1, "the digest of another", patched=True, retried=True).note()
    )
    found = world.debug(fixes=world.container.fixes(Train_patch=GOOD_PATCH), timeout=60)
    assert found.status == "Succeeded"
    assert retries(world) == 1


@pytest.mark.parametrize(
    "note",
    [
        "",
        "by hand",
        "[1]",
        '{"by": "smssh debug"}',
        '{"by": "smssh debug", "attempt": true}',
        '{"by": "somebody", "attempt": 1}',
        '{"by": "smssh debug", "attempt": 1e400}',
        {"attempt": 1},
    ],
)
def test_a_note_of_somebody_else_is_not_read(world: World, note: Any) -> None:  # noqa: F811
    world.start()
    world.follow()
    world.container.set(note=note)
    found = world.debug(fixes=world.container.fixes(Train_patch=GOOD_PATCH), timeout=60)
    assert found.status == "Succeeded"


def test_a_container_without_notes_is_fixed_all_the_same(world: World) -> None:  # noqa: F811
    world.start()
    world.follow()
    world.container.set(no_notes=True)
    found = world.debug(fixes=world.container.fixes(Train_patch=GOOD_PATCH), timeout=60)
    assert found.status == "Succeeded"
    assert "note" not in world.container.state
