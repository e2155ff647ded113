"""Where the client keeps its own files: the key pair, the sockets, what it knows of host keys.

Python 3.8 syntax and the standard library only: the submit side asks for the key pair, and runs in older
images.
"""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

from .errors import ExitStatus, SmsshError

__all__ = ["forget_old", "home", "private_folder"]

HOME_VARIABLE = "SMSSH_HOME"


def home() -> Path:
    """The client's folder: `$SMSSH_HOME`, by default `~/.smssh`. It may not exist yet."""
    named = os.environ.get(HOME_VARIABLE, "").strip()
    return Path(named).expanduser().absolute() if named else Path("~/.smssh").expanduser()


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner may enter (mode 0700), and answer it.

    Raises:
        SmsshError: it cannot be made, or belongs to somebody else: whoever owns it could swap a key or a
        socket.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
        if found.st_uid != os.getuid():
            raise SmsshError(
                f"{path} belongs to another user",
                hint=f"name a folder of your own in {HOME_VARIABLE}",
                reference="home-not-yours",
                status=ExitStatus.USAGE,
            )
        if stat.S_IMODE(found.st_mode) & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise SmsshError(
            f"cannot use the folder {path}: {error.strerror}",
            hint=f"name a writable folder in {HOME_VARIABLE}",
            reference="home-not-writable",
            status=ExitStatus.USAGE,
        ) from error
    return path


def forget_old(folder: Path, seconds: float) -> None:
    """Remove the files of a folder that were not written for so long, so that it stays small."""
    limit = time.time() - seconds
    for path in folder.iterdir():
        try:
            if path.stat().st_mtime < limit:
                path.unlink()
        except OSError:  # noqa: PERF203 - another process was quicker
            continue
