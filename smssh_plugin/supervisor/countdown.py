"""The times of one hold: when it ends, and when people are told about that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..durations import format_duration
from ..errors import ExitStatus, SmsshError

if TYPE_CHECKING:
    from ..hookspecs import Hold
    from .clock import Clock

__all__ = ["CLOCK_STEP", "Countdown"]

REMINDER_SECONDS = 60.0
EXPIRING_SECONDS = 300.0
"""How long before its end a hold says that it is about to end; half of its length where that is less."""
LIMIT_NEAR = (
    "the job's own limit is near (MaxRuntimeInSeconds), and a job that reaches it does not end in order"
)
CLOCK_STEP = 1.0
"""Seconds by which the clock must be set before a hold's deadlines are moved with it."""


class Countdown:
    """The times of one hold.

    Args:
        hold: its deadlines move.
        clock: the time.
        seconds: how long it lasts while nobody is connected.
        idle: how long it lasts after the last person has left; 0 for `seconds`.
        with_others: whether this host only stays because other hosts of the job run or are held.
        cut_short: whether the longest hold is shorter than the settings say, because of the job's own limit.
    """

    def __init__(
        self, hold: Hold, clock: Clock, seconds: float, idle: float, *, with_others: bool, cut_short: bool
    ) -> None:
        self.hold = hold
        self.with_others = with_others
        self.cut_short = cut_short
        self._clock = clock
        self._seconds = seconds
        self._idle = idle
        self._offset = clock.now() - clock.steady()
        self._reminded = clock.steady()
        self._warned = 0.0
        self._somebody_came = False

    def follow_clock(self) -> None:
        """Move the times where somebody has set the clock: a hold lasts as long as without that."""
        offset = self._clock.now() - self._clock.steady()
        step = offset - self._offset
        if abs(step) < CLOCK_STEP:
            return  # slewing adds up until it is one step
        self._offset = offset
        self.hold.since += step
        self.hold.deadline += step
        self.hold.max_deadline += step
        self.hold.ends += step
        self.hold.extended += step

    def move(self, *, occupied: bool, starting: bool) -> None:
        """Move the deadline, and say which of the two counts.

        Args:
            occupied: whether somebody is connected, here or to another host.
            starting: whether nobody can be, because the start of the supervisor is not over.
        """
        hold, now = self.hold, self._clock.now()
        if occupied:
            self._somebody_came = True
            # A person whose connection is lost may come back.
            stay = max(now + (self._idle or self._seconds), hold.extended if self._idle else hold.deadline)
            hold.deadline = min(stay, hold.max_deadline)
        elif self.with_others or starting:
            hold.deadline = max(hold.deadline, min(now + self._seconds, hold.max_deadline))
        hold.ends = hold.max_deadline if occupied or self.with_others else hold.deadline

    def extend(self, seconds: float) -> None:
        """Let the hold last `seconds` from now at least, but not beyond its maximum.

        Raises:
            SmsshError: it is at its maximum.
        """
        hold = self.hold
        deadline = min(self._clock.now() + seconds, hold.max_deadline)
        if deadline <= hold.deadline and hold.deadline >= hold.max_deadline:
            raise SmsshError(
                "the hold is at its maximum already",
                hint="use the time that is left: the job's limit (MaxRuntimeInSeconds) cannot be changed now"
                if self.cut_short
                else "set SMSSH_HOLD_MAX_SECONDS when you submit the job",
                reference="hold-at-maximum",
                status=ExitStatus.FAILED,
            )
        hold.deadline = hold.extended = max(hold.deadline, deadline)

    def left(self) -> float:
        """Seconds until it ends, if nothing changes."""
        return self.hold.ends - self._clock.now()

    def overdue(self) -> float | None:
        """For how many seconds it should be over; None while it goes on."""
        return None if self.left() > 0 else -self.left()

    def at_maximum(self) -> bool:
        """Whether the longest hold is over."""
        return self._clock.now() >= self.hold.max_deadline

    def expiry(self) -> str:
        """Why it ends when time is up."""
        if not self.at_maximum():
            idle = self._idle if self._somebody_came and self._idle else self._seconds
            return f"nobody was connected for {format_duration(idle)}"
        if self.cut_short:
            return LIMIT_NEAR
        return f"{format_duration(self.hold.max_deadline - self.hold.since)} are over"

    def is_due(self, *, starting: bool) -> str:
        """The event that people are told now, `expiring` or `reminder`; empty for neither."""
        near = self.left() <= min(EXPIRING_SECONDS, self._seconds / 2)
        if near and self.hold.ends != self._warned and not starting:
            self._warned = self.hold.ends
            return "expiring"
        if self._clock.steady() - self._reminded >= REMINDER_SECONDS:
            self._reminded = self._clock.steady()
            return "reminder"
        return ""
