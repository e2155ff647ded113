"""What an execution is doing: its steps, and which of them are held. Nothing is changed here.

Of each look, the number of API calls depends on the number of steps (a page for 100) and of jobs that run at a time
(a filter for 50), and on nothing else: what more hosts cost is spread over the looks that follow.
"""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..aws.session import AwsSession, ServiceRefused
from ..client.addresses import StepAddress
from ..client.executions import describe_step, iteration_of, label_of, no_pipeline, steps_of
from ..client.job_names import StepJob, known, own_names
from ..client.managed_nodes import NAMES_A_FILTER, Node, living_nodes, node_of
from ..definitions import named_steps
from ..errors import ExitStatus, SmsshError
from .incidents import EXECUTION_ENDED, EXECUTION_RUNS, STEP_ENDED, Event, Step

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Snapshot", "Watch", "changes", "step_names"]

ASK_SECONDS = 10.0
"""How often it is asked which containers do not tag themselves, at most."""
NAMES_SECONDS = 4.0
"""How often nodes are asked for the own names of jobs whose ARNs do not tell them, at most."""
CALLS_A_LOOK = 9
"""API calls of a look that are not exceeded for tags of nodes: those that were not read are read in the next looks."""
ITEM_LIMIT = 200
"""Characters of the item of an iteration that are kept; the service has 12,800."""


@dataclass(frozen=True)
class Snapshot:
    """One look at an execution.

    Attributes:
        status: Executing, Stopping, Stopped, Failed, Succeeded, CompletedWithFailures, or one that is newer than this
            program.
        failure_reason: the execution's.
        started: when it started.
        ended: when it ended; None while it runs.
        steps: those that have started.
        held: hosts whose tags say that they are held.
        silent: hosts that are online and never said what they are doing: to be asked.
        busy: whether this look took more calls than most.
    """

    status: str
    failure_reason: str
    started: float | None
    ended: float | None
    steps: list[Step]
    held: list[Node]
    silent: list[Node]
    busy: bool = False

    @property
    def finished(self) -> bool:
        """Whether the execution has ended."""
        return self.status in EXECUTION_ENDED

    @property
    def unknown(self) -> bool:
        """Whether the execution has a status that nobody here has heard of."""
        return self.status not in (*EXECUTION_RUNS, *EXECUTION_ENDED)

    @property
    def running(self) -> bool:
        """Whether a step has not ended."""
        return any(step.status not in STEP_ENDED for step in self.steps)


class Watch:
    """Polls one execution of a pipeline.

    Args:
        aws: the AWS session.
        pipeline: the name of the pipeline.
        arn: the ARN of the execution.
        names: of the steps in the pipeline's definition; empty: unknown.
    """

    def __init__(self, aws: AwsSession, pipeline: str, arn: str, names: Collection[str] = ()) -> None:
        self._aws = _Counted(aws)
        self._pipeline = pipeline
        self._arn = arn
        self._defined = names
        self._execution = arn.rpartition("/")[2]
        self._names: dict[str, set[str]] = {}
        """The own names of jobs whose ARNs do not tell them, by what those have: several where nodes disagree."""
        self._nodes: dict[str, Node | None] = {}
        """What the tags of online nodes of running jobs say, by target; None: deregistered when they were read."""
        self._silent: dict[str, dict[str, Any]] = {}
        """The nodes without a state by target, as they were when that was asked last."""
        self._next_ask = 0.0
        self._next_names = 0.0

    def look(self) -> Snapshot:
        """Look once.

        Of 200 steps and 20 jobs that run on 4 hosts each: `CALLS_A_LOOK` API calls at most.

        Raises:
            SmsshError: NOT_FOUND: no such execution; or what went wrong with AWS.
        """
        self._aws.calls = 0
        try:
            answer = self._aws.call(
                "sagemaker", "describe_pipeline_execution", PipelineExecutionArn=self._arn
            )
        except ServiceRefused as error:
            if error.passing:
                raise
            raise SmsshError(
                f"there is no execution {self._execution!r} of pipeline {self._pipeline!r}",
                hint=error.message,
                reference="no-execution",
                status=ExitStatus.NOT_FOUND,
            ) from error
        status = str(answer["PipelineExecutionStatus"])
        raw = steps_of(self._aws, self._arn)
        jobs = [
            job
            for one in raw
            if one.get("StepStatus") not in STEP_ENDED and not _taken(one) and (job := describe_step(one))
        ]
        held, silent, busy = self._look_at_nodes(jobs) if jobs else ([], [], False)
        return Snapshot(
            status=status,
            failure_reason=str(answer.get("FailureReason", "")),
            started=_seconds(answer.get("CreationTime")),
            ended=_seconds(answer.get("LastModifiedTime")) if status in EXECUTION_ENDED else None,
            steps=[self._step(one) for one in raw],
            held=held,
            silent=silent,
            busy=busy,
        )

    def forget(self, target: str) -> None:
        """Read the tags of a node anew: it could not be entered as they say."""
        self._nodes.pop(target, None)

    def _step(self, one: dict[str, Any]) -> Step:
        job = describe_step(one)
        metadata = one.get("Metadata", {})
        context = one.get("IterationContext") or {}
        name, label = str(one["StepName"]), label_of(one)
        if iteration_of(one) is not None and self._defined and name not in self._defined:
            # The service has the index in the name already.
            name, label = name.removesuffix(f"-{iteration_of(one)}"), name
        attempt = one.get("AttemptCount")
        cached = _taken(one)
        address = str(StepAddress(None, label, self._execution, self._pipeline))
        return Step(
            name=label,
            kind=job.kind if job else next(iter(metadata), ""),
            status=str(one.get("StepStatus", "")),
            job=self._name(job) if job else "",
            address=address if job and not cached else "",
            started=_seconds(one.get("StartTime")),
            ended=_seconds(one.get("EndTime")),
            failure_reason=str(one.get("FailureReason", "")),
            cached=cached,
            defined=name,
            parent=str(context.get("ParentStepName") or ""),
            item=str(context.get("Item") or "")[:ITEM_LIMIT],
            attempt=attempt if isinstance(attempt, int) and attempt > 0 else 1,
        )

    def _name(self, job: StepJob) -> str:
        own = self._names.get(job.names[0], ())
        return next(iter(own)) if len(own) == 1 else job.names[-1]

    def _look_at_nodes(self, jobs: list[StepJob]) -> tuple[list[Node], list[Node], bool]:
        """The held hosts of these jobs, those that never said what they do, and whether it took many calls."""
        asked = self._ask_names(jobs)
        # By which names a node may claim to be of these jobs, and the jobs' kinds.
        names = {name: job.kind for job in jobs for name in sorted(self._names.get(job.names[0], job.names))}
        filters = [
            {"Key": "tag:SMSSHJob", "Values": list(names)[start : start + NAMES_A_FILTER]}
            for start in range(0, len(names), NAMES_A_FILTER)
        ]
        held = self._online(filters, {"Key": "tag:SMSSHState", "Values": ["held"]})
        asked = asked or bool(held.keys() - self._nodes.keys())
        if not asked and time.monotonic() >= self._next_ask:
            asked = True
            self._next_ask = time.monotonic() + ASK_SECONDS
            told = self._online(filters, {"Key": "tag-key", "Values": ["SMSSHState"]})
            online = self._online(filters)
            self._silent = {target: info for target, info in online.items() if target not in told}
        infos = {**self._silent, **held}
        self._nodes = {target: node for target, node in self._nodes.items() if target in infos}
        unread = sorted(infos.keys() - self._nodes.keys(), key=lambda target: target not in held)
        for target in unread[: max(1, CALLS_A_LOOK - self._aws.calls)]:
            self._nodes[target] = node_of(self._aws, infos[target])
        nodes = [
            node for node in self._nodes.values() if node is not None and node.kind == names.get(node.job)
        ]
        return (
            [node for node in nodes if node.target in held],
            [node for node in nodes if node.target not in held and node.state is None],
            asked or bool(unread),
        )

    def _online(self, filters: list[dict[str, Any]], *more: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The nodes that are online and match one of the filters and all of the others, by target."""
        return {
            str(info["InstanceId"]): info for one in filters for info in living_nodes(self._aws, [one, *more])
        }

    def _ask_names(self, jobs: list[StepJob]) -> bool:
        """Ask nodes for the own names of these jobs, where only they tell; whether that was done."""
        unknown = [job for job in jobs if not known(job) and job.names[0] not in self._names]
        if not unknown or time.monotonic() < self._next_names:
            return False
        self._next_names = time.monotonic() + NAMES_SECONDS
        some = NAMES_A_FILTER // 2
        for start in range(0, len(unknown), some):
            for name in own_names(self._aws, unknown[start : start + some]):
                self._names.setdefault(name.lower(), set()).add(name)
        return True


class _Counted(AwsSession):
    """The AWS session of somebody else, and how many calls were made of it.

    Args:
        aws: that session.
    """

    def __init__(self, aws: AwsSession) -> None:
        self._own = aws
        self.calls = 0

    def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """As the session's own."""
        self.calls += 1
        return self._own.call(service, operation, **arguments)

    @property
    def region(self) -> str:
        """As the session's own."""
        return self._own.region


def changes(before: Snapshot | None, now: Snapshot) -> list[Event]:
    """What happened between two looks, as lines for a person."""
    old = {step.name: step for step in before.steps} if before else {}
    lines: list[Event] = []
    at = time.time()
    for step in now.steps:
        was = old.get(step.name)
        if was is not None and step.attempt > was.attempt:
            reason = was.failure_reason.strip().splitlines()
            because = f"; the one before: {reason[0]}" if reason else ""
            lines.append(
                Event(at, f"{step.name}: attempt {step.attempt} by its retry policy{because}", "warn")
            )
        elif was is not None and was.status == step.status:
            continue
        if was is None or was.status != step.status or step.status == "Executing":
            lines.append(_change(step, at))
    if now.unknown and not (before and before.status == now.status):
        text = (
            f"pipeline {now.status}, a status that this version does not know; it is watched as one that runs"
        )
        lines.append(Event(at, text, "warn"))
    if now.finished and not (before and before.finished):
        because = f": {now.failure_reason.splitlines()[0]}" if now.failure_reason else ""
        level = "good" if now.status == "Succeeded" else "bad"
        lines.append(Event(at, f"pipeline {now.status}{because}", level))
    return lines


def _change(step: Step, at: float) -> Event:
    """What has become of a step."""
    took = f" after {step.ended - step.started:.0f} s" if step.started and step.ended else ""
    what = f"{step.kind} " if step.kind else ""
    if step.status == "Succeeded":
        cached = " (from an earlier execution)" if step.cached else took
        return Event(at, f"{step.name}: {what}step succeeded{cached}", "good")
    if step.status == "Failed":
        reason = step.failure_reason.strip().splitlines()
        return Event(at, f"{step.name}: failed{took}{': ' + reason[0] if reason else ''}", "bad")
    if step.status == "Executing":
        item = f" on {shlex.quote(step.item)}" if step.item else ""
        return Event(at, f"{step.name}: {what}step runs{item}{f' ({step.job})' if step.job else ''}")
    return Event(at, f"{step.name}: {step.status}")


def step_names(aws: AwsSession, pipeline: str) -> dict[str, bool]:
    """The steps in the definition of a pipeline, those inside conditions and loops too.

    Returns:
        By their names, whether a ForEach step runs them several times.

    Raises:
        SmsshError: NOT_FOUND: no such pipeline.
    """
    try:
        answer = aws.call("sagemaker", "describe_pipeline", PipelineName=pipeline)
    except ServiceRefused as error:
        if error.passing:
            raise
        raise no_pipeline(aws, pipeline) from error
    found = list(named_steps(json.loads(answer["PipelineDefinition"])))
    loops = {names[0] for step, names in found if step.get("Type") == "ForEach"}
    return {names[0]: not loops.isdisjoint(names[1:]) for _, names in found}


def _taken(step: dict[str, Any]) -> bool:
    """Whether the result of a step is that of an earlier execution."""
    return bool(step.get("CacheHitResult") or step.get("SelectiveExecutionResult"))


def _seconds(when: float | None) -> float | None:
    return None if when is None else float(when)
