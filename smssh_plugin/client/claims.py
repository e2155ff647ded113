"""Which of the online nodes that claim to be a host of a job is the host's.

Tags are not proof: what SageMaker says of the job decides, and where that leaves several nodes, none is entered.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from ..errors import ExitStatus, SmsshError
from .job_names import StepJob, known, nodes_of_steps
from .job_state import DESCRIBE, STARTING, check_host, described_job, role_of_request
from .managed_nodes import Node, checked_owner, living_nodes, node_of, registered, role_names

if TYPE_CHECKING:
    from ..aws.session import AwsSession

__all__ = [
    "claims",
    "confirmed",
    "only_claim",
]


def confirmed(aws: AwsSession, node: Node) -> Node:
    """A node that was found by its state or its step, held to what `resolve` holds an address to, and to the job.

    Automation that takes orders from tags (`SMSSHState=held`) enters nothing that a job merely claims to be.

    Raises:
        SmsshError: REFUSED: other online nodes claim the same host, it has another role than the request names, or
            another owner than this client does; NOT_FOUND: the job has no such host; UNREACHABLE: it went offline.
    """
    job = StepJob((node.job,), node.kind, "")
    described = _permitted(aws, job)
    if described is not None:
        check_host(described, node.kind, node.job, node.host)
    living, _ = claims(aws, job, node.host)
    own = next((info for info, found in living if found.target == node.target), None)
    if own is None:
        raise SmsshError(
            f"{node.address} ({node.target}) is not online any more",
            reference="no-node",
            status=ExitStatus.UNREACHABLE,
            check=f"--job {node.address}",
        )
    role = role_of_request(described or {})
    if role and own.get("IamRole") not in role_names(role):
        raise SmsshError(
            f"{node.target} claims to be {node.address}, and has the role {own.get('IamRole') or 'unknown'!r}: the "
            f"job's request names {role!r}",
            reference="another-role",
            status=ExitStatus.REFUSED,
            check=f"--job {node.address}",
        )
    if len(living) > 1 and (chosen := only_claim(aws, job, node.host, living)).target != node.target:
        raise SmsshError(
            f"{node.target} claims to be {node.address}, which is {chosen.target}",
            reference="several-nodes",
            status=ExitStatus.REFUSED,
            check=f"--job {node.address}",
        )
    return checked_owner(node)


def claims(aws: AwsSession, job: StepJob, host: str) -> tuple[list[tuple[dict[str, Any], Node]], bool]:
    """The online nodes that claim to be a host of a job, newest first, and whether there is one that is over.

    A node is Online for minutes after its container's end.
    """
    filters = [
        {"Key": "tag:SMSSHJob", "Values": list(job.names)},
        {"Key": "tag:SMSSHKind", "Values": [job.kind]},
        {"Key": "tag:SMSSHHost", "Values": [host]},
    ]
    online = sorted(living_nodes(aws, filters), key=registered) or _folded(aws, job, host)
    nodes = [(info, node) for info in reversed(online) if (node := node_of(aws, info)) is not None]
    living = [(info, node) for info, node in nodes if node.state != "ended"]
    return living, bool(nodes)


def only_claim(aws: AwsSession, job: StepJob, host: str, found: list[tuple[dict[str, Any], Node]]) -> Node:
    """The one of several online nodes that is the host's, by what SageMaker says of the job.

    Tags are not proof, and neither is age: a node counts as left by an earlier start of the container only where it
    was registered before SageMaker last began to start the job, and as foreign where the request names a role that
    it does not have.

    The person may name the node in SMSSH_NODE.

    Raises:
        SmsshError: REFUSED: that leaves several, or none.
    """
    chosen = os.environ.get("SMSSH_NODE", "").strip()
    for _, node in found:
        if node.target == chosen:
            return node
    described = next((one for name in job.names if (one := described_job(aws, job.kind, name))), None) or {}
    began = max(
        float(described.get("CreationTime") or 0.0),
        *(
            float(each.get("StartTime") or 0.0)
            for each in described.get("SecondaryStatusTransitions") or ()
            if each.get("Status") in STARTING
        ),
        0.0,
    )
    role = role_of_request(described)
    left = [
        (info, node)
        for info, node in found
        if registered(info) >= began and (not role or info.get("IamRole") in role_names(role))
    ]
    if len(left) == 1:
        return left[0][1]
    each = "; ".join(
        f"{node.target} (owner {node.owner or 'unknown'!r}, role {info.get('IamRole') or 'unknown'!r}, since "
        f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(registered(info)))})"
        for info, node in left or found
    )
    raise SmsshError(
        f"{len(left or found)} online nodes claim to be {host} of {job.kind} job {job.names[-1]!r}: {each}",
        hint="wait some minutes: one may be of a container that has ended; or, if you know which is yours, name it for "
        "this command with SMSSH_NODE=ID",
        reference="several-nodes",
        status=ExitStatus.REFUSED,
        check=f"--job {host}.{job.names[-1]}.{job.kind}.sagemaker",
    )


def _permitted(aws: AwsSession, job: StepJob) -> dict[str, Any] | None:
    """The job as the service describes it; None where this client may not see it, or the service has none of its kind.

    Raises:
        SmsshError: REFUSED: the service knows no such job, or by another name.
    """
    if job.kind not in DESCRIBE:
        return None
    name = job.names[0]
    try:
        described = described_job(aws, job.kind, name)
    except SmsshError as error:
        if error.reference != "access-denied":
            raise
        return None
    if described is None or described.get(DESCRIBE[job.kind][1]) != name:
        raise SmsshError(
            f"a node claims to be of the {job.kind} job {name!r}, which SageMaker does not know",
            reference="no-job",
            status=ExitStatus.REFUSED,
        )
    return described


def _folded(aws: AwsSession, job: StepJob, host: str) -> list[dict[str, Any]]:
    """The nodes of a step's job whose own name is not known, see `known`, by the step that they carry."""
    if known(job):
        return []
    filters = [{"Key": "tag:SMSSHKind", "Values": [job.kind]}, {"Key": "tag:SMSSHHost", "Values": [host]}]
    return sorted(nodes_of_steps(aws, [job], filters), key=registered)
