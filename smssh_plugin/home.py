"""Where the client keeps its own files: the key pair, the sockets, what it knows of host keys.

Python 3.8 syntax and the standard library only: the submit side asks for the key pair, and runs in older
images.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path

from .errors import ExitStatus, SmsshError

__all__ = ["forget_old", "home", "own_text", "private_folder"]

HOME_VARIABLE = "SMSSH_HOME"


def home() -> Path:
    """The client's folder: `$SMSSH_HOME`, by default `~/.smssh`. It may not exist yet.

    Raises:
        SmsshError: it is another user's, who could swap the keys and host keys in it; or there is no home folder.
    """
    named = os.environ.get(HOME_VARIABLE, "").strip()
    try:
        path = Path(named or "~/.smssh").expanduser().absolute()
    except RuntimeError:  # no HOME, and no account of this user id; or a `~name` that is nobody
        raise SmsshError(
            f"there is no home folder for {named or '~/.smssh'}",
            hint=f"set HOME, or name a folder of your own in {HOME_VARIABLE}",
            reference="no-home",
            status=ExitStatus.USAGE,
        ) from None
    try:
        _check_owner(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _unusable(path, error) from error
    return path


def own_text(path: Path) -> str:
    """The text of a file of ours, which says what is trusted.

    Raises:
        OSError: it is not there, cannot be read, or is not a regular file of this user's own: a folder that was open to
            others once may have files of theirs in it.
        UnicodeDecodeError: it is not UTF-8.
    """
    descriptor = os.open(str(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, encoding="utf-8") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
            raise PermissionError(errno.EPERM, "is not a regular file of this user", str(path))
        return file.read()


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner may enter (mode 0700), and answer it.

    Raises:
        SmsshError: it cannot be made, or belongs to somebody else: its owner could swap a key or a
        socket.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = _check_owner(path)
        if stat.S_IMODE(found.st_mode) & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise _unusable(path, error) from error
    return path


def _check_owner(path: Path) -> os.stat_result:
    """Refuse a folder of another user's, and one that another user's symlink leads to.

    Raises:
        SmsshError: it is one.
        OSError: it is not there, or cannot be looked at.
    """
    link, found = path.lstat(), path.stat()
    strange = stat.S_ISLNK(link.st_mode) and link.st_uid not in (0, os.getuid())
    if strange or found.st_uid != os.getuid():
        raise SmsshError(
            f"{path} belongs to another user",
            hint=f"name a folder of your own in {HOME_VARIABLE}",
            reference="home-not-yours",
            status=ExitStatus.USAGE,
        )
    return found


def _unusable(path: Path, error: OSError) -> SmsshError:
    return SmsshError(
        f"cannot use the folder {path}: {error.strerror}",
        hint=f"name a writable folder in {HOME_VARIABLE}",
        reference="home-not-writable",
        status=ExitStatus.USAGE,
    )


def forget_old(folder: Path, seconds: float) -> None:
    """Remove the files of a folder that were not written for so long, so that it stays small."""
    limit = time.time() - seconds
    for path in folder.iterdir():
        try:
            if path.stat().st_mtime < limit:
                path.unlink()
        except OSError:  # noqa: PERF203 - another process was quicker
            continue
