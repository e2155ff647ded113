"""The condition keys that the local emulator fills in as AWS does, and a refusal of policies with others.

A key that is never there would make a condition never hold, or always: neither is what the policy means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .documents import bad_policy

if TYPE_CHECKING:
    from .documents import Policy

__all__ = ["KNOWN", "SEVERAL", "check_keys"]

SEVERAL = frozenset({"aws:tagkeys"})
"""Keys with several values: AWS's linters refuse them without ForAllValues or ForAnyValue."""
KNOWN = (
    "aws:CurrentTime",
    "aws:EpochTime",
    "aws:PrincipalAccount",
    "aws:PrincipalArn",
    "aws:PrincipalTag/",
    "aws:PrincipalType",
    "aws:RequestTag/",
    "aws:RequestedRegion",
    "aws:ResourceAccount",
    "aws:ResourceTag/",
    "aws:SecureTransport",
    "aws:SourceAccount",
    "aws:SourceArn",
    "aws:SourceIdentity",
    "aws:TagKeys",
    "aws:userid",
    "aws:username",
    "iam:PassedToService",
    "s3:delimiter",
    "s3:max-keys",
    "s3:prefix",
    "sagemaker:ResourceTag/",
    "ssm:SessionDocumentAccessCheck",
    "ssm:resourceTag/",
)
"""What ends in a slash has a tag's key behind it. aws:username is there for IAM users only, as on AWS."""
_EXACT = frozenset(key.lower() for key in KNOWN if not key.endswith("/"))
_TAGS = tuple(key.lower() for key in KNOWN if key.endswith("/"))


def check_keys(policy: Policy) -> None:
    """See that every key and variable of a policy is one that requests have here.

    Raises:
        SmsshError: one is not.
    """
    for statement in policy.statements:
        keys = [(each.key, each.several) for each in statement.conditions]
        named = [key for each in statement.conditions for key in each.variables]
        named += [key for each in statement.resources for key in each.variables]
        for key, several in [*keys, *((key, False) for key in named)]:
            low = key.lower()
            if low in SEVERAL and not several:
                raise bad_policy(
                    statement.label, f"{key} has several values: it needs ForAllValues or ForAnyValue"
                )
            if low not in _EXACT and not any(low.startswith(tags) and low != tags for tags in _TAGS):
                raise bad_policy(statement.label, f"its requests do not have the condition key {key}")
