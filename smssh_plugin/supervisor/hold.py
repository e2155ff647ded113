"""What the supervisor knows of the entry point, and the hold: who is connected, when and how it ends.

All timing of holds is here. The methods are called from the socket's threads, one for each connection; a
hold blocks the thread of whoever asked for it.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

from .._version import __version__
from ..container.cost import waiting
from ..container.redaction import Redaction
from ..durations import format_duration
from ..entrypoints import orphans
from ..entrypoints.connections import connections
from ..entrypoints.people import sessions
from ..errors import ExitStatus, SmsshError
from ..files import write_atomically
from ..hookspecs import Context, Failure, Hold
from . import job, protocol
from .peers import Together

if TYPE_CHECKING:
    from pathlib import Path

    from ..plugins import Plugins

__all__ = ["Keeper"]

HOLDERS = ("init", "toolkit")
"""The roles of parents that wait for the end of an attempt; `script` is only there before the first."""
REMINDER_SECONDS = 60.0
EXPIRING_SECONDS = 300.0
"""How long before its end a hold says that it is about to end; half of its length where that is less."""
START_LIMIT = 300.0
"""Seconds after which the first stage of a hold begins even if the start of the supervisor is not over."""
POLL_SECONDS = 1.0
"""How often a hold counts the connections; also how late its deadline can be."""
LIMIT_NEAR = (
    "the job's own limit is near (MaxRuntimeInSeconds), and a job that reaches it does not end in order"
)
REPORT_LIMIT = 2 << 20
"""Bytes of a report; it travels in one message."""
CLOCK_STEP = 1.0
"""Seconds by which the clock must be set before a hold's deadlines are moved with it."""

_log = logging.getLogger("smssh.keeper")


class Keeper:
    """The state of the entry point and of the hold.

    Args:
        context: the supervisor's context.
        plugins: the hooks.
        say: writes one line into the job's log when no parent is connected.
        holder: whether a parent that can hold the job is there, or is going to be.
        ends: when every hold must be over because of the job's own limit, in seconds since the epoch; None where
            that is not known.
    """

    def __init__(
        self,
        context: Context,
        plugins: Plugins,
        say: Callable[[str], None],
        *,
        holder: bool = False,
        ends: float | None = None,
    ) -> None:
        self.context = context
        self.plugins = plugins
        self.stop_wanted = threading.Event()
        self.stopped = threading.Event()
        self._changed = threading.Condition()
        self._ready = False
        self._error: str | None = None
        self._wanted = True
        self._ended = False
        self._attempt = 0
        self._running = False
        self._started = 0.0
        self._exit_code: int | None = None
        self._command: list[str] = []
        self._results: dict[int, dict[str, Any]] = {}
        self._hold: Hold | None = None
        self._decision: dict[str, Any] | None = None
        self._hold_requested = False
        self._holder = holder
        # Kept by a clock that nobody sets.
        self._must_end = None if ends is None else time.monotonic() + ends - time.time()
        self._entry = ""
        self._left_out: list[str] = []
        self._pending: dict[str, Any] | None = None
        """A decision for an attempt that still runs."""
        self._together = Together(context, plugins, self._others_changed)
        self._started_once = False
        self._released: dict[str, Any] | None = None
        self._report: Path | None = None
        self._first_failed = ""
        self._waiters = 0
        self._answered = 0.0
        self._say_outside = say
        self._say_inside: Callable[[str], None] | None = None
        self._events: queue.Queue[tuple[str, str, Hold | None, int, int | None] | None] = queue.Queue()
        self._configured = threading.Event()
        self._before: threading.Thread | None = None
        self._notifier = threading.Thread(target=self._notify_all, name="notify", daemon=True)
        self._notifier.start()

    # ---------------------------------------------------------------------------- the supervisor's own calls

    def say(self, line: str) -> None:
        """Write one line into the job's log: through the entry point's parent in a hold, else past it."""
        inside = self._say_inside
        if inside is not None:
            inside(line)
        else:
            self._say_outside(line)

    def configured(self) -> None:
        """No plugin changes the settings any more: what has happened so far, and whatever will, is told."""
        self._configured.set()

    def ready(self, error: str | None = None, *, wanted: bool = True) -> None:
        """The start is over: a login is possible, or `error` says why not.

        Args:
            error: the reason.
            wanted: False where nobody wants a login on this host, so that SMSSH_STRICT has nothing to refuse.
        """
        with self._changed:
            self._wanted = wanted
            self._ready = error is None
            self._error = error
            self._changed.notify_all()
        self._together.start_over()
        self.configured()
        if error is None:
            self._notify("ready", f"ready: {self.context.connect_command}", self._hold)

    def finish(self, seconds: float) -> None:
        """Nothing runs any more: tell it, and wait at most `seconds` for the notifications to be out."""
        with self._changed:
            self._ended = True
            self._running = False
            if self._hold is not None and self._decision is None:
                self._decision = {"action": "release", "exit_code": None}
            self._changed.notify_all()
        self._together.flush(seconds / 2)
        self._notify("ended", "ended")
        self.configured()
        self._events.put(None)
        self._notifier.join(seconds)

    def let_answers_out(self, seconds: float) -> None:
        """Whoever has just released the job, or waited for its last attempt, reads the answer over SSH.

        Returns as soon as nobody is connected any more.
        """
        server = self.context.server
        deadline = time.monotonic() + seconds
        while self._waiters and time.monotonic() < deadline:
            time.sleep(0.02)
        deadline = self._answered + seconds
        while (
            server is not None
            and time.monotonic() < deadline
            and connections(server.port, server.control_port)
        ):
            time.sleep(0.05)

    # ---------------------------------------------------------------------------- the entry point's parent

    def attach(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A parent introduces itself."""
        with self._changed:
            self._command = [str(part) for part in message.get("command") or ()]
            found = message.get("code_dir") or job.code_dir(
                self.context.environment, self.context.job.kind, self._command, message.get("cwd")
            )
            self.context.code_dir = str(found)
            self._entry = str(message.get("entry") or self._entry)
            self._holder = self._holder or message.get("role") in HOLDERS
        return {"ok": True}

    def before(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """An attempt starts. Where init runs a toolkit, both say so: it is the same attempt.

        Init may come to say it when the toolkit's is over already: it started no later than that one did.
        """
        started = float(message.get("started") or time.time())
        with self._changed:
            if self._attempt and started <= self._started:
                return {"ok": True, "attempt": self._attempt}
        self._take_environment(message)
        with self._changed:
            again = self._running
            if not again:
                self._running = True
                self._attempt += 1
                self._started = started
            self._started_once = True
            attempt = self._attempt
            self.context.attempt, self.context.exit_code = attempt, None
            self._changed.notify_all()
        self._together.begin(attempt)
        if not again:
            self._notify("running", f"attempt {attempt} of the entry point runs")
        # Not in the way of the entry point, which waits for the answer; what follows waits for the hooks.
        self._before = threading.Thread(
            target=self._before_hooks,
            args=(self._before, attempt, tuple(self._command)),
            name="before",
            daemon=True,
        )
        self._before.start()
        return {"ok": True, "attempt": attempt}

    def _before_hooks(self, earlier: threading.Thread | None, attempt: int, command: Sequence[str]) -> None:
        if earlier is not None:
            earlier.join()
        self.plugins.before_entry_point(self.context, attempt, command)

    def failed(
        self, message: Mapping[str, Any], say: Callable[[str], None], gone: Callable[[], bool]
    ) -> dict[str, Any]:
        """An attempt failed: collect the report, hold, and say what to do next.

        Args:
            message: `exit_code`, and `error` and `log_tail` where they are known.
            say: writes a line into the job's log.
            gone: True when the parent has hung up.
        """
        exit_code = int(message.get("exit_code") or 1)
        self._end_before_hooks()
        self._take_environment(message)
        with self._changed:
            started = self._started
            if not self._attempt:  # over before anybody could listen; init may still come to say that it runs
                self._attempt, self._started = 1, time.time()
        failure = Failure(
            attempt=self._attempt,
            command=tuple(self._command),
            exit_code=exit_code,
            error=message.get("error"),
            log_tail=message.get("log_tail"),
            started=started,
        )
        hold = (
            self._released is None
            and self._pending is None
            and (self._hold_requested or self.plugins.hold(self.context, "failure", exit_code))
        )
        self.context.attempt, self.context.exit_code = failure.attempt, exit_code
        self._notify("failed", f"attempt {failure.attempt} ended with exit status {exit_code}")
        if hold or (self._together.all and self._pending is None):
            self._together.tell(
                state="failed", attempt=failure.attempt, exit_code=exit_code, failed=time.time()
            )
        if hold:
            self.plugins.entry_point_failed(self.context, failure)
            self._write_report(failure)
        self._close_attempt(exit_code)
        if not hold:
            return self._pending_decision()
        return self._keep("failure", say, gone)

    def succeeded(
        self, message: Mapping[str, Any], say: Callable[[str], None], gone: Callable[[], bool]
    ) -> dict[str, Any]:
        """An attempt succeeded; held when `end` is a point of it. See `failed`."""
        exit_code = int(message.get("exit_code") or 0)
        self._end_before_hooks()
        self._close_attempt(exit_code)
        if self._released is not None or self._pending is not None:
            return self._pending_decision()
        if self._hold_requested or self.plugins.hold(self.context, "end", exit_code):
            return self._keep("end", say, gone)
        if self._together.all:
            return self._keep("end", say, gone, with_others=True)
        return {"action": "release", "exit_code": None}

    def point(
        self, message: Mapping[str, Any], say: Callable[[str], None], gone: Callable[[], bool]
    ) -> dict[str, Any]:
        """Before the first attempt; held once. See `failed`."""
        with self._changed:
            first, self._started_once = not self._started_once, True
        if first and message.get("point") == "start" and self.plugins.hold(self.context, "start", None):
            return self._keep("start", say, gone)
        return {"action": "release", "exit_code": None}

    def wait_ready(self, seconds: float) -> dict[str, Any]:
        """Wait until the start is over: {"ready": bool, "error": str or None, "wanted": bool}."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._error is not None, seconds)
            return {"ready": self._ready, "error": self._error, "wanted": self._wanted}

    def end(self, seconds: float) -> dict[str, Any]:
        """The job is over: have the supervisor stop, and answer when it has."""
        self.stop_wanted.set()
        self.stopped.wait(seconds)
        return {"ok": True}

    # ---------------------------------------------------------------------------- a person

    def status(self) -> dict[str, Any]:
        """`smssh-hook status --json`; see the reference for its fields."""
        context = self.context
        with self._changed:
            hold = None if self._hold is None else asdict(self._hold)
            point = None if hold is None else str(hold.pop("point"))
            server = context.server
            return {
                "version": 1,
                "state": self._state(),
                "point": point,
                "job": context.job.name,
                "kind": context.job.kind,
                "host": context.job.host,
                "step": context.job.step,
                "attempt": self._attempt,
                "exit_code": self._exit_code,
                "attempts": [
                    {"attempt": number, **result} for number, result in sorted(self._results.items())
                ],
                "hold": hold,
                "ssh": {
                    "port": None if server is None else server.port,
                    "control_port": None if server is None else server.control_port or None,
                    "host_key": None if server is None else server.host_key,
                    "user": None if server is None else server.user,
                    "server": None if server is None else server.name,
                },
                "transport": {
                    "name": None if context.transport is None else context.transport.name,
                    "target": None if context.transport is None else context.transport.target,
                },
                "code_dir": context.code_dir,
                "report": None if self._report is None else str(self._report),
                "holds_end": self._ends(),
                "error": self._error,
                "connect": context.connect_command,
                "connected": sessions(context),
                "hosts": {host: asdict(state) for host, state in self._together.others.items()},
                "plugin_version": __version__,
                "hooks": self.plugins.names,
            }

    def report(self) -> dict[str, Any]:
        """The report of the last failed attempt, or one of how things stand now.

        Raises:
            SmsshError: the file has been removed.
        """
        path = self._report
        if path is None:
            failure = Failure(
                max(1, self._attempt), tuple(self._command), self._exit_code, started=self._started
            )
            return self._collect(failure)
        try:
            report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SmsshError(f"The report is not readable: {error}.", reference="no-report") from None
        if "hosts" not in report:
            report.update(self._together.report())
        return report

    def request_hold(self) -> dict[str, Any]:
        """Hold at the next failure or at the end, whatever the settings say.

        Raises:
            SmsshError: the job has ended, or none of us is there when it does.
        """
        with self._changed:
            self._refuse_after_end()
            if not self._holder:
                raise SmsshError(
                    "This job cannot be held any more: smssh did not start its program and sees its end too late.",
                    hint="Submit it with hold=..., or with `smssh-hook run` as its entry point. What insists on "
                    "being process 1 can only be entered.",
                    reference="cannot-hold",
                    status=ExitStatus.FAILED,
                )
            self._hold_requested = True
            self._released = None
        return {"ok": True, "state": self._state()}

    def extend(self, seconds: float) -> dict[str, Any]:
        """Let the hold last `seconds` from now at least, but not beyond its maximum.

        Raises:
            SmsshError: nothing is held, or the hold is at its maximum.
        """
        with self._changed:
            hold = self._held()
            deadline = min(time.time() + seconds, hold.max_deadline)
            if deadline <= hold.deadline and hold.deadline >= hold.max_deadline:
                raise SmsshError(
                    "The hold is at its maximum already.",
                    hint="SageMaker ends the job soon after: its limit (MaxRuntimeInSeconds) cannot be changed now."
                    if self._cut_short(hold)
                    else "SMSSH_HOLD_MAX_SECONDS is set when the job is submitted.",
                    reference="hold-at-maximum",
                    status=ExitStatus.FAILED,
                )
            hold.deadline = hold.extended = max(hold.deadline, deadline)
            left = hold.deadline - time.time()
            self._changed.notify_all()
        self._notify("extended", f"extended: {format_duration(left)} left", hold)
        return {"ok": True, "deadline": hold.deadline, "seconds": left}

    def retry(self, wait: bool, gone: Callable[[], bool]) -> dict[str, Any]:
        """Run the entry point again; with `wait`, answer when that attempt has ended.

        Args:
            wait: whether the answer waits for the attempt.
            gone: True when the caller has hung up.

        Raises:
            SmsshError: nothing is held after a failure or at the end.
        """
        with self._changed:
            hold = self._held()
            if hold.point == "start":
                raise SmsshError(
                    "The entry point has not run yet.",
                    hint="`smssh-hook release` starts it.",
                    reference="not-run-yet",
                )
            attempt = self._attempt + 1
            self._decide({"action": "retry", "attempt": attempt})
            self._waiters += 1
        try:
            if not wait:
                return {"attempt": attempt, "exit_code": None, "seconds": None, "state": "running"}
            while not gone():
                with self._changed:
                    over = self._changed.wait_for(
                        lambda: attempt in self._results or self._ended, POLL_SECONDS
                    )
                    if not over:
                        continue
                    result = self._results.get(attempt)
                    if result is None:
                        raise SmsshError("The job ended before the attempt did.", reference="job-ended")
                    # A hold that follows is entered a moment after the result is known.
                    self._changed.wait_for(
                        lambda: self._state() != "running" or self._released is not None, 5.0
                    )
                    return dict(result, attempt=attempt, state=self._state())
            return {"attempt": attempt, "exit_code": None, "seconds": None, "state": self._state()}
        finally:
            with self._changed:
                self._waiters -= 1
                self._answered = time.monotonic()

    def release(self, exit_code: int | None) -> dict[str, Any]:
        """End the hold; `exit_code` is the status to end with, None for the entry point's own.

        Raises:
            SmsshError: nothing is held.
        """
        with self._changed:
            hold = self._held()
            self._answered = time.monotonic()
            self._decide({"action": "release", "exit_code": exit_code, "decided": "release"})
        return {
            "ok": True,
            "point": hold.point,
            "exit_code": self._exit_code if exit_code is None else exit_code,
        }

    # ---------------------------------------------------------------------------- inside

    def _state(self) -> str:
        if self._ended:
            return "ended"
        if self._hold is not None:
            return "held"
        if self._running:
            return "running"
        if self._results:
            return "ended" if self._released is not None or self._exit_code == 0 else "running"
        return "ready" if self._ready else "starting"

    def _refuse_after_end(self) -> None:
        if self._ended:
            raise SmsshError("The job has ended.", reference="job-ended")

    def _held(self) -> Hold:
        if self._hold is None or self._decision is not None:
            raise SmsshError(
                f"Nothing is held: the state is {self._state()}.",
                hint="`smssh-hook hold` asks for a hold at the next failure or at the end.",
                reference="not-held",
            )
        return self._hold

    def _decide(self, decision: dict[str, Any]) -> None:
        self._decision = decision
        self._changed.notify_all()

    def _end_before_hooks(self) -> None:
        """The hooks are called in order: those of the start of an attempt end before those of its end begin."""
        if self._before is not None:
            self._before.join()  # bounded by the limits of the hooks

    def _take_environment(self, message: Mapping[str, Any]) -> None:
        environment = message.get("environment")
        left_out = list(message.get("left_out") or ())
        if left_out != self._left_out:
            self._left_out = left_out
            _log.warning(
                "logins go without these variables, which are too large: %s", ", ".join(left_out) or "none"
            )
        if environment:
            bundle = None if self.context.bundle is None else str(self.context.bundle)
            self.context.environment = job.login_environment(environment, bundle)

    def _close_attempt(self, exit_code: int) -> None:
        with self._changed:
            was_running = self._running
            attempt = self._attempt = max(1, self._attempt)
            self._running = False
            self._exit_code = exit_code
            self.context.attempt, self.context.exit_code = attempt, exit_code
            if was_running or attempt not in self._results:
                seconds = round(time.time() - self._started, 3) if self._started else 0.0
                self._results[attempt] = {"exit_code": exit_code, "seconds": seconds}
            self._changed.notify_all()
        if was_running:
            self.plugins.after_entry_point(self.context, attempt, exit_code)

    def _collect(self, failure: Failure, *, failing: bool = False) -> dict[str, Any]:
        report: dict[str, Any] = {
            "version": 1,
            "job": self.context.job.name,
            "kind": self.context.job.kind,
            "host": self.context.job.host,
            "step": self.context.job.step,
            "attempt": failure.attempt,
            "time": time.time(),
            "exit_code": failure.exit_code,
            "command": list(failure.command),
        }
        report.update(self._together.report(failing=failing))
        self._first_failed = str(report.get("first_failed") or "")
        for name, value in self.plugins.collect_report(self.context, failure).items():
            report.setdefault(name, value)
        return _bounded(Redaction(self.context.environment).everything(report))

    def _write_report(self, failure: Failure) -> None:
        try:
            text = json.dumps(self._collect(failure, failing=True), indent=1)
            path = self.context.run_dir / "report.json"
            write_atomically(path, text)
            self._report = path
        except (OSError, TypeError, ValueError) as error:
            _log.warning("no report: %s", error)

    def _keep(
        self,
        point: str,
        say: Callable[[str], None],
        gone: Callable[[], bool],
        *,
        with_others: bool = False,
    ) -> dict[str, Any]:
        """Hold until somebody decides, nobody is left to hold for, or time is up; returns the decision.

        Args:
            point: `start`, `failure` or `end`.
            say: writes a line into the job's log.
            gone: True when the parent has hung up.
            with_others: whether this host only stays because other hosts of the job run or are held.
        """
        settings = self.context.settings
        seconds = float(settings.hold_seconds)
        if point == "start" and settings.wait_seconds is not None:
            seconds = float(settings.wait_seconds)
        now = time.time()
        limit = min(now + settings.hold_max_seconds, self._ends() or now + settings.hold_max_seconds)
        hold = Hold(point, now, min(now + seconds, limit), limit)
        with self._changed:
            self._refuse_after_end()
            self._hold, self._decision = hold, None
            self._say_inside = say
            self._changed.notify_all()
        if point != "start":
            self._together.tell(state="succeeded" if with_others else "held", attempt=self._attempt)
            self._together.hold()
        self._notify("held", f"held ({self._why(point, with_others)}): {self._banner(hold)}", hold)
        try:
            decision = self._wait(hold, seconds, gone, with_others)
            if point != "start":
                self._pass_on(decision, gone)
        finally:
            self._together.hold(False)
            if hold.connected:
                self._together.tell(connected=False)
            with self._changed:
                self._hold, self._decision = None, None
                self._say_inside = None
                self._changed.notify_all()
        if decision["action"] == "retry":
            self._notify("retried", "retried: the entry point runs again")
        else:
            if point != "start":
                self._released = decision
            self._notify("released", "released: {}".format(decision.get("why") or "somebody asked for it"))
            with self._changed:
                self._changed.notify_all()
        return {
            "action": decision["action"],
            "exit_code": decision.get("exit_code"),
            "attempt": self._attempt,
        }

    def _why(self, point: str, with_others: bool) -> str:
        """Why this container is held, in a few words."""
        if with_others:
            return "the entry point has succeeded here, and other hosts of the job have not ended"
        if point == "start":
            return "before the entry point"
        if point == "end":
            return "the entry point has succeeded"
        first = f"; {self._first_failed} failed first" if self._first_failed else ""
        return f"the entry point ended with exit status {self._exit_code}{first}"

    def _wait(
        self, hold: Hold, seconds: float, gone: Callable[[], bool], with_others: bool
    ) -> dict[str, Any]:
        reminded = time.monotonic()
        offset = time.time() - reminded
        idle = float(self.context.settings.idle_seconds)
        came = False
        warn_at = min(EXPIRING_SECONDS, seconds / 2)
        warned = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._decision is not None, POLL_SECONDS)
                if self._decision is not None:
                    return self._decision
                if self._error is not None:
                    # Waiting costs money, and nobody could use the time.
                    return _release("no login is possible in this container")
            if gone():
                return _release("the entry point's parent is gone")
            offset = _follow_clock(hold, offset)
            connected = sessions(self.context)
            if bool(connected) != bool(hold.connected):
                self._together.tell(connected=bool(connected))
            hold.connected = connected
            elsewhere = self._together.somebody_connected()
            now = time.time()
            starting = not self._ready and now < hold.since + START_LIMIT
            if connected or elsewhere:
                came = True
                # Whoever loses the connection may come back.
                stay = max(now + (idle or seconds), hold.extended if idle else hold.deadline)
                hold.deadline = min(stay, hold.max_deadline)
                hold.ends = hold.max_deadline
            elif with_others and self._together.others_go_on():
                hold.deadline = max(hold.deadline, min(now + seconds, hold.max_deadline))
                hold.ends = hold.max_deadline
            elif with_others:
                return _release("the other hosts have ended too")
            else:
                if starting:  # nobody can come before a login is possible
                    hold.deadline = max(hold.deadline, min(now + seconds, hold.max_deadline))
                hold.ends = hold.deadline
            if now >= hold.max_deadline:
                return _expired(
                    LIMIT_NEAR
                    if self._cut_short(hold)
                    else f"{format_duration(hold.max_deadline - hold.since)} are over"
                )
            if now >= hold.ends and (
                hold.point == "start" or self._together.nobody_connected(now - hold.ends)
            ):
                return _expired(
                    f"nobody was connected for {format_duration(idle if came and idle else seconds)}"
                )
            if hold.ends - now <= warn_at and hold.ends != warned and not starting:
                warned = hold.ends
                self._notify("expiring", f"about to end: {self._banner(hold)}", hold)
            elif time.monotonic() - reminded >= REMINDER_SECONDS:
                reminded = time.monotonic()
                self._notify("reminder", f"held: {self._banner(hold)}", hold)

    def _ends(self) -> float | None:
        """When every hold must be over because of the job's own limit, in seconds since the epoch."""
        return None if self._must_end is None else time.time() + self._must_end - time.monotonic()

    def _cut_short(self, hold: Hold) -> bool:
        """Whether it is the job's own limit that ends a hold at last."""
        ends = self._ends()
        return ends is not None and ends <= hold.max_deadline + CLOCK_STEP

    def _banner(self, hold: Hold) -> str:
        who = f"{hold.connected} connected" if hold.connected else "nobody connected"
        if not hold.connected and self._together.somebody_connected():
            who = "somebody connected to another host"
        left = f"{who}, {format_duration(round(hold.ends - time.time()))} left"
        if time.time() - hold.ends > POLL_SECONDS + CLOCK_STEP:
            left += ": it is not known yet whether somebody is connected to another host"
        if self._cut_short(hold) and hold.ends >= hold.max_deadline - CLOCK_STEP:
            left += " (the job's own limit, MaxRuntimeInSeconds)"
        parts = [self.context.connect_command, left]
        if self._together.held():
            parts.append("also held: " + ", ".join(self._together.held()))
        parts.append(waiting(self.context, hold))
        parts.append("then: smssh-hook retry, release or extend 30m")
        return " | ".join(part for part in parts if part)

    # ---------------------------------------------------------------------------- the other hosts of the job

    def _pass_on(self, decision: Mapping[str, Any], gone: Callable[[], bool]) -> None:
        """Let the other hosts know what was decided here; where they are held together, they follow."""
        if decision["action"] == "retry":
            self._together.tell(
                state="running",
                attempt=self._attempt + 1,
                exit_code=None,
                failed=0.0,
                first=False,
                connected=False,
                decision="retry",
                chosen=None,
            )
            return
        self._together.tell(
            state="released",
            connected=False,
            decision=decision.get("decided", ""),
            chosen=decision.get("exit_code"),
        )
        decided_here = decision.get("decided") and not decision.get("followed")
        if decided_here and not gone() and not self.stop_wanted.is_set():
            self._together.let_others_follow()

    def _others_changed(self) -> None:
        """Another host may have decided something that holds for this one too."""
        other = self._together.decision
        if other is None or not self._together.all:
            return
        end_attempt = False
        with self._changed:
            hold = self._hold
            held = hold is not None and hold.point != "start" and self._decision is None
            if other.state == "released":
                # Another host's deadline does not count while somebody is connected here.
                if hold is not None and held and (other.decision == "release" or not hold.connected):
                    self._decide(
                        {
                            "action": "release",
                            "exit_code": other.chosen,
                            "decided": other.decision,
                            "followed": True,
                            "why": f"{other.host} was released",
                        }
                    )
            elif other.attempt > self._attempt and held:
                self._attempt = other.attempt - 1
                self._decide({"action": "retry", "attempt": other.attempt})
            elif other.attempt > self._attempt and self._running and self._pending is None:
                self._attempt = other.attempt - 1
                self._pending = {"action": "retry", "exit_code": None}
                end_attempt = True
        if end_attempt and self._entry:
            self._notify(
                "reminder", "another host is retried: the attempt that runs here is ended, and runs again"
            )
            # What runs now, and nothing later: the next attempt starts as soon as this one has ended.
            ending = orphans.find(self._entry)
            orphans.end(lambda: [pid for pid in orphans.find(self._entry) if pid in ending])

    def _pending_decision(self) -> dict[str, Any]:
        """What was decided for an attempt while it ran."""
        with self._changed:
            pending, self._pending = self._pending, None
        return pending or self._released or {"action": "release", "exit_code": None}

    # ---------------------------------------------------------------------------- telling

    def _notify(self, event: str, message: str, hold: Hold | None = None) -> None:
        # An event may be told late; its attempt and exit status are those of the moment in which it happened.
        self._events.put((event, message, hold, self.context.attempt, self.context.exit_code))

    def _notify_all(self) -> None:
        self._configured.wait()
        while True:
            queued = self._events.get()
            if queued is None:
                return
            event, message, hold, attempt, exit_code = queued
            try:
                context = replace(self.context, attempt=attempt, exit_code=exit_code)
                self.plugins.notify(context, event, message, hold)
            except Exception:  # noqa: BLE001 - the next event is told too
                _log.exception("notify")


def _bounded(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report, in at most REPORT_LIMIT bytes and of what JSON has; `shortened` names what was cut for that."""
    kept: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for name, value in report.items():
        try:
            sizes[name] = len(json.dumps(value, allow_nan=False))
            kept[name] = value
        except (TypeError, ValueError, RecursionError) as error:  # noqa: PERF203 - a dozen sections
            _log.warning("the report goes without %s: %s", name, error)
    shortened = set()
    while sum(sizes.values()) > REPORT_LIMIT:
        name = max(sizes, key=lambda each: sizes[each])
        value = kept[name]
        # Of output the end says most.
        if isinstance(value, str) and len(value) > 1:
            kept[name] = value[len(value) // 2 :]
        elif isinstance(value, list) and len(value) > 1:
            kept[name] = value[len(value) // 2 :] if name == "log_tail" else value[: len(value) // 2]
        else:
            kept[name] = None
        sizes[name] = protocol.size(kept[name])
        shortened.add(name)
    return {**kept, "shortened": sorted(shortened)} if shortened else kept


def _follow_clock(hold: Hold, offset: float) -> float:
    """Move the hold's times where somebody has set the clock: it lasts as long as without that.

    Args:
        hold: its times are seconds since the epoch, for people and other programs.
        offset: the wall clock minus the monotonic one, when this was last looked at.

    Returns:
        The same difference now.
    """
    now = time.time() - time.monotonic()
    if abs(now - offset) < CLOCK_STEP:
        return offset  # slewing adds up until it is one step
    hold.since += now - offset
    hold.deadline += now - offset
    hold.max_deadline += now - offset
    hold.ends += now - offset
    hold.extended += now - offset
    return now


def _release(why: str) -> dict[str, Any]:
    return {"action": "release", "exit_code": None, "why": why}


def _expired(why: str) -> dict[str, Any]:
    return {**_release(why), "decided": "expire"}
