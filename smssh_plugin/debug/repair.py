"""One held step: look at it, put the fix in, run the entry point again.

In a thread of its own: a retry may take hours, and other steps go on meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..client.claims import confirmed
from ..client.connection import control
from ..costs.waiting import waiting
from ..durations import format_duration
from ..errors import SmsshError
from . import fix as fixes
from . import logs, validate, why
from .captured import Captured
from .causes.find import Log
from .incidents import Action, Event, Incident
from .probes import look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ..aws.session import AwsSession
    from ..client.connection import Connection
    from ..client.managed_nodes import Node
    from .incidents import Step
    from .probes import Probe

__all__ = ["Repair", "Shared"]

HOOK_SECONDS = 60.0
OUTPUT_LIMIT = 8 << 20
"""Bytes of what a command in the container writes."""
DETAIL_LIMIT = 1 << 16
"""Characters of it that the report keeps."""
TRIES = 3
"""Logins of one hold that may be lost before it is left to a person."""


NOTE_BY = "smssh debug"


class _Cancelled(Exception):  # noqa: N818 - control flow inside Repair
    """The debugger ends."""


@dataclass
class Progress:
    """How far the repair of one hold has come; it outlives a login that is lost.

    The container keeps it as its note, too, so that it outlives this process.

    Attributes:
        attempt: the attempt whose failure it repairs.
        fix: the digest of the fix.
        patched: whether the patch is in.
        script: "", started or done.
        failed: whether the script was started and failed.
        retried: whether a retry was asked for.
    """

    attempt: int
    fix: str
    patched: bool = False
    script: str = ""
    failed: bool = False
    retried: bool = False

    @classmethod
    def read(cls, note: str) -> Progress | None:
        """What the note of a container says; None where it is another's, or there is no note."""
        told = validate.plain(_json(note))
        attempt = validate.whole(told.get("attempt"), 1, 1_000_000)
        if attempt is None or told.get("by") != NOTE_BY:
            return None
        return cls(
            attempt,
            str(told.get("fix")),
            told.get("patched") is True,
            str(told.get("script") or ""),
            told.get("failed") is True,
            told.get("retried") is True,
        )

    def note(self) -> str:
        """The note that `read` understands."""
        return json.dumps({"by": NOTE_BY, **asdict(self)})


@dataclass
class Shared:
    """What all repairs share.

    Attributes:
        aws: the AWS session.
        folder: the folder of fixes; None if there are no fixes.
        release: whether to release a step that cannot be fixed; else it stays held for a person.
        say: takes lines of the event log, from any thread.
        found: takes a new incident, from any thread.
        ran: takes what is known of the attempts of a host (step, address, attempts), from any thread.
        tail: answers the last lines of a job's log (kind, job), from any thread.
        progress: of the hosts whose fix was begun, by target.
        lost: holds whose login was lost in the middle, by target, attempt and point.
        probes: what looks at each step that failed, before it is fixed.
        earlier: attempts that an earlier run of the debugger has started (step, address, number).
        captured: what was changed in the code of the hosts.
    """

    aws: AwsSession
    folder: Path | None
    release: bool
    say: Callable[[Event], None]
    found: Callable[[Incident], None]
    ran: Callable[[str, str, list[tuple[int, int, float | None]]], None]
    tail: Callable[[str, str], list[str]]
    progress: dict[str, Progress] = field(default_factory=dict)
    lost: dict[tuple[str, int, str], Incident] = field(default_factory=dict)
    probes: list[Probe] = field(default_factory=list)
    earlier: set[tuple[str, str, int]] = field(default_factory=set)
    captured: Captured = field(default_factory=Captured)


class Repair:
    """The work on one held host.

    Args:
        shared: what all repairs share.
        node: the host.
        step: its step.
        address: an address of it that a person can type.
        known: (attempt, point) of holds of this job that were handled already.
        look: see what was changed, and nothing else; a host that cannot be asked is not worth a word.
    """

    def __init__(
        self,
        shared: Shared,
        node: Node,
        step: Step,
        address: str,
        known: set[tuple[int, str]],
        *,
        look: bool = False,
    ) -> None:
        self.node = node
        self.step = step.name
        self._defined = step.defined or step.name
        self.address = address
        self.look = look
        self.incident: Incident | None = None
        self.looked = False
        """Whether the host could be asked at all."""
        self._shared = shared
        self._known = known
        self._connections: list[Connection] = []
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"repair-{step.name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it is still at work."""
        return self._thread.is_alive()

    def cancel(self, timeout: float) -> None:
        """Close the login, and wait for the thread; the job stays as it is."""
        self._cancelled.set()
        for connection in self._connections:
            connection.close()
        self._thread.join(timeout)

    def _work(self) -> None:
        try:
            # A look is not a person's login: a step that is left held ends when it would without us.
            with self._login(self.node) as connection:
                self._handle(connection)
        except _Cancelled:
            return
        except SmsshError as error:
            if self._cancelled.is_set() or self.look:
                return
            if self.incident is None:
                # The tag may be older than the end of the container; the next look tells.
                self._say(f"cannot look at it: {error.message}", "warn")
            else:
                self._lose(self.incident, error.message)
        except Exception as error:  # noqa: BLE001 - a person must hear of it, and other steps go on
            if self._cancelled.is_set():
                return
            self._say(f"the debugger failed: {type(error).__name__}: {error}", "bad")
            if self.incident is not None:
                self._leave("the debugger failed")

    def _lose(self, incident: Incident, why: str) -> None:
        """A login was lost in the middle: the next look begins where this one ended, unless it is one too many."""
        incident.actions.append(Action("lost", time.time(), ok=False, summary=f"lost it: {why}"))
        if sum(action.what == "lost" for action in incident.actions) >= TRIES:
            self._leave(f"lost it {TRIES} times")
            return
        self._known.discard((incident.attempt, incident.point))
        self._shared.lost[self.node.target, incident.attempt, incident.point] = incident
        self._settle("lost", f"lost it: {why}", "warn")

    def _handle(self, connection: Connection) -> None:
        state = validate.state(_hook(connection, "status"))
        self.looked = True
        point, attempt = state["point"], state["attempt"]
        noted = Progress.read(state["note"])
        if noted is not None and noted.retried:
            self._shared.earlier.add((self.step, self.address, noted.attempt + 1))
        self._shared.ran(self.step, self.address, state["attempts"])
        upcoming = attempt + 1 if state["state"] == "held" else 0
        if self.look or state["state"] != "held" or (attempt, point) in self._known:
            if state["state"] in ("held", "running"):
                self._capture(connection, upcoming)
            return
        incident = self._shared.lost.pop((self.node.target, attempt, point), None)
        if incident is None:
            incident = self._meet(connection, state, attempt, point)
        else:
            incident.resolution, incident.resolved = "open", None
        self.incident = incident
        self._known.add((attempt, point))
        self._capture(connection, upcoming)
        if point == "failure":
            self._fix(connection, incident, state["code_dir"], noted)
        else:
            self._leave(f"is held at its {point}")

    def _meet(self, connection: Connection, state: dict[str, Any], attempt: int, point: str) -> Incident:
        """A hold that was not seen before: what its container reports, and what probes find."""
        incident = Incident(
            step=self.step,
            address=self.address,
            point=point,
            attempt=attempt,
            found=time.time(),
            held_since=state["since"],
            deadline=state["deadline"],
        )
        if point != "failure":
            self._shared.found(incident)
            return incident
        try:
            incident.report = validate.report(_hook(connection, "report"))
        except SmsshError as error:
            self._say(f"there is no report: {error.message}", "warn")
        incident.log_tail = incident.report.get("log_tail") or self._shared.tail(
            self.node.kind, self.node.job
        )
        more: list[Log] = []
        if not incident.report.get("traceback"):  # a few lines may not have the whole of an error
            ends = logs.ends(self._shared.aws, self.node.kind, self.node.job)
            first = self.node.host
            more = [Log(host, lines) for host, lines in sorted(ends, key=lambda each: each[0] != first)]
        incident.cause = why.of_hold(incident.report, incident.log_tail, more)
        self.incident = incident
        self._shared.found(incident)
        which = f" (attempt {attempt})" if attempt > 1 else ""
        self._say(f"failed and is held{which}: {incident.error}", "bad")
        for sentence in why.sentences(incident.cause):
            self._say(sentence)
        held = max(0.0, time.time() - (incident.held_since or incident.found))
        cost = waiting(self._shared.aws, self.node.kind, self.node.job, held)
        if cost:
            self._say(cost)
        incident.probes = look(self._shared.probes, connection, lambda text: self._say(text, "warn"))
        return incident

    def _fix(self, connection: Connection, incident: Incident, code_dir: str, noted: Progress | None) -> None:
        found = fixes.find(self._shared.folder, self.step, self._defined)
        if found is None:
            self._give_up(connection, "there is no fix for it")
            return
        digest = found.digest()
        progress = self._shared.progress.get(self.node.target)
        if progress is None and noted is not None and noted.fix == digest:
            progress = noted
            if progress.attempt == incident.attempt:
                self._say("an earlier smssh debug has begun to fix it, and this one goes on")
        if progress is None or progress.fix != digest:
            progress = Progress(incident.attempt, digest)
        self._shared.progress[self.node.target] = progress
        if progress.attempt != incident.attempt:
            self._give_up(connection, "it fails with its fix, too")
            return
        if progress.script == "started":
            # It may have done half of its work; if the connection was lost, it may still run.
            script = found.script.name if found.script is not None else "its script"
            self._give_up(
                connection,
                f"{script} failed, and is not run again until the fix is changed"
                if progress.failed
                else f"the connection was lost while {script} ran",
            )
            return
        if not code_dir:
            self._give_up(connection, "its container does not say where its code is")
            return
        # Work, other than a look, counts as a person's: a script may take longer than nobody is waited for.
        with self._login(replace(self.node, control_port=0)) as working:
            if found.patch is not None and not progress.patched:
                if not self._put_in("patch", fixes.apply_patch, working, code_dir, found.patch):
                    self._give_up(working, "its fix could not be put in")
                    return
                progress.patched = True
                self._remember(working, progress)
            if found.script is not None and not progress.script:
                progress.script = "started"
                self._remember(working, progress)
                if not self._put_in("script", fixes.run_script, working, code_dir, found.script):
                    progress.failed = True
                    self._remember(working, progress)
                    self._give_up(working, "its fix could not be put in")
                    return
                progress.script = "done"
            progress.retried = True
            self._remember(working, progress)
            self._retry(working, incident)

    @staticmethod
    def _remember(connection: Connection, progress: Progress) -> None:
        """Have the container keep how far it is; one that is too old for notes does not.

        Raises:
            SmsshError: the connection was lost.
        """
        connection.run(["smssh-hook", "note", progress.note()], timeout=HOOK_SECONDS)

    @contextlib.contextmanager
    def _login(self, node: Node) -> Iterator[Connection]:
        """Log in; `cancel` ends it.

        Raises:
            SmsshError: as `connect`.
            _Cancelled: it was cancelled meanwhile.
        """
        with login(self._shared.aws, node) as made:
            self._connections.append(made)
            if self._cancelled.is_set():
                raise _Cancelled
            yield made

    def _put_in(
        self,
        what: str,
        apply: Callable[[Connection, str, Path], Action],
        connection: Connection,
        code_dir: str,
        path: Path,
    ) -> bool:
        """Put one part of the fix in; False: it could not be, which is said and noted.

        Raises:
            SmsshError: the connection was lost.
        """
        assert self.incident is not None
        began = time.time()
        try:
            action = apply(connection, code_dir, path)
        except SmsshError as error:
            if self._cancelled.is_set() or error.reference == "connection-lost":
                raise
            trouble = error
        except OSError as error:  # a file of the fix that cannot be read
            trouble = SmsshError(f"{path.name} cannot be used: {error}")
        else:
            self.incident.actions.append(action)
            self._say(action.summary)
            return True
        seconds, hint = time.time() - began, trouble.hint or ""
        self.incident.actions.append(
            Action(what, began, seconds, ok=False, summary=trouble.message, detail=hint)
        )
        self._say(f"{trouble.message}{f' ({hint})' if hint else ''}", "bad")
        return False

    def _capture(self, connection: Connection, upcoming: int) -> None:
        """See what was changed in the code; the work goes on if that cannot be told.

        Raises:
            SmsshError: the connection was lost.
        """
        try:
            self._shared.captured.take(connection, self.step, self.address, self.node.host, upcoming)
        except SmsshError as error:
            if error.reference == "connection-lost":
                raise
            if self._shared.captured.is_new(self.step, self.address, error.message):
                self._say(error.message, "warn")

    def _retry(self, connection: Connection, incident: Incident) -> None:
        self._capture(connection, incident.attempt + 1)
        self._say("runs its entry point again")
        action = Action("retry", time.time())
        incident.actions.append(action)
        try:
            result = connection.run(["smssh-hook", "retry", "--json"], limit=OUTPUT_LIMIT)
        except SmsshError as error:
            action.seconds = time.time() - action.began
            # A long retry outlives a cut connection; and the job's end may overtake the answer. The next
            # looks tell which.
            action.ok, action.summary = False, f"the connection was lost during the retry: {error.message}"
            raise
        action.seconds = time.time() - action.began
        answer = _json(result.text)
        action.detail = result.error_text[-DETAIL_LIMIT:]
        code = validate.whole(answer.get("exit_code"), -255, 255)
        code = result.status if code is None else code
        attempt = validate.whole(answer.get("attempt"), 1, 1_000_000) or incident.attempt + 1
        self._shared.ran(self.step, self.address, [(attempt, code, action.seconds)])
        action.ok = code == 0
        if action.ok:
            action.summary = f"the entry point succeeded on attempt {attempt}"
            self._settle("fixed", f"{action.summary} ({action.seconds:.0f} s); the job goes on", "good")
        else:
            action.summary = f"the entry point failed again, with status {code}"
            self._settle("failed", action.summary, "bad")

    def _give_up(self, connection: Connection, why: str) -> None:
        assert self.incident is not None
        if not self._shared.release:
            self._leave(why)
            return
        action = Action("release", time.time())
        result = connection.run(["smssh-hook", "release"], timeout=HOOK_SECONDS, limit=OUTPUT_LIMIT)
        action.seconds, action.ok = time.time() - action.began, result.status == 0
        action.summary = (
            f"{why}: released it" if action.ok else f"could not release it: {result.error_text.strip()}"
        )
        self.incident.actions.append(action)
        if action.ok:
            self._settle("released", action.summary, "warn")
        else:
            self._leave(action.summary)

    def _leave(self, why: str) -> None:
        assert self.incident is not None
        command = f"smssh connect {shlex.quote(self.address)}"
        until = self.incident.deadline
        left = (
            f"; it ends by itself in {format_duration(until - time.time())} if nobody connects"
            if until
            else ""
        )
        self.incident.actions.append(Action("leave", time.time(), summary=f"{why}: left held; {command}"))
        self._settle("held", f"{why}: left held{left}. Enter it with: {command}", "warn")

    def _settle(self, resolution: str, text: str, level: str) -> None:
        assert self.incident is not None
        self.incident.resolution = resolution
        self.incident.resolved = time.time()
        self._say(text, level)

    def _say(self, text: str, level: str = "info") -> None:
        host = "" if self.node.host == "algo-1" else f" {self.node.host}"
        self._shared.say(Event(time.time(), f"{self.step}{host}: {text}", level))


def login(aws: AwsSession, node: Node) -> Connection:
    """Log in to a node, if it is what it claims to be, by its control port if it has one.

    Errors as `confirmed` and `connect`.
    """
    return control(node.address, aws, node=confirmed(aws, node))


def _hook(connection: Connection, verb: str) -> dict[str, Any]:
    """The answer of `smssh-hook VERB --json`.

    Raises:
        SmsshError: it failed, or answered no JSON object.
    """
    result = connection.run(["smssh-hook", verb, "--json"], timeout=HOOK_SECONDS, limit=OUTPUT_LIMIT)
    answer = _json(result.text)
    if result.status or not answer:
        lines = result.error_text.strip().splitlines() or result.text.strip().splitlines()
        said = lines[-1] if lines else "it said nothing"
        raise SmsshError(f"smssh-hook {verb} ended with {result.status}: {said}", reference="hook-failed")
    return answer


def _json(text: str) -> dict[str, Any]:
    """The JSON object in `text`; {} if there is no object. A login shell may greet before it."""
    at = 0
    while (at := text.find("{", at)) >= 0:
        with contextlib.suppress(ValueError):
            found = json.JSONDecoder().raw_decode(text, at)[0]
            if isinstance(found, dict):
                return found
        at += 1
    return {}
