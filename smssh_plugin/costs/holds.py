"""How long a job was held, as its log says: each host writes when a hold begins and when it is over."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..aws.session import ServiceRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..aws.session import AwsSession
    from .jobs import SpentJob

__all__ = ["held_seconds", "spans"]

GROUPS = {
    "training": "/aws/sagemaker/TrainingJobs",
    "processing": "/aws/sagemaker/ProcessingJobs",
    "transform": "/aws/sagemaker/TransformJobs",
}
"""SageMaker's log groups, by kind of job."""
PATTERN = '"smssh: "'
"""What CloudWatch looks for in the lines of a job."""
_BEGINS = re.compile(r"smssh: held \(")
_ENDS = re.compile(r"smssh: (?:retried|released): ")
Span = tuple[float, float]


def held_seconds(aws: AwsSession, job: SpentJob, since: float, now: float) -> float | None:
    """How long at least one host of a job was held after `since`, in seconds; None where its log cannot be read.

    Args:
        aws: the AWS session.
        job: the job.
        since: seconds since the epoch.
        now: the time; a hold that goes on counts up to it.

    Raises:
        SmsshError: the log may not be read, or the service cannot be reached.
    """
    if job.kind not in GROUPS:
        return None
    try:
        events = list(_events(aws, job))
    except ServiceRefused as error:
        if error.code != "ResourceNotFoundException":
            raise
        return None  # there is no such log group, or its lines were removed
    until = now if job.ended is None else min(job.ended, now)
    return sum(max(0.0, min(end, until) - max(begin, since)) for begin, end in spans(events, until))


def spans(events: Iterable[tuple[str, float, str]], until: float) -> list[Span]:
    """The times in which at least one host was held, one after another.

    Args:
        events: the host's stream, the time in seconds and the text of each line, in the order of time for each host.
        until: when the containers ended: a hold that nothing else ends is over then.
    """
    begun: dict[str, float] = {}
    found: list[Span] = []
    for stream, moment, text in events:
        if _BEGINS.match(text):
            begun.setdefault(stream, moment)
        elif _ENDS.match(text) and stream in begun:
            found.append((begun.pop(stream), moment))
    found += [(begin, max(begin, until)) for begin in begun.values()]
    joined: list[Span] = []
    for begin, end in sorted(found):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return joined


def _events(aws: AwsSession, job: SpentJob) -> Iterator[tuple[str, float, str]]:
    """Our lines in the logs of a job's hosts; the agent's own stream, NAME/HOST-NUMBER/ssm, is left out."""
    arguments: dict[str, Any] = {
        "logGroupName": GROUPS[job.kind],
        "logStreamNamePrefix": f"{job.name}/",
        "filterPattern": PATTERN,
        "startTime": int(job.began * 1000),
    }
    while True:
        answer = aws.call("logs", "filter_log_events", **arguments)
        for each in answer.get("events") or ():
            stream = str(each.get("logStreamName", ""))
            if stream.count("/") == 1:
                yield stream, float(each.get("timestamp") or 0) / 1000, str(each.get("message", ""))
        arguments["nextToken"] = answer.get("nextToken")
        if not arguments["nextToken"]:
            return
