"""Measure how the package reads, at any revision, as one table with a column for each.

    .venv/bin/python dev/measure.py [--list] [REVISION]...

Without a revision the working tree is measured; `--list` names what is behind the numbers, too. Measured are
smssh_plugin/, hooks/ and entrypoints/; links in them are not followed.

- A function's lines are those from its `def` to its end. Functions inside of it count for it and for themselves.
- Nesting counts `if`, `for`, `while`, `with`, `try` and `match` inside of a function. An `elif` is one deeper than its
  `if`, as in Python's own tree: a long chain of them is as hard to follow.
- A function of more than 60 lines, or nested deeper than four, has the reason in a comment above its `def` that begins
  with `# Long:` or `# Deep:`; tests/test_rooms.py holds that.
- Circles are groups of modules that import each other: imports for types and those inside of functions count.
- A duplicate is a run of six lines or more that also stands elsewhere. Blank lines, imports, lines without a letter and
  indentation do not count.
- The old vocabulary is `OLD_WORDS` wherever they stand, and `OLD_NAMES` where one is the whole name of a module, class
  or function: as other names and in prose they are plain English or terms of POSIX (a parent process, a symbolic link).
"""

from __future__ import annotations

import argparse
import ast
import collections
import dataclasses
import functools
import io
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Callable, Iterable, Iterator, Mapping, Union

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "hooks": "smssh_plugin.hooks",
    "entrypoints": "smssh_plugin.entrypoints",
    "smssh_plugin": "smssh_plugin",
}
"""The measured folders, and what each imports as."""
TEXTS = (".css", ".html", ".j2", ".pth", ".py", ".sh", ".start")
DUPLICATE_LINES = 6
LONGEST_FUNCTION = 60
DEEPEST_NESTING = 4

OLD_WORDS = re.compile(
    r"carrier|caution|keeper|leftover|stand-?in(?![a-z])|\b(?:agent|the) double\b"
    r"|(?<![a-z])(?:adopt|bench|door|mend)(?:s|ed|ing)?(?![a-z])"
    r"|(?<![a-z0-9-])slim(?![a-z])",  # python:3.12-slim is an image
    re.IGNORECASE,
)
"""Words that have no other use in this package."""
OLD_NAMES = {
    "again",
    "given",
    "leaves",
    "link",
    "links",
    "parent",
    "stored",
    "together",
    "way",
    "ways",
    "words",
}
"""Words that have one; names of modules, classes and functions, without underscores and in lower case."""

Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)


@dataclasses.dataclass(frozen=True)
class Found:
    """Something in the source, and where."""

    size: int
    """Lines, levels or modules; 1 for a word."""
    where: str
    """`path:line`, and its name."""


@dataclasses.dataclass(frozen=True)
class Source:
    """The files of one revision: their texts, and the trees of those that are Python, by path."""

    texts: Mapping[str, str]

    @functools.cached_property
    def trees(self) -> Mapping[str, ast.Module]:
        """Parsed when they are first asked for: every worker of the tests has the texts, and few ask for the trees."""
        return {path: ast.parse(text) for path, text in self.texts.items() if path.endswith(".py")}

    def functions(self) -> Iterator[tuple[str, Function]]:
        """Every function and method, with its path."""
        for path, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, _FUNCTIONS):
                    yield path, node


def working_tree() -> Source:
    """The files as they are on the disk."""
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in TEXTS]
    return Source({path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths})


def revision(name: str) -> Source:
    """The files of a commit."""
    packed = subprocess.run(["git", "archive", name, *FOLDERS], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        members = [one for one in archive if one.isfile() and one.name.endswith(TEXTS)]
        return Source({one.name: archive.extractfile(one).read().decode() for one in members})  # type: ignore[union-attr]


def modules(paths: Iterable[str]) -> dict[str, str]:
    """The dotted names that files are imported by, with their paths; a package has its own name."""
    found = {}
    for path in paths:
        top, _, inner = path.partition("/")
        if path.endswith(".py"):
            dotted = ".".join([FOLDERS[top], *inner[: -len(".py")].split("/")])
            found[dotted.removesuffix(".__init__")] = path
    return found


def imports(module: str, tree: ast.Module, *, is_package: bool = False) -> set[str]:
    """Everything that a module imports, at whatever depth, as absolute dotted names."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return found


def circles(source: Source) -> list[Found]:
    """The groups of modules that import each other, the package itself aside, which loads lazily what is asked for."""
    known = modules(source.trees)
    edges: dict[str, set[str]] = {}
    for module, path in known.items():
        names = imports(module, source.trees[path], is_package=path.endswith("__init__.py"))
        imported = {name if name in known else name.rpartition(".")[0] for name in names}
        edges[module] = imported & (known.keys() - {"smssh_plugin", module})
    groups = [group for group in _components(edges) if len(group) > 1]
    return [Found(len(group), ", ".join(sorted(group))) for group in groups]


def function_lengths(source: Source) -> list[Found]:
    """The length of every function."""
    return [
        Found(node.end_lineno - node.lineno + 1, f"{path}:{node.lineno} {node.name}")  # type: ignore[operator]
        for path, node in source.functions()
    ]


def nesting(source: Source) -> list[Found]:
    """The deepest nesting of every function."""
    return [Found(_depth(node), f"{path}:{node.lineno} {node.name}") for path, node in source.functions()]


def without_reason(source: Source) -> list[Found]:
    """The functions that are too long or nested too deep, and do not say why."""
    limits = (
        ("Long", function_lengths(source), LONGEST_FUNCTION),
        ("Deep", nesting(source), DEEPEST_NESTING),
    )
    return [
        one
        for word, found, most in limits
        for one in found
        if one.size > most and not re.match(rf"\s*# {word}: \w", _line_above(source, one))
    ]


def documented(source: Source) -> str:
    """The share of functions that have a docstring."""
    found = [ast.get_docstring(node) is not None for _, node in source.functions()]
    return f"{100 * sum(found) / len(found):.0f} %" if found else "-"


def duplicates(source: Source) -> list[Found]:
    """The runs of six lines or more that also stand elsewhere, each at each of its places."""
    lines = {path: _comparable(text) for path, text in source.texts.items()}
    places: dict[tuple[str, ...], int] = collections.Counter(
        window for path in lines for window in _windows(lines[path])
    )
    found = []
    for path, numbered in lines.items():
        repeated = [places[window] > 1 for window in _windows(numbered)]
        start = None
        for index, one in enumerate([*repeated, False]):
            if one and start is None:
                start = index
            elif not one and start is not None:
                found.append(Found(index - start + DUPLICATE_LINES - 1, f"{path}:{numbered[start][0]}"))
                start = None
    return found


def old_words(source: Source) -> list[Found]:
    """The words of the old vocabulary that are left."""
    found = [
        Found(1, f"{path}:{number} {match[0]}")
        for path, text in source.texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        for match in OLD_WORDS.finditer(line)
    ]
    for path in source.texts:
        stem = path.rpartition("/")[2].partition(".")[0]
        if _is_old(stem):
            found.append(Found(1, f"{path} {stem}"))
        found += [Found(1, f"{path} {match[0]}") for match in OLD_WORDS.finditer(stem)]
    for path, tree in source.trees.items():
        for node in ast.walk(tree):
            if isinstance(node, (*_FUNCTIONS, ast.ClassDef)) and _is_old(node.name):
                found.append(Found(1, f"{path}:{node.lineno} {node.name}"))
    return found


MEASURES: dict[str, Callable[[Source], object]] = {
    "files": lambda source: len(source.texts),
    "lines": lambda source: sum(text.count("\n") for text in source.texts.values()),
    "functions": lambda source: sum(1 for _ in source.functions()),
    "longest function": lambda source: max((one.size for one in function_lengths(source)), default=0),
    "functions of more than 60 lines": lambda source: sum(
        one.size > LONGEST_FUNCTION for one in function_lengths(source)
    ),
    "deepest nesting": lambda source: max((one.size for one in nesting(source)), default=0),
    "functions nested deeper than 4": lambda source: sum(
        one.size > DEEPEST_NESTING for one in nesting(source)
    ),
    "import circles": lambda source: len(circles(source)),
    "functions with docstrings": documented,
    "duplicates of six lines": lambda source: len(duplicates(source)),
    "words of the old vocabulary": lambda source: len(old_words(source)),
}


def table(columns: Mapping[str, Source]) -> str:
    """The measures as lines of text, aligned."""
    rows = [["", *columns]]
    rows += [[name, *(str(measure(one)) for one in columns.values())] for name, measure in MEASURES.items()]
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return "".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        ).rstrip()
        + "\n"
        for row in rows
    )


def listing(source: Source) -> str:
    """What is behind the numbers, largest first."""
    lists = {
        "functions of more than 60 lines": [
            one for one in function_lengths(source) if one.size > LONGEST_FUNCTION
        ],
        "functions nested deeper than 4": [one for one in nesting(source) if one.size > DEEPEST_NESTING],
        "import circles": circles(source),
        "duplicates of six lines": duplicates(source),
        "words of the old vocabulary": old_words(source),
    }
    return "".join(
        f"\n{name}:\n"
        + "".join(f"  {one.size:4} {one.where}\n" for one in sorted(found, key=lambda one: -one.size))
        for name, found in lists.items()
        if found
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measure how the package reads.")
    parser.add_argument("revisions", nargs="*", metavar="REVISION")
    parser.add_argument(
        "--list", action="store_true", help="name what is behind the numbers of the last column"
    )
    options = parser.parse_args()
    columns = {name: revision(name) for name in options.revisions} or {"working tree": working_tree()}
    print(table(columns), end="")
    if options.list:
        print(listing(list(columns.values())[-1]), end="")


def _line_above(source: Source, found: Found) -> str:
    path, _, number = found.where.partition(" ")[0].rpartition(":")
    return ["", *source.texts[path].splitlines()][int(number) - 1]


def _is_old(name: str) -> bool:
    return name.strip("_").lower() in OLD_NAMES


def _depth(node: ast.AST) -> int:
    """How deep blocks stand in each other below a node; a function inside of it begins anew."""
    return max(
        (
            _depth(child) + isinstance(child, _BLOCKS)
            for child in ast.iter_child_nodes(node)
            if not isinstance(child, (*_FUNCTIONS, ast.Lambda, ast.ClassDef))
        ),
        default=0,
    )


def _comparable(text: str) -> list[tuple[int, str]]:
    """The lines that are compared, without their indentation, and their numbers."""
    return [
        (number, line.strip())
        for number, line in enumerate(text.splitlines(), 1)
        if re.search("[A-Za-z]", line) and not re.match(r"\s*(?:from\b.*\bimport\b|import\b)", line)
    ]


def _windows(lines: list[tuple[int, str]]) -> list[tuple[str, ...]]:
    return [
        tuple(line for _, line in lines[start : start + DUPLICATE_LINES])
        for start in range(len(lines) - DUPLICATE_LINES + 1)
    ]


def _components(edges: Mapping[str, set[str]]) -> list[set[str]]:
    """The strongly connected components of a graph: the nodes that reach each other."""
    reach = {node: _reachable(edges, node) for node in edges}
    groups = {frozenset({node} | {other for other in reach[node] if node in reach[other]}) for node in edges}
    return [set(group) for group in groups]


def _reachable(edges: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = edges[waiting.pop()] - found
        found |= new
        waiting += new
    return found


if __name__ == "__main__":
    main()
