"""The parts of a setup, what each consists of, and what is too large for IAM."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..aws.tier import ADVANCED, TIER
from ..errors import ExitStatus, SmsshError
from . import policies
from .model import Policy, Role, literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .plan import Plan

__all__ = ["PARTS", "SETTING", "Part", "Setup"]

SETTING = {"SettingId": TIER, "SettingValue": ADVANCED}
"""The advanced tier, as UpdateServiceSetting takes it."""
_IDLE_MINUTES, _SESSION_MINUTES = 60, 1440
"""The longest that Session Manager takes."""


@dataclass(frozen=True)
class Part:
    """A part of a setup.

    Attributes:
        who: who gets it, as Markdown.
        what: what it is, as Markdown.
        usual: whether it is there unless parts are named.
    """

    who: str
    what: str
    usual: bool = False


PARTS = {
    "node": Part("the managed nodes of all jobs", "a role of its own, which can only be logged in to", True),
    "job": Part("the roles of jobs", "a managed policy to attach to each", True),
    "submit": Part("people, pipelines and CI that submit", "a managed policy: storing the bundle", True),
    "people": Part("people and CI that log in or debug", "a managed policy", True),
    "ci": Part("the role of a CI, besides the two above", "a managed policy: running pipelines and jobs"),
    "cleanup": Part(
        "the person or role that cleans up",
        "a managed policy: removing what jobs left behind, and no other nodes",
    ),
    "costs": Part(
        "the person or role that looks at costs", "a managed policy: reading what `smssh costs` sums"
    ),
    "tier": Part(
        "the account, in one region",
        "the advanced-instances tier, which makes every hybrid node there billable",
    ),
    "document": Part(
        "the account, in one region",
        f"a session document of your own for SSH, which IAM can allow alone: a session may be idle for {_IDLE_MINUTES} "
        "minutes, and last a day",
    ),
    "boundary": Part("the roles of jobs", "a managed policy, as their permissions boundary"),
    "scp": Part(
        "the organization", "a service control policy, as JSON only: it is for the management account"
    ),
}
"""By the name on the command line."""


class Setup:
    """The chosen parts of one plan.

    Args:
        plan: the answers.
        parts: names of PARTS, in any order.

    Raises:
        SmsshError: a part needs an answer that is not there, or a policy is larger than AWS takes.
    """

    def __init__(self, plan: Plan, parts: Iterable[str]) -> None:
        self.plan = plan
        chosen = set(parts)
        self.parts = [name for name in PARTS if name in chosen]
        if "ci" in chosen and not plan.job_roles:
            raise SmsshError(
                "the policy for CI must name the roles that it passes to SageMaker",
                hint="pass --job-role ROLE for each role of a job or a pipeline",
                reference="no-job-role",
                status=ExitStatus.USAGE,
            )
        self.role: Role | None = policies.node(plan) if "node" in chosen else None
        self.policies: dict[str, Policy] = {}
        """The policies, by part."""
        if "job" in chosen:
            self.policies["job"] = policies.job(plan)
        if "submit" in chosen:
            self.policies["submit"] = policies.submit(plan)
        if "people" in chosen:
            self.policies["people"] = policies.people(plan, own_document="document" in chosen)
        if "ci" in chosen:
            self.policies["ci"] = policies.ci(plan)
        if "cleanup" in chosen:
            self.policies["cleanup"] = policies.cleanup(plan)
        if "costs" in chosen:
            self.policies["costs"] = policies.costs(plan)
        if "boundary" in chosen:
            self.policies["boundary"] = policies.boundary(plan)
        if "scp" in chosen:
            self.policies["scp"] = policies.guardrails(plan)
        for policy in [*self.policies.values(), *([self.role.policy] if self.role else [])]:
            _fits(policy, plan)

    @property
    def managed(self) -> dict[str, Policy]:
        """The policies that are resources of the account."""
        return {part: policy for part, policy in self.policies.items() if part != "scp"}

    @property
    def tier(self) -> bool:
        """Whether the advanced-instances tier is switched on."""
        return "tier" in self.parts

    @property
    def session_document(self) -> tuple[str, dict[str, Any]] | None:
        """The name and the content of a session document of one's own, if it is wanted."""
        if "document" not in self.parts:
            return None
        port = "^([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$"
        content = {
            "schemaVersion": "1.0",
            "description": "SSH to the containers of SageMaker jobs, by smssh.",
            "sessionType": "Port",
            "inputs": {
                "idleSessionTimeout": str(_IDLE_MINUTES),
                "maxSessionDuration": str(_SESSION_MINUTES),
            },
            "parameters": {
                "portNumber": {
                    "type": "String",
                    "description": "The port of the SSH server in the container.",
                    "allowedPattern": port,
                }
            },
            "properties": {"portNumber": "{{ portNumber }}"},
        }
        return policies.session_document(self.plan), content

    @property
    def job_trust(self) -> dict[str, Any] | None:
        """The statement that the trust policy of a job's role needs, where the owner comes from the session."""
        action = self.plan.owner.trust_action
        if "job" not in self.parts or not action:
            return None
        return {
            "Sid": "OwnerOfJobs",
            "Effect": "Allow",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Action": ["sts:AssumeRole", action],
        }


def _fits(policy: Policy, plan: Plan) -> None:
    """Refuse a policy that AWS would refuse, which does not count the white space between tokens."""
    document = policy.document(literal(plan.partition, plan.account or "0" * 12))
    size = len(json.dumps(document, separators=(",", ":")))
    if size > policy.limit:
        raise SmsshError(
            f"{policy.name} would have {size:,} characters, and {policy.kind} may have {policy.limit:,}",
            hint="name fewer roles, keys, topics and logs, or run `smssh setup` for each group of them with a --name",
            reference="policy-too-large",
            status=ExitStatus.USAGE,
        )
