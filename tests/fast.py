"""The tests that `make test-fast` runs, and what holds them to it: they start no process and take no second.

They are marked file by file, and looked after: a test of these files that starts a process fails, with the whole suite
too. One that takes more than CPU_SECONDS of its own thread fails where no other tests are run: in the whole suite, its
thread collects the garbage of thousands of other tests.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["FILES"]

FILES = frozenset(
    {
        "aws/test_calls.py",
        "aws/test_json_client.py",
        "aws/test_signing.py",
        "client/test_addresses.py",
        "debug/test_view.py",
        "session/wire/test_client_version.py",
        "session/wire/test_frames.py",
        "session/wire/test_stream.py",
        "submit/request/test_launchers.py",
        "submit/test_selection.py",
        "test_durations.py",
        "test_terminal.py",
    }
)
"""Below this folder."""
CPU_SECONDS = 5.0
"""Of the processor's; more than they take, which is below a second on an idle machine."""
_STARTS = ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty", "os.system")
"""What Python tells its auditors when a process is started."""

_watched = threading.local()


def _audit(event: str, _: tuple[Any, ...]) -> None:
    if event in _STARTS and getattr(_watched, "on", False):
        raise AssertionError(f"{event}: a test of tests/fast.py starts no process")


def pytest_configure(config: pytest.Config) -> None:
    """Add the mark, and begin to look."""
    config.addinivalue_line(
        "markers", "fast: no process and no second; `make test-fast`, the files of tests/fast.py"
    )
    sys.addaudithook(_audit)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what is in these files."""
    if item.nodeid.partition("::")[0].removeprefix("tests/") in FILES:
        item.add_marker("fast")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Hold a test that is marked to its mark."""
    if item.get_closest_marker("fast") is None:
        return (yield)
    began = time.thread_time()
    _watched.on = True
    try:
        yield
    finally:
        _watched.on = False
    taken = time.thread_time() - began
    alone = all(other.get_closest_marker("fast") for other in item.session.items)
    assert taken < CPU_SECONDS or not alone, f"{taken:.1f} s of the processor's: too much for tests/fast.py"
    return None


if __name__ == "__main__":
    print(*(f"tests/{name}" for name in sorted(FILES)))
