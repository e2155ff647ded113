"""What the local emulator's SageMaker knows: jobs, models, pipelines, tags; and lists of them, page by page.

All of it is in memory, of one account and one region, and belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .shapes import validation_error

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable

    from ..jobs.kinds import Kind
    from ..pipelines.definition import Definition
    from ..pipelines.step_run import StepRun

__all__ = ["ACCOUNT", "REGION", "JobRecord", "ModelRecord", "PipelineRecord", "Store", "arn", "page"]

ACCOUNT = "123456789012"
"""The account of every ARN; moto's default, so that STS and S3 agree with it."""
REGION = "us-east-1"
_PAGE = 100
"""Default and largest page, in items, of the List operations."""


def arn(resource: str) -> str:
    """The ARN of a SageMaker resource of the local emulator's account, e.g. `arn("training-job/x")`."""
    return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{resource}"


@dataclass
class JobRecord:
    """One training, processing or transform job. Times are seconds since the epoch."""

    kind: Kind
    name: str
    arn: str
    request: dict[str, Any]
    number: int
    """Counts jobs, so that two of the same instant have an order."""
    status: str = "InProgress"
    secondary: str = "Starting"
    created: float = field(default_factory=time.time)
    modified: float = 0.0
    started: float | None = None
    ended: float | None = None
    failure_reason: str | None = None
    exit_message: str | None = None
    artifacts: str | None = None
    tuning: str | None = None
    """The ARN of the tuning job that it belongs to."""
    patterns: list[tuple[str, re.Pattern[str]]] = field(default_factory=list)
    """How its metrics stand in its log, by name."""
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By name: the last value, and when that was written."""
    transitions: list[dict[str, Any]] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.modified = self.created

    def turn(self, secondary: str, message: str) -> None:
        """Enter a secondary status, closing the one before."""
        now = time.time()
        if self.transitions:
            self.transitions[-1].setdefault("EndTime", now)
        self.transitions.append({"Status": secondary, "StartTime": now, "StatusMessage": message})
        self.secondary = secondary
        self.modified = now


@dataclass
class ModelRecord:
    """One model."""

    name: str
    arn: str
    request: dict[str, Any]
    number: int
    created: float = field(default_factory=time.time)


@dataclass
class PipelineRecord:
    """One pipeline and every version of its definition."""

    name: str
    arn: str
    number: int
    role: str
    versions: list[Definition]
    """Version N is at N - 1."""
    display_name: str | None = None
    description: str | None = None
    parallelism: dict[str, Any] | None = None
    created: float = field(default_factory=time.time)
    modified: float = field(default_factory=time.time)
    last_run: float | None = None
    cache: dict[str, tuple[StepRun, str]] = field(default_factory=dict)
    """Results that a later execution may take, by what was asked for: the step and the ARN of its execution."""


class Store:
    """Everything by name or ARN."""

    def __init__(self) -> None:
        self.jobs: dict[Kind, dict[str, JobRecord]] = {"training": {}, "processing": {}, "transform": {}}
        self.models: dict[str, ModelRecord] = {}
        self.pipelines: dict[str, PipelineRecord] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self._count = 0

    def next_number(self) -> int:
        """A number that no record has yet, larger than all before."""
        self._count += 1
        return self._count

    def tag(self, resource: str, tags: Iterable[dict[str, str]]) -> None:
        """Set the tags of `resource` (an ARN), leaving its others."""
        self.tags.setdefault(resource, {}).update({tag["Key"]: tag["Value"] for tag in tags})

    def tags_of(self, resource: str) -> list[dict[str, str]]:
        """The tags of `resource` as the API lists them."""
        return [{"Key": key, "Value": value} for key, value in self.tags.get(resource, {}).items()]


class _Numbered(Protocol):
    number: int


T = TypeVar("T", bound=_Numbered)


def _token(key: list[Any]) -> str:
    """Where a page ended: the sort key of its last item, so that new items shift no page."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def _key(token: str) -> list[Any]:
    try:
        key = json.loads(base64.urlsafe_b64decode(token.encode()))
    except ValueError:
        key = None
    if not isinstance(key, list) or [type(part) for part in key[1:]] != [int]:
        raise validation_error("The value of 'NextToken' is invalid.")
    return key


def page(
    items: Iterable[T],
    request: dict[str, Any],
    key: Callable[[T], Any],
    *,
    order: str = "Descending",
    size: int = _PAGE,
) -> tuple[list[T], str | None]:
    """One page of a List operation, by its SortOrder, MaxResults and NextToken.

    Args:
        items: all that pass the request's filters.
        request: the request.
        key: what to sort by; the number of a record decides between equals.
        order: the operation's default SortOrder.
        size: the operation's default MaxResults.

    Returns:
        The page, and the token of the next one if there is one.

    Raises:
        ServiceError: ValidationException, for a token that is not ours.
    """
    down = request.get("SortOrder", order) == "Descending"
    ranked = sorted(
        ((([key(item), item.number]), item) for item in items), key=lambda pair: pair[0], reverse=down
    )
    if request.get("NextToken"):
        last = _key(request["NextToken"])
        try:
            ranked = [pair for pair in ranked if (pair[0] < last if down else pair[0] > last)]
        except TypeError:
            raise validation_error("The value of 'NextToken' is invalid.") from None
    size = min(request.get("MaxResults") or size, _PAGE)
    shown = ranked[:size]
    token = _token(shown[-1][0]) if len(ranked) > size else None
    return [item for _, item in shown], token
