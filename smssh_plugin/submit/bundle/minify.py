"""Sources without what an interpreter does not need: comments, docstrings, what is for type checkers, most spaces.

Containers compile our modules anew at each start, out of an archive that is stored uncompressed. Without this, a bundle
has 638,000 bytes instead of 351,000, and the imports before the entry point take 5 to 8 % more processor time; without
comments and docstrings alone, 466,000 bytes, and hardly less time than with them (CPython 3.11).

Line numbers stay, so that tracebacks are right. What is left is decided by `tokenize` alone: which tokens there are,
and where, is the language's affair, so the result is the same under every version of Python (an abstract syntax tree
and its unparsing are not).
"""

from __future__ import annotations

import ast
import io
import keyword
import token
import tokenize
from typing import Iterator

__all__ = ["minify", "minify_shell"]

# Python 3.12 and later see the parts of an f-string, those before see one string.
_OPENS = {getattr(token, name, None) for name in ("FSTRING_START", "TSTRING_START")} - {None}
_CLOSES = {getattr(token, name, None) for name in ("FSTRING_END", "TSTRING_END")} - {None}
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_BRACKETS = _OPENING | _CLOSING
FUTURE = "from __future__ import annotations"
"""Goes where no types are left."""
_NOTHING = (tokenize.COMMENT, tokenize.NL, token.INDENT, token.DEDENT, token.ENDMARKER)


def minify(source: bytes) -> bytes:
    """The same program in fewer bytes: the same syntax tree and lines, but for docstrings and types.

    Types of functions and variables go, and what a module does `if TYPE_CHECKING:`. Types of a class's fields
    stay, which make a dataclass.

    Args:
        source: a module, UTF-8.

    Raises:
        tokenize.TokenError, SyntaxError: it is no Python.
    """
    text = _without_unneeded(source.decode("utf-8"))
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
        docstring = begins and each.type == token.STRING and _ends(tokens, index)
        if docstring:
            cuts.append((each.start, each.end, '""'))
        if each.type == token.STRING and not docstring:
            last = each.end[0]
        elif each.type in _OPENS:
            strings.append(first)
        elif each.type in _CLOSES:
            first, last = strings.pop(), each.end[0]
        within.update(range(first + 1, last + 1))
        opening.update(range(first, last))
        begins = each.type == token.NEWLINE
        before = None if begins else each
    _cut(rows, cuts)
    for row in set(range(len(rows))) - within:
        kept = rows[row].lstrip() if row in opening else rows[row].strip()
        rows[row] = " " * depths.get(row, 0) + kept if kept else ""
    return _without_typing("\n".join(rows[1:])).encode("utf-8")


def _cut(rows: list[str], cuts: list[tuple[tuple[int, int], tuple[int, int], str]]) -> None:
    """Put texts in the places of others, which end on the same row or a later one."""
    for (row, column), (last, end), new in reversed(cuts):
        rows[row] = rows[row][:column] + new + rows[last][end:]
        rows[row + 1 : last + 1] = [""] * (last - row)


def _without_typing(text: str) -> str:
    """The text without what was imported, or set, for types that are there no more."""
    tree = ast.parse(text)
    rows = text.split("\n")
    nodes = list(ast.walk(tree))
    used = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    typed = any(map(_has_types, nodes))
    for node in tree.body:
        alone = node.end_lineno == node.lineno and len(rows[node.lineno - 1]) == node.end_col_offset
        if isinstance(node, ast.ImportFrom) and node.module == "typing" and alone:
            names = [each.name for each in node.names if each.name in used]
            if all(each.asname is None for each in node.names):
                rows[node.lineno - 1] = f"from typing import {','.join(names)}" if names else ""
        elif (rows[node.lineno - 1] == FUTURE and not typed and alone) or (
            rows[node.lineno - 1] == "TYPE_CHECKING=False" and "TYPE_CHECKING" not in used
        ):
            rows[node.lineno - 1] = ""
    return "\n".join(rows)


def _has_types(node: ast.AST) -> bool:
    names = ("annotation", "returns")
    return any(getattr(node, name, None) is not None for name in names)


def minify_shell(source: bytes) -> bytes:
    """The same script without the lines that are comments, but for its first."""
    first, *rest = source.split(b"\n")
    return b"\n".join([first, *(line for line in rest if not line.lstrip().startswith(b"#"))])


def _without_unneeded(text: str) -> str:
    """The text without statements that do nothing in a container, and without the types of local variables.

    Those are strings that stand alone where something else does not, what a module does `if TYPE_CHECKING:`, and
    `__all__`. In their place are empty lines, so only what has lines of its own goes.
    """
    rows = [row.encode() for row in text.split("\n")]  # the tree counts bytes
    tree = ast.parse(text)
    gone: list[ast.stmt] = []
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                unneeded = [each for each in block if _is_unneeded(each, node is tree)]
                gone += unneeded if len(unneeded) < len(block) else unneeded[1:]
    for local in _locals(tree):
        kept, last = rows[local.lineno - 1], local.annotation.end_lineno
        equals = kept.find(b"=", local.annotation.end_col_offset)
        if local.lineno == local.target.end_lineno == last and equals > 0:
            rows[local.lineno - 1] = kept[: local.target.end_col_offset] + kept[equals:]
    for each in gone:
        last = each.end_lineno or each.lineno
        before, after = (
            rows[each.lineno - 1][: each.col_offset],
            rows[last - 1][each.end_col_offset :].strip(),
        )
        if not before.strip() and (not after or after.startswith(b"#")):
            rows[each.lineno - 1 : last] = [b""] * (last - each.lineno + 1)
    return b"\n".join(rows).decode()


def _is_unneeded(node: ast.stmt, of_module: bool) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    if not of_module:
        return False
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" and not node.orelse
    names = node.targets if isinstance(node, ast.Assign) else []
    return any(isinstance(each, ast.Name) and each.id == "__all__" for each in names)


def _locals(tree: ast.Module) -> Iterator[ast.AnnAssign]:
    """Variables of modules and functions that have types and values; a class's make the fields of a dataclass."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    waiting = [
        each for node in ast.walk(tree) if isinstance(node, (ast.Module, *functions)) for each in node.body
    ]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            yield node
        if not isinstance(node, (ast.ClassDef, *functions)):
            for each in (node, *getattr(node, "handlers", ())):
                waiting += [
                    one for name in ("body", "orelse", "finalbody") for one in getattr(each, name, ())
                ]


def _need_no_space(one: tokenize.TokenInfo, other: tokenize.TokenInfo) -> bool:
    """Whether two tokens that follow each other on one row stay two without the spaces between them."""
    if one.end[0] != other.start[0] or one.end == other.start or token.NEWLINE in (one.type, other.type):
        return False
    if one.type == token.OP == other.type:
        return one.string in _BRACKETS or other.string in _BRACKETS or one.string in ",=:"
    if one.type == token.NAME and other.type == token.STRING and other.string[0] in "\"'":
        return keyword.iskeyword(one.string)  # which no prefix of a string is
    if other.type == token.NAME and (one.type == token.STRING or one.type in _CLOSES):
        return True
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
