"""How errors and hints read, over every one in the package; CONTRIBUTING.md has the rule.

An error starts in lower case, names what is wrong and has no final period; a hint says what to do.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("dev_messages", ROOT / "dev" / "messages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


MESSAGES = _load()

NAMES = ("AWS", "Amazon", "Containers", "IAM", "KMS", "OpenSSH", "SageMaker", "Systems")
"""What an error may begin with in upper case, a member of a request among them."""
BANNED = re.compile(
    r"\b(is|are) none\b|whoever|\bwhom\b|to be had|cannot be had|\b(not )?so is\b|(?<!here )\bis no (?!longer|more)",
    re.IGNORECASE,
)
"""What CONTRIBUTING.md's "How it reads" has other words for; "there is no ..." is plain."""
VERBS = re.compile(
    "(add|allow|ask|begin|call|change|check|choose|connect|declare|decorate|find|get|give|increase|install|leave|let|log|look|make|"
    "move|name|open|pass|put|reinstall|remove|rename|renew|replace|report|retry|run|see|set|shorten|start|stop|submit|"
    "switch|take|try|turn|unset|update|upsert|use|wait|write)"
)
"""The verbs that hints begin with."""


# Read when a test asks, and not by every worker that collects this file.
@pytest.fixture(scope="module")
def everything() -> list[Any]:
    return list(MESSAGES.messages([ROOT / room for room in MESSAGES.ROOMS]))


@pytest.fixture(scope="module")
def ours(everything: list[Any]) -> list[Any]:
    """The local emulator says most of its errors in the words of the services that it stands for."""
    return [
        each
        for each in everything
        if each.kind in ("error", "hint") and not each.file.startswith("smssh_plugin/local/")
    ]


def place(message: Any) -> str:
    return f"{message.file}:{message.line}: {message.text}"


def test_there_is_something_to_read(everything: list[Any], ours: list[Any]) -> None:
    kinds = {each.kind for each in everything}
    assert kinds == {"error", "hint", "warning", "help", "log", "print"}
    assert len(ours) > 300


def test_errors_and_hints_begin_in_lower_case_and_end_without_a_period(ours: list[Any]) -> None:
    wrong = []
    for each in ours:
        first = each.text.split()[0].replace("'s", "")
        if first[0].isupper() and not re.search(r"[A-Z_(.=]", first[1:]) and first not in NAMES:
            wrong.append(place(each))
        if each.text.endswith(".") and not each.text.endswith("..."):
            wrong.append(place(each))
    assert wrong == []


def test_a_hint_says_what_to_do(ours: list[Any]) -> None:
    wrong = []
    for each in ours:
        if each.kind != "hint" or each.text.startswith("{}"):
            continue
        # "if it stays so, check ...": a condition may come first.
        said = re.sub(r"^(if|where|unless|once|when) .*?, ", "", each.text)
        if not VERBS.fullmatch(said.split()[0].strip(":")):
            wrong.append(place(each))
    assert wrong == []


def test_words_that_make_one_stop(everything: list[Any]) -> None:
    wrong = [place(each) for each in everything if BANNED.search(each.text)]
    assert wrong == []


def test_references_are_in_kebab_case() -> None:
    found = {}
    for room in MESSAGES.ROOMS:
        for file in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if (
                    isinstance(node, ast.keyword)
                    and node.arg == "reference"
                    and isinstance(node.value, ast.Constant)
                ):
                    found[node.value.value] = f"{file.relative_to(ROOT)}:{node.value.lineno}"
    assert len(found) > 50
    assert {
        name: where
        for name, where in found.items()
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name or "x")
    } == {}


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ('SmsshError("It failed.", hint="it needs x")', ["error", "hint"]),
        ('log.info("%s came" % name)', ["log"]),
        ('raise click.UsageError("a" if x else f"{b} c")', ["error", "error"]),
    ],
)
def test_the_list_sees_every_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, kinds: list[str]
) -> None:
    monkeypatch.setattr(MESSAGES, "ROOT", tmp_path)
    (tmp_path / "code.py").write_text(text)
    assert [each.kind for each in MESSAGES.messages([tmp_path])] == kinds
