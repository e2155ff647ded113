"""One bucket of S3 as the submitting side uses it: every call names the bucket's owner, every PUT is checked by S3."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterator, Mapping

from ...aws.s3_encryption import parameters
from ...manifest import MANIFEST
from .expiry import expiry_of

if TYPE_CHECKING:
    from .expiry import Expiry

__all__ = ["Bucket", "checksum", "code_of", "is_missing", "put_files", "status_of"]

_MISSING = frozenset({"NoSuchKey", "NoSuchBucket", "NotFound", "404"})


@dataclass(frozen=True)
class Bucket:
    """A bucket.

    Its methods raise botocore's ClientError and BotoCoreError.

    Attributes:
        client: a boto3 client of S3.
        name: the bucket's name.
        owner: the account id that the bucket must belong to; "" lets it be anybody's.
        encryption: how objects are encrypted, see `SSHOptions.s3_encryption`; "" leaves it to the bucket.
    """

    client: Any
    name: str
    owner: str = ""
    encryption: str = ""

    def get(self, key: str, **more: Any) -> dict[str, Any]:
        """GetObject."""
        answer: dict[str, Any] = self.client.get_object(**self._place(key), **more)
        return answer

    def head(self, key: str) -> dict[str, Any]:
        """HeadObject, with the checksum if S3 has one."""
        answer: dict[str, Any] = self.client.head_object(**self._place(key), ChecksumMode="ENABLED")
        return answer

    def put(self, key: str, data: bytes) -> dict[str, Any]:
        """PutObject; S3 compares what arrives with its SHA-256, and keeps that with the object."""
        answer: dict[str, Any] = self.client.put_object(
            **self._place(key),
            Body=data,
            ChecksumAlgorithm="SHA256",
            ChecksumSHA256=checksum(data),
            **parameters(self.encryption),
        )
        return answer

    def list(self, prefix: str) -> Iterator[dict[str, Any]]:
        """ListObjectsV2, page by page: the objects below a prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.name, Prefix=prefix, **self._owner()
        )
        for page in pages:
            yield from page.get("Contents", ())

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self.name, "Key": key, **self._owner()}

    def _owner(self) -> dict[str, str]:
        return {"ExpectedBucketOwner": self.owner} if self.owner else {}


def put_files(files: Mapping[str, bytes], bucket: Bucket, key: str) -> Expiry | None:
    """Put the files of a bundle, the manifest last; answers the first of their ends, as lifecycle rules have it.

    Args:
        files: name to contents.
        bucket: the bucket.
        key: the bundle's prefix, ending in a slash.
    """
    ends = []
    for name in sorted(files, key=lambda each: (each == MANIFEST, each)):
        expiry = expiry_of(bucket.put(key + name, files[name]))
        if expiry is not None:
            ends.append(expiry)
    return min(ends, key=lambda each: each.when, default=None)


def checksum(data: bytes) -> str:
    """The SHA-256 as S3 writes it."""
    return b64encode(hashlib.sha256(data).digest()).decode()


def code_of(error: Any) -> str:
    """The service's code of a ClientError."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: Any) -> int:
    """The HTTP status of a ClientError; 0 if it has none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def is_missing(error: Any) -> bool:
    """Whether a ClientError says that there is no such object or bucket."""
    return code_of(error) in _MISSING
