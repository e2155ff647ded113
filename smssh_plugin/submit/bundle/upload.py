"""A bundle's way into S3: put there if anything of it is missing or different, renewed when it is old.

What is at the prefix is believed by its own bytes only: the manifest by the SHA-256 that names the prefix, every other
object by its size and its MD5 (the ETag of an object that is not encrypted with a key of KMS) or the SHA-256 that S3
keeps with it. That takes ListObjectsV2, GetObject of the manifest, HeadObject of the largest file, and HeadObject of
those files whose ETag says nothing.

Old objects are put again, before a lifecycle rule of the bucket deletes them: see `expiry`.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Iterable, Mapping

from ...errors import ExitStatus, SmsshError
from ...manifest import MANIFEST, PLUGINS
from ...terminal import put
from ..warnings import RequestWarning, say
from .bucket import checksum, code_of, is_missing, put_files, status_of
from .expiry import expiry_of, is_old, readable, remember

if TYPE_CHECKING:
    from datetime import datetime

    from .bucket import Bucket
    from .expiry import Expiry
    from .model import Bundle
    from .store import Destination

__all__ = ["upload"]

LARGE = 1_000_000
"""Bytes from which an upload is worth a line of progress."""
SHOWN = 20
"""Files of plugins that are named when they are uploaded; `smssh bundle show` names all."""
_MD5 = re.compile(r"[0-9a-f]{32}\Z")


@dataclass
class _Found:
    """What is at a prefix.

    Attributes:
        wrong: the files that have to be put there.
        unknown: names that are not the bundle's.
        known: whether the manifest is there, so that the bundle was complete once.
        oldest: when the oldest of its files was written.
        expiries: what lifecycle rules say of its files.
    """

    wrong: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    known: bool = False
    oldest: datetime | None = None
    expiries: list[Expiry] = field(default_factory=list)

    def saw(self, answer: Mapping[str, Any]) -> None:
        """Note the age and the end of a file."""
        written, expiry = answer.get("LastModified"), expiry_of(answer)
        if written is not None and (self.oldest is None or written < self.oldest):
            self.oldest = written
        if expiry is not None:
            self.expiries.append(expiry)

    @property
    def expiry(self) -> Expiry | None:
        """The first of its ends."""
        return min(self.expiries, key=lambda each: each.when, default=None)

    @property
    def old(self) -> bool:
        """Whether it is time to put its files again."""
        return self.oldest is not None and is_old(self.oldest, self.expiry)


def upload(bundle: Bundle, place: Destination) -> str:
    """Store the bundle, or what is missing of it, and answer its S3 prefix.

    The manifest goes last: where it is, the rest was. What lifecycle rules do to it is for `expiry.warn_of` to say.

    Args:
        bundle: the bundle.
        place: where bundles are stored.

    Raises:
        SmsshError: the prefix cannot be written, or has files that are not the bundle's.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    prefix = f"s3://{place.bucket}/{place.key(bundle.digest)}"
    try:
        found = _look(bundle, place)
    except (BotoCoreError, ClientError) as error:
        raise _not_writable(place, error) from None
    if found.unknown:
        names = ", ".join(sorted(found.unknown)[:5])
        raise SmsshError(
            f"{prefix} has files that are not the bundle's, and a job would see them: {names}",
            hint=f"find out who put them there, and remove them: aws s3 rm {prefix}{min(found.unknown)}",
            reference="bundle-damaged",
            status=ExitStatus.REFUSED,
        )
    expiry = found.expiry
    if found.wrong:
        if found.known:
            names = ", ".join(sorted(found.wrong)[:5])
            put(f"smssh: {prefix} was not whole, and is repaired: {names}", error=True)
        try:
            expiry = _put(bundle, place, found.wrong)
        except (BotoCoreError, ClientError) as error:
            raise _not_writable(place, error) from None
    elif found.old:
        try:
            expiry = _put(bundle, place, bundle.files)
        except (BotoCoreError, ClientError) as error:
            if expiry is not None:
                say(f"the bundle {prefix}", [RequestWarning(f"it cannot be renewed: {error}", _RENEWED_BY)])
    remember(prefix, expiry)
    return prefix


_RENEWED_BY = "; let somebody who may write there submit once more"


# -------------------------------------------------------------------------------- what is there


def _look(bundle: Bundle, place: Destination) -> _Found:
    """Compare what is at the prefix with the bundle."""
    bucket, key = place.objects, place.key(bundle.digest)
    listed = _listed(bucket, key)
    found = _Found()
    if listed is not None:
        found.unknown = {name for name in listed if name not in bundle.files}
        if not set(listed) - found.unknown:
            found.wrong = set(bundle.files)
            return found
    largest = max(bundle.files, key=lambda name: len(bundle.files[name]))
    for name, data in bundle.files.items():
        entry = None if listed is None else listed.get(name)
        if listed is not None and (entry is None or not readable(entry) or entry["Size"] != len(data)):
            found.wrong.add(name)
            found.known |= name == MANIFEST and entry is not None
            continue
        answer = dict(entry or {})
        if name == MANIFEST:
            answer.update(_manifest(bucket, key))
            right = hashlib.sha256(answer.get("text", b"")).hexdigest() == bundle.digest
            found.known = "text" in answer
        else:
            right = entry is not None and _same_etag(entry, data)
            if name == largest or not right:
                answer.update(_head(bucket, key + name))
                right = right or (
                    answer.get("ContentLength") == len(data)
                    and answer.get("ChecksumSHA256") == checksum(data)
                    and readable(answer)
                )
        found.saw(answer)
        if not right:
            found.wrong.add(name)
    return found


def _listed(bucket: Bucket, key: str) -> dict[str, dict[str, Any]] | None:
    """The objects at a prefix by name, without the empty ones that stand for folders; None if it may not be listed."""
    from botocore.exceptions import ClientError

    try:
        entries = list(bucket.list(key))
    except ClientError as error:
        if status_of(error) == 403 or code_of(error) == "AccessDenied":
            return None
        raise
    return {each["Key"][len(key) :]: each for each in entries if not each["Key"].endswith("/")}


def _same_etag(entry: Mapping[str, Any], data: bytes) -> bool:
    """Whether the ETag of an object is the MD5 of these bytes: nobody can make another object with that MD5."""
    etag = str(entry.get("ETag", "")).strip('"')
    if not _MD5.match(etag):
        return False
    try:
        return hashlib.md5(data, usedforsecurity=False).hexdigest() == etag
    except (TypeError, ValueError):  # no MD5 on a machine in FIPS mode; Python 3.8 knows no such argument
        return False


def _manifest(bucket: Bucket, key: str) -> dict[str, Any]:
    """The manifest: what S3 answers, and its `text`; empty if it is not there or may not be read."""
    from botocore.exceptions import ClientError

    try:
        answer = bucket.get(key + MANIFEST)
        return {**answer, "text": answer["Body"].read()}
    except ClientError as error:
        if _absent(error):
            return {}
        raise


def _head(bucket: Bucket, key: str) -> dict[str, Any]:
    """What S3 says of an object; empty if it is not there or may not be read."""
    from botocore.exceptions import ClientError

    try:
        return bucket.head(key)
    except ClientError as error:
        if _absent(error):
            return {}
        raise


def _absent(error: Any) -> bool:
    # Without s3:ListBucket, a key that does not exist is a 403.
    return (is_missing(error) and code_of(error) != "NoSuchBucket") or status_of(error) == 403


# -------------------------------------------------------------------------------- put there


def _put(bundle: Bundle, place: Destination, names: Iterable[str]) -> Expiry | None:
    files = {name: bundle.files[name] for name in names}
    size = sum(map(len, files.values()))
    if size >= LARGE:
        put(
            f"smssh: uploading {size / 1e6:.1f} MB to s3://{place.bucket}/{place.key(bundle.digest)}",
            error=True,
        )
    if PLUGINS in files:
        names = zipfile.ZipFile(io.BytesIO(files[PLUGINS])).namelist()
        shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        put(f"smssh: of plugins, these files are sent: {shown}", error=True)
    # With the manifest at the end, whatever was wrong: it is the sign that all is there.
    files[MANIFEST] = bundle.files[MANIFEST]
    return put_files(files, place.objects, place.key(bundle.digest))


def _not_writable(place: Destination, error: Exception) -> SmsshError:
    """The error for a place that bundles cannot be stored at."""
    where = f"{place.bucket}/{place.prefix}" if place.prefix else place.bucket
    response = getattr(error, "response", None)
    if response is not None and code_of(error) == "NoSuchBucket":
        return SmsshError(
            f"there is no bucket {place.bucket} to store the bundle in",
            hint=f"make it (aws s3 mb s3://{place.bucket}; a session of the SageMaker SDK makes its default bucket by "
            "itself), or name a place in SSHOptions(bundle_prefix='s3://bucket/prefix')",
            reference="bundle-not-writable",
            status=ExitStatus.NOT_FOUND,
        )
    hint = (
        f"allow s3:PutObject and s3:GetObject on {where}/* (the job's role needs s3:GetObject and s3:ListBucket), or "
        "name a place in SSHOptions(bundle_prefix='s3://bucket/prefix')"
    )
    if response is not None and status_of(error) == 403 and not place.encryption:
        hint += (
            "; if the bucket's policy demands encryption of each object, say SSHOptions(s3_encryption='KEY')"
        )
    if place.owner and response is not None and status_of(error) == 403:
        hint += (
            f"; the bucket must belong to the account {place.owner}: if it is another's on purpose, say "
            f"SSHOptions(bundle_prefix='{place.address}?owner=ACCOUNT')"
        )
    return SmsshError(
        f"cannot write the bundle to s3://{where}: {error}",
        hint=hint,
        reference="bundle-not-writable",
        status=ExitStatus.REFUSED,
    )
