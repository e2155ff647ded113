"""Public keys that are kept somewhere else: read where jobs are submitted, or by the job itself.

    s3://bucket/key        an object with lines as in an authorized_keys file; in a bucket of one's own account, or of
                           the account that its end names: s3://bucket/key?owner=123456789012
    ssm:/team/keys         such lines in a parameter of Systems Manager, by its name or ARN
    github:ann             the keys of a GitHub user: https://github.com/ann.keys
    https://host/path      such lines on a web server; GitLab's https://gitlab.com/ann.keys, for one

CPython 3.8 and later, standard library; boto3 for the first two.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any, Callable

from .agent_package import download
from .aws.s3_address import split_owner
from .errors import ExitStatus, SmsshError

__all__ = ["FORMS", "is_source", "key_lines", "read_source"]

FORMS = "s3://bucket/key, ssm:NAME, github:USER, https://host/path"
FETCH_SECONDS = 20.0
SIZE_LIMIT = 1 << 20
"""Bytes of one source."""
GITHUB = "https://github.com/{}.keys"

# As in GitHub's own check of user names.
_GITHUB = re.compile(r"github:([A-Za-z0-9](?:-?[A-Za-z0-9]){0,38})\Z")
_PARAMETER = re.compile(r"ssm:([A-Za-z0-9_.:/-]{1,2048})\Z")
_OBJECT = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(\S+)\Z")
_ADDRESS = re.compile(r"(https://[^\s/]+|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?)/\S+\Z")
_PREFIXES = ("s3://", "ssm:", "github:", "https://", "http://")


def is_source(entry: str) -> bool:
    """Whether an entry names a source, rather than being a key or a file.

    Raises:
        SmsshError: it begins as a source and is not one.
    """
    if not entry.startswith(_PREFIXES):
        return False
    address = split_owner(entry)[0] if entry.startswith("s3://") else entry
    if not any(pattern.match(address) for pattern in (_GITHUB, _PARAMETER, _OBJECT, _ADDRESS)):
        raise SmsshError(
            f"{entry!r} is not a source of public keys",
            hint=f"use {FORMS}",
            reference="bad-key-source",
            status=ExitStatus.USAGE,
        )
    return True


def key_lines(text: str) -> list[str]:
    """The lines of an authorized_keys file, without the empty ones and comments."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def read_source(
    source: str, client: Callable[[str], Any], account: Callable[[], str] | None = None
) -> list[str]:
    """The lines of a source, sorted, each once: where it keeps them in another order, that is not a change.

    Nothing is said of what the lines are.

    Args:
        source: see `is_source`.
        client: answers a boto3 client for `s3`, `ssm` or `sts`.
        account: answers the account id that a bucket must belong to whose address names none; by default STS is asked.

    Raises:
        SmsshError: it cannot be read, has no line, or has a private key.
    """
    text = _text(source, client, account)
    if "PRIVATE KEY" in text:
        raise SmsshError(
            f"{source} has a private key where public ones belong",
            hint="make another key: everybody who can read it there has this one",
            reference="private-key",
            status=ExitStatus.USAGE,
        )
    lines = sorted(set(key_lines(text)))
    if not lines:
        raise SmsshError(
            f"{source} has no public key in it", reference="no-public-key", status=ExitStatus.USAGE
        )
    return lines


def _text(source: str, client: Callable[[str], Any], account: Callable[[], str] | None) -> str:
    if source.startswith("s3://"):
        address, owner = split_owner(source)
        named = _OBJECT.match(address)
        assert named is not None  # see `is_source`
        bucket, key = named.groups()
        if not owner:
            asked = account or (lambda: str(client("sts").get_caller_identity()["Account"]))
            owner = _of_aws(
                source, f"STS, or the owner's account in the address: {address}?owner=ACCOUNT", asked
            )
        action = f"s3:GetObject on {bucket}/{key}, and that the bucket belongs to the account {owner}"
        if address == source:
            action += f" (or to one that the address names: {address}?owner=ACCOUNT)"
        return _of_aws(source, action, lambda: _object(client("s3"), bucket, key, owner))
    named = _PARAMETER.match(source)
    if named is not None:
        name = named.group(1)
        action = f"ssm:GetParameter on {name} (and kms:Decrypt on its key, where it is a SecureString)"
        return _of_aws(source, action, lambda: _parameter(client("ssm"), name))
    named = _GITHUB.match(source)
    return _fetched(source, source if named is None else GITHUB.format(named.group(1)))


def _object(client: Any, bucket: str, key: str, owner: str) -> str:
    answer = client.get_object(Bucket=bucket, Key=key, ExpectedBucketOwner=owner)
    data: bytes = answer["Body"].read(SIZE_LIMIT + 1)
    return _decoded(f"s3://{bucket}/{key}", data)


def _parameter(client: Any, name: str) -> str:
    value: str = client.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]
    return value


def _of_aws(source: str, action: str, read: Callable[[], str]) -> str:
    """What a call of AWS reads.

    Raises:
        SmsshError: it fails; with the IAM action that it needs.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return read()
    except ClientError as error:
        # Not the service's whole answer: that to a wrong signature has the session token in it.
        problem = str(error.response.get("Error", {}).get("Code"))
        gone = problem in ("NoSuchKey", "NoSuchBucket", "ParameterNotFound")
        kind = ExitStatus.NOT_FOUND if gone else ExitStatus.REFUSED
    except BotoCoreError as error:
        problem, kind = str(error), ExitStatus.UNREACHABLE
    raise SmsshError(
        f"the public keys of {source} cannot be read: {problem}",
        hint=f"allow {action}",
        reference="keys-not-readable",
        status=kind,
    )


def _fetched(source: str, address: str) -> str:
    with tempfile.TemporaryDirectory(prefix="smssh-") as scratch:
        answer = Path(scratch, "keys")
        try:
            download(address, answer, seconds=FETCH_SECONDS)
        except SmsshError as error:
            raise SmsshError(
                f"the public keys of {source} cannot be read: {error.message}",
                hint=f"check that {address} can be reached from here, and that there is such a user",
                reference="keys-not-readable",
                status=error.status,
            ) from None
        return _decoded(source, answer.read_bytes())


def _decoded(source: str, data: bytes) -> str:
    try:
        if len(data) > SIZE_LIMIT:
            raise ValueError(f"it is larger than {SIZE_LIMIT} bytes")
        return data.decode("utf-8")
    except ValueError as error:  # that it is not UTF-8 is one, too
        raise SmsshError(
            f"{source} is not a list of public keys: {error}",
            reference="no-public-key",
            status=ExitStatus.USAGE,
        ) from None
