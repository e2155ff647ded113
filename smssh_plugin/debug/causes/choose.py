"""Which of the errors of a job ended it.

In each process the last one that nothing says it survived; among processes not those that only lost another one; then
the earliest. What launchers say of a child's failure counts where nothing else is left.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .parse import Error, Raised

__all__ = ["Choice", "choose", "is_secondary", "is_wrapper", "order"]

NEAR = 30
"""Lines between a child's error and that of the parent which ran it."""
FAR_AFTER = 40
"""Lines of other output after which an error may have been survived."""

_WRAPPER = re.compile(
    r"(?:[\w.]+\.)?(?:ChildFailedError|ExecuteUserScriptError|Py4JJavaError|ProcessExitedException"
    r"|ProcessRaisedException|SystemExit|SageMakerTrainingError|RayTaskError|DistStoreError)(?:\(\w+\))?(?::|$)"
)
_COMMAND = re.compile(r"(?:[\w.]+\.)?(?:CalledProcessError|ExecutionError|InstallRequirementsError)(?::|$)")
_LAUNCHERS = re.compile(
    r"sm_drivers/|/sagemaker_(?:training|containers)/|/torch/distributed/|/deepspeed/launcher/|/accelerate/commands/|/smdistributed/"
)
_SECONDARY = re.compile(
    r"(?i)closed by (?:remote )?peer|connection (?:reset|refused|aborted|was closed)|broken ?pipe|\bEOFError\b|\bnccl\b"
    r"|\bgloo\b|\btimed? ?out\b|SIGTERM|SignalException|TerminatedWorker|KeyboardInterrupt|DistBackendError"
    r"|peer(?:s)? (?:gone|died|exited)|remote process exited|BrokenProcessPool|lost connection to"
)


@dataclass
class Choice:
    """An error, and how it was chosen.

    Attributes:
        error: the one that ended the job, as far as can be told.
        doubts: why it may have been another one.
        others: the others, best first.
    """

    error: Error
    doubts: list[str] = field(default_factory=list)
    others: list[Error] = field(default_factory=list)


def is_secondary(text: str) -> bool:
    """Whether an error may be for the failure of another process."""
    return _SECONDARY.search(text) is not None


def is_wrapper(error: Error) -> bool:
    """Whether an error says only that another program has failed."""
    raised = error.chain[-1]
    if _WRAPPER.match(raised.title):
        return True
    return bool(_COMMAND.match(raised.title)) and any(
        _LAUNCHERS.search(frame.path) for frame in raised.frames
    )


def choose(streams: Sequence[Sequence[Error]], rank: str = "") -> Choice | None:
    """The error that ended the job; None where there is no error.

    Args:
        streams: the errors of each process, oldest first.
        rank: the rank that a launcher says failed first; "" where no launcher does.
    """
    everything = [error for stream in streams for error in stream]
    wrapped = {id(error) for error in everything if is_wrapper(error)}
    real = [[error for error in stream if id(error) not in wrapped] for stream in streams]
    last = [_last(stream) for stream in real if stream]
    if not last:
        if not everything:
            return None
        first = min(everything, key=_when)
        return Choice(first, ["it only says that another program has failed"], _without(everything, first))
    best = min(last, key=lambda error: (bool(rank) and error.stream != f"rank {rank}", *_rank(error)))
    doubts = []
    if best.harmless:
        doubts.append("Python says that it ended nothing")
    elif best.thread:
        doubts.append(f"it ended the thread {best.thread} only")
    if best.after > FAR_AFTER:
        doubts.append(f"{best.after} lines of other output follow it")
    if best.of > 1:
        doubts.append(f"it is one of {best.of} exceptions of a group")
    rivals = [
        error
        for error in last
        if error is not best and not is_secondary(_text(error)) and _kind(error) != _kind(best)
    ]
    if rivals and best.stream != f"rank {rank}":
        doubts.append("other processes failed in other ways")
    return Choice(best, doubts, _without([*reversed(everything)], best))


def _last(stream: Sequence[Error]) -> Error:
    """The error of a process that ended it."""
    chosen = max(enumerate(stream), key=lambda each: (not each[1].harmless, not each[1].thread, each[0]))[1]
    # A program that the script ran printed its own error, and then the script failed because of it.
    if _COMMAND.match(chosen.title):
        before = [each for each in stream if each.position < chosen.began]
        if before and chosen.began - before[-1].position <= NEAR and not before[-1].harmless:
            return before[-1]
    return chosen


def _rank(error: Error) -> tuple[bool, bool, bool, float, int]:
    return (
        error.harmless,
        is_secondary(_text(error)),
        bool(error.thread),
        *_when(error),
    )


def _when(error: Error) -> tuple[float, int]:
    return (error.time if error.time is not None else 0.0, error.position)


def _text(error: Error) -> str:
    return error.title


def _kind(error: Error) -> str:
    """What makes two errors the same one in two ranks."""
    return re.sub(r"\d+|0x[0-9a-f]+", "#", error.title)[:200]


def _without(errors: Sequence[Error], one: Error) -> list[Error]:
    return [error for error in errors if error is not one]


def order(chain: Sequence[Raised]) -> list[Raised]:
    """A chain in the order in which its exceptions are asked for a cause.

    One that was raised `from` another is explained by that one; one that was raised while another was handled stands
    for itself.
    """
    found = [chain[-1]]
    at = 0
    for raised in reversed(chain[:-1]):
        if raised.leads == "cause":
            found.insert(at, raised)
        else:
            found.append(raised)
            at = len(found) - 1
    return found
