"""What was changed in the steps that the debugger watches, by anybody: taken at each look, and put into the report."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..client.addresses import DEFAULT_HOST
from .changes import fetch
from .diff import of_changes
from .incidents import HostChanges

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..client.connection import Connection
    from .changes import Change, Changes, Content
    from .diff import Diff
    from .incidents import Report

    _Made = dict[tuple[object, ...], Diff]

__all__ = ["Captured"]

DIFF_LIMIT = 1 << 16
"""Characters of a diff that the report shows; the files beside it have all of it."""
ATTEMPTS_KEPT = 200
"""Attempts of a host whose diffs are kept; the newest."""
FETCH_SECONDS = 120.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,255}\Z")
"""The names of steps that can be names of files."""


@dataclass
class _Host:
    """What is known of one host.

    Attributes:
        name: algo-1, algo-2, ...
        seen: when it was looked at last.
        current: what was changed then.
        upcoming: the number of the attempt that begins with that; 0 if one ran.
        attempts: with what each attempt began, by its number.
        made: the diffs of the last look, by their contents: they are the same at most looks.
    """

    name: str
    seen: float = 0.0
    current: Diff | None = None
    upcoming: int = 0
    attempts: dict[int, Diff] = field(default_factory=dict)
    made: _Made = field(default_factory=dict)


class Captured:
    """What was changed, of all hosts; for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hosts: dict[tuple[str, str], _Host] = {}
        self._said: set[tuple[str, str, str]] = set()

    def take(self, connection: Connection, step: str, address: str, host: str, upcoming: int) -> None:
        """Look at a host.

        Args:
            connection: a login there.
            step: the name of its step.
            address: the address that people type.
            host: its name.
            upcoming: the number of the attempt that begins with what is there now; 0 if one runs.

        Raises:
            SmsshError: as `changes.fetch` and `diff.of_changes`.
        """
        found = fetch(connection, FETCH_SECONDS)
        if found.taken is None:
            return
        with self._lock:
            known = self._hosts.setdefault((step, address), _Host(host))
        before = known.made
        made: _Made = {}
        current = _diff(before, made, found, found.changes)
        attempts = {number: _diff(before, made, found, changes) for number, changes in found.attempts.items()}
        with self._lock:
            known.made = made
            known.seen, known.current, known.upcoming = time.time(), current, upcoming
            known.attempts.update(attempts)
            for number in sorted(known.attempts)[:-ATTEMPTS_KEPT]:
                del known.attempts[number]

    def is_new(self, step: str, address: str, trouble: str) -> bool:
        """Whether this trouble with a host has not been asked about before."""
        with self._lock:
            known = (step, address, trouble) in self._said
            self._said.add((step, address, trouble))
        return not known

    def fill(self, report: Report) -> None:
        """Put it into the report: the diff of each attempt, and the patch of each step."""
        with self._lock:
            hosts = sorted(
                self._hosts.items(), key=lambda item: (item[0][0], item[1].name != DEFAULT_HOST, item[0])
            )
        report.changes, report.patches = [], {}
        for (step, address), host in hosts:
            for attempt in report.attempts:
                if (attempt.step, attempt.address) == (step, address):
                    last = host.current if attempt.attempt == host.upcoming else None
                    made = host.attempts.get(attempt.attempt, last)
                    attempt.diff = "" if made is None else _text(made.patch)
            if host.current is None or not (host.current.patch or host.current.notes):
                continue
            report.changes.append(_host_changes(report, step, address, host, host.current))


def _diff(before: _Made, made: _Made, found: Changes, changes: Sequence[Change]) -> Diff:
    """The diff of some changes; the one that was made at this look or the one before, if they are the same."""
    key = (*found.notes, *((one.path, _key(one.before), _key(one.after)) for one in changes))
    if key not in made:
        made[key] = before.get(key) or of_changes(found, list(changes), named=False)
    return made[key]


def _key(side: Content | None) -> tuple[object, ...]:
    """What tells one content from another, and whether it is known."""
    if side is None:
        return ()
    return (side.kind, side.digest or side.data, side.data is None)


def _host_changes(report: Report, step: str, address: str, host: _Host, made: Diff) -> HostChanges:
    """One host's changes; its patch is put among those that are written beside the report."""
    name = ""
    if made.patch and _NAME.match(step):
        # One patch for a step is what --fixes takes; a host whose changes are others has a file that it does not take.
        name = f"{step}.patch"
        if report.patches.get(name, made.patch) != made.patch:
            name = f"{step}.{host.name}.diff"
        report.patches[name] = made.patch
    return HostChanges(
        step,
        address,
        code_dir=made.code_dir,
        seen=host.seen,
        files=[one.name for one in made.changes],
        diff=_text(made.patch),
        notes=made.notes,
        patch_file=name,
    )


def _text(patch: bytes) -> str:
    """A patch for the report, with a line that says what is cut."""
    text = patch.decode("utf-8", "replace")
    if len(text) <= DIFF_LIMIT:
        return text
    kept = text[:DIFF_LIMIT].rpartition("\n")[0]
    return f"{kept}\n... {len(text) - len(kept)} more characters are left out here\n"
