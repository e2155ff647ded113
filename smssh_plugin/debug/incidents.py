"""What the debugger knows, and what report.json holds: the same dataclasses, so that neither forgets any.

Times are seconds since the epoch, in UTC; None where unknown or not yet.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .causes.find import Finding

__all__ = [
    "EXECUTION_ENDED",
    "EXECUTION_RUNS",
    "STEP_ENDED",
    "Action",
    "Attempt",
    "Event",
    "HostChanges",
    "Incident",
    "Report",
    "Step",
]

EXECUTION_ENDED = ("Succeeded", "Failed", "Stopped", "CompletedWithFailures")
"""The statuses of an execution that has ended. With the last one, steps ran that are for the failure of another."""
EXECUTION_RUNS = ("Executing", "Stopping")
"""All others; what is in neither is newer than this program."""
STEP_ENDED = ("Succeeded", "Failed", "Stopped")
VERSION = 1
"""Of report.json's schema; a new field does not change it, a changed or removed one does."""


@dataclass
class Action:
    """One thing the debugger did about a held step.

    Attributes:
        what: patch, script, retry, release, leave, or lost (the login, in the middle of it).
        began: when.
        seconds: how long it took.
        ok: whether it did what it should.
        summary: one sentence.
        detail: the text of the patch, or what the script or retry wrote.
        files: the files that were changed, in the container.
    """

    what: str
    began: float
    seconds: float = 0.0
    ok: bool = True
    summary: str = ""
    detail: str = ""
    files: list[str] = field(default_factory=list)


@dataclass
class Incident:
    """A held step: what its container reported, and what was done.

    Attributes:
        step: the name of the step.
        address: the host's address; `smssh connect ADDRESS` leads there.
        point: where it is held: start, failure or end.
        attempt: which run of the entry point it was, from 1.
        found: when the debugger saw it.
        held_since: when the hold began, by the container's clock.
        deadline: when the hold ends by itself, by the container's clock.
        report: what `smssh-hook report --json` gave; {} where it could not be read.
        log_tail: the last lines of the job's log.
        cause: the chosen error and its cause; None where nothing failed.
        probes: what the probes of plugins found, by their names.
        actions: what was done, in order.
        resolution: open, fixed, failed (the retry failed too), held (left for a person), by hand (its step succeeded
            after it was left), over (its step ended otherwise), running (its retry went on when the debugger
            stopped), released or lost.
        resolved: when that was settled.
    """

    step: str
    address: str
    point: str
    attempt: int
    found: float
    held_since: float | None = None
    deadline: float | None = None
    report: dict[str, Any] = field(default_factory=dict)
    log_tail: list[str] = field(default_factory=list)
    cause: Finding | None = None
    probes: dict[str, Any] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)
    resolution: str = "open"
    resolved: float | None = None

    @property
    def error(self) -> str:
        """What went wrong, in one line."""
        if self.cause is not None and self.cause.error:
            return self.cause.error
        told = str(self.report.get("error") or "").strip()
        if told:
            return told.splitlines()[0]
        trace = str(self.report.get("traceback") or "").strip()
        if trace:
            return trace.splitlines()[-1]
        code = self.report.get("exit_code")
        return f"the entry point ended with status {code}" if code is not None else "the entry point failed"


@dataclass
class Step:
    """A step of the execution.

    Attributes:
        name: its name, with the index of its iteration where a ForEach step is around it (`Train-3`): no other step of
            the execution has it.
        kind: training, processing or transform; for others the type as the service calls it (Model,
            Condition, ...).
        status: as the service says: Starting, Executing, Stopping, Stopped, Failed, Succeeded, or one that is newer
            than this program.
        job: the name of its job; "" where it has none.
        address: the address of its first host; "" where it has no job.
        started: when it started.
        ended: when it ended.
        failure_reason: as the service says; "" where it did not fail.
        cached: whether the service took the result of an earlier execution: its job, if any, ran in that one.
        defined: its name in the definition of the pipeline, which all iterations share.
        parent: the ForEach step around it; "" without one.
        item: the item of its iteration, cut short.
        attempt: which attempt of its retry policies this is, from 1; each has a job of its own.
        log_tail: the last lines of its log, of steps that failed or were repaired.
        cause: the chosen error and its cause, of steps that failed.
    """

    name: str
    kind: str
    status: str
    job: str = ""
    address: str = ""
    started: float | None = None
    ended: float | None = None
    failure_reason: str = ""
    cached: bool = False
    defined: str = ""
    parent: str = ""
    item: str = ""
    attempt: int = 1
    log_tail: list[str] = field(default_factory=list)
    cause: Finding | None = None


@dataclass
class Attempt:
    """One run of a held step's entry point, started by a person or by smssh.

    Attributes:
        step: the name of the step.
        address: the host's address.
        attempt: its number, from 1.
        exit_code: how it ended.
        seconds: how long it ran; None where nobody could be asked any more.
        by: job (the first one), debugger (a retry of `smssh debug`), or somebody (anybody else's retry).
        diff: what people had changed in the code when it began, of whatever origin: a fix of the debugger's, too; a
            patch that may be cut; "" where nothing was, or where that is not known.
    """

    step: str
    address: str
    attempt: int
    exit_code: int
    seconds: float | None
    by: str
    diff: str = ""


@dataclass
class HostChanges:
    """What people, and the debugger, have changed in the code of one host.

    Attributes:
        step: the name of the step.
        address: the host's address.
        code_dir: the folder of the code in the container.
        seen: when that was looked at last.
        files: the paths that were changed, relative to the folder.
        diff: the patch, which may be cut.
        notes: what is left out, and why.
        patch_file: the name of the file in the report's folder that has all of it; "" if there is no such file.
    """

    step: str
    address: str
    code_dir: str
    seen: float
    files: list[str]
    diff: str
    notes: list[str]
    patch_file: str


@dataclass(frozen=True)
class Event:
    """A line of the event log.

    Attributes:
        time: when.
        text: what happened, in one line.
        level: info, good, warn or bad.
    """

    time: float
    text: str
    level: str = "info"


@dataclass
class Report:
    """All of it.

    Attributes:
        pipeline: the name of the pipeline.
        execution: the id of the execution (the last part of its ARN).
        arn: the ARN of the execution.
        region: the AWS region.
        status: the execution's status: Executing, Stopping, Stopped, Failed, Succeeded, CompletedWithFailures, or one
            that is newer than this program.
        failure_reason: the execution's; "" where it did not fail.
        started: when the execution started.
        ended: when it ended; None while it runs.
        stopped_because: why the debugger stopped watching: ended, interrupted, timeout, error, or unknown (no step
            runs, and nobody knows whether the execution's status is a last one).
        steps: those that have started, in the order of their start.
        incidents: the holds that were found, in the order they were found.
        attempts: the attempts of steps that were held.
        changes: what was changed in the code of steps that were held.
        patches: the patches that are written beside the report, by the names of their files; not in report.json.
        events: the event log.
        generated: when this was written.
        generator: the program and its version.
        version: of the schema.
    """

    pipeline: str
    execution: str
    arn: str
    region: str
    status: str = "Executing"
    failure_reason: str = ""
    started: float | None = None
    ended: float | None = None
    stopped_because: str = "ended"
    steps: list[Step] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    changes: list[HostChanges] = field(default_factory=list)
    patches: dict[str, bytes] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    generated: float = field(default_factory=time.time)
    generator: str = "smssh"
    version: int = VERSION

    @property
    def finished(self) -> bool:
        """Whether the execution has ended."""
        return self.status in EXECUTION_ENDED
