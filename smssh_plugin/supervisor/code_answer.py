"""The answer to `smssh diff`: what differs from the base of `code_changes`, and the contents that a patch needs."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, BinaryIO, Iterable, Mapping

from ..errors import ExitStatus, SmsshError
from .code_changes import BYTES_LIMIT, FOLDER, followed, tree_of
from .code_tree import CHUNK, Change, Entry, TooLargeError, differing, opened, scan

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["send"]

SENT_LIMIT = 2 * BYTES_LIMIT
"""Bytes of contents that are sent."""


def send(run_dir: Path, code_dir: str, out: BinaryIO) -> None:
    """Write what differs from the base: a line of JSON, and then the contents that it names, one after the other.

    The line has `version`, `code_dir`, `base` (false before the first login or hold), `error`, `taken`, `why`,
    `changes` (path, before and after, each null or with kind, digest and size), `attempts` (the same for the start of
    each attempt after a hold, by its number), `unsure` (the same, of what changed while the entry point ran and
    somebody was logged in, and counts as the entry point's), `files` (digests of the base's files, by path), `unread` and
    `too_large` (paths that are left out), and `blobs` (digest and size of each content that follows). Paths are UTF-8,
    with other bytes as surrogates (PEP 383).

    Args:
        run_dir: the container's private folder.
        code_dir: the folder of the code now.
        out: where to.

    Raises:
        SmsshError: what is kept cannot be read.
    """
    answer: dict[str, Any] = {"version": 1, "code_dir": code_dir, "base": False, "error": "", "blobs": []}
    try:
        state = json.loads((run_dir / FOLDER / "state.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        state = {}
    except (OSError, ValueError) as error:
        raise SmsshError(
            f"what is kept of the job's code cannot be read: {error}",
            reference="no-base",
            status=ExitStatus.FAILED,
        ) from error
    contents: dict[str, str] = {}
    if state.get("error"):
        answer["error"] = state["error"]
    elif state:
        try:
            contents = _compare(run_dir, state, answer)
        except (TooLargeError, ValueError, OSError) as error:
            answer["error"] = str(error)
    out.write(json.dumps(answer).encode() + b"\n")
    for digest, size in answer["blobs"]:
        _copy(contents[digest], size, out)
    out.flush()


def _compare(run_dir: Path, state: Mapping[str, Any], answer: dict[str, Any]) -> dict[str, str]:
    """Fill the answer; where each content lies, by its digest.

    Raises:
        TooLargeError, ValueError, OSError: as `scan`.
    """
    code_dir = state["code_dir"]
    base, last = tree_of(state["base"]), tree_of(state["last"])
    now = scan(code_dir, run_dir, last)
    objects = run_dir / FOLDER / "objects"
    unsure = {path: _entry(before) for path, before in state["unsure"].items()}
    if state["running"]:
        kept = base
        base, more = followed(kept, last, now, state)
        unsure = {**{path: kept.get(path) for path in more}, **unsure}
    contents: dict[str, str] = {}
    left_out: dict[str, set[str]] = {"unread": set(), "too_large": set()}
    sizes: dict[str, int] = {}

    def described(path: str, entry: Entry | None, place: str) -> dict[str, Any] | None:
        """An entry as it is sent; its content is sent too, if it can be."""
        if entry is None:
            return None
        if entry.kind == "file" and entry.digest not in contents:
            source = objects / entry.digest if entry.digest else objects / "none"
            if source.exists():
                contents[entry.digest] = str(source)
            elif place and entry.digest and sum(sizes.values()) + entry.size <= SENT_LIMIT:
                contents[entry.digest] = place
            elif place:
                left_out["unread" if entry.problem else "too_large"].add(path)
            if entry.digest in contents:
                sizes[entry.digest] = entry.size
        told = _told(entry.digest) if entry.kind == "link" else entry.digest
        return {"kind": entry.kind, "digest": told, "size": entry.size}

    def listed(changes: Iterable[Change], place: str = "") -> list[dict[str, Any]]:
        """Changes as they are sent; what is there now can be taken from `place`."""
        return [
            {
                "path": _told(path),
                "before": described(path, before, ""),
                "after": described(path, after, place and os.path.join(place, path)),
            }
            for path, before, after in changes
        ]

    answer["changes"] = listed(differing(base, now), code_dir)
    answer["attempts"] = {
        number: listed((path, _entry(before), _entry(after)) for path, before, after in changes)
        for number, changes in state["attempts"].items()
    }
    answer["unsure"] = listed(
        (
            (path, before, now.get(path))
            for path, before in sorted(unsure.items())
            if path in base or path in now
        ),
        code_dir,
    )
    answer.update(
        code_dir=code_dir,
        base=True,
        taken=state["taken"],
        why=state["why"],
        files={_told(path): entry.digest for path, entry in base.items() if entry.kind == "file"},
        unread=sorted(map(_told, left_out["unread"])),
        too_large=sorted(map(_told, left_out["too_large"])),
        blobs=sorted(sizes.items()),
    )
    return contents


def _told(path: str) -> str:
    """A path, or the target of a link, as it is sent: UTF-8, whatever the locale here; other bytes as surrogates."""
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def _copy(path: str, size: int, out: BinaryIO) -> None:
    """Write exactly `size` bytes: of a file that has changed meanwhile too few or too many; its digest tells."""
    left = size
    with contextlib.suppress(OSError), opened(path) as file:
        while left:
            piece = file.read(min(left, CHUNK))
            if not piece:
                break
            out.write(piece)
            left -= len(piece)
    while left:
        piece = bytes(min(left, CHUNK))
        out.write(piece)
        left -= len(piece)


def _entry(plain: list[Any] | None) -> Entry | None:
    return None if plain is None else Entry.of_plain(plain)
