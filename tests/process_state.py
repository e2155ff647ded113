"""A test leaves the process as it found it: its environment, its folder, its signal handlers and the like.

Tests of several files share a worker: what one leaves behind may make another pass or fail, which shows only in a run
in another order. So the state is compared before and after each test. Fixtures of a module or a session must not change
it either: they return values, and a fixture of each test sets them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["changes", "state"]

_STATE = pytest.StashKey[dict[str, Any]]()
_BOTO3 = pytest.StashKey[Any]()
_SIGNALS = signal.valid_signals() - {
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGALRM,  # pytest-timeout's
}
_PYTEST = "PYTEST_CURRENT_TEST"
"""A variable that pytest changes itself."""


def state() -> dict[str, Any]:
    """What tests must not change, as names and values."""
    found: dict[str, Any] = {
        f"the environment variable {name}": value for name, value in os.environ.items() if name != _PYTEST
    }
    for number in _SIGNALS:
        found[f"the handler of {_name(number)}"] = signal.getsignal(number)
    found["the working directory"] = _folder()
    found["the umask"] = _umask()
    found["sys.path"] = list(sys.path)
    found["sys.stdin"] = id(sys.stdin)
    found["the level of logging"] = (logging.root.level, logging.root.manager.disable)
    found["the handlers of logging"] = list(map(id, logging.root.handlers))
    found["the time limit of sockets"] = socket.getdefaulttimeout()
    return found


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Each thing that differs between two states, as a line; variables' values are not shown."""
    lines = []
    for name in sorted({*before, *after}):
        if name not in after:
            lines.append(f"{name} is gone")
        elif name not in before:
            lines.append(f"{name} is new")
        elif before[name] != after[name]:
            secret = "variable" in name or isinstance(before[name], list)
            lines.append(f"{name} changed" + ("" if secret else f": {before[name]!r} -> {after[name]!r}"))
    return lines


def _name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _folder() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return "a folder that is gone"


def _umask() -> str:
    """Read without setting it for a moment, because other threads make files."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    return next((line.split()[1] for line in lines if line.startswith("Umask:")), "unknown")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Look before the first fixture."""
    item.stash[_STATE] = state()
    item.stash[_BOTO3] = getattr(sys.modules.get("boto3"), "DEFAULT_SESSION", None)
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Put boto3's default session back, and look again after the last fixture."""
    yield
    # The SageMaker SDK makes one when a module of it is first imported, in whatever test that is.
    if "boto3" in sys.modules:
        sys.modules["boto3"].DEFAULT_SESSION = item.stash[_BOTO3]
    found = changes(item.stash[_STATE], state())
    assert not found, "the test leaves the process changed: " + "; ".join(found)
