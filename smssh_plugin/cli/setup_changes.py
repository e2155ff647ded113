"""`smssh setup --apply` and `--undo`: what is to be done is shown, agreed to with the account's id, and done."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import streams
from ..errors import ExitStatus, SmsshError
from ..setup.account import Account
from ..setup.apply import Run, changes_of, removals_of
from ..setup.notes import billable, notes
from ..setup.parts import Setup
from ..setup.plan import Plan
from ..setup.tier import Tier
from ..terminal import line, put
from ..terminated import Terminated
from .agreement import agree, place
from .fast_path import say

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..aws.session import AwsSession
    from ..setup.change import Change

__all__ = ["Named", "apply", "undo"]


class Named(NamedTuple):
    """What a person said of the account that is to be changed: the values of --account, --partition and --yes."""

    account: str | None
    partition: str | None
    yes: str | None


def apply(
    aws: AwsSession, named: Named, answers: dict[str, Any], parts: Iterable[str], *, replace: bool
) -> int:
    """Make in the account what is not there yet; answers the exit status.

    Args:
        aws: with the credentials of the account.
        named: see there.
        answers: those of `Plan.make`, without account and partition.
        parts: names of PARTS.
        replace: whether what others have changed is written over.

    Raises:
        SmsshError: something cannot be read, or is refused, and nothing was changed.
    """
    account, plan = _planned(aws, named, answers)
    setup = Setup(plan, parts)
    run = Run(changes_of(setup, account, replace=replace), undo=False)
    if any(isinstance(each, Tier) and change.acts for each, change in run.steps):
        put(line(billable(aws)))
    _show(run, account)
    if run.refused:
        raise SmsshError(
            f"nothing was changed: {'; '.join(f'{each.what}: {each.why}' for each in run.refused)}",
            hint="choose another --name, leave the part out, or change what is there by hand",
            reference="setup-refused",
        )
    if not run.to_do:
        put(line(f"nothing to do in {place(account)}"))
        status = 0
    else:
        status = _act(run, account, named.yes, "apply", "the next run finishes it, and --undo removes it")
    if status == 0:
        for each in notes(setup, ("apply",)):
            put(f"smssh: {line(each)}", error=True)
    return status


def undo(aws: AwsSession, named: Named, answers: dict[str, Any], parts: tuple[str, ...]) -> int:
    """Remove from the account what the setup made; answers the exit status.

    Args:
        aws: with the credentials of the account.
        named: see there.
        answers: those of `Plan.make`, without account and partition; the names in them count.
        parts: names of PARTS; none for all.

    Raises:
        SmsshError: something cannot be read, and nothing was changed.
    """
    account, plan = _planned(aws, named, answers)
    run = Run(removals_of(plan, account, parts), undo=True)
    _show(run, account)
    if not run.to_do:
        put(line(f"nothing to remove of the setup {plan.name!r} in {place(account)}"))
        status = 0
    else:
        status = _act(run, account, named.yes, "undo", "the next --undo goes on")
    left = [each for each in (*run.changes, *run.left) if each.verb == "leave" and each.ours]
    return status or (int(ExitStatus.FAILED) if left else 0)


def _planned(aws: AwsSession, named: Named, answers: dict[str, Any]) -> tuple[Account, Plan]:
    """The account of the credentials, and the plan for it.

    Raises:
        SmsshError: it is not the account that was named, the credentials cannot be used, or an answer is wrong.
    """
    account = Account(aws)
    who = account.caller
    for option, value, own in (
        ("--account", named.account, who.account),
        ("--yes", named.yes, who.account),
        ("--partition", named.partition, who.partition),
    ):
        if value is not None and value != own:
            raise SmsshError(
                f"{option} is {value!r}, and the credentials are of {own}",
                hint="choose the credentials with --profile",
                reference="another-account",
                status=ExitStatus.USAGE,
            )
    return account, Plan.make(partition=who.partition, account=who.account, **answers)


def _act(run: Run, account: Account, yes: str | None, what: str, next_run: str) -> int:
    """Ask, and do it; answers the exit status."""
    if yes is None:
        _ask(account, what)
    terminated = Terminated()
    try:
        with terminated:
            run.act(_show_done)
    except BrokenPipeError:  # `| head`: stderr still has a reader
        put(line(f"nobody reads the output: did {len(run.done)} of {len(run.to_do)}; {next_run}"), error=True)
        raise
    except KeyboardInterrupt:
        status, why = terminated.status, "interrupted"
    except SmsshError as error:
        say(error)
        status, why = int(error.status), "ended"
    else:
        count = len(run.done)
        put(line(f"did {count} of {len(run.to_do)} in {place(account)}"))
        return 0
    at = f" at {run.current}" if run.current else ""
    put(line(f"{why}{at}: did {len(run.done)} of {len(run.to_do)}; {next_run}"), error=True)
    return status


def _show(run: Run, account: Account) -> None:
    """What is to be done, and where."""
    put(line(f"{place(account)}, as {account.caller.arn}"))
    for each in run.changes:
        put(line(f"{each.verb:7} {each.what}{f': {each.why}' if each.why else ''}"))
        for text in each.lines:
            put(f"        {line(text)}")


def _show_done(change: Change) -> None:
    done = {"make": "made", "change": "changed", "remove": "removed", "leave": "left", "keep": "kept"}[
        change.verb
    ]
    why = f": {change.why}" if change.verb in ("leave", "keep") and change.why else ""
    put(line(f"{done} {change.what}{why}"))


def _ask(account: Account, what: str) -> None:
    """Ask for the account's id on the terminal; stdin itself is /dev/null here, see `streams`.

    Raises:
        SmsshError: nobody can be asked, or something else was typed.
    """
    own = account.caller.account
    if not os.isatty(streams.own_stdin()):
        raise SmsshError(
            f"--{what} asks before it changes anything, and there is nobody to ask",
            hint=f"look at what it shows, then add --yes {own}",
            reference="nobody-to-ask",
            status=ExitStatus.USAGE,
        )
    agree(own, what, "nothing was changed")
