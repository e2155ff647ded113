"""What dev/measure.py counts, and what it leaves out."""

from __future__ import annotations

import subprocess
import textwrap

import pytest

from dev import measure
from tests.waiting import LIMIT


def source(**files: str) -> measure.Source:
    """Files of the package by their names, with __ for a slash."""
    return measure.Source(
        {
            f"smssh_plugin/{name.replace('__', '/')}.py": textwrap.dedent(text).lstrip()
            for name, text in files.items()
        }
    )


def test_a_function_has_the_lines_of_what_is_inside_of_it() -> None:
    one = source(
        a="""
        @decorated
        def outer():

            async def inner():
                return 1

            return inner
        """
    )
    assert {(found.size, found.where) for found in measure.function_lengths(one)} == {
        (6, "smssh_plugin/a.py:2 outer"),
        (2, "smssh_plugin/a.py:4 inner"),
    }


@pytest.mark.parametrize(
    ("body", "levels"),
    [
        ("pass", 0),
        ("if a:\n    for b in c:\n        with d:\n            pass", 3),
        ("if a:\n    pass\nelif b:\n    pass\nelse:\n    pass", 2),
        ("try:\n    pass\nexcept E:\n    while a:\n        pass", 2),
        ("match a:\n    case 1:\n        if b:\n            pass", 2),
        ("if a:\n    def g():\n        if b:\n            pass", 1),
    ],
)
def test_nesting(body, levels) -> None:
    one = source(a="def f():\n" + textwrap.indent(body, "    "))
    assert measure.nesting(one)[0].size == levels


def test_what_is_long_or_deep_says_why() -> None:
    deep = "if a:\n" + "".join(f"{'    ' * level}while b:\n" for level in range(1, 5)) + "    " * 5 + "pass"
    long = "pass\n" * 60
    text = ""
    for name, comment, body in (
        ("right", "# Long: one table", long),
        ("wrong", "# long", long),
        ("flat", "# Deep: a parser", deep),
        ("another", "# Long: not that", deep),
    ):
        text += f"{comment}\ndef {name}():\n{textwrap.indent(body, '    ')}\n"
    assert [found.where.split(" ")[1] for found in measure.without_reason(source(a=text))] == [
        "wrong",
        "another",
    ]


@pytest.mark.parametrize(
    "importing",
    [
        pytest.param("from .b import x", id="at once"),
        pytest.param("if TYPE_CHECKING:\n    from smssh_plugin.b import x", id="for types"),
        pytest.param("def f():\n    from . import b", id="inside of a function"),
        pytest.param("import smssh_plugin.b", id="by its whole name"),
    ],
)
def test_a_circle_counts_wherever_it_is_imported(importing) -> None:
    one = source(a=importing, b="from .c import y", c="from .a import f", d="from .a import f")
    assert [(found.size, found.where) for found in measure.circles(one)] == [
        (3, "smssh_plugin.a, smssh_plugin.b, smssh_plugin.c")
    ]


def test_a_package_and_its_module_can_be_a_circle() -> None:
    one = measure.Source(
        {
            "hooks/a/__init__.py": "from .b import x",
            "smssh_plugin/c.py": "",
            "hooks/a/b.py": "from . import y",
        }
    )
    assert [found.where for found in measure.circles(one)] == ["smssh_plugin.hooks.a, smssh_plugin.hooks.a.b"]


def test_what_is_imported_in_one_direction_is_no_circle() -> None:
    assert not measure.circles(source(a="from .b import x\nfrom . import c", b="from .c import y", c=""))


def test_duplicates_are_of_six_lines_at_any_depth() -> None:
    lines = [f"line_{number}()" for number in range(6)]
    whole, short = "\n".join(lines), "\n".join(lines[:5])
    one = source(
        a=whole, b=f"import other\n\nif a:\n{textwrap.indent(whole, '    ')}", c=short, d=f"{short}\nelse_()"
    )
    assert [(found.size, found.where) for found in measure.duplicates(one)] == [
        (6, "smssh_plugin/a.py:1"),
        (6, "smssh_plugin/b.py:4"),
    ]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("# Keeper of two doors\n", 2),
        ("# a recommendation for an outdoor benchmark\n", 0),
        ("IMAGE = 'python:3.12-slim'\n", 0),
        ("def slim(): ...\n", 1),
        ("def given(): ...\nclass _Link: ...\n", 2),
        ("given = words.link(parent)  # together again, as it was stored\n", 0),
        ("# the agent double of a stand-in\n", 2),
    ],
)
def test_old_words(text, count) -> None:
    assert len(measure.old_words(source(a=text))) == count


def test_a_modules_name_can_be_an_old_word() -> None:
    assert len(measure.old_words(source(a__given="", a__leftovers="", a__b=""))) == 2


@pytest.mark.needs("git")
def test_revisions_make_columns(tmp_path, monkeypatch, capsys) -> None:
    def git(*words):
        who = ("-c", "user.name=test", "-c", "user.email=test@example.com")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, timeout=LIMIT)

    for folder in measure.FOLDERS:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text("")
    (tmp_path / "smssh_plugin" / "link").symlink_to("../hooks")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    git("tag", "before")
    (tmp_path / "hooks" / "b.py").write_text("def f():\n    if a:\n        pass\n")
    git("add", ".")
    git("commit", "-q", "-m", "two")
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["measure.py", "before", "HEAD"])
    measure.main()
    table = capsys.readouterr().out
    assert [line.split("  ")[0].strip() for line in table.splitlines()] == ["", *measure.MEASURES]
    rows = [line.split() for line in table.splitlines()]
    assert rows[0] == ["before", "HEAD"]
    assert ["files", "3", "4"] in rows
    assert ["lines", "0", "3"] in rows
    assert ["deepest", "nesting", "0", "1"] in rows
    assert measure.working_tree().texts == measure.revision("HEAD").texts
