"""The local emulator's training, processing and transform jobs and its models, as the SageMaker API shows them."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..images import uri_of
from ..jobs.kinds import Job, Outcome
from ..service_error import ServiceError
from .resources import JobRecord, ModelRecord, Store, arn, page
from .shapes import validation_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..images import Images
    from ..jobs.kinds import Kind

__all__ = ["JobKind", "Jobs", "Models", "Runner", "job_kinds"]

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 10.0
"""How long jobs may take to report their end, once the runner has stopped them."""
_UPDATABLE = ("Downloading", "Training")
"""The secondary statuses in which remote debugging can be changed (botocore's model of UpdateTrainingJob)."""
_AT_WORK = ("Training", "Processing", "Transforming")
"""The secondary statuses of a job whose container runs."""
_METRIC_LINE = 4096
"""Characters of a line of output that metrics are looked for in."""
_INTERNAL = "InternalServerError: We encountered an internal error. Please try again."
"""What the service says when the job was not at fault."""


class Runner(Protocol):
    """What runs a job's containers; `smssh_plugin.local.jobs.manager.JobRunner`."""

    async def run(self, job: Job) -> Outcome:
        """Run the job to its end."""

    async def stop(self, name: str, kind: Kind | None = None) -> None:
        """Ask a running job to end."""

    async def remote_debug(self, name: str, enabled: bool) -> None:
        """Turn remote debugging of a running training job on or off."""

    async def close(self) -> None:
        """Stop every job, and leave nothing behind."""


@dataclass(frozen=True)
class JobKind:
    """How one kind of job is called in the API."""

    kind: Kind
    prefix: str
    """Training, Processing or Transform: the first word of every member's name."""
    missing: str
    """What Describe and Stop say of a job that is not there, with {name}."""
    taken: str
    """What Create says of a name in use, with {arn}."""

    @property
    def name_member(self) -> str:
        """The member with the job's name, e.g. TrainingJobName."""
        return f"{self.prefix}JobName"

    @property
    def arn_member(self) -> str:
        """The member with the job's ARN."""
        return f"{self.prefix}JobArn"

    @property
    def status_member(self) -> str:
        """The member with the job's status."""
        return f"{self.prefix}JobStatus"


def job_kinds() -> dict[Kind, JobKind]:
    """The three kinds of job, by kind; their words as seen in answers of the service (public issues)."""
    unknown = "Could not find requested job with name: {name}"
    unique = (
        "Job name must be unique within an AWS account and region, "
        "and a job with this name already exists ({arn})"
    )
    return {
        "training": JobKind(
            "training",
            "Training",
            "Requested resource not found.",
            "Training job names must be unique within an AWS account and region, "
            "and a training job with this name already exists ({arn})",
        ),
        "processing": JobKind("processing", "Processing", unknown, unique),
        "transform": JobKind("transform", "Transform", unknown, unique),
    }


class Jobs:
    """Create, describe, list and stop jobs.

    Args:
        store: where they are kept.
        runner: what runs them.
        images: the images that they can be started from; None for any.
    """

    def __init__(self, store: Store, runner: Runner, images: Images | None = None) -> None:
        self._store = store
        self._runner = runner
        self._images = images
        self._kinds = job_kinds()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    def operations(self) -> dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]]:
        """The API operations, by name."""
        table: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {}
        for kind in self._kinds.values():
            table[f"Create{kind.prefix}Job"] = self._bound(self._create, kind)
            table[f"Describe{kind.prefix}Job"] = self._bound(self._describe, kind)
            table[f"List{kind.prefix}Jobs"] = self._bound(self._list, kind)
            table[f"Stop{kind.prefix}Job"] = self._bound(self._stop, kind)
        table["UpdateTrainingJob"] = self._update_training
        return table

    @staticmethod
    def _bound(
        method: Callable[[JobKind, dict[str, Any]], dict[str, Any]], kind: JobKind
    ) -> Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]:
        async def operation(request: dict[str, Any]) -> dict[str, Any]:
            return method(kind, request)

        return operation

    async def finished(self, kind: Kind, name: str) -> JobRecord:
        """Wait until a job has ended."""
        record = self._store.jobs[kind][name]
        await record.done.wait()
        return record

    def progress(self, job: Job, secondary: str, message: str) -> None:
        """Take note of how far a job is; for `JobRunner.on_status`.

        Args:
            job: the job.
            secondary: its secondary status.
            message: what the status says in words.
        """
        record = self._store.jobs[job.kind][job.name]
        if record.secondary != secondary and not record.done.is_set():
            record.turn(secondary, message)
        if secondary in _AT_WORK:
            record.started = record.started or time.time()

    def line(self, job: Job, host: str, line: str) -> None:
        """Read the metrics in a line of a job's output; for `JobRunner.on_line`.

        Args:
            job: the job.
            host: the host that wrote it.
            line: the line; what is beyond its first 4,096 characters is not looked at.
        """
        del host
        record = self._store.jobs[job.kind].get(job.name)
        for name, pattern in record.patterns if record is not None else ():
            found = pattern.search(line[:_METRIC_LINE])
            try:
                value = float(found[1]) if found is not None else math.nan
            except (ValueError, IndexError, TypeError):
                continue
            if record is not None and math.isfinite(value):
                record.metrics[name] = (value, time.time())

    async def close(self) -> None:
        """Stop every job; returns when their records are closed."""
        self._closing = True
        await self._runner.close()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()

    def _create(self, kind: JobKind, request: dict[str, Any]) -> dict[str, Any]:
        name = request[kind.name_member]
        jobs = self._store.jobs[kind.kind]
        resource = arn(f"{kind.kind}-job/{name}")
        # Names are compared without case: one ARN must not name two jobs.
        if any(name.lower() == other.lower() for other in jobs):
            raise ServiceError("ResourceInUse", kind.taken.format(arn=resource))
        if self._closing:
            raise ServiceError("ServiceUnavailable", "The local emulator is shutting down.", 503)
        model = self._checked(kind, request)
        record = JobRecord(kind.kind, name, resource, request, self._store.next_number())
        record.patterns = _patterns(request)
        record.turn("Starting", f"Starting the {kind.kind} job")
        jobs[name] = record
        self._store.tag(resource, request.get("Tags", ()))
        task = asyncio.get_running_loop().create_task(
            self._run(record, model), name=f"{kind.kind} job {name}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return {kind.arn_member: resource}

    def _checked(self, kind: JobKind, request: dict[str, Any]) -> dict[str, Any] | None:
        """What the service checks across members; answers the model that a transform job names."""
        if kind.kind == "training":
            algorithm = request.get("AlgorithmSpecification") or {}
            if not algorithm.get("TrainingImage") and not algorithm.get("AlgorithmName"):
                raise validation_error("You must specify either a training image or an algorithm name.")
            names = [channel["ChannelName"] for channel in request.get("InputDataConfig") or ()]
            if len(set(names)) != len(names):
                raise validation_error("Channel names must be unique.")
            for member in ("ResourceConfig", "StoppingCondition"):
                if request.get(member) is None:
                    raise validation_error(f"{member} is required for a training job.")
        if kind.kind != "transform":
            job = Job(kind.kind, request[kind.name_member], "", request)
            refusal = self._images and self._images.refusal(uri_of(job), request["RoleArn"])
            if refusal:
                raise validation_error(refusal)
            return None
        record = self._store.models.get(request["ModelName"])
        if record is None:
            raise validation_error(f'Could not find model "{arn("model/" + request["ModelName"])}".')
        return record.request

    async def _run(self, record: JobRecord, model: dict[str, Any] | None) -> None:
        try:
            job = Job(kind=record.kind, name=record.name, arn=record.arn, request=record.request, model=model)
            outcome = await self._runner.run(job)
        except asyncio.CancelledError:
            outcome = Outcome("Stopped", "Stopped")
        except Exception:
            # Whatever went wrong in the local emulator itself: the job must still end, or its pipeline waits for
            # ever.
            log.exception("%s job %s: the local emulator failed", record.kind, record.name)
            outcome = Outcome("Failed", "Failed", _INTERNAL)
        record.started = outcome.started or record.started
        record.ended = outcome.ended or time.time()
        record.status = outcome.status
        record.failure_reason = outcome.failure_reason
        record.exit_message = outcome.exit_message
        record.artifacts = outcome.model_artifacts
        words = {"Completed": "completed", "Failed": "failed", "Stopped": "stopped"}
        record.turn(outcome.secondary_status, f"{record.kind.capitalize()} job {words[outcome.status]}")
        record.done.set()

    def _find(self, kind: JobKind, request: dict[str, Any]) -> JobRecord:
        name = request[kind.name_member]
        record = self._store.jobs[kind.kind].get(name)
        if record is None:
            raise validation_error(kind.missing.format(name=name))
        return record

    def _describe(self, kind: JobKind, request: dict[str, Any]) -> dict[str, Any]:
        record = self._find(kind, request)
        answer = {
            **record.request,
            kind.arn_member: record.arn,
            kind.status_member: record.status,
            "CreationTime": record.created,
            "LastModifiedTime": record.modified,
            "FailureReason": record.failure_reason,
            "ExitMessage": record.exit_message,
            f"{kind.prefix}StartTime": record.started,
            f"{kind.prefix}EndTime": record.ended,
        }
        if record.kind == "training":
            seconds = int((record.ended or time.time()) - (record.started or record.created))
            answer |= {
                "SecondaryStatus": record.secondary,
                "SecondaryStatusTransitions": record.transitions,
                "TrainingTimeInSeconds": seconds,
                "BillableTimeInSeconds": seconds,
                "TuningJobArn": record.tuning,
                "FinalMetricDataList": [
                    {"MetricName": name, "Value": value, "Timestamp": instant}
                    for name, (value, instant) in record.metrics.items()
                ]
                or None,
                # Whole or not at all: SDK v3 reads a job as soon as it is created, and takes no other.
                "ModelArtifacts": {"S3ModelArtifacts": record.artifacts} if record.artifacts else None,
            }
        return answer

    def _list(self, kind: JobKind, request: dict[str, Any]) -> dict[str, Any]:
        def wanted(record: JobRecord) -> bool:
            return (
                request.get("NameContains", "").lower() in record.name.lower()
                and record.status == request.get("StatusEquals", record.status)
                and record.created > request.get("CreationTimeAfter", 0)
                and record.created < request.get("CreationTimeBefore", float("inf"))
                and record.modified > request.get("LastModifiedTimeAfter", 0)
                and record.modified < request.get("LastModifiedTimeBefore", float("inf"))
            )

        keys: dict[str, Callable[[JobRecord], Any]] = {
            "Name": lambda record: record.name,
            "Status": lambda record: record.status,
            "CreationTime": lambda record: record.created,
        }
        key = keys[request.get("SortBy", "CreationTime")]
        found, token = page(filter(wanted, self._store.jobs[kind.kind].values()), request, key, size=10)
        summaries = [self._describe(kind, {kind.name_member: record.name}) for record in found]
        return {f"{kind.prefix}JobSummaries": summaries, "NextToken": token}

    def _stop(self, kind: JobKind, request: dict[str, Any]) -> dict[str, Any]:
        record = self._find(kind, request)
        if record.status != "InProgress":
            raise validation_error(
                f"The request was rejected because the {kind.kind} job is in status {record.status}."
            )
        record.status = "Stopping"
        record.turn("Stopping", f"Stopping the {kind.kind} job")
        task = asyncio.get_running_loop().create_task(self._stopped(record), name=f"stop {record.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return {}

    async def _update_training(self, request: dict[str, Any]) -> dict[str, Any]:
        """UpdateTrainingJob, as far as it is about remote debugging."""
        record = self._find(self._kinds["training"], request)
        config = request.get("RemoteDebugConfig")
        others = sorted(request.keys() - {"TrainingJobName", "RemoteDebugConfig"})
        if others:
            raise validation_error(f"smssh local can update RemoteDebugConfig only, not {', '.join(others)}.")
        if config is None:
            raise validation_error("There is nothing to update: RemoteDebugConfig is missing.")
        if record.secondary not in _UPDATABLE:
            raise validation_error(
                "The remote debugging configuration can be updated when the SecondaryStatus of the job is "
                f"{' or '.join(_UPDATABLE)}; it is {record.secondary}."
            )
        enabled = bool(config.get("EnableRemoteDebug"))
        record.request = {**record.request, "RemoteDebugConfig": {"EnableRemoteDebug": enabled}}
        record.modified = time.time()
        await self._runner.remote_debug(record.name, enabled)
        return {"TrainingJobArn": record.arn}

    async def _stopped(self, record: JobRecord) -> None:
        try:
            await self._runner.stop(record.name, record.kind)
        except Exception:
            log.exception("%s job %s cannot be stopped", record.kind, record.name)


def _patterns(request: dict[str, Any]) -> list[tuple[str, re.Pattern[str]]]:
    """The metrics that a training job's request defines."""
    found = []
    for metric in (request.get("AlgorithmSpecification") or {}).get("MetricDefinitions") or ():
        try:
            found.append((metric["Name"], re.compile(metric["Regex"])))
        except re.error as error:  # noqa: PERF203 - one that is Java's only is not a reason to refuse a job
            log.warning("metric %s: %s", metric["Name"], error)
    return found


class Models:
    """Create, describe, list and delete models.

    Args:
        store: where they are kept.
        images: the images that they can be made of; None for any.
    """

    def __init__(self, store: Store, images: Images | None = None) -> None:
        self._store = store
        self._images = images

    def operations(self) -> dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]]:
        """The API operations, by name."""
        return {
            "CreateModel": self.create,
            "DescribeModel": self.describe,
            "ListModels": self.list,
            "DeleteModel": self.delete,
        }

    async def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """CreateModel."""
        name = request["ModelName"]
        resource = arn(f"model/{name}")
        if name in self._store.models:
            raise validation_error(f'Cannot create already existing model "{resource}".')
        if (request.get("PrimaryContainer") is None) == (not request.get("Containers")):
            raise validation_error("Exactly one of PrimaryContainer and Containers must be specified.")
        for container in request.get("Containers") or [request["PrimaryContainer"]]:
            if not container.get("Image") and not container.get("ModelPackageName"):
                raise validation_error("A container needs an Image or a ModelPackageName.")
        refusal = self._images and self._images.model_refusal(request)
        if refusal:
            raise validation_error(refusal)
        self._store.models[name] = ModelRecord(name, resource, request, self._store.next_number())
        self._store.tag(resource, request.get("Tags", ()))
        return {"ModelArn": resource}

    def _find(self, request: dict[str, Any]) -> ModelRecord:
        record = self._store.models.get(request["ModelName"])
        if record is None:
            raise validation_error(f'Could not find model "{arn("model/" + request["ModelName"])}".')
        return record

    async def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        """DescribeModel."""
        record = self._find(request)
        return {**record.request, "ModelArn": record.arn, "CreationTime": record.created}

    async def list(self, request: dict[str, Any]) -> dict[str, Any]:
        """ListModels."""

        def wanted(record: ModelRecord) -> bool:
            return (
                request.get("NameContains", "").lower() in record.name.lower()
                and record.created > request.get("CreationTimeAfter", 0)
                and record.created < request.get("CreationTimeBefore", float("inf"))
            )

        by_name = request.get("SortBy") == "Name"
        found, token = page(
            filter(wanted, self._store.models.values()),
            request,
            (lambda record: record.name) if by_name else (lambda record: record.created),
            size=10,
        )
        models = [{"ModelName": m.name, "ModelArn": m.arn, "CreationTime": m.created} for m in found]
        return {"Models": models, "NextToken": token}

    async def delete(self, request: dict[str, Any]) -> dict[str, Any]:
        """DeleteModel."""
        record = self._find(request)
        del self._store.models[record.name]
        self._store.tags.pop(record.arn, None)
        return {}
