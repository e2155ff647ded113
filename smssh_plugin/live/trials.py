"""One call that should be allowed or denied, and what AWS said; several of them make an answer."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..aws.json_client import denied
from ..aws.session import ServiceRefused
from ..errors import SmsshError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .place import Place

__all__ = [
    "STRANGER",
    "Answer",
    "Trial",
    "Verdict",
    "judged",
    "no",
    "patient",
    "refused",
    "tried",
    "untried",
    "yes",
]

STRANGER = "smssh-live-nobody"
"""An owner that is not the run's."""

_BY_OTHERS = re.compile(
    r"(?:service|resource) control policy|permissions boundary|VPC endpoint policy|resource-based policy"
)
"""The words of AWS for policies that are not of the run."""
UNSURE = frozenset({"TargetNotConnected", "DoesNotExistException", "InvalidSessionId", "BadRequest"})
"""Answers about what a call is for, and not about who asks: what is offline or does not exist."""


class Verdict(str, enum.Enum):
    """How a question is answered."""

    YES = "yes"
    """AWS does what smssh relies on."""
    NO = "no"
    """It does not."""
    UNTRIED = "could not be tried"
    """The calls failed for another reason, or their answers do not tell."""


@dataclass(frozen=True)
class Answer:
    """The answer to a question.

    Attributes:
        verdict: which.
        message: what was found, in one sentence.
        evidence: what AWS answered, one line for each call.
    """

    verdict: Verdict
    message: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """A call that was made to see whether it is allowed.

    Attributes:
        what: what was tried, as the end of "allowed: ...".
        expected: whether it should be allowed.
        allowed: whether it was; None if the answer does not tell.
        said: what AWS answered.
    """

    what: str
    expected: bool
    allowed: bool | None
    said: str

    @property
    def line(self) -> str:
        """As evidence."""
        outcome = {True: "allowed", False: "denied", None: "unclear"}[self.allowed]
        return f"{outcome}: {self.what}" + (f": {self.said}" if self.said else "")


def yes(message: str, *evidence: str) -> Answer:
    """AWS does what smssh relies on."""
    return Answer(Verdict.YES, message, evidence)


def no(message: str, *evidence: str) -> Answer:
    """It does not."""
    return Answer(Verdict.NO, message, evidence)


def untried(message: str, *evidence: str) -> Answer:
    """It could not be tried."""
    return Answer(Verdict.UNTRIED, message, evidence)


def tried(what: str, call: Callable[[], object], *, offline: bool = False) -> Trial:
    """Make a call that should be allowed.

    Args:
        what: see `Trial`.
        call: makes it.
        offline: whether it is about a node that is not online: that answer comes after the permission was looked at,
            as far as another call is denied.

    Raises:
        SmsshError: the call failed for a reason that has nothing to do with permissions.
    """
    allowed, said, code = _made(call)
    return Trial(what, True, True if code and offline else None if code else allowed, said)


def refused(action: str, what: str, call: Callable[[], object]) -> Trial:
    """Make a call that should be denied.

    Args:
        action: what for; a denial of another action does not tell.
        what: see `Trial`.
        call: makes it.

    Raises:
        SmsshError: the call failed for a reason that has nothing to do with permissions.
    """
    allowed, said, code = _made(call)
    named = denied(said)
    other = allowed is False and named is not None and named[0] != action
    return Trial(what, False, None if code or other else allowed, said)


def patient(place: Place, call: Callable[[], object]) -> Callable[[], object]:
    """Makes a call that should be allowed, again while it is denied: policies and tags take a moment."""
    return lambda: place.patiently("access-denied", call)


def _made(call: Callable[[], object]) -> tuple[bool | None, str, str]:
    """Whether a call was allowed, what AWS said, and the code if that is about what the call is for."""
    try:
        call()
    except ServiceRefused as error:
        if error.code not in UNSURE:
            raise
        return None, error.message, error.code
    except SmsshError as error:
        if error.reference != "access-denied":
            raise
        # What others' policies deny says nothing of ours.
        return (None if _BY_OTHERS.search(error.message) else False), error.message, ""
    return True, "", ""


def judged(trials: Sequence[Trial], message: str) -> Answer:
    """The answer that trials make: yes if all are as expected.

    Args:
        trials: in order.
        message: what is so then.
    """
    evidence = tuple(each.line for each in trials)
    wrong = next((each for each in trials if each.allowed is (not each.expected)), None)
    if wrong is not None:
        return Answer(Verdict.NO, f"{'denied' if wrong.expected else 'allowed'}: {wrong.what}", evidence)
    unclear = next((each for each in trials if each.allowed is None), None)
    if unclear is not None:
        why = "the answer does not tell whether smssh's policies allow it"
        return Answer(Verdict.UNTRIED, f"{unclear.what}: {why}", evidence)
    return Answer(Verdict.YES, message, evidence)
