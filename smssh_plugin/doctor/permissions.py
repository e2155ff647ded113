"""What the caller may do: by IAM's own simulation where that is allowed, else by calls that change nothing."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..aws import identity_calls
from ..aws.session import ServiceRefused
from ..errors import SmsshError
from . import simulation
from .checks import Check, Finding, ok, problem, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from .case import Case

__all__ = ["CHECKS", "Need"]

ADMINISTRATOR = "an administrator of the account"
DOCUMENT = "document"
"""The session document of logins, in the place of a resource."""
SSH_DOCUMENT = "AWS-StartSSHSession"
NOBODY = "mi-00000000000000000"
"""A managed node that there is not."""


@dataclass(frozen=True)
class Need:
    """A permission that people need.

    Attributes:
        name: what its check is called.
        action: the IAM action.
        resource: its resource, with P, R and A for partition, region and account.
        sample: one such resource, for the simulation; "" where `resource` is one.
        purpose: what it is for.
        probe: a call that changes nothing and takes the same permission; None if there is no such call.
        narrowed: whether a policy may have good reasons to deny the probe: a condition on tags, or narrower resources.
    """

    name: str
    action: str
    resource: str
    purpose: str
    probe: Callable[[Case], object] | None = None
    narrowed: bool = True
    sample: str = ""


def _nodes(case: Case) -> object:
    return case.aws.call_once("ssm", "describe_instance_information", MaxResults=5)


def _tags(case: Case) -> object:
    return case.aws.call_once(
        "ssm", "list_tags_for_resource", ResourceType="ManagedInstance", ResourceId=NOBODY
    )


def _session(case: Case) -> object:
    document = case.aws.document("ssh", SSH_DOCUMENT)
    answer = case.aws.call_once("ssm", "start_session", Target=NOBODY, DocumentName=document)
    # There is no such node, so that no service opens a session; should one do, it is ended.
    return case.aws.call_once("ssm", "terminate_session", SessionId=answer["SessionId"])


def _terminate(case: Case) -> object:
    return case.aws.call_once("ssm", "terminate_session", SessionId=f"smssh-doctor-{uuid.uuid4().hex[:17]}")


def _describe(operation: str, key: str, case: Case) -> object:
    return case.aws.call_once("sagemaker", operation, **{key: f"smssh-doctor-{uuid.uuid4().hex[:12]}"})


def _executions(case: Case) -> object:
    return case.aws.call_once(
        "sagemaker", "list_pipeline_executions", PipelineName=f"smssh-doctor-{uuid.uuid4().hex[:12]}"
    )


NEEDS = (
    Need("find-hosts", "ssm:DescribeInstanceInformation", "*", "finding a host", _nodes, narrowed=False),
    Need(
        "read-hosts",
        "ssm:ListTagsForResource",
        "arn:P:ssm:R:A:managed-instance/mi-*",
        "its port and host key",
        _tags,
        sample=f"arn:P:ssm:R:A:managed-instance/{NOBODY}",
    ),
    Need(
        "start-session",
        "ssm:StartSession",
        "arn:P:ssm:R:A:managed-instance/mi-*",
        "logging in",
        _session,
        sample=f"arn:P:ssm:R:A:managed-instance/{NOBODY}",
    ),
    Need("use-document", "ssm:StartSession", DOCUMENT, "logging in: the document"),
    Need("open-channel", "ssmmessages:OpenDataChannel", "*", "the session's data channel", narrowed=False),
    Need("end-session", "ssm:TerminateSession", "*", "ending one's own session", _terminate),
    Need("resume-session", "ssm:ResumeSession", "*", "going on after a cut of the network"),
    Need(
        "describe-training",
        "sagemaker:DescribeTrainingJob",
        "arn:P:sagemaker:R:A:training-job/*",
        "waiting for a training job, and telling why there is no host",
        partial(_describe, "describe_training_job", "TrainingJobName"),
        sample="arn:P:sagemaker:R:A:training-job/smssh-doctor",
    ),
    Need(
        "describe-processing",
        "sagemaker:DescribeProcessingJob",
        "arn:P:sagemaker:R:A:processing-job/*",
        "the same for a processing job",
        partial(_describe, "describe_processing_job", "ProcessingJobName"),
        sample="arn:P:sagemaker:R:A:processing-job/smssh-doctor",
    ),
    Need(
        "describe-transform",
        "sagemaker:DescribeTransformJob",
        "arn:P:sagemaker:R:A:transform-job/*",
        "the same for a transform job",
        partial(_describe, "describe_transform_job", "TransformJobName"),
        sample="arn:P:sagemaker:R:A:transform-job/smssh-doctor",
    ),
    Need(
        "list-executions",
        "sagemaker:ListPipelineExecutions",
        "arn:P:sagemaker:R:A:pipeline/*",
        "addresses of pipeline steps",
        _executions,
        sample="arn:P:sagemaker:R:A:pipeline/smssh-doctor",
    ),
)


def _check(need: Need, case: Case) -> Finding:
    if case.caller().resource == ["root"]:
        return ok(f"{need.action} is allowed to the account's root user")
    statement = _statement(need, case)
    sample = _resource(need.sample or need.resource, case)
    try:
        verdict = _verdict(need, case, sample)
    except SmsshError as error:
        return _probed(need, case, statement, error)
    if verdict.allowed:
        return ok(f"{need.action} is allowed, for {need.purpose} (by IAM's simulation)")
    by_name = "" if verdict.explicit or need.sample == "" else _by_name(need)
    if verdict.unsure or by_name:
        return unknown(
            f"cannot tell whether {need.action} is allowed, for {need.purpose}: {verdict.unsure or by_name}",
            fix="try it; and if it is denied, add the statement to the caller's policies",
            statement=statement,
        )
    return problem(
        f"{need.action} is not allowed, for {need.purpose}: {verdict.why}",
        fix="remove that denial" if verdict.explicit else "add the statement to the caller's policies",
        who=ADMINISTRATOR,
        statement=None if verdict.explicit else statement,
    )


def _verdict(need: Need, case: Case, sample: str) -> simulation.Verdict:
    """What the simulation says, for hosts of SMSSH_OWNER if that is set."""
    principal, context = _principal(case), _context(need)
    found = simulation.simulate(case, principal, need.action, sample, context)
    if not context or found.allowed or found.explicit or found.unsure:
        return found
    # A policy may compare the owner with a name, tag or identity of the session, which the simulation does not know.
    without = simulation.simulate(case, principal, need.action, sample, {})
    if not without.unsure:
        return found
    return simulation.Verdict(
        False,
        unsure=f"{without.unsure}; in the simulation, hosts of {_owner()!r} (SMSSH_OWNER) are not let in",
    )


def _statement(need: Need, case: Case) -> dict[str, Any]:
    """The statement to add: for nothing but hosts and sessions that are meant, as `smssh setup` has it."""
    statement: dict[str, Any] = {
        "Effect": "Allow",
        "Action": need.action,
        "Resource": _resource(need.resource, case),
    }
    if need.action == "ssm:StartSession" and need.resource != DOCUMENT:
        # Else it would be for all servers of the account that Systems Manager manages.
        owner = _owner()
        statement["Condition"] = (
            {"StringEquals": {"ssm:resourceTag/SSHOwner": owner}}
            if owner
            else {"Null": {"ssm:resourceTag/SMSSH": "false"}}
        )
    elif need.action in ("ssm:TerminateSession", "ssm:ResumeSession"):
        own = {"ssm:resourceTag/aws:ssmmessages:session-id": "${aws:userid}"}
        statement["Condition"] = {"StringEquals": own}
    return statement


def _owner() -> str:
    return os.environ.get("SMSSH_OWNER", "").strip()


def _by_name(need: Need) -> str:
    """Why a denial of the sample says nothing of others: a policy may name jobs and pipelines, but no hosts."""
    return (
        "" if NOBODY in need.sample else f"it is not for {need.sample.rpartition(':')[2]}, which is made up"
    )


def _probed(need: Need, case: Case, statement: dict[str, Any], why: SmsshError) -> Finding:
    """What a call that changes nothing shows."""
    if why.reference == "access-denied":
        lacks = "needs iam:SimulatePrincipalPolicy (and iam:GetRole for a role)"
        fix, who = "allow that to the caller, or try it", ADMINISTRATOR
    else:  # throttled, a service that fails, or a caller that IAM does not simulate
        lacks, fix, who = why.message, "try it", "you"
    if need.probe is None:
        return unknown(
            f"cannot tell whether {need.action} is allowed, for {need.purpose}: {lacks}",
            why.message,
            fix=fix,
            who=who,
            statement=statement,
        )
    try:
        need.probe(case)
    except ServiceRefused as error:
        if error.passing:
            raise  # throttled, or a service that fails: that says nothing of permissions
        # It was allowed, and there is nothing of that name.
    except SmsshError as error:
        if error.reference != "access-denied":
            raise
        if need.narrowed and "explicit deny" not in error.message:
            return unknown(
                f"cannot tell whether {need.action} is allowed, for {need.purpose}: it is denied for what does not "
                f"exist, which a condition or narrower resources do as well; {lacks}",
                error.message,
                fix=fix,
                who=who,
                statement=statement,
            )
        layer = simulation.layer(error.message)
        return problem(
            f"{need.action} is denied, for {need.purpose}" + (f", by {layer}" if layer else ""),
            error.message,
            fix=f"change {layer}" if layer else "add the statement to the caller's policies",
            who="an administrator of the organization" if "control policy" in layer else ADMINISTRATOR,
            statement=None if layer else statement,
        )
    return ok(f"{need.action} is allowed, for {need.purpose} (by a call that changes nothing)")


def _principal(case: Case) -> str:
    """The ARN by which IAM simulates the caller.

    Raises:
        SmsshError: it may not be asked for, or the caller is nobody that IAM simulates.
    """

    def ask() -> str:
        caller = case.caller()
        kind, *rest = caller.resource
        if kind == "user":
            return caller.arn
        if kind == "assumed-role":
            # With its path, which an assumed role's ARN has not.
            return str(identity_calls.call(case.aws, "iam", "get_role", RoleName=rest[0])["Role"]["Arn"])
        raise SmsshError(f"IAM does not simulate {caller.arn}", reference="not-simulated")

    return case.once("principal", ask)


def _resource(pattern: str, case: Case) -> str:
    if pattern == "*":
        return "*"
    caller = case.caller()
    if pattern == DOCUMENT:
        name = case.aws.document("ssh", SSH_DOCUMENT)
        if name.startswith("arn:"):
            return name
        # Those of AWS belong to no account.
        pattern = f"arn:P:ssm:R:{'' if name.startswith('AWS-') else 'A'}:document/{name}"
    parts = pattern.split(":", 5)
    values = {"P": caller.partition, "R": case.aws.region, "A": caller.account}
    return ":".join([*(values.get(part, part) for part in parts[:5]), parts[5]])


def _context(need: Need) -> dict[str, str]:
    owner = _owner()
    if not owner or "managed-instance" not in need.resource:
        return {}
    return {"ssm:resourceTag/SSHOwner": owner, "aws:ResourceTag/SSHOwner": owner}


CHECKS = tuple(
    Check(
        f"permissions.{need.name}",
        f"`{need.action}`: {need.purpose}",
        partial(_check, need),
        ("identity.credentials",),
    )
    for need in NEEDS
)
