"""The executions of pipelines, their steps, and the jobs that run those."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..aws.session import ServiceRefused
from ..definitions import named_steps
from ..errors import ExitStatus, SmsshError
from .job_names import StepJob, names_of
from .job_state import ended
from .patience import NotYet

if TYPE_CHECKING:
    from ..aws.session import AwsSession
    from .addresses import StepAddress

__all__ = [
    "describe_step",
    "execution_arn",
    "iteration_of",
    "job_of_step",
    "label_of",
    "no_pipeline",
    "steps_of",
]

MOST_LABELS = 10
"""Iterations that an error lists."""
_METADATA_KINDS = {"TrainingJob": "training", "ProcessingJob": "processing", "TransformJob": "transform"}
_CHECKS = ("QualityCheck", "ClarifyCheck")


def no_pipeline(aws: AwsSession, pipeline: str) -> SmsshError:
    """What to say where the service does not know a pipeline."""
    return SmsshError(
        f"there is no pipeline {pipeline!r} in {aws.region}",
        hint="check the name, and the region (--region)",
        reference="no-pipeline",
        status=ExitStatus.NOT_FOUND,
    )


def execution_arn(aws: AwsSession, pipeline: str, execution: str | None) -> str:
    """The ARN of an execution of a pipeline: by its id, its ARN, or the latest one (None or `latest`).

    Raises:
        SmsshError: NOT_FOUND: no such pipeline, or it was never started.
    """
    if execution is not None and execution.startswith("arn:"):
        return execution
    try:
        answer = aws.call(
            "sagemaker",
            "list_pipeline_executions",
            PipelineName=pipeline,
            SortBy="CreationTime",
            SortOrder="Descending",
            MaxResults=1,
        )
    except ServiceRefused as error:
        if error.passing:
            raise
        raise no_pipeline(aws, pipeline) from error
    summaries = answer.get("PipelineExecutionSummaries", [])
    if not summaries:
        raise SmsshError(
            f"pipeline {pipeline!r} has never been started in {aws.region}",
            hint="start it: pipeline.start(), or `smssh debug --start`",
            reference="no-execution",
            status=ExitStatus.NOT_FOUND,
        )
    latest = str(summaries[0]["PipelineExecutionArn"])
    if execution is None or execution == "latest":
        return latest
    return f"{latest.rpartition('/')[0]}/{execution}"


def steps_of(aws: AwsSession, arn: str) -> list[dict[str, Any]]:
    """The steps of an execution that have started, oldest first, as ListPipelineExecutionSteps has them.

    Raises:
        SmsshError: NOT_FOUND: no such execution.
    """
    found: list[dict[str, Any]] = []
    try:
        for page in aws.pages(
            "sagemaker",
            "list_pipeline_execution_steps",
            PipelineExecutionArn=arn,
            SortOrder="Ascending",
            MaxResults=100,
        ):
            found += page.get("PipelineExecutionSteps", [])
    except ServiceRefused as error:
        if error.passing:
            raise
        raise SmsshError(
            f"there is no pipeline execution {arn.rpartition('/')[2]!r} ({error.message})",
            reference="no-execution",
            status=ExitStatus.NOT_FOUND,
        ) from error
    return found


def describe_step(step: dict[str, Any]) -> StepJob | None:
    """The job that runs a step of `steps_of`; None where it has none (yet)."""
    metadata, name = step.get("Metadata", {}), str(step["StepName"])
    arns = [(metadata.get(key, {}).get("Arn"), kind) for key, kind in _METADATA_KINDS.items()]
    arns += [(metadata.get(key, {}).get("CheckJobArn"), "processing") for key in _CHECKS]
    arn, kind = next((one for one in arns if one[0]), ("", ""))
    if not arn:
        return None
    inside = name.removesuffix(f"-{iteration_of(step)}")
    return StepJob(names_of(str(arn), name), kind, name, inside if inside != name else "")


def iteration_of(step: dict[str, Any]) -> int | None:
    """The index of the iteration that a step of `steps_of` is of; None where no ForEach step is around it."""
    index = (step.get("IterationContext") or {}).get("Index")
    return index if isinstance(index, int) and not isinstance(index, bool) else None


def label_of(step: dict[str, Any]) -> str:
    """What tells a step of `steps_of` from all others of its execution: `Train`, or `Train-3` in a ForEach step.

    The steps of a loop's iterations have one name. The service calls them `<name>-<index>`, and refuses a pipeline in
    which another step has such a name (the SDK's documentation of ForEachStep).
    """
    index, name = iteration_of(step), str(step["StepName"])
    return name if index is None else f"{name}-{index}"


def job_of_step(address: StepAddress, aws: AwsSession) -> StepJob:
    """The job that runs the step of a pipeline address."""
    arn = execution_arn(aws, address.pipeline, address.execution)
    steps = steps_of(aws, arn)
    step = _chosen(steps, address.step)
    execution = arn.rpartition("/")[2]
    if step is None:
        names = ", ".join(label_of(one) for one in steps) or "none"
        error = SmsshError(
            f"no step {address.step!r} has started in execution {execution} of pipeline {address.pipeline!r}",
            hint=f"choose one that has: {names}",
            reference="no-step",
            status=ExitStatus.NOT_FOUND,
        )
        state = aws.call("sagemaker", "describe_pipeline_execution", PipelineExecutionArn=arn)
        # A step is listed from its start on: while others run, this one may come yet.
        if state["PipelineExecutionStatus"] != "Executing" or not _defined(aws, arn, address.step):
            raise error
        raise NotYet(error)
    job = describe_step(step)
    status = step.get("StepStatus", "")
    if job is None:
        if status in ("Starting", "Executing") and not step.get("Metadata"):
            raise NotYet(
                SmsshError(
                    f"step {address.step!r} is {status}, and has no job yet",
                    hint="choose a training, processing or transform step: only these have a container",
                    reference="step-not-started",
                    status=ExitStatus.NOT_FOUND,
                )
            )
        raise SmsshError(
            f"step {address.step!r} has no job ({status or 'unknown status'})",
            hint="choose a trial, which is a job of its own: `smssh list` shows those that are online"
            if "TuningJob" in step.get("Metadata", {})
            else "choose a training, processing or transform step: only these have a container",
            reference="step-without-job",
            status=ExitStatus.NOT_FOUND,
        )
    if status in ("Succeeded", "Failed", "Stopped"):
        raise ended(
            f"step {address.step!r} of execution {execution}",
            status,
            str(step.get("FailureReason", "")),
            hold="with_ssh(step, hold='failure')",
            reference="step-ended",
        )
    return job


def _chosen(steps: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """The step that a person means by a name: by its label, its name, or either except for its capitals.

    Programs around ssh take the capitals out of host names.

    Raises:
        SmsshError: several iterations of a ForEach step, of which more or fewer than one runs.
    """
    for same in (str, str.lower):
        wanted = same(name)
        found = [one for one in steps if same(label_of(one)) == wanted]
        found = found or [one for one in steps if same(str(one["StepName"])) == wanted]
        looped = [one for one in found if iteration_of(one) is not None]
        if len(found) > 1 and looped == found:
            found = [one for one in found if one.get("StepStatus") in ("Starting", "Executing")]
            if len(found) != 1:
                labels = [label_of(one) for one in found or looped]
                raise SmsshError(
                    f"{len(labels)} iterations of step {name!r} {'run' if found else 'have ended'}",
                    hint=f"choose one: {', '.join(labels[:MOST_LABELS])}"
                    + (", ..." if len(labels) > MOST_LABELS else ""),
                    reference="several-iterations",
                    status=ExitStatus.USAGE,
                )
        if found and (len(found) == 1 or same is str):
            return found[0]
    return None


def _defined(aws: AwsSession, arn: str, step: str) -> bool:
    """Whether the definition that this execution runs knows a step of that name, in conditions and loops too."""
    answer = aws.call("sagemaker", "describe_pipeline_definition_for_execution", PipelineExecutionArn=arn)
    names = {step.lower()}
    loop, dash, index = step.lower().rpartition("-")
    if dash and index.isdecimal():
        names.add(loop)
    return any(
        found[0].lower() in names for _, found in named_steps(json.loads(answer["PipelineDefinition"]))
    )
