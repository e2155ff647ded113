"""What a job gets from S3 before it starts. Blocking code: to be called in a worker thread."""

from __future__ import annotations

import json
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from .kinds import ClientFault, JobStopped

if TYPE_CHECKING:
    import threading
    from pathlib import Path

__all__ = ["S3Object", "download", "extract_model", "find", "parse_uri", "shard"]

_AT_ONCE = 8


@dataclass(frozen=True)
class S3Object:
    """One object of an input.

    Args:
        bucket: its bucket.
        key: its key.
        relative: where it goes, relative to the folder of the input.
    """

    bucket: str
    key: str
    relative: str


def parse_uri(uri: str) -> tuple[str, str]:
    """Split an S3 URI into bucket and key; the key may be empty.

    Raises:
        ClientFault: it is not an S3 URI.
    """
    parts = urlsplit(uri, allow_fragments=False)
    if parts.scheme != "s3" or not parts.netloc:
        raise ClientFault(f'"{uri}" is not an S3 URI')
    # A `?` is an ordinary character of a key.
    key = parts.path + ("?" + parts.query if parts.query else "")
    return parts.netloc, key[1:]


def find(s3: Any, source: dict[str, Any], *, role: str = "") -> list[S3Object]:
    """List the objects of an S3 data source (S3DataType, S3Uri), in the order of their keys.

    Args:
        s3: a boto3 S3 client.
        source: an S3DataSource, or an S3Input of a processing job.
        role: the ARN of the job's role, which the service puts into the error.

    Raises:
        ClientFault: nothing there, no access, or a data type that is not served.
    """
    kind = source.get("S3DataType", "S3Prefix")
    uri = source["S3Uri"]
    if kind == "ManifestFile":
        return _find_manifest(s3, uri)
    if kind not in ("S3Prefix", "S3Object"):
        raise ClientFault(f"S3DataType {kind} of {uri} is not served here: use S3Prefix or ManifestFile")
    bucket, prefix = parse_uri(uri)
    found = []
    try:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            found += [
                S3Object(bucket, item["Key"], _relative(item["Key"], prefix))
                for item in page.get("Contents", [])
            ]
    except (ClientError, BotoCoreError) as error:
        raise ClientFault(f"Failed to download data. ListObjectsV2 failed for {uri}: {error}") from None
    if kind == "S3Object":
        found = [item for item in found if item.key == prefix]
    if not found:
        raise ClientFault(
            f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the'
            f" bucket exists in the selected region ({s3.meta.region_name}), that objects exist under that"
            f' S3 prefix, and that the role "{role}" has "s3:ListBucket" permissions on bucket "{bucket}".'
        )
    return found


def shard(objects: list[S3Object], distribution: str, index: int, count: int) -> list[S3Object]:
    """The part of an input that one host of a job gets (S3DataDistributionType)."""
    return objects[index::count] if distribution == "ShardedByS3Key" else objects


def download(s3: Any, objects: list[S3Object], folder: Path, stopping: threading.Event) -> None:
    """Download objects into a folder, several at once.

    Raises:
        ClientFault: S3 says no, or a key does not name a place in the folder.
        JobStopped: `stopping` was set meanwhile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = os.path.realpath(folder)

    def fetch(item: S3Object) -> None:
        if stopping.is_set():
            raise JobStopped
        path = os.path.normpath(os.path.join(root, item.relative))
        if path != root and not path.startswith(root + os.sep):
            raise ClientFault(f"Data download failed: s3://{item.bucket}/{item.key} leads out of its folder")
        try:
            if item.relative.endswith("/") or not item.relative:
                # What the S3 console makes for a "folder": an empty object whose key ends in a slash.
                os.makedirs(path, exist_ok=True)
                return
            os.makedirs(os.path.dirname(path), exist_ok=True)
            s3.download_file(item.bucket, item.key, path)
        except (ClientError, BotoCoreError, OSError) as error:
            text = f"Data download failed: s3://{item.bucket}/{item.key}: {error}"
            raise ClientFault(text) from None

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="smssh-download") as pool:
        for _ in pool.map(fetch, objects):
            pass


def extract_model(archive: Path, folder: Path) -> None:
    """Extract model.tar.gz; members stay inside the folder.

    Raises:
        ClientFault: it is not a tar.gz, or holds a member that leads out of the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive, "r:*") as tar:
            if hasattr(tarfile, "data_filter"):
                tar.extractall(folder, filter="data")
                return
            # Python 3.10 and 3.11 before their security releases: the same rules, for the members that
            # matter.
            for member in tar.getmembers():
                _check_member(member)
            tar.extractall(folder)  # noqa: S202 - every member was checked
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ClientFault(f"Failed to extract model data archive {archive.name}: {error}") from None


def _check_member(member: tarfile.TarInfo) -> None:
    """Refuse what could write outside.

    Raises:
        ClientFault: it could.
    """
    names = [member.name]
    if member.issym():
        names.append(os.path.join(os.path.dirname(member.name), member.linkname))
    elif member.islnk():
        names.append(member.linkname)
    for name in names:
        if os.path.isabs(name) or os.path.normpath(name).split(os.sep)[0] == "..":
            raise ClientFault(f"the model archive's member {member.name} leads out of its folder")
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        raise ClientFault(f"the model archive's member {member.name} is not a file or folder")


def _relative(key: str, prefix: str) -> str:
    """Where the service puts an object of an S3Prefix.

    `data/train` is the folder of `data/train/a`, and matches `data/train2` too.
    """
    if key == prefix:
        return key.rsplit("/", 1)[-1]
    if prefix.endswith("/") or not prefix:
        return key[len(prefix) :]
    if key.startswith(prefix + "/"):
        return key[len(prefix) + 1 :]
    return key[prefix.rfind("/") + 1 :]


def _find_manifest(s3: Any, uri: str) -> list[S3Object]:
    """The objects of a manifest: `[{"prefix": "s3://..."}, "relative", ...]`.

    Raises:
        ClientFault: it is not there, or none.
    """
    bucket, key = parse_uri(uri)
    try:
        entries = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        prefix = entries[0]["prefix"]
        names = [str(name) for name in entries[1:]]
    except (ClientError, BotoCoreError) as error:
        raise ClientFault(f"Failed to download data. {uri}: {error}") from None
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ClientFault(f"{uri} is not an S3 manifest: {error!r}") from None
    home, start = parse_uri(prefix)
    return [S3Object(home, start + name, name) for name in names]
