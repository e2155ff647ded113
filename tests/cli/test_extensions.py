"""Commands that installed packages add, as a person meets them: a package on the path, a process of its own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from smssh_plugin.cli import extensions

from .test_app import smssh

if TYPE_CHECKING:
    from pathlib import Path

HOOKS = """\
from smssh_plugin import hookimpl

@hookimpl
def smssh_register_commands(commands):
    commands.update({"jupyter": "theirs:jupyter", "list": "theirs:jupyter", "gone": "nowhere:x", "odd": "theirs:ODD"})
"""
COMMANDS = """\
import click
from smssh_plugin.errors import SmsshError

ODD = 5

@click.command()
@click.option("--port", type=int, default=8888)
def jupyter(port):
    "Open a notebook in a job."
    if port < 1024:
        raise SmsshError("that port is taken", hint="try another")
    click.echo(click.get_text_stream("stdin").read() + f"http://127.0.0.1:{port}")
    return 5
"""


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """A package as an installer leaves it, and the environment in which it is found."""
    site = tmp_path / "site"
    metadata = site / "theirs-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[smssh]\ntheirs = theirs_hooks\n")
    (site / "theirs_hooks.py").write_text(HOOKS)
    (site / "theirs.py").write_text(COMMANDS)
    return {"PYTHONPATH": str(site)}


def test_it_runs_with_its_options_and_status(installed: dict[str, str]) -> None:
    done = smssh("jupyter", "--port", "9999", stdin="its stdin: ", **installed)
    assert (done.returncode, done.stdout) == (5, "its stdin: http://127.0.0.1:9999\n")
    assert "a plugin's command list is left out" in done.stderr


def test_its_errors_are_shown_as_ours(installed: dict[str, str]) -> None:
    done = smssh("jupyter", "--port", "80", **installed)
    assert done.returncode == 1
    assert "that port is taken" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_it_on_its_own(installed: dict[str, str]) -> None:
    page = smssh("--help", **installed).stdout
    ours, theirs = page.split("Commands of plugins:\n")
    assert "jupyter" in theirs
    assert "from theirs\n" in theirs
    assert "  list " in ours
    assert "list" not in theirs
    assert "Open a notebook" in smssh("jupyter", "--help", **installed).stdout


@pytest.mark.parametrize(
    ("name", "problem"), [("gone", "ModuleNotFoundError"), ("odd", "is a int, not a click command")]
)
def test_one_that_cannot_be_loaded_is_said(installed: dict[str, str], name: str, problem: str) -> None:
    done = smssh(name, **installed)
    assert done.returncode == 1
    assert problem in done.stderr
    assert "update or uninstall the package of the plugin" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_hook_that_raises_leaves_smssh_alone(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "site" / "theirs_hooks.py").write_text(HOOKS.replace("commands.update", "1 / 0 #"))
    done = smssh("list", "--help", **installed)
    assert done.returncode == 0
    page = smssh("--help", **installed)
    assert page.returncode == 0
    assert "smssh_register_commands of plugin theirs failed" in page.stderr


def test_without_plugins_nothing_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "none.zip"), ""])
    monkeypatch.chdir(tmp_path)
    assert not extensions.any_plugin()
    (tmp_path / "a.dist-info").mkdir()
    (tmp_path / "a.dist-info" / "entry_points.txt").write_text("[console_scripts]\nx = y\n")
    assert not extensions.any_plugin()
