"""Removes folders that a job's container has left, whatever their modes."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import stat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["remove_tree"]

_log = logging.getLogger("smssh.local")


def remove_tree(folder: Path) -> None:
    """Remove a folder; also one that is closed to its owner, as overlayfs makes its work folder."""

    def retry(_function: Callable[[str], Any], path: str, _error: Any) -> None:
        for name in (os.path.dirname(path), path):
            with contextlib.suppress(OSError):
                if not os.path.islink(name):
                    os.chmod(name, os.stat(name).st_mode | stat.S_IRWXU)
        try:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        except OSError as error:
            _log.warning("cannot remove %s: %s", path, error)

    if folder.exists():
        shutil.rmtree(folder, onerror=retry)
