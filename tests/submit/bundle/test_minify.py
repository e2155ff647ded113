"""Sources made smaller: the same program on the same lines, whatever stands in them."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import pytest

from smssh_plugin.submit.bundle.minify import minify

ROOT = Path(__file__).resolve().parents[3]
OURS = sorted(
    file for name in ("smssh_plugin", "entrypoints", "hooks") for file in (ROOT / name).rglob("*.py")
)


def tree(source: bytes) -> str:
    """The syntax tree with line numbers, without what does nothing in a container (see `minify`)."""
    found = ast.parse(source)
    found.body = [node for node in found.body if not _is_unneeded(node)]
    for node in ast.walk(found):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                setattr(node, name, [each for each in block if not _is_string(each)])
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
            if not getattr(node, "type_params", None):
                for each in ast.walk(node.args):
                    if isinstance(each, ast.arg):
                        each.annotation = None
        for name in ("col_offset", "end_col_offset", "end_lineno"):
            if hasattr(node, name):
                setattr(node, name, 0)
    return ast.dump(WithoutTypes().visit(found), include_attributes=True)


def _is_string(node: ast.stmt) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _is_unneeded(node: ast.stmt) -> bool:
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    if isinstance(node, ast.ImportFrom):
        return node.module in ("__future__", "typing")
    names = ("Name(id='__all__'", "Name(id='TYPE_CHECKING'")
    return isinstance(node, ast.Assign) and ast.dump(node.targets[0]).startswith(names)


class WithoutTypes(ast.NodeTransformer):
    """Types of the variables of modules and functions, which are not looked at; those of classes are."""

    def visit_FunctionDef(self, node: Any) -> ast.AST:
        for parent in ast.walk(node):
            for name in ("body", "orelse", "finalbody"):
                block = getattr(parent, name, None)
                if isinstance(block, list) and not isinstance(parent, ast.ClassDef):
                    setattr(parent, name, [_assigned(each) for each in block])
        self.generic_visit(node)
        return node

    visit_Module = visit_FunctionDef  # noqa: N815 - likewise
    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - likewise


def _assigned(node: ast.stmt) -> ast.stmt:
    if not isinstance(node, ast.AnnAssign) or node.value is None:
        return node
    made = ast.Assign([node.target], node.value)
    return ast.copy_location(made, node)


def imported(source: bytes, used: bool = False) -> set[str]:
    """What a module imports from `typing` by name, or all names that something is done with."""
    found = ast.parse(source)
    for node in ast.walk(found):
        for name in ("annotation", "returns"):
            if getattr(node, name, None) is not None:
                setattr(node, name, None)  # nobody evaluates them
    nodes = list(ast.walk(found))
    if used:
        return {node.id for node in nodes if isinstance(node, ast.Name)}
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "typing"]
    return {each.name for node in froms for each in node.names}


def test_the_same_program_on_the_same_lines() -> None:
    assert len(OURS) > 100
    for file in OURS:
        source = file.read_bytes()
        made = minify(source)
        assert tree(made) == tree(source), file
        assert minify(made) == made, file
        needed = imported(source) & imported(made, used=True)
        assert needed <= imported(made), file


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


def g():
    """All of it."""


__all__ = [
    "f"]
TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast


def h(self):
    x: list[int] = [1]; "alone"
    self.x: int
    self.y: "a = b" = x; z: int
    return self.y


class C:
    field: int = 1
    """Told."""

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
MINIFIED = '''\

import os

VALUE=1



def f(a,
b=("x"
"y"),c=[1, \\
2]):




 if a:

  return"""kept~~~
        as it # is
    """.strip()
 return f"""{a
        } and # {b!r}~~
   end""";"alone";


def g():
 ""









def h(self):
 x=[1];"alone"
 self.x:int
 self.y=x;z:int
 return self.y


class C:
 field:int=1


 def only(self):"in one line"

 def rows(self)->tuple[
int]:pass

 def typed(self,a,*b,c={1:2},d=lambda e:{e:1},**f:(
int)):return a,b,c,d(3),f

 def text(self):


  x="a" \\
"b"
  return x
'''.replace("~", " ")


def test_what_goes_and_what_stays() -> None:
    assert minify(SOURCE.encode()).decode() == MINIFIED
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    exec(SOURCE, before)
    exec(MINIFIED, after)
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
    assert tree(minify(source.encode())) == tree(source.encode())
