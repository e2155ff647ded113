"""From an address to the target of its container's sessions.

The number of API calls is constant, whatever the size of the account: the service filters by the tags that
the container's activation carries. A job address takes DescribeInstanceInformation and ListTagsForResource; a
pipeline address ListPipelineExecutions and ListPipelineExecutionSteps before them, which a first guess does
without, or with the first of them alone. Only where no managed node was found is the job described as well: for
SageMaker's own remote debugging, or to say why there is none.
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from ..aws.session import AwsSession, ServiceRefused
from ..definitions import named_steps
from ..errors import ExitStatus, SmsshError
from . import cache, known_hosts, native
from .addresses import DEFAULT_HOST, Address, JobAddress, StepAddress, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "Node",
    "StepJob",
    "confirmed",
    "conflicts",
    "describe_step",
    "execution_arn",
    "execution_part",
    "job_state",
    "known",
    "list_nodes",
    "living_nodes",
    "no_pipeline",
    "node_of",
    "own_names",
    "resolve",
    "steps_of",
    "switch_on",
]

T = TypeVar("T")

POLL_FIRST_SECONDS = 0.5
POLL_LONGEST_SECONDS = 5.0
TAG_THREADS = 8
NAMES_A_FILTER = 50
"""Values of one filter of DescribeInstanceInformation, at most."""

RESTART_SECONDS = 60.0
"""How long a job is waited for whose container has ended: on spot instances another one may start."""

_ENDED = frozenset({"Completed", "Failed", "Stopped"})
_ENDING = frozenset({"Uploading", "Stopping", "MaxRuntimeExceeded", "MaxWaitTimeExceeded", *_ENDED})
"""Secondary states of a training job without a container."""
_STARTING = frozenset(
    {
        "Starting",
        "Pending",
        "LaunchingMLInstances",
        "PreparingTrainingStack",
        "Downloading",
        "DownloadingTrainingImage",
        "Interrupted",
        "Restarting",
    }
)
"""Secondary states of a training job whose container has yet to start, or to start again."""
# API operation, and the name of its answer's status field, by kind.
_DESCRIBE = {
    "training": ("describe_training_job", "TrainingJobName", "TrainingJobStatus"),
    "processing": ("describe_processing_job", "ProcessingJobName", "ProcessingJobStatus"),
    "transform": ("describe_transform_job", "TransformJobName", "TransformJobStatus"),
}
# API operation, and the names of its answer's list and of the job's name there, by kind.
_LIST = {
    "training": ("list_training_jobs", "TrainingJobSummaries", "TrainingJobName"),
    "processing": ("list_processing_jobs", "ProcessingJobSummaries", "ProcessingJobName"),
    "transform": ("list_transform_jobs", "TransformJobSummaries", "TransformJobName"),
}
_METADATA_KINDS = {"TrainingJob": "training", "ProcessingJob": "processing", "TransformJob": "transform"}


@dataclass(frozen=True)
class Node:
    """A container that can be reached, as its managed node describes it.

    Attributes:
        target: the target of StartSession: the managed node's id, `mi-...`, or
            `sagemaker-training-job:JOB_HOST`.
        job: the name of the job.
        kind: training, processing, transform, ...
        host: `algo-1`, `algo-2`, ...
        step: the pipeline step, where the container was told.
        state: ready, held, running, released or ended; None where the container could not set it.
        port: the loopback port of the container's SSH server; 0 where it has none.
        user: whom to log in as.
        host_key: the SSH host key, `ssh-ed25519 AAAA...`; "" where none was announced (login is refused
            then).
        ping_status: Online, ConnectionLost or Inactive.
        created: seconds since the epoch when the node was made; 0.0 where unknown.
        owner: the SSHOwner tag; "" where there is none.
        control_port: the port of the same server for what does not count as a person; 0 where it has none.
    """

    target: str
    job: str
    kind: str
    host: str
    step: str | None
    state: str | None
    port: int
    user: str
    host_key: str
    ping_status: str
    created: float = 0.0
    owner: str = ""
    control_port: int = 0

    @property
    def address(self) -> str:
        """The address of this host."""
        return str(JobAddress(self.host, self.job, self.kind))


@dataclass(frozen=True)
class StepJob:
    """The job that runs a pipeline step.

    Attributes:
        names: the names the job can have; ARNs may be in lower case where the job's name is not.
        kind: training, processing or transform.
        step: the name of the step.
    """

    names: tuple[str, ...]
    kind: str
    step: str


class _NotYet(Exception):  # noqa: N818 - control flow inside resolve
    """Nothing to connect to now, but there may be soon; `error` is what to say if there is no more time.

    Args:
        error: see above.
        patience: seconds from the first look after which it will not come any more.
    """

    def __init__(self, error: SmsshError, patience: float = math.inf) -> None:
        super().__init__(str(error))
        self.error = error
        self.patience = patience


def resolve(
    address: str | Address,
    session: AwsSession | None = None,
    *,
    wait: float = 0.0,
    on_wait: Callable[[str], None] | None = None,
    remembered: bool = False,
    bare: bool = False,
) -> Node:
    """Find the node behind `address`.

    The host key that its container announced is remembered, for `KnownHostsCommand`.

    Args:
        address: what to find; the text or a parsed address. No host in it: algo-1.
        session: the AWS session; by default one of the environment's region and credentials.
        wait: how long to wait, in seconds, for a job or step that has not started yet; 0: not at all.
        on_wait: is told, in a few words, what is waited for, each time that changes.
        remembered: whether a guess will do, for who asks again if it is wrong: what was found within the last
            minute, or the host whose job is called as jobs of that execution are.
        bare: whether a container without an SSH server will do.

    Raises:
        SmsshError: NOT_FOUND (no such job or step, it has ended or has not started), UNREACHABLE (no node is
            online), TIMEOUT (after `wait`), REFUSED (no access), USAGE (no address, no region).
    """
    wanted = parse(address) if isinstance(address, str) else address
    session = session or AwsSession()
    if remembered:
        if (known := _remembered(wanted, session)) is not None:
            return known
        if isinstance(wanted, StepAddress):
            arn, node = _guessed(wanted, session)
            if node is not None:
                return _kept(wanted, session, node)
            if arn is not None:
                return _found(wanted, replace(wanted, execution=arn), session, wait, on_wait, bare=bare)
    return _found(wanted, wanted, session, wait, on_wait, bare=bare)


def _found(
    address: Address,
    wanted: Address,
    session: AwsSession,
    wait: float,
    on_wait: Callable[[str], None] | None,
    *,
    bare: bool,
) -> Node:
    """Find the node of `wanted`, once or until the time is over, and keep it as that of `address`."""
    node = _patiently(lambda: _find(wanted, session, bare=bare), wait, on_wait)
    return _kept(address, session, node)


def _patiently(attempt: Callable[[], T], wait: float, on_wait: Callable[[str], None] | None) -> T:
    """What `attempt` answers, made once or until the time is over; its `_NotYet` becomes the error in it."""
    began = time.monotonic()
    pause = POLL_FIRST_SECONDS
    said = None
    while True:
        try:
            return attempt()
        except _NotYet as not_yet:  # noqa: PERF203 - it waits anyway
            left = began + min(wait, not_yet.patience) - time.monotonic()
            if left <= 0:
                if wait > 0:
                    not_yet.error.status = ExitStatus.TIMEOUT
                raise not_yet.error from None
            if on_wait is not None and not_yet.error.message != said:
                said = not_yet.error.message
                on_wait(said)
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, POLL_LONGEST_SECONDS)


def _kept(address: Address, session: AwsSession, node: Node) -> Node:
    if node.port:
        known_hosts.remember(str(address), node.host_key)
        cache.remember(session, str(address), node)
    return node


def _guessed(address: StepAddress, session: AwsSession) -> tuple[str | None, Node | None]:
    """The host of a step by the name that pipelines give to jobs: `pipelines-<execution>-<step>-<random>`.

    A container whose activation does not carry the step, or whose job has a name of its own, is not found so.

    Returns:
        The ARN of the newest execution, if it had to be asked for; and the node.
    """
    arn = None if address.execution else execution_arn(session, address.pipeline, None)
    execution = (arn or str(address.execution)).rpartition("/")[2]
    filters = [
        {"Key": "tag:SMSSHStep", "Values": [address.step]},
        {"Key": "tag:SMSSHHost", "Values": [address.host or DEFAULT_HOST]},
    ]
    # One page and no more: a name that many steps have is looked up in the other way.
    answer = session.call("ssm", "describe_instance_information", Filters=filters, MaxResults=50)
    if answer.get("NextToken"):
        return arn, None
    start = f"pipelines-{execution}-".lower()
    online = [
        info
        for info in answer.get("InstanceInformationList", [])
        if _online(info) and _of_role(info) and str(info.get("Name", "")).lower().startswith(start)
    ]
    nodes = [
        node for info in online if (node := node_of(session, info)) is not None and node.state != "ended"
    ]
    # Of several, what SageMaker says of the job decides; and a name alone makes no node the job's.
    if len(nodes) == 1 and nodes[0].job.lower().startswith(start):
        return arn, _checked_owner(nodes[0])
    return arn, None


def _remembered(address: Address, session: AwsSession) -> Node | None:
    """The node that was found a moment ago."""
    latest = isinstance(address, StepAddress) and address.execution is None
    found = cache.recall(session, str(address), latest=latest)
    try:
        node = None if found is None else Node(**found)
    except TypeError:  # of another version
        return None
    if node is not None:
        known_hosts.remember(str(address), _checked_owner(node).host_key)
    return node


def list_nodes(session: AwsSession, *, everything: bool = False, owner: str | None = None) -> list[Node]:
    """All nodes of this account and region that carry our tags, newest first.

    Args:
        session: the AWS session.
        everything: also those that are not online (ended jobs that were not deregistered).
        owner: only those whose SSHOwner tag is this.
    """
    filters = [{"Key": "tag-key", "Values": ["SMSSH", "SMSSHJob"]}]
    if owner is not None:
        filters.append({"Key": "tag:SSHOwner", "Values": [owner]})
    # Here, not above: only `smssh list` needs threads, and every login imports this module.
    from concurrent.futures import ThreadPoolExecutor

    found = [info for info in _instances(session, filters) if everything or _online(info)]
    with ThreadPoolExecutor(TAG_THREADS) as threads:
        nodes = [node for node in threads.map(lambda info: node_of(session, info), found) if node is not None]
    return sorted(nodes, key=lambda node: node.created, reverse=True)


def job_state(session: AwsSession, kind: str, name: str) -> tuple[str, str] | None:
    """The status of a job, and why it failed ("" where it did not); None for a kind or a job there is not."""
    answer = _described(session, kind, name)
    return None if answer is None else (str(answer[_DESCRIBE[kind][2]]), str(answer.get("FailureReason", "")))


def _described(session: AwsSession, kind: str, name: str) -> dict[str, Any] | None:
    """The job as the service describes it; None for a kind or a job there is not."""
    if kind not in _DESCRIBE:
        return None
    operation, key, _ = _DESCRIBE[kind]
    try:
        return session.call("sagemaker", operation, **{key: name})
    except ServiceRefused as error:
        if error.code not in ("ValidationException", "ResourceNotFound"):
            raise
        return None


def no_pipeline(session: AwsSession, pipeline: str) -> SmsshError:
    """What to say where the service does not know a pipeline."""
    return SmsshError(
        f"there is no pipeline {pipeline!r} in {session.region}",
        hint="check the name, and the region (--region)",
        reference="no-pipeline",
        status=ExitStatus.NOT_FOUND,
    )


def execution_arn(session: AwsSession, pipeline: str, execution: str | None) -> str:
    """The ARN of an execution of a pipeline: by its id, its ARN, or the latest one (None or `latest`).

    Raises:
        SmsshError: NOT_FOUND: no such pipeline, or it was never started.
    """
    if execution is not None and execution.startswith("arn:"):
        return execution
    try:
        answer = session.call(
            "sagemaker",
            "list_pipeline_executions",
            PipelineName=pipeline,
            SortBy="CreationTime",
            SortOrder="Descending",
            MaxResults=1,
        )
    except ServiceRefused as error:
        raise no_pipeline(session, pipeline) from error
    summaries = answer.get("PipelineExecutionSummaries", [])
    if not summaries:
        raise SmsshError(
            f"pipeline {pipeline!r} has never been started in {session.region}",
            hint="start it: pipeline.start(), or `smssh debug --start`",
            reference="no-execution",
            status=ExitStatus.NOT_FOUND,
        )
    latest = str(summaries[0]["PipelineExecutionArn"])
    if execution is None or execution == "latest":
        return latest
    return f"{latest.rpartition('/')[0]}/{execution}"


def steps_of(session: AwsSession, arn: str) -> list[dict[str, Any]]:
    """The steps of an execution that have started, oldest first, as ListPipelineExecutionSteps has them.

    Raises:
        SmsshError: NOT_FOUND: no such execution.
    """
    found: list[dict[str, Any]] = []
    try:
        for page in session.pages(
            "sagemaker",
            "list_pipeline_execution_steps",
            PipelineExecutionArn=arn,
            SortOrder="Ascending",
            MaxResults=100,
        ):
            found += page.get("PipelineExecutionSteps", [])
    except ServiceRefused as error:
        raise SmsshError(
            f"there is no pipeline execution {arn.rpartition('/')[2]!r} ({error.message})",
            reference="no-execution",
            status=ExitStatus.NOT_FOUND,
        ) from error
    return found


def describe_step(step: dict[str, Any]) -> StepJob | None:
    """The job that runs a step of `steps_of`; None where it has none (yet)."""
    metadata = step.get("Metadata", {})
    for name, kind in _METADATA_KINDS.items():
        arn = metadata.get(name, {}).get("Arn")
        if arn:
            return StepJob(_names(str(arn), step["StepName"]), kind, step["StepName"])
    for name in ("QualityCheck", "ClarifyCheck"):
        arn = metadata.get(name, {}).get("CheckJobArn")
        if arn:
            return StepJob(_names(str(arn), step["StepName"]), "processing", step["StepName"])
    return None


def _names(arn: str, step: str) -> tuple[str, ...]:
    """The job's name as in the ARN, and with the capitals that the service takes out of ARNs put back.

    Pipelines call their jobs `pipelines-<execution>-<step>-<random>`, and may cut the step's name short.
    """
    name = arn.rpartition("/")[2]
    dash = len(execution_part(name))
    if not dash:
        return (name,)
    rest = name[dash:]
    same = 0
    while same < min(len(rest), len(step)) and rest[same].lower() == step[same].lower():
        same += 1
    cased = name[:dash] + step[:same] + rest[same:]
    return (name,) if cased == name else (name, cased)


def switch_on(
    address: Address,
    session: AwsSession,
    *,
    wait: float = 0.0,
    on_wait: Callable[[str], None] | None = None,
) -> str:
    """Switch SageMaker's remote debugging on in the training job that an address means.

    Args:
        address: the job or step.
        session: the AWS session.
        wait: seconds to wait for a step that has no job yet, and for a job that is too young for it.
        on_wait: is told what is waited for.

    Returns:
        The name of the job.

    Raises:
        SmsshError: NOT_FOUND (no such job, a step that has none), USAGE (no training job), FAILED (SageMaker does
            not want to), TIMEOUT (after `wait`).
    """

    def attempt() -> str:
        job = _job_of(address, session)
        if job.kind != "training":
            raise SmsshError(
                f"{address} is a {job.kind} job: SageMaker's remote debugging is for training jobs",
                hint="submit it with with_ssh, or with SMSSH_ENABLE=1 and an image that has smssh-plugin",
                reference="native-is-training-only",
                status=ExitStatus.USAGE,
            )
        name = _listed_name(session, job) or job.names[-1]
        try:
            native.enable(session, name)
        except SmsshError as error:
            if error.reference == "not-enabled" and native.young(_described(session, job.kind, name) or {}):
                raise _NotYet(error) from error
            raise
        return name

    return _patiently(attempt, wait, on_wait)


def _job_of(address: Address, session: AwsSession) -> StepJob:
    """The job that an address means.

    Raises:
        SmsshError: a step that has none (any more).
        _NotYet: a step that may have one soon.
    """
    if isinstance(address, StepAddress):
        return _job_of_step(address, session)
    return StepJob((address.job,), address.kind, "")


def _find(address: Address, session: AwsSession, *, bare: bool) -> Node:
    """One attempt at finding the node."""
    job = _job_of(address, session)
    host = address.host or DEFAULT_HOST
    living, over = _claims(session, job, host)
    if living:
        return _checked_owner(living[0][1] if len(living) == 1 else _only(session, job, host, living))
    return _without_node(session, job, host, bare=bare, over=over)


def confirmed(session: AwsSession, node: Node) -> Node:
    """A node that was found by its state or its step, held to what `resolve` holds an address to, and to the job.

    Automation that takes orders from tags (`SMSSHState=held`) enters nothing that a job merely claims to be.

    Raises:
        SmsshError: REFUSED: other online nodes claim the same host, it has another role than the request names, or
            another owner than this client does; NOT_FOUND: the job has no such host; UNREACHABLE: it went offline.
    """
    job = StepJob((node.job,), node.kind, "")
    described = _permitted(session, job)
    if described is not None:
        _check_host(described, node.kind, node.job, node.host)
    living, _ = _claims(session, job, node.host)
    own = next((info for info, found in living if found.target == node.target), None)
    if own is None:
        raise SmsshError(
            f"{node.address} ({node.target}) is not online any more",
            reference="no-node",
            status=ExitStatus.UNREACHABLE,
        )
    role = _role_of_request(described or {})
    if role and own.get("IamRole") not in _role_names(role):
        raise SmsshError(
            f"{node.target} claims to be {node.address}, and has the role {own.get('IamRole') or 'unknown'!r}: the "
            f"job's request names {role!r}",
            reference="another-role",
            status=ExitStatus.REFUSED,
        )
    if len(living) > 1 and (chosen := _only(session, job, node.host, living)).target != node.target:
        raise SmsshError(
            f"{node.target} claims to be {node.address}, which is {chosen.target}",
            reference="several-nodes",
            status=ExitStatus.REFUSED,
        )
    return _checked_owner(node)


def _permitted(session: AwsSession, job: StepJob) -> dict[str, Any] | None:
    """The job as the service describes it; None where this client may not see it, or the service has none of its kind.

    Raises:
        SmsshError: REFUSED: the service knows no such job, or by another name.
    """
    if job.kind not in _DESCRIBE:
        return None
    name = job.names[0]
    try:
        described = _described(session, job.kind, name)
    except SmsshError as error:
        if error.reference != "access-denied":
            raise
        return None
    if described is None or described.get(_DESCRIBE[job.kind][1]) != name:
        raise SmsshError(
            f"a node claims to be of the {job.kind} job {name!r}, which SageMaker does not know",
            reference="no-job",
            status=ExitStatus.REFUSED,
        )
    return described


def conflicts(nodes: list[Node], session: AwsSession | None = None) -> dict[str, list[Node]]:
    """Which addresses of these nodes several nodes claim, and which those are.

    Only what is online and not over claims anything.

    Args:
        nodes: what `list_nodes` answered.
        session: the AWS session, where that was of one owner alone: the nodes of others are asked for.
    """
    found = {node.target: node for node in nodes if _claims_something(node)}
    jobs = sorted({node.job for node in found.values() if node.job}) if session is not None else []
    for start in range(0, len(jobs), NAMES_A_FILTER):
        assert session is not None
        filters = [{"Key": "tag:SMSSHJob", "Values": jobs[start : start + NAMES_A_FILTER]}]
        for info in filter(_online, _instances(session, filters)):
            if info["InstanceId"] not in found and (node := node_of(session, info)) is not None:
                found[node.target] = node
    claims: dict[str, list[Node]] = {}
    for node in found.values():
        if _claims_something(node):
            claims.setdefault(node.address, []).append(node)
    return {address: some for address, some in claims.items() if len(some) > 1}


def _claims_something(node: Node) -> bool:
    return node.ping_status == "Online" and node.state != "ended"


def _claims(session: AwsSession, job: StepJob, host: str) -> tuple[list[tuple[dict[str, Any], Node]], bool]:
    """The online nodes that claim to be a host of a job, newest first, and whether there is one that is over.

    A node is Online for minutes after its container's end.
    """
    filters = [
        {"Key": "tag:SMSSHJob", "Values": list(job.names)},
        {"Key": "tag:SMSSHKind", "Values": [job.kind]},
        {"Key": "tag:SMSSHHost", "Values": [host]},
    ]
    online = sorted(living_nodes(session, filters), key=_registered) or _folded(session, job, host)
    nodes = [(info, node) for info in reversed(online) if (node := node_of(session, info)) is not None]
    living = [(info, node) for info, node in nodes if node.state != "ended"]
    return living, bool(nodes)


def living_nodes(session: AwsSession, tags: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The nodes with these tags that are online, and have the job's role where this client was told it (SMSSH_ROLE).

    Compared here: "Tag filters can't be combined with other filter types" (DescribeInstanceInformation's reference).

    Args:
        session: the AWS session.
        tags: filters of tags, as DescribeInstanceInformation takes them.
    """
    return (info for info in _instances(session, tags) if _online(info) and _of_role(info))


def _online(info: dict[str, Any]) -> bool:
    return info.get("PingStatus") == "Online"


def _of_role(info: dict[str, Any]) -> bool:
    role = os.environ.get("SMSSH_ROLE", "").strip()
    return not role or info.get("IamRole") in _role_names(role)


def _role_names(role: str) -> list[str]:
    """A role, name or ARN, as a node may show it: with its path, and by its bare name."""
    whole = role.partition(":role/")[2] if role.startswith("arn:") else role
    return list(dict.fromkeys([whole, whole.rpartition("/")[2]]))


def _role_of_request(described: dict[str, Any]) -> str:
    """The role that a job's request gives to its hosts; "" where it names none."""
    return str((described.get("Environment") or {}).get("SMSSH_ROLE") or "")


def _checked_owner(node: Node) -> Node:
    """The node, if it belongs to the owner that this client names (SMSSH_OWNER), or the client names none.

    Raises:
        SmsshError: REFUSED: it is another's.
    """
    wanted = os.environ.get("SMSSH_OWNER", "").strip()
    if wanted and node.owner != wanted:
        raise SmsshError(
            f"{node.address} ({node.target}) has the owner {node.owner!r}, and SMSSH_OWNER is {wanted!r}",
            hint=f"if you mean to enter it, set SMSSH_OWNER={node.owner!r} for this command"
            if node.owner
            else "if you mean to enter it, unset SMSSH_OWNER for this command",
            reference="another-owner",
            status=ExitStatus.REFUSED,
        )
    return node


def _only(session: AwsSession, job: StepJob, host: str, found: list[tuple[dict[str, Any], Node]]) -> Node:
    """The one of several online nodes that is the host's, by what SageMaker says of the job.

    Tags are no proof, and neither is age: a node counts as left by an earlier start of the container only where it
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
    described = next((one for name in job.names if (one := _described(session, job.kind, name))), None) or {}
    began = max(
        float(described.get("CreationTime") or 0.0),
        *(
            float(each.get("StartTime") or 0.0)
            for each in described.get("SecondaryStatusTransitions") or ()
            if each.get("Status") in _STARTING
        ),
        0.0,
    )
    role = _role_of_request(described)
    left = [
        (info, node)
        for info, node in found
        if _registered(info) >= began and (not role or info.get("IamRole") in _role_names(role))
    ]
    if len(left) == 1:
        return left[0][1]
    each = "; ".join(
        f"{node.target} (owner {node.owner or 'unknown'!r}, role {info.get('IamRole') or 'unknown'!r}, since "
        f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(_registered(info)))})"
        for info, node in left or found
    )
    raise SmsshError(
        f"{len(left or found)} online nodes claim to be {host} of {job.kind} job {job.names[-1]!r}: {each}",
        hint="one may be left by a container that has ended: it goes offline within minutes. Where you know which is "
        "yours, SMSSH_NODE=ID names it for this command",
        reference="several-nodes",
        status=ExitStatus.REFUSED,
    )


def _folded(session: AwsSession, job: StepJob, host: str) -> list[dict[str, Any]]:
    """The nodes of a step's job whose own name is not known, see `known`, by the step that they carry."""
    if known(job):
        return []
    filters = [{"Key": "tag:SMSSHKind", "Values": [job.kind]}, {"Key": "tag:SMSSHHost", "Values": [host]}]
    return sorted(_of_steps(session, [job], filters), key=_registered)


def known(job: StepJob) -> bool:
    """Whether one of the names of a job is sure to be its own.

    Of `pipelines-<execution>-<step>-<random>`, what the last part was cannot be told where its ARN is in lower case.
    """
    return not job.step or job.names[0] != job.names[0].lower()


def own_names(session: AwsSession, jobs: list[StepJob]) -> set[str]:
    """The own names of steps' jobs, as nodes that are online say; `known` tells which jobs need it."""
    return {str(info["Name"]) for info in _of_steps(session, jobs, [])}


def _of_steps(
    session: AwsSession, jobs: list[StepJob], filters: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """The online nodes that carry the steps of these jobs, at most `NAMES_A_FILTER`, and are called as those are."""
    names = {job.names[0].lower() for job in jobs}
    steps = {"Key": "tag:SMSSHStep", "Values": sorted({job.step for job in jobs})}
    for info in living_nodes(session, [steps, *filters]):
        if str(info.get("Name", "")).lower() in names:
            yield info


def _listed_name(session: AwsSession, job: StepJob) -> str | None:
    """The own name of a step's job as SageMaker lists it; None where it does not, or does not let us see."""
    if known(job) or job.kind not in _LIST or not (start := execution_part(job.names[0])):
        return None
    operation, summaries, key = _LIST[job.kind]
    try:
        for page in session.pages("sagemaker", operation, NameContains=start, MaxResults=100):
            for one in page.get(summaries, []):
                if str(one[key]).lower() == job.names[0]:
                    return str(one[key])
    except SmsshError:  # it is asked for where all else failed, whose words are better
        return None
    return None


def execution_part(name: str) -> str:
    """What the names of all jobs of a pipeline's execution begin with; "" where this is no name of such a job."""
    head, dash = "pipelines-", name.find("-", len("pipelines-")) + 1
    return name[:dash] if name.startswith(head) and dash else ""


def _without_node(session: AwsSession, job: StepJob, host: str, *, bare: bool, over: bool) -> Node:
    """The host of a job that has no managed node: native, or an error that says why.

    Args:
        session: the AWS session.
        job: the job.
        host: its host.
        bare: whether a container without an SSH server will do.
        over: whether it had a node, whose container has ended.

    Raises:
        SmsshError: there is none, and will be none.
        _NotYet: there may be one soon.
    """
    name = job.names[-1]
    if job.kind not in _DESCRIBE:
        # Nothing that could be asked knows whether there will be one: its name is known by its node alone.
        raise SmsshError(
            f"no host {host} of {job.kind} {name!r} is online in {session.region}",
            hint="`smssh list` shows the hosts there are",
            reference="no-node",
            status=ExitStatus.UNREACHABLE,
        )
    described = next((found for one in job.names if (found := _described(session, job.kind, one))), None)
    if described is None and (listed := _listed_name(session, job)):
        name, described = listed, _described(session, job.kind, listed)
    if described is None and not known(job):
        raise _NotYet(
            SmsshError(
                f"host {host} of step {job.step!r} is not online yet",
                hint="if it stays so: was the step submitted with smssh, and may its role register a managed node? The "
                "job's log says what smssh did there",
                reference="no-node",
                status=ExitStatus.UNREACHABLE,
            )
        )
    if described is None:
        raise SmsshError(
            f"there is no {job.kind} job {name!r} in {session.region}",
            hint=f"check the name, the kind, and the region (from {session.region_origin}; --region names "
            "another); `smssh list` shows what there is",
            reference="no-job",
            status=ExitStatus.NOT_FOUND,
        )
    status = str(described[_DESCRIBE[job.kind][2]])
    if status in _ENDED:
        reason = str(described.get("FailureReason", ""))
        because = f": {reason.splitlines()[0]}" if reason else ""
        raise SmsshError(
            f"{job.kind} job {name!r} has ended ({status}){because}",
            hint=_after(status, "with_ssh(step, hold='failure') or SMSSH_HOLD=failure"),
            reference="job-ended",
            status=ExitStatus.NOT_FOUND,
        )
    phase = status if status == "Stopping" else described.get("SecondaryStatus")
    if phase == "Stopping" or phase in _ENDING:
        raise SmsshError(
            f"{job.kind} job {name!r} is ending ({phase}), and its container is gone",
            hint="`smssh list` shows the hosts that are online",
            reference="job-ended",
            status=ExitStatus.NOT_FOUND,
        )
    _check_host(described, job.kind, name, host)
    if job.kind == "training" and native.enabled(described):
        return _native(session, described, host, bare=bare)
    enable = f"`smssh remote-debug {name}` lets you in without all that" if job.kind == "training" else ""
    if not _carries(session, job.kind, described):
        raise SmsshError(
            f"{job.kind} job {name!r} was submitted without smssh: it has no host to enter",
            hint=enable.replace("all that", "it")
            or "submit it with with_ssh, or with SMSSH_ENABLE=1 and an image that has smssh-plugin; where the image "
            "itself sets that, try again once its host is online",
            reference="no-smssh",
            status=ExitStatus.UNREACHABLE,
        )
    if over:
        raise _NotYet(
            SmsshError(
                f"the container of host {host} of {job.kind} job {name!r} has ended, and the job is {status}",
                hint="it is about to end, or to start again on another instance",
                reference="no-node",
                status=ExitStatus.UNREACHABLE,
            ),
            RESTART_SECONDS,
        )
    raise _NotYet(
        SmsshError(
            f"{job.kind} job {name!r} is {status}, and its host {host} is not online yet",
            hint="if it stays so: may its role register a managed node? The job's log says what smssh did there"
            + (f"; {enable}" if enable else ""),
            reference="no-node",
            status=ExitStatus.UNREACHABLE,
        )
    )


def _after(status: str, hold: str) -> str:
    """What to do about a job or step that has ended."""
    if status == "Failed":
        return f"its container is gone; to keep the next one that fails, submit it with a hold: {hold}"
    return "its container is gone; `smssh list` shows the hosts that are online"


def _carries(session: AwsSession, kind: str, described: dict[str, Any]) -> bool:
    """Whether a job's request has anything of smssh in it, or that cannot be known."""
    environment = described.get("Environment") or {}
    if environment.get("SMSSH_ENABLE", "1") != "1":
        return False
    if kind == "transform" and not _speaks_of_us(environment):
        # Its request turns SSH on where its model brings the files; that of an endpoint may turn it on itself.
        return _model_enables(session, str(described.get("ModelName") or ""))
    parts = [
        described.get(name)
        for name in (
            "AlgorithmSpecification",
            "AppSpecification",
            "Environment",
            "InputDataConfig",
            "ProcessingInputs",
        )
    ]
    return _speaks_of_us(parts)


def _speaks_of_us(part: Any) -> bool:
    """Whether a part of a request names something of ours, or of sagemaker-ssh-helper."""
    text = json.dumps(part, default=str)
    return "smssh" in text.lower() or "START_SSH" in text


def _model_enables(session: AwsSession, name: str) -> bool:
    """Whether the model of a transform job turns SSH on by itself, or that cannot be known."""
    try:
        model = session.call("sagemaker", "describe_model", ModelName=name)
    except ServiceRefused:
        return True  # a model may be deleted while its job runs
    except SmsshError as error:
        if error.reference != "access-denied":
            raise
        return True
    containers = [model.get("PrimaryContainer"), *(model.get("Containers") or ())]
    environments = [(container or {}).get("Environment") or {} for container in containers]
    return any(each.get("SMSSH_ENABLE") == "1" or "START_SSH" in each for each in environments)


def _check_host(described: dict[str, Any], kind: str, name: str, host: str) -> None:
    """Refuse a host that the job has not got."""
    resources = described.get("ResourceConfig") or described.get("ProcessingResources") or {}
    cluster = resources.get("ClusterConfig") or described.get("TransformResources") or resources
    groups = cluster.get("InstanceGroups") or [cluster]
    count = sum(int(group.get("InstanceCount") or 0) for group in groups)
    if count and int(host.rpartition("-")[2]) not in range(1, count + 1):
        raise SmsshError(
            f"{kind} job {name!r} has no host {host}: it has {count}, algo-1"
            + (f" to algo-{count}" if count > 1 else ""),
            reference="no-host",
            status=ExitStatus.NOT_FOUND,
        )


def _native(session: AwsSession, described: dict[str, Any], host: str, *, bare: bool) -> Node:
    """The host of a training job with SageMaker's own remote debugging.

    Raises:
        SmsshError: it has no SSH server, and will have none.
        _NotYet: it cannot be entered yet.
    """
    name = str(described["TrainingJobName"])
    phase = str(described.get("SecondaryStatus") or "")
    if phase not in ("", "Training"):
        raise _NotYet(
            SmsshError(
                f"training job {name!r} is {phase}; SageMaker's remote debugging lets in while it is Training",
                hint="wait for it, for instance with --wait 30m",
                reference="no-node",
                status=ExitStatus.UNREACHABLE,
            )
        )
    found = native.announced(session, described, host)
    if found is None or found.get("state") == "ended":
        own = native.installed(session, name, host)
        if own is not None:
            found = own
        elif bare:
            found = {}
        elif native.carries_smssh(described):
            raise _NotYet(
                SmsshError(
                    f"host {host} of training job {name!r} has not announced its SSH server yet",
                    hint="may the job's role write it (s3:PutObject)? The job's log says what smssh did there",
                    reference="no-node",
                    status=ExitStatus.UNREACHABLE,
                )
            )
        else:
            raise SmsshError(
                f"training job {name!r} runs no SSH server",
                hint=f"`smssh shell {host}.{name}.training.sagemaker` needs none; "
                f"`smssh remote-debug {name} --install` starts one",
                reference="no-ssh-server",
                status=ExitStatus.UNREACHABLE,
            )
    return Node(
        target=native.target(name, host),
        job=name,
        kind="training",
        host=host,
        step=str(found.get("step") or "") or None,
        state=str(found.get("state") or "") or None,
        port=int(found.get("port") or 0),
        user=str(found.get("user") or "root"),
        host_key=str(found.get("host_key") or "").strip(),
        ping_status="Online",
        created=float(found.get("created") or 0.0),
        owner=str(found.get("owner") or ""),
        control_port=int(found.get("control_port") or 0),
    )


def _job_of_step(address: StepAddress, session: AwsSession) -> StepJob:
    """The job that runs the step of a pipeline address."""
    arn = execution_arn(session, address.pipeline, address.execution)
    steps = steps_of(session, arn)
    step = next((one for one in steps if one["StepName"] == address.step), None) or _alike(
        steps, address.step
    )
    execution = arn.rpartition("/")[2]
    if step is None:
        names = ", ".join(one["StepName"] for one in steps) or "none"
        error = SmsshError(
            f"no step {address.step!r} has started in execution {execution} of pipeline {address.pipeline!r}",
            hint=f"steps that have: {names}",
            reference="no-step",
            status=ExitStatus.NOT_FOUND,
        )
        state = session.call("sagemaker", "describe_pipeline_execution", PipelineExecutionArn=arn)
        # A step is listed from its start on: while others run, this one may come yet.
        if state["PipelineExecutionStatus"] != "Executing" or not _defined(session, arn, address.step):
            raise error
        raise _NotYet(error)
    job = describe_step(step)
    status = step.get("StepStatus", "")
    if job is None:
        if status in ("Starting", "Executing") and not step.get("Metadata"):
            raise _NotYet(
                SmsshError(
                    f"step {address.step!r} is {status}, and has no job yet",
                    hint="only training, processing and transform steps have a container to reach",
                    reference="step-not-started",
                    status=ExitStatus.NOT_FOUND,
                )
            )
        raise SmsshError(
            f"step {address.step!r} has no job ({status or 'unknown status'})",
            hint="each trial of a tuning step is a job of its own: `smssh list` shows those that are online"
            if "TuningJob" in step.get("Metadata", {})
            else "only training, processing and transform steps have a container to reach",
            reference="step-without-job",
            status=ExitStatus.NOT_FOUND,
        )
    if status in ("Succeeded", "Failed", "Stopped"):
        reason = step.get("FailureReason", "")
        because = f": {reason.splitlines()[0]}" if reason else ""
        raise SmsshError(
            f"step {address.step!r} of execution {execution} has ended ({status}){because}",
            hint=_after(status, "with_ssh(step, hold='failure')"),
            reference="step-ended",
            status=ExitStatus.NOT_FOUND,
        )
    return job


def _alike(steps: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """The only step that has this name but for its capitals: programs around ssh take those out of host names."""
    found = [one for one in steps if one["StepName"].lower() == name.lower()]
    return found[0] if len(found) == 1 else None


def _defined(session: AwsSession, arn: str, step: str) -> bool:
    """Whether the definition that this execution runs knows a step of that name, in conditions and loops too."""
    answer = session.call("sagemaker", "describe_pipeline_definition_for_execution", PipelineExecutionArn=arn)
    return any(
        names[0].lower() == step.lower() for _, names in named_steps(json.loads(answer["PipelineDefinition"]))
    )


def _instances(session: AwsSession, filters: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """DescribeInstanceInformation, all pages, by filters of tags alone; see `living_nodes`."""
    for page in session.pages("ssm", "describe_instance_information", Filters=filters, MaxResults=50):
        yield from page.get("InstanceInformationList", [])


def _registered(info: dict[str, Any]) -> float:
    """When a managed node was registered, seconds since the epoch; 0.0 where the service does not say."""
    return float(info.get("RegistrationDate") or 0.0)


def node_of(session: AwsSession, info: dict[str, Any]) -> Node | None:
    """The node of one entry of DescribeInstanceInformation; None where it is deregistered when its tags are read."""
    target = str(info["InstanceId"])
    try:
        answer = session.call(
            "ssm", "list_tags_for_resource", ResourceType="ManagedInstance", ResourceId=target
        )
    except ServiceRefused as error:
        if error.code != "InvalidResourceId":
            raise
        return None
    tags = {tag["Key"]: tag["Value"] for tag in answer.get("TagList", [])}
    try:
        port = int(tags.get("SMSSHPort", "22"))
        control_port = int(tags.get("SMSSHControlPort", "0"))
        created = float(tags.get("SMSSHCreated", "0")) or _registered(info)
    except ValueError as error:
        raise SmsshError(
            f"node {target} carries tags that are not ours: {error}", reference="bad-tags"
        ) from error
    return Node(
        target=target,
        job=tags.get("SMSSHJob", ""),
        kind=tags.get("SMSSHKind", ""),
        host=tags.get("SMSSHHost", DEFAULT_HOST),
        step=tags.get("SMSSHStep") or None,
        state=tags.get("SMSSHState") or None,
        port=port,
        user=tags.get("SMSSHUser", "root"),
        host_key=tags.get("SMSSHHostKey", "").strip(),
        ping_status=str(info.get("PingStatus", "")),
        created=created,
        owner=tags.get("SSHOwner", ""),
        control_port=control_port,
    )
