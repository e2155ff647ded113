"""Files that are written whole or not at all."""

import os
import stat
import threading
from pathlib import Path

import pytest

from smssh_plugin import files
from smssh_plugin.files import AtomicFile, write_atomically


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_its_owners_alone_unless_the_caller_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, "text\n")
    assert (path.read_bytes(), mode(path)) == (b"text\n", 0o600)
    before = os.umask(0o077)
    try:
        write_atomically(path, b"program", mode=0o755)
    finally:
        os.umask(before)
    assert (path.read_bytes(), mode(path)) == (b"program", 0o755)
    write_atomically(path, "", mode=None)
    assert (path.read_bytes(), mode(path)) == (b"", 0o755)
    write_atomically(tmp_path / "b", "new", mode=None)
    assert mode(tmp_path / "b") == 0o600
    assert names(tmp_path) == ["a", "b"]


def test_a_name_of_the_system_is_written_as_it_was(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", "é " + os.fsdecode(b"caf\xe9"))
    assert (tmp_path / "a").read_bytes() == "é ".encode() + b"caf\xe9"


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with AtomicFile(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
        assert [mode(each) for each in tmp_path.iterdir() if each != path] == [0o600]
    assert path.read_text() == "new"


def test_an_error_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), AtomicFile(path) as file:  # noqa: PT012
        file.write(b"new")
        raise KeyboardInterrupt
    monkeypatch.setattr(files, "open", lambda _, mode: open("/dev/full", mode), raising=False)  # noqa: SIM115
    for size in (1, 1_000_000):  # the buffer is flushed at the end; what is larger is written at once
        with pytest.raises(OSError, match="No space left"):
            write_atomically(path, b"x" * size)
    assert (path.read_text(), names(tmp_path)) == ("old", ["a"])


def test_a_link_is_replaced_and_what_it_names_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("theirs")
    (tmp_path / "a").symlink_to("other")
    write_atomically(tmp_path / "a", "ours")
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "other").read_text() == "theirs"


def test_a_durable_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args)))
    write_atomically(tmp_path / "a", "text")
    assert calls == ["replace"]
    write_atomically(tmp_path / "a", "text", durable=True)
    assert calls[1:] == ["fsync", "replace"]


def test_readers_see_one_or_the_other(tmp_path: Path) -> None:
    """Two writers and a reader at once: never half a file, never none."""
    path = tmp_path / "a"
    contents = {letter.encode() * 100_000 for letter in "ab"}
    write_atomically(path, b"a" * 100_000)
    writers = [
        threading.Thread(target=lambda data=data: [write_atomically(path, data) for _ in range(200)])
        for data in contents
    ]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        seen.add(path.read_bytes())
    assert seen <= contents
    assert names(tmp_path) == ["a"]
