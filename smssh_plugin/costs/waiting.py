"""What it costs that a job waits, where this machine remembers the price of its instances; AWS is not asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..client.job_state import described_job
from ..errors import SmsshError
from .jobs import pools
from .prices import Price, Prices, remembers_any
from .spent import total

if TYPE_CHECKING:
    from ..aws.session import AwsSession

__all__ = ["sentence", "waiting"]


def waiting(aws: AwsSession, kind: str, job: str, seconds: float | None = None) -> str:
    """`2 instances cost 2.42 USD an hour`; "" where that is not known. One API call, and none where no price is known.

    Args:
        aws: the AWS session.
        kind: training, processing or transform.
        job: the name of the job.
        seconds: how long it has been held; None where that is not known.
    """
    if not remembers_any():
        return ""
    try:
        described = described_job(aws, kind, job)
    except SmsshError:  # it is an extra
        return ""
    if described is None:
        return ""
    prices = Prices(aws, ask=False)
    counts = pools(described)
    parts = []
    for instance_type, count in counts:
        price = prices.instance(kind, instance_type)
        parts.append(None if price is None else Price(price.amount * count, price.currency))
    an_hour = total(parts)
    if an_hour is None or not an_hour.amount:
        return ""
    return sentence(an_hour, sum(count for _, count in counts), seconds)


def sentence(an_hour: Price, instances: int, seconds: float | None = None) -> str:
    """`2 instances cost 2.42 USD an hour, 0.40 USD since the hold began`."""
    what = "the instance costs" if instances == 1 else f"{instances} instances cost"
    text = f"{what} {an_hour.amount:.2f} {an_hour.currency} an hour"
    if seconds is None:
        return text
    return f"{text}, {an_hour.amount * max(0.0, seconds) / 3600:.2f} {an_hour.currency} since the hold began"
