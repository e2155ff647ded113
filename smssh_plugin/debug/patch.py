"""Unified diffs, applied all or nothing to files that somebody else reads and writes.

unidiff reads the patch (by the counts in its hunk headers, so a removed SQL comment is not taken for a file
name); placing the hunks is done here: as `patch` does, a hunk may have moved, but every line of its context
must be there. No fuzz: a fix that fits by chance is worse than none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unidiff.errors import UnidiffParseError
from unidiff.patch import Hunk, PatchedFile, PatchSet

from ..errors import ExitStatus, SmsshError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["Change", "plan"]

_NOWHERE = "/dev/null"
_EMPTY = ("e69de29", "473a0f4")
"""How git's ids of an empty file begin, in repositories of SHA-1 and SHA-256."""


@dataclass(frozen=True)
class Change:
    """What becomes of one file.

    Attributes:
        path: relative to the folder of the code, with `/`.
        after: its new content; None: it is removed.
        is_new: whether it is not there yet.
    """

    path: str
    after: bytes | None
    is_new: bool


def plan(patch: bytes, name: str, present: Collection[str], read: Callable[[str], bytes]) -> list[Change]:
    """Work out what a patch changes; nothing is written.

    Args:
        patch: the text of the patch: a unified diff, as `git diff` or `diff -u` write it.
        name: its name, for messages.
        present: the files there are, relative paths with `/`.
        read: gives the content of one of them.

    Raises:
        SmsshError: it is not a patch, or does not apply; says at which line and why.
    """
    # Latin-1 maps every byte to one character and back: content of any encoding goes through unchanged.
    try:
        parsed = PatchSet(_unix(_lines(patch.decode("latin-1"))))
    except (UnidiffParseError, ValueError) as error:
        raise _bad(f"{name} is not a unified diff: {error}") from error
    if not parsed:
        raise _bad(f"{name} is not a unified diff: it changes no file")
    paths = [_path(file, name) for file in parsed]
    # unidiff also takes a hunk of `-0,0` for a whole file added; without context any hunk can be one.
    added = [
        file.source_file == _NOWHERE or (file.is_added_file and path not in present)
        for file, path in zip(parsed, paths, strict=True)
    ]
    cut = _depth([path for path, new in zip(paths, added, strict=True) if not new], present, name)
    changes: dict[str, Change] = {}
    for file, path, is_new in zip(parsed, paths, added, strict=True):
        place = "/".join(path.split("/")[cut:]) or path.rpartition("/")[2]
        if place in changes:
            raise _bad(f"{name} changes {place} twice", "write the two parts as one")
        if is_new:
            if place in present:
                raise _bad(f"{name} adds {place}, which is there already")
            changes[place] = Change(place, _apply(file, b"", name, place), is_new=True)
            continue
        after = _apply(file, read(place), name, place)
        if file.target_file == _NOWHERE:
            if after:
                raise _bad(f"{name} removes {place}, which has more lines than the patch knows")
            changes[place] = Change(place, None, is_new=False)
        else:
            changes[place] = Change(place, after, is_new=False)
    return list(changes.values())


def _path(file: PatchedFile, name: str) -> str:
    """The path that a part of the patch is about."""
    old, new = _bare(file.source_file, name), _bare(file.target_file, name)
    # `diff -u train.py.orig train.py` names a copy, `diff -ru old new` two folders; a git rename moves a file,
    # which nobody asked for here.
    git = file.source_file.startswith(("a/", '"a/')) and file.target_file.startswith(("b/", '"b/'))
    same = not git and old.partition("/")[2] == new.partition("/")[2] != ""
    copy = len(file) and (same or old.startswith(new))
    if old not in (_NOWHERE, new) and new != _NOWHERE and not copy:
        raise _bad(f"{name} renames {old} to {new}; renames cannot be applied")
    path = old if new == _NOWHERE else new
    if not len(file) and not _is_empty(file):
        raise _bad(f"{name} changes {path} in a way that is not text (binary, mode or rename)")
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or not all(parts):
        raise _bad(f"{name} names a file outside of the code: {path}")
    return path


def _is_empty(file: PatchedFile) -> bool:
    """Whether it is an empty file that is added or removed, which git writes without any hunk."""
    if _NOWHERE not in (file.source_file, file.target_file):
        return False
    words = [line.split() for line in str(file.patch_info or "").splitlines() if line.startswith("index ")]
    sides = words[0][1].split("..") if words and len(words[0]) > 1 else []
    return len(sides) == 2 and sides[file.source_file == _NOWHERE].startswith(_EMPTY)


def _bare(path: str, name: str) -> str:
    """A path of the header without git's quotes and `a/`, `b/`."""
    if path == _NOWHERE:
        return path
    shown = path
    try:
        if path.startswith('"') and path.endswith('"'):
            # git quotes as C does: octal bytes and backslashes.
            path = path[1:-1].encode("latin-1").decode("unicode_escape")
        path = path.encode("latin-1").decode("utf-8", "surrogateescape").removeprefix("./")
    except UnicodeError as error:
        raise _bad(f"{name} names a file in a way that git does not: {shown}") from error
    return path[2:] if path[:2] in ("a/", "b/") else path


def _depth(paths: list[str], present: Collection[str], name: str) -> int:
    """How many leading folders to take off so that all files are there.

    Patches are made in a repository, where the code lies deeper than in the job.
    """
    if not paths:
        return 0
    deepest = min(path.count("/") for path in paths)
    for cut in range(deepest + 1):
        if all("/".join(path.split("/")[cut:]) in present for path in paths):
            return cut
    absent = next((path for path in paths if path not in present), paths[0])
    known = ", ".join(sorted(present)[:12]) or "none"
    raise _bad(
        f"{name} changes {absent}, which is not in the job's code", f"change one of the files there: {known}"
    )


def _apply(file: PatchedFile, before: bytes, name: str, place: str) -> bytes:
    """The content of a file after all hunks."""
    lines = _lines(before.decode("latin-1"))
    crlf = bool(lines) and all(line.endswith("\r\n") for line in lines[:-1]) and lines[0].endswith("\r\n")
    done: list[str] = []
    at = 0  # lines[:at] are in `done` already
    moved = 0
    for number, hunk in enumerate(file, 1):
        old, new = _sides(hunk, crlf)
        # A hunk without old lines is put after the line it names; any other begins at it.
        wanted = hunk.source_start + moved - (1 if old else 0)
        place_at = _find(lines, old, wanted, at)
        if place_at is None:
            raise _mismatch(lines, old, wanted, name, place, number, hunk.source_start)
        moved += place_at - wanted
        done += lines[at:place_at] + new
        at = place_at + len(old)
    return "".join(done + lines[at:]).encode("latin-1")


def _sides(hunk: Hunk, crlf: bool) -> tuple[list[str], list[str]]:
    """The old and new lines of a hunk, with their ends (a patch kept with LF fits a file with CRLF)."""
    old: list[str] = []
    new: list[str] = []
    last: list[list[str]] = []
    for line in hunk:
        if line.line_type == "\\":  # "No newline at end of file": of the line before it
            for side in last:
                side[-1] = side[-1].removesuffix("\n").removesuffix("\r")
            continue
        value = line.value
        if crlf and value.endswith("\n") and not value.endswith("\r\n"):
            value = value[:-1] + "\r\n"
        last = [old, new] if line.is_context else [old] if line.is_removed else [new]
        for side in last:
            side.append(value)
    return old, new


def _find(lines: list[str], old: list[str], wanted: int, first: int) -> int | None:
    """Where `old` stands in `lines`, nearest to where it should, not before `first`; None: nowhere."""
    last = len(lines) - len(old)
    for distance in range(len(lines) + abs(wanted) + 1):
        for place in {wanted - distance, wanted + distance}:
            if first <= place <= last and lines[place : place + len(old)] == old:
                return place
    return None


def _mismatch(
    lines: list[str], old: list[str], wanted: int, name: str, place: str, number: int, start: int
) -> SmsshError:
    """The error for a hunk that stands nowhere: the first line that differs where it should stand."""
    for offset, line in enumerate(old):
        there = lines[wanted + offset] if 0 <= wanted + offset < len(lines) else None
        if there != line:
            found = "the file ends" if there is None else f"the file has {there.rstrip()!r}"
            hint = f"line {wanted + offset + 1}: the patch expects {line.rstrip()!r}, {found}"
            break
    else:
        hint = "its lines are used by the hunk before it already"
    return _bad(f"{name} does not apply to {place}: part {number} (line {start}) does not fit", hint)


def _lines(text: str) -> list[str]:
    """Lines with their ends; only LF ends a line (str.splitlines knows a dozen more)."""
    parts = text.split("\n")
    last = parts.pop()
    return [part + "\n" for part in parts] + ([last] if last else [])


def _unix(lines: list[str]) -> list[str]:
    """The lines of a patch; where an editor saved all of it with CRLF, headers too, with LF."""
    if all(line.endswith("\r\n") for line in lines[:-1]) and lines[:1] and "\r" in lines[0]:
        return [line.removesuffix("\n").removesuffix("\r") + "\n" * line.endswith("\n") for line in lines]
    return lines


def _bad(message: str, hint: str | None = None) -> SmsshError:
    return SmsshError(message, hint=hint, reference="patch-does-not-apply", status=ExitStatus.FAILED)
