"""What an administrator has to do besides, and what a setup will cost: for stderr, beside what is printed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..errors import SmsshError
from . import cloudformation
from .model import literal
from .parts import SETTING, Setup

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..aws.session import AwsSession

__all__ = ["billable", "hybrid_nodes", "notes"]

_NAMED = 3


def notes(setup: Setup, forms: Iterable[str]) -> list[str]:
    """What the files do not do by themselves, one sentence each."""
    plan, forms = setup.plan, set(forms)
    owned = plan.owner.name != "caller"
    found = []
    if setup.role is not None:
        arn = literal(plan.partition, plan.account or "ACCOUNT")(plan.node_role.arn)
        found.append(f"submit jobs with SSHOptions(role={arn!r}), so that their nodes get that role")
    if "job" in setup.parts:
        found.append(
            f"set {plan.owner.to_set} where jobs are submitted: a job without that owner is refused a node"
            + (
                f"; with SMSSH_OWNER_SCHEME={plan.owner.name} a request without one is an error"
                if owned
                else ""
            )
        )
        if plan.owner.needs != "nothing":
            found.append(f"the owner scheme {plan.owner.name} needs {plan.owner.needs}".replace("`", ""))
        if setup.job_trust is not None:
            found.append(
                f"add {plan.owner.trust_action} to the trust policy of each job's role by hand: smssh changes no trust "
                "policy" + (f"; the statement is {json.dumps(setup.job_trust)}" if "apply" in forms else "")
            )
        if not plan.job_roles:
            found.append(f"attach {plan.name}-job to the roles of jobs, or name them with --job-role")
        elif forms == {"json"}:
            named = ", ".join(each.name for each in plan.job_roles)
            found.append(f"attach {plan.name}-job to {named} by hand: JSON attaches nothing")
    found += [
        f"roles made by SageMaker's console have a path: is it service-role/{role.name}?"
        for role in plan.job_roles
        if role.path == "/" and role.name.startswith("AmazonSageMaker-ExecutionRole-")
    ]
    if "scp" in setup.parts and forms - {"json"}:
        found.append("the service control policy has no resource: attach its JSON in the management account")
    if (
        setup.tier
        and forms & {"cloudformation", "cdk"}
        and not cloudformation.setting_is_supported(plan.partition)
    ):
        found.append(
            f"CloudFormation cannot switch the tier on in {plan.partition}: run `aws ssm update-service-setting "
            f"--setting-id {SETTING['SettingId']} --setting-value {SETTING['SettingValue']}` in each region"
        )
    if "document" in setup.parts:
        name, _ = setup.session_document or ("", {})
        found.append(
            f"set SMSSH_SSH_DOCUMENT={name}, or smssh_ssh_document in the profile, to log in with the session document"
        )
    if setup.role is not None and forms & {"cloudformation", "cdk"}:
        found.append("deploy the template with --capabilities CAPABILITY_NAMED_IAM")
    return found


def billable(aws: AwsSession) -> str:
    """How many hybrid nodes the advanced tier makes billable, in a sentence; or why that is not known."""
    try:
        region = aws.region
        every, others = hybrid_nodes(aws)
    except SmsshError as error:
        return f"cannot tell which hybrid nodes the advanced tier makes billable: {error.message}"
    text = f"the advanced tier makes every hybrid node of {region} billable by the hour: {len(every)} now"
    if others:
        named = ", ".join(others[:_NAMED]) + (", ..." if len(others) > _NAMED else "")
        text += f", {len(others)} of them not of smssh ({named})"
    return text


def hybrid_nodes(aws: AwsSession) -> tuple[list[str], list[str]]:
    """The ids of all hybrid nodes, and of those among them that are not of smssh.

    Two listings: "Tag filters can't be combined with other filter types" (DescribeInstanceInformation's reference).

    Raises:
        SmsshError: they cannot be listed.
    """
    every = _nodes(aws, "ResourceType", "ManagedInstance")
    ours = set(_nodes(aws, "tag-key", "SMSSH")) if every else set()
    return every, [each for each in every if each not in ours]


def _nodes(aws: AwsSession, key: str, value: str) -> list[str]:
    pages = aws.pages(
        "ssm", "describe_instance_information", Filters=[{"Key": key, "Values": [value]}], MaxResults=50
    )
    return [str(info["InstanceId"]) for page in pages for info in page.get("InstanceInformationList", ())]
