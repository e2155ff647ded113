"""Every string that a user can see, in the order of the code, to be read from top to bottom.

    python3 dev/messages.py [FOLDER_OR_FILE ...]

Errors, hints, warnings, lines of help, log lines and what is printed, each with its file and line. What is computed is
shown as {}. `tests/test_messages.py` holds the form of errors and hints over the same list.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Iterator, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("smssh_plugin", "hooks", "entrypoints")

CALLS: dict[str, list[tuple[str, int]]] = {
    "SmsshError": [("error", 0)],
    "UsageError": [("error", 0)],
    "RequestWarning": [("warning", 0), ("warning", 1)],
    "warn": [("warning", 0)],
    **{name: [("print", 0)] for name in ("print", "put", "echo", "say", "_say")},
}
"""The names of calls: what their arguments are, by position."""
LOG_METHODS = ("debug", "info", "warning", "error", "exception", "critical")
PARAMETERS = {"message": "error", "problem": "error", "hint": "hint", "remedy": "hint"}
"""Parameters of our own functions that make an SmsshError, and what is passed as them."""
KEYWORDS = {"message": "error", "hint": "hint", "help": "help"}


class Message(NamedTuple):
    """A text, where it stands, and what it is: error, hint, warning, help, log or print."""

    file: str
    line: int
    kind: str
    text: str


def messages(paths: list[Path]) -> Iterator[Message]:
    """The messages of these modules, and of those below these folders."""
    files = sorted(
        {file.resolve() for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])}
    )
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
    makers: dict[str, list[tuple[str, int]]] = {}
    for tree in trees.values():
        makers.update(_makers(tree))
    for file, tree in trees.items():
        found = [
            each for node in ast.walk(tree) if isinstance(node, ast.Call) for each in _of_call(node, makers)
        ]
        for kind, value in sorted(found, key=lambda each: each[1].lineno):
            for text in texts(value):
                yield Message(str(file.relative_to(ROOT)), value.lineno, kind, text)


def _makers(tree: ast.Module) -> dict[str, list[tuple[str, int]]]:
    """Functions of a module that make an SmsshError out of their arguments."""
    found: dict[str, list[tuple[str, int]]] = {}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.FunctionDef)
            and node.returns is not None
            and "SmsshError" in ast.dump(node.returns)
        ):
            names = [each.arg for each in node.args.args if each.arg != "self"]
            places = [(PARAMETERS[name], number) for number, name in enumerate(names) if name in PARAMETERS]
            if places:
                found[node.name] = places
    return found


def _of_call(call: ast.Call, makers: dict[str, list[tuple[str, int]]]) -> Iterator[tuple[str, ast.expr]]:
    name = _name(call.func) or ""
    for kind, place in CALLS.get(name, makers.get(name, [])):
        if len(call.args) > place:
            yield kind, call.args[place]
    for each in call.keywords:
        if each.arg in KEYWORDS:
            yield KEYWORDS[each.arg], each.value
    if (
        isinstance(call.func, ast.Attribute)
        and name in LOG_METHODS
        and "log" in (_name(call.func.value) or "")
    ):
        yield from (("log", each) for each in call.args[:1])


def _name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def texts(node: ast.expr) -> Iterator[str]:
    """The texts that an expression can be; {} for what is computed."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str) and node.value.strip():
            yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(each.value) if isinstance(each, ast.Constant) else "{}" for each in node.values)
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = list(texts(node.left)) or ["{}"], list(texts(node.right)) or ["{}"]
        yield from (one + other for one in left for other in right)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        yield from texts(node.left)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from texts(value)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        yield from texts(node.func.value)


if __name__ == "__main__":
    asked = [Path(each) for each in sys.argv[1:]] or [ROOT / room for room in ROOMS]
    for message in messages(asked):
        print(f"{message.file}:{message.line}: {message.kind}: {message.text}")
