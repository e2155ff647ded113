"""A setup as files, and how they are written: whole or not at all, and over nobody's changes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..errors import ExitStatus, SmsshError
from ..files import write_atomically
from . import cloudformation, terraform
from .documents import documents

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .parts import Setup

__all__ = ["FORMATS", "files", "text", "write"]

FORMATS = ("json", "cloudformation", "terraform", "cdk")
_TEMPLATES = ("cloudformation", "cdk")
_MODE = 0o644


def files(setup: Setup, form: str) -> dict[str, str]:
    """The files of one format, by their names in its folder.

    Raises:
        SmsshError: the format has nothing for any of the parts.
    """
    if form == "json":
        return {f"{name}.json": _json(document) for name, document in documents(setup).items()}
    if form == "terraform":
        return terraform.modules(setup)
    template = cloudformation.template(setup)
    if not template["Resources"]:
        raise SmsshError(
            f"CloudFormation has no resource for {' and '.join(setup.parts)} in the partition {setup.plan.partition}",
            hint="use --format json",
            reference="no-resource",
            status=ExitStatus.USAGE,
        )
    name = f"{setup.plan.name}.template.json"
    if form == "cdk":
        return {"app.py": cloudformation.cdk_app(setup, name), name: _json(template)}
    return {name: _json(template)}


def text(setup: Setup, form: str) -> str:
    """One format to be printed: what a program can read as it stands, where it is one file or JSON."""
    if form == "json":
        found = documents(setup)
        return _json(next(iter(found.values())) if len(found) == 1 else found)
    parts = files(setup, form)
    if form == "cloudformation":
        return "".join(parts.values())
    return "\n".join(
        f"# {name}\n{content}" for name, content in parts.items() if name.endswith((".tf", ".py"))
    )


def write(setup: Setup, forms: Iterable[str], folder: Path, *, replace: bool = False) -> list[Path]:
    """Write the files of some formats, each in a folder of its name.

    Args:
        setup: what is written.
        forms: some of FORMATS; one that has nothing for any of the parts is left out unless it is the only one.
        folder: where; it is made.
        replace: write over files that have other content.

    Returns:
        The files that were written; those that are there as they should be are not.

    Raises:
        SmsshError: a file has other content, and nothing was written; or one cannot be written. Those before it are
            whole, and the next call goes on.
    """
    forms = list(forms)
    wanted: dict[Path, str] = {}
    for form in forms:
        try:
            found = files(setup, form)
        except SmsshError:
            if len(forms) == 1:
                raise
            continue
        wanted.update({folder / form / name: content for name, content in found.items()})
    try:
        return _written(wanted, replace=replace)
    except OSError as error:
        where = error.filename or folder
        raise SmsshError(
            f"{where}: {error.strerror or error}",
            hint="make room or choose another folder: files before that one are whole, and the same command goes on",
            reference="system-error",
        ) from error


def _written(wanted: dict[Path, str], *, replace: bool) -> list[Path]:
    odd = next((path for path in wanted if path.exists() and not path.is_file()), None)
    if odd is not None:  # a folder, or a pipe, which is not waited for
        raise SmsshError(
            f"{odd} is not a file",
            hint="write into another folder",
            reference="file-exists",
            status=ExitStatus.USAGE,
        )
    present = {path: path.read_bytes() for path in wanted if path.exists()}
    changed = [path for path, content in present.items() if content != wanted[path].encode()]
    if changed and not replace:
        raise SmsshError(
            f"{changed[0]} has other content"
            + (f", and so have {len(changed) - 1} other files" if changed[1:] else ""),
            hint="write into another folder, or pass --replace to write over it",
            reference="file-exists",
            status=ExitStatus.USAGE,
        )
    missing = [path for path in wanted if path not in present or path in changed]
    for path in missing:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, wanted[path], mode=_MODE)
    return missing


def _json(document: object) -> str:
    return json.dumps(document, indent=2) + "\n"
