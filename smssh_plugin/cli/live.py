"""`smssh doctor --live`: the plan is shown, agreed to with the account's id, and run."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from .. import streams
from ..costs.prices import Prices
from ..errors import ExitStatus, SmsshError
from ..live.redaction import Redaction
from ..live.remains import left_by_others
from ..live.run import Record, chosen, run
from ..live.show import (
    Bill,
    exit_status,
    makes_node,
    markdown,
    needs_job,
    plan_as_json,
    plan_lines,
    results_as_json,
)
from ..live.steps import STEPS
from ..live.wanted import INSTANCE_TYPE, Wanted
from ..setup.account import Account
from ..terminal import block, line, put
from ..terminated import Terminated
from .agreement import agree, place
from .fast_path import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..aws.session import AwsSession
    from ..live.remains import Remains
    from ..live.step import Step

__all__ = ["list_steps", "live", "wanted_job"]


def list_steps(*, as_json: bool) -> None:
    """Show the steps that there are."""
    if as_json:
        found = [{"id": each.id, "asks": each.asks or None, "job": each.needs_job} for each in STEPS.values()]
        click.echo(json.dumps(found, indent=2))
        return
    width = max(map(len, STEPS))
    for each in STEPS.values():
        job = " (--jobs)" if each.needs_job else ""
        put(f"{each.id:{width}}  {each.asks or 'makes what the next steps need'}{job}")


def wanted_job(
    *, jobs: bool, image: str | None, instance_type: str | None, wheels: Sequence[str]
) -> Wanted | None:
    """The job that may be started; None for no job.

    Args:
        jobs: whether one may be.
        image: its image.
        instance_type: of its instance.
        wheels: see `Wanted`.

    Raises:
        SmsshError: options are missing, or mean nothing.
    """
    if not jobs:
        named = [
            name
            for name, value in (("--image", image), ("--instance-type", instance_type), ("--wheels", wheels))
            if value
        ]
        if named:
            raise SmsshError(
                f"{named[0]} is for --jobs",
                hint="add --jobs to start a job",
                reference="no-job",
                status=ExitStatus.USAGE,
            )
        return None
    if not image:
        raise SmsshError(
            "--jobs needs the image of the job",
            hint="add --image URI: an image with Python 3.8 or later in a registry that jobs of the account can read, "
            "such as SageMaker's scikit-learn image of the region; with --wheels PYTHON if it has no sshd",
            reference="no-image",
            status=ExitStatus.USAGE,
        )
    return Wanted(image, instance_type or INSTANCE_TYPE, tuple(wheels))


def live(
    aws: AwsSession, names: Sequence[str], yes: str | None, *, as_json: bool, wanted: Wanted | None = None
) -> int:
    """Show what would be tried in the account, and try it if it is agreed to; answers the exit status.

    Args:
        aws: with the credentials of the account.
        names: the steps; none for all.
        yes: the id of the account that may be changed; None to ask where somebody can be asked.
        as_json: whether to print JSON.
        wanted: the job that may be started; None for no job.

    Raises:
        SmsshError: there are no credentials, they are of another account, or what runs left cannot be looked at.
    """
    steps = chosen(names, with_job=wanted is not None)
    account = Account(aws)
    who = account.caller
    if yes is not None and yes != who.account:
        raise SmsshError(
            f"--yes is {yes!r}, and the credentials are of {who.account}",
            hint="choose the credentials with --profile",
            reference="another-account",
            status=ExitStatus.USAGE,
        )
    if who.resource[0] not in ("user", "assumed-role"):
        raise SmsshError(
            f"{who.arn} cannot assume a role",
            hint="use the credentials of a role or a user",
            reference="not-a-role",
            status=ExitStatus.USAGE,
        )
    if yes is None:
        left = _left(account)
        bill = _bill(aws, steps, wanted)
        if as_json:
            click.echo(json.dumps(plan_as_json(steps, left, bill), indent=2))
            return 0
        put(line(f"{place(account)}, as {who.arn}"))
        for each in plan_lines(steps, left, bill):
            put(line(each))
        if not os.isatty(streams.own_stdin()):
            put(line(f"nothing was tried: add --yes {who.account} to try it"))
            return 0
        agree(who.account, "try", "nothing was tried")
    return _run(steps, account, wanted, as_json=as_json)


def _left(account: Account) -> list[Remains]:
    """What other runs have in the account; nothing if the roles cannot be listed, which is said."""
    try:
        return left_by_others(account)
    except SmsshError as error:
        if error.reference != "access-denied":
            raise
        put(line(f"cannot tell what runs have left: {error.message}"), error=True)
        return []


def _bill(aws: AwsSession, steps: Sequence[Step], wanted: Wanted | None) -> Bill:
    """What a run may cost."""
    prices = Prices(aws)
    node = prices.node() if makes_node(steps) else None
    if wanted is None or not needs_job(steps):
        return Bill(node)
    return Bill(node, prices.instance("processing", wanted.instance_type), wanted)


def _run(steps: Sequence[Step], account: Account, wanted: Wanted | None, *, as_json: bool) -> int:
    record = Record()
    alias, status, why, ended = "", 0, "", "ended"
    with Terminated() as terminated:
        try:
            alias = account.alias
            run(steps, account, lambda text: put(line(text), error=True), record=record, wanted=wanted)
        except KeyboardInterrupt:
            status, why, ended = terminated.status, "the run was interrupted", "interrupted"
        except SmsshError as error:
            say(error)
            status, why = int(error.status), error.message
    if why:
        count = f"{len(record.results)} of {len(steps)} steps ended"
        left = (
            "the next run with --yes removes what is left" if record.left else "nothing of this run is left"
        )
        put(line(f"{ended}: {count}; {left}"), error=True)
        if not record.results and not as_json:
            return status
    status = status or int(exit_status(record.results))
    redaction = Redaction(account.caller, alias, account.aws.profile.name)
    if as_json:
        click.echo(json.dumps(results_as_json(record.results, redaction, status, why), indent=2))
    else:
        where = f"{account.aws.region} ({account.caller.partition})"
        click.echo(block("\n".join(markdown(record.results, redaction, where))))
    return status
