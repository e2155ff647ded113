"""What becomes of a bundle in S3 with time: lifecycle rules delete and archive objects by their age.

A job whose prefix is empty fails before its container starts, and no object can be exempted from a rule that covers its
prefix. So objects older than RENEW_SECONDS, or past half of the time that a rule gives them, are put again, and a rule
that S3 names (x-amz-expiration) is warned of.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Mapping
from urllib.parse import unquote

from ..warnings import RequestWarning, say

__all__ = ["Expiry", "expiry_of", "is_old", "readable", "remember", "warn_of"]

RENEW_SECONDS = 7 * 24 * 3600.0
"""Age from which objects are put again."""
SOON_SECONDS = 2 * 24 * 3600.0
"""A job that is submitted at once is warned of rules that delete its bundle within this time: it reads the bundle when
it starts, and again when it is restarted."""
ARCHIVED = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes whose objects nobody can read before they are restored."""

_EXPIRY = re.compile(r'expiry-date="([^"]+)"(?:,\s*rule-id="([^"]*)")?')


@dataclass(frozen=True)
class Expiry:
    """What a lifecycle rule does to an object.

    Attributes:
        when: when it is deleted.
        rule: the rule's id; may be empty.
    """

    when: datetime
    rule: str

    def __str__(self) -> str:
        """The rule and the date, for messages."""
        rule = f"the lifecycle rule {self.rule!r}" if self.rule else "a lifecycle rule"
        return f"{rule} of the bucket deletes it on {self.when:%Y-%m-%d}"


def expiry_of(answer: Mapping[str, Any]) -> Expiry | None:
    """What S3's answer to a GET, HEAD or PUT says of the object's end (x-amz-expiration)."""
    found = _EXPIRY.search(str(answer.get("Expiration") or ""))
    if found is None:
        return None
    try:
        when = parsedate_to_datetime(found.group(1))
    except (TypeError, ValueError):
        return None
    return Expiry(when.replace(tzinfo=when.tzinfo or timezone.utc), unquote(found.group(2) or ""))


def readable(entry: Mapping[str, Any]) -> bool:
    """Whether an object can be read as it is stored, by its entry in a listing or the answer to a HEAD."""
    return entry.get("StorageClass") not in ARCHIVED and not entry.get("ArchiveStatus")


def is_old(written: datetime, expiry: Expiry | None) -> bool:
    """Whether an object of that age should be put again, given the rule that deletes it."""
    limit = timedelta(seconds=RENEW_SECONDS)
    if expiry is not None:
        limit = min(limit, (expiry.when - written) / 2)
    return datetime.now(timezone.utc) - written > limit


def remember(address: str, expiry: Expiry | None) -> None:
    """Note what lifecycle rules do to a bundle, for `warn_of`."""
    if expiry is None:
        _ends.pop(address, None)
    else:
        _ends[address] = expiry


def warn_of(address: str, *, lasting: bool) -> None:
    """Warn of a lifecycle rule that deletes a bundle before a job may start.

    Args:
        address: the bundle.
        lasting: whether jobs may start long after this: those of pipelines, and those that use a model.
    """
    expiry = _ends.get(address)
    if expiry is None:
        return
    left = expiry.when - datetime.now(timezone.utc)
    if lasting or left < timedelta(seconds=SOON_SECONDS):
        say(
            f"the bundle {address}",
            [RequestWarning(f"{expiry}, and jobs that start after that fail", _WAY_OUT)],
        )


_ends: dict[str, Expiry] = {}
"""What was seen in this process, by address."""
_WAY_OUT = (
    " before their container starts: store bundles outside of the rule "
    "(SSHOptions(bundle_prefix='s3://bucket/prefix')), or let `smssh bundle renew --pipeline NAME` run before that; "
    "every upsert renews them, too"
)
