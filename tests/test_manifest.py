"""The manifest of a bundle: what it says of each file, and what is said of a file that is not one."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from types import SimpleNamespace

import pytest

from smssh_plugin.container import asyncssh_package
from smssh_plugin.errors import SmsshError
from smssh_plugin.manifest import MANIFEST, Manifest

FILES = {"b/two": b"2", "a": b"1"}


def test_it_is_read_as_it_was_written() -> None:
    made = Manifest.of("1.2", FILES)
    assert json.loads(made.text()) == {
        "version": "1.2",
        "files": {"a": hashlib.sha256(b"1").hexdigest(), "b/two": hashlib.sha256(b"2").hexdigest()},
    }
    assert Manifest.parse(made.text()) == made


def test_each_file_is_checked(tmp_path) -> None:
    made = Manifest.of("1", FILES)
    for name, data in FILES.items():
        made.check(name, data)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
        made.check_file(tmp_path, name)
    (tmp_path / "a").write_bytes(b"other")
    (tmp_path / "b" / "two").unlink()
    for name, problem in (
        ("a", "a is not what"),
        ("b/two", "b/two: No such file"),
        ("c", "c: No such file"),
    ):
        with pytest.raises(SmsshError, match=f"the bundle is damaged: {problem}"):
            made.check_file(tmp_path, name)
    with pytest.raises(SmsshError, match=f"more is not in {MANIFEST}"):
        made.check("more", b"")


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"version": "1"}', b'{"version": "1", "files": ["a"]}', b"\xff", b"null"]
)
def test_what_is_no_manifest(text, tmp_path) -> None:
    (tmp_path / MANIFEST).write_bytes(text)
    with pytest.raises(SmsshError, match=f"{MANIFEST} cannot be read") as caught:
        Manifest.of_folder(tmp_path)
    assert caught.value.reference == "bundle-damaged"


def test_a_folder_without_one(tmp_path) -> None:
    with pytest.raises(SmsshError, match=f"{MANIFEST}: No such file"):
        Manifest.of_folder(tmp_path)


def test_a_wheel_that_the_manifest_does_not_know_is_not_unpacked(tmp_path, monkeypatch) -> None:
    """As it would be where the image has no asyncssh."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}-{platform.machine()}"
    name = f"wheels/{python}/evil.whl"
    bundle = tmp_path / "bundle"
    (bundle / name).parent.mkdir(parents=True)
    (bundle / name).write_bytes(b"anything")
    (bundle / MANIFEST).write_bytes(Manifest.of("1", FILES).text())
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.setattr(asyncssh_package.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SmsshError, match=f"{name} is not in {MANIFEST}"):
        asyncssh_package.unpacked(SimpleNamespace(bundle=bundle, run_dir=run))
    assert not list((run / "site").iterdir())
