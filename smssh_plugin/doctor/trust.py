"""The trust policy of a role: whether Systems Manager may give its credentials to a managed node."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["SERVICE", "Trust", "statement", "trust"]

SERVICE = "ssm.amazonaws.com"
"""The same in all partitions."""
ACTION = "sts:AssumeRole"
_EQUAL = frozenset({"stringequals", "stringequalsignorecase"})
_LIKE = frozenset({"stringlike", "arnlike", "arnequals"})


@dataclass(frozen=True)
class Trust:
    """What a trust policy means.

    Attributes:
        trusted: whether Systems Manager may assume the role; None where that cannot be told.
        why: why not, or what is not known; "" where it may.
    """

    trusted: bool | None
    why: str = ""


def statement(partition: str, account: str, region: str) -> dict[str, Any]:
    """The statement of a trust policy that lets Systems Manager in, for nodes of one account and region."""
    return {
        "Effect": "Allow",
        "Principal": {"Service": SERVICE},
        "Action": ACTION,
        "Condition": {
            "StringEquals": {"aws:SourceAccount": account},
            "ArnLike": {"aws:SourceArn": f"arn:{partition}:ssm:{region}:{account}:*"},
        },
    }


def trust(document: Mapping[str, Any], partition: str, account: str, region: str) -> Trust:
    """Whether a role's trust policy lets Systems Manager in.

    Args:
        document: AssumeRolePolicyDocument, as JSON.
        partition: aws, aws-cn, ...
        account: where nodes are registered.
        region: the same.
    """
    refused: list[Trust] = []
    trusted = Trust(False, f"it does not name {SERVICE}")
    for each in _list(document.get("Statement")):
        if not isinstance(each, dict) or not _concerns(each):
            continue
        found = _conditions(each.get("Condition") or {}, partition, account, region)
        if each.get("Effect") == "Deny":
            if found.trusted is not False:
                refused.append(Trust(False if found.trusted else None, "a statement denies it"))
        elif trusted.trusted is not True and not (trusted.trusted is None and found.trusted is False):
            trusted = found
    return refused[0] if refused and trusted.trusted is not False else trusted


def _concerns(each: Mapping[str, Any]) -> bool:
    principal = each.get("Principal")
    services = _list(principal.get("Service")) if isinstance(principal, dict) else [principal]
    everybody = principal == "*" and each.get("Effect") == "Deny"
    actions = [str(one).lower() for one in _list(each.get("Action"))]
    return (SERVICE in services or everybody) and any(fnmatchcase(ACTION.lower(), one) for one in actions)


def _conditions(conditions: Mapping[str, Any], partition: str, account: str, region: str) -> Trust:
    """Whether the conditions of a statement hold for a node that is registered in an account and region."""
    each = ((operator, key, values) for operator, keys in conditions.items() for key, values in keys.items())
    for operator, key, values in each:
        kind, name = operator.lower().removesuffix("ifexists"), key.lower()
        wanted = [str(one) for one in _list(values)]
        if kind not in _EQUAL | _LIKE or name not in ("aws:sourceaccount", "aws:sourcearn"):
            return Trust(None, f"it has a condition {operator} on {key}")
        if name == "aws:sourcearn":
            # With StringEquals a `*` stands for itself, which no ARN of a node has.
            possible = [one for one in wanted if kind in _LIKE or not set("*?") & set(one)]
            held = any(_may_match(one, partition, region, account) for one in possible)
        else:
            held = any(fnmatchcase(account, one) if kind in _LIKE else account == one for one in wanted)
        if not held:
            return Trust(False, f"its condition {operator} on {key} wants {', '.join(wanted)}")
    return Trust(True)


def _may_match(pattern: str, partition: str, region: str, account: str) -> bool:
    """Whether an ARN of Systems Manager in this account and region can match: the rest of it is not known."""
    parts = pattern.split(":", 5)
    if len(parts) < 6:  # a `*` may stand for several parts
        return fnmatchcase(f"arn:{partition}:ssm:{region}:{account}:*", pattern)
    own = ("arn", partition, "ssm", region, account)
    return all(fnmatchcase(value, one) for value, one in zip(own, parts, strict=False))


def _list(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
