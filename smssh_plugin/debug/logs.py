"""The last lines of a job's logs, from CloudWatch Logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..client.job_names import execution_part
from ..errors import SmsshError

if TYPE_CHECKING:
    from ..aws.session import AwsSession

__all__ = ["ends", "tail"]

_GROUPS = {
    "training": "/aws/sagemaker/TrainingJobs",
    "processing": "/aws/sagemaker/ProcessingJobs",
    "transform": "/aws/sagemaker/TransformJobs",
}
LINES = 40
STREAMS = 50
EVENTS = 1000
"""Lines of each host that an error is looked for in: one page."""
HOSTS = 16
"""Hosts whose logs are looked at."""


def tail(aws: AwsSession, kind: str, job: str, lines: int = LINES) -> list[str]:
    """The last lines that the first host of a job wrote; [] if there are no lines, or they may not be read.

    The log is an extra: a log that cannot be read is not a reason to fail.
    """
    found = ends(aws, kind, job, lines, hosts=1)
    return [text for _, text in found[0][1]] if found else []


def ends(
    aws: AwsSession, kind: str, job: str, lines: int = EVENTS, hosts: int = HOSTS
) -> list[tuple[str, list[tuple[float, str]]]]:
    """The last lines of each host, by host, each with when it came (seconds since the epoch).

    One API call and one more for each host; [] where there are no lines, and without those that may not be read.
    """
    group = _GROUPS.get(kind)
    if group is None:
        return []
    found: list[tuple[str, list[tuple[float, str]]]] = []
    try:
        # "<job>/algo-1-<milliseconds>"; the agent's own stream ends in "/ssm".
        streams = _streams(aws, group, job, f"{job}/")
        if not streams and execution_part(job):
            # The ARN of a step's job may not tell the capitals of what comes after the last dash.
            streams = _streams(aws, group, job, f"{job.rpartition('-')[0]}-")
        newest: dict[str, dict[str, Any]] = {}
        for stream in sorted(streams, key=lambda one: int(one.get("creationTime", 0))):
            newest[_name(stream)] = stream
        for name in sorted(newest, key=lambda name: (len(name), name))[:hosts]:  # algo-2 before algo-10
            answer = aws.call(
                "logs",
                "get_log_events",
                logGroupName=group,
                logStreamName=newest[name]["logStreamName"],
                limit=lines,
                startFromHead=False,
            )
            events = [
                (int(event.get("timestamp", 0)) / 1000, str(event["message"]).rstrip("\n"))
                for event in answer.get("events", [])[-lines:]
            ]
            found.append((name, events))
    except SmsshError:
        pass
    return found


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


def _name(stream: dict[str, Any]) -> str:
    """The host of a stream, as in algo-1."""
    return str(stream["logStreamName"]).rpartition("/")[2].rpartition("-")[0]
