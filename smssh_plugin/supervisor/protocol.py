"""What goes over the supervisor's socket: JSON objects, one a line, each bounded by its bytes as they are sent.

A character takes up to 12 bytes there, so no bound on characters or lines is one on a message. Whoever
sends makes its messages fit: what a decision needs is never left out for the sake of what only a person may want to
read. Whoever receives takes LIMIT bytes and no more.

CPython 3.7 and later, standard library only: the job's own interpreter imports this.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False  # typing itself is not imported in the job's interpreters
if TYPE_CHECKING:
    from typing import Any, Mapping, Sequence

__all__ = ["LIMIT", "command", "encode", "environment", "lines", "size", "text"]

LIMIT = 4 << 20
"""Bytes of one message, its newline among them."""
ENVIRONMENT_LIMIT = 2 << 20
"""Bytes of the variables in a message."""
COMMAND_LIMIT = 256 << 10
"""Bytes of a command line in a message."""
LINE_LIMIT = 8000
"""Bytes of one line of a job's output in a message; 200 of them are 1.6 MB."""
TEXT_LIMIT = 64 << 10
"""Bytes of any other text in a message."""
CUT = "..."


def size(value: Any) -> int:
    """How many bytes a value takes in a message."""
    return len(json.dumps(value))  # ASCII


def encode(message: Mapping[str, Any]) -> bytes:
    """The line of a message.

    Raises:
        ValueError: it takes more than LIMIT bytes, or has a number that is none (NaN).
        TypeError: it is not JSON.
    """
    line = json.dumps(message, allow_nan=False).encode() + b"\n"
    if len(line) > LIMIT:
        raise ValueError(f"a message of {len(line)} bytes is more than the {LIMIT} that are taken")
    return line


def text(value: str, limit: int = TEXT_LIMIT, *, last: bool = False) -> str:
    """The first part of a text, or the last one, that takes at most `limit` bytes in a message."""
    while size(value) > limit:
        # What is left may have more bytes a character than the whole: until it fits.
        count = min(len(value) - 1, len(value) * limit // size(value))
        value = value[len(value) - count :] if last else value[:count]
    return value


def lines(values: Sequence[str]) -> list[str]:
    """Lines of output, each cut to LINE_LIMIT bytes."""
    return [text(value, LINE_LIMIT) for value in values]


def command(words: Sequence[str]) -> list[str]:
    """The first words of a command line that take COMMAND_LIMIT bytes; `...` in place of what is left out."""
    kept: list[str] = []
    left = COMMAND_LIMIT
    for word in words:
        cut = text(word, min(left, TEXT_LIMIT))
        kept.append(cut)
        left -= size(cut) + 2
        if cut != word:
            kept[-1] += CUT
        if left <= 2:
            kept.append(CUT)
            break
    return kept


def environment(variables: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Variables that take at most ENVIRONMENT_LIMIT bytes, and the names of those that are left out: the largest."""
    kept = dict(variables)
    if size(kept) <= ENVIRONMENT_LIMIT:
        return kept, []
    sizes = {name: size({name: value}) for name, value in kept.items()}
    total, left_out = sum(sizes.values()), []
    for name in sorted(sizes, key=lambda each: (-sizes[each], each)):
        if total <= ENVIRONMENT_LIMIT:
            break
        total -= sizes[name]
        left_out.append(name)
        del kept[name]
    return kept, left_out
