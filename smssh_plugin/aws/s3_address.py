"""An s3:// address as people write it, with the account that must own the bucket: `s3://bucket/prefix?owner=ACCOUNT`.

A bucket's name is free for anybody once the bucket is deleted, and the default bucket of SageMaker's SDK has a name
that can be guessed. So every call names the account that the bucket must belong to (ExpectedBucketOwner); S3 refuses
the call if it belongs to another. That account is one's own, unless the address names another.

CPython 3.8 and later, standard library only.
"""

from __future__ import annotations

import re

from ..errors import ExitStatus, SmsshError

__all__ = ["account_of_arn", "split_owner", "with_owner"]

_MARK = "?owner="
_ACCOUNT = re.compile(r"\d{12}\Z", re.ASCII)


def split_owner(address: str) -> tuple[str, str]:
    """The address without its owner, and the owner's account id; "" if it names none.

    Raises:
        SmsshError: the owner is not an account id of twelve digits.
    """
    place, mark, owner = address.partition(_MARK)
    if mark and not _ACCOUNT.match(owner):
        raise SmsshError(
            f"{address!r} does not name an account: {owner!r} is not twelve digits",
            hint=f"write it as {place}{_MARK}123456789012, or leave {_MARK[:-1]} out for a bucket of your own account",
            reference="bad-bucket-owner",
            status=ExitStatus.USAGE,
        )
    return place, owner


def with_owner(address: str, owner: str) -> str:
    """The address with an owner, if there is one to name."""
    return f"{address}{_MARK}{owner}" if owner else address


def account_of_arn(arn: str) -> str:
    """The account id in an ARN; "" if it has none."""
    parts = arn.split(":")
    return parts[4] if len(parts) > 4 and _ACCOUNT.match(parts[4]) else ""
