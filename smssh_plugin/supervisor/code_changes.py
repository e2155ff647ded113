"""What people change in the job's code: a copy of the folder from before the first change, and what differs from it.

The copy is the *base*. It is made when a hold begins, or when the first person logs in, whichever comes first: a job
that is not held and that nobody enters has none. It lies in the run folder, which is the container's own, and it is not
the code as it was submitted: a file that a toolkit or the script has made since is part of it.

What the entry point writes is not a person's change. While it runs, files differ for both reasons, and nothing says who
wrote one. So the folder is compared when an attempt begins and when it has ended, and between the two:

- nobody was logged in: all of it is the entry point's, and the base follows;
- somebody was, or a look came too late or not at all, as on a slow network file system: a change of a file that is
  older than the job is a person's; all else is the entry point's, and is named, because it may be wrong (`unsure`).

A file that a person had changed before the attempt stays a person's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import logging
import shutil
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Mapping

from ..files import AtomicFile, write_atomically
from .code_tree import SECONDS_LIMIT, Change, Entry, Tree, differing, digests, read, scan

if TYPE_CHECKING:
    from pathlib import Path

    from ..hookspecs import Context

__all__ = ["FOLDER", "CodeChanges", "followed", "tree_of"]

FOLDER = "code"
"""Of the run folder: state.json, objects/ with contents by their SHA-256, and MARKER."""
MARKER = "kept"
"""There while a login need not ask for a base; see container/login_shell.py."""
FILES_LIMIT = 5000
"""Files whose contents are kept; of larger trees the smallest."""
BYTES_LIMIT = 50 << 20
"""Bytes of contents that are kept."""
DISK_PART = 10
"""At most a tenth of what is free on the disk is taken: the rest is the job's."""
ATTEMPTS_KEPT = 20
"""Attempts of which the changes are kept; the newest."""

_log = logging.getLogger("smssh.code")


class CodeChanges:
    """The base of one container, and what has become of it.

    No method raises, and none keeps its caller for longer than SECONDS_LIMIT.

    Args:
        context: the supervisor's context.
        now: the time in seconds since the epoch.
        connected: counts the people who are logged in.
    """

    def __init__(self, context: Context, now: Callable[[], float], connected: Callable[[], int]) -> None:
        self._context = context
        self._now = now
        self._connected = connected
        self._lock = threading.Lock()
        self._late: threading.Thread | None = None
        """A look that nobody waits for any more."""
        self._missed = False
        """Whether there was no look at a moment that parts people's changes from the entry point's."""
        self._store = _Store(context.run_dir / FOLDER)
        self._base: Tree = {}
        self._last: Tree = {}
        """The folder when the running attempt began, or when the base was made."""
        self._state: dict[str, Any] = {}
        # Of an earlier life of a container that was started again.
        shutil.rmtree(self._store.folder, ignore_errors=True)

    def moved(self) -> None:
        """The folder of the code may be another one now: the next login asks again."""
        with contextlib.suppress(OSError):
            (self._store.folder / MARKER).unlink()

    def logged_in(self, *, running: bool, began: float) -> None:
        """A person logs in, and may write from now on.

        Args:
            running: whether an attempt runs, so that what changes may be its work.
            began: when the first attempt began, in seconds since the epoch; 0 if none has.
        """
        self._bounded(lambda: self._logged_in(running, began))

    def held(self, began: float, *, taken: bool = True) -> None:
        """An attempt has ended, and a hold begins: what changes from now on is people's.

        Args:
            began: when the first attempt began.
            taken: whether a missing base is made. A host that only stays because others run may end as soon
                as they do; there, the first login makes it.
        """
        if taken or self._state:
            self._bounded(lambda: self._held(began))

    def begins(self, attempt: int) -> None:
        """A hold has ended, and an attempt begins.

        Args:
            attempt: its number.
        """
        self._bounded(lambda: self._begins(attempt))

    # ---------------------------------------------------------------------------- each in a thread of its own

    def _bounded(self, work: Callable[[], None]) -> None:
        """Do it in a thread that nobody waits for longer than SECONDS_LIMIT, one after the other."""

        def locked() -> None:
            with self._lock:
                try:
                    work()
                except Exception as error:  # noqa: BLE001 - the job goes on, whatever is wrong with us
                    self._fail(error)

        if self._late is not None and self._late.is_alive():
            self._missed = True
            return  # this one would only wait for that one
        thread = threading.Thread(target=locked, name="code-changes", daemon=True)
        thread.start()
        thread.join(SECONDS_LIMIT)
        if thread.is_alive():
            self._late = thread
            _log.warning(
                "a look at the job's code takes longer than %d s; nothing waits for it", SECONDS_LIMIT
            )

    def _fail(self, error: Exception) -> None:
        _log.warning("the job's code was not looked at: %s: %s", type(error).__name__, error)
        if not self._is_current():
            self._state = {"code_dir": self._context.code_dir, "error": str(error)}
            with contextlib.suppress(OSError):
                self._store.write_state(self._state)
        with contextlib.suppress(OSError):  # the same would happen at each login
            self._store.mark()

    def _is_current(self) -> bool:
        """Whether there is a base, of the folder that is the code's now."""
        return bool(self._state.get("taken")) and self._state["code_dir"] == self._context.code_dir

    def _logged_in(self, running: bool, began: float) -> None:
        if not self._is_current():
            self._take("login", running, began)
        if running:
            self._state["people"] = True
            self._save()
        self._store.mark()

    def _held(self, began: float) -> None:
        missed, self._missed = self._missed, False
        if self._is_current():
            if self._state["running"] or missed:
                now = self._scan(self._last)
                if missed or self._is_late():
                    self._state["people"] = (
                        True  # who may have written before this look, or while it took so long
                    )
                self._follow(now)
                self._state["running"] = False
                self._save()
        else:
            self._take("hold", False, began)
        self._store.mark()

    def _begins(self, attempt: int) -> None:
        if not self._is_current():
            return
        missed, self._missed = self._missed, False
        now = self._scan(self._last)
        if self._is_late():
            self._missed = True  # the attempt may have written by now: it is all compared once it has ended
        else:
            if missed:
                self._state["people"] = True
                self._follow(now)
            self._last = now
            self._note_attempt(attempt)
        self._state.update(running=True, people=self._connected() > 0)
        self._save()
        self.moved()  # a login says that somebody may write in this attempt, too

    def _note_attempt(self, attempt: int) -> None:
        """Keep what is changed when an attempt begins."""
        changed = differing(self._base, self._last)
        self._store.keep(self._context.code_dir, self._last, {path for path, _, after in changed if after})
        attempts = self._state["attempts"]
        attempts[str(attempt)] = [_plain_change(change) for change in changed]
        for number in sorted(attempts, key=int)[:-ATTEMPTS_KEPT]:
            del attempts[number]

    def _is_late(self) -> bool:
        """Whether nobody waits any more for the look that calls this."""
        return threading.current_thread() is self._late

    def _take(self, why: str, running: bool, began: float) -> None:
        """Make the base.

        Raises:
            TooLargeError: the folder has too many files.
            ValueError: it is not a folder of code.
            OSError: it cannot be read at all.
        """
        code_dir = self._context.code_dir
        self._store.clear()
        tree = scan(code_dir, self._context.run_dir, {}, hashed=False)
        self._store.keep(code_dir, tree, None)
        digests(code_dir, tree)
        self._base, self._last = dict(tree), tree
        self._state = {
            "version": 1,
            "code_dir": code_dir,
            "taken": self._now(),
            "why": why,
            "began": began,
            "running": running,
            "people": running,
            "unsure": {},
            "attempts": {},
        }
        self._save()

    def _scan(self, known: Tree) -> Tree:
        return scan(self._context.code_dir, self._context.run_dir, known)

    def _follow(self, now: Tree) -> None:
        """The base follows what the entry point has written since its attempt began."""
        before = self._base
        self._base, unsure = followed(before, self._last, now, self._state)
        for path in unsure:
            self._state["unsure"].setdefault(path, before[path].plain() if path in before else None)
        new = {path for path, entry in self._base.items() if not entry.same(self._last.get(path))}
        self._store.keep(self._context.code_dir, self._base, new)
        self._last = now

    def _save(self) -> None:
        self._store.write_state(
            {
                **self._state,
                "base": {path: entry.plain() for path, entry in self._base.items()},
                "last": {path: entry.plain() for path, entry in self._last.items()},
            }
        )


class _Store:
    """The folder with the contents.

    Args:
        folder: the folder; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0
        self._bytes = 0

    def clear(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._count = self._bytes = 0

    def mark(self) -> None:
        """Logins need not ask."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        write_atomically(self.folder / MARKER, "")

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Write state.json."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        write_atomically(self.folder / "state.json", json.dumps(state))

    def keep(self, code_dir: str, tree: Tree, paths: set[str] | None) -> None:
        """Copy the contents of files, the smallest first, and put their digests into the tree.

        Args:
            code_dir: the folder of the code.
            tree: what is in it.
            paths: which files; None: all.
        """
        objects = self.folder / "objects"
        objects.mkdir(mode=0o700, parents=True, exist_ok=True)
        deadline = time.monotonic() + SECONDS_LIMIT
        left = min(BYTES_LIMIT, self._bytes + shutil.disk_usage(objects).free // DISK_PART)
        chosen = [path for path in (tree if paths is None else paths) if tree[path].kind == "file"]
        for path in sorted(chosen, key=lambda each: (tree[each].size, each)):
            entry = tree[path]
            if entry.digest and (objects / entry.digest).exists():
                continue
            full = self._count >= FILES_LIMIT or self._bytes + entry.size > left
            if full or time.monotonic() > deadline:
                break
            try:
                with AtomicFile(objects / f"new-{self._count}") as file:
                    size, digest = read(code_dir, path, file.write, left - self._bytes)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    _log.warning("nothing of the job's code is kept: %s", error.strerror)
                    shutil.rmtree(objects, ignore_errors=True)  # the job needs the room
                    self._count = self._bytes = 0
                    break
                tree[path] = dataclasses.replace(entry, problem=str(error.strerror or error))
                continue
            (objects / f"new-{self._count}").replace(objects / digest)
            self._count += 1
            self._bytes += size
            tree[path] = dataclasses.replace(entry, digest=digest, size=size)


def followed(base: Tree, last: Tree, now: Tree, state: Mapping[str, Any]) -> tuple[Tree, list[str]]:
    """The base with what the entry point has written between two looks, and the paths that may be a person's."""
    new, unsure = dict(base), []
    for path, before, after in differing(last, now):
        known = base.get(path)
        if not (before is None and known is None) and not (known is not None and known.same(before)):
            continue  # a person had changed it before
        is_older = before is not None and bool(before.times) and before.times[0] < state["began"] * 1e9
        if state["people"] and is_older:
            continue
        if state["people"]:
            unsure.append(path)
        if after is None:
            new.pop(path, None)
        else:
            new[path] = after
    return new, unsure


def tree_of(plain: Mapping[str, list[Any]]) -> Tree:
    """A tree as state.json has it."""
    return {path: Entry.of_plain(entry) for path, entry in plain.items()}


def _plain_change(change: Change) -> list[Any]:
    path, before, after = change
    return [path, before and before.plain(), after and after.plain()]
