"""Files that are written whole or not at all: who reads one meanwhile finds what it was before, or what it is now.

Runs in the job's interpreters too: CPython 3.7 and later, standard library only. entrypoints/boot.py, which every
Python process of a job imports, writes its own.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing itself is not imported in the job's interpreters
if TYPE_CHECKING:
    from types import TracebackType
    from typing import BinaryIO

__all__ = ["AtomicFile", "write_atomically"]


class AtomicFile:
    """A file to write to, in a `with` block; at its end it takes the place of the one at `path`.

    Until then it stands beside it as `.new-*`, for its owner alone. It is removed where the block, or the last step,
    raises. A symlink at `path` is replaced, not followed.

    Args:
        path: the file.
        mode: its permissions, whatever the umask; None: those of the file that it replaces, or 0600.
        durable: whether it is on the disk before it takes the place, so that losing power costs no file.

    Raises:
        OSError: it cannot be written, in the `with` line or at the end of the block.
    """

    def __init__(self, path: str | os.PathLike[str], mode: int | None = 0o600, durable: bool = False) -> None:
        self._path = os.fspath(path)
        self._mode = mode
        self._durable = durable

    def __enter__(self) -> BinaryIO:
        if self._mode is None:
            try:
                self._mode = os.stat(self._path).st_mode & 0o7777
            except FileNotFoundError:
                self._mode = 0o600
        self._new = os.path.join(os.path.dirname(self._path), f".new-{os.urandom(8).hex()}")
        # O_EXCL: the folder may be one where others can put a file or a link.
        handle = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = open(handle, "wb")
        return self._file

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._file as file:
                if kind is None and self._mode is not None:
                    file.flush()
                    os.fchmod(file.fileno(), self._mode)
                    if self._durable:
                        os.fsync(file.fileno())
            if kind is None:
                os.replace(self._new, self._path)
                self._new = ""
        finally:
            if self._new:
                os.unlink(self._new)


def write_atomically(
    path: str | os.PathLike[str], data: str | bytes, mode: int | None = 0o600, durable: bool = False
) -> None:
    """Write a file whole or not at all; for the arguments see `AtomicFile`.

    A text is written in UTF-8, and a name in it that came from the system (`os.fsdecode`) as it was there.
    """
    with AtomicFile(path, mode, durable) as file:
        file.write(data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data)
