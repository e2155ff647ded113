"""`make test-fast` runs what starts no process and takes no second: tests/fast.py holds its files to it."""

import subprocess
from types import SimpleNamespace

import pytest

from tests import fast, needs

MARKED = SimpleNamespace(get_closest_marker=lambda _name: True, session=SimpleNamespace(items=[]))


def test_its_files_are_there() -> None:
    assert [name for name in sorted(fast.FILES) if not (needs.ROOT / "tests" / name).is_file()] == []


def test_what_starts_a_process_fails() -> None:
    call = fast.pytest_runtest_call(MARKED)
    next(call)
    try:
        with pytest.raises(AssertionError, match="starts no process"):
            subprocess.run(["true"], check=True)
    finally:
        call.close()
    subprocess.run(["true"], check=True)


@pytest.mark.parametrize("seconds", [fast.CPU_SECONDS - 0.1, fast.CPU_SECONDS + 0.1])
def test_what_takes_long_fails(monkeypatch, seconds) -> None:
    monkeypatch.setattr(fast.time, "thread_time", iter([5.0, 5.0 + seconds]).__next__)
    call = fast.pytest_runtest_call(MARKED)
    next(call)
    with pytest.raises(StopIteration if seconds < fast.CPU_SECONDS else AssertionError):
        next(call)


def test_what_takes_long_among_other_tests_may_have_done_their_work(monkeypatch) -> None:
    other = SimpleNamespace(get_closest_marker=lambda _name: None)
    among = SimpleNamespace(get_closest_marker=lambda _name: True, session=SimpleNamespace(items=[other]))
    monkeypatch.setattr(fast.time, "thread_time", iter([5.0, 6.0 + fast.CPU_SECONDS]).__next__)
    call = fast.pytest_runtest_call(among)
    next(call)
    with pytest.raises(StopIteration):
        next(call)
