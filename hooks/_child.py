"""A child process that is watched, restarted if wanted, and never outlives the supervisor."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Callable, Mapping, Sequence

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Child", "tail"]

PR_SET_PDEATHSIG = 1
"""<linux/prctl.h>"""
BACK_OFF = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds before the first, second, ... restart; the last is used again."""
STEADY_SECONDS = 60.0
"""A child that ran this long starts the back-off from its beginning when it ends."""

_log = logging.getLogger("smssh.child")
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    """In the fork: end with the thread that started us, and with the default signals."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    for number in (signal.SIGINT, signal.SIGQUIT):
        # A shell that starts a job with `&` has them ignored, and an SSH server would pass that on: no ^C.
        signal.signal(number, signal.SIG_DFL)


def tail(path: Path, lines: int = 3) -> str:
    """The last lines of a log file, on one line; for messages."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return " | ".join(line.strip() for line in text.splitlines()[-lines:])


class Child:
    """One child process, started and watched in a thread of its own.

    Args:
        name: for the log.
        command: the command line; no secrets.
        environ: its environment.
        log: the file that takes its output.
        restart: whether it is started again when it ends, with a growing delay.
        on_restart: called before each restart.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environ: Mapping[str, str],
        log: Path,
        *,
        restart: bool = False,
        on_restart: Callable[[], None] | None = None,
    ) -> None:
        self._name = name
        self._command: list[str] = list(command)
        self._environ = dict(environ)
        self._log_path = log
        self._restart = restart
        self._on_restart = on_restart
        self._process: subprocess.Popen[bytes] | None = None
        self._error: OSError | None = None
        self._started = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        # The death signal is sent when the thread that forked ends, so that thread must live as long as the
        # child.
        self._thread = threading.Thread(target=self._run, name="child-" + name, daemon=True)

    def start(self) -> None:
        """Start it.

        Raises:
            OSError: the program cannot be started.
        """
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            raise self._error

    @property
    def pid(self) -> int:
        """The process id of the running child, 0 when none runs."""
        return 0 if self._process is None else self._process.pid

    def running(self) -> bool:
        """Whether it runs now."""
        return self._process is not None and self._process.poll() is None

    def send_signal(self, number: int) -> None:
        """Send a signal to it, if it runs."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(number)

    def stop(self, seconds: float) -> None:
        """SIGTERM, and SIGKILL when it still runs after `seconds`."""
        self._stopping.set()
        self.send_signal(signal.SIGTERM)
        self._thread.join(seconds)
        if self._thread.is_alive():
            self.send_signal(signal.SIGKILL)
            self._thread.join(1.0)

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            status = self._run_once()
            if status is None or not self._restart or self._stopping.is_set():
                return
            failures = 0 if time.monotonic() - began >= STEADY_SECONDS else failures + 1
            pause = BACK_OFF[min(failures, len(BACK_OFF) - 1)]
            _log.warning("%s ended with %s; started again in %.0f s", self._name, status, pause)
            self._stopping.wait(pause)
            if self._on_restart is not None and not self._stopping.is_set():
                self._on_restart()

    def _run_once(self) -> int | None:
        handle = os.open(str(self._log_path), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            with self._lock:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=handle,
                    stderr=subprocess.STDOUT,
                    env=self._environ,
                    cwd="/",
                    start_new_session=True,
                    preexec_fn=_die_with_parent,  # noqa: PLW1509 - two calls into a library that is loaded already
                )
        except OSError as error:
            self._error = error
            return None
        finally:
            os.close(handle)
            self._started.set()
        return self._process.wait()
