"""What it costs to wait, where somebody has said what an instance costs: prices are neither made up nor looked up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..hookspecs import Context, Hold

__all__ = ["waiting"]

_PARTS = re.compile(r"([\d.]+)\s*(.*)\Z")


def waiting(context: Context, hold: Hold | None, now: float) -> str:
    """`2 instances cost 2.42 USD an hour, 0.40 USD since the hold began`; empty where the price is not known.

    All hosts of the job are counted: while one is held, the others run or wait.

    Args:
        context: the supervisor's context.
        hold: the hold that is going on; without one nothing is waited for.
        now: seconds since the epoch.
    """
    found = _PARTS.match(context.settings.price_per_hour)
    if found is None or hold is None:
        return ""
    count = max(1, len(context.job.hosts))
    an_hour = float(found.group(1)) * count
    currency = " " + found.group(2) if found.group(2) else ""
    so_far = an_hour * max(0.0, now - hold.since) / 3600
    instances = "the instance costs" if count == 1 else f"{count} instances cost"
    return f"{instances} {an_hour:.2f}{currency} an hour, {so_far:.2f}{currency} since the hold began"
