"""Requests of S3 as IAM sees them: actions, resources, condition keys.

Facts: Amazon S3 user guide, "Required permissions for Amazon S3 API operations"; service authorization reference.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote
from xml.etree.ElementTree import ParseError, fromstring

from .account import ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["of_call", "of_request"]


_HOST = re.compile(r"(?:(.+)\.)?s3[.-][a-z0-9.-]*amazonaws\.com(?:\.cn)?(?::\d+)?")
_OBJECT = {
    "GET": "GetObject",
    "HEAD": "GetObject",
    "PUT": "PutObject",
    "POST": "PutObject",
    "DELETE": "DeleteObject",
}
_OBJECT_PARTS = {"acl": "Acl", "tagging": "Tagging", "retention": "Retention", "legal-hold": "LegalHold"}
_BUCKET_PARTS = {
    "acl": "BucketAcl",
    "cors": "BucketCORS",
    "encryption": "EncryptionConfiguration",
    "lifecycle": "LifecycleConfiguration",
    "location": "BucketLocation",
    "logging": "BucketLogging",
    "notification": "BucketNotification",
    "object-lock": "BucketObjectLockConfiguration",
    "ownershipControls": "BucketOwnershipControls",
    "policy": "BucketPolicy",
    "policyStatus": "BucketPolicyStatus",
    "publicAccessBlock": "BucketPublicAccessBlock",
    "tagging": "BucketTagging",
    "versioning": "BucketVersioning",
    "website": "BucketWebsite",
}
_LISTS = {"versions": "ListBucketVersions", "uploads": "ListBucketMultipartUploads"}
_QUESTIONS = ("prefix", "delimiter", "max-keys")
_LIST_PARAMETERS = frozenset(
    {
        *_QUESTIONS,
        *_LISTS,
        "continuation-token",
        "encoding-type",
        "fetch-owner",
        "key-marker",
        "list-type",
        "marker",
        "max-uploads",
        "start-after",
        "upload-id-marker",
        "version-id-marker",
    }
)
_WHOLE_BUCKET = {"PUT": "CreateBucket", "DELETE": "DeleteBucket"}
_WRITES = {"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"}


def of_request(
    method: str, host: str, target: str, copied: str | None, body: bytes
) -> list[tuple[str, str, dict[str, str]]]:
    """What a request asks for: actions, each with a resource and its own keys.

    Args:
        method: GET, ...
        host: of the request, which may name the bucket.
        target: path and query.
        copied: the header x-amz-copy-source.
        body: of DeleteObjects; other bodies are of no matter.

    Raises:
        ValueError: nobody knows which action it is.
    """
    path, _, written = target.partition("?")
    query = {
        name: value for name, value in parse_qsl(written, keep_blank_values=True) if not _is_signature(name)
    }
    found = _HOST.fullmatch(host.lower())
    path = unquote(path).removeprefix("/")
    bucket, key = (found[1], path) if found and found[1] else path.partition("/")[::2]
    if not bucket:
        return [("s3:ListAllMyBuckets", "arn:aws:s3:::*", {})]
    if not key:
        return _of_bucket(method, bucket, query, body)
    asked = [_of_object(method, bucket, key, query)]
    if copied:
        source, _, version = copied.partition("?versionId=")
        name = "GetObjectVersion" if version else "GetObject"
        asked.append(_asked(name, unquote(source).removeprefix("/")))
    return asked


def of_call(operation: str, members: Mapping[str, Any]) -> list[tuple[str, str, dict[str, str]]]:
    """The same for a call of a client that SageMaker makes for a job.

    Raises:
        ValueError: nobody knows which action it is.
    """
    bucket = str(members.get("Bucket", ""))
    if operation in ("ListObjectsV2", "ListObjects"):
        return [_asked("ListBucket", bucket, {"s3:prefix": str(members.get("Prefix", ""))})]
    path = f"{bucket}/{members.get('Key', '')}"
    if operation in ("GetObject", "HeadObject"):
        return [_asked("GetObject", path)]
    if operation in _WRITES:
        return [_asked("PutObject", path)]
    if operation == "AbortMultipartUpload":
        return [_asked(operation, path)]
    raise ValueError(operation)


def _is_signature(name: str) -> bool:
    """Whether a parameter is of a presigned address, or says what SDKs say for their own logs."""
    return name.lower().startswith("x-amz-") or name in ("AWSAccessKeyId", "Signature", "Expires", "x-id")


def _of_object(
    method: str, bucket: str, key: str, query: Mapping[str, str]
) -> tuple[str, str, dict[str, str]]:
    path = f"{bucket}/{key}"
    part = next((name for name in _OBJECT_PARTS if name in query), None)
    if method not in _OBJECT:
        raise ValueError(method)
    if part is not None:
        verb = {"GET": "Get", "PUT": "Put", "DELETE": "Delete"}.get(method)
        if verb is None:
            raise ValueError(method)
        version = "Version" if "versionId" in query and part in ("acl", "tagging") else ""
        return _asked(f"{verb}Object{version}{_OBJECT_PARTS[part]}", path)
    if "uploadId" in query and method in ("GET", "DELETE"):
        return _asked("ListMultipartUploadParts" if method == "GET" else "AbortMultipartUpload", path)
    if method == "POST":
        if "restore" in query:
            return _asked("RestoreObject", path)
        if "select" in query:
            return _asked("GetObject", path)
        if "uploads" not in query and "uploadId" not in query:
            raise ValueError(method)
    name = _OBJECT[method]
    if "versionId" in query and method in ("GET", "HEAD", "DELETE"):
        name += "Version"
    return _asked(name, path)


def _of_bucket(
    method: str, bucket: str, query: Mapping[str, str], body: bytes
) -> list[tuple[str, str, dict[str, str]]]:
    part = next((name for name in _BUCKET_PARTS if name in query), None)
    if method == "POST" and "delete" in query:
        objects = _deleted(body)
        if not objects:
            raise ValueError("a deletion of no objects")
        return [
            _asked("DeleteObjectVersion" if version else "DeleteObject", f"{bucket}/{key}")
            for key, version in objects
        ]
    if part is not None and method in ("GET", "PUT"):
        return [_asked(f"{method.capitalize()}{_BUCKET_PARTS[part]}", bucket)]
    if part is not None and method == "DELETE":
        # Most are permitted with the action that sets them.
        verb = "Delete" if part in ("policy", "website") else "Put"
        return [_asked(f"{verb}{_BUCKET_PARTS[part]}", bucket)]
    if method in ("GET", "HEAD"):
        return [_of_list(bucket, query)]
    if method in _WHOLE_BUCKET and not query:
        return [_asked(_WHOLE_BUCKET[method], bucket)]
    raise ValueError(method)


def _of_list(bucket: str, query: Mapping[str, str]) -> tuple[str, str, dict[str, str]]:
    name = next((_LISTS[each] for each in _LISTS if each in query), "ListBucket")
    other = sorted(query.keys() - _LIST_PARAMETERS)
    if other:
        raise ValueError(other[0])
    # HeadBucket has no prefix; a list without one has an empty one only where it says so.
    return _asked(name, bucket, {f"s3:{each}": query[each] for each in _QUESTIONS if each in query})


def _deleted(body: bytes) -> list[tuple[str, str]]:
    """The keys in a body of DeleteObjects, each with its version or ""."""
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise ValueError("a document type")
    try:
        root = fromstring(body)  # noqa: S314 - without a document type there is nothing to expand
    except ParseError:
        raise ValueError("not XML") from None
    named = [
        {child.tag.rpartition("}")[2]: child.text or "" for child in each}
        for each in root.iter()
        if each.tag.rpartition("}")[2] == "Object"
    ]
    return [(each["Key"], each.get("VersionId", "")) for each in named if "Key" in each]


def _asked(name: str, path: str, keys: Mapping[str, str] | None = None) -> tuple[str, str, dict[str, str]]:
    return f"s3:{name}", f"arn:aws:s3:::{path}", {"aws:ResourceAccount": ACCOUNT, **(keys or {})}
