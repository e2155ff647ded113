"""What a job leaves in S3. Blocking code: to be called in a worker thread."""

from __future__ import annotations

import os
import stat
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import BotoCoreError, ClientError

from .inputs import parse_uri
from .kinds import ClientFault

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Tree", "read_text", "upload_archive", "upload_file", "upload_folders"]

_AT_ONCE = 8


class Tree(NamedTuple):
    """A folder in a container, as this machine sees it.

    Args:
        root: what the container may write: its `/opt/ml`. Nothing outside of it is read, whatever links say.
        folder: the folder, at or below `root`.
    """

    root: Path
    folder: Path


def read_text(path: Path, limit: int) -> str:
    """The first `limit` characters of a file that a container may have written; empty if there is no file.

    Only a regular file is read, and no symbolic link followed to it: a FIFO would hold the reader up for ever.
    """
    if path.parent.is_symlink():
        return ""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return ""
            return file.read(4 * limit).decode("utf-8", "replace")[:limit].strip()
    except OSError:
        return ""


def files(trees: Iterable[Tree]) -> Iterator[tuple[str, Path]]:
    """Every regular file below some folders (those of a job's hosts): name relative to its folder, and path.

    A name comes once, from the first folder that has it. Symbolic links are followed when they lead to a
    file of the same container's.
    """
    seen: set[str] = set()
    for root, folder in trees:
        for path, _, names in sorted(os.walk(folder)):
            for name in sorted(names):
                file = Path(path, name)
                relative = str(file.relative_to(folder))
                if relative not in seen and _regular(file, root):
                    seen.add(relative)
                    yield relative, file


def upload_file(s3: Any, path: Path, uri: str) -> None:
    """Upload one file.

    Raises:
        ClientFault: S3 says no.
    """
    bucket, key = parse_uri(uri)
    try:
        s3.upload_file(str(path), bucket, key)
    except (S3UploadFailedError, ClientError, BotoCoreError, OSError) as error:
        raise ClientFault(f"Failed to upload {path.name} to {uri}: {error}") from None


def upload_folders(s3: Any, folders: Iterable[Tree], uri: str) -> int:
    """Upload every file below some folders to an S3 prefix.

    Returns:
        How many.

    Raises:
        ClientFault: S3 says no.
    """
    found = list(files(folders))
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="smssh-upload") as pool:
        for _ in pool.map(lambda item: upload_file(s3, item[1], join(uri, item[0])), found):
            pass
    return len(found)


def upload_archive(s3: Any, folders: Iterable[Tree], uri: str, scratch: Path) -> bool:
    """Upload the files below some folders as one tar.gz; nothing if there are no files.

    Args:
        s3: a boto3 S3 client.
        folders: one for each host.
        uri: the S3 URI of the archive.
        scratch: where the archive is made; removed afterwards.

    Returns:
        Whether there was something.

    Raises:
        ClientFault: S3 says no, or a file cannot be read.
    """
    found = list(files(folders))
    if not found:
        return False
    try:
        with tarfile.open(scratch, "w:gz", compresslevel=6, dereference=True) as tar:
            for name, path in found:
                tar.add(path, name)
        upload_file(s3, scratch, uri)
    except OSError as error:
        raise ClientFault(f"Failed to pack {uri}: {error}") from None
    finally:
        scratch.unlink(missing_ok=True)
    return True


def join(prefix: str, name: str) -> str:
    """An S3 URI below a prefix."""
    return prefix.rstrip("/") + "/" + name


def _regular(path: Path, root: Path) -> bool:
    """Whether a path leads to a regular file below `root`: sockets and pipes are not uploaded."""
    try:
        real = os.path.realpath(path, strict=True)
        inside = os.path.commonpath((real, os.path.realpath(root))) == os.path.realpath(root)
        return inside and stat.S_ISREG(os.stat(real).st_mode)
    except OSError:
        return False
