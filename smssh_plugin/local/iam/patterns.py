"""Texts of policies as patterns: wildcards, policy variables, ARNs.

Facts: IAM user guide, "IAM JSON policy elements: Resource", "Variables and tags", "Condition operators".
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Pattern", "variables_in"]

_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_DEFAULT = re.compile(r"([^,]*?)\s*,\s*'(.*)'")
_LITERALS = ("*", "?", "$")
"""What `${*}`, `${?}` and `${$}` stand for: themselves."""
_SEGMENTS = 6
"""Parts of an ARN: arn, partition, service, region, account, resource."""


class Pattern:
    """A text of a policy, with its wildcards and variables.

    Args:
        text: as it stands in the policy.
        variables: whether `${...}` in it is a variable.

    Raises:
        ValueError: a variable that is not closed or has no name.
    """

    def __init__(self, text: str, *, variables: bool) -> None:
        self.text = text
        self._parts: list[tuple[str, bool]] = []
        """Texts, and whether each is the inside of a variable."""
        if not variables:
            self._parts.append((text, False))
            return
        end = 0
        for found in _VARIABLE.finditer(text):
            if not found[1].strip():
                raise ValueError(f"{text!r} has a variable without a name")
            self._parts += [(text[end : found.start()], False), (found[1].strip(), True)]
            end = found.end()
        self._parts.append((text[end:], False))
        if any("${" in part for part, variable in self._parts if not variable):
            raise ValueError(f"{text!r} has a variable that is not closed")

    @property
    def variables(self) -> list[str]:
        """The keys that its variables name."""
        return [_key(part)[0] for part, variable in self._parts if variable and part not in _LITERALS]

    def filled(self, lookup: Callable[[str], str | None]) -> str | None:
        """The text with the values of its variables; None where one has no value, which equals nothing."""
        filled = self._tokens(lookup)
        return None if filled is None else "".join(text for text, _ in filled)

    def matches(self, value: str, lookup: Callable[[str], str | None], *, any_case: bool = False) -> bool:
        """Whether a value is like it. Wildcards in the values of variables stand for themselves."""
        tokens = self._tokens(lookup)
        return tokens is not None and _compiled(tuple(tokens), any_case).fullmatch(value) is not None

    def matches_arn(self, value: str, lookup: Callable[[str], str | None]) -> bool:
        """Whether an ARN is like it, each of its six parts by itself; parts that the pattern lacks are any.

        A colon in the value of a variable divides nothing.
        """
        tokens = self._tokens(lookup)
        if tokens is None:
            return False
        if tokens == [("*", False)]:
            return True
        wanted = [tuple(segment) for segment in _segments(tokens)]
        wanted += [(("*", False),)] * (_SEGMENTS - len(wanted))
        found = value.split(":", _SEGMENTS - 1)
        return len(found) == len(wanted) and all(
            _compiled(segment, False).fullmatch(text) is not None
            for segment, text in zip(wanted, found, strict=True)
        )

    def _tokens(self, lookup: Callable[[str], str | None]) -> list[tuple[str, bool]] | None:
        """Texts, and whether each stands for itself."""
        tokens = []
        for part, variable in self._parts:
            if not variable:
                if part:
                    tokens.append((part, False))
                continue
            if part in _LITERALS:
                tokens.append((part, True))
                continue
            key, default = _key(part)
            value = lookup(key)
            value = default if value is None else value
            if value is None:
                return None
            tokens.append((value, True))
        return tokens


def variables_in(text: str) -> list[str]:
    """The keys that the variables of a text name."""
    return Pattern(text, variables=True).variables


def _key(inside: str) -> tuple[str, str | None]:
    """The key of a variable, and its default if it has one: `${key, 'default'}`."""
    found = _DEFAULT.fullmatch(inside)
    return (found[1].strip(), found[2]) if found else (inside, None)


def _segments(tokens: list[tuple[str, bool]]) -> Iterator[list[tuple[str, bool]]]:
    """The parts of a pattern for an ARN; what is behind the fifth colon is one part."""
    segment: list[tuple[str, bool]] = []
    left = _SEGMENTS - 1
    for text, literal in tokens:
        if literal:
            segment.append((text, True))
            continue
        pieces = text.split(":", left)
        left -= len(pieces) - 1
        for piece in pieces[:-1]:
            yield [*segment, (piece, False)]
            segment = []
        segment.append((pieces[-1], False))
    yield segment


@lru_cache(maxsize=4096)
def _compiled(tokens: tuple[tuple[str, bool], ...], any_case: bool) -> re.Pattern[str]:
    written = "".join(
        re.escape(text) if literal else re.escape(text).replace(r"\*", ".*").replace(r"\?", ".")
        for text, literal in tokens
    )
    return re.compile(written, re.DOTALL | (re.IGNORECASE if any_case else 0))
