"""What happened, in a form that a person and a program can read: collected before a hold begins.

Names of environment variables, never their values; the report leaves the container.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Mapping

from ..hookspecs import Context, Failure, hookimpl

GPU_LIMIT = 10.0
"""Seconds for nvidia-smi; a GPU that fell off the bus makes it hang."""
TEXT_LIMIT = 65536
PROCESS_LIMIT = 500


@hookimpl(trylast=True)
def smssh_collect_report(context: Context, failure: Failure) -> Mapping[str, Any]:
    """The built-in sections."""
    recorded = _recorded(context.run_dir, failure.started)
    return {
        "error": recorded.get("error") or failure.error,
        "traceback": recorded.get("traceback"),
        "environment_names": sorted(context.environment),
        "processes": _processes(),
        "disk": _disks(context),
        "gpu": _gpu(),
        "log_tail": None if failure.log_tail is None else list(failure.log_tail),
        "python": f"{sys.executable} {platform.python_version()}",
        "code_dir": context.code_dir,
    }


def _recorded(run_dir: Path, since: float) -> dict[str, str]:
    """The first traceback that boot recorded in this attempt: the other ranks fail because of it."""
    found: list[dict[str, Any]] = []
    for path in run_dir.glob("traceback-*.json"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["time"] >= since:
                found.append(record)
        except (OSError, ValueError, KeyError, TypeError):  # noqa: PERF203 - processes end while they are looked at
            continue
    first = min(found, key=lambda record: float(record["time"]), default={})
    return {name: str(first[name])[-TEXT_LIMIT:] for name in ("error", "traceback") if first.get(name)}


def _processes() -> list[dict[str, Any]]:
    page = os.sysconf("SC_PAGE_SIZE")
    table: list[dict[str, Any]] = []
    for entry in sorted((name for name in os.listdir("/proc") if name.isdigit()), key=int):
        folder = Path("/proc") / entry
        try:
            name, _, rest = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")
            fields = rest.split()
            command = (
                (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
            )
        except (OSError, ValueError):
            continue
        table.append(
            {
                "pid": int(entry),
                "ppid": int(fields[1]),
                "command": _without_secrets(command)[:1000] or "[{}]".format(name.partition("(")[2]),
                "rss_bytes": int(fields[21]) * page,
            }
        )
    return table[:PROCESS_LIMIT]


def _without_secrets(command: str) -> str:
    """A command line without an activation code; whatever else people put there is theirs, as in `ps`."""
    words = command.split(" ")
    for index, word in enumerate(words[:-1]):
        if word == "-code":
            words[index + 1] = "..."
    return " ".join(words)


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
