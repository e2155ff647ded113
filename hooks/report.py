"""What happened, in a form that a person and a program can read: collected before a hold begins.

Names of environment variables, never their values; the report leaves the container.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Mapping

from ..container import memory, tracebacks
from ..container.redaction import Redaction
from ..hookspecs import Context, Failure, hookimpl
from ..processes import processes

GPU_LIMIT = 10.0
"""Seconds for nvidia-smi; a GPU that fell off the bus makes it hang."""
TEXT_LIMIT = 65536
PROCESS_LIMIT = 500
COMMAND_LIMIT = 1000
OTHERS_LIMIT = 10
"""How many uncaught exceptions that did not end the attempt are named."""
_before: dict[str, int] = {}
"""The container's memory when the attempt began."""


@hookimpl(trylast=True)
def smssh_collect_report(context: Context, failure: Failure) -> Mapping[str, Any]:
    """The built-in sections."""
    records = tracebacks.read(context.run_dir, failure.started)
    fatal = tracebacks.fatal(records, failure.exit_code, time.time())
    return {
        "error": (failure.error or tracebacks.signal_text(failure.exit_code))
        if fatal is None
        else fatal.error,
        "traceback": None if fatal is None else fatal.traceback,
        "error_thread": fatal.thread if fatal is not None and fatal.thread else None,
        "other_errors": [_brief(record) for record in records if record is not fatal][-OTHERS_LIMIT:],
        "environment_names": sorted(context.environment),
        "processes": _processes(Redaction(context.environment)),
        "disk": _disks(context),
        "gpu": _gpu(),
        "memory": _memory(),
        "log_tail": None if failure.log_tail is None else list(failure.log_tail),
        "python": f"{sys.executable} {platform.python_version()}",
        "code_dir": context.code_dir,
    }


@hookimpl
def smssh_before_entry_point() -> None:
    """Remember what the attempts before have cost."""
    _before.update(memory.read())


def _memory() -> dict[str, int]:
    """What `memory.read` gives, with the `oom_kills` of this attempt alone."""
    found = memory.read()
    if "oom_kills" in found:
        found["oom_kills"] = max(0, found["oom_kills"] - _before.get("oom_kills", 0))
    return found


def _brief(record: tracebacks.Record) -> dict[str, Any]:
    """An exception that did not end the attempt, as far as can be told."""
    return {
        "pid": record.pid,
        "time": record.time,
        "command": " ".join(record.command)[:COMMAND_LIMIT],
        "error": record.error,
        **({"thread": record.thread} if record.thread else {}),
    }


def _processes(redaction: Redaction) -> list[dict[str, Any]]:
    page = os.sysconf("SC_PAGE_SIZE")
    table: list[dict[str, Any]] = []
    for each in processes():
        try:
            words = (
                Path(f"/proc/{each.pid}/cmdline")
                .read_bytes()
                .decode("utf-8", "replace")
                .rstrip("\0")
                .split("\0")
            )
        except OSError:
            continue
        table.append(
            {
                "pid": each.pid,
                "ppid": each.parent,
                "command": " ".join(redaction.command(words))[:COMMAND_LIMIT]
                or "[{}]".format(each.name.decode("utf-8", "replace")),
                "rss_bytes": each.resident * page,
            }
        )
    return table[:PROCESS_LIMIT]


def _disks(context: Context) -> list[dict[str, Any]]:
    seen = set()
    disks: list[dict[str, Any]] = []
    base = context.environment.get("SAGEMAKER_BASE_DIR") or "/opt/ml"
    for path in ("/", "/tmp", "/dev/shm", base, str(Path(base) / "input" / "data"), str(context.run_dir)):  # noqa: S108 - looked at, not written to
        try:
            device = os.stat(path).st_dev
            usage = shutil.disk_usage(path)
        except OSError:
            continue
        if device not in seen:
            seen.add(device)
            disks.append(
                {
                    "path": path,
                    "total_bytes": usage.total,
                    "used_bytes": usage.used,
                    "free_bytes": usage.free,
                }
            )
    return disks


def _gpu() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program], stdin=subprocess.DEVNULL, capture_output=True, timeout=GPU_LIMIT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi: {error}"
    return (done.stdout + done.stderr).decode("utf-8", "replace")[:TEXT_LIMIT]
