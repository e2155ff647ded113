"""What people have changed in a job, as a patch, with all that a person has to know of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import SmsshError
from ..terminal import line
from .changes import NOTES_LIMIT, Change, differing, fetch, with_base_of
from .git_patch import Trees, scratch

if TYPE_CHECKING:
    from pathlib import Path

    from ..client.connection import Connection
    from .changes import Changes

__all__ = ["Diff", "make", "of_changes"]

NAMES_SHOWN = 20


@dataclass(frozen=True)
class Diff:
    """Changes and their patch.

    Attributes:
        code_dir: the folder of the code in the container.
        taken: when the base was made; None if there is no base.
        changes: what the patch holds.
        patch: the patch; empty if nothing was changed.
        stat: what `git diff --stat` shows of it.
        notes: what is left out, and why, in sentences.
        differing: files of the folder that was named that are not what the job's code was.
    """

    code_dir: str
    taken: float | None
    changes: list[Change]
    patch: bytes
    stat: str
    notes: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)


def make(
    connection: Connection,
    source: Path | None = None,
    prefix: bytes = b"",
    *,
    everything: bool = False,
    object_format: str = "sha1",
) -> Diff:
    """Ask a container, and make the patch.

    Args:
        connection: a login in the container.
        source: the code as it was submitted, on this machine; None if that is not known.
        prefix: put in front of each path, with a `/` at its end.
        everything: also what changed while the entry point ran and somebody was logged in.
        object_format: of the repository that takes the patch; see `git_patch.Git`.

    Raises:
        SmsshError: as `changes.fetch`; there is no git here, or it failed.
    """
    found = fetch(connection)
    if everything and found.unsure:
        known = {one.path for one in found.unsure}
        found.changes = [*(one for one in found.changes if one.path not in known), *found.unsure]
        found.unsure = []
    if source is not None:
        found = with_base_of(found, source)
    return of_changes(found, found.changes, source, prefix, object_format=object_format)


def of_changes(
    found: Changes,
    changes: list[Change],
    source: Path | None = None,
    prefix: bytes = b"",
    *,
    named: bool = True,
    object_format: str = "sha1",
) -> Diff:
    """The patch of some of what was found.

    Args:
        found: what the container told.
        changes: which changes.
        source: see `make`.
        prefix: see `make`.
        named: whether a note names what counts as the entry point's, but may be a person's.
        object_format: see `make`.

    Raises:
        SmsshError: there is no git here, or it failed.
    """
    notes = list(found.notes)
    known = [one for one in changes if one.is_known]
    unknown = [one.name for one in changes if not one.is_known]
    unknown = [name for name in unknown if not any(note.startswith(f"{name} ") for note in found.notes)]
    notes += (
        f"{name} is left out: what it was before, or is now, was too large to be kept"
        for name in unknown[:NOTES_LIMIT]
    )
    if len(unknown) > NOTES_LIMIT:
        notes.append(f"{len(unknown) - NOTES_LIMIT} more files are left out for the same reason")
    if found.unsure and named:
        names = ", ".join(one.name for one in found.unsure[:NAMES_SHOWN])
        more = f" and {len(found.unsure) - NAMES_SHOWN} more" if len(found.unsure) > NAMES_SHOWN else ""
        notes.append(f"changed while the entry point ran, and taken for its work: {names}{more}")
    patch, stat = b"", ""
    if known:
        with scratch(object_format) as git:
            trees = Trees.of(git, known, prefix)
            patch, stat = trees.patch(), trees.stat()
    differs = [] if source is None else differing(found, source, known)
    return Diff(line(found.code_dir), found.taken, known, patch, stat, notes, differs)


def nothing(diff: Diff, address: str) -> SmsshError:
    """The error where there is no patch."""
    if diff.taken is None:
        return SmsshError(
            f"nothing was changed in {address}: nobody has logged in, and it has not been held",
            reference="nothing-changed",
        )
    return SmsshError(
        f"nothing was changed in {diff.code_dir or 'the code'} of {address}",
        hint=diff.notes[0] if diff.notes else None,
        reference="nothing-changed",
    )
