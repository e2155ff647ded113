"""One execution of a pipeline: which step starts when, what it does, and how the execution ends.

As the service does it: a step starts when every step it needs has succeeded; when one fails, what does not
need it goes on, and the execution ends Failed. (That branches which have not begun still begin is how this
page reads the service's documentation; only an AWS account can settle it.) A step with CacheConfig takes the result
of an earlier execution of its pipeline that made the same request. A call that is refused, or a job that fails, with
a fault that the service retries or a policy of the step's names is made again; see pipelines_retries.py. Calls are
refused by the faults that somebody set (faults.py); a job fails with InternalServerError where its container cannot
be started here. The message of a Callback step is not sent to its queue: its token is in the step's Metadata, where
ListPipelineExecutionSteps shows it.
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
from typing import TYPE_CHECKING, Any, TypeVar

from ..lambda_functions import FunctionFailed, UnknownFunction
from ..service_error import ServiceError
from .definition import CALLS, NOT_INTERPRETED
from .expressions import StepError, Values, shown
from .retries import JOB_INTERNAL_ERROR, RESOURCE_LIMIT, Retries, fault_of_call, fault_of_job
from .step_run import StepRun

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..sagemaker.resources import JobRecord, PipelineRecord
    from ..sagemaker.tuning import TuningRecord
    from .definition import Definition, Made, Step
    from .expressions import ReadObject

    Handle = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
    Invoke = Callable[[str, Any], Awaitable[Any]]
    Finished = Callable[[Made, str], Awaitable[JobRecord | TuningRecord]]

__all__ = ["Execution"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_FAILED = "Step failure: One or multiple steps failed."
_REASON = 1024
_STEP_IN_NAME = 20
"""Characters of a step's name in its job's name: `pipelines-8pk6dxn4cfvl-Rossmann-Model-Train-bPVYsMzUlc`."""
_TOP = 50
"""The training jobs that a tuning step keeps, by the SDK's get_top_model_s3_uri."""
_LETTERS = 10
"""Random characters at the end of a job's name."""
_NO_POLICY = (
    "\nRetry not appropriate on execution of step with PipelineExecutionArn {arn} and StepId {step}."
    " No retry policy configured for the exception type SAGEMAKER_RESOURCE_LIMIT."
)
"""What the service adds to the reason of a step that met a quota (seen in executions that people published)."""
_ENDS = {
    "Completed": ("Succeeded",),
    "Failed": ("Failed",),
    "Stopped": ("Stopped",),
    "Any": ("Succeeded", "Failed", "Stopped"),
}
"""The statuses with which a step lets another one run, by that one's trigger."""
_PARALLEL = 200
"""The service's quota of steps that run at a time, where no ParallelismConfiguration says less."""


class _CallRefused(Exception):  # noqa: N818 - not always the end of the step
    """What a step makes is refused."""

    def __init__(self, operation: str, error: ServiceError) -> None:
        super().__init__(operation)
        self.operation = operation
        self.error = error

    def reason(self) -> str:
        """The step's FailureReason."""
        return (
            f"ClientError: Failed to invoke sagemaker:{self.operation}. Error Details: {self.error.message}"
        )


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
    finished: Finished
    invoke: Invoke
    read_object: ReadObject
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
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Something else than the end of a step may let steps start."""
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _stops: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values = Values(
            self.definition, self.parameters, self._variables, self._properties, self.read_object
        )

    async def run(self) -> None:
        """Run to the end; never raises."""
        try:
            await self._run()
        except Exception:
            log.exception("pipeline execution %s: the local emulator failed", self.arn)
            self.status, self.reason = "Failed", "InternalServerError: smssh local failed; see its log."
        self.modified = time.time()

    def stop(self) -> None:
        """Start no more steps, and stop the jobs of those that run."""
        self.status = "Stopping"
        self.modified = time.time()
        self._stopping.set()
        # Not waited for: a call that is throttled is repeated for half a minute.
        self._stops = [asyncio.create_task(self._stop_step(run)) for run in self.runs.values()]

    def limit(self, parallelism: dict[str, Any] | None) -> None:
        """Change how many steps may run at a time; more of them start at once where that is more."""
        self.parallelism = parallelism
        self.modified = time.time()
        self._changed.set()

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
        self._stopping.clear()
        self._attempts = {name: run.attempts for name, run in self.runs.items()}
        self.runs = {name: run for name, run in self.runs.items() if run.status == "Succeeded"}

    async def _run(self) -> None:
        active: set[asyncio.Task[Any]] = set()
        change = asyncio.create_task(self._changed.wait())
        try:
            while True:
                if change.done():
                    self._changed.clear()
                    change = asyncio.create_task(self._changed.wait())
                for run in self._ready(len(active)):
                    active.add(asyncio.create_task(self._step(run), name=f"step {run.step.name}"))
                if not active:
                    break
                done, _ = await asyncio.wait({*active, change}, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {change}:
                    task.result()
                active -= done
        finally:
            for task in (*active, change, *self._stops):
                task.cancel()
        if self.status == "Stopping":
            self.status = "Stopped"
        elif any(self._went_on(run.step) for run in self.runs.values()):
            self.status = "CompletedWithFailures"
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
            if run is None or run.status not in _ENDS[step.triggers.get(name, "Completed")]:
                return False
            if name == step.parent and run.outcome != step.branch:
                return False
        return True

    def _went_on(self, step: Step) -> bool:
        """Whether a step has run because one that it depends on did not end well."""
        ends = (run.status for name in step.triggers if (run := self.runs.get(name)) is not None)
        return any(status != "Succeeded" for status in ends)

    async def _step(self, run: StepRun) -> None:
        log.info("%s: step %s starts", self.id, run.step.name)
        try:
            status, reason = await self._end_of(run)
        except StepError as failure:
            status, reason = "Failed", f"ClientError: {failure}"
        run.status, run.reason, run.ended = status, (reason or "")[:_REASON] or None, time.time()
        self.modified = run.ended
        log.info("%s: step %s: %s", self.id, run.step.name, status)

    async def _end_of(self, run: StepRun) -> tuple[str, str | None]:
        """Run a step as its type wants it; answers its status and FailureReason."""
        step = run.step
        if step.type == "Condition":
            run.status = "Executing"
            conditions = step.arguments["Conditions"]
            run.outcome = all([await self.values.holds(condition) for condition in conditions])
            run.metadata = {"Condition": {"Outcome": str(run.outcome)}}
            return "Succeeded", None
        if step.type == "Fail":
            message = shown(await self.values.of(step.arguments.get("ErrorMessage", "")))
            run.metadata = {"Fail": {"ErrorMessage": message}}
            return "Failed", message
        if step.type == "Callback":
            return await self._wait_for_callback(run)
        if step.type == "Lambda":
            return await self._invoke(run)
        if step.type in NOT_INTERPRETED:
            return "Failed", f"ClientError: smssh local does not interpret steps of type '{step.type}'."
        return await self._make(run)

    async def _make(self, run: StepRun) -> tuple[str, str | None]:
        """Make what a step makes and see it through, again where its policies say so.

        Returns:
            The step's status and FailureReason.
        """
        retries = Retries(run.step.retries)
        while True:
            try:
                status, reason = await self._attempt(run)
                fault = fault_of_job(reason) if status == "Failed" else None
                if fault == JOB_INTERNAL_ERROR and CALLS[run.step.type].retries_itself:
                    fault = None
            except _CallRefused as refused:
                status, reason, fault = "Failed", refused.reason(), fault_of_call(refused.error)
                if fault == RESOURCE_LIMIT and retries.policy(fault) is None:
                    reason += _NO_POLICY.format(arn=self.arn, step=run.step.name)
            if fault is None:
                return status, reason
            seconds = retries.wait(fault)
            if seconds is None:
                return status, reason
            log.info("%s: step %s: %s: again in %.1f s", self.id, run.step.name, fault, seconds)
            run.made, run.status = None, "Starting"
            if await self._stopped_within(seconds):
                return "Stopped", None
            run.attempts += 1

    async def _attempt(self, run: StepRun) -> tuple[str, str | None]:
        """Make the job or model of a step and see it through; answers the step's status and FailureReason.

        Raises:
            _CallRefused: what it makes is refused.
        """
        call = CALLS[run.step.type]
        if run.step.type == "RegisterModel":
            return await self._register(run)
        given = run.step.arguments.get(call.name)
        prefix = shown(await self.values.of(given)) if given is not None else None
        name = self._job_name(run.step.name, prefix, call.longest)
        arguments = await self.values.of(run.step.arguments, {call.name: name})
        if self._take_from_cache(run, arguments):
            return "Succeeded", None
        tags = [
            *(arguments.get("Tags") or ()),
            {"Key": "sagemaker:pipeline-execution-arn", "Value": self.arn},
            {"Key": "sagemaker:pipeline-step-name", "Value": run.step.name},
        ]
        if self.status != "Executing":
            return "Stopped", None
        answer = await self._create(call.create, {**arguments, call.name: name, "Tags": tags})
        run.made = name
        run.metadata = {call.metadata: {"Arn": next(iter(answer.values()))}}
        run.status = "Executing"
        if call.kind is None:
            return "Succeeded", None
        if self.status != "Executing":
            # It was stopped while the call was under way, and found nothing to stop.
            await self._stop_step(run)
        record = await self.finished(call.kind, name)
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
            try:
                await self._call("DescribeModelPackageGroup", {"ModelPackageGroupName": group})
            except ServiceError:
                name = group.rpartition("/")[2]
                await self._create("CreateModelPackageGroup", {"ModelPackageGroupName": name})
        answer = await self._create("CreateModelPackage", arguments)
        run.made = answer["ModelPackageArn"]
        run.metadata = {"RegisterModel": {"Arn": run.made}}
        return "Succeeded", None

    async def _create(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Make a call whose retries are the step's.

        Raises:
            _CallRefused: it is refused.
        """
        try:
            return await self.handle(operation, request)
        except ServiceError as error:
            raise _CallRefused(operation, error) from error

    async def _call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Make a call that the service retries by itself.

        Raises:
            ServiceError: it is refused, or was once too often.
        """
        return await self._patiently(lambda: self.handle(operation, request))

    @staticmethod
    async def _patiently(call: Callable[[], Awaitable[_T]]) -> _T:
        """Make any call, and again while it meets what the service retries without a policy.

        Raises:
            ServiceError: it is refused, or was once too often.
        """
        retries = Retries()
        while True:
            try:
                return await call()
            except ServiceError as error:
                fault = fault_of_call(error)
                seconds = retries.wait(fault) if fault is not None else None
                if seconds is None:
                    raise
            await asyncio.sleep(seconds)

    async def _stopped_within(self, seconds: float) -> bool:
        """Wait; true at once where the execution is stopped."""
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except asyncio.TimeoutError:
            return self.status != "Executing"
        return True

    async def _invoke(self, run: StepRun) -> tuple[str, str | None]:
        """Invoke the function of a Lambda step; answers the step's status and FailureReason."""
        arn = shown(await self.values.of(run.step.target))
        event = await self.values.of(run.step.arguments)
        if self._take_from_cache(run, {"FunctionArn": arn, "Event": event}):
            return "Succeeded", None
        if self.status != "Executing":
            return "Stopped", None
        run.status, run.metadata = "Executing", {"Lambda": {"Arn": arn}}
        try:
            returned = await self._patiently(lambda: self.invoke(arn, event))
        except ServiceError as error:
            return "Failed", f"ClientError: Failed to invoke lambda:Invoke. Error Details: {error.message}"
        except UnknownFunction as why:
            return "Failed", f"ClientError: smssh local does not interpret this step of type 'Lambda': {why}."
        except FunctionFailed as failure:
            return "Failed", f"ClientError: The function {arn} failed: {failure}"
        found = returned if isinstance(returned, dict) else {}
        run.outputs = {
            name: _typed(name, found[name], kind) for name, kind in run.step.outputs.items() if name in found
        }
        listed = [{"Name": name, "Value": shown(value)} for name, value in run.outputs.items()]
        run.metadata = {"Lambda": {"Arn": arn, "OutputParameters": listed or None}}
        self._keep_in_cache(run)
        return "Succeeded", None

    async def _wait_for_callback(self, run: StepRun) -> tuple[str, str | None]:
        """Wait until somebody sends the step's token back, or the execution is stopped."""
        queue = shown(await self.values.of(run.step.target))
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
        call = CALLS.get(run.step.type)
        unlike = {call.name if call is not None else "", "Tags", "ExperimentConfig"}
        request = {name: value for name, value in arguments.items() if name not in unlike}
        run.request = json.dumps([run.step.type, run.step.name, request], sort_keys=True)
        found = self.pipeline.cache.get(run.request)
        if found is None or time.time() - found[0].started > run.step.cache:
            return False
        run.made, run.metadata, run.cached_from = found[0].made, found[0].metadata, found[1]
        run.outputs = found[0].outputs
        return True

    def _keep_in_cache(self, run: StepRun) -> None:
        if run.request is not None:
            self.pipeline.cache[run.request] = (run, self.arn)

    def _job_name(self, step: str, prefix: str | None, longest: int) -> str:
        letters = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(_LETTERS))
        room = longest - len(self.id) - _LETTERS - 2
        if prefix is not None:
            return f"{prefix[:room].rstrip('-')}-{self.id}-{letters}"
        if room < _STEP_IN_NAME:
            # A tuning job's name is short.
            return f"{self.id}-{step[:room].replace('_', '-')}-{letters}"
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
            await self._call(call.create.replace("Create", "Stop"), {call.name: run.made})
        except ServiceError as error:
            # It has just ended by itself, or somebody wants the call to fail.
            log.info("%s: %s is not stopped: %s", self.id, run.made, error)

    async def _properties(self, name: str) -> dict[str, Any]:
        run = self.runs[name]
        if run.step.type == "Condition":
            return {"Outcome": run.outcome}
        if run.step.type in ("Callback", "Lambda"):
            return {"OutputParameters": run.outputs}
        call = CALLS[run.step.type]
        try:
            described = await self._call(call.describe, {call.name: run.made})
            if call.lists is None:
                return described
            # Of a tuning job: its training jobs, the best first; a step keeps 50 of them.
            config, several = (
                described["HyperParameterTuningJobConfig"],
                described.get("TrainingJobDefinitions"),
            )
            objective = several[0].get("TuningObjective") if several else None
            objective = objective or config["HyperParameterTuningJobObjective"]
            down = objective["Type"] == "Maximize"
            request = {
                call.name: run.made,
                "SortBy": "FinalObjectiveMetricValue",
                "SortOrder": "Descending" if down else "Ascending",
                "MaxResults": _TOP,
            }
            return {**described, **await self._call(call.lists, request)}
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


def _typed(name: str, value: Any, kind: str) -> Any:
    """An output of a function, as its type says.

    Raises:
        StepError: it is of another type.
    """
    if kind == "String":
        return value if isinstance(value, str) else shown(value)
    types = {"Integer": (int,), "Float": (int, float), "Boolean": (bool,)}[kind]
    if isinstance(value, types) and (kind == "Boolean" or not isinstance(value, bool)):
        return value
    raise StepError(f"The output '{name}' must be of type {kind}; the function returned '{shown(value)}'.")


def _instant(seconds: float) -> str:
    instant = datetime.fromtimestamp(seconds, timezone.utc)
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
