"""Wheels for images without sshd: exactly the ones in the table, through pip or uv."""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from smssh_plugin import SSHOptions
from smssh_plugin.errors import SmsshError
from smssh_plugin.submit.bundle import wheels
from smssh_plugin.submit.bundle.build import build
from smssh_plugin.submit.bundle.wheels import wheels_for
from tests.submit.conftest import KEY

if TYPE_CHECKING:
    from pathlib import Path

NAME = "smssh_wheel_for_tests-1.0-py3-none-any.whl"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one wheel, the only place where pip looks; the table wants that wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = "smssh_wheel_for_tests-1.0.dist-info"
    with zipfile.ZipFile(folder / NAME, "w") as archive:
        archive.writestr("smssh_wheel_for_tests.py", "")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: smssh-wheel-for-tests\nVersion: 1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    digest = hashlib.sha256((folder / NAME).read_bytes()).hexdigest()
    table = {("3.11", "x86_64"): (("smssh-wheel-for-tests", "1.0", digest),)}
    monkeypatch.setattr(wheels, "WHEELS", table)
    return folder


@pytest.mark.needs("pip")  # uv would fetch from the index, which is not for tests
def test_they_are_downloaded_once_and_checked(
    index: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = {NAME: (index / NAME).read_bytes()}
    assert wheels_for("3.11") == expected
    assert "smssh: downloading asyncssh for Python 3.11" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert wheels_for("3.11-x86_64") == expected
    assert capsys.readouterr().err == ""
    bundle = build(SSHOptions(wheels=("3.11",)), [KEY])
    assert bundle.files[f"wheels/3.11-x86_64/{NAME}"] == expected[NAME]
    assert f"wheels/3.11-x86_64/{NAME}" in json.loads(bundle.files["smssh-manifest.json"])["files"]


@pytest.mark.needs("pip")  # uv would fetch from the index, which is not for tests
def test_another_file_of_that_name_is_refused(index: Path, home: Path) -> None:
    with zipfile.ZipFile(index / NAME, "a") as archive:
        archive.writestr("evil.py", "")
    with pytest.raises(SmsshError) as caught:
        wheels_for("3.11")
    assert caught.value.reference == "wheels-not-downloaded"
    assert not list(home.rglob("*.whl"))


@pytest.mark.usefixtures("index")
def test_a_spoilt_cache_is_not_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = home / "wheels" / "3.11-x86_64"
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(b"something else")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SmsshError, match="there is neither pip nor uv here"):
        wheels_for("3.11")


def test_a_python_that_is_not_in_the_table() -> None:
    with pytest.raises(SmsshError, match=r"no asyncssh wheels for Python 3\.6") as caught:
        wheels_for("3.6")
    assert "3.8, 3.9, 3.10" in (caught.value.hint or "")


def test_the_table_is_complete() -> None:
    for (python, machine), locked in wheels.WHEELS.items():
        assert machine in ("x86_64", "aarch64")
        SSHOptions(wheels=(f"{python}-{machine}",))
        assert {name for name, _, _ in locked} >= {"asyncssh", "cffi", "cryptography", "typing_extensions"}
        assert all(len(digest) == 64 for _, _, digest in locked)
