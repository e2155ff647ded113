"""What is known of a failure, and what was found out about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from .table import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Facts", "Finding", "Log"]


class Log(NamedTuple):
    """The log of one host.

    Attributes:
        host: as in algo-1; "" where unknown.
        lines: (seconds since the epoch or None, text) of each line, oldest first.
    """

    host: str
    lines: Iterable[tuple[float | None, str]]


@dataclass(frozen=True)
class Facts:
    """What is known of a failure.

    Attributes:
        error: what the container recorded as the exception that ended the entry point, in one line; "" if nothing.
        traceback: its text; "" if nothing.
        thread: the thread that it ended; "" if it ended the process.
        exit_code: of the entry point, as a shell tells it (128 and the signal), or negative for a signal; None if
            unknown.
        logs: of the hosts, the one that failed first first.
        service: what SageMaker says: FailureReason, ExitMessage, SecondaryStatus; most telling first.
        code_dir: the folder of the script in the container; "" if unknown.
        oom_kills: how many processes the kernel has ended for want of memory; None if unknown.
        peak_bytes: the most memory that the container has had; None if unknown.
        limit_bytes: how much it may have; None if unknown.
    """

    error: str = ""
    traceback: str = ""
    thread: str = ""
    exit_code: int | None = None
    logs: Sequence[Log] = ()
    service: Sequence[str] = ()
    code_dir: str = ""
    oom_kills: int | None = None
    peak_bytes: int | None = None
    limit_bytes: int | None = None


@dataclass
class Finding:
    """Why something failed.

    Attributes:
        id: of the cause, see `table`; unknown where none fits.
        sentence: the cause in one sentence, without a period.
        certain: whether the sources say so themselves; else it is what they most often mean.
        advice: what to do; "" if unknown.
        hold: whether a hold helps: y, part, n or "".
        sure: where the error is from: recorded (by the container, as it happened), parsed (out of logs), service (what
            SageMaker says), or "" where nothing was found.
        error: the chosen error, in one line.
        place: the last line of the user's own code that it went through, as in `train.py:12`; "" if unknown.
        where: whose error it is, as in `algo-2, rank 3`; "" where that is not said.
        evidence: what else speaks for it, in sentences.
        doubts: why the error may be another one.
        others: errors that were not chosen, one line each.
        count: how many errors were not chosen.
        possible: ids of other causes whose signs were there.
    """

    id: str = UNKNOWN.id
    sentence: str = UNKNOWN.sentence
    certain: bool = False
    advice: str = ""
    hold: str = ""
    sure: str = ""
    error: str = ""
    place: str = ""
    where: str = ""
    evidence: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    count: int = 0
    possible: list[str] = field(default_factory=list)

    @property
    def line(self) -> str:
        """The cause and how sure it is, in one line."""
        if self.id == UNKNOWN.id:
            return self.sentence
        return self.sentence if self.certain else f"probably: {self.sentence}"
