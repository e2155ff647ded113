"""Which files of a package its project declares as data, in the words of setuptools.

Other build backends take whatever lies in a package's folder; of theirs, nothing is declared.
"""

from __future__ import annotations

import configparser
import importlib
from pathlib import Path
from typing import Any, Mapping, Sequence

__all__ = ["declared"]

LEVELS = 4
"""How far above a package its project's files are looked for: `src/company/team/package` is three."""


def declared(folder: Path, package: str) -> set[Path]:
    """The files in a package's folder that `package-data` names.

    Args:
        folder: the package's folder.
        package: its dotted name.
    """
    found: set[Path] = set()
    for name, patterns in _package_data(folder).items():
        if name in ("*", "") or name == package:
            below = folder
        elif name.startswith(package + "."):
            below = folder.joinpath(*name[len(package) + 1 :].split("."))
        else:
            continue
        places = (
            [below, *(each for each in below.rglob("*") if each.is_dir())] if name in ("*", "") else [below]
        )
        for place in places:
            for pattern in patterns:
                found.update(file for file in _glob(place, pattern) if file.is_file())
    return found


def _glob(place: Path, pattern: str) -> list[Path]:
    try:
        return [] if ".." in Path(pattern).parts else list(place.glob(pattern))
    except (NotImplementedError, ValueError, OSError):  # an absolute or empty pattern, or no such folder
        return []


def _package_data(folder: Path) -> Mapping[str, Sequence[str]]:
    """The table of the project that a package belongs to; empty if there is no project."""
    for above in list(folder.absolute().parents)[:LEVELS]:
        project, setup = above / "pyproject.toml", above / "setup.cfg"
        if project.is_file() or setup.is_file():
            return {**_of_setup(setup), **_of_project(project)}
    return {}


def _of_project(file: Path) -> dict[str, Sequence[str]]:
    for name in ("tomllib", "tomli"):  # Python 3.11 and later; else where it happens to be installed
        try:
            reader: Any = importlib.import_module(name)
            break
        except ImportError:
            continue
    else:
        return {}
    try:
        tools = reader.loads(file.read_text(encoding="utf-8")).get("tool", {})
        table = tools.get("setuptools", {}).get("package-data", {})
        return {
            str(package): [str(each) for each in patterns]
            for package, patterns in table.items()
            if isinstance(patterns, list)
        }
    except (OSError, ValueError, AttributeError):
        return {}


def _of_setup(file: Path) -> dict[str, Sequence[str]]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(file, encoding="utf-8")
    except (configparser.Error, OSError, UnicodeDecodeError):
        return {}
    if not parser.has_section("options.package_data"):
        return {}
    return {
        package: [each.strip() for each in text.replace(",", "\n").splitlines() if each.strip()]
        for package, text in parser.items("options.package_data")
    }
