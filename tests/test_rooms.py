"""Which room may import which: the rooms of the package stay apart, and the hot paths stay light."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from dev import measure

SOURCE = measure.working_tree()
MODULES = measure.modules(SOURCE.texts)

LEAVES = {
    "_version",
    "at_once",
    "durations",
    "errors",
    "files",
    "processes",
    "streams",
    "terminal",
    "terminated",
}
"""May be imported from anywhere, and import nothing of ours."""
IMPORTS: dict[str, set[str]] = {
    "__init__": {"client", "entrypoints", "hookspecs", "submit"},  # loaded when it is first used
    "__main__": {"cli"},
    "_version": set(),
    "at_once": set(),
    "durations": set(),
    "errors": set(),
    "files": set(),
    "processes": set(),
    "streams": set(),
    "terminal": set(),
    "terminated": set(),
    "setting_values": set(),
    "settings": {"setting_values"},
    "agent_package": set(),
    "definitions": set(),
    "manifest": set(),
    "key_sources": {"agent_package", "aws"},
    "hookspecs": {"settings"},
    "plugins": {"hookspecs", "settings"},  # the built-in hooks are loaded by name
    "aws": set(),
    "home": set(),
    "keys": {"home"},
    "container": {"agent_package", "aws", "hookspecs", "manifest", "setting_values"},
    "hooks": {"aws", "container", "hookspecs", "key_sources", "settings"},
    "entrypoints": {"hookspecs", "settings", "supervisor"},
    "supervisor": {"container", "entrypoints", "hooks", "hookspecs", "manifest", "plugins", "settings"},
    "submit": {
        "entrypoints",  # `pid1`: which entry points have to be process 1, one rule for both sides
        "agent_package",
        "aws",
        "definitions",
        "home",
        "key_sources",
        "keys",
        "manifest",
        "plugins",
        "settings",
    },
    "session": {"aws"},
    "client": {"aws", "definitions", "home", "keys"},
    "costs": {"aws", "client", "home", "setting_values"},
    "debug": {"aws", "client", "costs", "definitions", "plugins"},
    "setup": {"aws", "client", "setting_values"},
    "doctor": {"aws", "client", "debug", "definitions", "home", "keys", "plugins"},
    "live": {"aws", "client", "costs", "home", "session", "setup", "submit"},
    "cli": {
        "aws",
        "client",
        "costs",
        "debug",
        "doctor",
        "live",
        "local",
        "manifest",
        "plugins",
        "session",
        "settings",
        "setup",
        "submit",
    },
    "local": {"home", "session"},
}
"""What each room imports of the others; a new room, or a new way between two, is written down here."""


def imports(module: str) -> set[str]:
    """Everything that a module imports, at whatever depth, as absolute dotted names."""
    path = MODULES[module]
    return measure.imports(module, SOURCE.trees[path], is_package=path.endswith("__init__.py"))


def room(dotted: str) -> str:
    """The room of a module of the package, or the module itself where it stands alone."""
    return dotted.split(".")[1] if "." in dotted else "__init__"


@pytest.mark.parametrize("own", sorted({room(module) for module in MODULES}))
def test_a_room_imports_what_is_written_down_and_nothing_else(own: str) -> None:
    found = {
        (room(name), module)
        for module in MODULES
        if room(module) == own
        for name in imports(module)
        if name.startswith("smssh_plugin.") and room(name) not in {own, *LEAVES}
    }
    assert {other for other, _ in found} == IMPORTS[own], sorted(found)


def test_the_emulator_shares_the_protocol_with_the_client_and_nothing_else() -> None:
    """A mistake in our own code is not made twice: the emulator does not speak with the client's own words."""
    shared = {
        name
        for module in MODULES
        if room(module) == "local"
        for name in imports(module)
        if name.startswith("smssh_plugin.session.") and not name.startswith("smssh_plugin.session.wire")
    }
    assert not shared


def test_no_plugin_imports_another() -> None:
    together = {
        (module, name)
        for module in MODULES
        if room(module) == "hooks"
        for name in imports(module)
        if name.startswith("smssh_plugin.hooks.")
    }
    assert not together


def test_no_module_imports_itself_in_a_circle() -> None:
    """Imports for types and those inside of functions count: what needs each other is one thing, or has a third."""
    assert not measure.circles(SOURCE)


def test_functions_are_short_and_flat_or_say_why() -> None:
    """What ruff has no stable rule for: lines, and blocks in blocks; see dev/measure.py."""
    assert not measure.without_reason(SOURCE)


def test_no_word_of_the_old_vocabulary_is_left() -> None:
    """Which words those are, and where they are something else: dev/measure.py."""
    assert not measure.old_words(SOURCE)


def test_tests_have_one_style() -> None:
    """Each says that it returns nothing; one that is given types says so for all of its arguments or for none."""
    other = []
    for file in sorted((Path(__file__).parent).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
                typed = {each.annotation is not None for each in node.args.args + node.args.kwonlyargs}
                if node.returns is None or len(typed) > 1:
                    other.append(f"{file.name}: {node.name}")
    assert other == []


def test_sagemaker_is_imported_nowhere_in_the_package() -> None:
    """Steps are duck-typed, so that one wheel serves both majors of the SDK."""
    users = {
        module for module in MODULES if any(name.split(".")[0] == "sagemaker" for name in imports(module))
    }
    assert not users


@pytest.mark.parametrize(
    "module",
    [
        "boot",
        "supervisor_client",
        "toolkit",
        "init",
        "orphans",
        "idle",
        "connections",
        "workers",
        "smssh_hook",
    ],
)
def test_what_runs_in_the_jobs_interpreter_is_standard_library(module: str) -> None:
    name = f"smssh_plugin.entrypoints.{module}"
    foreign = {
        one
        for one in imports(name)
        if one.split(".")[0] not in sys.stdlib_module_names
        and not one.startswith(
            tuple(
                f"smssh_plugin.{each}"
                for each in (
                    "durations",
                    "entrypoints",
                    "errors",
                    "files",
                    "processes",
                    "settings",
                    "supervisor",
                    "terminal",
                )
            )
        )
    }
    assert not foreign


@pytest.mark.parametrize("folder", ["entrypoints/", "smssh_plugin/supervisor/"])
def test_what_runs_in_a_container_is_short_and_flat(folder: str) -> None:
    """A function has at most 60 lines, and blocks in each other at most four deep."""
    long = [found for found in measure.function_lengths(SOURCE) if found.size > 60]
    deep = [found for found in measure.nesting(SOURCE) if found.size > 4]
    assert not [found for found in long + deep if found.where.startswith(folder)]
