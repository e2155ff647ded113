"""A setup as JSON, for `aws iam create-policy`, the console, or other tools."""

from __future__ import annotations

from typing import Any

from .model import literal
from .parts import SETTING, Setup

__all__ = ["documents"]


def documents(setup: Setup) -> dict[str, Any]:
    """Every document of a setup by the name of its file, without `.json`. The plan must name the account."""
    form = literal(setup.plan.partition, setup.plan.account)
    found: dict[str, Any] = {}
    if setup.role is not None:
        found[f"{setup.role.name}-trust"] = setup.role.trust(form)
        found[f"{setup.role.name}-policy"] = setup.role.policy.document(form)
    for policy in setup.policies.values():
        found[policy.name] = policy.document(form)
    if setup.job_trust is not None:
        found[f"{setup.plan.name}-job-trust-statement"] = setup.job_trust
    if setup.tier:
        found["advanced-tier"] = SETTING
    if setup.session_document is not None:
        name, content = setup.session_document
        found[name] = content
    return found
