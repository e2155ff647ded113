"""A plan and its results as text, as JSON, and as Markdown for an issue."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .._version import __version__
from ..durations import format_duration
from ..errors import ExitStatus
from ..terminal import line
from .job import LOG_GROUP, MAX_SECONDS
from .questions import SUBJECTS
from .steps import STEPS
from .trials import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..costs.prices import Price
    from .redaction import Redaction
    from .remains import Remains
    from .run import Result
    from .step import Step
    from .wanted import Wanted

__all__ = [
    "SCHEMA",
    "Bill",
    "cost",
    "exit_status",
    "makes_node",
    "markdown",
    "needs_job",
    "plan_as_json",
    "plan_lines",
    "results_as_json",
]

_MARKUP = re.compile(r"([\\`*_\[\]<>|#~])")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
SCHEMA = 1
"""The version of the JSON; it changes if a member is removed or means something else."""


def exit_status(results: Sequence[Result]) -> ExitStatus:
    """FAILED if an answer is no, UNKNOWN if a step could not be tried, else OK."""
    verdicts = {each.answer.verdict for each in results}
    if Verdict.NO in verdicts:
        return ExitStatus.FAILED
    return ExitStatus.UNKNOWN if Verdict.UNTRIED in verdicts else ExitStatus.OK


# --------------------------------------------------------------------------------------------------- the plan


@dataclass(frozen=True)
class Bill:
    """What a run may cost.

    Attributes:
        node: the price of a managed node, an hour; None where it is not known.
        instance: the same of the instance of the job.
        wanted: the job; None for no job.
    """

    node: Price | None = None
    instance: Price | None = None
    wanted: Wanted | None = None


def plan_lines(steps: Sequence[Step], left: Sequence[Remains], bill: Bill) -> Iterator[str]:
    """What a run would do.

    Args:
        steps: in order.
        left: what other runs have in the account.
        bill: what it may cost.
    """
    for step in steps:
        yield f"  {step.id:22}  {step.asks or 'makes what the next steps need'}"
        if step.makes:
            yield f"{'':26}makes {step.makes}"
    yield f"about {format_duration(_seconds(steps))}; {cost(steps, bill)}"
    yield "what it makes is named smssh-live-*, and removed at the end, also after an error or Ctrl-C"
    if needs_job(steps):
        yield f"what stays: the job in SageMaker's list of jobs, and its log in {LOG_GROUP}, which AWS keeps"
    yield f"needs {', '.join(_actions(steps))}"
    for each in left:
        names = ", ".join(each.roles)
        there = "" if each.here else f" in {each.run.region}"
        if each.stale:
            yield line(f"an ended run{there} left {names}: the next run with --yes{there} removes it")
        else:
            until = time.strftime("%H:%M", time.localtime(each.end))
            yield line(
                f"another run{there} has {names}: if it does not end, a run with --yes{there} after {until} "
                "removes it"
            )


def plan_as_json(steps: Sequence[Step], left: Sequence[Remains], bill: Bill) -> dict[str, Any]:
    """The same for programs."""
    return {
        "schema": SCHEMA,
        "smssh": __version__,
        "applied": False,
        "seconds": _seconds(steps),
        "cost": cost(steps, bill),
        "actions": _actions(steps),
        "steps": [
            {
                "id": step.id,
                "asks": step.asks or None,
                "makes": step.makes or None,
                "after": list(step.after),
                "seconds": step.seconds,
                "job": step.needs_job,
            }
            for step in steps
        ],
        "left": [
            {"roles": list(each.roles), "region": each.run.region, "stale": each.stale, "end": each.end}
            for each in left
        ],
    }


def cost(steps: Sequence[Step], bill: Bill) -> str:
    """What a run costs, in one clause.

    Args:
        steps: its steps.
        bill: the prices.
    """
    if not makes_node(steps):
        return "no charge: it makes nothing that AWS bills"
    nodes = sum("managed node" in each.makes for each in steps)
    node = "one hour of a managed node" if nodes == 1 else f"one hour of each of {nodes} managed nodes"
    if bill.wanted is None or not needs_job(steps):
        return (
            f"no job is started; with the advanced tier AWS may bill {node} ({_price(bill.node)}): there is one, "
            "for about a minute, and it is never online"
        )
    seconds = sum(each.seconds for each in steps if each.needs_job)
    return (
        f"one {bill.wanted.instance_type} for about {format_duration(seconds)}, {format_duration(MAX_SECONDS)} at most "
        f"({_price(bill.instance, seconds)}); with the advanced tier AWS may bill {node} ({_price(bill.node)})"
    )


def _price(price: Price | None, seconds: int = 0) -> str:
    """A price an hour, and what some seconds cost."""
    if price is None:
        return "the price is not known"
    known = f"{price.amount:g} {price.currency}"
    if not seconds:
        return known
    hours = timedelta(seconds=seconds) / timedelta(hours=1)
    return f"{known} an hour, so about {price.amount * hours:.2g} {price.currency}"


def needs_job(steps: Sequence[Step]) -> bool:
    """Whether one of the steps starts a job."""
    return any(each.needs_job for each in steps)


def makes_node(steps: Sequence[Step]) -> bool:
    """Whether one of the steps makes a managed node, which may be billed."""
    return any("managed node" in step.makes for step in steps)


def _seconds(steps: Sequence[Step]) -> int:
    return sum(each.seconds for each in steps)


def _actions(steps: Sequence[Step]) -> list[str]:
    """The actions that a run needs, those for removing what is left included."""
    makes = [
        "iam:ListRoles",
        "iam:GetRole",
        "iam:DeleteRolePolicy",
        "iam:DeleteRole",
        "ssm:DescribeActivations",
        "ssm:DescribeInstanceInformation",
        "ssm:DeleteActivation",
        "ssm:DeregisterManagedInstance",
    ]
    if needs_job(steps):
        makes += ["s3:DeleteBucket", "s3:DeleteObject", "s3:ListBucket"]
        makes += ["sagemaker:DescribeProcessingJob", "sagemaker:StopProcessingJob"]
    return sorted({*makes, *(action for step in steps for action in step.actions)})


# --------------------------------------------------------------------------------------------------- the results


def results_as_json(
    results: Sequence[Result], redaction: Redaction, status: int, error: str = ""
) -> dict[str, Any]:
    """The results for programs.

    Args:
        results: of the steps that ended.
        redaction: for texts of AWS.
        status: the exit status of the command.
        error: why the run ended early, or what could not be removed; "" for nothing.
    """
    return {
        "schema": SCHEMA,
        "smssh": __version__,
        "applied": True,
        "status": status,
        "error": redaction.text(error) or None,
        "steps": [
            {
                "id": each.step.id,
                "asks": each.step.asks or None,
                "answer": each.answer.verdict.value,
                "message": redaction.text(each.answer.message),
                "evidence": [redaction.text(one) for one in each.answer.evidence],
                "seconds": round(each.seconds, 3),
            }
            for each in results
        ],
    }


def markdown(results: Sequence[Result], redaction: Redaction, place: str) -> Iterator[str]:
    """The table of what only AWS can show, filled in, and what AWS answered.

    Args:
        results: of the steps that ended.
        redaction: for texts of AWS.
        place: the region, and its partition.
    """
    found = {each.step.id: each.answer for each in results}
    yield f"`smssh doctor --live` of smssh-plugin {__version__} in {place}."
    yield ""
    yield "| tested | only AWS can show | answer | found |"
    yield "| --- | --- | --- | --- |"
    for subject in SUBJECTS:
        text = _LINK.sub(r"\1", subject.text)  # it leads to a page of the documentation
        for question in subject.questions:
            answer = found.get(question.step)
            if answer is not None:
                cells = (answer.verdict.value, _quoted(redaction.text(answer.message)))
            else:
                cells = ("not tried", question.why_not or _not_run(question.step))
            yield f"| {text} | {question.text} | {cells[0]} | {cells[1]} |"
            text = ""  # the next row is of the same
    yield ""
    yield "What AWS answered:"
    yield ""
    for each in results:
        message = _quoted(redaction.text(each.answer.message))
        yield f"- `{each.step.id}` ({each.answer.verdict.value}): {message}"
        yield from (f"  - {_quoted(redaction.text(one))}" for one in each.answer.evidence)
    yield ""
    yield (
        "Words in capitals stand for account ids, ARNs, and the names of people, roles and nodes. Read it before you "
        "post it."
    )


def _not_run(step: str) -> str:
    """Why a step has no answer."""
    return f"`{step}` was not run" + (": it needs `--jobs`" if STEPS[step].needs_job else "")


def _quoted(text: str) -> str:
    """Somebody's text in Markdown: no table, link, mention or HTML comes of it."""
    return _MARKUP.sub(r"\\\1", line(text)).replace("@", "(at)")
