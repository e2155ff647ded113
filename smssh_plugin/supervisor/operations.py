"""What the supervisor does for each request, and at its own start and end.

The methods are called from the socket's threads, one for each connection; a request for a decision blocks its thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from ..entrypoints.people import sessions
from ..errors import ExitStatus, SmsshError
from . import protocol
from .attempts import Attempts
from .clock import Clock
from .code_changes import CodeChanges
from .hold import Holds, Outcome, Requester
from .lifecycle import Lifecycle
from .notifier import Notifier
from .peers import Peers
from .status import Report, status

if TYPE_CHECKING:
    from ..hookspecs import Context
    from ..plugins import Plugins

__all__ = ["Operations"]

STOP_SECONDS = 10.0
"""How long the answer to `protocol.End` waits for the stop of the supervisor."""


class Operations:
    """The attempts, the hold and the status of one job's entry point.

    Args:
        context: the supervisor's context.
        plugins: the hooks.
        say: writes one line into the job's log while nothing is held.
        holder: whether a process that can hold the job is there, or is going to be.
        ends: when every hold must be over because of the job's own limit, in seconds since the epoch; None where
            that is not known.
        connected: counts the people who are logged in; as `people` does when left out.
        clock: the time; the machine's when left out.
    """

    def __init__(
        self,
        context: Context,
        plugins: Plugins,
        say: Callable[[str], None],
        *,
        holder: bool = False,
        ends: float | None = None,
        connected: Callable[[], int] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._context = context
        self._plugins = plugins
        self._connected = connected or (lambda: sessions(context))
        self._clock = clock = clock or Clock()
        self.lifecycle = Lifecycle(clock)
        self._notifier = Notifier(context, plugins)
        notify = self._notifier.notify
        self._peers = Peers(context, plugins, lambda: self.holds.follow(), clock=clock.steady)  # noqa: PLW0108 - made below
        self.attempts = Attempts(context, plugins, self.lifecycle, self._peers, clock, notify, holder=holder)
        self.holds = Holds(
            context,
            self.attempts,
            self._peers,
            self.lifecycle,
            clock,
            notify,
            say=say,
            connected=self._connected,
            ends=ends,
        )
        self._report = Report(context, plugins, self.attempts, self._peers, clock)
        self._note = ""
        self._code = CodeChanges(context, clock.now, self._connected)

    # ---------------------------------------------------------------------------- the supervisor's own calls

    def configured(self) -> None:
        """No plugin changes the settings any more: people are told what has happened, and what will."""
        self._notifier.configured()

    def started(self, error: str | None = None, *, wanted: bool = True) -> None:
        """The start of the supervisor is over.

        Args:
            error: why no login is possible; None if one is.
            wanted: False where nobody wants a login on this host, so that SMSSH_STRICT has nothing to refuse.
        """
        self.lifecycle.started(error, wanted=wanted)
        self._peers.start_over()
        self.configured()
        if error is None:
            self._notifier.notify("ready", f"ready: {self._context.connect_command}", self.holds.hold)

    def finish(self, seconds: float) -> None:
        """Nothing runs any more: tell it, and wait at most `seconds` for the notifications to be out."""
        with self.lifecycle.changed:
            self.lifecycle.ended = True
            self.attempts.running = False
            self.holds.end()
            self.lifecycle.changed.notify_all()
        self._peers.flush(seconds / 2)
        self._notifier.notify("ended", "ended")
        self._notifier.finish(seconds)

    # ---------------------------------------------------------------------------- requests

    def answer(self, request: protocol.Request, requester: Requester) -> protocol.Answer:
        """The answer to a request.

        Args:
            request: as it came: its values may be missing, or of other types.
            requester: the other end of the connection.

        Raises:
            SmsshError: the request is refused, or is not known.
            ValueError, TypeError, AttributeError, KeyError, OverflowError: it is not understood.
        """
        if request["op"] == "attach":
            attached = self.attempts.attach(request)
            self._code.moved()
            return attached
        if request["op"] == "before":
            return self.attempts.begin(request)
        if request["op"] == "failed":
            return self._failed(request, requester).decision()
        if request["op"] == "succeeded":
            return self._succeeded(request, requester).decision()
        if request["op"] == "point":
            return self._point(request, requester).decision()
        if request["op"] == "wait_ready":
            return self.lifecycle.wait_ready(float(request["seconds"]))
        if request["op"] == "end":
            return self.lifecycle.end(STOP_SECONDS)
        return self._answer_person(request, requester)

    def _answer_person(self, request: protocol.Request, requester: Requester) -> protocol.Answer:
        """The answer to what `smssh-hook` sends for a person, or for a program that works for one; see `answer`."""
        if request["op"] == "status":
            return self._status()
        if request["op"] == "report":
            return self._report.read()
        if request["op"] == "logged_in":
            self._code.logged_in(running=self.attempts.running, began=self.attempts.first_began)
            return {"ok": True}
        if request["op"] == "hold":
            return self.holds.request()
        if request["op"] == "note":
            return self._take_note(request["text"])
        if request["op"] == "extend":
            return self.holds.extend(float(request["seconds"]))
        if request["op"] == "retry":
            return self.holds.retry(bool(request.get("wait", True)), requester.gone)
        if request["op"] == "release":
            chosen = request.get("exit_code")
            return self.holds.release(None if chosen is None else int(chosen))
        raise SmsshError(
            f"no such operation: {request['op']}", reference="bad-message", status=ExitStatus.USAGE
        )

    def _status(self) -> protocol.Status:
        return status(
            self._context,
            self._plugins,
            self.lifecycle,
            self.attempts,
            self.holds,
            self._peers,
            self._report,
            self._connected,
            self._note,
        )

    def _take_note(self, text: object) -> protocol.Done:
        """Keep what somebody outside wants to know later of this job.

        Raises:
            SmsshError: it is too long, or no text.
        """
        if not isinstance(text, str) or len(text) > protocol.NOTE_LIMIT:
            raise SmsshError(
                f"a note is a text of at most {protocol.NOTE_LIMIT} characters",
                reference="bad-note",
                status=ExitStatus.USAGE,
            )
        self._note = text
        return {"ok": True}

    def _point(self, request: protocol.Point, requester: Requester) -> Outcome:
        """Before the first attempt; held once."""
        first = self.attempts.is_first_start()
        if first and request.get("point") == "start" and self._plugins.hold(self._context, "start", None):
            outcome = self.holds.keep("start", "before the entry point", requester)
            self._code.begins(1)
            return outcome
        return Outcome()

    def _failed(self, request: protocol.Failed, requester: Requester) -> Outcome:
        """An attempt failed: collect the report, hold, and say what to do next."""
        failure = self.attempts.fail(request)
        exit_code = failure.exit_code or 0
        hold = self._is_held("failure", exit_code)
        self._notifier.notify("failed", f"attempt {failure.attempt} ended with exit status {exit_code}")
        if hold or (self._peers.all and self.holds.pending is None):
            self._peers.tell(
                state="failed", attempt=failure.attempt, exit_code=exit_code, failed=self._clock.now()
            )
        if hold:
            self._plugins.entry_point_failed(self._context, failure)
            self._report.write(failure)
        self.attempts.close(exit_code)
        if not hold:
            return self.holds.take_decided()
        first = self._report.first_failed
        why = f"the entry point ended with exit status {exit_code}" + (
            f"; {first} failed first" if first else ""
        )
        return self._keep("failure", why, requester)

    def _succeeded(self, request: protocol.Succeeded, requester: Requester) -> Outcome:
        """An attempt succeeded; held when `end` is a point of it, or with other hosts of the job."""
        exit_code = int(request.get("exit_code") or 0)
        self.attempts.end_before_hooks()
        self.attempts.close(exit_code)
        if self._is_held("end", exit_code):
            return self._keep("end", "the entry point has succeeded", requester)
        if self._peers.all and not self.holds.decided:
            why = "the entry point has succeeded here, and other hosts of the job have not ended"
            return self._keep("end", why, requester, with_others=True)
        return self.holds.take_decided()

    def _keep(self, point: str, why: str, requester: Requester, *, with_others: bool = False) -> Outcome:
        """Hold after an attempt; what changes in the code meanwhile is people's."""
        self._code.held(self.attempts.first_began, taken=not with_others)
        outcome = self.holds.keep(point, why, requester, with_others=with_others)
        if outcome.action == "retry":
            self._code.begins(self.attempts.number + 1)
        return outcome

    def _is_held(self, point: str, exit_code: int) -> bool:
        return not self.holds.decided and (
            self.holds.requested or self._plugins.hold(self._context, point, exit_code)
        )
