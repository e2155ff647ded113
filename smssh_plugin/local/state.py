"""The stand-in's state folder, and the file that says whether one is running and where.

`$SMSSH_HOME/local`: `state.json` while it runs, `local.log`, `lock`, `jobs/` and `bin/` (of the job runner),
and `client/` (files for clients). This module imports nothing of aiohttp or moto.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ExitStatus, SmsshError
from ..home import home, private_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["State", "StateFolder", "already_running", "port_in_use", "process_birth"]


@dataclass(frozen=True)
class State:
    """A running stand-in."""

    pid: int
    birth: str
    """Tells its process from a later one of the same number; see `process_birth`."""
    port: int
    endpoint: str
    started: float
    """Seconds since the epoch."""
    image_env: str
    channels: str = ""
    """Where agents open their channels: https, which Amazon's insists on."""
    authority: str = ""
    """The PEM file of the authority that the certificate there is signed by."""


class StateFolder:
    """The folder and its files.

    Args:
        path: by default `$SMSSH_HOME/local`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path if path is not None else home() / "local"
        self.state_file = self.path / "state.json"
        self.log_file = self.path / "local.log"

    def make(self) -> None:
        """Make the folder, private to its owner.

        Raises:
            SmsshError: it cannot be made, or is somebody else's.
        """
        private_folder(self.path)

    def read(self) -> State | None:
        """The stand-in that runs, if one does. The file of one that was killed is removed."""
        try:
            state = State(**json.loads(self.state_file.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            self.remove()
            return None
        if process_birth(state.pid) == state.birth:
            return state
        self.remove()
        return None

    def write(self, state: State) -> None:
        """Write the file, whole or not at all."""
        descriptor, name = tempfile.mkstemp(dir=self.path, prefix=".state-")
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump(asdict(state), file)
            os.replace(name, self.state_file)
        except BaseException:
            os.unlink(name)
            raise

    def remove(self) -> None:
        """Remove the file."""
        self.state_file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def only(self) -> Iterator[bool]:
        """Hold the folder's lock; gives False where another process has it."""
        with open(self.path / "lock", "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True


def port_in_use(port: int) -> SmsshError:
    """The error for a port that something else listens on."""
    return SmsshError(
        f"port {port} on 127.0.0.1 is in use by another program",
        hint="name another one: --port PORT (0 takes a free one)",
        reference="port-in-use",
        status=ExitStatus.USAGE,
    )


def already_running(folder: StateFolder) -> SmsshError:
    """The error for a folder in which another stand-in runs."""
    return SmsshError(
        f"another smssh local runs, or is just starting, in {folder.path}",
        hint="see: smssh local status",
        reference="already-running",
    )


def process_birth(pid: int) -> str | None:
    """When a process was started, as no other process of the same number can have it; None: it is not there.

    It is the boot's identity and field 22 of /proc/PID/stat (proc(5)). A zombie counts as gone.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else f"{boot}/{fields[19]}"
