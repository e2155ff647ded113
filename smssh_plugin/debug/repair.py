"""One held step: look at it, put the fix in, run the entry point again.

In a thread of its own: a retry may take hours, and other steps go on meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..client.connect import Connection
from ..client.endpoint import reach
from ..errors import SmsshError
from . import fix as fixes
from . import logs
from .model import Action, Event, Incident
from .probes import look

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..aws.session import AwsSession
    from ..client.lookup import Node
    from .probes import Probe

__all__ = ["Bench", "Repair"]

HOOK_SECONDS = 60.0


@dataclass
class Bench:
    """What all repairs share.

    Attributes:
        session: the AWS session.
        folder: the folder of fixes; None: there are none.
        release: whether to release a step that cannot be fixed; else it stays held for a person.
        say: takes lines of the protocol, from any thread.
        found: takes a new incident, from any thread.
        used: the steps' jobs whose fix was put in already.
        probes: what looks at each step that failed, before it is fixed.
    """

    session: AwsSession
    folder: Path | None
    release: bool
    say: Callable[[Event], None]
    found: Callable[[Incident], None]
    used: set[str] = field(default_factory=set)
    probes: list[Probe] = field(default_factory=list)


class Repair:
    """The work on one held host.

    Args:
        bench: what all repairs share.
        node: the host.
        step: the name of its step.
        address: an address of it that a person can type.
        known: (attempt, point) of holds of this job that were handled already.
    """

    def __init__(
        self, bench: Bench, node: Node, step: str, address: str, known: set[tuple[int, str]]
    ) -> None:
        self.node = node
        self.step = step
        self.address = address
        self.incident: Incident | None = None
        self.looked = False
        """Whether the host could be asked at all."""
        self._bench = bench
        self._known = known
        self._connection: Connection | None = None
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"repair-{step}", daemon=True)

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
        connection = self._connection
        if connection is not None:
            connection.close()
        self._thread.join(timeout)

    def _work(self) -> None:
        try:
            with login(self._bench.session, self.node) as connection:
                self._connection = connection
                if self._cancelled.is_set():
                    return
                self._handle(connection)
        except SmsshError as error:
            if self._cancelled.is_set():
                return
            if self.incident is None:
                # The tag may be older than the end of the container; the next look tells.
                self._say(f"cannot look at it: {error.message}", "warn")
            else:
                self._settle("lost", f"lost it: {error.message}", "warn")

    def _handle(self, connection: Connection) -> None:
        state = _hook(connection, "status")
        self.looked = True
        point, attempt = str(state.get("point") or ""), int(state.get("attempt") or 1)
        if state.get("state") != "held" or (attempt, point) in self._known:
            return
        self._known.add((attempt, point))
        hold = state.get("hold") or {}
        incident = Incident(
            step=self.step,
            address=self.address,
            point=point,
            attempt=attempt,
            found=time.time(),
            held_since=hold.get("since"),
            deadline=hold.get("deadline"),
        )
        if point != "failure":
            self.incident = incident
            self._bench.found(incident)
            self._leave(f"is held at its {point}")
            return
        try:
            incident.report = _hook(connection, "report")
        except SmsshError as error:
            self._say(f"there is no report: {error.message}", "warn")
        told = incident.report.get("log_tail")
        incident.log_tail = (
            [str(line) for line in told]
            if told
            else logs.tail(self._bench.session, self.node.kind, self.node.job)
        )
        self.incident = incident
        self._bench.found(incident)
        which = f" (attempt {attempt})" if attempt > 1 else ""
        self._say(f"failed and is held{which}: {incident.error}", "bad")
        incident.probes = look(self._bench.probes, connection, lambda text: self._say(text, "warn"))
        self._fix(connection, incident, str(state.get("code_dir") or ""))

    def _fix(self, connection: Connection, incident: Incident, code_dir: str) -> None:
        found = fixes.find(self._bench.folder, self.step)
        if found is None:
            self._give_up(connection, "there is no fix for it")
            return
        if self.node.target in self._bench.used:
            self._give_up(connection, "it fails with its fix, too")
            return
        self._bench.used.add(self.node.target)
        if not code_dir:
            self._give_up(connection, "its container does not say where its code is")
            return
        for path, apply in ((found.patch, fixes.apply_patch), (found.script, fixes.run_script)):
            if path is None:
                continue
            began = time.time()
            try:
                action = apply(connection, code_dir, path)
            except SmsshError as error:
                if self._cancelled.is_set():
                    raise
                what = "patch" if path is found.patch else "script"
                incident.actions.append(
                    Action(
                        what,
                        began,
                        time.time() - began,
                        ok=False,
                        summary=error.message,
                        detail=error.hint or "",
                    )
                )
                self._say(f"{error.message}{f' ({error.hint})' if error.hint else ''}", "bad")
                self._give_up(connection, "its fix could not be put in")
                return
            incident.actions.append(action)
            self._say(action.summary)
        self._retry(connection, incident)

    def _retry(self, connection: Connection, incident: Incident) -> None:
        self._say("runs its entry point again")
        action = Action("retry", time.time())
        incident.actions.append(action)
        try:
            result = connection.run(["smssh-hook", "retry", "--json"])
        except SmsshError as error:
            action.seconds = time.time() - action.began
            # A long retry outlives a cut connection; and the job's end may overtake the answer. The next
            # looks tell which.
            action.ok, action.summary = False, f"the connection was lost during the retry: {error.message}"
            raise
        action.seconds = time.time() - action.began
        answer = _json(result.text)
        action.detail = result.error_text
        code = answer.get("exit_code", result.status)
        action.ok = code == 0
        if action.ok:
            action.summary = (
                f"the entry point succeeded on attempt {answer.get('attempt', incident.attempt + 1)}"
            )
            self._settle("fixed", f"{action.summary} ({action.seconds:.0f} s); the job goes on", "good")
        else:
            action.summary = f"the entry point failed again, with status {code}"
            self._settle("failed", action.summary, "bad")

    def _give_up(self, connection: Connection, why: str) -> None:
        assert self.incident is not None
        if not self._bench.release:
            self._leave(why)
            return
        action = Action("release", time.time())
        result = connection.run(["smssh-hook", "release"], timeout=HOOK_SECONDS)
        action.seconds, action.ok = time.time() - action.began, result.status == 0
        action.summary = (
            f"{why}: released it" if action.ok else f"could not release it: {result.error_text.strip()}"
        )
        self.incident.actions.append(action)
        self._settle("released", action.summary, "warn")

    def _leave(self, why: str) -> None:
        assert self.incident is not None
        command = f"smssh connect {shlex.quote(self.address)}"
        until = self.incident.deadline
        left = (
            f"; it ends by itself in {max(until - time.time(), 0) / 60:.0f} min if nobody connects"
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
        self._bench.say(Event(time.time(), f"{self.step}{host}: {text}", level))


def login(session: AwsSession, node: Node) -> Connection:
    """Log in to a node; errors as `connect`."""
    return Connection(reach(node.address, session, node=node))


def _hook(connection: Connection, verb: str) -> dict[str, Any]:
    """The answer of `smssh-hook VERB --json`.

    Raises:
        SmsshError: it failed, or answered no JSON object.
    """
    result = connection.run(["smssh-hook", verb, "--json"], timeout=HOOK_SECONDS)
    answer = _json(result.text)
    if result.status or not answer:
        lines = result.error_text.strip().splitlines() or result.text.strip().splitlines()
        said = lines[-1] if lines else "it said nothing"
        raise SmsshError(f"smssh-hook {verb} ended with {result.status}: {said}", reference="hook-failed")
    return answer


def _json(text: str) -> dict[str, Any]:
    """The JSON object in `text`; {}: there is none. A login shell may greet before it."""
    at = 0
    while (at := text.find("{", at)) >= 0:
        with contextlib.suppress(ValueError):
            found = json.JSONDecoder().raw_decode(text, at)[0]
            if isinstance(found, dict):
                return found
        at += 1
    return {}
