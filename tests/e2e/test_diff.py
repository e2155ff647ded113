"""`smssh diff` on a step that is held, by a person at a laptop with a git repository."""

import json
import shutil
import subprocess

import pytest

from .machine import CHURN, PATIENCE, TRAIN

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(2 * PATIENCE),
    pytest.mark.needs("image environment", "ssh"),
]


@pytest.fixture
def repository(emulator):
    """A repository of the user's with the code of the step."""
    folder = emulator.home / "repository"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(CHURN / "train", folder / "src" / "train", ignore=shutil.ignore_patterns("__pycache__"))
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "one"]):
        git(folder, *words)
    return folder


def git(folder, *words):
    words = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout


def test_what_was_changed_comes_back(held, repository) -> None:
    machine, arn = held
    source = repository / "src" / "train"
    nothing = machine.smssh("diff", TRAIN, check=False)
    assert nothing.returncode == 1
    assert "error: nothing was changed in" in nothing.stderr
    assert nothing.stdout == ""
    edit = 'cd "$SMSSH_CODE_DIR" && echo "# fixed" >> train.py && echo "x = 1" > helper.py'
    machine.smssh("connect", TRAIN, "--", edit)
    patch = machine.smssh("diff", TRAIN).stdout
    assert "+# fixed\n" in patch
    assert "--- /dev/null\n+++ b/helper.py\n" in patch
    assert "train.py " in machine.smssh("diff", TRAIN, "--stat").stdout
    file = machine.home / "fix.patch"
    told = machine.smssh("diff", TRAIN, "--source", source, "-o", file)
    assert "warning" not in told.stderr
    git(repository, "apply", file)
    assert (source / "train.py").read_text().endswith("# fixed\n")
    assert (source / "helper.py").read_text() == "x = 1\n"
    # What is there now is not what ran.
    told = machine.smssh("diff", TRAIN, "--source", source, "--json")
    assert "these files differ: train.py" in told.stderr
    found = json.loads(told.stdout)
    assert found["changes"] == [
        {"path": "helper.py", "what": "added"},
        {"path": "train.py", "what": "modified"},
    ]
    assert found["differing"] == ["train.py"]
    git(repository, "reset", "-q", "--hard")
    git(repository, "clean", "-qfd")
    git(repository, "config", "user.name", "A Person")
    git(repository, "config", "user.email", "a@example.com")
    machine.smssh("diff", TRAIN, "--source", source, "--branch", "fix/train")
    assert git(repository, "status", "--porcelain") == ""
    message = git(repository, "log", "-1", "--format=%B", "fix/train")
    assert f"Smssh-Execution: {arn.rpartition('/')[2]}\nSmssh-Step: Train\n" in message
    assert git(repository, "show", "fix/train:src/train/helper.py") == "x = 1\n"
    again = machine.smssh("diff", TRAIN, "--source", source, "--branch", "fix/train", check=False)
    assert again.returncode == 1
    assert "a branch 'fix/train' already" in again.stderr


def test_what_it_is_told_wrong(emulator) -> None:
    for words in (
        ["--branch", "x"],
        ["--stat", "-o", "x"],
        ["--source", "nowhere"],
        ["--source", emulator.home, "--branch", "x"],
    ):
        assert emulator.smssh("diff", TRAIN, *words, check=False).returncode == 2
    assert emulator.smssh("diff", "no-such-job.training.sagemaker", check=False).returncode == 3
