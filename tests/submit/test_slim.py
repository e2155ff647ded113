"""Sources made smaller: the same program on the same lines, whatever stands in them."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import pytest

from smssh_plugin.submit.slim import slim

ROOT = Path(__file__).resolve().parents[2]
OURS = sorted(
    file for name in ("smssh_plugin", "entrypoints", "hooks") for file in (ROOT / name).rglob("*.py")
)


def tree(source: bytes) -> str:
    """The syntax tree with line numbers; strings that stand alone count as empty, types of functions not at all."""
    found = ast.parse(source)
    for node in ast.walk(found):
        value = node.value if isinstance(node, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            value.value = ""
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
            if not getattr(node, "type_params", None):
                for each in ast.walk(node.args):
                    if isinstance(each, ast.arg):
                        each.annotation = None
        for name in ("col_offset", "end_col_offset", "end_lineno"):
            if hasattr(node, name):
                setattr(node, name, 0)
    return ast.dump(found, include_attributes=True)


def test_the_same_program_on_the_same_lines() -> None:
    assert len(OURS) > 100
    for file in OURS:
        source = file.read_bytes()
        made = slim(source)
        assert tree(made) == tree(source), file
        assert slim(made) == made, file


# A tilde is a space where an editor would take it away.
SOURCE = '''\
"""The module."""
import os  # why

VALUE = 1
"""What it is."""


def f(a,  # one
      b=("x"
         "y"), c=[1, \\
  2]):
    """Text.

    More # of it.
    """
    if a:  # "quoted"
        "no docstring, but alone"
        return """kept~~~
        as it # is
    """.strip()
    return f"""{a
        } and # {b!r}~~
   end""" ; "alone";


class C:
    def only(self) -> dict[str, "a: b"] | None: "in one line"

    def rows(self) -> tuple[  # two
        int]: pass

    def typed(self, a: int, *b: "x, y", c: dict[str, int] = {1: 2}, d=lambda e: {e: 1}, **f: (  # two
        int)) -> None: return a, b, c, d(3), f

    def text(self):
        r"""Raw.
        """  # why
        x = "a" \\
            "b"
        return x
'''.replace("~", " ")
SLIMMED = '''\
""
import os

VALUE=1
""


def f(a,
b=("x"
"y"),c=[1, \\
2]):
 ""



 if a:
  ""
  return """kept~~~
        as it # is
    """.strip()
 return f"""{a
        } and # {b!r}~~
   end""";"alone";


class C:
 def only(self):"in one line"

 def rows(self)->tuple[
int]:pass

 def typed(self,a,*b,c={1:2},d=lambda e:{e:1},**f:(
int)):return a,b,c,d(3),f

 def text(self):
  ""

  x="a" \\
"b"
  return x
'''.replace("~", " ")


def test_what_goes_and_what_stays() -> None:
    assert slim(SOURCE.encode()).decode() == SLIMMED
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    exec(SOURCE, before)
    exec(SLIMMED, after)
    for arguments in ((0,), (1,)):
        assert before["f"](*arguments) == after["f"](*arguments)
    assert before["C"]().typed(1, 2, g=4)[:3] == after["C"]().typed(1, 2, g=4)[:3] == (1, (2,), {1: 2})
    assert before["C"]().text() == after["C"]().text() == "ab"


@pytest.mark.parametrize(
    "source",
    [
        *("", "\n", "# only this", "x = 1", '"""doc"""', "if x:\n    pass\n# end\n"),
        *("x = 1 .real", "x = y if 0x1f else - - z", "x: int = f (* a, ** b) [1 : ..., - 1 : : 2]"),
        *(
            "x = 'a' 'b' if c in 'd' else f'{ e!r:>{ 10 }}' % g",
            "lambda * a, b = 1 : ~ a @ b",
            "x = a < - b",
        ),
        *("def f[T: int](a: T = 1, b=lambda: 0) -> T: ...",) * (sys.version_info >= (3, 12)),
        *("def f(a: 'x' = b if c else d, /, *, e: int) -> {1: 2}[1]: x: int = 1", "def f(): ..."),
        *('x = f"""a\n  { b }\n  c""" % d', '"""a\n  b""" . join (c)', "async def f ( ) -> None : ..."),
    ],
)
def test_small_ones(source: str) -> None:
    assert tree(slim(source.encode())) == tree(source.encode())
