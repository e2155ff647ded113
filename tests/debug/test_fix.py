"""Fixes put into a container over SSH: whole, exact, or not at all."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.client.connection import Connection
from smssh_plugin.debug import fix
from smssh_plugin.errors import ExitStatus, SmsshError
from tests.rights import ordinary

from .container import GOOD_PATCH, Container

if TYPE_CHECKING:
    from pathlib import Path

    from tests.client.conftest import SshServer


@pytest.fixture(scope="module")
def connection(any_server: SshServer):
    with Connection(any_server.endpoint) as found:
        yield found


@pytest.fixture
def container(tmp_path: Path, any_server: SshServer) -> Container:
    return Container(tmp_path / "container", any_server.folder / "bin")


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_patch_is_applied_and_the_mode_kept(connection: Connection, container: Container) -> None:
    patch = container.fixes(Train_patch=GOOD_PATCH) / "Train.patch"
    action = fix.apply_patch(connection, str(container.code), patch)
    assert action.ok
    assert action.files == [str(container.code / "train.py")]
    assert everything(container.code) == {"train.py": b'import sys\nprint("trained")\n'}
    assert stat.S_IMODE((container.code / "train.py").stat().st_mode) == 0o640


def test_several_files_at_once(connection: Connection, container: Container) -> None:
    (container.code / "old.py").write_text("x\n")
    patch = container.fixes(
        Train_patch=GOOD_PATCH.replace("src/", "")
        + "--- /dev/null\n+++ b/new folder/a'b.py\n@@ -0,0 +1 @@\n+new\n"
        + "--- a/old.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"
    )
    fix.apply_patch(connection, str(container.code), patch / "Train.patch")
    assert everything(container.code) == {
        "train.py": b'import sys\nprint("trained")\n',
        "new folder/a'b.py": b"new\n",
    }


def test_a_patch_that_does_not_fit_changes_nothing(connection: Connection, container: Container) -> None:
    (container.code / "util.py").write_text("x\n")
    before = everything(container.code)
    wrong = "--- a/util.py\n+++ b/util.py\n@@ -1 +1 @@\n-y\n+z\n"
    patch = container.fixes(Train_patch=GOOD_PATCH.replace("src/", "") + wrong) / "Train.patch"
    with pytest.raises(SmsshError, match=r"Train.patch does not apply to util.py"):
        fix.apply_patch(connection, str(container.code), patch)
    assert everything(container.code) == before


def test_code_that_may_not_be_written(
    connection: Connection, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = connection.run

    def with_ordinary_rights(command: str | list[str], **options: Any) -> Any:
        words = ["sh", "-c", command] if isinstance(command, str) else command
        return run([*ordinary(), *words], **options)

    monkeypatch.setattr(connection, "run", with_ordinary_rights)
    patch = container.fixes(Train_patch=GOOD_PATCH) / "Train.patch"
    container.code.chmod(0o555)
    try:
        with pytest.raises(SmsshError, match="cannot be changed"):
            fix.apply_patch(connection, str(container.code), patch)
    finally:
        container.code.chmod(0o755)


def test_no_code_there(connection: Connection, container: Container) -> None:
    patch = container.fixes(Train_patch=GOOD_PATCH) / "Train.patch"
    with pytest.raises(SmsshError, match="cannot list the job's code in /nonexistent"):
        fix.apply_patch(connection, "/nonexistent", patch)


@pytest.mark.parametrize("first", ["", "#!/bin/sh\n", "#!/usr/bin/env sh\n"])
def test_a_script_runs_in_the_code_folder(connection: Connection, container: Container, first: str) -> None:
    script = container.fixes(Train_sh=f'{first}echo "in $(basename "$PWD")"; touch made\n') / "Train.sh"
    action = fix.run_script(connection, str(container.code), script)
    assert action.detail == "in code dir\n"
    assert (container.code / "made").exists()


def test_a_script_that_fails(connection: Connection, container: Container) -> None:
    script = container.fixes(Train_sh="echo no good; exit 3\n") / "Train.sh"
    with pytest.raises(SmsshError, match=r"Train\.sh ended with status 3") as caught:
        fix.run_script(connection, str(container.code), script)
    assert caught.value.hint == "no good"


def test_the_folder_is_looked_at_first(container: Container, tmp_path: Path) -> None:
    with pytest.raises(SmsshError, match="there is no folder"):
        fix.check(tmp_path / "absent", {"Train": False})
    folder = container.fixes(Train_patch="", README_md="")
    fix.check(folder, {"Train": False, "Score": False})
    assert fix.find(folder, "Train") == fix.Fix(folder / "Train.patch", None)
    assert fix.find(folder, "Score") is None
    with pytest.raises(SmsshError, match="'Train', which the pipeline does not have") as caught:
        fix.check(folder, {"Trian": False})
    assert caught.value.status is ExitStatus.NOT_FOUND


def test_a_folder_may_hold_the_fixes_of_other_pipelines(tmp_path) -> None:
    (tmp_path / "Score.patch").write_text("")
    (tmp_path / "notes.txt").write_text("")
    assert [path.name for path in fix.check(tmp_path, {"Train": False})] == ["Score.patch"]
    (tmp_path / "Train.sh").write_text("")
    (tmp_path / "Trian.patch").write_text("")  # beside one that is used, it is said and no more
    assert [path.name for path in fix.check(tmp_path, {"Train": False})] == ["Score.patch", "Trian.patch"]
    assert fix.check(tmp_path, {}) == []
    (tmp_path / "Train.sh").unlink()
    with pytest.raises(SmsshError, match="a step 'Trian', which the pipeline does not have") as caught:
        fix.check(tmp_path, {"Train": False})
    assert "'Train'" in str(caught.value.hint)


def test_a_fix_for_one_iteration_of_a_loop(tmp_path) -> None:
    for name in ("Train-1.patch", "Train.sh", "Train-x.sh", "Score-1.sh"):
        (tmp_path / name).write_text("")
    steps = {"Train": True, "Score": False}
    assert [path.name for path in fix.check(tmp_path, steps)] == ["Score-1.sh", "Train-x.sh"]
    assert fix.find(tmp_path, "Train-1", "Train") == fix.Fix(tmp_path / "Train-1.patch", None)
    assert fix.find(tmp_path, "Train-2", "Train") == fix.Fix(None, tmp_path / "Train.sh")


def test_the_digest_of_a_fix_is_that_of_its_contents(tmp_path) -> None:
    patch, script = tmp_path / "a.patch", tmp_path / "a.sh"
    patch.write_text("ab")
    script.write_text("c")
    digests = {fix.Fix(patch, script).digest(), fix.Fix(patch, None).digest(), fix.Fix(None, script).digest()}
    patch.write_text("a")
    script.write_text("bc")
    digests.add(fix.Fix(patch, script).digest())
    assert len(digests) == 4
    assert fix.Fix(tmp_path / "absent.patch", None).digest() == ""
