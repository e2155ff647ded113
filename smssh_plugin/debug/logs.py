"""The logs of an execution's jobs, from CloudWatch Logs.

`Logs` follows all of them with one call for each log group, as the streams of jobs that a pipeline names begin with
`pipelines-EXECUTION-`; `ends` and `tail` ask for the ends of one job's logs. A log is an extra: one that cannot be read
is not a reason to fail.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..client.job_names import execution_part
from ..errors import SmsshError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..aws.session import AwsSession

__all__ = ["Logs", "ends", "tail"]

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
LINE_LIMIT = 4096
"""Characters of a line that are kept; an event of CloudWatch may have 256 KiB."""
STREAM_LIMIT = 32_768
"""Characters of the lines of one stream that are kept."""
FOLLOW_SECONDS = 5.0
"""How often the logs are asked for, at most."""
LONGEST_PAUSE = 600.0
"""Seconds between two looks while CloudWatch does not answer; fewer at first."""
BACK_SECONDS = 600.0
"""How far back the first look at a log group goes, where that is one page; else it begins at the end."""
OVERLAP_SECONDS = 5.0
"""For how long lines of other hosts may arrive after younger ones."""
LAG_SECONDS = 120.0
"""How old lines may be when they are read: what is older is left out, as the end of a log says most."""
LAST_PAGES = 10
"""Calls that are made for the end of a log that is wanted now, where one does not reach it."""


@dataclass
class _Ring:
    """The last lines of one stream."""

    whole: bool
    """Whether it has been read from its beginning on."""
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES))
    size: int = 0

    def add(self, line: str) -> None:
        if len(self.lines) == LINES:
            self.size -= len(self.lines[0])
        self.lines.append(line[-LINE_LIMIT:])
        self.size += len(self.lines[-1])
        while self.size > STREAM_LIMIT:
            self.size -= len(self.lines.popleft())


@dataclass
class _Group:
    """What is known of one log group. Times are in milliseconds since the epoch, as CloudWatch has them."""

    since: int
    """From when on all lines have been read."""
    start: int
    """From when on lines are asked for."""
    token: str | None = None
    newest: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    """The ids of events that a next call may answer again, and their times."""
    rings: dict[str, _Ring] = field(default_factory=dict)
    gone: bool = False
    """Whether it may not be read."""
    away: bool = False
    """Whether the last call was not answered."""

    def lose_place(self, start: int) -> None:
        """Go on without the token, from `start` on at the earliest; what was read last is read again."""
        self.token = None
        self.start = max(self.start, self.newest - int(OVERLAP_SECONDS * 1000), start)


class Logs:
    """The last lines of all jobs of one execution; for several threads.

    Args:
        aws: the AWS session.
        execution: the id of the execution.
    """

    def __init__(self, aws: AwsSession, execution: str) -> None:
        self._aws = aws
        self._prefix = f"pipelines-{execution}-"
        self._groups: dict[str, _Group] = {}
        self._lock = threading.Lock()
        self._next = 0.0
        self._pause = FOLLOW_SECONDS

    def look(self, kinds: Iterable[str]) -> None:
        """Read what is new in the log groups of these kinds of jobs, a call for each, where it is time to.

        Where there is no way to CloudWatch (a VPC without its endpoint), it is tried less and less often.
        """
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + FOLLOW_SECONDS
        with self._lock:
            for kind in sorted(set(kinds) & _GROUPS.keys()):
                self._read(kind, self._aws.call_once)
                if self._groups[kind].away:
                    self._pause = min(2 * self._pause, LONGEST_PAUSE)
                    self._next = time.monotonic() + self._pause
                    return
        self._pause = FOLLOW_SECONDS

    def refresh(self, kinds: Iterable[str]) -> None:
        """Read the log groups of these kinds of jobs up to now, for `last`."""
        with self._lock:
            for kind in sorted(set(kinds) & _GROUPS.keys()):
                for _ in range(LAST_PAGES):
                    if not self._read(kind, self._aws.call):
                        break

    def last(self, kind: str, job: str, lines: int = LINES) -> list[str]:
        """The last lines that the first host of a job had written at the last `refresh`; [] without any."""
        with self._lock:
            found = self._of(kind, job)
        return tail(self._aws, kind, job, lines) if found is None else found[-lines:]

    def tail(self, kind: str, job: str, lines: int = LINES) -> list[str]:
        """The last lines that the first host of a job has written up to now; [] without any."""
        if job.lower().startswith(self._prefix):
            self.refresh([kind])
        return self.last(kind, job, lines)

    def forget(self, jobs: Iterable[str]) -> None:
        """Keep no lines of these jobs any more."""
        names = {job.lower() for job in jobs}
        with self._lock:
            for group in self._groups.values():
                group.rings = {
                    name: ring for name, ring in group.rings.items() if _job(name).lower() not in names
                }

    def _of(self, kind: str, job: str) -> list[str] | None:
        """The lines of a job's first host; None where they may not be all of the last ones."""
        group = self._groups.get(kind)
        if group is None or group.token is not None or group.away or group.gone:
            return None
        rings = group.rings
        mine = [name for name in rings if name.count("/") == 1 and _job(name).lower() == job.lower()]
        if not mine:
            return None
        first = min(_host(name) for name in mine)
        # Of a host with several streams, the one that began last, whose name ends in its time.
        ring = rings[max(name for name in mine if _host(name) == first)]
        return list(ring.lines) if ring.whole or len(ring.lines) == LINES else None

    def _read(self, kind: str, call: Callable[..., dict[str, Any]]) -> bool:
        """Read one page of a log group; whether there is another one.

        Args:
            kind: of the jobs.
            call: makes the call to AWS.
        """
        now = int(time.time() * 1000)
        back = now - int(BACK_SECONDS * 1000)
        group = self._groups.setdefault(kind, _Group(back, back))
        if group.gone:
            return False
        if group.token and max(group.newest, group.start) < now - LAG_SECONDS * 1000:
            # There is more than can be read: go on at its end.
            group.lose_place(now - int(OVERLAP_SECONDS * 1000))
            group.since = now
            group.rings.clear()
        arguments: dict[str, Any] = {"nextToken": group.token} if group.token else {}
        try:
            answer = call(
                "logs",
                "filter_log_events",
                logGroupName=_GROUPS[kind],
                logStreamNamePrefix=self._prefix,
                startTime=group.start,
                **arguments,
            )
        except SmsshError as error:
            # Not there before its first job, or too much is asked for: that passes.
            group.gone = error.reference == "access-denied"
            group.away = error.passing
            if not error.passing:
                group.lose_place(group.start)
            return False
        group.away = False
        for event in answer.get("events", []):
            moment, name = int(event["timestamp"]), str(event["logStreamName"])
            if str(event["eventId"]) in group.seen:
                continue
            group.seen[str(event["eventId"])] = moment
            group.newest = max(group.newest, moment)
            ring = group.rings.setdefault(name, _Ring(_began(name) >= group.since))
            ring.add(str(event["message"]).rstrip("\n"))
        overlap = group.newest - int(OVERLAP_SECONDS * 1000)
        group.seen = {known: moment for known, moment in group.seen.items() if moment >= overlap}
        group.token = answer.get("nextToken") or None
        if group.token:
            return True
        group.lose_place(group.start)
        return False


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
            newest[_name(str(stream["logStreamName"]))] = stream
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
        and _job(str(one["logStreamName"])).lower() == job.lower()
    ]


def _job(stream: str) -> str:
    return stream.partition("/")[0]


def _began(stream: str) -> int:
    """When a stream began, in milliseconds since the epoch, as its name says; 0 where it does not."""
    moment = stream.rpartition("-")[2]
    if not (moment.isascii() and moment.isdecimal() and len(moment) < 16):
        return 0
    return int(moment) if len(moment) > 10 else int(moment) * 1000


def _host(stream: str) -> tuple[int, str]:
    """Sorts streams by host, algo-2 before algo-10."""
    host = _name(stream)
    return len(host), host


def _name(stream: str) -> str:
    """The host of a stream, as in algo-1."""
    return stream.rpartition("/")[2].rpartition("-")[0]
