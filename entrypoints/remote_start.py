"""Start an SSH server in a container that has none: what `smssh remote-debug JOB --install` runs there.

`session/remote_install.py` unpacks a bundle through a shell of the agent and runs this in it. It starts `smssh-hook
placeholder`, unless a supervisor is there already, and prints the status of its SSH server as JSON between two marks.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

from . import boot, supervisor_client

TYPE_CHECKING = False  # typing itself is not imported where a bundle is started
if TYPE_CHECKING:
    from typing import Any

__all__ = ["main"]

BEGIN, END = "smssh:\x02", "\x03"
"""The marks around the answer; see `session/remote_install.py`."""
START_LIMIT = 100.0
"""Seconds that a server has to come up."""


def main() -> None:
    """Start a server or find the one that is there; the arguments are the bundle's folder and `--idle`."""
    folder, idle = sys.argv[1:3]
    environ = _environment()
    os.environ.clear()
    os.environ.update(environ)
    run = boot.run_dir(create=True)
    present = run is not None and supervisor_client.supervisor_alive(run)
    if not present:
        _start(folder, idle)
    found = _server()
    if present:  # what was sent is of no use; before the answer, which ends the session
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(BEGIN + json.dumps(found) + END)
    sys.stdout.flush()


def _environment() -> dict[str, str]:
    """The job's variables, which a shell of the agent does not have, and of this shell's what the job has not."""
    environ = {}
    try:
        with open("/proc/1/environ", "rb") as inherited:
            for entry in inherited.read().split(b"\0"):
                name, _, value = entry.partition(b"=")
                if name:
                    environ[os.fsdecode(name)] = os.fsdecode(value)
    except OSError:
        pass
    ours = {name: value for name, value in os.environ.items() if name.startswith("SMSSH_")}
    return {**os.environ, **environ, **ours, boot.ENABLE: "1", "SMSSH_TRANSPORT": "none"}


def _start(folder: str, idle: str) -> None:
    with open(os.path.join(folder, "placeholder.log"), "ab") as log:
        subprocess.Popen(
            ["sh", os.path.join(folder, "run.sh"), "smssh-hook", "placeholder", "--idle", idle],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )


def _server() -> dict[str, Any]:
    """The status of the SSH server, and the error if there is no server, once the supervisor knows either."""
    deadline = time.monotonic() + START_LIMIT
    while True:
        status = supervisor_client.status()
        if status is not None and (status["ssh"]["port"] or status["error"]):
            return {**status["ssh"], "error": status["error"]}
        if time.monotonic() >= deadline:
            return {"error": None}
        time.sleep(0.1)
