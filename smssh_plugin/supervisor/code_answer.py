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
    somebody was logged in, and counts as the entry point's), `files` (digests of the base's files, by path), `unread`
    and `too_large` (paths that are left out), and `blobs` (digest and size of each content that follows).
    Paths are UTF-8, with other bytes as surrogates (PEP 383).

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
    contents: dict[str, tuple[str, str]] = {}
    if state.get("error"):
        answer["error"] = state["error"]
    elif state:
        try:
            answer, contents = _Answer(run_dir, state).made()
        except (TooLargeError, ValueError, OSError) as error:
            answer["error"] = str(error)
    out.write(json.dumps(answer).encode() + b"\n")
    for digest, size in answer["blobs"]:
        _copy(*contents[digest], size, out)
    out.flush()


class _Answer:
    """What is sent where there is a base.

    Args:
        run_dir: the container's private folder.
        state: what state.json holds.
    """

    def __init__(self, run_dir: Path, state: Mapping[str, Any]) -> None:
        self._run_dir = run_dir
        self._state = state
        self._code_dir = str(state["code_dir"])
        self._contents: dict[str, tuple[str, str]] = {}
        """Where contents that are sent lie, by their digests: a folder, and the path in it."""
        self._sizes: dict[str, int] = {}
        self._unread: set[str] = set()
        self._too_large: set[str] = set()

    def made(self) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
        """The line of JSON, and where each content lies, by its digest.

        Raises:
            TooLargeError, ValueError, OSError: as `scan`.
        """
        state = self._state
        base, last = tree_of(state["base"]), tree_of(state["last"])
        now = scan(self._code_dir, self._run_dir, last)
        unsure = {path: _entry(before) for path, before in state["unsure"].items()}
        if state["running"]:
            kept = base
            base, more = followed(kept, last, now, state)
            unsure = {**{path: kept.get(path) for path in more}, **unsure}
        maybe = [
            (path, unsure[path], now.get(path)) for path in sorted(unsure) if path in base or path in now
        ]
        answer = {
            "version": 1,
            "code_dir": self._code_dir,
            "base": True,
            "error": "",
            "taken": state["taken"],
            "why": state["why"],
            "changes": self._listed(differing(base, now), present=True),
            "attempts": {
                number: self._listed((path, _entry(before), _entry(after)) for path, before, after in changes)
                for number, changes in state["attempts"].items()
            },
            "unsure": self._listed(maybe, present=True),
            "files": {_told(path): entry.digest for path, entry in base.items() if entry.kind == "file"},
        }
        answer["unread"] = sorted(map(_told, self._unread))
        answer["too_large"] = sorted(map(_told, self._too_large))
        answer["blobs"] = sorted(self._sizes.items())
        return answer, self._contents

    def _listed(self, changes: Iterable[Change], *, present: bool = False) -> list[dict[str, Any]]:
        """Changes as they are sent; `present`: what they are now is what lies in the folder now."""
        return [
            {
                "path": _told(path),
                "before": self._described(path, before, present=False),
                "after": self._described(path, after, present=present),
            }
            for path, before, after in changes
        ]

    def _described(self, path: str, entry: Entry | None, *, present: bool) -> dict[str, Any] | None:
        """An entry as it is sent; its content is sent too, if it can be."""
        if entry is None:
            return None
        if entry.kind == "file":
            self._find(path, entry, present)
        told = _told(entry.digest) if entry.kind == "link" else entry.digest
        return {"kind": entry.kind, "digest": told, "size": entry.size}

    def _find(self, path: str, entry: Entry, present: bool) -> None:
        """Note where the content of a file lies."""
        digest = entry.digest
        if digest and digest not in self._contents:
            objects = self._run_dir / FOLDER / "objects"
            if (objects / digest).exists():
                self._contents[digest] = (str(objects), digest)
            elif present and sum(self._sizes.values()) + entry.size <= SENT_LIMIT:
                self._contents[digest] = (self._code_dir, path)
        if digest in self._contents:
            self._sizes[digest] = entry.size
        elif present:
            (self._unread if entry.problem else self._too_large).add(path)


def _told(path: str) -> str:
    """A path, or the target of a link, as it is sent: UTF-8, whatever the locale here; other bytes as surrogates."""
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def _copy(folder: str, path: str, size: int, out: BinaryIO) -> None:
    """Write exactly `size` bytes: of a file that has changed meanwhile too few or too many; its digest tells."""
    left = size
    with contextlib.suppress(OSError), opened(folder, path) as file:
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
