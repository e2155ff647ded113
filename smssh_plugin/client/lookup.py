"""From an address to the target of its container's sessions.

The number of API calls is constant, whatever the size of the account: the service filters by the tags that
the container's activation carries. A job address takes DescribeInstanceInformation and ListTagsForResource; a
pipeline address ListPipelineExecutions and ListPipelineExecutionSteps before them, which a first guess does
without, or with the first of them alone. Only where no managed node was found is the job described as well: for
SageMaker's own remote debugging, or to say why there is no node.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..aws.session import AwsSession
from ..errors import ExitStatus, SmsshError
from . import cache, known_hosts, native
from .addresses import DEFAULT_HOST, Address, StepAddress, parse
from .claims import claims, only_claim
from .executions import execution_arn, job_of_step
from .job_names import StepJob, listed_name
from .job_state import described_job
from .managed_nodes import Node, checked_owner, living, node_of
from .no_node import without_node
from .patience import NotYet, patiently

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "resolve",
    "switch_on",
]


def resolve(
    address: str | Address,
    aws: AwsSession | None = None,
    *,
    wait: float = 0.0,
    on_wait: Callable[[str], None] | None = None,
    cached: bool = False,
    without_server: bool = False,
) -> Node:
    """Find the node behind `address`.

    The host key that its container announced is remembered in the file that `ssh` reads (`known_hosts`).

    Args:
        address: what to find; the text or a parsed address. No host in it: algo-1.
        aws: the AWS session; by default one of the environment's region and credentials.
        wait: how long to wait, in seconds, for a job or step that has not started yet; 0: not at all.
        on_wait: is told, in a few words, what is waited for, each time that changes.
        cached: whether a guess will do, for who asks again if it is wrong: what was found within the last
            minute, or the host whose job is called as jobs of that execution are.
        without_server: whether a container without an SSH server will do.

    Raises:
        SmsshError: NOT_FOUND (no such job or step, it has ended or has not started), UNREACHABLE (no node is
            online), TIMEOUT (after `wait`), REFUSED (no access), USAGE (no address, no region).
    """
    wanted = parse(address) if isinstance(address, str) else address
    aws = aws or AwsSession()
    if cached:
        if (known := _remembered(wanted, aws)) is not None:
            return known
        if isinstance(wanted, StepAddress):
            arn, node = _guessed(wanted, aws)
            if node is not None:
                return _kept(wanted, aws, node)
            if arn is not None:
                return _found(
                    wanted,
                    replace(wanted, execution=arn),
                    aws,
                    wait,
                    on_wait,
                    without_server=without_server,
                )
    return _found(wanted, wanted, aws, wait, on_wait, without_server=without_server)


def switch_on(
    address: Address,
    aws: AwsSession,
    *,
    wait: float = 0.0,
    on_wait: Callable[[str], None] | None = None,
) -> str:
    """Switch SageMaker's remote debugging on in the training job that an address means.

    Args:
        address: the job or step.
        aws: the AWS session.
        wait: seconds to wait for a step that has no job yet, and for a job that is too young for it.
        on_wait: is told what is waited for.

    Returns:
        The name of the job.

    Raises:
        SmsshError: NOT_FOUND (no such job, a step that has none), USAGE (no training job), FAILED (SageMaker does
            not want to), TIMEOUT (after `wait`).
    """

    def attempt() -> str:
        job = _job_of(address, aws)
        if job.kind != "training":
            raise SmsshError(
                f"{address} is a {job.kind} job: SageMaker's remote debugging is for training jobs",
                hint="submit it with with_ssh, or with SMSSH_ENABLE=1 and an image that has smssh-plugin",
                reference="native-is-training-only",
                status=ExitStatus.USAGE,
            )
        name = listed_name(aws, job) or job.names[-1]
        try:
            native.enable(aws, name)
        except SmsshError as error:
            if error.reference == "not-enabled" and native.young(described_job(aws, job.kind, name) or {}):
                raise NotYet(error) from error
            raise
        return name

    return patiently(attempt, wait, on_wait)


def _found(
    address: Address,
    wanted: Address,
    aws: AwsSession,
    wait: float,
    on_wait: Callable[[str], None] | None,
    *,
    without_server: bool,
) -> Node:
    """Find the node of `wanted`, once or until the time is over, and keep it as that of `address`."""
    node = patiently(lambda: _find(wanted, aws, without_server=without_server), wait, on_wait)
    return _kept(address, aws, node)


def _kept(address: Address, aws: AwsSession, node: Node) -> Node:
    if node.port:
        known_hosts.remember(str(address), node.host_key)
        cache.remember(aws, str(address), node)
    return node


def _guessed(address: StepAddress, aws: AwsSession) -> tuple[str | None, Node | None]:
    """The host of a step by the name that pipelines give to jobs: `pipelines-<execution>-<step>-<random>`.

    A container whose activation does not carry the step, or whose job has a name of its own, is not found so.

    Returns:
        The ARN of the newest execution, if it had to be asked for; and the node.
    """
    arn = None if address.execution else execution_arn(aws, address.pipeline, None)
    execution = (arn or str(address.execution)).rpartition("/")[2]
    filters = [
        {"Key": "tag:SMSSHStep", "Values": [address.step]},
        {"Key": "tag:SMSSHHost", "Values": [address.host or DEFAULT_HOST]},
    ]
    # One page and no more: a name that many steps have is looked up in the other way.
    answer = aws.call("ssm", "describe_instance_information", Filters=filters, MaxResults=50)
    if answer.get("NextToken"):
        return arn, None
    start = f"pipelines-{execution}-".lower()
    online = [
        info
        for info in answer.get("InstanceInformationList", [])
        if living(info) and str(info.get("Name", "")).lower().startswith(start)
    ]
    nodes = [node for info in online if (node := node_of(aws, info)) is not None and node.state != "ended"]
    # Of several, what SageMaker says of the job decides; and a name alone makes no node the job's.
    if len(nodes) == 1 and nodes[0].port and nodes[0].job.lower().startswith(start):
        return arn, checked_owner(nodes[0])
    return arn, None


def _remembered(address: Address, aws: AwsSession) -> Node | None:
    """The node that was found a moment ago."""
    latest = isinstance(address, StepAddress) and address.execution is None
    found = cache.recall(aws, str(address), latest=latest)
    try:
        node = None if found is None else Node(**found)
    except TypeError:  # of another version
        return None
    if node is not None:
        known_hosts.remember(str(address), checked_owner(node).host_key)
    return node


def _job_of(address: Address, aws: AwsSession) -> StepJob:
    """The job that an address means.

    Raises:
        SmsshError: a step that has none (any more).
        NotYet: a step that may have one soon.
    """
    if isinstance(address, StepAddress):
        return job_of_step(address, aws)
    return StepJob((address.job,), address.kind, "")


def _find(address: Address, aws: AwsSession, *, without_server: bool) -> Node:
    """One attempt at finding the node."""
    job = _job_of(address, aws)
    host = address.host or DEFAULT_HOST
    living, over = claims(aws, job, host)
    if living:
        node = checked_owner(living[0][1] if len(living) == 1 else only_claim(aws, job, host, living))
        if not node.port and not without_server:
            raise SmsshError(
                f"node {node.target} says in its tags that it is {node.address}, and names no port of an SSH server",
                hint="see in the job's log whether smssh registered it; or use `smssh shell`",
                reference="bad-tags",
                status=ExitStatus.REFUSED,
            )
        return node
    return without_node(aws, job, host, without_server=without_server, over=over)
