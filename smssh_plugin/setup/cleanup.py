"""Removing stale nodes and activations, one at a time, each looked at again right before.

Between the look and the removal a person may have thought for an hour: a host may be back online, a job of the same
name may have started, a tag may have changed, somebody else may have removed it. What is removed is what is stale now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..aws.json_client import THROTTLED
from ..aws.session import ServiceRefused
from ..errors import SmsshError
from .stale import fate_of, judge, read

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..aws.session import AwsSession
    from .stale import Entry, Finding, Limits

__all__ = ["FAILED", "GONE", "KEPT", "LEFT", "REMOVED", "Cleanup", "Result"]

REMOVED, GONE, KEPT, FAILED, LEFT = "removed", "gone", "kept", "failed", "left"
"""What became of an entry. Gone: somebody else removed it. Left: it was not its turn any more."""
_GONE_CODES = frozenset({"InvalidInstanceId", "InvalidActivation", "InvalidActivationId"})


@dataclass(frozen=True)
class Result:
    """What became of one entry.

    Attributes:
        entry: the node or activation.
        outcome: removed, gone, kept, failed or left.
        detail: why it was not removed.
    """

    entry: Entry
    outcome: str
    detail: str = ""


class Cleanup:
    """Removes entries; `results` is complete after each of them, so that Ctrl-C loses nothing.

    Args:
        aws: the AWS session.
        limits: what may be removed, as for the look.
        clock: the time, in seconds since the epoch.
    """

    def __init__(self, aws: AwsSession, limits: Limits, clock: Callable[[], float]) -> None:
        self.results: list[Result] = []
        self.error: SmsshError | None = None
        """Why there is an end before the last entry; or the first denial."""
        self._aws = aws
        self._limits = limits
        self._clock = clock
        self._denied: set[tuple[str, str, str]] = set()

    def run(self, findings: list[Finding], progress: Callable[[Result], None]) -> None:
        """Remove the entries of these findings that are still stale.

        The first denial counts for all nodes, or activations, of the same maker and owner: a policy can tell them
        apart by nothing else. Throttling that outlasts the attempts of each call, and the loss of network or
        credentials, end the run.

        Args:
            findings: what is to be removed.
            progress: called with each result.

        Raises:
            KeyboardInterrupt: as it comes; what is not in `results` was not begun, and the last may say more.
        """
        for finding in findings:
            entry = finding.entry
            self.results.append(Result(entry, LEFT))
            self.results[-1] = result = self._one(entry)
            progress(result)
            if result.outcome == LEFT:
                return

    def _one(self, entry: Entry) -> Result:
        group = (entry.what, entry.maker.name, entry.owner)
        if group in self._denied:
            return Result(entry, FAILED, "access denied")
        try:
            return self._removed(entry)
        except SmsshError as error:
            if error.reference == "access-denied":
                self._denied.add(group)
                self.error = self.error or error
                return Result(entry, FAILED, "access denied")
            if isinstance(error, ServiceRefused) and not error.passing:
                return Result(entry, FAILED, error.message)
            self.error = error
            return self.results[-1] if _leaves_open(error) else Result(entry, LEFT)

    def _removed(self, entry: Entry) -> Result:
        """Look at an entry again, its tags last, and remove it."""
        fate = fate_of(self._aws, *entry.job)
        now = read(self._aws, entry)
        if now is None:
            return Result(entry, GONE, "somebody else removed it")
        if now.tags != entry.tags:
            return Result(entry, KEPT, "its tags have changed")
        finding = judge(now, fate, self._limits, self._clock())
        if not finding.stale:
            return Result(entry, KEPT, finding.reason)
        # From here to the answer nobody can tell, where it does not come.
        self.results[-1] = Result(entry, LEFT, "it may be removed: the service did not say")
        try:
            if entry.what == "node":
                self._aws.call("ssm", "deregister_managed_instance", InstanceId=entry.id)
            else:
                self._aws.call("ssm", "delete_activation", ActivationId=entry.id)
        except ServiceRefused as error:
            if error.code not in _GONE_CODES:
                raise
            return Result(entry, GONE, "the service does not know it any more")
        return Result(entry, REMOVED)


def _leaves_open(error: SmsshError) -> bool:
    """Whether a removal may be done all the same: nobody answered, or a service that failed in the middle."""
    if isinstance(error, ServiceRefused):
        return error.code not in THROTTLED
    return error.reference == "aws-unreachable"
