"""Errors on demand: any operation answers with any error, late, too often, or not at all.

For tests of clients, and for people who want to see what theirs does. The local emulator asks `Faults.apply` before
it acts on a request, and before a pipeline makes a call of its own; what is to go wrong is added in Python, or over
HTTP (see session_control.py).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from .service_error import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Fault", "Faults", "HangUpError"]

_DELAY_MAX = 600.0


class HangUpError(ServiceError):
    """The connection is to be closed without an answer."""

    def __init__(self) -> None:
        super().__init__("ConnectionClosed", "smssh local closes this connection, as it was told to.", 500)


@dataclass
class Fault:
    """Something that is to go wrong.

    Args:
        operation: `service:Operation`, with `*` and `?` for any; for example `ssm:StartSession`, `s3:PUT`,
            `ssmmessages:OpenDataChannel`, `*`. The service is the one in the request's signature; operations
            of S3 are HTTP methods. Pipelines call `sagemaker:Create*`, `Describe*`, `Stop*` and `lambda:Invoke`.
        code: the error's code; "" lets the operation happen, after `delay`.
        message: the error's text.
        status: the error's HTTP status.
        delay: seconds before the answer; at most 600.
        times: how often it happens; None for always.
        per_second: only calls beyond this rate are affected: throttling.
        hang_up: no answer at all.
    """

    operation: str
    code: str = ""
    message: str = ""
    status: int = 400
    delay: float = 0.0
    times: int | None = None
    per_second: float | None = None
    hang_up: bool = False
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    happened: int = 0

    def __post_init__(self) -> None:
        if not self.operation:
            raise ValueError("`operation` is missing")
        for name in ("operation", "code", "message", "id"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"`{name}` is a text")
        if not 0 <= self.delay <= _DELAY_MAX:
            raise ValueError(f"`delay` is 0 to {_DELAY_MAX:.0f} seconds, not {self.delay}")
        if self.times is not None and self.times < 1:
            raise ValueError(f"`times` is 1 or more, not {self.times}")
        if self.per_second is not None and self.per_second < 0:
            raise ValueError(f"`per_second` is 0 or more, not {self.per_second}")
        if not 200 <= self.status <= 599:
            raise ValueError(f"`status` is an HTTP status, not {self.status}")

    def to_json(self) -> dict[str, Any]:
        """As the control API shows it."""
        return asdict(self)


class Faults:
    """What is to go wrong. The first fault that fits an operation is the one that happens.

    Args:
        clock: seconds of a monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._faults: dict[str, Fault] = {}
        self._clock = clock
        self._allowed: dict[str, tuple[float, float]] = {}
        """By fault: the calls that may pass now, and when that was reckoned."""

    def __iter__(self) -> Iterator[Fault]:
        return iter(list(self._faults.values()))

    def __setitem__(self, operation: str, error: ServiceError) -> None:
        """Have an operation of SSM fail until it is deleted here."""
        self._faults[operation] = Fault(
            f"ssm:{operation}", error.code, error.message, error.status, id=operation
        )

    def __delitem__(self, operation: str) -> None:
        del self._faults[operation]

    def add(self, fault: Fault) -> Fault:
        """Have it go wrong from now on."""
        self._faults[fault.id] = fault
        return fault

    def remove(self, fault_id: str) -> bool:
        """End a fault; whether there was one."""
        return self._faults.pop(fault_id, None) is not None

    def clear(self) -> None:
        """End all of them."""
        self._faults.clear()

    async def apply(self, operation: str) -> None:
        """Let happen to an operation what is to happen to it.

        Args:
            operation: `service:Operation`.

        Raises:
            ServiceError: it fails.
        """
        for fault in self:
            if not fnmatchcase(operation, fault.operation) or self._may_pass(fault):
                continue
            fault.happened += 1
            if fault.times is not None and fault.happened >= fault.times:
                self.remove(fault.id)
            if fault.delay:
                await asyncio.sleep(fault.delay)
            if fault.hang_up:
                raise HangUpError
            if fault.code:
                text = fault.message or "smssh local was told to fail this operation."
                raise ServiceError(fault.code, text, fault.status)
            return

    def _may_pass(self, fault: Fault) -> bool:
        """Whether a call is within a throttle's rate; one second's worth may come at once."""
        if fault.per_second is None:
            return False
        now = self._clock()
        most = max(1.0, fault.per_second) if fault.per_second else 0.0
        left, since = self._allowed.get(fault.id, (most, now))
        left = min(most, left + (now - since) * fault.per_second)
        passes = left >= 1
        self._allowed[fault.id] = (left - 1 if passes else left, now)
        return passes
