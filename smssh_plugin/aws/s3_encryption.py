"""How objects that we put into S3 are encrypted, for buckets whose policy demands it of each PUT.

CPython 3.8 and later, standard library only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["encryption_of", "parameters"]


def parameters(how: str) -> dict[str, str]:
    """The parameters of PutObject for a kind of encryption.

    Args:
        how: "" for none, `AES256`, `aws:kms` (the bucket's key, or the account's own), or a key: id, ARN or alias.
    """
    if how in ("AES256", "aws:kms"):
        return {"ServerSideEncryption": how}
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": how} if how else {}


def encryption_of(answer: Mapping[str, Any]) -> str:
    """The key of KMS that an object is encrypted with, as `parameters` takes it; "" for none.

    Args:
        answer: of HeadObject or GetObject.
    """
    if answer.get("ServerSideEncryption") != "aws:kms":
        return ""  # S3's own key, which it takes by itself
    return str(answer.get("SSEKMSKeyId") or "aws:kms")
