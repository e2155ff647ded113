"""What others wrote is shown as text: no sequence, no forged line, no command of a CI system is left in it."""

from __future__ import annotations

import ast
import io
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smssh_plugin.errors import SmsshError
from smssh_plugin.streams import LONGEST_LINE, Lines
from smssh_plugin.submit.options import SmsshWarning
from smssh_plugin.terminal import block, line

ROOT = Path(__file__).resolve().parents[1]

SHOWN = [
    ("\x1b]52;c;aGFja2Vk\x07", r"\x1b]52;c;aGFja2Vk\x07"),
    ("done\x1b[2K\rerror: gone", "done\\x1b[2K\nerror: gone"),
    ("\x1b[1;31mred\x1b[0m", "red"),
    ("\x1b[\x1b[31m31m", r"\x1b[31m"),
    ("\x9b2Kold\x90DCS\x9c", r"\u009b2Kold\u0090DCS\u009c"),
    ("name\u202egpj.exe\u2066\u200b", r"name\u202egpj.exe\u2066\u200b"),
    ("half \ud800, tag \U000e0041, \x7f", r"half \ud800, tag \U000e0041, \u007f"),
    ("a\r\nb\rc\td", "a\nb\nc\td"),
    ("a\u2028b\x85c\x0bd", r"a\u2028b\u0085c\x0bd"),
    (
        "##vso[task.setvariable]x ##[add-mask]y ##teamcity[z",
        "# #vso[task.setvariable]x # #[add-mask]y # #teamcity[z",
    ),
    ("::set-env name=PATH::x\n \t::error::y", ": :set-env name=PATH::x\n \t: :error::y"),
    ("\x1b[31m::error::x ##\x1b[0m[y]", ": :error::x # #[y]"),
    ("std::vector ## heading\n::\n:: x", "std::vector ## heading\n::\n:: x"),
    ("Zoë 日本語 👩\u200d🚀 a\u00a0b", "Zoë 日本語 👩\u200d🚀 a\u00a0b"),
]


@pytest.mark.parametrize(("text", "shown"), SHOWN)
def test_text(text: str, shown: str) -> None:
    assert block(text) == shown
    assert block(shown) == shown
    assert "\n" not in line(text)
    assert "\t" not in line(text)


@given(st.text(st.characters() | st.sampled_from("\x1b[]m31;\x9b\r\n#:\u202e"), max_size=60))
def test_any_text(text: str) -> None:
    shown = block(text)
    assert block(shown) == shown
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"]
    assert not re.search("##\\[|(?m:^\\s*::[a-z]+::)", shown)
    assert len(shown.splitlines()) <= len(text.splitlines())
    shown.encode()


@given(
    st.text(st.characters(categories=["L", "N", "P", "S", "M"]), max_size=60).filter(
        lambda t: "##" not in t and "::" not in t
    )
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert block(text) == text
    assert line(text) == text


@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_a_stream_is_shown_alike_however_it_comes(data: bytes, cuts: list[int]) -> None:
    data = data.replace(b"\r", b"")
    out = io.StringIO()
    lines = Lines(out)
    at = 0
    for cut in sorted(cuts):
        lines.feed(data[at:cut])
        at = max(at, cut)
    lines.feed(data[at:], end=True)
    assert out.getvalue() == block(data.decode("utf-8", "replace"))


def test_a_line_that_never_ends_is_shown_and_not_kept() -> None:
    out = io.StringIO()
    lines = Lines(out)
    for _ in range(10):
        lines.feed(b"#" * (LONGEST_LINE // 2))
    lines.feed(b"[error]")
    assert len(out.getvalue()) > 4 * LONGEST_LINE
    lines.feed(b"", end=True)
    assert "##[" not in out.getvalue()


def test_errors_and_warnings_are_safe_wherever_they_are_shown() -> None:
    error = SmsshError("no \x1b[2Kjob", hint="ask \x9b")
    assert str(error) == "no \\x1b[2Kjob\n  hint: ask \\u009b"
    assert str(SmsshWarning("step 'a\x1b]0;x\x07'")) == r"step 'a\x1b]0;x\x07'"


WRITERS = {"print", "echo", "secho", "write"}
RAW = {
    # What is printed there is JSON in ASCII, our own words, a file of ours, or bytes that the user asked for.
    "smssh_plugin/cli/__init__.py",
    "smssh_plugin/cli/certify.py",
    "smssh_plugin/cli/local.py",
    "smssh_plugin/cli/ssh_config.py",
    "smssh_plugin/keys.py",
    "smssh_plugin/session/forward.py",
    "smssh_plugin/submit/bundle/store.py",
    "smssh_plugin/submit/bundle/wheels.py",
    "smssh_plugin/terminal.py",
}


def test_what_is_printed_goes_through_here() -> None:
    """A new print has to be one of `put`, `line`, `block` or JSON, or its file is looked at and named above."""
    found = set()
    for folder in ("cli", "client", "debug", "session", "setup", "submit", "aws", "."):
        for path in (ROOT / "smssh_plugin" / folder).glob("*.py"):
            name = str(path.relative_to(ROOT))
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and name not in RAW and _writes(node) and not _safe(node):
                    found.add(f"{name}:{node.lineno}: {ast.unparse(node)}")
    assert not found


def _writes(call: ast.Call) -> bool:
    text = ast.unparse(call.func)
    if text == "print" or text in ("click.echo", "click.secho", "echo"):
        return True
    return text.endswith(".write") and text.rpartition(".")[0] in ("sys.stdout", "sys.stderr")


def _safe(call: ast.Call) -> bool:
    shown = ast.unparse(call.args[0]) if call.args else "''"
    return bool(re.match("json.dumps\\(|['\"]", shown)) or "line(" in shown or "block(" in shown
