"""The sessions of an agent, each in a process of its own.

As with the real agent, a session outlives the agent that started it: a restarted agent takes over the sessions
that still run, and reports those that ended meanwhile. What it needs for that is in a folder: a file for each
session, with its process, and with its result once there is one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

from ...processes import process
from .session_kind import Result
from .setup import write_private

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Sessions", "valid_id"]

_LOG = logging.getLogger("amazon-ssm-agent")
_ID = re.compile(r"[A-Za-z0-9_.@:+=-]{1,160}")
_TROUBLE = "document process failed unexpectedly: check [ssm-session-worker] log for crash reason"
"""The real agent's words; it takes a minute to notice, the fake agent does at once."""


def valid_id(session_id: str) -> bool:
    """Whether it can be a session's id, which names a file."""
    return bool(_ID.fullmatch(session_id)) and not session_id.startswith(".")


class Sessions:
    """Starts, ends and reports sessions.

    Args:
        folder: for the files; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[str, int] = {}
        self._children: set[int] = set()
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            record = _read(path)
            self._processes[path.stem] = int(record.get("pid") or 0)

    def __len__(self) -> int:
        """How many have not been reported."""
        return len(self._processes)

    def __contains__(self, session_id: object) -> bool:
        return session_id in self._processes

    @property
    def inherited(self) -> bool:
        """Whether some were started by an agent before: their end sends no signal here."""
        return any(pid not in self._children for pid in self._processes.values())

    def start(self, session_id: str, work: Callable[[int], Result]) -> None:
        """Run a session in a new process.

        Args:
            session_id: its id.
            work: runs it to its end; is given a descriptor that becomes readable when it is to end.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        pid = os.fork()
        if pid == 0:
            _be_worker(self._path(session_id), work)
        self._children.add(pid)
        self._processes[session_id] = pid
        self._write(session_id, {"pid": pid, "born": _born(pid)})

    def cancel(self, session_id: str) -> None:
        """Ask a session to end."""
        pid = self._processes.get(session_id)
        if pid is not None and self._lives(session_id, pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def ended(self) -> list[tuple[str, Result]]:
        """The sessions that have ended since the last call, with their results; they are forgotten."""
        found = []
        for session_id, pid in list(self._processes.items()):
            if self._lives(session_id, pid):
                continue
            record = _read(self._result_path(session_id))
            result = Result.failed(_TROUBLE)
            if record.get("status"):
                result = Result(str(record["status"]), str(record.get("output") or ""))
            found.append((session_id, result))
            del self._processes[session_id]
            self._children.discard(pid)
            for path in (self._path(session_id), self._result_path(session_id)):
                path.unlink(missing_ok=True)
        return found

    def _lives(self, session_id: str, pid: int) -> bool:
        if pid in self._children:
            try:
                return os.waitpid(pid, os.WNOHANG) == (0, 0)
            except ChildProcessError:
                return False
        born = _born(pid)
        return born != "" and born == _read(self._path(session_id)).get("born")

    def _path(self, session_id: str) -> Path:
        return self._folder / f"{session_id}.json"

    def _result_path(self, session_id: str) -> Path:
        return self._folder / f"{session_id}.result"

    def _write(self, session_id: str, record: dict[str, Any]) -> None:
        write_private(self._path(session_id), json.dumps(record))


def _be_worker(path: Path, work: Callable[[int], Result]) -> NoReturn:
    """What a new process does: run the session, leave its result, go. Nothing of the agent's is touched."""
    status = 1
    try:
        # The agent's control channel among them: it must end with the agent.
        for fd in [int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2]:
            with contextlib.suppress(OSError):  # the one of the listing itself
                os.close(fd)
        wake, waker = os.pipe()
        for number in (signal.SIGINT, signal.SIGHUP):
            # Not SIG_IGN, which the session's own programs would inherit.
            signal.signal(number, lambda _number, _frame: None)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, lambda _number, _frame: os.write(waker, b"x"))
        result = work(wake)
        record = {"status": result.status, "output": result.output}
        write_private(path.with_suffix(".result"), json.dumps(record))
        status = 0
    except BaseException:  # noqa: BLE001 - this is the process' last frame
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(status)


def _read(path: Path) -> dict[str, Any]:
    """A record; an empty one for what is missing or none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _born(pid: int) -> str:
    """When a process started, in the kernel's ticks; "" for none, or one that has ended."""
    found = process(pid)
    return str(found.started) if found is not None and found.alive else ""
