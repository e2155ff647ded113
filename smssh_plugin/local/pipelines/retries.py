"""RetryPolicies of a step: read and checked, which fault is which, and how long until the next attempt.

Facts: AWS's developer guide, "Retry Policy for Pipeline Steps" (members, limits, defaults); the enumeration of
exception types is the one of the "SageMaker Pipeline Definition JSON Schema". Step.SERVICE_FAULT and Step.THROTTLING
are retried without a policy too; how often then is not documented, so it is as often as a policy that says nothing
else. Two policies for one fault: the first one counts.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..service_error import ServiceError

__all__ = ["Retries", "RetryPolicy", "fault_of_call", "fault_of_job", "read_retries"]

SERVICE_FAULT = "Step.SERVICE_FAULT"
THROTTLING = "Step.THROTTLING"
JOB_INTERNAL_ERROR = "SageMaker.JOB_INTERNAL_ERROR"
CAPACITY_ERROR = "SageMaker.CAPACITY_ERROR"
RESOURCE_LIMIT = "SageMaker.RESOURCE_LIMIT"
_FAULTS = (
    SERVICE_FAULT,
    THROTTLING,
    JOB_INTERNAL_ERROR,
    CAPACITY_ERROR,
    RESOURCE_LIMIT,
    # Of EMR steps, which are not interpreted.
    "Emr.RESOURCE_LIMIT",
)
_AUTOMATIC = (SERVICE_FAULT, THROTTLING)
_LIMITS = {"IntervalSeconds": 43_200, "MaxAttempts": 20, "ExpireAfterMin": 14_400}
_LONGEST = 14_400 * 60.0
"""Seconds: no interval is longer than the longest time that a policy can act."""
_THROTTLED = {
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
}
_SERVICE = {"InternalFailure", "InternalServerError", "InternalServerException", "ServiceUnavailable"}


@dataclass(frozen=True)
class RetryPolicy:
    """One policy.

    Args:
        faults: the exception types that it is for.
        interval: seconds before the first retry; 0 to 43,200.
        rate: what the interval is multiplied with from one retry to the next; 0 or more.
        attempts: the most retries, 0 to 20; None where `minutes` says it.
        minutes: from the start of the step, after which there is no retry any more; 0 to 14,400.
    """

    faults: frozenset[str]
    interval: float = 1.0
    rate: float = 2.0
    attempts: int | None = 5
    minutes: int | None = None


_DEFAULT = RetryPolicy(frozenset(_AUTOMATIC))


def read_retries(entries: Any) -> tuple[RetryPolicy, ...]:
    """The policies of a step's RetryPolicies.

    Raises:
        ValueError: what is wrong with them.
    """
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise ValueError("RetryPolicies: Expecting start of Json Array.")
    return tuple(_read(entry) for entry in entries)


def _read(entry: Any) -> RetryPolicy:
    if not isinstance(entry, dict):
        raise ValueError("RetryPolicies: Expecting start of Json Object.")
    for name in entry:
        if name not in ("ExceptionType", "BackoffRate", *_LIMITS):
            raise ValueError(f"RetryPolicies: Unknown member '{name}'.")
    faults = entry.get("ExceptionType")
    if not isinstance(faults, list):
        raise ValueError("RetryPolicies: ExceptionType: Expecting start of Json Array.")
    for fault in faults:
        if not isinstance(fault, str) or fault not in _FAULTS:
            raise ValueError(
                f"RetryPolicies: Value '{fault}' for 'ExceptionType' "
                f"failed to satisfy enum value set: [{', '.join(_FAULTS)}]"
            )
    if not faults:
        raise ValueError("RetryPolicies: ExceptionType must not be empty.")
    for name, most in _LIMITS.items():
        value = entry.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise ValueError(
                f"RetryPolicies: Value '{value}' for '{name}' must be an integer from 0 to {most}."
            )
    rate = entry.get("BackoffRate")
    if rate is not None and (
        not isinstance(rate, (int, float)) or isinstance(rate, bool) or not math.isfinite(rate) or rate < 0
    ):
        raise ValueError(f"RetryPolicies: Value '{rate}' for 'BackoffRate' must be a number of at least 0.")
    attempts, minutes = entry.get("MaxAttempts"), entry.get("ExpireAfterMin")
    if attempts is not None and minutes is not None:
        raise ValueError(
            "RetryPolicies: Only one of MaxAttempts or ExpireAfterMin can be given, but not both."
        )
    interval = entry.get("IntervalSeconds")
    return RetryPolicy(
        frozenset(faults),
        _DEFAULT.interval if interval is None else float(interval),
        _DEFAULT.rate if rate is None else float(rate),
        _DEFAULT.attempts if attempts is None and minutes is None else attempts,
        minutes,
    )


def fault_of_call(error: ServiceError) -> str | None:
    """The exception type of a call that a step made and that was refused; None: no policy is for it."""
    if error.code in _THROTTLED or error.status == 429:
        return THROTTLING
    if error.code == "ResourceLimitExceeded":
        return RESOURCE_LIMIT
    if error.code == "CapacityError":
        return CAPACITY_ERROR
    if error.code in _SERVICE or error.status >= 500:
        return SERVICE_FAULT
    return None


def fault_of_job(reason: str | None) -> str | None:
    """The exception type of a job that failed, by its FailureReason; None: no policy is for it."""
    word = (reason or "").partition(":")[0]
    return {"InternalServerError": JOB_INTERNAL_ERROR, "CapacityError": CAPACITY_ERROR}.get(word)


class Retries:
    """What is left of the retries of one step, or of one call.

    Args:
        policies: of the step.
        clock: seconds of a monotonic clock.
    """

    def __init__(
        self, policies: Sequence[RetryPolicy] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._policies = policies
        self._clock = clock
        self._began = clock()
        self._used: dict[int, int] = {}

    def policy(self, fault: str) -> RetryPolicy | None:
        """The policy for a fault: the step's, else the service's own; None: it is not retried."""
        for policy in self._policies:
            if fault in policy.faults:
                return policy
        return _DEFAULT if fault in _AUTOMATIC else None

    def wait(self, fault: str) -> float | None:
        """Count a retry for `fault`; answers the seconds until it starts, None where there is no other."""
        policy = self.policy(fault)
        if policy is None:
            return None
        used = self._used.get(id(policy), 0)
        if policy.attempts is not None and used >= policy.attempts:
            return None
        seconds = policy.interval
        for _ in range(used):
            seconds = min(seconds * policy.rate, _LONGEST)
            if policy.rate == 1 or seconds in (0, _LONGEST):
                break
        if policy.minutes is not None and self._clock() - self._began >= policy.minutes * 60:
            return None
        self._used[id(policy)] = used + 1
        return seconds
