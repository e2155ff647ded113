"""Who may import whom: the rooms of the package stay apart, and the hot paths stay light."""

from __future__ import annotations

import ast
import graphlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "smssh_plugin": ROOT / "smssh_plugin",
    "smssh_plugin.hooks": ROOT / "hooks",
    "smssh_plugin.entrypoints": ROOT / "entrypoints",
}

LEAVES = {"_version", "durations", "errors", "streams", "terminal"}
"""May be imported from anywhere, and import nothing of ours."""
IMPORTS: dict[str, set[str]] = {
    "__init__": {"client", "entrypoints", "hookspecs", "submit"},  # loaded when it is first used
    "__main__": {"cli"},
    "_version": set(),
    "durations": set(),
    "errors": set(),
    "streams": set(),
    "terminal": set(),
    "settings": set(),
    "agent_package": set(),
    "definitions": set(),
    "manifest": set(),
    "key_sources": {"agent_package", "aws"},
    "hookspecs": {"settings"},
    "plugins": {"hookspecs", "settings"},  # the built-in hooks are loaded by name
    "aws": set(),
    "home": set(),
    "keys": {"home"},
    "container": {"agent_package", "aws", "hookspecs", "manifest", "settings"},
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
    "debug": {"aws", "client", "definitions", "plugins"},
    "cli": {"aws", "client", "debug", "local", "manifest", "plugins", "session", "submit"},
    "local": {"home", "session"},
}
"""What each room imports of the others; a new room, or a new way between two, is written down here."""


def modules() -> dict[str, Path]:
    found = {}
    for package, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            inner = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *inner])] = path
    return found


def imports(module: str, path: Path) -> set[str]:
    """Everything that a module imports, at whatever depth, as absolute dotted names."""
    package = module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [base])])
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return found


def room(dotted: str) -> str:
    """The room of a module of the package, or the module itself where it stands alone."""
    return dotted.split(".")[1]


@pytest.mark.parametrize("own", sorted({room(module) for module in modules()}))
def test_a_room_imports_what_is_written_down_and_nothing_else(own: str):
    found = {
        (room(name), module)
        for module, path in modules().items()
        if room(module) == own
        for name in imports(module, path)
        if name.startswith("smssh_plugin.") and room(name) not in {own, *LEAVES}
    }
    assert {other for other, _ in found} == IMPORTS[own], sorted(found)


def test_the_emulator_shares_the_protocol_with_the_client_and_nothing_else():
    """A mistake in our own code is not made twice: the emulator does not speak with the client's own words."""
    shared = {
        name
        for module, path in modules().items()
        if room(module) == "local"
        for name in imports(module, path)
        if name.startswith("smssh_plugin.session.") and not name.startswith("smssh_plugin.session.wire")
    }
    assert not shared


def test_no_plugin_imports_another():
    together = {
        (module, name)
        for module, path in modules().items()
        if room(module) == "hooks"
        for name in imports(module, path)
        if name.startswith("smssh_plugin.hooks.")
    }
    assert not together


def test_no_module_imports_itself_in_a_circle():
    """Imports for types and those inside of functions count: what needs each other is one thing, or has a third."""
    known = {name.removesuffix(".__init__") for name in modules()}
    edges: dict[str, set[str]] = {}
    for name, path in modules().items():
        module = name.removesuffix(".__init__")
        found = edges.setdefault(module, set())
        for one in imports(name, path):
            imported = one if one in known else one.rpartition(".")[0]
            if imported in known - {"smssh_plugin", module}:
                found.add(imported)
    order = graphlib.TopologicalSorter(edges)
    order.prepare()  # CycleError names the modules of the circle


def test_sagemaker_is_imported_nowhere_in_the_package():
    """Steps are duck-typed, so that one wheel serves both majors of the SDK."""
    users = {
        module
        for module, path in modules().items()
        if any(name.split(".")[0] == "sagemaker" for name in imports(module, path))
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
def test_what_runs_in_the_jobs_interpreter_is_standard_library(module: str):
    name = f"smssh_plugin.entrypoints.{module}"
    foreign = {
        one
        for one in imports(name, modules()[name])
        if one.split(".")[0] not in sys.stdlib_module_names
        and not one.startswith(
            tuple(
                f"smssh_plugin.{each}"
                for each in ("durations", "entrypoints", "errors", "settings", "supervisor", "terminal")
            )
        )
    }
    assert not foreign
