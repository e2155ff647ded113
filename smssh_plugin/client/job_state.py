"""Jobs as SageMaker describes them: their states, their hosts, and whether they were submitted with smssh."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..aws.session import ServiceRefused
from ..errors import ExitStatus, SmsshError

if TYPE_CHECKING:
    from ..aws.session import AwsSession

__all__ = [
    "DESCRIBE",
    "ENDED",
    "ENDING",
    "STARTING",
    "check_host",
    "described_job",
    "ended",
    "job_state",
    "role_of_request",
    "speaks_of_us",
    "submitted_with_smssh",
]

ENDED = frozenset({"Completed", "Failed", "Stopped"})
ENDING = frozenset({"Uploading", "Stopping", "MaxRuntimeExceeded", "MaxWaitTimeExceeded", *ENDED})
"""Secondary states of a training job without a container."""
STARTING = frozenset(
    {
        "Starting",
        "Pending",
        "LaunchingMLInstances",
        "PreparingTrainingStack",
        "Downloading",
        "DownloadingTrainingImage",
        "Interrupted",
        "Restarting",
    }
)
"""Secondary states of a training job whose container has yet to start, or to start again."""
# API operation, and the name of its answer's status field, by kind.
DESCRIBE = {
    "training": ("describe_training_job", "TrainingJobName", "TrainingJobStatus"),
    "processing": ("describe_processing_job", "ProcessingJobName", "ProcessingJobStatus"),
    "transform": ("describe_transform_job", "TransformJobName", "TransformJobStatus"),
}


def job_state(aws: AwsSession, kind: str, name: str) -> tuple[str, str] | None:
    """The status of a job, and why it failed ("" where it did not); None for a kind or a job there is not."""
    answer = described_job(aws, kind, name)
    return None if answer is None else (str(answer[DESCRIBE[kind][2]]), str(answer.get("FailureReason", "")))


def described_job(aws: AwsSession, kind: str, name: str) -> dict[str, Any] | None:
    """The job as the service describes it; None for a kind or a job there is not."""
    if kind not in DESCRIBE:
        return None
    operation, key, _ = DESCRIBE[kind]
    try:
        return aws.call("sagemaker", operation, **{key: name})
    except ServiceRefused as error:
        if error.code not in ("ValidationException", "ResourceNotFound"):
            raise
        return None


def ended(what: str, status: str, reason: str, *, hold: str, reference: str) -> SmsshError:
    """What to say of a job or step that has ended.

    Args:
        what: the job or step.
        status: its status.
        reason: why it failed; "" where it did not.
        hold: how the next one is submitted so that its container is kept.
        reference: the reference of the error.
    """
    because = f": {reason.splitlines()[0]}" if reason else ""
    hint = "its container is gone; `smssh list` shows the hosts that are online"
    if status == "Failed":
        hint = f"its container is gone; to keep the next one that fails, submit it with a hold: {hold}"
    return SmsshError(
        f"{what} has ended ({status}){because}", hint=hint, reference=reference, status=ExitStatus.NOT_FOUND
    )


def role_of_request(described: dict[str, Any]) -> str:
    """The role that a job's request gives to its hosts; "" where it names none."""
    return str((described.get("Environment") or {}).get("SMSSH_ROLE") or "")


def check_host(described: dict[str, Any], kind: str, name: str, host: str) -> None:
    """Refuse a host that the job has not got."""
    resources = described.get("ResourceConfig") or described.get("ProcessingResources") or {}
    cluster = resources.get("ClusterConfig") or described.get("TransformResources") or resources
    groups = cluster.get("InstanceGroups") or [cluster]
    count = sum(int(group.get("InstanceCount") or 0) for group in groups)
    if count and int(host.rpartition("-")[2]) not in range(1, count + 1):
        raise SmsshError(
            f"{kind} job {name!r} has no host {host}: it has {count}, algo-1"
            + (f" to algo-{count}" if count > 1 else ""),
            reference="no-host",
            status=ExitStatus.NOT_FOUND,
        )


def submitted_with_smssh(aws: AwsSession, kind: str, described: dict[str, Any]) -> bool:
    """Whether a job's request has anything of smssh in it, or that cannot be known."""
    environment = described.get("Environment") or {}
    if environment.get("SMSSH_ENABLE", "1") != "1":
        return False
    if kind == "transform" and not speaks_of_us(environment):
        # Its request turns SSH on where its model brings the files; that of an endpoint may turn it on itself.
        return _model_enables(aws, str(described.get("ModelName") or ""))
    parts = [
        described.get(name)
        for name in (
            "AlgorithmSpecification",
            "AppSpecification",
            "Environment",
            "InputDataConfig",
            "ProcessingInputs",
        )
    ]
    return speaks_of_us(parts)


def speaks_of_us(part: Any) -> bool:
    """Whether a part of a request names something of ours, or of sagemaker-ssh-helper."""
    text = json.dumps(part, default=str)
    return "smssh" in text.lower() or "START_SSH" in text


def _model_enables(aws: AwsSession, name: str) -> bool:
    """Whether the model of a transform job turns SSH on by itself, or that cannot be known."""
    try:
        model = aws.call("sagemaker", "describe_model", ModelName=name)
    except ServiceRefused:
        return True  # a model may be deleted while its job runs
    except SmsshError as error:
        if error.reference != "access-denied":
            raise
        return True
    containers = [model.get("PrimaryContainer"), *(model.get("Containers") or ())]
    environments = [(container or {}).get("Environment") or {} for container in containers]
    return any(each.get("SMSSH_ENABLE") == "1" or "START_SSH" in each for each in environments)
