"""One execution of a pipeline: which step starts when, what it does, and how the execution ends.

As the service does it: a step starts when every step it needs has succeeded; when one fails, what does not
need it goes on, and the execution ends Failed. (That branches which have not begun still begin is how this
page reads the service's documentation; only an AWS account can settle it.) A step with CacheConfig takes the result
of an earlier execution of its pipeline that made the same request. RetryPolicies never act: none of the
faults that they name happens here. The message of a Callback step is not sent to its queue: its token is in the
step's Metadata, where ListPipelineExecutionSteps shows it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import string
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from .pipelines_definition import CALLS, NOT_INTERPRETED
from .pipelines_values import StepError, Values, shown
from .service_error import ServiceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .pipelines_definition import Definition, Step
    from .pipelines_values import ReadObject
    from .sagemaker_jobs import Jobs
    from .sagemaker_store import PipelineRecord

    Handle = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]

__all__ = ["Execution", "StepRun"]

log = logging.getLogger(__name__)

_FAILED = "Step failure: One or multiple steps failed."
_REASON = 1024
_STEP_IN_NAME = 20
"""Characters of a step's name in its job's name: `pipelines-8pk6dxn4cfvl-Rossmann-Model-Train-bPVYsMzUlc`."""
_PREFIX = 39
"""Longest prefix of one's own (PipelineDefinitionConfig): 63 less an id, ten letters and two hyphens."""
_PARALLEL = 200
"""The service's quota of steps that run at a time, where no ParallelismConfiguration says less."""


@dataclass
class StepRun:
    """One step of an execution, from the moment it starts. Times are seconds since the epoch."""

    step: Step
    number: int
    status: str = "Starting"
    started: float = field(default_factory=time.time)
    ended: float | None = None
    reason: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    attempts: int = 1
    outcome: bool | None = None
    """Of a Condition step."""
    made: str | None = None
    """The name of its job or model, or the ARN of its model package."""
    outputs: dict[str, str] = field(default_factory=dict)
    """The output parameters of a Callback step."""
    token: str | None = None
    """What a Callback step is called back by, while it waits."""
    request: str | None = None
    """What it asked for, where a later execution may take its result."""
    answer: asyncio.Future[tuple[str, str | None]] | None = None
    """Of a Callback step: the status and reason that it is given."""
    cached_from: str | None = None
    """The ARN of the execution that its result was taken from."""
    selected_from: str | None = None
    """The ARN of the execution that a selective one takes it from."""

    def summary(self) -> dict[str, Any]:
        """As ListPipelineExecutionSteps shows it."""
        return {
            "StepName": self.step.name,
            "StepDisplayName": self.step.display_name,
            "StepDescription": self.step.description,
            "StartTime": self.started,
            "EndTime": self.ended,
            "StepStatus": self.status,
            "FailureReason": self.reason or None,
            "Metadata": self.metadata,
            "AttemptCount": self.attempts,
            "CacheHitResult": {"SourcePipelineExecutionArn": self.cached_from} if self.cached_from else None,
            "SelectiveExecutionResult": (
                {"SourcePipelineExecutionArn": self.selected_from} if self.selected_from else None
            ),
        }


@dataclass
class Execution:
    """One execution."""

    id: str
    arn: str
    number: int
    pipeline: PipelineRecord
    version: int
    definition: Definition
    parameters: dict[str, Any]
    display_name: str
    description: str | None
    parallelism: dict[str, Any] | None
    handle: Handle
    jobs: Jobs
    read_object: ReadObject
    ensure_group: Callable[[str], None]
    status: str = "Executing"
    reason: str | None = None
    created: float = field(default_factory=time.time)
    modified: float = field(default_factory=time.time)
    runs: dict[str, StepRun] = field(default_factory=dict)
    selective: dict[str, Any] | None = None
    """As DescribePipelineExecution shows it."""
    _selected: set[str] | None = None
    """The steps of a selective execution; None: all."""
    _count: int = 0
    _attempts: dict[str, int] = field(default_factory=dict)
    """Of steps that a retry starts again."""

    def __post_init__(self) -> None:
        self.values = Values(
            self.definition, self.parameters, self._variables, self._properties, self.read_object
        )

    async def run(self) -> None:
        """Run to the end; never raises."""
        try:
            await self._run()
        except Exception:
            log.exception("pipeline execution %s: the stand-in failed", self.arn)
            self.status, self.reason = "Failed", "InternalServerError: smssh local failed; see its log."
        self.modified = time.time()

    async def stop(self) -> None:
        """Start no more steps, and stop the jobs of those that run."""
        self.status = "Stopping"
        self.modified = time.time()
        for run in self.runs.values():
            await self._stop_step(run)

    def select(self, names: list[str], source: Execution | None) -> None:
        """Run some steps only; what they need and is not among them is taken from another execution.

        Args:
            names: of the steps.
            source: that execution, if there is one.
        """
        self._selected = set(names)
        self.selective = {"SelectedSteps": [{"StepName": name} for name in names]}
        if source is None:
            return
        self.selective["SourcePipelineExecutionArn"] = source.arn
        for name, run in source.runs.items():
            if name in self._selected or name not in self.definition.steps or run.status != "Succeeded":
                continue
            self._count += 1
            step = self.definition.steps[name]
            self.runs[name] = replace(run, step=step, number=self._count, selected_from=source.arn)

    def call_back(self, token: str, outputs: dict[str, str], failure: str | None) -> bool:
        """End the Callback step that waits for a token.

        Args:
            token: the token.
            outputs: the output parameters.
            failure: why it fails; None: it succeeds.

        Returns:
            Whether one of the steps waits for it.
        """
        for run in self.runs.values():
            if run.token == token and run.answer is not None and not run.answer.done():
                run.outputs = outputs
                listed = [{"Name": name, "Value": value} for name, value in outputs.items()]
                run.metadata["Callback"]["OutputParameters"] = listed or None
                run.answer.set_result(("Succeeded", None) if failure is None else ("Failed", failure))
                return True
        return False

    def prepare_retry(self) -> None:
        """Forget every step that did not succeed, so that `run` starts it again."""
        self.status, self.reason = "Executing", None
        self.modified = time.time()
        self._attempts = {name: run.attempts for name, run in self.runs.items()}
        self.runs = {name: run for name, run in self.runs.items() if run.status == "Succeeded"}

    async def _run(self) -> None:
        active: set[asyncio.Task[None]] = set()
        try:
            while True:
                for run in self._ready(len(active)):
                    active.add(asyncio.create_task(self._step(run), name=f"step {run.step.name}"))
                if not active:
                    break
                done, active = await asyncio.wait(active, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in active:
                task.cancel()
        if self.status == "Stopping":
            self.status = "Stopped"
        elif any(run.status != "Succeeded" for run in self.runs.values()):
            self.status, self.reason = "Failed", _FAILED
        else:
            self.status = "Succeeded"

    def _ready(self, active: int) -> list[StepRun]:
        """Open a run for each step that may start now."""
        if self.status != "Executing":
            return []
        limit = (self.parallelism or {}).get("MaxParallelExecutionSteps", _PARALLEL)
        ready: list[StepRun] = []
        for step in self.definition.steps.values():
            if step.name in self.runs or active + len(ready) >= limit or not self._may_start(step):
                continue
            self._count += 1
            run = StepRun(step, self._count, attempts=self._attempts.get(step.name, 0) + 1)
            self.runs[step.name] = run
            ready.append(run)
        return ready

    def _may_start(self, step: Step) -> bool:
        if self._selected is not None and step.name not in self._selected:
            return False
        for name in step.needs:
            run = self.runs.get(name)
            if run is None or run.status != "Succeeded":
                return False
            if name == step.parent and run.outcome != step.branch:
                return False
        return True

    async def _step(self, run: StepRun) -> None:
        log.info("%s: step %s starts", self.id, run.step.name)
        try:
            if run.step.type == "Condition":
                run.status = "Executing"
                conditions = run.step.arguments["Conditions"]
                run.outcome = all([await self.values.holds(condition) for condition in conditions])
                run.metadata = {"Condition": {"Outcome": str(run.outcome)}}
                status, reason = "Succeeded", None
            elif run.step.type == "Fail":
                message = shown(await self.values.of(run.step.arguments.get("ErrorMessage", "")))
                run.metadata = {"Fail": {"ErrorMessage": message}}
                status, reason = "Failed", message
            elif run.step.type == "Callback":
                status, reason = await self._wait_for_callback(run)
            elif run.step.type in NOT_INTERPRETED:
                status = "Failed"
                reason = f"ClientError: smssh local does not interpret steps of type '{run.step.type}'."
            else:
                status, reason = await self._make(run)
        except StepError as failure:
            status, reason = "Failed", f"ClientError: {failure}"
        run.status, run.reason, run.ended = status, (reason or "")[:_REASON] or None, time.time()
        self.modified = run.ended
        log.info("%s: step %s: %s", self.id, run.step.name, status)

    async def _make(self, run: StepRun) -> tuple[str, str | None]:
        """Make the job or model of a step and see it through; answers the step's status and FailureReason."""
        call = CALLS[run.step.type]
        if run.step.type == "RegisterModel":
            return await self._register(run)
        given = run.step.arguments.get(call.name)
        prefix = shown(await self.values.of(given)) if given is not None else None
        name = self._job_name(run.step.name, prefix)
        arguments = await self.values.of(run.step.arguments, {call.name: name})
        if self._take_from_cache(run, arguments):
            return "Succeeded", None
        tags = [
            *arguments.get("Tags", ()),
            {"Key": "sagemaker:pipeline-execution-arn", "Value": self.arn},
            {"Key": "sagemaker:pipeline-step-name", "Value": run.step.name},
        ]
        if self.status != "Executing":
            return "Stopped", None
        try:
            answer = await self.handle(call.create, {**arguments, call.name: name, "Tags": tags})
        except ServiceError as error:
            return (
                "Failed",
                f"ClientError: Failed to invoke sagemaker:{call.create}. Error Details: {error.message}",
            )
        run.made = name
        run.metadata = {call.metadata: {"Arn": next(iter(answer.values()))}}
        run.status = "Executing"
        if call.kind is None:
            return "Succeeded", None
        record = await self.jobs.finished(call.kind, name)
        if record.status == "Completed":
            self._keep_in_cache(run)
            return "Succeeded", None
        if record.status == "Stopped" and self.status == "Stopping":
            return "Stopped", None
        return "Failed", record.failure_reason or f"ClientError: The {call.kind} job {name} was stopped."

    async def _register(self, run: StepRun) -> tuple[str, str | None]:
        """Register a model package; a group that does not exist is made, as the service does for a pipeline."""
        arguments = await self.values.of(run.step.arguments)
        group = arguments.get("ModelPackageGroupName")
        if isinstance(group, str):
            self.ensure_group(group)
        try:
            answer = await self.handle("CreateModelPackage", arguments)
        except ServiceError as error:
            return (
                "Failed",
                f"ClientError: Failed to invoke sagemaker:CreateModelPackage. Error Details: {error.message}",
            )
        run.made = answer["ModelPackageArn"]
        run.metadata = {"RegisterModel": {"Arn": run.made}}
        return "Succeeded", None

    async def _wait_for_callback(self, run: StepRun) -> tuple[str, str | None]:
        """Wait until somebody sends the step's token back, or the execution is stopped."""
        queue = shown(await self.values.of(run.step.queue))
        run.token = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(10))
        run.metadata = {"Callback": {"CallbackToken": run.token, "SqsQueueUrl": queue}}
        run.answer = asyncio.get_running_loop().create_future()
        run.status = "Executing"
        if self.status != "Executing":
            return "Stopped", None
        return await run.answer

    def _take_from_cache(self, run: StepRun, arguments: dict[str, Any]) -> bool:
        """Take the result of an earlier execution that made the same request, if the step may."""
        if run.step.cache is None:
            return False
        unlike = {CALLS[run.step.type].name, "Tags", "ExperimentConfig"}
        request = {name: value for name, value in arguments.items() if name not in unlike}
        run.request = json.dumps([run.step.type, run.step.name, request], sort_keys=True)
        found = self.pipeline.cache.get(run.request)
        if found is None or time.time() - found[0].started > run.step.cache:
            return False
        run.made, run.metadata, run.cached_from = found[0].made, found[0].metadata, found[1]
        return True

    def _keep_in_cache(self, run: StepRun) -> None:
        if run.request is not None:
            self.pipeline.cache[run.request] = (run, self.arn)

    def _job_name(self, step: str, prefix: str | None) -> str:
        letters = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(10))
        if prefix is not None:
            return f"{prefix[:_PREFIX].rstrip('-')}-{self.id}-{letters}"
        return f"pipelines-{self.id}-{step[:_STEP_IN_NAME].replace('_', '-')}-{letters}"

    async def _stop_step(self, run: StepRun) -> None:
        if run.answer is not None and not run.answer.done():
            run.answer.set_result(("Stopped", None))
            return
        call = CALLS.get(run.step.type)
        if call is None or call.kind is None or run.made is None or run.status != "Executing":
            return
        run.status = "Stopping"
        try:
            await self.handle(call.create.replace("Create", "Stop"), {call.name: run.made})
        except ServiceError:
            # It has just ended by itself.
            log.debug("%s: %s had ended", self.id, run.made)

    async def _properties(self, name: str) -> dict[str, Any]:
        run = self.runs[name]
        if run.step.type == "Condition":
            return {"Outcome": run.outcome}
        if run.step.type == "Callback":
            return {"OutputParameters": run.outputs}
        call = CALLS[run.step.type]
        try:
            return await self.handle(call.describe, {call.name: run.made})
        except ServiceError as error:
            raise StepError(
                f"Failed to invoke sagemaker:{call.describe}. Error Details: {error.message}"
            ) from None

    def _variables(self) -> dict[str, str]:
        return {
            "StartDateTime": _instant(self.created),
            "CurrentDateTime": _instant(time.time()),
            "PipelineName": self.pipeline.name,
            "PipelineArn": self.pipeline.arn,
            "PipelineExecutionId": self.id,
            "PipelineExecutionArn": self.arn,
        }


def _instant(seconds: float) -> str:
    instant = datetime.fromtimestamp(seconds, timezone.utc)
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
