"""A step of `smssh doctor --live`: what it asks, does and needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .place import Place
    from .trials import Answer

__all__ = ["Step"]


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        id: `live.NAME`, which stays the same over versions.
        asks: the question; "" for a step that only makes what others need.
        makes: what it makes in the account; "" for nothing.
        actions: the actions of IAM that the caller needs for it.
        seconds: about how long it takes.
        run: tries it. An SmsshError that it raises is "could not be tried".
        needs_job: whether it needs a job that runs, which costs something.
        after: the ids of the steps whose answer has to be yes for it, or what they make has to be there.
    """

    id: str
    asks: str
    makes: str
    actions: tuple[str, ...]
    seconds: int
    run: Callable[[Place], Answer]
    after: tuple[str, ...] = ()
    needs_job: bool = False
