"""Python sources without what an interpreter does not need: comments, docstrings, types of functions, most spaces.

Containers compile our modules anew at each start, out of an archive that is stored uncompressed; what is not in it
need not be uploaded, mounted and read. Line numbers stay, so that tracebacks are right. What is left is decided by
`tokenize` alone: which tokens there are, and where, is the language's affair, so the result is the same under every
version of Python (an abstract syntax tree and its unparsing are not).
"""

from __future__ import annotations

import io
import token
import tokenize
from typing import Iterator

__all__ = ["slim"]

# Python 3.12 and later see the parts of an f-string, those before see one string.
_OPENS = {getattr(token, name, None) for name in ("FSTRING_START", "TSTRING_START")} - {None}
_CLOSES = {getattr(token, name, None) for name in ("FSTRING_END", "TSTRING_END")} - {None}
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_BRACKETS = _OPENING | _CLOSING
_NOTHING = (tokenize.COMMENT, tokenize.NL, token.INDENT, token.DEDENT, token.ENDMARKER)


def slim(source: bytes) -> bytes:
    """The same program in fewer bytes: the same syntax tree and lines, but for docstrings and types of functions.

    The docstrings are empty; the types of parameters and results are not there. Those of a class's fields stay, which
    make a dataclass.

    Args:
        source: a module, UTF-8.

    Raises:
        tokenize.TokenError, SyntaxError: it is no Python.
    """
    text = source.decode("utf-8")
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    rows = ["", *text.split("\n")]  # tokenize counts rows from 1
    cuts: list[tuple[tuple[int, int], tuple[int, int], str]] = []
    depths: dict[int, int] = {}
    within: set[int] = set()  # rows that begin inside a string: their spaces belong to it
    opening: set[int] = set()  # rows that end inside a string: so do these
    strings: list[int] = []
    depth, begins = 0, True
    annotations = dict(_annotations(tokens))
    until = -1  # the token after an annotation that goes
    before: tokenize.TokenInfo | None = None
    for index, each in enumerate(tokens):
        if each.type == tokenize.COMMENT:
            cuts.append((each.start, each.end, ""))
        depth += (each.type == token.INDENT) - (each.type == token.DEDENT)
        if each.type in _NOTHING:
            continue
        if index in annotations and before is not None:
            until = annotations[index]
            if tokens[until].start[0] != before.end[0]:
                until = index  # what follows would come to another row
        if index < until:
            continue
        if before is not None and (index == until or (not strings and _need_no_space(before, each))):
            cuts.append((before.end, each.start, ""))
        first = last = each.start[0]
        if begins:
            depths[first] = depth
        if begins and each.type == token.STRING and _ends(tokens, index):
            cuts.append((each.start, each.end, '""'))
        elif each.type == token.STRING:
            last = each.end[0]
        elif each.type in _OPENS:
            strings.append(first)
        elif each.type in _CLOSES:
            first, last = strings.pop(), each.end[0]
        within.update(range(first + 1, last + 1))
        opening.update(range(first, last))
        begins = each.type == token.NEWLINE
        before = None if begins else each
    for (row, column), (last, end), new in reversed(cuts):
        rows[row] = rows[row][:column] + new + rows[last][end:]
        rows[row + 1 : last + 1] = [""] * (last - row)
    for row in set(range(len(rows))) - within:
        kept = rows[row].lstrip() if row in opening else rows[row].strip()
        rows[row] = " " * depths.get(row, 0) + kept if kept else ""
    return "\n".join(rows[1:]).encode("utf-8")


def _need_no_space(one: tokenize.TokenInfo, other: tokenize.TokenInfo) -> bool:
    """Whether two tokens that follow each other on one row stay two without the spaces between them."""
    if one.end[0] != other.start[0] or one.end == other.start or token.NEWLINE in (one.type, other.type):
        return False
    if one.type == token.OP == other.type:
        return one.string in _BRACKETS or other.string in _BRACKETS or one.string in ",=:"
    # 1 .real is not 1.real.
    return one.type == token.OP or (other.type == token.OP and not other.string.startswith("."))


def _annotations(tokens: list[tokenize.TokenInfo]) -> Iterator[tuple[int, int]]:
    """The types of functions: the token that each begins with, and the one that follows it."""
    for index, each in enumerate(tokens):
        if each.type != token.NAME or each.string != "def" or tokens[index + 2].string != "(":
            continue
        depth, start, default = 0, 0, False
        for number in range(index + 2, len(tokens)):
            text = tokens[number].string if tokens[number].type == token.OP else ""
            depth += (text in _OPENING) - (text in _CLOSING)
            ends = (1, ","), (1, "="), (0, ")")
            if start and (depth, text) in (((0, ":"),) if tokens[start].string == "->" else ends):
                yield start, number
                start = 0
            if (depth, text) == (0, ":"):
                break
            if (depth, text) in ((1, ","), (1, "=")):
                default = text == "="  # a colon in it is a lambda's
            elif (depth, text) == (0, "->") or ((depth, text) == (1, ":") and not default):
                start = number


def _ends(tokens: list[tokenize.TokenInfo], index: int) -> bool:
    """Whether a token is the last one of its statement."""
    following = (each.type for each in tokens[index + 1 :] if each.type != tokenize.COMMENT)
    return next(following) == token.NEWLINE
