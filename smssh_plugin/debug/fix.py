"""Fixes: a folder of `<step>.patch` and `<step>.sh`, and putting one into a held container."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import posixpath
import secrets
import shlex
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ExitStatus, SmsshError
from .incidents import Action
from .patch import Change, plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..client.connection import Connection

__all__ = ["Fix", "apply_patch", "check", "find", "run_script"]

LIST_SECONDS = 60.0
COPY_SECONDS = 300.0
SCRIPT_SECONDS = 3600.0
MOST_FILES = 100_000
ALIKE = 0.75
"""From when on two names are one, misspelled, as difflib counts."""


@dataclass(frozen=True)
class Fix:
    """What a person provides for one step.

    Attributes:
        patch: a unified diff of files below the job's code folder.
        script: a program to run there, after the patch; its `#!` line says with what (default: sh).
    """

    patch: Path | None
    script: Path | None

    def digest(self) -> str:
        """The same for the same fix only, by its contents; "" for a file that cannot be read."""
        found = hashlib.sha256()
        for path in (self.patch, self.script):
            try:
                content = b"" if path is None else path.read_bytes()
            except OSError:  # the error is shown when it is used
                return ""
            found.update(f"{len(content)}:".encode() + content)
        return found.hexdigest()


def find(folder: Path | None, *steps: str) -> Fix | None:
    """The fix for a step, by the first of its names that has one; None if there is no fix.

    Args:
        folder: the folder of fixes.
        steps: the names of the step: of its iteration first (`Train-3`), then the one of all iterations.
    """
    if folder is None:
        return None
    for step in steps:
        patch, script = (
            path if path.is_file() else None for path in (folder / f"{step}.patch", folder / f"{step}.sh")
        )
        if patch or script:
            return Fix(patch, script)
    return None


def check(folder: Path, steps: Mapping[str, bool]) -> list[Path]:
    """Look at the folder before anything runs. It may hold the fixes of other pipelines, too.

    Args:
        folder: the folder of fixes.
        steps: all steps of the pipeline by their names, and whether each is inside of a ForEach step; empty: unknown.

    Returns:
        The fixes in it that are for no step of this pipeline.

    Raises:
        SmsshError: there is no such folder, or no fix in it is for this pipeline, while one has almost the name of a
            step of it: a mistake in writing, after which it would never be used.
    """
    if not folder.is_dir():
        raise SmsshError(f"there is no folder {folder}", reference="no-fixes", status=ExitStatus.USAGE)
    found = [path for path in sorted(folder.iterdir()) if path.suffix in (".patch", ".sh")] if steps else []
    others = [path for path in found if path.stem not in steps and not _is_iteration(path.stem, steps)]
    if others and len(others) == len(found):
        for path in others:
            meant = difflib.get_close_matches(path.stem, steps, 1, ALIKE)
            if meant:
                raise SmsshError(
                    f"{path} is a fix for a step {path.stem!r}, which the pipeline does not have",
                    hint=f"name it after a step of the pipeline ({meant[0]!r}?): {', '.join(sorted(steps))}",
                    reference="fix-without-step",
                    status=ExitStatus.NOT_FOUND,
                )
    return others


def _is_iteration(name: str, steps: Mapping[str, bool]) -> bool:
    """Whether this is the name of an iteration of a step in a loop: `Train-3`."""
    step, _, index = name.rpartition("-")
    return steps.get(step, False) and index.isascii() and index.isdecimal()


def apply_patch(connection: Connection, code_dir: str, patch: Path) -> Action:
    """Apply a patch to the files below `code_dir` in the container: all of it, or nothing.

    Raises:
        SmsshError: it does not apply, or could not be written; nothing is changed then.
    """
    began = time.time()
    content = patch.read_bytes()
    with tempfile.TemporaryDirectory(prefix="smssh-fix-") as name:
        scratch = Path(name)

        def read(path: str) -> bytes:
            local = scratch / str(len(kept))
            connection.get(posixpath.join(code_dir, path), local, timeout=COPY_SECONDS)
            kept[path] = local
            return local.read_bytes()

        kept: dict[str, Path] = {}
        changes = plan(content, patch.name, _files(connection, code_dir), read)
        _write(connection, code_dir, changes, kept, scratch)
    names = ", ".join(change.path for change in changes)
    return Action(
        what="patch",
        began=began,
        seconds=time.time() - began,
        summary=f"applied {patch.name} to {names}",
        detail=content.decode("utf-8", "replace"),
        files=[posixpath.join(code_dir, change.path) for change in changes],
    )


def run_script(connection: Connection, code_dir: str, script: Path) -> Action:
    """Run a script in the container, in `code_dir`.

    Raises:
        SmsshError: it could not be run, or ended with another status than 0.
    """
    began = time.time()
    # In the container, unguessable, and removed below.
    there = f"/tmp/smssh-fix-{secrets.token_hex(8)}"  # noqa: S108
    interpreter = _interpreter(script)
    connection.put(script, there, timeout=COPY_SECONDS)
    try:
        line = f"cd {shlex.quote(code_dir)} && {shlex.join([*interpreter, there])} 2>&1"
        result = connection.run(line, timeout=SCRIPT_SECONDS)
    finally:
        with contextlib.suppress(SmsshError):
            connection.run(["rm", "-f", there], timeout=LIST_SECONDS)
    action = Action(
        what="script",
        began=began,
        seconds=time.time() - began,
        ok=result.status == 0,
        summary=f"ran {script.name}",
        detail=result.text,
    )
    if result.status:
        lines = result.text.strip().splitlines()
        raise SmsshError(
            f"{script.name} ended with status {result.status}",
            hint=lines[-1] if lines else None,
            reference="fix-script-failed",
        )
    return action


def _interpreter(script: Path) -> list[str]:
    """What a script's first line says that it is run with.

    Raises:
        SmsshError: the line cannot be understood.
    """
    first = script.read_text(encoding="utf-8", errors="replace").partition("\n")[0].rstrip("\r")
    if not first.startswith("#!"):
        return ["sh"]
    try:
        return shlex.split(first[2:]) or ["sh"]
    except ValueError as error:
        raise SmsshError(
            f"the first line of {script.name} cannot be understood: {error}",
            hint="begin it with the path of its interpreter: #!/bin/sh",
            reference="fix-script-failed",
        ) from error


def _files(connection: Connection, code_dir: str) -> set[str]:
    """The files below the code folder, relative."""
    line = f"cd {shlex.quote(code_dir)} && find . -type f -print | head -n {MOST_FILES + 1}"
    result = connection.run(line, timeout=LIST_SECONDS)
    names = {posixpath.normpath(name) for name in result.text.splitlines()}
    if result.status or len(names) > MOST_FILES:
        why = result.error_text.strip() or f"there are more than {MOST_FILES} files"
        raise SmsshError(f"cannot list the job's code in {code_dir}: {why}", reference="no-code")
    return names


def _write(
    connection: Connection, code_dir: str, changes: list[Change], kept: dict[str, Path], scratch: Path
) -> None:
    """Put all new content beside the files, then move it into place in one go."""
    suffix = f".smssh-{secrets.token_hex(4)}"
    tests: list[str] = []
    moves: list[str] = []
    fresh: list[str] = []
    for number, change in enumerate(changes):
        path = posixpath.join(code_dir, change.path)
        folder = shlex.quote(posixpath.dirname(path))
        if change.is_new:
            tests.append(f"mkdir -p {folder}")
        tests.append(f"test -w {folder}")
        if change.after is None:
            moves.append(f"rm -f {shlex.quote(path)}")
            continue
        local = scratch / f"new-{number}"
        local.write_bytes(change.after)
        local.chmod(0o644 if change.is_new else kept[change.path].stat().st_mode & 0o7777)
        moves.append(f"mv -f {shlex.quote(path + suffix)} {shlex.quote(path)}")
        fresh.append(path + suffix)
    try:
        result = connection.run(" && ".join(tests), timeout=LIST_SECONDS)
        if result.status:
            raise SmsshError(
                f"the job's code in {code_dir} cannot be changed: {result.error_text.strip() or 'read-only'}",
                reference="code-read-only",
            )
        for number, change in enumerate(changes):
            if change.after is not None:
                target = posixpath.join(code_dir, change.path) + suffix
                connection.put(scratch / f"new-{number}", target, timeout=COPY_SECONDS)
        result = connection.run(" && ".join(moves), timeout=LIST_SECONDS)
        if result.status:
            raise SmsshError(
                f"the job's code in {code_dir} could not be changed: {result.error_text.strip()}",
                reference="code-read-only",
            )
    except BaseException:
        if fresh:
            with contextlib.suppress(SmsshError):
                connection.run(["rm", "-f", *fresh], timeout=LIST_SECONDS)
        raise
