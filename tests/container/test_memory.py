"""What the kernel counts of a container's memory, in both versions of its files."""

import pytest

from smssh_plugin.container import memory

EVENTS = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"


def test_version_2(tmp_path) -> None:
    (tmp_path / "memory.events").write_text(EVENTS)
    (tmp_path / "memory.peak").write_text("4294967296\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.read(tmp_path) == {"oom_kills": 2, "peak_bytes": 1 << 32}
    (tmp_path / "memory.max").write_text("8589934592\n")
    assert memory.read(tmp_path)["limit_bytes"] == 1 << 33


def test_version_1(tmp_path) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    (folder / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    (folder / "memory.max_usage_in_bytes").write_text("1024\n")
    (folder / "memory.limit_in_bytes").write_text("9223372036854771712\n")  # no limit
    assert memory.read(tmp_path) == {"oom_kills": 1, "peak_bytes": 1024}


@pytest.mark.parametrize("text", ["", "oom_kill x\n", "oom_kill " + "9" * 5000, "\xff"])
def test_what_cannot_be_read_is_left_out(tmp_path, text) -> None:
    (tmp_path / "memory.events").write_text(text, encoding="latin-1")
    (tmp_path / "memory.peak").write_text(text, encoding="latin-1")
    assert memory.read(tmp_path) == {}
