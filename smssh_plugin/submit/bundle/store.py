"""Bundles where they are stored: which place that is, and how they are compared with their manifest."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Iterator, Mapping

from ...aws.s3_encryption import encryption_of
from ...errors import ExitStatus, SmsshError
from ...manifest import MANIFEST, Manifest
from ..account import account_of
from ..sessions import SdkSession, boto_session_of
from .bucket import Bucket, is_missing, put_files
from .expiry import expiry_of, readable

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from ..options import SSHOptions
    from .expiry import Expiry

__all__ = [
    "OPTIONS",
    "Destination",
    "Examination",
    "Finding",
    "Folder",
    "Prefix",
    "contents",
    "destination",
    "examine",
    "read",
    "renew",
    "split",
]

PREFIX = "smssh/bundles"
OPTIONS = "options.json"
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
        owner: the account id that the bucket must belong to; "" lets it be anybody's.
        encryption: see `SSHOptions.s3_encryption`.
    """

    client: Any
    bucket: str
    prefix: str
    owner: str = ""
    encryption: str = ""

    @property
    def address(self) -> str:
        """`s3://bucket/prefix`, without a slash at its end."""
        return "s3://" + "/".join(filter(None, (self.bucket, self.prefix)))

    @property
    def objects(self) -> Bucket:
        """The bucket."""
        return Bucket(self.client, self.bucket, self.owner, self.encryption)

    def key(self, digest: str, name: str = "") -> str:
        """The key of a file of the bundle with that digest."""
        return "/".join(part for part in (self.prefix, digest) if part) + "/" + name


def destination(options: SSHOptions, session: SdkSession) -> Destination:
    """Where bundles go: the options' place, else the default bucket of the SageMaker session.

    Args:
        options: what was asked for.
        session: of the SageMaker SDK or of boto3; None for boto3's default one.

    Raises:
        SmsshError: there is no region, or the account can't be found out.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    boto_session = boto_session_of(session)
    encryption = options.s3_encryption or ""
    try:
        client = boto_session.client("s3")
        if options.place is not None:
            bucket, prefix = split(options.place)
            owner = options.bucket_owner or account_of(session, bucket)
            return Destination(client, bucket, prefix, owner, encryption)
        if callable(getattr(session, "default_bucket", None)):
            # The SDK's own way: honours its configuration, and makes the bucket if there is no bucket.
            bucket = session.default_bucket()
            above = getattr(session, "default_bucket_prefix", None)
            prefix = "/".join(part for part in (above, PREFIX) if part)
            return Destination(client, bucket, prefix, account_of(session, bucket), encryption)
        if not boto_session.region_name:
            raise SmsshError(
                "there is no AWS region to store the bundle in",
                hint=f"set AWS_DEFAULT_REGION, or {_HINT}",
                reference="no-region",
                status=ExitStatus.USAGE,
                check="laptop.region",
            )
    except (BotoCoreError, ClientError) as error:
        raise SmsshError(
            f"cannot find out where to store the bundle: {error}",
            hint=f"check your AWS credentials, or {_HINT}",
            reference="no-bundle-place",
            status=ExitStatus.REFUSED,
        ) from None
    account = account_of(boto_session)
    bucket = f"sagemaker-{boto_session.region_name}-{account}"
    return Destination(client, bucket, PREFIX, account, encryption)


def split(address: str) -> tuple[str, str]:
    """Bucket and prefix of an s3:// address, the prefix without slashes at its ends."""
    bucket, _, prefix = address[len("s3://") :].partition("/")
    return bucket, prefix.strip("/")


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
        owner: the account id that the bucket must belong to; "" lets it be anybody's.
    """

    def __init__(self, address: str, client: Any, owner: str = "") -> None:
        self.address = address.rstrip("/") + "/"
        bucket, self.prefix = split(address)
        self.name = self.prefix.rpartition("/")[2]
        self.bucket = Bucket(client, bucket, owner)
        self._expiries: list[Expiry] = []
        self.oldest: datetime | None = None
        """When the oldest of the objects was written that were looked at."""

    @property
    def expiry(self) -> Expiry | None:
        """The first end of the objects that were looked at, as lifecycle rules have it."""
        return min(self._expiries, key=lambda each: each.when, default=None)

    def chunks(self, name: str) -> Iterator[bytes]:
        """The contents of an object, in parts.

        Raises:
            SmsshError: it is not there, or can't be read.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = self.bucket.get(f"{self.prefix}/{name}")
            self._saw(answer)
            yield from answer["Body"].iter_chunks(CHUNK)
        except ClientError as error:
            raise _not_readable(f"{self.address}{name}", str(error), missing=is_missing(error)) from None
        except BotoCoreError as error:
            raise _not_readable(f"{self.address}{name}", str(error), missing=None) from None

    def files(self) -> dict[str, int] | None:
        """The objects that are there, with their sizes in bytes; None where they may not be listed."""
        from botocore.exceptions import ClientError

        try:
            found = list(self.bucket.list(f"{self.prefix}/"))
        except ClientError:
            return None
        cut = len(self.prefix) + 1
        return {each["Key"][cut:]: each["Size"] for each in found if not each["Key"].endswith("/")}

    def states(self, manifest: Manifest) -> dict[str, str]:
        """The state of each file, as a `Finding` has it, read only if S3 keeps no SHA-256 of it.

        Raises:
            SmsshError: a file can't be read.
        """
        listed = self.files()
        found = dict.fromkeys(set(listed or ()) - {MANIFEST, *manifest.files}, "unknown")
        for name, digest in manifest.files.items():
            if listed is not None and name not in listed:
                found[name] = "missing"
            elif self._kept(name) == b64encode(bytes.fromhex(digest)).decode():
                found[name] = "ok"
            else:
                found[name] = _examined(self, name, digest).state
        return found

    def _kept(self, name: str) -> str:
        """The SHA-256 that S3 keeps of an object; "" if it has none, or can't say."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = self.bucket.head(f"{self.prefix}/{name}")
        except (BotoCoreError, ClientError):
            return ""  # reading it says more
        self._saw(answer)
        return str(answer.get("ChecksumSHA256", "")) if readable(answer) else ""

    def _saw(self, answer: Mapping[str, Any]) -> None:
        expiry, written = expiry_of(answer), answer.get("LastModified")
        if expiry is not None:
            self._expiries.append(expiry)
        if written is not None and (self.oldest is None or written < self.oldest):
            self.oldest = written


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


def contents(place: Folder | Prefix) -> dict[str, bytes]:
    """All files of a bundle, the manifest too, each compared with the manifest, and that with the digest in the name.

    Raises:
        SmsshError: one is not there, or not what it should be.
    """
    text = b"".join(place.chunks(MANIFEST))
    manifest = Manifest.parse(text)
    if hashlib.sha256(text).hexdigest() != place.name:
        raise SmsshError(
            f"the bundle is damaged: its {MANIFEST} is not the one that it is named after",
            reference="bundle-damaged",
        )
    return {**{name: read(place, manifest, name) for name in manifest.files}, MANIFEST: text}


def renew(place: Prefix, encryption: str = "") -> Expiry | None:
    """Put all files of a bundle again as they are, so that lifecycle rules count from now; answers what they say.

    Args:
        place: where the bundle is.
        encryption: see `SSHOptions.s3_encryption`; "" takes the key of KMS that the bundle is encrypted with now.

    Raises:
        SmsshError: it is not whole, or can't be read or written.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    files = contents(place)
    try:
        how = encryption or encryption_of(place.bucket.head(f"{place.prefix}/{MANIFEST}"))
        return put_files(files, replace(place.bucket, encryption=how), f"{place.prefix}/")
    except (BotoCoreError, ClientError) as error:
        raise SmsshError(
            f"cannot renew the bundle {place.address}: {error}",
            hint=f"allow s3:PutObject on {place.bucket.name}/{place.prefix}/*, and kms:GenerateDataKey if it has a key "
            "of KMS; if the bucket's policy demands another key, name it: `smssh bundle renew --s3-encryption KEY`, "
            "SSHOptions(s3_encryption='KEY')",
            reference="bundle-not-writable",
            status=ExitStatus.REFUSED,
        ) from None


def read(place: Folder | Prefix, manifest: Manifest, name: str) -> bytes:
    """A file of a bundle, compared with the manifest.

    Raises:
        SmsshError: it is not there, or not what the manifest says.
    """
    data = b"".join(place.chunks(name))
    manifest.check(name, data)
    return data
