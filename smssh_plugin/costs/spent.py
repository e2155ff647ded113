"""What jobs with SSH took and cost: node hours, hold minutes and, where prices are known, money, by group."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ..at_once import at_once
from ..errors import SmsshError
from .holds import held_seconds
from .jobs import find
from .prices import Price

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..aws.session import AwsSession
    from .jobs import SpentJob
    from .prices import Prices

__all__ = ["GROUPS", "Costs", "Spent", "Sum", "costs", "spent", "sums", "total"]

GROUPS = ("owner", "pipeline", "step", "kind", "job")
"""What sums can be made by."""
_AMOUNT = re.compile(r"[\d.]+")


@dataclass(frozen=True)
class Spent:
    """What a job took in the time.

    Attributes:
        job: the job.
        node_hours: of its managed nodes, at most: from the start of its containers to their end.
        hold_minutes: in which at least one of its hosts was held; None where that is not known.
        node_cost: of its node hours; None where the price is not known.
        hold_cost: of all its instances in its hold minutes; None where minutes or price are not known.
    """

    job: SpentJob
    node_hours: float
    hold_minutes: float | None
    node_cost: Price | None
    hold_cost: Price | None


@dataclass(frozen=True)
class Sum:
    """What the jobs of a group took together.

    Attributes:
        group: what they have in common, by the names of `GROUPS`.
        jobs: how many.
        node_hours: of all of them.
        hold_minutes: of those whose logs could be read; None where no log could.
        cost: of all of them; None where a part of it is not known, or currencies differ.
    """

    group: tuple[str, ...]
    jobs: int
    node_hours: float
    hold_minutes: float | None
    cost: Price | None


@dataclass(frozen=True)
class Costs:
    """What was found.

    Attributes:
        spent: the jobs.
        orphans: nodes that are registered although they are not online.
        missing: what is not known, and why, a line each.
        unread: whether jobs could not be read, so that there may be more.
    """

    spent: list[Spent]
    orphans: int
    missing: list[str]
    unread: bool


def costs(
    aws: AwsSession, prices: Prices, since: float, now: float, progress: Callable[[str], None]
) -> Costs:
    """What jobs with SSH took between `since` and `now`.

    Args:
        aws: the AWS session.
        prices: of the session's region.
        since: seconds since the epoch.
        now: the same.
        progress: is told what is read.

    Raises:
        SmsshError: AWS cannot be asked at all.
    """
    found = find(aws, since, now, progress)
    progress(f"the logs of {len(found.jobs)} jobs with SSH")
    minutes, trouble = _minutes(aws, found.jobs, since, now)
    jobs = [spent(job, held, prices, since, now) for job, held in zip(found.jobs, minutes, strict=True)]
    missing = list(found.missing)
    silent = sum(held is None for held in minutes)
    if trouble is not None:
        missing.append(f"hold minutes are not known: {trouble.message}")
    elif silent:
        some = "1 job are not known: it has" if silent == 1 else f"{silent} jobs are not known: they have"
        missing.append(f"hold minutes of {some} no log")
    if prices.trouble is not None:
        missing.append(prices.trouble.message)
    elif prices.unknown:
        missing.append(f"the price list has no price, or several, for {', '.join(sorted(prices.unknown))}")
    return Costs(jobs, found.orphans, missing, found.unread)


def _minutes(
    aws: AwsSession, jobs: list[SpentJob], since: float, now: float
) -> tuple[list[float | None], SmsshError | None]:
    """The hold minutes of jobs; and why some are not known, if a permission is missing."""
    denied: dict[str, SmsshError] = {}  # by kind, which has a log group of its own

    def minutes(job: SpentJob) -> float | None:
        if job.kind in denied:
            return None
        try:
            seconds = held_seconds(aws, job, since, now)
        except SmsshError as error:
            if error.reference != "access-denied":
                raise
            denied[job.kind] = error
            return None
        return None if seconds is None else seconds / 60

    # Endpoints have no hold.
    found = at_once(lambda job: 0.0 if job.kind == "inference" else minutes(job), jobs)
    return found, next(iter(denied.values()), None)


def spent(job: SpentJob, minutes: float | None, prices: Prices, since: float, now: float) -> Spent:
    """What a job took between `since` and `now`; its hold minutes are given, None where they are not known."""
    end = now if job.ended is None else min(job.ended, now)
    hours = max(0.0, end - max(job.began, since)) / 3600 * job.nodes
    node_cost = _times(hours, prices.node) if job.nodes else Price(0.0, "")
    if minutes is None:
        return Spent(job, hours, None, node_cost, None)
    return Spent(job, hours, minutes, node_cost, _times(minutes / 60, lambda: _an_hour(job, prices)))


def _times(amount: float, price: Callable[[], Price | None]) -> Price | None:
    """What an amount costs; nothing costs nothing, whatever its price."""
    if not amount:
        return Price(0.0, "")
    found = price()
    return None if found is None else Price(found.amount * amount, found.currency)


def _an_hour(job: SpentJob, prices: Prices) -> Price | None:
    """What all instances of a job cost an hour: what the job says, or else the price list."""
    if job.price:
        amount = _AMOUNT.match(job.price)
        assert amount is not None  # as its setting is read
        return Price(
            float(amount[0]) * sum(count for _, count in job.pools), job.price[amount.end() :].strip()
        )
    return total(_times(float(count), partial(prices.instance, job.kind, kind)) for kind, count in job.pools)


def total(parts: Iterable[Price | None]) -> Price | None:
    """The sum; None where a part of it is not known, or the currencies differ. One without is in that of the others."""
    amount, currencies = 0.0, set()
    for each in parts:
        if each is None:
            return None
        amount += each.amount
        if each.amount and each.currency:
            currencies.add(each.currency)
    return Price(amount, *currencies or {""}) if len(currencies) < 2 else None


def sums(spent: Iterable[Spent], by: tuple[str, ...]) -> list[Sum]:
    """The sums of jobs by group, the dearest first; where no price is known, that with the most node hours."""
    groups: dict[tuple[str, ...], list[Spent]] = {}
    for each in spent:
        values = {
            "owner": each.job.owner,
            "pipeline": each.job.pipeline or each.job.execution,
            "step": each.job.step,
            "kind": each.job.kind,
            "job": each.job.name,
        }
        groups.setdefault(tuple(values[name] for name in by), []).append(each)
    found = []
    for group, some in groups.items():
        minutes = [each.hold_minutes for each in some if each.hold_minutes is not None]
        cost = total(part for each in some for part in (each.node_cost, each.hold_cost))
        hours = sum(each.node_hours for each in some)
        found.append(Sum(group, len(some), hours, sum(minutes) if minutes else None, cost))
    return sorted(
        found, key=lambda one: (-(one.cost.amount if one.cost else 0.0), -one.node_hours, one.group)
    )
