"""IAM's own simulation of what a principal may do, and what AWS's messages say of a denial."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..aws import identity_calls

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .case import Case

__all__ = ["Verdict", "layer", "simulate", "verdict"]

_LAYER = re.compile(
    r"explicit deny in (?:a|an) ([\w -]*?policy|permissions boundary)|no ([\w -]*?policy|permissions boundary) allows",
    re.IGNORECASE,
)
"""As IAM words it: IAM user guide, "Troubleshoot access denied error messages"."""


@dataclass(frozen=True)
class Verdict:
    """What the simulation says.

    Attributes:
        allowed: whether the action is allowed.
        why: why it is not; "" where it is.
        unsure: why the simulation may be wrong; "" where it is not.
        explicit: whether a policy denies it, so that another statement would not help.
    """

    allowed: bool
    why: str = ""
    unsure: str = ""
    explicit: bool = False


def simulate(case: Case, principal: str, action: str, resource: str, context: Mapping[str, str]) -> Verdict:
    """Ask IAM whether a principal may do something.

    Args:
        case: whose session asks.
        principal: the ARN of a user or a role, with its path.
        action: for instance ssm:StartSession.
        resource: the ARN of one, or `*`.
        context: condition keys and their values.

    Raises:
        SmsshError: it may not be asked.
    """
    # Refused once, refused for all: what is not allowed is not asked again for each action.
    case.once(f"may simulate {principal}", lambda: _ask(case, principal, "sts:GetCallerIdentity", "*", {}))
    return verdict(_ask(case, principal, action, resource, context))


def _ask(
    case: Case, principal: str, action: str, resource: str, context: Mapping[str, str]
) -> dict[str, Any]:
    entries = [
        {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
        for key, value in context.items()
    ]
    answer = identity_calls.call(
        case.aws,
        "iam",
        "simulate_principal_policy",
        PolicySourceArn=principal,
        ActionNames=[action],
        ResourceArns=[resource],
        **({"ContextEntries": entries} if entries else {}),
    )
    found: dict[str, Any] = answer["EvaluationResults"][0]
    return found


def verdict(found: Mapping[str, Any]) -> Verdict:
    """What one EvaluationResult means.

    A denial that is ascribed to an organization's policy is unsure: the simulation does not know all conditions of
    those. It is unsure too where values of conditions were missing, such as a host's tags.
    """
    if found.get("EvalDecision") == "allowed":
        return Verdict(True)
    # Where the simulation was asked about an ARN, and not about `*`, some members are in the results for resources.
    parts: list[Mapping[str, Any]] = [found, *(found.get("ResourceSpecificResults") or ())]
    if any(
        (each.get("OrganizationsDecisionDetail") or {}).get("AllowedByOrganizations") is False
        for each in parts
    ):
        return Verdict(False, unsure="a policy of the organization may deny it")
    missing = {str(key) for each in parts for key in each.get("MissingContextValues") or ()}
    explicit = found.get("EvalDecision") == "explicitDeny"
    if missing:
        return Verdict(False, unsure=f"it depends on {', '.join(sorted(missing))}")
    if any(
        (each.get("PermissionsBoundaryDecisionDetail") or {}).get("AllowedByPermissionsBoundary") is False
        for each in parts
    ):
        return Verdict(False, why="the permissions boundary does not allow it")
    statements = (one for each in parts for one in each.get("MatchedStatements") or ())
    matched = list(dict.fromkeys(str(one.get("SourcePolicyId")) for one in statements))
    if explicit:
        return Verdict(False, why=f"denied explicitly by {', '.join(matched) or 'a policy'}", explicit=True)
    return Verdict(False, why="no policy allows it")


def layer(message: str) -> str:
    """The kind of policy that a message of AccessDenied blames; "" where that is the caller's own, or is not said."""
    found = _LAYER.search(message)
    if found is None:
        return ""
    name = (found.group(1) or found.group(2)).strip().lower()
    if name == "identity-based policy":
        return "an identity-based policy's explicit deny" if "explicit deny" in message else ""
    return f"the {name}"
