"""What an execution is doing: its steps, and which of them are held. Nothing is changed here."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from ..aws.session import AwsSession, ServiceRefused
from ..client.addresses import StepAddress
from ..client.executions import describe_step, no_pipeline, steps_of
from ..client.job_names import StepJob, known, own_names
from ..client.managed_nodes import NAMES_A_FILTER, Node, living_nodes, node_of
from ..definitions import named_steps
from ..errors import ExitStatus, SmsshError
from .incidents import EXECUTION_ENDED, Event, Step

__all__ = ["Snapshot", "Watch", "changes", "step_names"]

ASK_SECONDS = 10.0
"""How often containers that cannot tag themselves are asked over SSH, at most."""
_RUNNING = ("Starting", "Executing", "Stopping")


@dataclass(frozen=True)
class Snapshot:
    """One look at an execution.

    Attributes:
        status: Executing, Stopping, Stopped, Failed, Succeeded or CompletedWithFailures.
        failure_reason: the execution's.
        started: when it started.
        ended: when it ended; None while it runs.
        steps: those that have started.
        held: hosts whose tags say that they are held.
        silent: hosts that are online and never said what they are doing: to be asked.
    """

    status: str
    failure_reason: str
    started: float | None
    ended: float | None
    steps: list[Step]
    held: list[Node]
    silent: list[Node]

    @property
    def finished(self) -> bool:
        """Whether the execution has ended."""
        return self.status in EXECUTION_ENDED


class Watch:
    """Polls one execution of a pipeline.

    Args:
        aws: the AWS session.
        pipeline: the name of the pipeline.
        arn: the ARN of the execution.
    """

    def __init__(self, aws: AwsSession, pipeline: str, arn: str) -> None:
        self._aws = aws
        self._pipeline = pipeline
        self._arn = arn
        self._execution = arn.rpartition("/")[2]
        self._names: dict[str, set[str]] = {}
        """The own names of jobs whose ARNs do not tell them, by what those have: several where nodes disagree."""
        self._talking: set[str] = set()
        self._next_ask = 0.0

    def look(self) -> Snapshot:
        """Look once: 3 API calls, one more for steps whose job's own name is not known yet, one for each held host.

        Raises:
            SmsshError: NOT_FOUND: no such execution; or what went wrong with AWS.
        """
        try:
            answer = self._aws.call(
                "sagemaker", "describe_pipeline_execution", PipelineExecutionArn=self._arn
            )
        except ServiceRefused as error:
            raise SmsshError(
                f"there is no execution {self._execution!r} of pipeline {self._pipeline!r}",
                hint=error.message,
                reference="no-execution",
                status=ExitStatus.NOT_FOUND,
            ) from error
        status = str(answer["PipelineExecutionStatus"])
        raw = steps_of(self._aws, self._arn)
        jobs = [job for one in raw if one.get("StepStatus") in _RUNNING and (job := describe_step(one))]
        held, silent = self._nodes(jobs) if jobs else ([], [])
        ended = _seconds(answer.get("LastModifiedTime")) if status in EXECUTION_ENDED else None
        return Snapshot(
            status=status,
            failure_reason=str(answer.get("FailureReason", "")),
            started=_seconds(answer.get("CreationTime")),
            ended=ended,
            steps=[self._step(one) for one in raw],
            held=held,
            silent=silent,
        )

    def _step(self, one: dict[str, Any]) -> Step:
        job = describe_step(one)
        metadata = one.get("Metadata", {})
        name = str(one["StepName"])
        return Step(
            name=name,
            kind=job.kind if job else next(iter(metadata), ""),
            status=str(one.get("StepStatus", "")),
            job=self._name(job) if job else "",
            address=str(StepAddress(None, name, self._execution, self._pipeline)) if job else "",
            started=_seconds(one.get("StartTime")),
            ended=_seconds(one.get("EndTime")),
            failure_reason=str(one.get("FailureReason", "")),
            cached=bool(one.get("CacheHitResult")),
        )

    def _name(self, job: StepJob) -> str:
        own = self._names.get(job.names[0], ())
        return next(iter(own)) if len(own) == 1 else job.names[-1]

    def _nodes(self, jobs: list[StepJob]) -> tuple[list[Node], list[Node]]:
        """The held hosts of these jobs, and those that never said what they do."""
        unknown = [job for job in jobs if not known(job) and job.names[0] not in self._names]
        for start in range(0, len(unknown), NAMES_A_FILTER):
            for name in own_names(self._aws, unknown[start : start + NAMES_A_FILTER]):
                self._names.setdefault(name.lower(), set()).add(name)
        # By which names a node may claim to be of these jobs, and the jobs' kinds.
        names = {
            name: job.kind
            for job in jobs
            for name in dict.fromkeys((*job.names, *sorted(self._names.get(job.names[0], ()))))
        }
        held: list[Node] = []
        silent: list[Node] = []
        for start in range(0, len(names), NAMES_A_FILTER):
            of_jobs = {"Key": "tag:SMSSHJob", "Values": list(names)[start : start + NAMES_A_FILTER]}
            found = living_nodes(self._aws, [of_jobs, {"Key": "tag:SMSSHState", "Values": ["held"]}])
            held += [
                node
                for info in found
                if (node := node_of(self._aws, info)) is not None and node.kind == names.get(node.job)
            ]
            self._talking |= {node.target for node in held}
            if time.monotonic() >= self._next_ask:
                for info in living_nodes(self._aws, [of_jobs]):
                    if info["InstanceId"] in self._talking:
                        continue
                    node = node_of(self._aws, info)
                    if node is None or node.kind != names.get(node.job):
                        continue
                    if node.state is None:
                        silent.append(node)
                    else:
                        self._talking.add(node.target)
        if time.monotonic() >= self._next_ask:
            self._next_ask = time.monotonic() + ASK_SECONDS
        return held, silent


def changes(before: Snapshot | None, now: Snapshot) -> list[Event]:
    """What happened between two looks, as lines for a person."""
    old = {step.name: step.status for step in before.steps} if before else {}
    lines: list[Event] = []
    at = time.time()
    for step in now.steps:
        if old.get(step.name) == step.status:
            continue
        took = f" after {step.ended - step.started:.0f} s" if step.started and step.ended else ""
        what = f"{step.kind} " if step.kind else ""
        if step.status == "Succeeded":
            cached = " (from the cache)" if step.cached else took
            lines.append(Event(at, f"{step.name}: {what}step succeeded{cached}", "good"))
        elif step.status == "Failed":
            reason = step.failure_reason.strip().splitlines()
            lines.append(Event(at, f"{step.name}: failed{took}{': ' + reason[0] if reason else ''}", "bad"))
        elif step.status == "Executing":
            lines.append(Event(at, f"{step.name}: {what}step runs{f' ({step.job})' if step.job else ''}"))
        else:
            lines.append(Event(at, f"{step.name}: {step.status}"))
    if now.finished and not (before and before.finished):
        because = f": {now.failure_reason.splitlines()[0]}" if now.failure_reason else ""
        level = "good" if now.status == "Succeeded" else "bad"
        lines.append(Event(at, f"pipeline {now.status}{because}", level))
    return lines


def step_names(aws: AwsSession, pipeline: str) -> set[str]:
    """The names of all steps in the definition of a pipeline, those inside conditions and loops too.

    Raises:
        SmsshError: NOT_FOUND: no such pipeline.
    """
    try:
        answer = aws.call("sagemaker", "describe_pipeline", PipelineName=pipeline)
    except ServiceRefused as error:
        raise no_pipeline(aws, pipeline) from error
    return {names[0] for _, names in named_steps(json.loads(answer["PipelineDefinition"]))}


def _seconds(when: float | None) -> float | None:
    return None if when is None else float(when)
