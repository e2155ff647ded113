"""`smssh costs`."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from ..durations import format_duration, parse_duration
from ..errors import ExitStatus
from ..terminal import line, put
from .app import aws_options, json_option
from .parameters import Seconds

if TYPE_CHECKING:
    from ..costs.prices import Price
    from ..costs.spent import Costs, Sum

__all__ = ["costs"]

OLDEST = "365d"
"""The longest --since."""
GROUPS = ("owner", "pipeline", "step", "kind", "job")
"""Those of `costs.spent`, which is not imported before it is needed."""


@click.command("costs")
@click.option(
    "--since", type=Seconds(), default="30d", show_default=True, help="How far to look back, for instance 7d."
)
@click.option(
    "--by",
    type=click.Choice(GROUPS),
    multiple=True,
    help="What to sum by; may be given more than once. [default: owner, pipeline, step]",
)
@click.option("--owner", metavar="NAME", help="Only jobs whose owner is NAME.")
@json_option
@aws_options
def costs(
    since: float,
    by: tuple[str, ...],
    owner: str | None,
    as_json: bool,
    region: str | None,
    profile: str | None,
) -> int:
    """Show what SSH in jobs took: hours of managed nodes, and minutes of holds.

    Looks through the jobs of this account and region. If you may call pricing:GetProducts, it shows what that cost by
    AWS's price list; otherwise only hours and minutes. It changes nothing.
    """
    if not 0 < since <= parse_duration(OLDEST):
        raise click.UsageError(f"--since is more than 0 and at most {OLDEST}")
    from ..aws.session import AwsSession
    from ..costs.prices import Prices
    from ..costs.spent import costs as find
    from ..costs.spent import sums

    aws = AwsSession(region, profile)
    shows = sys.stderr.isatty()

    def progress(what: str) -> None:
        if shows:
            click.echo("\r\x1b[K" + line(f"reading {what}"), err=True, nl=False)

    now = time.time()
    try:
        found = find(aws, Prices(aws), now - since, now, progress)
    finally:
        if shows:
            click.echo("\r\x1b[K", err=True, nl=False)
    spent = [each for each in found.spent if owner in (None, each.job.owner)]
    groups = tuple(dict.fromkeys(by)) or ("owner", "pipeline", "step")
    rows, whole = sums(spent, groups), sums(spent, ())
    if as_json:
        _print_json(found, spent, rows, whole, groups, aws.region, now - since, now)
    elif not rows:
        put(line(f"no job with SSH ran in {aws.region} in the last {format_duration(since)}"))
    else:
        _show(rows, whole[0], groups)
    if not as_json:
        for each in found.missing:
            put(line(each), error=True)
        if found.orphans:
            nodes = "1 node is" if found.orphans == 1 else f"{found.orphans} nodes are"
            put(f"{nodes} registered and not online: see `smssh cleanup`", error=True)
    return int(ExitStatus.REFUSED if found.unread else ExitStatus.OK)


def _show(rows: list[Sum], whole: Sum, groups: tuple[str, ...]) -> None:
    table = [(*(each.upper() for each in groups), "JOBS", "NODE HOURS", "HOLD MINUTES", "COST")]
    table += [(*(line(value) or "-" for value in each.group), *_cells(each)) for each in rows]
    if len(rows) > 1:
        table.append(("total", *("" for _ in groups[1:]), *_cells(whole)))
    if all(row[-1] == "-" for row in table[1:]):  # no price is known
        table = [row[:-1] for row in table]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    texts = len(groups)
    for row in table:
        cells = [
            cell.ljust(width) if column < texts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def _cells(each: Sum) -> tuple[str, str, str, str]:
    minutes = "-" if each.hold_minutes is None else f"{each.hold_minutes:.1f}"
    return str(each.jobs), f"{each.node_hours:.2f}", minutes, _money(each.cost)


def _money(cost: Price | None) -> str:
    if cost is None:
        return "-"
    return line(f"{cost.amount:.2f} {cost.currency}").strip()


def _print_json(
    found: Costs,
    spent: list[Any],
    rows: list[Sum],
    whole: list[Sum],
    groups: tuple[str, ...],
    region: str,
    since: float,
    until: float,
) -> None:
    def amounts(each: Sum) -> dict[str, Any]:
        return {
            "jobs": each.jobs,
            "node_hours": round(each.node_hours, 4),
            "hold_minutes": None if each.hold_minutes is None else round(each.hold_minutes, 2),
            "cost": _price(each.cost),
        }

    nothing = {"jobs": 0, "node_hours": 0.0, "hold_minutes": 0.0, "cost": None}
    answer = {
        "version": 1,
        "region": region,
        "since": round(since),
        "until": round(until),
        "by": list(groups),
        "groups": [{**dict(zip(groups, each.group, strict=True)), **amounts(each)} for each in rows],
        "total": amounts(whole[0]) if whole else nothing,
        "jobs": [
            {
                "job": each.job.name,
                "kind": each.job.kind,
                "owner": each.job.owner,
                "step": each.job.step,
                "execution": each.job.execution,
                "pipeline": each.job.pipeline,
                "instances": [{"type": kind, "count": count} for kind, count in each.job.pools],
                "began": each.job.began,
                "ended": each.job.ended,
                "node_hours": round(each.node_hours, 4),
                "hold_minutes": None if each.hold_minutes is None else round(each.hold_minutes, 2),
                "node_cost": _price(each.node_cost),
                "hold_cost": _price(each.hold_cost),
            }
            for each in spent
        ],
        "orphans": found.orphans,
        "missing": found.missing,
    }
    click.echo(json.dumps(answer, indent=2))


def _price(cost: Price | None) -> dict[str, Any] | None:
    return None if cost is None else {"amount": round(cost.amount, 4), "currency": cost.currency}
