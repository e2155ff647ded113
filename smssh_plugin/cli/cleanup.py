"""`smssh cleanup`."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from .. import streams
from ..durations import format_duration, parse_duration
from ..errors import ExitStatus, SmsshError
from ..terminal import line, put
from ..terminated import Terminated
from .app import aws_options, json_option
from .fast_path import say
from .parameters import Seconds

if TYPE_CHECKING:
    from ..aws.session import AwsSession
    from ..setup.cleanup import Cleanup, Result
    from ..setup.stale import Entry, Finding, Limits, Overview

__all__ = ["cleanup"]

OLDEST = "3650d"
"""The longest --older-than."""


@click.command("cleanup")
@click.option("--apply", is_flag=True, help="Remove them. Without this, they are only shown.")
@click.option("--yes", is_flag=True, help="Do not ask before removing; needed where nobody can be asked.")
@click.option(
    "--older-than",
    type=Seconds(),
    default="1h",
    show_default=True,
    help="Only what has not been seen for this long, for instance 7d.",
)
@click.option("--owner", metavar="NAME", help="Only what has the tag SSHOwner with the value NAME.")
@click.option(
    "--include-helper", is_flag=True, help="Also what sagemaker-ssh-helper made: it removes nothing itself."
)
@json_option
@aws_options
def cleanup(
    apply: bool,
    yes: bool,
    older_than: float,
    owner: str | None,
    include_helper: bool,
    as_json: bool,
    region: str | None,
    profile: str | None,
) -> int:
    """Remove the managed nodes and activations of jobs that have ended.

    Shows what would be removed in this account and region; --apply removes it. A node is removed if it carries smssh's
    tags, is not online, and SageMaker says that its job has ended. If SageMaker does not know the job, the node must
    not have been seen for a day. All of that is read again right before each removal.
    """
    _check(apply, yes, older_than, owner, as_json)
    from ..aws.session import AwsSession
    from ..setup.cleanup import Cleanup
    from ..setup.stale import HELPER, SMSSH, Limits, look

    aws = AwsSession(region, profile)
    limits = Limits(older_than, owner)
    overview = look(aws, (SMSSH, HELPER) if include_helper else (SMSSH,), limits, time.time())
    stale = [finding for finding in overview.findings if finding.stale]
    if not as_json:
        _show(overview, aws, applies=apply)
    if not apply or not stale:
        if as_json:
            _print_json(overview, None, aws, limits, applied=apply)
        return _status(overview, None)
    if not yes and not _agreed(stale, aws):
        put("nothing was removed", error=True)
        return int(ExitStatus.FAILED)
    cleaner = Cleanup(aws, limits, time.time)
    interrupted = False
    terminated = Terminated()
    try:
        with terminated:
            cleaner.run(stale, (lambda _: None) if as_json else _show_result)
    except KeyboardInterrupt:
        interrupted = True
    if as_json:
        _print_json(overview, cleaner, aws, limits, applied=True)
    _show_end(cleaner, stale, aws, interrupted=interrupted, quiet=as_json)
    return terminated.status if interrupted else _status(overview, cleaner)


def _check(apply: bool, yes: bool, older_than: float, owner: str | None, as_json: bool) -> None:
    """Refuse options that do not go together, before anything is asked for."""
    if yes and not apply:
        raise click.UsageError("--yes goes with --apply")
    if owner is not None and not owner.strip():
        raise click.UsageError("--owner is empty: leave it out for all owners")
    if older_than > parse_duration(OLDEST):
        raise click.UsageError(f"--older-than is at most {OLDEST}")
    if apply and not yes and (as_json or not os.isatty(streams.own_stdin())):
        raise SmsshError(
            "--apply asks before it removes anything, and there is nobody to ask",
            hint="look at what `smssh cleanup` shows, then add --yes",
            reference="nobody-to-ask",
            status=ExitStatus.USAGE,
        )


def _agreed(stale: list[Finding], aws: AwsSession) -> bool:
    """Ask on the terminal; stdin itself is /dev/null here, see `streams`."""
    question = f"remove {_counted(stale)} in {_place(aws)}? [y/N] "
    print(line(question), end="", file=sys.stderr, flush=True)
    answer = b""
    while not answer.endswith(b"\n"):
        piece = os.read(streams.own_stdin(), 1)
        if not piece:  # the terminal is closed
            return False
        answer += piece
    return answer.strip().lower() in (b"y", b"yes")


# ----------------------------------------------------------------------------------------------------- what is shown


def _show(overview: Overview, aws: AwsSession, *, applies: bool) -> None:
    """The table of what is stale, and what is kept, by reason."""
    stale = [finding for finding in overview.findings if finding.stale]
    if stale:
        now = time.time()
        rows: list[tuple[str, ...]] = [("WHAT", "ID", "HOST OR JOB", "OWNER", "LAST SEEN", "REASON")]
        for finding in stale:
            entry = finding.entry
            age = format_duration(int(now - entry.seen)) + " ago"
            cells = (entry.what, entry.id, entry.address, entry.owner, age, finding.reason)
            rows.append(tuple(line(cell) for cell in cells))  # tags are other people's text
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            click.echo("  ".join(padded).rstrip())
    kept = [finding for finding in overview.findings if not finding.stale]
    for reason, count in sorted(Counter(f"{one.entry.what}\n{one.reason}" for one in kept).items()):
        what, _, why = reason.partition("\n")
        put(line(f"kept: {_plural(count, what)}: {why}"))
    if overview.problem is not None:
        say(overview.problem)
        put("activations are not looked at", error=True)
    where = _place(aws)
    if not stale:
        put(line(f"nothing to remove in {where}"))
    elif not applies:
        put(line(f"would remove {_counted(stale)} in {where}; --apply removes them"))


def _show_result(result: Result) -> None:
    if result.outcome == "left" and not result.detail:
        return
    detail = f": {result.detail}" if result.detail else ""
    put(line(f"{result.outcome}: {result.entry.what} {result.entry.id}{detail}"))


def _show_end(
    cleaner: Cleanup, stale: list[Finding], aws: AwsSession, *, interrupted: bool, quiet: bool
) -> None:
    """What was removed of what was to be, and why the rest was not."""
    if cleaner.results and cleaner.results[-1].outcome == "left" and interrupted and not quiet:
        _show_result(cleaner.results[-1])
    if cleaner.error is not None:
        say(cleaner.error)
    counts = Counter(result.outcome for result in cleaner.results)
    counts["left"] = len(stale) - sum(counts.values()) + counts["left"]
    parts = [f"removed {counts['removed']} of {len(stale)} in {_place(aws)}"]
    parts += [f"{counts[outcome]} {outcome}" for outcome in ("gone", "kept", "failed") if counts[outcome]]
    if counts["left"]:
        parts.append(f"{counts['left']} left: run it again")
    put(line(("interrupted: " if interrupted else "") + "; ".join(parts)), error=quiet)


def _print_json(
    overview: Overview, cleaner: Cleanup | None, aws: AwsSession, limits: Limits, *, applied: bool
) -> None:
    results = {} if cleaner is None else {result.entry.id: result for result in cleaner.results}
    found = []
    for finding in overview.findings:
        result = results.get(finding.entry.id)
        outcome = "kept" if not finding.stale else "stale" if cleaner is None else "left"
        found.append(
            {
                **_entry_json(finding.entry),
                "stale": finding.stale,
                "reason": finding.reason,
                "outcome": outcome if result is None else result.outcome,
                "detail": "" if result is None else result.detail,
            }
        )
    errors = [overview.problem, None if cleaner is None else cleaner.error]
    answer = {
        "version": 1,
        "region": aws.region,
        "older_than_seconds": limits.older_than,
        "owner": limits.owner,
        "applied": applied,
        "entries": found,
        "errors": [error.message for error in errors if error is not None],
    }
    click.echo(json.dumps(answer, indent=2))


def _entry_json(entry: Entry) -> dict[str, Any]:
    kind, job = entry.job
    return {
        "what": entry.what,
        "id": entry.id,
        "made_by": entry.maker.name,
        "address": entry.address,
        "kind": kind,
        "job": job,
        "owner": entry.owner,
        "last_seen": entry.seen or None,
    }


def _status(overview: Overview, cleaner: Cleanup | None) -> int:
    """REFUSED where a permission is missing, FAILED where something could not be removed; else OK."""
    if cleaner is not None:
        if cleaner.error is not None:
            return int(cleaner.error.status)
        if any(result.outcome == "failed" for result in cleaner.results):
            return int(ExitStatus.FAILED)
    if overview.problem is not None or any(finding.untold for finding in overview.findings):
        return int(ExitStatus.REFUSED)
    return int(ExitStatus.OK)


def _counted(findings: list[Finding]) -> str:
    """`3 nodes and 1 activation`."""
    counts = Counter(finding.entry.what for finding in findings)
    return " and ".join(_plural(counts[what], what) for what in ("node", "activation") if counts[what])


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _place(aws: AwsSession) -> str:
    """Where it is looked: a person has several profiles, and another default region than they think."""
    profile = aws.profile.name
    return aws.region if profile == "default" else f"{aws.region} (profile {profile})"
