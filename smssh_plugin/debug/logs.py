"""The last lines of a job's log, from CloudWatch Logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..client.job_names import execution_part
from ..errors import SmsshError

if TYPE_CHECKING:
    from ..aws.session import AwsSession

__all__ = ["tail"]

_GROUPS = {
    "training": "/aws/sagemaker/TrainingJobs",
    "processing": "/aws/sagemaker/ProcessingJobs",
    "transform": "/aws/sagemaker/TransformJobs",
}
LINES = 40
STREAMS = 50


def tail(aws: AwsSession, kind: str, job: str, lines: int = LINES) -> list[str]:
    """The last lines that the first host of a job wrote; [] if there are no lines, or they may not be read.

    The log is an extra: a log that cannot be read is not a reason to fail.
    """
    group = _GROUPS.get(kind)
    if group is None:
        return []
    try:
        # "<job>/algo-1-<milliseconds>"; the agent's own stream ends in "/ssm".
        streams = _streams(aws, group, job, f"{job}/")
        if not streams and execution_part(job):
            # The ARN of a step's job may not tell the capitals of what comes after the last dash.
            streams = _streams(aws, group, job, f"{job.rpartition('-')[0]}-")
        if not streams:
            return []
        newest = min(streams, key=lambda one: (_host(one), -int(one.get("creationTime", 0))))
        answer = aws.call(
            "logs",
            "get_log_events",
            logGroupName=group,
            logStreamName=newest["logStreamName"],
            limit=lines,
            startFromHead=False,
        )
    except SmsshError:
        return []
    return [str(event["message"]).rstrip("\n") for event in answer.get("events", [])][-lines:]


def _streams(aws: AwsSession, group: str, job: str, prefix: str) -> list[dict[str, Any]]:
    """The streams of a job's containers among those that begin with `prefix`."""
    answer = aws.call(
        "logs", "describe_log_streams", logGroupName=group, logStreamNamePrefix=prefix, limit=STREAMS
    )
    return [
        one
        for one in answer.get("logStreams", [])
        if str(one["logStreamName"]).count("/") == 1
        and str(one["logStreamName"]).partition("/")[0].lower() == job.lower()
    ]


def _host(stream: dict[str, Any]) -> tuple[int, str]:
    """Sorts streams by host, algo-2 before algo-10."""
    host = str(stream["logStreamName"]).rpartition("/")[2].rpartition("-")[0]
    return len(host), host
