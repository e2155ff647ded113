"""Whether a run of this machine is still going on: a file that it holds a lock on, which a killed process does not."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from ..home import forget_old, home, private_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .names import Run

__all__ = ["Mark", "ended"]

FOLDER = "live"
_DAY = 86400.0


class Mark:
    """The file of a run; it stays until all that the run made is removed.

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        folder = private_folder(home() / FOLDER)
        forget_old(folder, _DAY)  # of runs that were killed before they made anything
        self._path = folder / run.id

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within this block the run goes on."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    def remove(self) -> None:
        """Nothing of the run is left."""
        self._path.unlink(missing_ok=True)


def ended(run: Run) -> bool:
    """Whether a run was one of this machine, and its process is no more."""
    path: Path = home() / FOLDER / run.id
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Take the lock of an open file, if nobody has it; never where the system has no such locks."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
