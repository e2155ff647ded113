"""Runs the steps that were chosen, one after another, and removes what they made, whatever happens."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .._version import __version__
from ..errors import ExitStatus, SmsshError
from .names import JOB_SECONDS, RUN_SECONDS, Run
from .place import Place
from .remains import left_by_others, remove
from .running import Mark
from .steps import STEPS
from .trials import Answer, Verdict, untried

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..setup.account import Account
    from .step import Step
    from .wanted import Wanted

__all__ = ["Record", "Result", "chosen", "run"]

_ENDING = frozenset({"no-credentials", "stale-credentials", "aws-unreachable", "live-too-long"})
"""Errors after which no other step would do better."""


@dataclass(frozen=True)
class Result:
    """What became of one step, and how many seconds it took."""

    step: Step
    answer: Answer
    seconds: float


@dataclass
class Record:
    """What became of a run, also of one that is interrupted.

    Attributes:
        results: of the steps that ended.
        left: whether something that runs made may be there.
    """

    results: list[Result] = field(default_factory=list)
    left: bool = False


def chosen(names: Iterable[str], *, with_job: bool = False) -> list[Step]:
    """The steps of some names, and those that they come after, in order; all for no names.

    Args:
        names: ids, with `live.` in front or without.
        with_job: whether a job may be started.

    Raises:
        SmsshError: there is no such step, or it needs a job.
    """
    wanted: set[str] = set()
    todo = [name if name.startswith("live.") else f"live.{name}" for name in names if name != "live"]
    for name in todo:
        if name not in STEPS:
            raise SmsshError(
                f"there is no step {name!r}",
                hint="run `smssh doctor --live --list`",
                reference="no-step",
                status=ExitStatus.USAGE,
            )
        if STEPS[name].needs_job and not with_job:
            raise SmsshError(
                f"{name} needs a job that runs",
                hint="add --jobs --image IMAGE; the plan says what that costs",
                reference="no-job",
                status=ExitStatus.USAGE,
            )
        if name not in wanted:
            wanted.add(name)
            todo += STEPS[name].after  # the list grows under way
    return [
        step
        for name, step in STEPS.items()
        if name in wanted or (not todo and (with_job or not step.needs_job))
    ]


def run(
    steps: Sequence[Step],
    account: Account,
    progress: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
    record: Record,
    wanted: Wanted | None = None,
) -> None:
    """Remove what ended runs left, run the steps, and remove what they made.

    Args:
        steps: those of `chosen`.
        account: the account.
        progress: called with a line for each thing that is done.
        sleep: waits some seconds.
        record: gets what becomes of it.
        wanted: the job that steps may start; None for no job.

    Raises:
        SmsshError: what runs left cannot be looked at or removed, and nothing was tried; or what this one made cannot
            be removed.
        KeyboardInterrupt: as it comes, after all that was made is removed.
    """
    for each in left_by_others(account):
        if not each.stale:
            continue
        if not each.here:
            progress(
                f"an ended run in {each.run.region} left {', '.join(each.roles)}: a run there removes it"
            )
            continue
        progress(f"an ended run left {', '.join(each.roles)}: removing it")
        record.left = True
        remove(Place(account, each.run, sleep), each.roles, lambda _: None)
        record.left = False
    if any(each.needs_job for each in steps):
        place = Place(account, Run.new(account.aws.region, JOB_SECONDS), sleep, wanted)
    else:
        place = Place(account, Run.new(account.aws.region, RUN_SECONDS), sleep)
    mark = Mark(place.run)
    with mark.held():
        record.left = True
        try:
            _run(steps, place, progress, record.results)
        finally:
            roles = tuple(dict.fromkeys(place.roles))
            if roles:
                progress("removing what was made")
            remove(place, roles, lambda what: progress(f"removed {what}"))
            record.left = False


def _run(steps: Sequence[Step], place: Place, progress: Callable[[str], None], results: list[Result]) -> None:
    answers: dict[str, Answer] = {}
    ended: SmsshError | None = None
    for number, step in enumerate(steps, 1):
        progress(f"{number} of {len(steps)}: {step.id}")
        began = time.monotonic()
        needed = next((each for each in step.after if answers[each].verdict is not Verdict.YES), None)
        if ended is not None:
            answer = untried(f"the run ended: {ended.message}")
        elif needed is not None:
            answer = untried(f"it needs {needed}")
        else:
            try:
                answer = step.run(place)
            except SmsshError as error:
                answer = untried(error.message)
                ended = error if error.reference in _ENDING else None
            except Exception as error:  # noqa: BLE001 - one step's mistake does not end the others
                mistake = f"{type(error).__name__}: {error}"
                answer = untried(f"the step failed: {mistake}: report it with smssh {__version__}")
        answers[step.id] = answer
        results.append(Result(step, answer, time.monotonic() - began))
        progress(f"{step.id}: {answer.verdict.value}: {answer.message}")
