"""What people have changed in a job's code, as its container tells it: fetched over SSH, and checked.

A container is somebody else's program: it may answer anything. A path that leads out of the folder of the code or into
a repository's own files, a link to elsewhere, contents that are not what their digest says, more bytes or names than
there can be: all of that is an error or left out here, and nothing is written anywhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from ..errors import ExitStatus, SmsshError
from ..terminal import line
from .validate import seconds, whole

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ..client.connection import Connection

__all__ = ["Change", "Changes", "Content", "differing", "fetch", "parse", "with_base_of"]

FETCH_SECONDS = 300.0
HEADER_LIMIT = 64 << 20
"""Bytes of the first line of the answer: digests of 50,000 files, and the changes of 20 attempts."""
CONTENT_LIMIT = 160 << 20
"""Bytes of all contents; a container sends 150 MB at most, see `supervisor.code_answer`."""
MEMORY = 8 << 20
"""Bytes of an answer that are kept in memory; what is larger lies in a temporary file meanwhile."""
PATHS_LIMIT = 200_000
"""Paths in all lists of one answer."""
PATH_LIMIT = 4096
NOTES_LIMIT = 50
"""Files that are left out, and named one by one."""
NO_CODE = "no-code"


@dataclass(frozen=True)
class Content:
    """What a path is.

    Attributes:
        kind: file or link.
        data: the bytes of a file, or a link's target; None where they are not known.
        digest: SHA-256 of a file's bytes in hex; "" where it is not known.
    """

    kind: str
    data: bytes | None
    digest: str = ""


@dataclass(frozen=True)
class Change:
    """A path, relative to the folder of the code, and what it was and is; None: it is not there.

    Attributes:
        path: as it is in the container.
        before: in the base.
        after: now.
    """

    path: bytes
    before: Content | None
    after: Content | None

    @property
    def name(self) -> str:
        """The path for people."""
        return line(self.path.decode("utf-8", "backslashreplace"))

    @property
    def is_known(self) -> bool:
        """Whether both contents are."""
        return all(one is None or one.data is not None for one in (self.before, self.after))


@dataclass
class Changes:
    """What people have changed.

    Attributes:
        code_dir: the folder of the code in the container.
        taken: when the base was made, in seconds since the epoch; None where it has not been made: nobody has logged
            in, and the job was not held.
        changes: what differs now.
        attempts: what differed when an attempt after a hold began, by its number.
        unsure: what changed while the entry point ran and somebody was logged in; not among `changes`.
        files: SHA-256 of the base's files, by path; "" where it is not known.
        notes: what is left out, and why, in sentences for people.
    """

    code_dir: str
    taken: float | None = None
    changes: list[Change] = field(default_factory=list)
    attempts: dict[int, list[Change]] = field(default_factory=dict)
    unsure: list[Change] = field(default_factory=list)
    files: dict[bytes, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def fetch(connection: Connection, timeout: float = FETCH_SECONDS) -> Changes:
    """Ask a container what has been changed.

    Args:
        connection: a login there.
        timeout: seconds that it may take.

    Raises:
        SmsshError: it cannot tell, its folder of code is not known or too large, or its answer is not one.
    """
    with tempfile.SpooledTemporaryFile(MEMORY) as answer:
        limit = HEADER_LIMIT + CONTENT_LIMIT

        def take(stream: str, piece: bytes) -> None:
            if stream == "stdout":
                if answer.tell() + len(piece) > limit:
                    raise _bad(f"it has more than {limit} bytes")
                answer.write(piece)

        done = connection.run(["smssh-hook", "changes"], timeout=timeout, on_output=take, limit=1 << 16)
        if done.status:
            raise _refused(done.status, done.error_text)
        answer.seek(0)
        return parse(answer)


def _refused(status: int, said: str) -> SmsshError:
    if "invalid choice" in said:
        return SmsshError(
            "the smssh in this job is older than this command, and keeps no copy of the code",
            hint="submit the job with this version; `smssh connect` shows what is there now",
            reference="old-container",
        )
    lines = said.strip().splitlines()
    why = lines[-1].removeprefix("smssh-hook: ") if lines else f"smssh-hook ended with status {status}"
    return SmsshError(f"the container cannot tell what was changed: {line(why)}", reference="hook-failed")


def parse(answer: IO[bytes]) -> Changes:
    """Read an answer; see `supervisor.code_answer.send` for its form.

    Raises:
        SmsshError: the container says that it cannot tell, or the answer is not one.
    """
    told = _header(answer)
    code_dir = told.get("code_dir")
    if not isinstance(code_dir, str) or len(code_dir) > PATH_LIMIT:
        raise _bad("it names no folder of code")
    if told.get("error"):
        raise SmsshError(
            f"the container cannot tell what was changed: {line(str(told['error'])[:500])}",
            hint="submit the code in a folder of its own, with at most 50,000 files",
            reference=NO_CODE,
        )
    if told.get("base") is not True:
        return Changes(code_dir)
    blobs = _blobs(told.get("blobs"), answer)
    reader = _Reader(blobs)
    found = Changes(code_dir, seconds(told.get("taken")) or 0.0, reader.changes(told.get("changes")))
    attempts = told.get("attempts")
    for number, changes in attempts.items() if isinstance(attempts, dict) else ():
        if not number.isascii() or not number.isdecimal() or len(number) > 6:
            raise _bad("it has an attempt without a number")
        found.attempts[int(number)] = reader.changes(changes, noted=False)
    found.unsure = reader.changes(told.get("unsure"), noted=False)
    files = told.get("files")
    for path, digest in files.items() if isinstance(files, dict) else ():
        raw = reader.path(path)
        if raw is not None:
            found.files[raw] = _digest(digest)
    found.notes = reader.notes
    for name, why in (("unread", "could not be read"), ("too_large", "is too large")):
        paths = told.get(name)
        for path in paths if isinstance(paths, list) else ():
            found.notes.append(f"{line(str(path)[:PATH_LIMIT])} {why}, and is left out")
    if len(found.notes) > NOTES_LIMIT:
        more = len(found.notes) - NOTES_LIMIT
        found.notes[NOTES_LIMIT:] = [f"{more} more files are left out, or were not read"]
    return found


def _header(answer: IO[bytes]) -> dict[str, Any]:
    """The first line that is a JSON object of ours; a login shell may greet before it."""
    for _ in range(1000):
        text = answer.readline(HEADER_LIMIT)
        if not text:
            break
        if not text.startswith(b'{"version": '):
            continue
        try:
            told = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _bad(f"it is not JSON: {error}") from error
        if isinstance(told, dict) and whole(told.get("version"), 1, 1_000_000):
            return told
    raise _bad("it is not one")


def _blobs(told: Any, answer: IO[bytes]) -> dict[str, bytes]:
    """The contents that follow, by their digests; one that was changed while it was sent is not among them."""
    blobs: dict[str, bytes] = {}
    left = CONTENT_LIMIT
    for one in told if isinstance(told, list) else ():
        if not isinstance(one, list) or len(one) != 2:
            raise _bad("a content has no size")
        digest, size = _digest(one[0]), whole(one[1], 0, left)
        if size is None:
            raise _bad("its contents are too large")
        data = answer.read(size)
        if len(data) != size:
            raise _bad("it ends too early")
        left -= size
        if hashlib.sha256(data).hexdigest() == digest:
            blobs[digest] = data
    return blobs


def _digest(value: Any) -> str:
    """A SHA-256 in hex; "" where it is not known.

    Raises:
        SmsshError: it is something else.
    """
    if value == "":
        return ""
    if not isinstance(value, str) or len(value) != 64 or value.strip("0123456789abcdef"):
        raise _bad("a digest is not one")
    return value


class _Reader:
    """Reads lists of changes.

    Args:
        blobs: the contents by their digests.
    """

    def __init__(self, blobs: dict[str, bytes]) -> None:
        self.notes: list[str] = []
        self._blobs = blobs
        self._left = PATHS_LIMIT

    def path(self, value: Any) -> bytes | None:
        """A path below the folder of the code; None for one that git would not take.

        Raises:
            SmsshError: it is not one, or there are too many.
        """
        self._left -= 1
        if self._left < 0 or not isinstance(value, str) or len(value) > PATH_LIMIT:
            raise _bad("it has too many paths, or what is not one")
        try:
            raw = value.encode("utf-8", "surrogateescape")
        except UnicodeError:
            raise _bad(f"a path cannot be one: {ascii(value)[:200]}") from None
        parts = raw.split(b"/")
        if b"\0" in raw or not all(parts) or {b".", b".."} & {*parts}:
            raise _bad(f"a path leads out of the code: {ascii(value)[:200]}")
        return None if any(_is_gits(part) for part in parts) else raw

    def changes(self, told: Any, *, noted: bool = True) -> list[Change]:
        """A list of changes, without those that cannot be in a patch.

        Args:
            told: what the container said.
            noted: whether what is left out is noted.

        Raises:
            SmsshError: it is not a list of changes.
        """
        found: dict[bytes, Change] = {}
        for one in told if isinstance(told, list) else ():
            if not isinstance(one, dict):
                raise _bad("a change is not one")
            raw = self.path(one.get("path"))
            if raw is None:
                self._note(noted, f"{line(str(one.get('path')))} is a file of git's own, and is left out")
                continue
            change = Change(raw, self._content(one.get("before")), self._content(one.get("after")))
            if any(_leads_out(raw, content) for content in (change.before, change.after)):
                self._note(noted, f"{change.name} is a link that leads out of the code, and is left out")
                continue
            if raw in found:
                raise _bad(f"{change.name} is there twice")
            found[raw] = change
        for which in ("before", "after"):
            there = {path for path, change in found.items() if getattr(change, which) is not None}
            for path in there:
                parts = path.split(b"/")
                if any(b"/".join(parts[:count]) in there for count in range(1, len(parts))):
                    raise _bad(f"{found[path].name} is below a file")
        return list(found.values())

    def _note(self, noted: bool, text: str) -> None:
        if noted:
            self.notes.append(text)

    def _content(self, told: Any) -> Content | None:
        if told is None:
            return None
        if not isinstance(told, dict):
            raise _bad("a file is not one")
        if told.get("kind") == "link":
            target = told.get("digest")
            if not isinstance(target, str) or not target or len(target) > PATH_LIMIT or "\0" in target:
                raise _bad("a link leads nowhere")
            try:
                return Content("link", target.encode("utf-8", "surrogateescape"))
            except UnicodeError:
                raise _bad("a link leads nowhere") from None
        if told.get("kind") != "file":
            raise _bad("a file is neither a file nor a link")
        digest = _digest(told.get("digest"))
        return Content("file", self._blobs.get(digest), digest)


def _is_gits(part: bytes) -> bool:
    """Whether a repository on any file system would take a name for its own `.git`."""
    name = part.decode("utf-8", "ignore").casefold()
    bare = "".join(each for each in name if each.isprintable()).rstrip(" .").partition(":")[0]
    return bare == ".git" or bare.startswith("git~")


def _leads_out(path: bytes, content: Content | None) -> bool:
    """Whether it is a link to something outside of the folder of the code."""
    if content is None or content.kind != "link" or content.data is None:
        return False
    if content.data.startswith(b"/"):
        return True
    depth = path.count(b"/")
    for part in content.data.split(b"/"):
        depth += -1 if part == b".." else 0 if part in (b"", b".") else 1
        if depth < 0:
            return True
    return False


def with_base_of(found: Changes, source: Path) -> Changes:
    """Take from a folder here what the container has only a digest of.

    Args:
        found: what was changed.
        source: the code as it was submitted.
    """

    def filled(change: Change) -> Change:
        before = change.before
        if before is None or before.kind != "file" or before.data is not None or not before.digest:
            return change
        with contextlib.suppress(OSError), _opened(source, change.path) as file:
            data = file.read(CONTENT_LIMIT + 1)
            if len(data) <= CONTENT_LIMIT and hashlib.sha256(data).hexdigest() == before.digest:
                return dataclasses.replace(change, before=dataclasses.replace(before, data=data))
        return change

    return dataclasses.replace(found, changes=[filled(one) for one in found.changes])


def differing(found: Changes, source: Path, changes: Iterable[Change]) -> list[str]:
    """The files of a folder here that are not what the base had, or that a patch needs and that are not there.

    Args:
        found: what was changed.
        source: the code as it was submitted.
        changes: what the patch holds.
    """
    needed = {change.path for change in changes if change.before is not None}
    names = []
    for path, digest in sorted(found.files.items()):
        name = line(path.decode("utf-8", "backslashreplace"))
        try:
            with _opened(source, path) as file:
                if digest and _sha256(file) != digest:
                    names.append(name)
        except OSError:
            if path in needed:
                names.append(f"{name} (not there)")
    return names


def _opened(source: Path, path: bytes) -> BinaryIO:
    """A file below a folder here. Links are not followed.

    Raises:
        OSError: there is no such file.
    """
    place = os.path.join(os.fsencode(source), path)
    if not os.path.realpath(place).startswith(os.path.realpath(os.fsencode(source)) + b"/"):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return open(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")


def _sha256(file: BinaryIO) -> str:
    """The digest of a file, which may be larger than the memory here."""
    digest = hashlib.sha256()
    for piece in iter(lambda: file.read(1 << 20), b""):
        digest.update(piece)
    return digest.hexdigest()


def _bad(why: str) -> SmsshError:
    return SmsshError(
        f"the container's answer about its code cannot be used: {why}",
        reference="bad-answer",
        status=ExitStatus.FAILED,
    )
