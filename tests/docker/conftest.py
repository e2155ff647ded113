"""Docker, bundle, wheel and key for the table, and the table itself at the end."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from smssh_plugin.submit.bundle import build as bundles
from smssh_plugin.submit.options import SSHOptions
from tests import needs
from tests.entrypoints.conftest import key

from . import daemon, table
from .harness import Lab
from .images import find_uv

__all__ = ["key"]

SOURCES = ("smssh_plugin", "hooks", "entrypoints", "pyproject.toml", "setup.py", "README.md", "LICENSE")
WHEELS_FOR = ("3.11",)
"""The Pythons whose asyncssh wheels travel in the bundle, for images without sshd."""


@pytest.fixture(scope="session")
def docker():
    for name in daemon.PROGRAMS:
        needs.program(name)
    if os.geteuid() != 0:
        needs.does_not_apply("dockerd needs root")
    with daemon.Docker() as running:
        yield running


@pytest.fixture(scope="session")
def bundle(tmp_path_factory, key):
    folder = tmp_path_factory.mktemp("bundle")
    options = SSHOptions(transport="none", wheels=WHEELS_FOR)
    bundles.build(options, [key.with_suffix(".pub").read_text().strip()]).write(folder)
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    out = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        origin = daemon.ROOT / name
        if origin.is_dir():
            shutil.copytree(origin, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(origin, source / name)
    # The same bytes for the same sources: baked images are cached by them.
    command = [find_uv(), "build", "--quiet", "--wheel", "--out-dir", str(out), str(source)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1600000000"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="session")
def lab(docker, bundle, wheel, key):
    with pytest.MonkeyPatch.context() as patch:
        # The SDK, whose files rows take, makes clients when it is imported.
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield Lab(docker, Path(bundle), wheel, key)


def pytest_sessionstart(session):
    session.config.stash[table.KEY] = table.Table(time.monotonic())


def pytest_terminal_summary(terminalreporter, config):
    made = config.stash.get(table.KEY, None)
    if made is not None and made.cells:
        text = made.text()
        path = daemon.WORK.parent / "containers.md"
        path.write_text(text)
        terminalreporter.section("containers")
        terminalreporter.write(text)
        terminalreporter.write_line(f"written to {path}")
