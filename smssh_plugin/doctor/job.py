"""Why a job cannot be entered: from the job itself to its node, in the order in which things happen."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from ..aws import identity_calls
from ..aws.session import AwsSession, ServiceRefused
from ..client import known_hosts, managed_nodes, native
from ..client.addresses import JobAddress, parse
from ..client.claims import claims, only_claim
from ..client.job_state import (
    DESCRIBE,
    ENDED,
    ENDING,
    STARTING,
    check_host,
    described_job,
    role_of_request,
    submitted_with_smssh,
)
from ..debug.logs import tail
from ..durations import format_duration
from ..errors import SmsshError
from . import simulation, trust
from .checks import Check, Finding, hint, ok, problem, unknown

if TYPE_CHECKING:
    from .case import Case, Job

__all__ = ["CHECKS", "in_use"]

SUBMITTER = "the person who submits the job"
ADMINISTRATOR = "an administrator of the account"
REGISTER_SECONDS = 180.0
"""A host is online within a minute; the image may have to get Amazon's agent first."""
LOG_LINES = 200
SHOWN_LINES = 3
LINE = 500
"""Characters of one."""
NOT_FOUND = ("no-job", "no-pipeline", "no-execution", "no-step", "step-without-job", "no-host")


def exists(case: Case) -> Finding:
    """Whether there is such a job, of which kind."""
    try:
        job = case.job()
        check_host(job.described, job.kind, job.name, job.host)
    except SmsshError as error:
        if error.reference == "step-ended":
            return problem(error.message, fix=error.hint or "start it again", who=SUBMITTER)
        if error.reference in ("step-not-started", "no-node"):
            return hint(error.message, fix=error.hint or "wait for it")
        if error.reference not in NOT_FOUND:
            raise
        where = _elsewhere(case)
        if where:
            return problem(
                f"{case.job_name} is not in {case.aws.region}, but in {where}",
                fix=f"use --region {where}",
            )
        return problem(error.message, fix=error.hint or "check the name")
    return ok(f"{job.kind} job {job.name} is there", f"status: {job.status}")


def _elsewhere(case: Case) -> str:
    """Another region that this machine names, and that has a job of this name; "" if no region has one."""
    name = str(case.job_name)
    if "." in name:
        address = parse(name)
        if not isinstance(address, JobAddress):
            return ""
        name = address.job
    places = {
        os.environ.get("AWS_REGION"),
        os.environ.get("AWS_DEFAULT_REGION"),
        case.aws.profile.get("region"),
    }
    for region in sorted(filter(None, places - {case.aws.region})):
        other = AwsSession(region, case.aws.profile.name if case.aws.profile.explicit else None)
        try:
            if any(described_job(other, kind, name) for kind in DESCRIBE):
                return region
        except SmsshError:
            continue
    return ""


def state(case: Case) -> Finding:
    """Whether its container can be there now."""
    job = case.job()
    phase = str(job.described.get("SecondaryStatus") or "")
    if job.status in ENDED:
        why = str(job.described.get("FailureReason") or "").splitlines()[:1]
        keep = "submit it with a hold, which keeps the container of a job that fails: with_ssh(step, hold='failure')"
        return problem(
            f"{job.kind} job {job.name} has ended ({job.status}): its container is gone",
            *why,
            fix=keep if job.status == "Failed" else "submit it again",
            who=SUBMITTER,
        )
    if job.status == "Stopping" or phase in ENDING:
        return problem(
            f"{job.kind} job {job.name} is ending ({phase or job.status}): its container is gone",
            fix="submit it again",
            who=SUBMITTER,
        )
    if phase in STARTING:
        return hint(f"{job.kind} job {job.name} is {phase}: it has no container yet", fix="wait for it")
    return ok(f"{job.kind} job {job.name} is {phase or job.status}")


def request(case: Case) -> Finding:
    """Whether it was submitted with smssh."""
    job = case.job()
    if job.native:
        return ok("SageMaker's remote debugging is on: it can be entered without smssh")
    environment = job.described.get("Environment") or {}
    if submitted_with_smssh(case.aws, job.kind, job.described):
        return ok("its request has smssh in it")
    off = environment.get("SMSSH_ENABLE")
    if off is not None:
        return problem(
            f"its request has SMSSH_ENABLE={off}: smssh is switched off",
            fix="submit it with SMSSH_ENABLE=1",
            who=SUBMITTER,
        )
    return problem(
        f"{job.kind} job {job.name} was submitted without smssh",
        fix=f"run `smssh remote-debug {job.name}`, which lets you in without it"
        if job.kind == "training"
        else "submit it with with_ssh, or with SMSSH_ENABLE=1 and an image that has smssh-plugin",
        who="you" if job.kind == "training" else SUBMITTER,
    )


def network(case: Case) -> Finding:
    """Whether its container can reach AWS."""
    job = case.job()
    config = job.described.get("NetworkConfig") or job.described
    if config.get("EnableNetworkIsolation"):
        return problem(
            f"{job.kind} job {job.name} has network isolation: its container reaches nothing, and nothing reaches it",
            fix="submit it without EnableNetworkIsolation",
            who=SUBMITTER,
        )
    vpc = config.get("VpcConfig")
    if vpc and in_use(case):
        return ok("it runs in a VPC, and its host is online")
    if vpc:
        subnets = ", ".join(map(str, vpc.get("Subnets") or ()))
        region = case.aws.region
        return hint(
            f"it runs in a VPC ({subnets}): without a way to the internet, that needs endpoints",
            f"interface endpoints com.amazonaws.{region}.ssm and com.amazonaws.{region}.ssmmessages, with private DNS; "
            f"gateway endpoint com.amazonaws.{region}.s3",
            f"security groups of the job: {', '.join(map(str, vpc.get('SecurityGroupIds') or ()))}; 443 out to the "
            "endpoints, and 443 in at theirs",
            fix="if its host does not come online, check those",
            who=ADMINISTRATOR,
        )
    return ok("its container has SageMaker's own way to the internet")


def role(case: Case) -> Finding:
    """The role of its nodes: that it is there, and that Systems Manager may use it."""
    job = case.job()
    if job.native:
        return ok("SageMaker's remote debugging takes no role for a node")
    name = _node_role(case)
    if not name:
        return unknown(
            f"{job.kind} job {job.name} does not name the role of its nodes",
            fix="see SMSSH_ROLE of its model",
        )
    short = managed_nodes.role_names(name)[-1]
    if in_use(case):
        return ok(f"its host is online with the role {in_use(case)}")
    caller = case.caller()
    if _account(name) not in ("", caller.account):
        return problem(
            f"its request names a role of account {_account(name)} for its nodes, and runs in {caller.account}: a node "
            "can have a role of its own account only",
            fix=f"submit it with a role of {caller.account}",
            who=SUBMITTER,
        )
    try:
        answer = identity_calls.call(case.aws, "iam", "get_role", RoleName=short)
    except ServiceRefused as error:
        if error.code != "NoSuchEntity":
            raise
        return problem(
            f"there is no role {short}, which its nodes are to have",
            fix="submit it with a role that exists",
            who=SUBMITTER,
        )
    right = f"{answer['Role'].get('Path') or '/'}{short}"[1:]
    if managed_nodes.role_names(name)[0] != right:
        return problem(
            f"its request names the role {managed_nodes.role_names(name)[0]}, and the role is {right}: Systems Manager "
            "finds a role by its path and name",
            fix=f"submit it with SSHOptions(role={right!r}), or SMSSH_ROLE={right}",
            who=SUBMITTER,
        )
    found = trust.trust(
        answer["Role"]["AssumeRolePolicyDocument"], caller.partition, caller.account, case.aws.region
    )
    wanted = trust.statement(caller.partition, caller.account, case.aws.region)
    if found.trusted is None:
        return unknown(
            f"cannot tell whether Systems Manager may use the role {short}: {found.why}",
            fix="see its trust policy",
            who=ADMINISTRATOR,
            statement=wanted,
        )
    if not found.trusted:
        return problem(
            f"Systems Manager may not use the role {short}: {found.why}",
            fix="add the statement to the role's trust policy, beside those that are there",
            who=ADMINISTRATOR,
            statement=wanted,
        )
    return ok(f"Systems Manager may use the role {short}")


def role_permissions(case: Case) -> Finding:
    """Whether the job's role may register a node."""
    job = case.job()
    if job.native:
        return ok("SageMaker's remote debugging registers no node")
    if in_use(case):
        return ok("its host has registered")
    own, nodes = _job_role(case), _node_role(case)
    if not own:
        return unknown(f"{job.kind} job {job.name} does not name its role", fix="see the model that it uses")
    if not nodes.startswith("arn:"):
        nodes = f"{own.rpartition(':role/')[0]}:role/{nodes}"
    asked: tuple[tuple[str, str, dict[str, str]], ...] = (
        ("ssm:CreateActivation", "*", {}),
        ("iam:PassRole", nodes, {"iam:PassedToService": trust.SERVICE}),
    )
    unsure = []
    for action, resource, context in asked:
        verdict = simulation.simulate(case, own, action, resource, context)
        if verdict.allowed:
            continue
        if verdict.unsure:
            unsure.append(f"{action}: {verdict.unsure}")
            continue
        statement: dict[str, Any] = {"Effect": "Allow", "Action": action, "Resource": resource}
        if context:
            statement["Condition"] = {"StringEquals": context}
        return problem(
            f"the job's role {managed_nodes.role_names(own)[-1]} may not {action}: {verdict.why}",
            fix="remove that denial"
            if verdict.explicit
            else "add the statement to that role's policies; `smssh setup --part job` "
            "prints all that it needs",
            who=ADMINISTRATOR,
            statement=None if verdict.explicit else statement,
        )
    if unsure:
        return unknown(
            f"cannot tell whether the job's role may register a node: {'; '.join(unsure)}", fix="see its log"
        )
    return ok(f"the job's role {managed_nodes.role_names(own)[-1]} may register a node")


def in_use(case: Case) -> str:
    """The role of the host's node, where that is online: what it takes to get there was allowed; "" else."""
    try:
        found = _registered(case)
    except SmsshError:  # another check's to say
        return ""
    return next((str(each.get("IamRole")) for each in found if each.get("PingStatus") == "Online"), "")


def _account(role_arn: str) -> str:
    return role_arn.split(":")[4] if role_arn.startswith("arn:") else ""


def _job_role(case: Case) -> str:
    """The ARN of the role that the job runs with; "" where that is not known."""
    job = case.job()
    found = str(job.described.get("RoleArn") or "")
    if found or job.kind != "transform":
        return found
    return str(_model(case).get("ExecutionRoleArn") or "")


def _node_role(case: Case) -> str:
    """The role, name or ARN, that the job's nodes are to have; "" where that is not known."""
    job = case.job()
    named = role_of_request(job.described)
    if named:
        return named
    if job.kind == "transform":
        model = _model(case)
        containers = [model.get("PrimaryContainer") or {}, *(model.get("Containers") or ())]
        named = next(
            (one for each in containers if (one := (each.get("Environment") or {}).get("SMSSH_ROLE"))), ""
        )
    return named or _job_role(case)


def _model(case: Case) -> dict[str, Any]:
    name = str(case.job().described.get("ModelName") or "")
    return case.once("model", lambda: case.aws.call("sagemaker", "describe_model", ModelName=name))


def node(case: Case) -> Finding:
    """Whether its host has registered as a managed node."""
    job = case.job()
    if job.native:
        phase = str(job.described.get("SecondaryStatus") or "")
        if phase not in ("", "Training"):
            return hint(
                f"SageMaker's remote debugging lets in while a job is Training; it is {phase}",
                fix="wait for it",
            )
        return ok("SageMaker's remote debugging needs no managed node")
    found = _registered(case)
    if found:
        return ok(f"{job.host} has registered as {', '.join(str(each['InstanceId']) for each in found)}")
    phase = str(job.described.get("SecondaryStatus") or "")
    if phase in STARTING:
        return hint(f"{job.host} has no managed node yet: the job is {phase}", fix="wait for it")
    since = time.time() - _running_since(job)
    if since < REGISTER_SECONDS:
        return hint(
            f"{job.host} has no managed node yet: the job has run for {format_duration(since)}",
            fix="wait some minutes",
        )
    said = _said(case)
    return problem(
        f"{job.host} of {job.kind} job {job.name} has not registered as a managed node, {format_duration(since)} after "
        "the job's start" + (f"; its log says: {said[-1]}" if said else ""),
        *said[:-1],
        # What the job prints is the job's: nothing that it asks for is advised here.
        fix="see these lines of the job's log, which anything in the job may have written"
        if said
        else "see the job's log for lines that begin with `smssh:`",
        who=SUBMITTER,
    )


def _registered(case: Case) -> list[dict[str, Any]]:
    """The nodes, online or not, that claim to be the host."""
    job = case.job()
    filters = [
        {"Key": "tag:SMSSHJob", "Values": list(dict.fromkeys([*job.job.names, job.name]))},
        {"Key": "tag:SMSSHKind", "Values": [job.kind]},
        {"Key": "tag:SMSSHHost", "Values": [job.host]},
    ]

    def ask() -> list[dict[str, Any]]:
        pages = case.aws.pages("ssm", "describe_instance_information", Filters=filters, MaxResults=50)
        return [each for page in pages for each in page.get("InstanceInformationList", [])]

    return case.once("registered", ask)


def _running_since(job: Job) -> float:
    """When the job's container started, or the job where that is not said; seconds since the epoch."""
    times = [
        each.get("StartTime")
        for each in job.described.get("SecondaryStatusTransitions") or ()
        if each.get("Status") == "Training"
    ]
    names = ("ProcessingStartTime", "TransformStartTime", "TrainingStartTime", "CreationTime")
    times += [job.described.get(name) for name in names]
    return float(next((each for each in times if each), time.time()))


def _said(case: Case) -> list[str]:
    """The last lines of smssh in the job's log that say what to do, or else its last line."""
    job = case.job()
    ours = [each for each in tail(case.aws, job.kind, job.name, LOG_LINES) if each.startswith("smssh: ")]
    chosen = ([each for each in ours if "hint:" in each] or ours)[-SHOWN_LINES:]
    return [each if len(each) <= LINE else f"{each[:LINE]}..." for each in chosen]


def ping(case: Case) -> Finding:
    """Whether its node is online, and its container not over."""
    job = case.job()
    found = _registered(case)
    if job.native or not found:
        return ok("there is no managed node to look at")
    online = [each for each in found if each.get("PingStatus") == "Online"]
    if not online:
        newest = max(found, key=managed_nodes.registered)
        last = newest.get("LastPingDateTime")
        when = f", last heard of {format_duration(time.time() - float(last))} ago" if last else ""
        return problem(
            f"{newest['InstanceId']} is {newest.get('PingStatus')}{when}: its agent does not reach Systems "
            "Manager, or its container has ended",
            fix="see the job's log; in a VPC, check the endpoints ssm and ssmmessages; check that the node's role "
            "allows ssm:UpdateInstanceInformation and ssmmessages:CreateControlChannel",
            who=ADMINISTRATOR,
            statement={
                "Effect": "Allow",
                "Action": [
                    "ssm:UpdateInstanceInformation",
                    "ssmmessages:CreateControlChannel",
                    "ssmmessages:CreateDataChannel",
                    "ssmmessages:OpenControlChannel",
                    "ssmmessages:OpenDataChannel",
                ],
                "Resource": "*",
            },
        )
    return ok(f"{', '.join(str(each['InstanceId']) for each in online)} is online")


def claimants(case: Case) -> Finding:
    """Whether one node, and no other, is the host."""
    job = case.job()
    if job.native:
        return ok("SageMaker itself says which host is meant")
    living, over = claims(case.aws, job.job, job.host)
    if not living:
        if _online_with_other_role(case):
            return problem(
                f"the node of {job.host} has the role {_online_with_other_role(case)}, and SMSSH_ROLE is "
                f"{os.environ.get('SMSSH_ROLE', '').strip()!r}",
                fix="correct SMSSH_ROLE, or unset it",
            )
        if over:
            return problem(
                f"the container of {job.host} has ended, and the job goes on",
                fix="wait: another may start",
                who="you",
            )
        return ok("there is no online node to look at")
    if len(living) == 1:
        chosen = living[0][1]
    else:
        try:
            chosen = only_claim(case.aws, job.job, job.host, living)
        except SmsshError as error:
            if error.reference != "several-nodes":
                raise
            return problem(error.message, fix=error.hint or "name one in SMSSH_NODE")
    info = next(info for info, one in living if one.target == chosen.target)
    wanted = role_of_request(job.described)
    if wanted and info.get("IamRole") not in managed_nodes.role_names(wanted):
        return problem(
            f"{chosen.target} claims to be {job.host}, and has the role {info.get('IamRole') or 'unknown'}: the job's "
            f"request names {wanted}",
            fix="do not enter it: find out who registered it",
            who=ADMINISTRATOR,
        )
    return ok(f"{chosen.target} is {job.host}")


def _online_with_other_role(case: Case) -> str:
    """The role of the host's online node, where SMSSH_ROLE names another one; "" else."""
    wanted = os.environ.get("SMSSH_ROLE", "").strip()
    roles = [str(each.get("IamRole")) for each in _registered(case) if each.get("PingStatus") == "Online"]
    names = managed_nodes.role_names(wanted) if wanted else roles
    return next((each for each in roles if each not in names), "")


def tags(case: Case) -> Finding:
    """Whether its node says all that a login needs, and belongs to the owner that is meant."""
    job = case.job()
    if job.native:
        found = native.announced(case.aws, job.described, job.host)
        if found is None:
            return hint(
                f"{job.host} has announced no SSH server",
                fix=f"use `smssh shell {job.host}.{job.name}.training.sagemaker`, which needs none",
            )
        key, address = str(found.get("host_key") or ""), f"{job.host}.{job.name}"
    else:
        living, _ = claims(case.aws, job.job, job.host)
        if not living:
            return ok("there is no online node to look at")
        one = living[0][1] if len(living) == 1 else only_claim(case.aws, job.job, job.host, living)
        try:
            managed_nodes.checked_owner(one)
        except SmsshError as error:
            return problem(error.message, fix=error.hint or "correct SMSSH_OWNER")
        key, address = one.host_key, one.address
    try:
        known_hosts.checked(key, address)
    except SmsshError as error:
        return problem(error.message, fix=error.hint or "see the job's log", who=SUBMITTER)
    return ok("its node says the port and the host key of its SSH server")


CHECKS = (
    Check("job.exists", "whether there is such a job or step, and host", exists, ("identity.credentials",)),
    Check("job.state", "whether it runs", state, ("job.exists",)),
    Check("job.request", "whether it was submitted with smssh", request, ("job.state",)),
    Check("job.network", "network isolation and VPC", network, ("job.request",)),
    Check("job.role", "the node's role and its trust policy", role, ("job.request",)),
    Check(
        "job.role-permissions",
        "whether the job's role may register a node",
        role_permissions,
        ("job.request",),
    ),
    Check(
        "job.node",
        "whether its host has registered",
        node,
        ("job.network", "job.role", "job.role-permissions"),
    ),
    Check("job.ping", "whether its node is online", ping, ("job.node",)),
    Check(
        "job.claimants",
        "whether one node alone claims to be it, with the right role",
        claimants,
        ("job.ping",),
    ),
    Check(
        "job.tags", "the owner, the port and the host key that its node announces", tags, ("job.claimants",)
    ),
)
