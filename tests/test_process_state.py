"""What holds tests to leaving the process as they found it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHANGES = {
    "new_variable": ("os.environ['AWS_REGION'] = 'x'", "the environment variable AWS_REGION is new"),
    "lost_variable": ("os.environ.pop('PATH')", "the environment variable PATH is gone"),
    "folder": ("os.chdir('/')", "the working directory changed"),
    "umask": ("os.umask(0o077)", "the umask changed: '0022' -> '0077'"),
    "handler": ("signal.signal(signal.SIGUSR1, signal.SIG_IGN)", "the handler of SIGUSR1 changed"),
    "path": ("sys.path.insert(0, '/x')", "sys.path changed"),
    "logging": ("logging.disable()", "the level of logging changed"),
    "limit": ("socket.setdefaulttimeout(1)", "the time limit of sockets changed"),
}
"""By name, what a test does and what is said of it."""
BEGINNING = """
import logging, os, signal, socket, sys, pytest

os.umask(0o022)

@pytest.fixture(scope="module")
def region():
    os.environ["SMSSH_REGION"] = "x"

def test_fixture(region):
    pass

def test_undone(monkeypatch, tmp_path):
    monkeypatch.setenv("OTHER", "x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("/y")
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By the names of tests, what is said of them; pytest runs them with nothing but the plugin."""
    folder = tmp_path_factory.mktemp("tests")
    tests = "".join(f"\ndef test_{name}():\n    {change}\n" for name, (change, _) in CHANGES.items())
    (folder / "test_it.py").write_text(BEGINNING + tests)
    words = ["-q", "-rA", "-p", "tests.process_state", "-p", "no:randomly", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "-c", "/dev/null", f"--rootdir={folder}", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin", "COLUMNS": "400"},
    )
    assert f"{len(CHANGES) + 2} passed" in done.stdout, done.stdout + done.stderr
    return dict(re.findall(r"^ERROR .*::test_(\w+) - (.*)$", done.stdout, re.MULTILINE))


@pytest.mark.parametrize("name", CHANGES)
def test_a_test_that_leaves_something_changed_fails(said: dict[str, str], name: str) -> None:
    assert f"the test leaves the process changed: {CHANGES[name][1]}" in said[name]


def test_a_fixture_of_the_module_is_held_to_it_too(said: dict[str, str]) -> None:
    assert "the environment variable SMSSH_REGION is new" in said["fixture"]


def test_what_is_undone_is_left_alone(said: dict[str, str]) -> None:
    assert "undone" not in said
