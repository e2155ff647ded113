"""Every error of the package by its reference, with its messages and hints as they stand in the code.

    python3 dev/error_list.py

docs/errors.md has the list when the site is built, so that it is never another one than the code's. What is computed is
shown as "...".
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Iterator, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
from messages import ROOMS, ROOT, texts

REFUSE = ("refuse", 1, 2, 3)
"""The function of requests that takes these by position: the problem, the way out and the reference."""


class Error(NamedTuple):
    """One place in the code that makes an error.

    Attributes:
        reference: its name, in kebab case.
        messages: what it can say.
        hints: what it can say to do.
    """

    reference: str
    messages: tuple[str, ...]
    hints: tuple[str, ...]


def errors() -> dict[str, list[Error]]:
    """The errors by their reference, in alphabetical order."""
    found: dict[str, list[Error]] = {}
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                for error in _of_class(node) if isinstance(node, ast.ClassDef) else _of_call(node):
                    found.setdefault(error.reference, []).append(error)
    return dict(sorted(found.items()))


def _of_call(node: ast.AST) -> Iterator[Error]:
    if not isinstance(node, ast.Call):
        return
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    given = {each.arg: each.value for each in node.keywords}
    if name == REFUSE[0] and len(node.args) > REFUSE[3]:
        problem, way_out, reference = (node.args[place] for place in REFUSE[1:])
    elif "reference" in given:
        first = node.args[0] if node.args else None
        problem, way_out, reference = given.get("message", first), given.get("hint"), given["reference"]
    else:
        return
    for text in texts(reference):
        if "{}" not in text:
            yield Error(text, _shown(problem), _shown(way_out))


def _of_class(node: ast.ClassDef) -> Iterator[Error]:
    for each in node.body:
        if isinstance(each, ast.Assign) and getattr(each.targets[0], "id", "") == "reference":
            (text,) = texts(each.value)
            summary = (ast.get_docstring(node) or "").partition("\n")[0]
            yield Error(text, (summary.rstrip("."),), ())


def _shown(node: ast.AST | None) -> tuple[str, ...]:
    found = texts(node) if isinstance(node, ast.expr) else ()
    return tuple(re.sub(r"(?:\{\})+", "...", text) for text in found if text.strip("{}. :"))


if __name__ == "__main__":
    for reference, places in errors().items():
        print(reference)
        for place in places:
            print(
                *(f"  {text}" for text in place.messages),
                *(f"    hint: {text}" for text in place.hints),
                sep="\n",
            )
