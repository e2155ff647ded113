"""Bundles where they are stored: put there once, found again, and compared with their manifest."""

from __future__ import annotations

import hashlib
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterator

from ..errors import ExitStatus, SmsshError
from ..manifest import MANIFEST, Manifest

if TYPE_CHECKING:
    from pathlib import Path

    from .bundle import Bundle
    from .options import SSHOptions

__all__ = [
    "OPTIONS",
    "Destination",
    "Examination",
    "Finding",
    "Folder",
    "Prefix",
    "destination",
    "examine",
    "read",
    "split",
    "upload",
]

PREFIX = "smssh/bundles"
OPTIONS = "options.json"
LARGE = 1_000_000
"""Bytes from which an upload is worth a line of progress."""
CHUNK = 1 << 20

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_HINT = "name a place in SSHOptions(bundle_prefix='s3://bucket/prefix')"


@dataclass(frozen=True)
class Destination:
    """Where bundles are stored.

    Attributes:
        client: a boto3 client of S3.
        bucket: the bucket.
        prefix: the prefix, without slashes at its ends; may be empty.
    """

    client: Any
    bucket: str
    prefix: str

    @property
    def address(self) -> str:
        """`s3://bucket/prefix`, without a slash at its end."""
        return "s3://" + "/".join(filter(None, (self.bucket, self.prefix)))

    def key(self, digest: str, name: str = "") -> str:
        """The key of a file of the bundle with that digest."""
        return "/".join(part for part in (self.prefix, digest) if part) + "/" + name


def destination(options: SSHOptions, session: Any) -> Destination:
    """Where bundles go: the options' place, else the default bucket of the SageMaker session.

    Args:
        options: what was asked for.
        session: a SageMaker SDK session (anything with a `boto_session`), a boto3 session, or None for
            boto3's default.

    Raises:
        SmsshError: there is no region, or the account can't be found out.
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    boto_session = getattr(session, "boto_session", session) or boto3.Session()
    try:
        client = boto_session.client("s3")
        if options.place is not None:
            bucket, prefix = split(options.place)
            return Destination(client, bucket, prefix)
        if callable(getattr(session, "default_bucket", None)):
            # The SDK's own way: honours its configuration, and makes the bucket where there is none.
            bucket = session.default_bucket()
            above = getattr(session, "default_bucket_prefix", None)
            return Destination(client, bucket, "/".join(part for part in (above, PREFIX) if part))
        if not boto_session.region_name:
            raise SmsshError(
                "there is no AWS region to store the bundle in",
                hint=f"set AWS_DEFAULT_REGION, or {_HINT}",
                reference="no-region",
                status=ExitStatus.USAGE,
            )
        account = boto_session.client("sts").get_caller_identity()["Account"]
    except (BotoCoreError, ClientError) as error:
        raise SmsshError(
            f"cannot find out where to store the bundle: {error}",
            hint=f"check your AWS credentials, or {_HINT}",
            reference="no-bundle-place",
            status=ExitStatus.REFUSED,
        ) from error
    return Destination(client, f"sagemaker-{boto_session.region_name}-{account}", PREFIX)


def split(address: str) -> tuple[str, str]:
    """Bucket and prefix of an s3:// address, the prefix without slashes at its ends."""
    bucket, _, prefix = address[len("s3://") :].partition("/")
    return bucket, prefix.strip("/")


# -------------------------------------------------------------------------------- put there


def upload(bundle: Bundle, place: Destination) -> str:
    """Store the bundle, unless it is there already, and answer its S3 prefix.

    The manifest goes last: where it is, the rest is. S3 compares what arrives with the digests.

    Raises:
        SmsshError: the prefix is not writable.
    """
    from base64 import b64encode

    from botocore.exceptions import BotoCoreError, ClientError

    prefix = f"s3://{place.bucket}/{place.key(bundle.digest)}"
    try:
        place.client.head_object(Bucket=place.bucket, Key=place.key(bundle.digest, MANIFEST))
        return prefix
    except ClientError as error:
        # Without s3:ListBucket, a key that does not exist is a 403.
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") not in (403, 404):
            raise _not_writable(place, error) from error
    except BotoCoreError as error:
        raise _not_writable(place, error) from error
    if bundle.size >= LARGE:
        print(f"smssh: uploading {bundle.size / 1e6:.1f} MB to {prefix}", file=sys.stderr, flush=True)
    try:
        for name in [*sorted(set(bundle.files) - {MANIFEST}), MANIFEST]:
            data = bundle.files[name]
            place.client.put_object(
                Bucket=place.bucket,
                Key=place.key(bundle.digest, name),
                Body=data,
                ChecksumSHA256=b64encode(hashlib.sha256(data).digest()).decode(),
            )
    except (BotoCoreError, ClientError) as error:
        raise _not_writable(place, error) from error
    return prefix


def _not_writable(place: Destination, error: Exception) -> SmsshError:
    where = f"{place.bucket}/{place.prefix}" if place.prefix else place.bucket
    return SmsshError(
        f"cannot write the bundle to s3://{where}: {error}",
        hint=f"allow s3:PutObject and s3:GetObject on {where}/* (the job's role needs s3:GetObject and "
        f"s3:ListBucket), or {_HINT}",
        reference="bundle-not-writable",
        status=ExitStatus.REFUSED,
    )


# -------------------------------------------------------------------------------- found again


class Folder:
    """A bundle in a folder of this machine.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self.name = path.resolve().name
        self._path = path

    def chunks(self, name: str) -> Iterator[bytes]:
        """The contents of a file, in parts.

        Raises:
            SmsshError: it is not there, or can't be read.
        """
        try:
            with (self._path / name).open("rb") as file:
                yield from iter(lambda: file.read(CHUNK), b"")
        except OSError as error:
            missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
            raise _not_readable(
                f"{self._path / name}", error.strerror or str(error), missing=missing
            ) from None

    def files(self) -> dict[str, int] | None:
        """The files that are there, with their sizes in bytes."""
        found = (file for file in sorted(self._path.rglob("*")) if not file.is_dir())
        return {file.relative_to(self._path).as_posix(): file.lstat().st_size for file in found}


class Prefix:
    """A bundle at an S3 prefix.

    Args:
        address: `s3://bucket/prefix`, with or without a slash at its end.
        client: a boto3 client of S3.
    """

    def __init__(self, address: str, client: Any) -> None:
        self.address = address.rstrip("/") + "/"
        self._bucket, self._prefix = split(address)
        self.name = self._prefix.rpartition("/")[2]
        self._client = client

    def chunks(self, name: str) -> Iterator[bytes]:
        """The contents of an object, in parts.

        Raises:
            SmsshError: it is not there, or can't be read.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}")
            yield from answer["Body"].iter_chunks(CHUNK)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            missing = code in ("NoSuchKey", "NoSuchBucket", "404")
            raise _not_readable(f"{self.address}{name}", str(error), missing=missing) from None
        except BotoCoreError as error:
            raise _not_readable(f"{self.address}{name}", str(error), missing=None) from None

    def files(self) -> dict[str, int] | None:
        """The objects that are there, with their sizes in bytes; None where they may not be listed."""
        from botocore.exceptions import ClientError

        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=f"{self._prefix}/"
        )
        try:
            found = [each for page in pages for each in page.get("Contents", ())]
        except ClientError:
            return None
        cut = len(self._prefix) + 1
        return {each["Key"][cut:]: each["Size"] for each in found if not each["Key"].endswith("/")}


def _not_readable(name: str, problem: str, *, missing: bool | None) -> SmsshError:
    status = ExitStatus.NOT_FOUND if missing else ExitStatus.REFUSED
    return SmsshError(
        f"{name} cannot be read: {problem}",
        reference="bundle-file-missing" if missing else "bundle-not-readable",
        status=ExitStatus.UNREACHABLE if missing is None else status,
    )


@dataclass(frozen=True)
class Finding:
    """What was found of one file of a bundle.

    Attributes:
        name: relative to the bundle.
        state: `ok`, `missing`, `changed` (it is not what the manifest says), or `unknown` (the manifest knows none
            of that name).
        size: bytes; None where it is missing.
    """

    name: str
    state: str
    size: int | None = None


@dataclass(frozen=True)
class Examination:
    """What was found of a bundle.

    Attributes:
        manifest: what the bundle should be.
        findings: what was found of each file, the manifest first.
        named: whether the folder or prefix is named after a digest, so that the manifest could be checked, too.
        listed: whether files that the manifest does not know could be looked for.
    """

    manifest: Manifest
    findings: list[Finding]
    named: bool
    listed: bool

    @property
    def wrong(self) -> list[Finding]:
        """What is not as it should be."""
        return [finding for finding in self.findings if finding.state != "ok"]


def examine(place: Folder | Prefix) -> Examination:
    """Compare a bundle with its manifest, and its manifest with the digest that it is named after.

    Args:
        place: where the bundle is.

    Raises:
        SmsshError: there is no bundle, or it can't be read.
    """
    text = b"".join(place.chunks(MANIFEST))
    manifest = Manifest.parse(text)
    named = _DIGEST.match(place.name) is not None
    changed = named and hashlib.sha256(text).hexdigest() != place.name
    findings = [Finding(MANIFEST, "changed" if changed else "ok", len(text))]
    findings += [_examined(place, name, digest) for name, digest in manifest.files.items()]
    there = place.files()
    unknown = set(there or ()) - {MANIFEST, *manifest.files}
    findings += [Finding(name, "unknown", (there or {})[name]) for name in sorted(unknown)]
    return Examination(manifest, findings, named, there is not None)


def _examined(place: Folder | Prefix, name: str, digest: str) -> Finding:
    found, size = hashlib.sha256(), 0
    try:
        for chunk in place.chunks(name):
            found.update(chunk)
            size += len(chunk)
    except SmsshError as error:
        if error.status is ExitStatus.NOT_FOUND:
            return Finding(name, "missing")
        raise
    return Finding(name, "ok" if found.hexdigest() == digest else "changed", size)


def read(place: Folder | Prefix, manifest: Manifest, name: str) -> bytes:
    """A file of a bundle, compared with the manifest.

    Raises:
        SmsshError: it is not there, or not what the manifest says.
    """
    data = b"".join(place.chunks(name))
    manifest.check(name, data)
    return data
