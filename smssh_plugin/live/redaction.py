"""What a report for a public place must not have: accounts, names of people and resources, credentials."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .names import PREFIX

if TYPE_CHECKING:
    from ..aws.identity_calls import Caller

__all__ = ["Redaction"]

_ARN = re.compile(r"arn:[\w-]+:([\w-]*):[\w-]*:(?:\d{12}|\w*):([^\s\"',;)\]}]+)")
_PUBLIC = ("document/AWS-", "document/SSM-SessionManagerRunShell", "servicesetting/ssm/")
_KINDS = frozenset(
    {
        "assumed-role",
        "document",
        "managed-instance",
        "policy",
        "role",
        "root",
        "session",
        "user",
        "vpc-endpoint",
    }
)
"""The kinds of resources whose word may be shown; elsewhere the first word is a name."""
_PATTERNS = (
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b"), "KEY"),
    (re.compile(r"\b(?:AROA|AIDA|AIPA|ANPA)[A-Z0-9]{8,}\b"), "USER"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"\bmi-[0-9a-f]{17}\b"), "NODE"),
    (re.compile(r"\b(?:vpce|vpc|subnet|sg|o|ou|p)-[0-9a-z]{8,}\b"), "ID"),
    (re.compile(r"(?<!\d)\d{12}(?!\d)"), "ACCOUNT"),
    (re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b"), "USER"),
)


class Redaction:
    """Takes out of texts of AWS what is the caller's.

    Args:
        caller: who made the calls.
        alias: of the account; "" for none.
        profile: the name of the profile.
    """

    def __init__(self, caller: Caller, alias: str, profile: str) -> None:
        names = [*caller.resource[1:], caller.user_id, *caller.user_id.split(":"), alias, profile]
        common = {"", "default", "user", "role", "root"}
        longest = sorted({each for each in names if each not in common}, key=len, reverse=True)
        self._own = re.compile(
            "|".join(rf"(?<![\w-]){re.escape(each)}(?![\w-])" for each in longest) or r"(?!)"
        )

    def text(self, text: str) -> str:
        """A text without them; what a run itself has named stays."""
        text = _ARN.sub(_arn, text)
        text = self._own.sub("USER", text)
        for pattern, label in _PATTERNS:
            text = pattern.sub(label, text)
        return text


def _arn(found: re.Match[str]) -> str:
    service, resource = found[1], found[2]
    if PREFIX in resource or resource.startswith(_PUBLIC) or resource == "*":
        return found[0]
    kind = resource.replace(":", "/").partition("/")[0]
    return f"ARN ({service} {kind})" if kind in _KINDS else f"ARN ({service})"
