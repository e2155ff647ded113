"""Comments, docstrings and the names of tests: the words of CONTRIBUTING.md's "How it reads"."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("benchmarks", "dev", "entrypoints", "examples", "hooks", "smssh_plugin", "tests")
NOT_PLAIN = re.compile(
    r"\b(?:(?:is|are|was|were) (?-i:none)|who(?:so)?ever|whom|to be had|not so|so (?:is|are)|thereby|whereby|hence|"
    r"hitherto|shall|whilst|amongst|but for)\b"
    r"|(?<!there )(?<!here )\b(?:is|are|was|were) no (?!longer|more)",
    re.IGNORECASE,
)
"""Forms that plain technical English has other words for: "None if there is no host", "is not a number"."""
QUOTES = {Path(__file__).name, "test_docs.py", "test_messages.py"}
"""Files that name the forms in order to refuse them."""


def texts(source: str) -> Iterator[tuple[int, str]]:
    """The lines of comments and docstrings, those of attributes too, with their numbers; lines in a row are joined."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield node.lineno, re.sub(r"``?[^`]*``?", "", " ".join(node.value.value.split()))
    before, line, joined = -1, 0, ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if token.start[0] != before + 1:
            yield line, joined
            line, joined = token.start[0], ""
        joined += " " + token.string.lstrip("# ")
        before = token.start[0]
    yield line, joined


@pytest.mark.parametrize("room", ROOMS)
def test_comments_and_docstrings_are_plain_english(room: str) -> None:
    wrong = []
    for path in sorted((ROOT / room).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        # Most files have nothing of the kind, and to take one apart takes time.
        if path.name not in QUOTES and NOT_PLAIN.search(re.sub(r"\n[\s#]*", " ", source)):
            wrong += [
                f"{path.relative_to(ROOT)}:{line}: {text[max(0, found.start() - 40) : found.end() + 20]}"
                for line, text in texts(source)
                for found in NOT_PLAIN.finditer(text)
            ]
    assert wrong == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ('"""The host; None where there is none."""', 1),
        ("x = 1\n'''A port that\nis none.'''\n", 1),
        ("# Whoever may\n# start it\n", 1),
        ("# what is no\n# number\n", 1),
        ("# there is no number, and this is no longer one\n", 0),
        ('"""`is none` is quoted."""', 0),
        ("x = 'whoever'  # a value\n", 0),
    ],
)
def test_what_is_found(source: str, count: int) -> None:
    assert sum(len(NOT_PLAIN.findall(text)) for _, text in texts(source)) == count
