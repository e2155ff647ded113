"""Which causes of the table fit a text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from .table import CAUSES, Cause, Sign

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .parse import Raised

__all__ = ["LIKELY", "SURE", "TOOLKIT", "Match", "best", "everything", "of_exception", "of_tail", "strongest"]

SURE = 3
"""The weight from which on a sign proves its cause."""
LIKELY = 2
"""The weight from which on a cause is named."""
TEXT_LIMIT = 20_000
"""Characters of a text in which signs are searched for."""
AFTER_A_LINE = 12
"""Lines of other output after which a line of a log proves nothing any more."""

TOOLKIT = re.compile(
    r"(?i)\s*$|.*(?:sagemaker.{0,3}(?:training|containers)|Reporting training|\bINFO\b|\bDEBUG\b)|ExitCode|ErrorMessage"
    r"|Command \"|smssh:|\s*\"$|ExecuteUserScriptError"
)
"""Lines that say nothing of an error."""
_GROUP = re.compile(r"\{(\w+)(?:\|([^}]*))?\}")


class Match(NamedTuple):
    """A cause that fits.

    Attributes:
        cause: which.
        sign: by what.
        sentence: what happened, with the words of the text.
        weight: the sign's, or less where the text may be another matter's.
        text: the line that has the sign, of a log; "" for others.
    """

    cause: Cause
    sign: Sign
    sentence: str
    weight: int
    text: str = ""


def everything(where: str, text: str) -> list[Match]:
    """Each cause that fits, with its best sign there, in the order of the table."""
    found = []
    for cause in CAUSES:
        strong: Match | None = None
        for sign in cause.signs:
            if sign.where == where and (strong is None or sign.weight > strong.weight):
                at = sign.regex.search(text[:TEXT_LIMIT])
                if at is not None:
                    sentence = _filled(sign.sentence or cause.sentence, at.groupdict(), cause.sentence)
                    strong = Match(cause, sign, sentence, sign.weight)
        if strong is not None:
            found.append(strong)
    return found


def best(where: str, text: str) -> Match | None:
    """The cause that fits best, of several the first one of the table."""
    return max(everything(where, text), key=lambda match: match.weight, default=None)


def strongest(matches: Iterable[Match]) -> Match | None:
    """The first one with the greatest weight, if that is enough to name it."""
    found = max(matches, key=lambda match: match.weight, default=None)
    return found if found is not None and found.weight >= LIKELY else None


def of_exception(raised: Raised, *, whole: bool) -> list[Match]:
    """The causes that fit an exception.

    Args:
        raised: the exception.
        whole: whether the lines after its first one are its message for certain; in a log they may be other output.
    """
    found = everything("error", raised.title)
    if raised.more:
        known = {match.cause.id for match in found}
        message = "\n".join([raised.title, *raised.more])
        more = [match for match in everything("error", message) if match.cause.id not in known]
        found += more if whole else [match._replace(weight=min(match.weight, LIKELY)) for match in more]
    return found


def of_tail(tail: Sequence[str]) -> list[Match]:
    """The causes that fit one of the last lines of a log, the strongest first, of those the first one of the table.

    What much other output follows was survived, as far as can be told.
    """
    found: dict[str, Match] = {}
    after = 0
    for text in reversed(tail):
        for match in everything("log", text) if text.strip() else ():
            weight = match.weight if after <= AFTER_A_LINE else min(match.weight, LIKELY)
            if match.cause.id not in found or found[match.cause.id].weight < weight:
                found[match.cause.id] = match._replace(weight=weight, text=text.strip())
        after += TOOLKIT.match(text) is None
    places = {cause.id: place for place, cause in enumerate(CAUSES)}
    return sorted(found.values(), key=lambda match: (-match.weight, places[match.cause.id]))


def _filled(sentence: str, groups: dict[str, str | None], otherwise: str) -> str:
    """A sentence with its groups; the cause's own sentence where one is missing that has no other word."""
    words = {name: (value or "").strip(" ,.;:") for name, value in groups.items()}
    for name, default in _GROUP.findall(sentence):
        if not words.get(name) and not default:
            return otherwise
    return _GROUP.sub(lambda found: words.get(found[1]) or found[2] or "", sentence)
