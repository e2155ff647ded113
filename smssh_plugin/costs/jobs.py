"""The jobs with SSH that ran in a time, and what SageMaker, their bundles and their nodes say of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..at_once import at_once
from ..aws.session import ServiceRefused
from ..client import native
from ..client.job_names import execution_part
from ..client.job_state import described_job, speaks_of_us, submitted_with_smssh
from ..client.managed_nodes import list_nodes
from ..errors import SmsshError
from ..setting_values import PRICE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..aws.session import AwsSession
    from ..client.managed_nodes import Node

__all__ = ["KINDS", "Found", "SpentJob", "find", "pools"]

KINDS = {
    "training": ("list_training_jobs", "TrainingJobSummaries", "TrainingJobName"),
    "processing": ("list_processing_jobs", "ProcessingJobSummaries", "ProcessingJobName"),
    "transform": ("list_transform_jobs", "TransformJobSummaries", "TransformJobName"),
}
"""Per kind: the operation that lists jobs, and the members of its answer with the list and a job's name."""
TIMES = {
    "training": ("TrainingStartTime", "TrainingEndTime"),
    "processing": ("ProcessingStartTime", "ProcessingEndTime"),
    "transform": ("TransformStartTime", "TransformEndTime"),
}
OLDEST_SECONDS = 28 * 86400.0
"""How long before the time an execution may have started to be looked for; no job runs for longer."""
_BUNDLE = re.compile(r"s3://([^/]+)/(.+?)/*\Z")


@dataclass(frozen=True)
class SpentJob:
    """A job with SSH, or a host of an endpoint.

    Attributes:
        kind: training, processing, transform, or what the tags of a node say.
        name: its name.
        pools: instance type and count of its instances.
        began: when its containers started, in seconds since the epoch.
        ended: when they ended; None while they run.
        nodes: how many of its hosts are managed nodes; 0 with SageMaker's remote debugging.
        owner: its SSHOwner; "" where it has none, or that is not known.
        step: its pipeline step; "" outside of pipelines.
        execution: the id of its pipeline execution.
        pipeline: the name of its pipeline.
        price: what SMSSH_PRICE_PER_HOUR says; "" where that is not set.
    """

    kind: str
    name: str
    pools: tuple[tuple[str, int], ...]
    began: float
    ended: float | None
    nodes: int
    owner: str = ""
    step: str = ""
    execution: str = ""
    pipeline: str = ""
    price: str = ""


@dataclass
class Found:
    """What there is, and what could not be read.

    Attributes:
        jobs: the jobs that ran in the time.
        orphans: nodes that are registered although they are not online.
        missing: what could not be read, and why.
        unread: jobs that could not be listed or described.
    """

    jobs: list[SpentJob] = field(default_factory=list)
    orphans: int = 0
    missing: list[str] = field(default_factory=list)
    unread: bool = False


def find(aws: AwsSession, since: float, now: float, progress: Callable[[str], None]) -> Found:
    """The jobs with SSH whose containers ran after `since`.

    Args:
        aws: the AWS session.
        since: seconds since the epoch.
        now: the time.
        progress: is told what is read.

    Raises:
        SmsshError: AWS cannot be asked at all: throttled for long, unreachable, or no credentials.
    """
    found = Found()
    listed = [(kind, name) for kind in KINDS for name in _listed(aws, kind, since, found)]
    progress(f"{len(listed)} jobs")
    denied: Counter[str] = Counter()
    described = at_once(lambda job: _described(aws, *job, since, denied), listed)
    for why, count in denied.items():
        found.unread = True
        found.missing.append(f"{count} jobs are not counted: {why}")
    jobs = [each for each in described if each is not None]
    nodes = _nodes(aws, found)
    found.orphans = sum(node.ping_status != "Online" for node in nodes)
    bundles = _Bundles(aws)
    made = at_once(lambda one: _job(*one, bundles, nodes), jobs)
    known = {(each.kind, each.name) for each in made}
    found.jobs = [each for each in made if each.ended is None or each.ended > since]
    found.jobs += _without_job(nodes, known | set(listed), now)
    if bundles.trouble is not None:
        found.missing.append(f"owners of some ended jobs are not known: {bundles.trouble.message}")
    _name_pipelines(aws, found, since)
    return found


def _listed(aws: AwsSession, kind: str, since: float, found: Found) -> Iterator[str]:
    """The names of jobs that changed after `since`, and of those that run and changed before."""
    operation, summaries, key = KINDS[kind]
    names: dict[str, None] = {}
    try:
        for wanted in ({"LastModifiedTimeAfter": since}, {"StatusEquals": "InProgress"}):
            for page in aws.pages("sagemaker", operation, MaxResults=100, **wanted):
                names.update((str(each[key]), None) for each in page.get(summaries) or ())
    except SmsshError as error:
        if error.reference != "access-denied":
            raise
        found.unread = True
        found.missing.append(f"{kind} jobs are not counted: {error.message}")
    yield from names


def _described(
    aws: AwsSession, kind: str, name: str, since: float, denied: Counter[str]
) -> tuple[str, str, dict[str, Any]] | None:
    """A job's description, if its containers ran after `since` and it has SSH."""
    try:
        answer = described_job(aws, kind, name)
    except SmsshError as error:
        if error.reference != "access-denied":
            raise
        denied[f"sagemaker:Describe{kind.capitalize()}Job is not allowed"] += 1
        return None
    if answer is None:
        return None
    start, end = (answer.get(each) for each in TIMES[kind])
    if not start or (end and float(end) <= since):
        return None
    if kind == "training" and native.enabled(answer):
        return kind, name, answer
    return (kind, name, answer) if submitted_with_smssh(aws, kind, answer) else None


def _nodes(aws: AwsSession, found: Found) -> list[Node]:
    try:
        return list_nodes(aws, everything=True)
    except SmsshError as error:
        if error.reference != "access-denied":
            raise
        found.missing.append(f"nodes that are registered now are not read: {error.message}")
        return []


def _job(kind: str, name: str, described: dict[str, Any], bundles: _Bundles, nodes: list[Node]) -> SpentJob:
    environment = dict(described.get("Environment") or {})
    options = bundles.options(kind, described)

    def said(setting: str) -> str:
        value = environment.get(f"SMSSH_{setting.upper()}") or options.get(setting)
        return "" if value is None else str(value)

    own = [node for node in nodes if (node.kind, node.job) == (kind, name)]
    instances = pools(described)
    hosts = sum(count for _, count in instances)
    limit = said("hosts")
    registered = min(hosts, int(limit)) if limit.isdecimal() and len(limit) < 5 and int(limit) else hosts
    by_node = said("transport") in ("", "ssm") and not (kind == "training" and not _ours(described))
    execution = execution_part(name)
    start, end = TIMES[kind]
    return SpentJob(
        kind,
        name,
        instances,
        float(described[start]),
        float(described[end]) if described.get(end) else None,
        registered if by_node else 0,
        # The request first: any job may tag a node of its own as a host of this one.
        said("owner")
        or environment.get("SSH_OWNER_TAG", "")
        or next((node.owner for node in own if node.owner), ""),
        said("step") or next((node.step for node in own if node.step), None) or "",
        execution.split("-")[1] if execution else "",
        price=_price(said("price_per_hour")),
    )


def _ours(described: dict[str, Any]) -> bool:
    """Whether a training job's request has anything of smssh in it, beside SageMaker's remote debugging."""
    parts = ("AlgorithmSpecification", "Environment", "InputDataConfig")
    return speaks_of_us([described.get(name) for name in parts])


def _price(said: str) -> str:
    try:
        return str(PRICE.parse(said)) if said else ""
    except ValueError:
        return ""


def pools(described: dict[str, Any]) -> tuple[tuple[str, int], ...]:
    """Type and count of a job's instances, as SageMaker's description of it says."""
    resources = described.get("ResourceConfig") or described.get("ProcessingResources") or {}
    cluster = resources.get("ClusterConfig") or described.get("TransformResources") or resources
    groups = cluster.get("InstanceGroups") or [cluster]
    return tuple(
        (str(each.get("InstanceType") or ""), int(each.get("InstanceCount") or 1)) for each in groups
    )


def _without_job(nodes: list[Node], jobs: set[tuple[str, str]], now: float) -> Iterator[SpentJob]:
    """Hosts of endpoints: only their nodes tell of them, for as long as those are online."""
    for node in nodes:
        if node.ping_status == "Online" and (node.kind, node.job) not in jobs and node.kind not in KINDS:
            began = min(node.created or now, now)
            yield SpentJob(
                node.kind, node.job, (("", 1),), began, None, 1, owner=node.owner, step=node.step or ""
            )


class _Bundles:
    """The options in the bundles of requests, each read once; for any number of threads."""

    def __init__(self, aws: AwsSession) -> None:
        self._aws = aws
        self._read: dict[str, dict[str, Any]] = {}
        self._closed: set[str] = set()
        """Buckets that cannot be read, which are not tried again."""
        self.trouble: SmsshError | None = None
        """Why some cannot be read: what was said of the first bucket."""

    def options(self, kind: str, described: dict[str, Any]) -> dict[str, Any]:
        """The options of a job; {} where it has no bundle, or that cannot be read."""
        place = self._place(kind, described)
        if place not in self._read:
            self._read[place] = self._fetch(place)
        return self._read[place]

    def _fetch(self, place: str) -> dict[str, Any]:
        parts = _BUNDLE.match(place)
        if parts is None or parts[1] in self._closed:
            return {}
        try:
            document = self._aws.get_object(parts[1], f"{parts[2]}/options.json")
            found = json.loads(document or b"{}")
        except ServiceRefused:
            return {}  # the bucket is gone, or in another region
        except SmsshError as error:
            self._closed.add(parts[1])
            self.trouble = self.trouble or error
            return {}
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def _place(self, kind: str, described: dict[str, Any]) -> str:
        """Where the job's bundle is; "" where its request brings none."""
        if kind == "transform":
            try:
                model = self._aws.call(
                    "sagemaker", "describe_model", ModelName=str(described.get("ModelName") or "")
                )
            except SmsshError:  # deleted, or not for us to see
                return ""
            containers = [model.get("PrimaryContainer") or {}, *(model.get("Containers") or ())]
            sources = [
                source for each in containers for source in each.get("AdditionalModelDataSources") or ()
            ]
            return _of_channel(sources, "ChannelName", "S3DataSource")
        if kind == "processing":
            return _of_channel(described.get("ProcessingInputs") or (), "InputName", "S3Input")
        channels = [
            {"ChannelName": each.get("ChannelName"), **(each.get("DataSource") or {})}
            for each in described.get("InputDataConfig") or ()
        ]
        return _of_channel(channels, "ChannelName", "S3DataSource")


def _of_channel(sources: Any, name: str, source: str) -> str:
    for each in sources:
        if each.get(name) == "smssh":
            return str((each.get(source) or {}).get("S3Uri") or "")
    return ""


def _name_pipelines(aws: AwsSession, found: Found, since: float) -> None:
    """The pipelines of executions, whose ids are in the names of jobs: those that ran lately are looked through."""
    wanted = {each.execution for each in found.jobs if each.execution}
    names: dict[str, str] = {}
    try:
        for pipeline in _pipelines(aws, since) if wanted else ():
            for page in aws.pages(
                "sagemaker", "list_pipeline_executions", PipelineName=pipeline, MaxResults=100
            ):
                summaries = page.get("PipelineExecutionSummaries") or ()
                ids = {str(each["PipelineExecutionArn"]).rpartition("/")[2]: each for each in summaries}
                names.update(dict.fromkeys(wanted & set(ids), pipeline))
                # Newest first: what started a job's longest time before is over.
                if all(float(each.get("StartTime") or 0.0) < since - OLDEST_SECONDS for each in ids.values()):
                    break
            if len(names) == len(wanted):
                break
    except SmsshError as error:
        if error.reference != "access-denied":
            raise
        found.missing.append(f"pipelines are not known: {error.message}")
    found.jobs = [replace(each, pipeline=names.get(each.execution, "")) for each in found.jobs]


def _pipelines(aws: AwsSession, since: float) -> Iterator[str]:
    """The pipelines that have run lately, the newest first."""
    for page in aws.pages("sagemaker", "list_pipelines", MaxResults=100):
        for each in page.get("PipelineSummaries") or ():
            last = each.get("LastExecutionTime")
            if last and float(last) >= since - OLDEST_SECONDS:
                yield str(each["PipelineName"])
