"""Reads programs out of a Debian package with the standard library: no dpkg, no ar, no tar in the image.

By hand: nothing can be installed where it is unpacked, and a library for it would travel with every bundle.

A .deb is an ar archive (deb(5), ar(5)): `debian-binary`, `control.tar.*`, `data.tar.*`. The last is a tar
archive, compressed with gzip or xz; with zstd from Python 3.14 on.
"""

from __future__ import annotations

import posixpath
import shutil
import tarfile
from typing import IO, TYPE_CHECKING, Collection, Iterator

from ..errors import SmsshError
from ..files import AtomicFile

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["unpack"]

MAGIC = b"!<arch>\n"
HEADER = 60
"""Bytes of a member's header: name 16, times and owners 32, size 10, two that end it (ar(5))."""
PROGRAM_LIMIT = 256 << 20
"""Bytes of one program; the agent's are 12 to 40 MB each."""
CHUNK = 1 << 20


class _Part:
    """A member of the ar archive, as a file that can only be read on."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int = -1) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        data = self._file.read(size)
        if len(data) < size:
            raise EOFError("the package ends too early")
        self._left -= size
        return data


def unpack(package: Path, programs: Collection[str], folder: Path, *, below: str = "usr/bin") -> list[str]:
    """Write programs of a package into a folder, executable for all and writable for their owner.

    Only regular files that lie right in `below` are taken, under their bare names: whatever else is in the
    package, nothing of it decides where something is written.

    Args:
        package: the .deb.
        programs: the names that are wanted.
        folder: where they go; files of these names are replaced.
        below: the folder in the package.

    Returns:
        The names that were found, in the order of the package.

    Raises:
        SmsshError: it is not a Debian package, or there is no room.
    """
    found = []
    try:
        with package.open("rb") as file, _data(file) as archive:
            for member in archive:
                folder_of, name = posixpath.split(posixpath.normpath(member.name))
                if folder_of != below or name not in programs:
                    continue
                if not member.isreg() or member.size > PROGRAM_LIMIT:
                    raise SmsshError(
                        f"{package.name}: {member.name} is not a program", reference="bad-agent-package"
                    )
                source = archive.extractfile(member)
                assert source is not None  # of a regular file there is one
                _write(source, folder / name)
                found.append(name)
    except (tarfile.TarError, EOFError, ValueError, ImportError) as error:
        raise SmsshError(
            f"{package.name} cannot be unpacked: {error}",
            reference="bad-agent-package",
        ) from None
    except OSError as error:
        # gzip and lzma say what is wrong with their data by OSError and by errors of their own.
        what = error.strerror or str(error)
        raise SmsshError(
            f"the agent cannot be unpacked into {folder}: {what}",
            hint="make 100 MB of room, or name another folder in SMSSH_RUN_DIR",
            reference="agent-not-unpacked",
        ) from None
    return found


def _data(file: IO[bytes]) -> tarfile.TarFile:
    """The archive with the package's files, at its beginning."""
    for name, part in _members(file):
        if name.startswith("data.tar"):
            kind = name[len("data.tar") :].lstrip(".")
            mode = {"": "r|", "gz": "r|gz", "xz": "r|xz", "bz2": "r|bz2", "zst": "r|zst"}.get(kind)
            if mode is None:
                raise ValueError(f"{name} is compressed in an unknown way")
            try:
                return tarfile.open(fileobj=part, mode=mode)  # type: ignore[call-overload, no-any-return]
            except (ValueError, tarfile.CompressionError):
                raise ValueError(f"this Python cannot read {name}") from None
    raise ValueError("it has no data.tar")


def _members(file: IO[bytes]) -> Iterator[tuple[str, _Part]]:
    if file.read(len(MAGIC)) != MAGIC:
        raise ValueError("it is not a Debian package")
    while True:
        header = file.read(HEADER)
        if not header:
            return
        if len(header) != HEADER or header[58:] != b"`\n":
            raise ValueError("a header of it is damaged")
        size = int(header[48:58])
        begin = file.tell()
        yield header[:16].decode("ascii").strip().rstrip("/"), _Part(file, size)
        file.seek(begin + size + size % 2)


def _write(source: IO[bytes], target: Path) -> None:
    # The agent refuses to run workers that somebody else could write (its constants_unix.go).
    with AtomicFile(target, mode=0o755) as out:
        shutil.copyfileobj(source, out, CHUNK)
