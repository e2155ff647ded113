"""`smssh debug`: watch an execution, send a repair to each step that is held, and report, however it ends."""

from __future__ import annotations

import contextlib
import shlex
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from .._version import __version__
from ..client.addresses import DEFAULT_HOST
from ..client.executions import execution_arn
from ..durations import format_duration
from ..errors import ExitStatus, SmsshError
from ..plugins import Plugins
from ..terminated import Terminated
from . import fix as fixes
from . import logs, why
from .incidents import STEP_ENDED, Attempt, Event, Incident, Report
from .repair import Repair, Shared
from .watch import Snapshot, Watch, changes, step_names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from ..aws.session import AwsSession
    from ..client.managed_nodes import Node
    from .causes.find import Finding
    from .incidents import Step

__all__ = ["Options", "View", "debug", "exit_status"]

POLL_SECONDS = 2.0
STOP_SECONDS = 10.0
FRESH_SECONDS = 60.0
"""How long an execution that was just started may be unknown to the service."""
TROUBLE_SECONDS = 12 * 3600.0
"""How long AWS may not be reached before the debugger stops watching: a night, longer than any hold lasts."""
LONGEST_PAUSE = 30.0
"""Seconds between two looks while AWS cannot be reached; shorter at first."""
ASK_SECONDS = 15.0
"""How often a host that was left to a person is asked whether somebody has retried it."""
UNKNOWN_SECONDS = 600.0
"""How long an execution is watched of whose status nobody knows whether it is the last one, while no step runs."""
_STOPPED = {
    "interrupted": ExitStatus.INTERRUPTED,
    "timeout": ExitStatus.TIMEOUT,
    "error": ExitStatus.FAILED,
    "unknown": ExitStatus.FAILED,
}
"""What it ends with where it stopped before the execution did, whose end it does not know then."""


@dataclass(frozen=True)
class Options:
    """What the debugger is to do.

    Attributes:
        pipeline: the name of the pipeline.
        execution: the execution: an id, an ARN, or None for the latest.
        start: start a new execution, and debug that; `execution` is not asked for then.
        fixes: the folder of fixes; None if there are no fixes.
        release: release a step that cannot be fixed, instead of leaving it held.
        timeout: seconds to watch; None: until the execution ends.
        poll: seconds between two looks.
    """

    pipeline: str
    execution: str | None = None
    start: bool = False
    fixes: Path | None = None
    release: bool = False
    timeout: float | None = None
    poll: float = POLL_SECONDS


class View(Protocol):
    """Shows a person what happens."""

    def show(self, event: Event) -> None:
        """A new line of the event log; called from any thread."""

    def update(self, report: Report) -> None:
        """The state of the steps; called about every second."""


@dataclass
class _Holds:
    """What is known of the holds of one host."""

    step: Step
    address: str
    known: set[tuple[int, str]] = field(default_factory=set)
    quiet_until: float = 0.0
    repair: Repair | None = None
    node: Node | None = None
    """As it was when it was held; None once what came after that was seen."""


def debug(options: Options, aws: AwsSession, view: View) -> Report:
    """Watch an execution until it ends, and repair what can be.

    Ctrl-C, SIGTERM and SIGHUP end it in order: logins closed, held steps left held. The report then tells so
    (`stopped_because`).

    Raises:
        SmsshError: there is no such pipeline, execution or fix; nothing was done then, and nothing started.
    """
    names = step_names(aws, options.pipeline)
    said: list[Event] = []
    for path in fixes.check(options.fixes, names) if options.fixes is not None else ():
        text = f"{path.name} is for no step of pipeline {options.pipeline}, and not used"
        said.append(Event(time.time(), text, "warn"))
        view.show(said[-1])
    if options.start:
        arn = _start(aws, options.pipeline)
        # Before all else: whatever happens from here on, a person can find the execution.
        said.append(Event(time.time(), f"started {arn}"))
        view.show(said[-1])
    else:
        arn = execution_arn(aws, options.pipeline, options.execution)
    return _Debugger(options, aws, view, arn, names, said).run()


def _start(aws: AwsSession, pipeline: str) -> str:
    """Start an execution of the pipeline, and answer its ARN."""
    once = str(uuid.uuid4())  # attempts of one call start one execution
    answer = aws.call("sagemaker", "start_pipeline_execution", PipelineName=pipeline, ClientRequestToken=once)
    return str(answer["PipelineExecutionArn"])


class _Debugger:
    """One run of the debugger.

    Args:
        options: what it is to do.
        aws: the AWS session.
        view: shows what happens.
        arn: the ARN of the execution.
        names: of the steps in the pipeline's definition.
        said: the lines of the event log that the view was shown before.
    """

    def __init__(
        self,
        options: Options,
        aws: AwsSession,
        view: View,
        arn: str,
        names: Collection[str],
        said: list[Event],
    ) -> None:
        self._options = options
        self._aws = aws
        self._view = view
        self._watch = Watch(aws, options.pipeline, arn, names)
        self._logs = logs.Logs(aws, arn.rpartition("/")[2])
        self._report = Report(
            pipeline=options.pipeline,
            execution=arn.rpartition("/")[2],
            arn=arn,
            region=aws.region,
            events=said,
            generator=f"smssh {__version__}",
        )
        self._lock = threading.Lock()
        self._shared = Shared(
            aws, options.fixes, options.release, self._say, self._found, self._ran, self._logs.tail
        )
        self._shared.probes = Plugins().probes()
        self._hosts: dict[str, _Holds] = {}
        self._causes: dict[tuple[str, str], Finding] = {}
        """Of the steps that failed, by step and job."""
        self._before: Snapshot | None = None
        self._trouble: float | None = None
        """Since when AWS cannot be asked, of the monotonic clock."""
        self._idle: float | None = None
        """Since when no step runs while the execution's status is not known, of the monotonic clock."""

    def run(self) -> Report:
        report = self._report
        try:
            with Terminated():
                self._watch_to_the_end()
        except KeyboardInterrupt:
            report.stopped_because = "interrupted"
            self._say(Event(time.time(), "interrupted", "warn"))
        except SmsshError as error:
            if self._before is None:
                raise
            report.stopped_because = "error"
            self._say(Event(time.time(), f"stopped watching: {error}", "bad"))
        self._close()
        with contextlib.suppress(KeyboardInterrupt):
            self._complete()
        self._view.update(report)
        return report

    def _watch_to_the_end(self) -> None:
        """Look, until the execution has ended or the time is over."""
        began = time.monotonic()
        pause = self._options.poll
        while True:
            now = self._look()
            if now is None:
                pause = min(2 * pause, max(LONGEST_PAUSE, self._options.poll))
            else:
                pause = self._options.poll
                self._react(now, began)
                if now.finished:
                    break
            self._view.update(self._report)
            if now is not None and self._is_stuck(now):
                self._report.stopped_because = "unknown"
                text = (
                    f"stopped watching: status {now.status} is not known, and may be the last one: "
                    f"no step has run for {UNKNOWN_SECONDS:.0f} s"
                )
                self._say(Event(time.time(), text, "bad"))
                break
            if self._options.timeout is not None and time.monotonic() - began > self._options.timeout:
                self._report.stopped_because = "timeout"
                self._say(Event(time.time(), f"stopped watching after {self._options.timeout:g} s", "warn"))
                break
            time.sleep(pause)

    def _is_stuck(self, now: Snapshot) -> bool:
        """Whether an execution may have ended with a status that is newer than this program, and nothing tells."""
        if not now.unknown or now.running:
            self._idle = None
            return False
        if self._idle is None:
            self._idle = time.monotonic()
        return time.monotonic() - self._idle >= UNKNOWN_SECONDS

    def _look(self) -> Snapshot | None:
        """The execution as it is now; None where AWS cannot be asked for a while.

        A network that is gone for hours, credentials that are renewed late, or throttling must not end a night of
        watching.

        Raises:
            SmsshError: it could not be asked for too long, or not once.
        """
        try:
            now = self._watch.look()
        except SmsshError as error:
            first = self._trouble is None
            self._trouble = time.monotonic() if self._trouble is None else self._trouble
            lasts = time.monotonic() - self._trouble
            if self._before is None:
                # What was started a moment ago may not be known everywhere yet.
                fresh = self._options.start and lasts < FRESH_SECONDS
                hopeless = not error.passing and not (fresh and error.status is ExitStatus.NOT_FOUND)
            else:
                hopeless = error.status is ExitStatus.NOT_FOUND
            if hopeless or lasts >= TROUBLE_SECONDS:
                raise
            if first:
                most = format_duration(TROUBLE_SECONDS)
                text = f"cannot look: {error.message}; trying again, for {most} at most"
                self._say(Event(time.time(), text, "warn"))
            return None
        if self._trouble is not None:
            away = format_duration(time.monotonic() - self._trouble)
            self._say(Event(time.time(), f"can look again after {away}", "good"))
            self._trouble = None
        return now

    def _react(self, now: Snapshot, began: float) -> None:
        """Report what has changed since the last look, and repair what is held."""
        if now.finished:
            self._join(began)
        for event in changes(self._before, now):
            self._say(event)
        self._take(now)
        self._explain()
        self._before = now
        self._dispatch(now)
        if not now.busy:
            self._logs.look(step.kind for step in now.steps if step.job and step.status not in STEP_ENDED)

    def _take(self, now: Snapshot) -> None:
        """Put a look into the report; log lines that were fetched before stay."""
        report = self._report
        tails = {step.name: step.log_tail for step in report.steps}
        report.status, report.failure_reason = now.status, now.failure_reason
        report.started, report.ended = now.started, now.ended
        report.steps = now.steps
        for step in report.steps:
            step.log_tail = tails.get(step.name, [])
            step.cause = self._causes.get((step.name, step.job))
        before = {step.name: step.status for step in self._before.steps} if self._before else {}
        self._logs.forget(
            step.job
            for step in now.steps
            if step.job and step.status == "Succeeded" and before.get(step.name) != step.status
        )

    def _explain(self, *, again: bool = False) -> None:
        """Find out why steps failed, once each.

        Args:
            again: ask once more where the cause was not known: the last lines of a log may come late.
        """
        for step in self._report.steps:
            known = step.cause
            if step.status != "Failed" or (known is not None and (known.certain or not again)):
                continue
            mine = [one.cause for one in self._report.incidents if one.step == step.name and one.cause]
            step.cause = mine[-1] if mine else why.of_step(self._aws, step)
            self._causes[step.name, step.job] = step.cause
            if not mine and step.cause != known:
                if step.cause.error and step.cause.error not in step.failure_reason:
                    self._say(Event(time.time(), f"{step.name}: {step.cause.error}", "bad"))
                for sentence in why.sentences(step.cause):
                    self._say(Event(time.time(), f"{step.name}: {sentence}"))

    def _dispatch(self, now: Snapshot) -> None:
        """Send repairs to hosts that are newly held."""
        held = {node.target: node for node in (*now.held, *now.silent)}
        for target, holds in self._hosts.items():
            repair = holds.repair
            if repair is not None and not repair.running:
                holds.repair = None
                if self._acted(repair):
                    holds.node = None
                # After a retry the tag may lag; a host that could not be asked, or was left to a person, is not
                # asked again at once.
                calm = 2 * self._options.poll if repair.looked and self._acted(repair) else ASK_SECONDS
                if not repair.looked:
                    self._watch.forget(target)
                holds.quiet_until = time.monotonic() + calm
            if target not in held and holds.repair is None:
                holds.quiet_until = 0.0
                if holds.node is not None and not now.finished:
                    # Somebody has retried it, or let it go: what it began with is still to be seen.
                    holds.repair = Repair(
                        self._shared, holds.node, holds.step, holds.address, holds.known, look=True
                    )
                    holds.repair.start()
                holds.node = None
        if now.finished:
            return
        for target, node in held.items():
            step = next((one for one in now.steps if one.job.lower() == node.job.lower()), None)
            if step is None:
                continue
            if step.attempt > 1:
                address = node.address  # which none of the other attempts' jobs has
            else:
                address = step.address if node.host == DEFAULT_HOST else f"{node.host}.{step.address}"
            holds = self._hosts.setdefault(target, _Holds(step, address))
            if holds.repair is not None or time.monotonic() < holds.quiet_until:
                continue
            holds.node = node
            holds.repair = Repair(self._shared, node, step, address, holds.known)
            holds.repair.start()

    @staticmethod
    def _acted(repair: Repair) -> bool:
        """Whether it did something after which the host may soon be held anew."""
        return repair.incident is not None and repair.incident.resolution != "held"

    def _join(self, began: float) -> None:
        """The execution has ended; repairs hear of it a moment later (a retry's answer, a lost login)."""
        deadline = time.monotonic() + STOP_SECONDS
        if self._options.timeout is not None:
            deadline = min(deadline, max(began + self._options.timeout, time.monotonic() + 1))
        while (
            any(repair.running and not repair.look for repair in self._repairs())
            and time.monotonic() < deadline
        ):
            time.sleep(0.05)

    def _repairs(self) -> Iterator[Repair]:
        return (holds.repair for holds in self._hosts.values() if holds.repair is not None)

    def _close(self) -> None:
        """End all repairs, in bounded time; a second Ctrl-C does not leave logins open."""
        for repair in list(self._repairs()):
            with contextlib.suppress(KeyboardInterrupt):
                repair.cancel(STOP_SECONDS)

    def _complete(self) -> None:
        """The last words of the report: what became of incidents, the causes, and the logs."""
        report = self._report
        self._explain(again=True)
        status = {step.name: step.status for step in report.steps}
        last = {(incident.step, incident.address): incident for incident in report.incidents}
        for incident in report.incidents:
            key = (incident.step, incident.address)
            incident.resolution = _resolution(incident, status.get(incident.step, ""), incident is last[key])
            if incident.resolution == "by hand":
                known = [one.attempt for one in report.attempts if (one.step, one.address) == key]
                self._ran(*key, [(max(known, default=incident.attempt) + 1, 0, None)])
        wanted = {incident.step for incident in report.incidents}
        shown = [
            step
            for step in report.steps
            if step.job and not step.cached and (step.status == "Failed" or step.name in wanted)
        ]
        self._logs.refresh(step.kind for step in shown)
        for step in shown:
            step.log_tail = self._logs.last(step.kind, step.job)
        for incident in report.incidents:
            address = shlex.quote(incident.address)
            if (
                status.get(incident.step) != "Executing"
                or incident is not last[incident.step, incident.address]
            ):
                continue
            if incident.resolution == "held":
                text = f"{incident.step}: still held; enter it with: smssh connect {address}"
                self._say(Event(time.time(), text, "warn"))
            elif incident.resolution == "running":
                text = f"{incident.step}: its retry still runs; see how it ends with: smssh status {address}"
                self._say(Event(time.time(), text, "warn"))
        self._shared.captured.fill(report)
        report.generated = time.time()

    def _say(self, event: Event) -> None:
        with self._lock:
            self._report.events.append(event)
        self._view.show(event)

    def _found(self, incident: Incident) -> None:
        with self._lock:
            for earlier in self._report.incidents:
                same = (earlier.step, earlier.address, earlier.point) == (
                    incident.step,
                    incident.address,
                    incident.point,
                )
                if same and earlier.resolution == "held" and earlier.attempt < incident.attempt:
                    earlier.resolution, earlier.resolved = "failed", incident.found
            self._report.incidents.append(incident)

    def _ran(self, step: str, address: str, attempts: list[tuple[int, int, float | None]]) -> None:
        """Put what is known of a host's attempts into the report; what a retry of ours told stays."""
        with self._lock:
            report = self._report
            known = {
                one.attempt: one for one in report.attempts if (one.step, one.address) == (step, address)
            }
            retried = {
                incident.attempt + 1
                for incident in report.incidents
                if (incident.step, incident.address) == (step, address)
                and any(action.what == "retry" for action in incident.actions)
            }
            for number, code, seconds in attempts:
                if number not in known:
                    ours = number in retried or (step, address, number) in self._shared.earlier
                    by = "job" if number == 1 else "debugger" if ours else "somebody"
                    report.attempts.append(Attempt(step, address, number, code, seconds, by))
            report.attempts.sort(key=lambda one: (one.step, one.address, one.attempt))


def _resolution(incident: Incident, status: str, last: bool) -> str:
    """What became of an incident, now that nobody looks any more.

    Args:
        incident: as the repair left it.
        status: of its step.
        last: whether no later incident of its host is known.
    """
    if incident.resolution == "released" or incident.resolution == "fixed" or not last:
        return incident.resolution
    runs = status in ("Starting", "Executing")
    retried = bool(incident.actions) and incident.actions[-1].what == "retry"
    if incident.resolution in ("open", "lost") and (status == "Succeeded" or runs):
        if status == "Succeeded":
            return "fixed" if any(action.what == "retry" for action in incident.actions) else "by hand"
        return "running" if retried else "held"
    if status == "Succeeded":
        return "by hand"
    if runs or incident.resolution == "failed":
        return incident.resolution
    return "lost" if incident.resolution in ("open", "lost") else "over"


def exit_status(report: Report) -> ExitStatus:
    """What `smssh debug` ends with."""
    if report.stopped_because in _STOPPED:
        return _STOPPED[report.stopped_because]
    return ExitStatus.OK if report.status == "Succeeded" else ExitStatus.PIPELINE_FAILED
