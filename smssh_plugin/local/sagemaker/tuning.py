"""The local emulator's hyperparameter tuning jobs: each runs real training jobs, within the limits of its request.

The values are drawn at random from the ranges (of the request's RandomSeed, where it has one), or, with the Grid
strategy, are every combination in turn. Bayesian and Hyperband search as Random does here: what a strategy learns from
earlier jobs, and early stopping of jobs, are the service's own. Several definitions take turns. The objective is read
from the logs of a job by the request's MetricDefinitions, as that of every training job is.

Facts: the API reference; names and hyperparameters of training jobs as notebooks that people published show them.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import random
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..service_error import ServiceError
from .resources import JobRecord, Store, arn, page
from .shapes import validation_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

__all__ = ["Tuning", "TuningRecord"]

log = logging.getLogger(__name__)

_MOST = 750
"""Training jobs of one tuning job: the service's quota, where the request has no number."""
_COPIED = (
    "RoleArn",
    "InputDataConfig",
    "VpcConfig",
    "OutputDataConfig",
    "StoppingCondition",
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
    "EnableManagedSpotTraining",
    "CheckpointConfig",
    "RetryStrategy",
    "Environment",
)
"""The members of a definition that its training jobs have as they are."""
_OBJECTIVE = "_tuning_objective_metric"
"""The hyperparameter by which the service names the objective; toolkits take it out again."""


@dataclass
class _Trial:
    """One training job of a tuning job."""

    job: JobRecord
    definition: dict[str, Any]
    objective: dict[str, str]
    tuned: dict[str, str]
    number: int
    """That of its job."""

    @property
    def value(self) -> float | None:
        """The objective's value, once the job has ended with one."""
        found = self.job.metrics.get(self.objective["MetricName"])
        return found[0] if found is not None and self.job.status in ("Completed", "Stopped") else None


@dataclass
class TuningRecord:
    """One tuning job. Times are seconds since the epoch."""

    name: str
    arn: str
    request: dict[str, Any]
    number: int
    status: str = "InProgress"
    failure_reason: str | None = None
    created: float = field(default_factory=time.time)
    modified: float = field(default_factory=time.time)
    ended: float | None = None
    trials: list[_Trial] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def turn(self, status: str, reason: str | None = None) -> None:
        """Take a status."""
        self.status, self.failure_reason, self.modified = status, reason, time.time()


class Tuning:
    """Create, describe, list and stop tuning jobs.

    Args:
        store: where training jobs and tags are kept.
        handle: answers the requests for training jobs.
    """

    def __init__(
        self, store: Store, handle: Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
    ) -> None:
        self._store = store
        self._handle = handle
        self._records: dict[str, TuningRecord] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def operations(self) -> dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]]:
        """The API operations, by name."""
        return {
            "CreateHyperParameterTuningJob": self._create,
            "DescribeHyperParameterTuningJob": self._describe,
            "ListHyperParameterTuningJobs": self._list,
            "StopHyperParameterTuningJob": self._stop,
            "ListTrainingJobsForHyperParameterTuningJob": self._list_trials,
        }

    def has(self, name: str) -> bool:
        """Whether there is a tuning job of that name."""
        return name in self._records

    async def finished(self, name: str) -> TuningRecord:
        """Wait until a tuning job has ended."""
        record = self._records[name]
        await record.done.wait()
        return record

    def halt(self) -> None:
        """Start no more training jobs."""
        for record in self._records.values():
            record.stop.set()

    async def settled(self, seconds: float) -> None:
        """Wait until no tuning job runs, for at most `seconds`; then cut off what still does."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()

    async def _create(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["HyperParameterTuningJobName"]
        resource = arn(f"hyper-parameter-tuning-job/{name}")
        if any(name.lower() == other.lower() for other in self._records):
            raise ServiceError(
                "ResourceInUse",
                "Tuning job names must be unique within an AWS account and region, "
                f"and a tuning job with this name already exists ({resource})",
            )
        for member in ("WarmStartConfig", "Autotune"):
            if request.get(member) is not None:
                raise validation_error(f"smssh local does not interpret {member}.")
        plans = _plans(request)
        record = TuningRecord(name, resource, request, self._store.next_number())
        self._records[name] = record
        self._store.tag(resource, request.get("Tags") or ())
        task = asyncio.get_running_loop().create_task(self._run(record, plans), name=f"tuning job {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return {"HyperParameterTuningJobArn": resource}

    async def _run(self, record: TuningRecord, plans: Iterator[_Plan]) -> None:
        try:
            await self._tune(record, plans)
        except Exception:  # a fault of the emulator's own: the job says so, and nobody waits for it for ever
            log.exception("tuning job %s: smssh local failed", record.name)
            record.turn("Failed", "InternalServerError: We encountered an internal error. Please try again.")
        record.ended = record.modified
        record.done.set()

    async def _tune(self, record: TuningRecord, plans: Iterator[_Plan]) -> None:
        config = record.request["HyperParameterTuningJobConfig"]
        limits = config["ResourceLimits"]
        most = limits.get("MaxNumberOfTrainingJobs") or _MOST
        together, seconds = limits["MaxParallelTrainingJobs"], limits.get("MaxRuntimeInSeconds")
        waiting: dict[asyncio.Task[Any], _Trial] = {}
        stop = asyncio.create_task(record.stop.wait())
        enough = reached = False
        try:
            while True:
                left = None if seconds is None else record.created + seconds - time.time()
                if not enough and (record.stop.is_set() or reached or (left is not None and left <= 0)):
                    enough = True
                    for trial in waiting.values():
                        await self._stop_trial(trial)
                while not enough and len(record.trials) < most and len(waiting) < together:
                    plan = next(plans, None)
                    if plan is None:
                        break
                    trial = await self._start(record, plan)
                    waiting[asyncio.create_task(trial.job.done.wait())] = trial
                if not waiting:
                    break
                done, _ = await asyncio.wait(
                    waiting if enough else {*waiting, stop},
                    timeout=None if enough else left,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                ended = [waiting.pop(task) for task in done if task is not stop]
                reached = any(_reached(config, trial) for trial in ended)
        except ServiceError as refused:
            for trial in waiting.values():
                await self._stop_trial(trial)
            for trial in waiting.values():
                await trial.job.done.wait()
            record.turn("Failed", f"ClientError: {refused.message}")
            return
        finally:
            for task in (*waiting, stop):
                task.cancel()
        self._conclude(record)

    @staticmethod
    def _conclude(record: TuningRecord) -> None:
        """Say how a tuning job has ended, from its trials."""
        if record.stop.is_set():
            record.turn("Stopped")
        elif all(trial.job.status == "Failed" for trial in record.trials):
            record.turn(
                "Failed",
                "All training jobs failed. Please take a look at the training job failures to get more details.",
            )
        elif all(trial.value is None for trial in record.trials):
            record.turn(
                "Failed",
                f"No objective metrics found after running {len(record.trials)} training jobs. Please ensure that the "
                "custom algorithm is emitting the objective metric as defined by the regular expression provided.",
            )
        else:
            record.turn("Completed")

    async def _start(self, record: TuningRecord, plan: _Plan) -> _Trial:
        """Start the next training job.

        Raises:
            ServiceError: it is refused.
        """
        name = f"{record.name}-{len(record.trials) + 1:03}-{secrets.token_hex(4)}"
        given = plan.definition
        resources = given.get("ResourceConfig")
        if resources is None:
            resources = dict(given.get("HyperParameterTuningResourceConfig") or {})
            # The first of several that would do; the service takes the first that it has.
            resources |= (resources.pop("InstanceConfigs", None) or [{}])[0]
            resources.pop("AllocationStrategy", None)
        hyperparameters = {**(given.get("StaticHyperParameters") or {}), **plan.values}
        hyperparameters[_OBJECTIVE] = plan.objective["MetricName"]
        request = {
            "TrainingJobName": name,
            "AlgorithmSpecification": given["AlgorithmSpecification"],
            "HyperParameters": hyperparameters,
            "ResourceConfig": resources,
            **{member: given[member] for member in _COPIED if given.get(member) is not None},
            # The jobs have the tags of their tuning job.
            **({"Tags": record.request["Tags"]} if record.request.get("Tags") else {}),
        }
        await self._handle("CreateTrainingJob", request)
        job = self._store.jobs["training"][name]
        job.tuning = record.arn
        trial = _Trial(job, given, plan.objective, plan.values, job.number)
        record.trials.append(trial)
        return trial

    async def _stop_trial(self, trial: _Trial) -> None:
        try:
            await self._handle("StopTrainingJob", {"TrainingJobName": trial.job.name})
        except ServiceError:
            log.debug("%s had ended", trial.job.name)

    def _find(self, request: dict[str, Any]) -> TuningRecord:
        record = self._records.get(request["HyperParameterTuningJobName"])
        if record is None:
            name = request["HyperParameterTuningJobName"]
            raise ServiceError(
                "ResourceNotFound",
                f"Amazon SageMaker can't find a tuning job with the name {name}. Specify the correct name.",
            )
        return record

    async def _stop(self, request: dict[str, Any]) -> dict[str, Any]:
        record = self._find(request)
        if record.status == "InProgress":
            record.turn("Stopping")
            record.stop.set()
        return {}

    async def _describe(self, request: dict[str, Any]) -> dict[str, Any]:
        record = self._find(request)
        best = _best(record.trials)
        seconds = sum(int((one.job.ended or time.time()) - one.job.created) for one in record.trials)
        return {
            **record.request,
            **_overview(record),
            "FailureReason": record.failure_reason,
            "BestTrainingJob": _summary(best[0]) if best else None,
            "ConsumedResources": {"RuntimeInSeconds": seconds},
        }

    async def _list(self, request: dict[str, Any]) -> dict[str, Any]:
        def wanted(record: TuningRecord) -> bool:
            return (
                request.get("NameContains", "").lower() in record.name.lower()
                and record.status == request.get("StatusEquals", record.status)
                and request.get("CreationTimeAfter", 0) < record.created
                and record.created < request.get("CreationTimeBefore", math.inf)
                and request.get("LastModifiedTimeAfter", 0) < record.modified
                and record.modified < request.get("LastModifiedTimeBefore", math.inf)
            )

        keys: dict[str, Callable[[TuningRecord], Any]] = {
            "Name": lambda record: record.name,
            "Status": lambda record: record.status,
            "CreationTime": lambda record: record.created,
        }
        key = keys[request.get("SortBy", "CreationTime")]
        found, token = page(filter(wanted, self._records.values()), request, key, size=10)
        summaries = [
            {
                **_overview(record),
                "Strategy": record.request["HyperParameterTuningJobConfig"]["Strategy"],
                "ResourceLimits": record.request["HyperParameterTuningJobConfig"]["ResourceLimits"],
            }
            for record in found
        ]
        return {"HyperParameterTuningJobSummaries": summaries, "NextToken": token}

    async def _list_trials(self, request: dict[str, Any]) -> dict[str, Any]:
        record = self._find(request)
        by = request.get("SortBy", "Name")
        status = request.get("StatusEquals")
        # By the objective, jobs without one are not listed: so the API reference.
        chosen = [
            trial
            for trial in record.trials
            if status in (None, trial.job.status)
            and (by != "FinalObjectiveMetricValue" or trial.value is not None)
        ]
        keys: dict[str, Callable[[_Trial], Any]] = {
            "Name": lambda trial: trial.job.name,
            "CreationTime": lambda trial: trial.job.created,
            "Status": lambda trial: trial.job.status,
            "FinalObjectiveMetricValue": lambda trial: trial.value,
        }
        found, token = page(chosen, request, keys[by], order="Ascending", size=10)
        return {"TrainingJobSummaries": [_summary(trial) for trial in found], "NextToken": token}


@dataclass(frozen=True)
class _Plan:
    """What one training job is to be."""

    definition: dict[str, Any]
    objective: dict[str, str]
    values: dict[str, str]


def _plans(request: dict[str, Any]) -> Iterator[_Plan]:
    """The training jobs of a request, one after the other.

    Raises:
        ServiceError: ValidationException: the request is wrong in itself.
    """
    config = request["HyperParameterTuningJobConfig"]
    one, several = request.get("TrainingJobDefinition"), request.get("TrainingJobDefinitions")
    if (one is None) == (not several):
        raise validation_error(
            "Exactly one of TrainingJobDefinition and TrainingJobDefinitions must be specified."
        )
    chance = random.Random(config.get("RandomSeed"))  # noqa: S311 - no secret
    turns = []
    for definition in several or [one]:
        ranges = definition.get("HyperParameterRanges") or config.get("ParameterRanges") or {}
        objective = definition.get("TuningObjective") or config.get("HyperParameterTuningJobObjective")
        if objective is None:
            raise validation_error("HyperParameterTuningJobObjective is required for a tuning job.")
        if ranges.get("AutoParameters"):
            raise validation_error("smssh local does not interpret AutoParameters.")
        if (
            definition.get("ResourceConfig") is None
            and definition.get("HyperParameterTuningResourceConfig") is None
        ):
            raise validation_error("ResourceConfig is required for a training job.")
        metrics = definition["AlgorithmSpecification"].get("MetricDefinitions") or ()
        if objective["MetricName"] not in [metric["Name"] for metric in metrics]:
            # In the service's words, of images that are not its own algorithms; those do not run here.
            raise validation_error(
                "A metric is required for this hyperparameter tuning job objective. "
                "Provide a metric in the metric definitions."
            )
        choices = {entry["Name"]: entry["Values"] for entry in ranges.get("CategoricalParameterRanges") or ()}
        spans = {
            entry["Name"]: _Span.read(entry, whole)
            for kind, whole in (("IntegerParameterRanges", True), ("ContinuousParameterRanges", False))
            for entry in ranges.get(kind) or ()
        }
        if not choices and not spans:
            raise validation_error("At least one hyperparameter range is required for a tuning job.")
        if config["Strategy"] == "Grid" and spans:
            raise validation_error("Grid search supports categorical hyperparameters only.")
        draw = _grid(choices) if config["Strategy"] == "Grid" else _drawn(choices, spans, chance)
        turns.append((definition, objective, draw))
    return _in_turn(turns)


def _in_turn(turns: list[tuple[dict[str, Any], dict[str, str], Iterator[dict[str, str]]]]) -> Iterator[_Plan]:
    """A job of each definition in turn, until none has any more."""
    while turns:
        for turn in list(turns):
            definition, objective, draw = turn
            values = next(draw, None)
            if values is None:
                turns.remove(turn)
            else:
                yield _Plan(definition, objective, values)


@dataclass(frozen=True)
class _Span:
    """A range of numbers."""

    least: float
    most: float
    whole: bool
    scaling: str

    @classmethod
    def read(cls, entry: dict[str, str], whole: bool) -> _Span:
        """The range of an IntegerParameterRange or a ContinuousParameterRange.

        Raises:
            ServiceError: ValidationException: it is not a range.
        """
        name, scaling = entry["Name"], entry.get("ScalingType", "Auto")
        try:
            least, most = (
                float(int(entry[end]) if whole else entry[end]) for end in ("MinValue", "MaxValue")
            )
        except (ValueError, OverflowError):
            least = most = math.nan
        if not (math.isfinite(least) and math.isfinite(most) and least <= most):
            raise validation_error(
                f"The range of hyperparameter '{name}' is invalid: MinValue '{entry['MinValue']}', "
                f"MaxValue '{entry['MaxValue']}'."
            )
        if (scaling == "Logarithmic" and least <= 0) or (
            scaling == "ReverseLogarithmic" and (whole or least < 0 or most >= 1)
        ):
            raise validation_error(f"The range of hyperparameter '{name}' does not allow {scaling} scaling.")
        return cls(least, most, whole, scaling)

    def draw(self, chance: random.Random) -> str:
        """A value of it, as the hyperparameter has it."""
        if self.scaling == "Logarithmic":
            value = math.exp(chance.uniform(math.log(self.least), math.log(self.most)))
        elif self.scaling == "ReverseLogarithmic":
            value = 1 - math.exp(chance.uniform(math.log(1 - self.most), math.log(1 - self.least)))
        elif self.whole:
            return str(chance.randint(int(self.least), int(self.most)))
        else:
            value = chance.uniform(self.least, self.most)
        value = min(max(value, self.least), self.most)
        return str(round(value) if self.whole else value)


def _grid(choices: dict[str, list[str]]) -> Iterator[dict[str, str]]:
    """Every combination."""
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def _drawn(
    choices: dict[str, list[str]], spans: dict[str, _Span], chance: random.Random
) -> Iterator[dict[str, str]]:
    """One random combination after the other."""
    while True:
        yield {
            **{name: chance.choice(values) for name, values in choices.items()},
            **{name: span.draw(chance) for name, span in spans.items()},
        }


def _reached(config: dict[str, Any], trial: _Trial) -> bool:
    """Whether a training job has met the tuning job's TargetObjectiveMetricValue."""
    target = (config.get("TuningJobCompletionCriteria") or {}).get("TargetObjectiveMetricValue")
    if target is None or trial.value is None:
        return False
    return bool(trial.value >= target if trial.objective["Type"] == "Maximize" else trial.value <= target)


def _best(trials: list[_Trial]) -> list[_Trial]:
    """Those with a value of the objective, the best first."""

    def rank(trial: _Trial) -> tuple[float, int]:
        value = trial.value or 0.0
        return (value if trial.objective["Type"] == "Minimize" else -value), trial.number

    return sorted((trial for trial in trials if trial.value is not None), key=rank)


def _summary(trial: _Trial) -> dict[str, Any]:
    """As ListTrainingJobsForHyperParameterTuningJob shows it."""
    job, value = trial.job, trial.value
    objective = {"MetricName": trial.objective["MetricName"], "Value": value}
    return {
        "TrainingJobDefinitionName": trial.definition.get("DefinitionName"),
        "TrainingJobName": job.name,
        "TrainingJobArn": job.arn,
        "CreationTime": job.created,
        "TrainingStartTime": job.started,
        "TrainingEndTime": job.ended,
        "TrainingJobStatus": job.status,
        "TunedHyperParameters": trial.tuned,
        "FailureReason": job.failure_reason,
        "FinalHyperParameterTuningJobObjectiveMetric": None if value is None else objective,
        "ObjectiveStatus": (
            "Succeeded" if value is not None else "Failed" if job.done.is_set() else "Pending"
        ),
    }


def _overview(record: TuningRecord) -> dict[str, Any]:
    """What Describe and List both show."""
    states = [trial.job.status for trial in record.trials]
    objectives = [_summary(trial)["ObjectiveStatus"] for trial in record.trials]
    return {
        "HyperParameterTuningJobName": record.name,
        "HyperParameterTuningJobArn": record.arn,
        "HyperParameterTuningJobStatus": record.status,
        "CreationTime": record.created,
        "LastModifiedTime": record.modified,
        "HyperParameterTuningEndTime": record.ended,
        "TrainingJobStatusCounters": {
            "Completed": states.count("Completed"),
            "InProgress": states.count("InProgress") + states.count("Stopping"),
            "RetryableError": 0,
            "NonRetryableError": states.count("Failed"),
            "Stopped": states.count("Stopped"),
        },
        "ObjectiveStatusCounters": {
            name: objectives.count(name) for name in ("Succeeded", "Pending", "Failed")
        },
    }
