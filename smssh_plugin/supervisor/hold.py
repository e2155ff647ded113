"""The hold: when it ends, and what a person, a deadline or another host decides.

`Holds.keep` blocks its thread until there is a decision; the other methods are called
from the threads of other connections meanwhile.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Protocol

from ..container.cost import waiting
from ..durations import format_duration
from ..entrypoints.connections import connections
from ..errors import ExitStatus, SmsshError
from ..hookspecs import Hold
from .countdown import CLOCK_STEP, Countdown

if TYPE_CHECKING:
    from ..hookspecs import Context
    from . import protocol
    from .attempts import Attempts
    from .clock import Clock
    from .lifecycle import Lifecycle
    from .peers import Peers

__all__ = ["Holds", "Outcome", "Requester"]

START_LIMIT = 300.0
"""Seconds after which the first stage of a hold begins even if the start of the supervisor is not over."""
POLL_SECONDS = 1.0
"""How often a hold counts the connections; also how late its deadline can be."""
ENTERED_SECONDS = 5.0
"""How long the answer to a retry waits for the hold that may follow the attempt."""


class Requester(Protocol):
    """What has asked for a decision, and waits for it at the other end of a connection."""

    def say(self, line: str) -> None:
        """Have it write a line into the job's log."""

    def gone(self) -> bool:
        """Whether it has hung up."""


@dataclass(frozen=True)
class Outcome:
    """How a hold ends.

    Attributes:
        action: `retry` or `release`.
        exit_code: with `release`, what the job ends with; None for the entry point's own status.
        why: why it is released, for people.
        decided: `release` by a person, `expire` by a deadline; empty for anything that other hosts do not follow.
        followed: whether another host has decided it.
    """

    action: str = "release"
    exit_code: int | None = None
    why: str = "somebody asked for it"
    decided: str = ""
    followed: bool = False

    def decision(self) -> protocol.Decision:
        """As it is sent."""
        return {"action": "retry" if self.action == "retry" else "release", "exit_code": self.exit_code}


class Holds:
    """The hold that goes on, if one does, and what was decided.

    Args:
        context: the supervisor's context.
        attempts: the entry point's attempts.
        peers: the job's other hosts.
        lifecycle: its lock is held for each change.
        clock: the time.
        notify: tells people an event, its message and the hold.
        say: writes one line into the job's log while nothing is held.
        connected: counts the people who are logged in.
        ends: when every hold must be over because of the job's own limit, in seconds since the epoch; None where
            that is not known.
    """

    def __init__(
        self,
        context: Context,
        attempts: Attempts,
        peers: Peers,
        lifecycle: Lifecycle,
        clock: Clock,
        notify: Callable[[str, str, Hold | None], None],
        *,
        say: Callable[[str], None],
        connected: Callable[[], int],
        ends: float | None,
    ) -> None:
        self.requested = False
        """Whether a person has asked for a hold at the next failure or at the end."""
        self.pending: Outcome | None = None
        """What was decided for an attempt that still runs."""
        self.released: Outcome | None = None
        """How the job was released after an attempt, or None."""
        self._context = context
        self._attempts = attempts
        self._peers = peers
        self._lifecycle = lifecycle
        self._changed = lifecycle.changed
        self._clock = clock
        self._notify = notify
        self._say_outside = say
        self._say_inside: Callable[[str], None] | None = None
        self._connected = connected
        # Kept by a clock that nobody sets.
        self._must_end = None if ends is None else clock.steady() + ends - clock.now()
        self._countdown: Countdown | None = None
        self._outcome: Outcome | None = None
        self._waiters = 0
        self._answered = 0.0

    # ---------------------------------------------------------------------------- what is known

    @property
    def hold(self) -> Hold | None:
        """The hold that goes on."""
        return None if self._countdown is None else self._countdown.hold

    @property
    def decided(self) -> bool:
        """Whether the end of the attempt that runs is decided already."""
        return self.released is not None or self.pending is not None

    @property
    def ends(self) -> float | None:
        """When every hold must be over because of the job's own limit, in seconds since the epoch."""
        return None if self._must_end is None else self._clock.now() + self._must_end - self._clock.steady()

    @property
    def state(self) -> str:
        """The job's state in one word, see `protocol.Status`."""
        if self._lifecycle.ended:
            return "ended"
        if self._countdown is not None:
            return "held"
        if self._attempts.running:
            return "running"
        if self._attempts.results:
            return "ended" if self.released is not None or self._attempts.exit_code == 0 else "running"
        return "ready" if self._lifecycle.ready else "starting"

    def say(self, line: str) -> None:
        """Write one line into the job's log: in a hold through the process that waits for its end."""
        (self._say_inside or self._say_outside)(line)

    # ---------------------------------------------------------------------------- a person

    def request(self) -> protocol.HoldRequested:
        """Hold at the next failure or at the end, whatever the settings say.

        Raises:
            SmsshError: the job has ended, or nothing of ours is there when it does.
        """
        with self._changed:
            self._refuse_after_end()
            if not self._attempts.holder:
                raise SmsshError(
                    "this job cannot be held any more: smssh did not start its program and sees its end too late",
                    hint="submit it with hold=..., or with `smssh-hook run` as its entry point; a program that has to "
                    "be process 1 cannot be held",
                    reference="cannot-hold",
                    status=ExitStatus.FAILED,
                )
            self.requested = True
            self.released = None
            return {"ok": True, "state": self.state}

    def extend(self, seconds: float) -> protocol.Extended:
        """Let the hold last `seconds` from now at least, but not beyond its maximum.

        Raises:
            SmsshError: nothing is held, or the hold is at its maximum.
        """
        with self._changed:
            countdown = self._held()
            countdown.extend(seconds)
            hold = countdown.hold
            left = hold.deadline - self._clock.now()
            self._changed.notify_all()
        self._notify("extended", f"extended: {format_duration(left)} left", hold)
        return {"ok": True, "deadline": hold.deadline, "seconds": left}

    def retry(self, wait: bool, gone: Callable[[], bool]) -> protocol.Retried:
        """Run the entry point once more; with `wait`, answer when that attempt has ended.

        Args:
            wait: whether the answer waits for the attempt.
            gone: True when the caller has hung up.

        Raises:
            SmsshError: nothing is held after a failure or at the end.
        """
        with self._changed:
            if self._held().hold.point == "start":
                raise SmsshError(
                    "the entry point has not run yet",
                    hint="run `smssh-hook release` to start it",
                    reference="not-run-yet",
                )
            attempt = self._attempts.number + 1
            self._decide(Outcome("retry"))
            self._waiters += 1
        try:
            result = self._wait_for_end(attempt, gone) if wait else None
            with self._changed:
                return {
                    "attempt": attempt,
                    "exit_code": None if result is None else result["exit_code"],
                    "seconds": None if result is None else result["seconds"],
                    "state": self.state if wait else "running",
                }
        finally:
            with self._changed:
                self._waiters -= 1
                self._answered = self._clock.steady()
                self._changed.notify_all()

    def _wait_for_end(self, attempt: int, gone: Callable[[], bool]) -> protocol.AttemptResult | None:
        """How an attempt has ended; None if the caller has hung up before that."""
        results = self._attempts.results
        while not gone():
            with self._changed:
                if not self._clock.wait(
                    self._changed, lambda: attempt in results or self._lifecycle.ended, POLL_SECONDS
                ):
                    continue
                if attempt not in results:
                    raise SmsshError("the job ended before the attempt did", reference="job-ended")
                # A hold that follows is entered a moment after the result is known.
                self._clock.wait(
                    self._changed,
                    lambda: self.state != "running" or self.released is not None,
                    ENTERED_SECONDS,
                )
                return results[attempt]
        return None

    def release(self, exit_code: int | None) -> protocol.Released:
        """End the hold; `exit_code` is the status to end with, None for the entry point's own.

        Raises:
            SmsshError: nothing is held.
        """
        with self._changed:
            hold = self._held().hold
            self._answered = self._clock.steady()
            self._decide(Outcome("release", exit_code, decided="release"))
            return {
                "ok": True,
                "point": hold.point,
                "exit_code": self._attempts.exit_code if exit_code is None else exit_code,
            }

    def _held(self) -> Countdown:
        if self._countdown is None or self._outcome is not None:
            raise SmsshError(
                f"nothing is held: the state is {self.state}",
                hint="run `smssh-hook hold` to ask for a hold at the next failure or at the end",
                reference="not-held",
            )
        return self._countdown

    def _refuse_after_end(self) -> None:
        if self._lifecycle.ended:
            raise SmsshError("the job has ended", reference="job-ended")

    def _decide(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._changed.notify_all()

    # ---------------------------------------------------------------------------- the hold itself

    def keep(self, point: str, why: str, requester: Requester, *, with_others: bool = False) -> Outcome:
        """Hold until somebody decides, nobody is left to hold for, or time is up.

        Args:
            point: `start`, `failure` or `end`.
            why: why the container is held, in a few words.
            requester: waits for the decision.
            with_others: whether this host only stays because other hosts of the job run or are held.
        """
        countdown = self._enter(point, why, requester, with_others)
        try:
            outcome = self._wait(countdown, requester)
            if point != "start":
                self._pass_on(outcome, requester)
        finally:
            self._leave(countdown)
        if outcome.action == "retry":
            self._notify("retried", "retried: the entry point runs again", None)
            return outcome
        with self._changed:
            if point != "start":
                self.released = outcome
            self._changed.notify_all()
        self._notify("released", f"released: {outcome.why}", None)
        return outcome

    def end(self) -> None:
        """Nothing runs any more: end the hold, if one goes on."""
        with self._changed:
            if self._countdown is not None and self._outcome is None:
                self._decide(Outcome())

    def take_decided(self) -> Outcome:
        """What was decided for an attempt while it ran, or how the job was released before."""
        with self._changed:
            pending, self.pending = self.pending, None
        return pending or self.released or Outcome()

    def _enter(self, point: str, why: str, requester: Requester, with_others: bool) -> Countdown:
        settings = self._context.settings
        seconds = settings.hold_seconds
        if point == "start" and settings.wait_seconds is not None:
            seconds = settings.wait_seconds
        now = self._clock.now()
        longest = now + settings.hold_max_seconds
        ends = self.ends
        limit = longest if ends is None else min(longest, ends)
        countdown = Countdown(
            Hold(point, now, min(now + seconds, limit), limit),
            self._clock,
            float(seconds),
            float(settings.idle_seconds),
            with_others=with_others,
            cut_short=ends is not None and ends <= limit + CLOCK_STEP,
        )
        with self._changed:
            self._refuse_after_end()
            self._countdown, self._outcome = countdown, None
            self._say_inside = requester.say
            self._changed.notify_all()
        if point != "start":
            self._peers.tell(state="succeeded" if with_others else "held", attempt=self._attempts.number)
            self._peers.hold()
        self._notify("held", f"held ({why}): {self._banner(countdown)}", countdown.hold)
        return countdown

    def _leave(self, countdown: Countdown) -> None:
        self._peers.hold(False)
        if countdown.hold.connected:
            self._peers.tell(connected=False)
        with self._changed:
            self._countdown, self._outcome = None, None
            self._say_inside = None
            self._changed.notify_all()

    def _wait(self, countdown: Countdown, requester: Requester) -> Outcome:
        while True:
            with self._changed:
                self._clock.wait(self._changed, lambda: self._outcome is not None, POLL_SECONDS)
                if self._outcome is not None:
                    return self._outcome
                if self._lifecycle.error is not None:
                    # Waiting costs money, and nobody could use the time.
                    return Outcome(why="no login is possible in this container")
            if requester.gone():
                return Outcome(why="the process that runs the entry point is gone")
            outcome = self._look(countdown)
            if outcome is not None:
                return outcome

    def _look(self, countdown: Countdown) -> Outcome | None:
        """Look who is there: move the deadlines, say what is due, end the hold when time is up."""
        hold = countdown.hold
        countdown.follow_clock()
        connected = self._connected()
        if bool(connected) != bool(hold.connected):
            self._peers.tell(connected=bool(connected))
        hold.connected = connected
        occupied = bool(connected) or self._peers.somebody_connected()
        if not occupied and countdown.with_others and not self._peers.others_go_on():
            return Outcome(why="the other hosts have ended too")
        starting = not self._lifecycle.ready and self._clock.now() < hold.since + START_LIMIT
        countdown.move(occupied=occupied, starting=starting)
        if self._is_over(countdown):
            return Outcome(why=countdown.expiry(), decided="expire")
        event = countdown.is_due(starting=starting)
        if event:
            prefix = "about to end" if event == "expiring" else "held"
            self._notify(event, f"{prefix}: {self._banner(countdown)}", hold)
        return None

    def _is_over(self, countdown: Countdown) -> bool:
        if countdown.at_maximum():
            return True
        overdue = countdown.overdue()
        if overdue is None:
            return False
        return countdown.hold.point == "start" or self._peers.nobody_connected(overdue)

    def _banner(self, countdown: Countdown) -> str:
        hold = countdown.hold
        who = f"{hold.connected} connected" if hold.connected else "nobody connected"
        if not hold.connected and self._peers.somebody_connected():
            who = "somebody connected to another host"
        left = f"{who}, {format_duration(round(countdown.left()))} left"
        if (countdown.overdue() or 0.0) > POLL_SECONDS + CLOCK_STEP:
            left += ": it is not known yet whether somebody is connected to another host"
        if countdown.cut_short and hold.ends >= hold.max_deadline - CLOCK_STEP:
            left += " (the job's own limit, MaxRuntimeInSeconds)"
        parts = [self._context.connect_command, left]
        others = self._peers.held()
        if others:
            parts.append("also held: " + ", ".join(others))
        parts.append(waiting(self._context, hold, self._clock.now()))
        parts.append("then: smssh-hook retry, release or extend 30m")
        return " | ".join(part for part in parts if part)

    # ---------------------------------------------------------------------------- the other hosts of the job

    def _pass_on(self, outcome: Outcome, requester: Requester) -> None:
        """Let the other hosts know what was decided here; where they are held together, they follow."""
        if outcome.action == "retry":
            self._peers.tell(
                state="running",
                attempt=self._attempts.number + 1,
                exit_code=None,
                failed=0.0,
                first=False,
                connected=False,
                decision="retry",
                chosen=None,
            )
            return
        self._peers.tell(
            state="released", connected=False, decision=outcome.decided, chosen=outcome.exit_code
        )
        decided_here = outcome.decided and not outcome.followed
        if decided_here and not requester.gone() and not self._lifecycle.stop_wanted.is_set():
            self._peers.let_others_follow()

    def follow(self) -> None:
        """Another host may have decided something that holds for this one too."""
        other = self._peers.decision
        if other is None or not self._peers.all:
            return
        with self._changed:
            hold = self.hold
            held = hold is not None and hold.point != "start" and self._outcome is None
            ahead = other.attempt > self._attempts.number
            end_attempt = False
            if other.state == "released":
                # Another host's deadline does not count while somebody is connected here.
                if hold is not None and held and (other.decision == "release" or not hold.connected):
                    why = f"{other.host} was released"
                    self._decide(Outcome("release", other.chosen, why, other.decision, followed=True))
            elif ahead and held:
                self._attempts.number = other.attempt - 1
                self._decide(Outcome("retry"))
            elif ahead and self._attempts.running and self.pending is None:
                self._attempts.number = other.attempt - 1
                self.pending = Outcome("retry")
                end_attempt = True
        if end_attempt:
            self._attempts.end_running()

    # ---------------------------------------------------------------------------- the end

    def let_answers_out(self, seconds: float) -> None:
        """Wait, at most so long, until a person who has decided over SSH has read the answer.

        Returns as soon as nobody is connected any more.
        """
        with self._changed:
            self._clock.wait(self._changed, lambda: not self._waiters, seconds)
        server = self._context.server
        deadline = self._answered + seconds
        while (
            server is not None
            and self._clock.steady() < deadline
            and connections(server.port, server.control_port)
        ):
            time.sleep(0.05)
