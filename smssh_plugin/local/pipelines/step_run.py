"""One step of an execution while it runs, and as the API lists it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from .definition import Step

__all__ = ["StepRun"]


@dataclass
class StepRun:
    """One step of an execution, from the moment it starts. Times are seconds since the epoch."""

    step: Step
    number: int
    status: str = "Starting"
    started: float = field(default_factory=time.time)
    ended: float | None = None
    reason: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    attempts: int = 1
    outcome: bool | None = None
    """Of a Condition step."""
    made: str | None = None
    """The name of its job or model, or the ARN of its model package."""
    outputs: dict[str, Any] = field(default_factory=dict)
    """The output parameters of a Callback or Lambda step."""
    token: str | None = None
    """What a Callback step is called back by, while it waits."""
    request: str | None = None
    """What it asked for, where a later execution may take its result."""
    answer: asyncio.Future[tuple[str, str | None]] | None = None
    """Of a Callback step: the status and reason that it is given."""
    cached_from: str | None = None
    """The ARN of the execution that its result was taken from."""
    selected_from: str | None = None
    """The ARN of the execution that a selective one takes it from."""

    def summary(self) -> dict[str, Any]:
        """As ListPipelineExecutionSteps shows it."""
        return {
            "StepName": self.step.name,
            "StepDisplayName": self.step.display_name,
            "StepDescription": self.step.description,
            "StartTime": self.started,
            "EndTime": self.ended,
            "StepStatus": self.status,
            "FailureReason": self.reason or None,
            "Metadata": self.metadata,
            "AttemptCount": self.attempts,
            "CacheHitResult": {"SourcePipelineExecutionArn": self.cached_from} if self.cached_from else None,
            "SelectiveExecutionResult": (
                {"SourcePipelineExecutionArn": self.selected_from} if self.selected_from else None
            ),
        }
