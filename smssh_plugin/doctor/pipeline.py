"""Which steps of a pipeline can be entered, and why others cannot."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..aws.session import ServiceRefused
from ..client.executions import describe_step, execution_arn, label_of, no_pipeline, steps_of
from ..client.job_state import speaks_of_us
from ..definitions import named_steps
from ..errors import SmsshError
from .checks import Check, Finding, hint, ok, problem, unknown

if TYPE_CHECKING:
    from .case import Case

__all__ = ["CHECKS", "described"]

KINDS = {"Training": "training", "Processing": "processing", "Transform": "transform", "Tuning": "tuning"}
"""The types of steps whose jobs can be entered."""
SUBMITTER = "the person who makes the pipeline"


def exists(case: Case) -> Finding:
    """Whether there is such a pipeline."""
    try:
        found = described(case)
    except SmsshError as error:
        if error.reference != "no-pipeline":
            raise
        return problem(error.message, fix=error.hint or "check the name")
    return ok(f"pipeline {case.pipeline_name} is there", f"status: {found.get('PipelineStatus')}")


def described(case: Case) -> dict[str, Any]:
    """The pipeline that was named, as SageMaker describes it.

    Raises:
        SmsshError: NOT_FOUND: there is no such pipeline.
    """
    name = str(case.pipeline_name)

    def ask() -> dict[str, Any]:
        try:
            return case.aws.call("sagemaker", "describe_pipeline", PipelineName=name)
        except ServiceRefused as error:
            if error.code not in ("ResourceNotFound", "ValidationException"):
                raise
            raise no_pipeline(case.aws, name) from error

    return case.once("pipeline", ask)


def definition(case: Case) -> Finding:
    """Whether its definition, as it was last uploaded, has SSH in its steps."""
    try:
        parsed = json.loads(described(case)["PipelineDefinition"])
    except (KeyError, ValueError):
        return unknown("the pipeline's definition is not JSON", fix="see `aws sagemaker describe-pipeline`")
    with_ssh: list[str] = []
    without: list[str] = []
    for step, names in named_steps(parsed):
        if step.get("Type") not in KINDS:
            continue
        arguments = step.get("Arguments") or {}
        environment = arguments.get("Environment") if isinstance(arguments, dict) else None
        off = isinstance(environment, dict) and environment.get("SMSSH_ENABLE") in ("0", "")
        transform = step.get("Type") == "Transform"
        (with_ssh if (speaks_of_us(arguments) or transform) and not off else without).append(names[0])
    details = (f"with SSH: {', '.join(with_ssh) or 'no step'}", f"without: {', '.join(without) or 'no step'}")
    if not with_ssh and not without:
        return problem(
            f"pipeline {case.pipeline_name} has no training, processing, transform or tuning step",
            fix="choose another pipeline: only these steps have a container",
            who=SUBMITTER,
        )
    if not with_ssh:
        return problem(
            f"no step of pipeline {case.pipeline_name} has SSH in the definition that was uploaded last",
            *details,
            fix="decorate steps or the pipeline with with_ssh, and call pipeline.upsert()",
            who=SUBMITTER,
        )
    if without:
        return hint(
            f"{len(without)} of {len(with_ssh) + len(without)} steps have no SSH: {', '.join(without)}",
            *details,
            fix="decorate them with with_ssh if you want to enter them, and call pipeline.upsert()",
            who=SUBMITTER,
        )
    return ok(f"all {len(with_ssh)} steps that have a job have SSH", *details)


def execution(case: Case) -> Finding:
    """Its newest execution: whether a step of it runs now."""
    try:
        arn = execution_arn(case.aws, str(case.pipeline_name), None)
    except SmsshError as error:
        if error.reference != "no-execution":
            raise
        return hint(error.message, fix=error.hint or "start it")
    name = arn.rpartition("/")[2]
    steps = steps_of(case.aws, arn)
    running = [
        each for each in steps if each.get("StepStatus") == "Executing" and describe_step(each) is not None
    ]
    details = [f"{label_of(each)}: {each.get('StepStatus')}" for each in steps]
    if running:
        step = label_of(running[0])
        return ok(
            f"of execution {name}, {', '.join(label_of(each) for each in running)} runs now",
            *details,
            f"more of it: `smssh doctor --job {step}.{case.pipeline_name}.pipeline.sagemaker`",
        )
    failed = [label_of(each) for each in steps if each.get("StepStatus") == "Failed"]
    return hint(
        f"no step of execution {name}, the newest one, runs now"
        + (f"; {', '.join(failed)} failed" if failed else "")
        + ": there is no container",
        *details,
        fix="start it again; a hold (with_ssh(step, hold='failure')) keeps the container of a step that fails",
    )


CHECKS = (
    Check("pipeline.exists", "whether there is such a pipeline", exists, ("identity.credentials",)),
    Check("pipeline.definition", "which steps of its definition have SSH", definition, ("pipeline.exists",)),
    Check(
        "pipeline.execution", "whether a step of its newest execution runs", execution, ("pipeline.exists",)
    ),
)
