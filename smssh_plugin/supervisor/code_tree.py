"""A folder of code as it is at one moment: its files and links, with digests, and what differs between two looks.

Links are never followed, other file systems never entered, and everything is bounded: files, bytes, seconds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fnmatch
import hashlib
import os
import re
import stat
import time
from typing import TYPE_CHECKING, Any, BinaryIO, Callable, Dict, Iterator, Optional, Tuple

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Change", "Entry", "TooLargeError", "Tree", "digests", "opened", "read", "scan"]

HASH_LIMIT = 1 << 30
"""Bytes that are read for digests; beyond, a file is compared by its size and times."""
ENTRIES_LIMIT = 50_000
"""Files, links, folders and anything else; a folder with more is not looked at."""
SECONDS_LIMIT = 15.0
"""For the reading of files; what is not read by then is compared by its size and times."""
CHUNK = 1 << 20

_CACHES = (
    *(
        "__pycache__",
        "*.pyc",
        "*.pyo",
        "*.egg-info",
        ".ipynb_checkpoints",
        ".git",
        ".hg",
        ".svn",
        ".DS_Store",
    ),
    *(".pytest_cache", ".mypy_cache", ".ruff_cache", ".venv", "node_modules", ".vscode", ".idea"),
    # Of editors, of NFS, of files.AtomicFile and of debug/fix.py.
    *("*~", ".*.sw[a-p]", ".#*", "#*#", "4913", ".nfs*", ".new-*", "*.smssh-????????"),
)
_LEFT_OUT = re.compile("|".join([*map(fnmatch.translate, _CACHES), r"core\.\d+\Z"]))
"""Names of caches, of core dumps, and of what editors and tools leave beside a file."""
_LEFT_OUT_AT_TOP = ("sourcedir.tar.gz",)
"""A FrameworkProcessor's archive of the code, which a retry packs anew; see entrypoints/retry.py."""
_BUILT = ("build", "dist")
"""Left out beside one of _PROJECT: what setuptools makes."""
_PROJECT = {"setup.py", "pyproject.toml", "setup.cfg"}
_UNSUITABLE = ("/", "/opt", "/opt/ml", "/root", "/home", "/tmp", "/usr", "/var", "/etc")  # noqa: S108 - compared
"""Folders that are not code, but what is taken for its folder where that is not known."""


@dataclasses.dataclass
class Entry:
    """A file or link of the folder.

    Attributes:
        kind: `file` or `link`.
        digest: SHA-256 of a file's content in hex, empty where it was not read; a link's target.
        size: bytes of a file.
        times: a file's mtime and ctime in nanoseconds, and its inode.
        problem: why a file could not be read.
    """

    kind: str
    digest: str = ""
    size: int = 0
    times: tuple[int, ...] = ()
    problem: str = ""

    def same(self, other: Entry | None) -> bool:
        """Whether the content is the same, as far as it is known."""
        if other is None or self.kind != other.kind:
            return False
        if self.digest and other.digest:
            return self.digest == other.digest
        return self.size == other.size and self.times == other.times

    def plain(self) -> list[Any]:
        """As `of_plain` reads it back; JSON."""
        return [self.kind, self.digest, self.size, list(self.times), self.problem]

    @classmethod
    def of_plain(cls, plain: list[Any]) -> Entry:
        """What `plain` was made of."""
        kind, digest, size, times, problem = plain
        return cls(kind, digest, size, tuple(times), problem)


Tree = Dict[str, Entry]
"""What is in the folder, by path: relative, with `/`, as `os.fsdecode` has it."""
Change = Tuple[str, Optional[Entry], Optional[Entry]]
"""A path, what it was and what it is; None: it is not there."""


class TooLargeError(Exception):
    """The folder is too large to be looked at."""


def scan(code_dir: str, own: Path, known: Tree, *, hashed: bool = True) -> Tree:
    """What is in the folder of the code.

    Args:
        code_dir: the folder.
        own: the container's private folder, which may lie in it, and is left out.
        known: an earlier look; the digests of files that have not been touched since are taken from it.
        hashed: whether files are read for their digests.

    Raises:
        TooLargeError: it has more than ENTRIES_LIMIT files.
        ValueError: it is not a folder of code.
        OSError: it cannot be read at all.
    """
    if not code_dir or os.path.normpath(code_dir) in _UNSUITABLE or not os.path.isdir(code_dir):
        raise ValueError(f"the folder of the job's code is not known ({code_dir or 'none'})")
    tree: Tree = {}
    device, private = os.stat(code_dir).st_dev, os.stat(own)
    folders, count = [""], 0
    while folders:
        folder = folders.pop()
        for name, info in _listed(os.path.join(code_dir, folder), top=not folder):
            path = os.path.join(folder, name)
            count += 1
            if count > ENTRIES_LIMIT:
                raise TooLargeError(f"{code_dir} has more than {ENTRIES_LIMIT} files")
            if stat.S_ISDIR(info.st_mode):
                if info.st_dev == device and not os.path.samestat(info, private):
                    folders.append(path)
                continue
            entry = _entry(os.path.join(code_dir, path), info)
            if entry is None:
                continue
            before = known.get(path)
            untouched = before is not None and (before.kind, before.times, before.size) == (
                entry.kind,
                entry.times,
                entry.size,
            )
            if entry.kind == "file" and before is not None and untouched:
                entry = before
            tree[path] = entry
    if hashed:
        digests(code_dir, tree)
    return tree


def _listed(folder: str, *, top: bool) -> Iterator[tuple[str, os.stat_result]]:
    """What is in one folder, without what is left out; nothing where it cannot be read, unless it is the first.

    Raises:
        OSError: it is the first, and cannot be read.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        if top:
            raise
        return
    skipped = {*(_LEFT_OUT_AT_TOP if top else ()), *(_BUILT if _PROJECT.intersection(names) else ())}
    for name in names:
        if name in skipped or _LEFT_OUT.match(name):
            continue
        with contextlib.suppress(OSError):  # it is gone
            yield name, os.lstat(os.path.join(folder, name))


def _entry(path: str, info: os.stat_result) -> Entry | None:
    """A file or link; None for what is neither."""
    if stat.S_ISREG(info.st_mode):
        return Entry("file", "", info.st_size, (info.st_mtime_ns, info.st_ctime_ns, info.st_ino))
    if stat.S_ISLNK(info.st_mode):
        with contextlib.suppress(OSError):
            return Entry("link", os.readlink(path))
    return None


def digests(code_dir: str, tree: Tree) -> None:
    """Read the files that have no digest yet, the smallest first, within HASH_LIMIT and SECONDS_LIMIT."""
    left, deadline = HASH_LIMIT, time.monotonic() + SECONDS_LIMIT
    wanted = [path for path, entry in tree.items() if entry.kind == "file" and not entry.digest]
    for path in sorted(wanted, key=lambda each: tree[each].size):
        left -= tree[path].size
        if left < 0 or time.monotonic() > deadline:
            break
        try:
            _, digest = read(code_dir, path, None, HASH_LIMIT)
        except OSError as error:
            tree[path] = dataclasses.replace(tree[path], problem=str(error.strerror or error))
        else:
            tree[path] = dataclasses.replace(tree[path], digest=digest)


def read(folder: str, path: str, write: Callable[[bytes], object] | None, limit: int) -> tuple[int, str]:
    """Read a file, which is never a link: its size and SHA-256.

    Args:
        folder: the folder of the code.
        path: the file, relative to it.
        write: takes each piece.
        limit: bytes that are read.

    Raises:
        OSError: it cannot be read, is not a file any more, or has more bytes than `limit` now.
    """
    digest, size = hashlib.sha256(), 0
    with opened(folder, path) as file:
        for piece in iter(lambda: file.read(CHUNK), b""):
            size += len(piece)
            if size > limit:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            digest.update(piece)
            if write is not None:
                write(piece)
    return size, digest.hexdigest()


def opened(folder: str, path: str) -> BinaryIO:
    """A file, opened without following a link or waiting for a pipe's other end.

    A folder between may have become a link since it was looked at: each is opened in the one above it.

    Args:
        folder: a folder, which may be a link.
        path: the file, relative to it.

    Raises:
        OSError: it cannot be opened, is not a file, or a folder above it is a link.
    """
    *between, name = path.split("/")
    above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in between:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
            os.close(above)
            above = below
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=above)
    finally:
        os.close(above)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a file any more")
    return open(handle, "rb")


def differing(base: Tree, now: Tree) -> list[Change]:
    """Each path that differs, with what it was and what it is."""
    return [
        (path, base.get(path), now.get(path))
        for path in sorted({*base, *now})
        if not (path in base and base[path].same(now.get(path)))
    ]
