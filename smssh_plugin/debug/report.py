"""The report folder: report.json (schema version 1, the fields of `incidents.Report`), report.html, and patches.

In report.json times are UTC, ISO 8601 with milliseconds; spans are seconds. Environments are listed by name only, and
the container has masked what a name gives away as a secret; both files are their owner's alone all the same.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
from typing import TYPE_CHECKING, Any

from ..errors import ExitStatus, SmsshError
from ..files import write_atomically
from .report_html import page
from .validate import seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .incidents import Report

__all__ = ["as_json", "check", "write"]

_TIMES = frozenset(
    {"began", "deadline", "ended", "found", "generated", "held_since", "resolved", "seen", "started", "time"}
)


def as_json(report: Report) -> dict[str, Any]:
    """The report as report.json holds it."""
    found: dict[str, Any] = _plain(dataclasses.asdict(dataclasses.replace(report, patches={})))
    del found["patches"]
    for incident, plain in zip(report.incidents, found["incidents"], strict=True):
        plain["error"] = incident.error if incident.point == "failure" else None
    return {"version": found.pop("version"), **found}


def check(folder: Path) -> None:
    """See that `write` will be able to, hours later; nothing is made.

    Raises:
        SmsshError: it will not.
    """
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    if not there.is_dir():
        raise _unwritable(folder, f"{there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise _unwritable(folder, f"{there} is not writable")


def write(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write report.json and report.html into `folder`, which is made; answers their paths.

    Raises:
        SmsshError: they cannot be written.
    """
    made: dict[Path, Callable[[], str]] = {
        folder / "report.json": lambda: json.dumps(as_json(report), indent=2) + "\n",
        folder / "report.html": lambda: page(report),
    }
    failed: list[Exception] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, make in made.items():
            try:
                text = make()
            except Exception as error:  # noqa: BLE001 - the other one is written all the same
                failed.append(error)
                continue
            # Output of a job may hold halves of characters; they are shown as such, and must not stop the
            # report. Private: output may hold secrets, and the machine may be shared.
            write_atomically(path, text.encode("utf-8", "replace"))
        for name, patch in report.patches.items():
            write_atomically(folder / name, patch)
    except OSError as error:
        raise _unwritable(folder, str(error.strerror)) from error
    if failed:
        raise SmsshError(
            f"a part of the report in {folder} is missing: {type(failed[0]).__name__}: {failed[0]}",
            hint="report this as a bug; the other file was written",
            reference="report-incomplete",
            status=ExitStatus.FAILED,
        ) from failed[0]
    json_path, html_path = made
    return json_path, html_path


def _unwritable(folder: Path, why: str) -> SmsshError:
    return SmsshError(
        f"cannot write the report to {folder}: {why}",
        hint="name another folder with --report",
        reference="report-not-writable",
        status=ExitStatus.FAILED,
    )


def _plain(value: Any, name: str = "") -> Any:
    """Times as text; all else as it is. What the container and probes told is passed on unchanged."""
    if isinstance(value, dict):
        return {
            key: item if key in ("report", "probes") else _plain(item, key) for key, item in value.items()
        }
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if name in _TIMES and isinstance(value, (int, float)):
        if seconds(value) is None:
            return None
        when = dt.datetime.fromtimestamp(value, dt.timezone.utc)
        return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, float):
        return round(value, 3)
    return value
