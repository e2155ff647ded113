"""A job and what came of it; and the service's way of saying so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "ClientFault",
    "Job",
    "JobStopped",
    "Kind",
    "Outcome",
    "Status",
    "algorithm_error",
    "clip",
    "host_names",
]

Kind = Literal["training", "processing", "transform"]
Status = Literal["Completed", "Failed", "Stopped"]

REASON_LENGTH = 1024
"""The most characters of a FailureReason and of an ExitMessage: the API's own limit for both."""

SEE_LOGS = "See job logs for more information"
"""What the service says about a processing or transform job whose container failed."""


@dataclass(frozen=True)
class Job:
    """A job to run.

    Args:
        kind: what sort.
        name: unique among the jobs of its kind.
        arn: its ARN.
        request: the request of CreateTrainingJob, CreateProcessingJob or CreateTransformJob.
        model: for a transform job, the request of CreateModel for its model.
    """

    kind: Kind
    name: str
    arn: str
    request: dict[str, Any]
    model: dict[str, Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Args:
        status: the job's status.
        secondary_status: of a training job; the same word as `status`, or MaxRuntimeExceeded.
        failure_reason: of a failed job, as DescribeTrainingJob has it.
        exit_code: of the container that decided the end; None when none ran to its end.
        exit_message: of a processing job, what it wrote to /opt/ml/output/message.
        model_artifacts: the S3 URI of a training job's model, when it has one.
        started: when the containers started, seconds since the epoch; None if they did not.
        ended: when they had ended, seconds since the epoch.
    """

    status: Status
    secondary_status: str
    failure_reason: str | None = None
    exit_code: int | None = None
    exit_message: str | None = None
    model_artifacts: str | None = None
    started: float | None = None
    ended: float | None = None


class ClientFault(Exception):  # noqa: N818 - named as the service names it
    """The job cannot go on because of what the request, or S3, says.

    Its text becomes the FailureReason, after `ClientError: `.
    """


class JobStopped(Exception):  # noqa: N818 - no error
    """The job was asked to stop where it has no container that could be told."""


def clip(text: str) -> str:
    """As much of a text as FailureReason and ExitMessage take."""
    return text[:REASON_LENGTH]


def algorithm_error(message: str, exit_code: int) -> str:
    """The FailureReason of a training job: `AlgorithmError: <failure file>, exit code: N`.

    A long message is cut, the exit code never.
    """
    end = f", exit code: {exit_code}"
    return ("AlgorithmError: " + message)[: REASON_LENGTH - len(end)] + end


def cannot_start(command: str, detail: str) -> str:
    """The FailureReason of a job whose container has no such program."""
    return clip(
        "AlgorithmError: CannotStartContainerError. Please make sure the container can be run with"
        f" 'docker run <image> {command}'. Please refer SageMaker documentation for details. It is possible"
        f" that the Dockerfile's entrypoint is not properly defined, or missing permissions. ({detail})"
    )


def host_names(count: int) -> list[str]:
    """The hosts of a job."""
    return [f"algo-{number}" for number in range(1, count + 1)]
