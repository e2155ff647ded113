"""A child process that is watched, restarted if wanted, and never outlives the supervisor."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Callable, Mapping, Sequence

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Child", "die_with", "tail", "trim"]

PR_SET_PDEATHSIG = 1
"""<linux/prctl.h>"""
BACK_OFF = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds before the first, second, ... restart; the last is used again."""
STEADY_SECONDS = 60.0
"""A child that ran this long starts the back-off from its beginning when it ends."""
LOG_LIMIT = 1 << 20
"""Bytes from which a log is cut to its last half; the half before it is kept beside it, as `*.old`."""
TRIM_SECONDS = 10.0
"""How often the size of a log is looked at."""

_log = logging.getLogger("smssh.child")
_libc = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int) -> None:
    """In the fork: end with the thread that started us, and with the default signals.

    Args:
        parent: the process of that thread.
    """
    # SIGTERM before all: the supervisor's handler would only note it, and the program that comes not know of it.
    # A shell that starts a job with `&` has the others ignored, and an SSH server would pass that on: no ^C.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before it could be told of
        os._exit(1)


def _expendable(parent: int) -> None:
    """In the fork: when memory runs out, the kernel takes this process and not the job's (proc(5))."""
    die_with(parent)
    with contextlib.suppress(OSError):
        handle = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(handle, b"1000")
        os.close(handle)


def tail(path: Path, lines: int = 3) -> str:
    """The last lines of a log file, on one line; for messages."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return " | ".join(line.strip() for line in text.splitlines()[-lines:])


def trim(path: Path, limit: int = LOG_LIMIT) -> None:
    """Empty a log that is larger than `limit` bytes; its last half goes to `*.old`.

    The writer goes on, through a descriptor that appends. What is written between the copy and the
    cut is lost.
    """
    try:
        if path.stat().st_size <= limit:
            return
        with path.open("r+b") as log:
            log.seek(-(limit // 2), os.SEEK_END)
            kept = log.read()
            log.truncate(0)
        # After the cut: on a full disk there is room for it now.
        path.with_name(path.name + ".old").write_bytes(kept)
    except OSError as error:
        _log.debug("%s is not cut: %s", path, error)


class Child:
    """One child process, started and watched in a thread of its own.

    Args:
        name: for the log.
        command: the command line; no secrets.
        environ: its environment.
        log: the file that takes its output, at most 1.5 times LOG_LIMIT and what is written in TRIM_SECONDS.
        restart: whether it is started again when it ends, with a growing delay.
        on_restart: called before each restart.
        expendable: whether the kernel takes it first when memory runs out.
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
        expendable: bool = False,
    ) -> None:
        self._name = name
        self._command: list[str] = list(command)
        self._environ = dict(environ)
        self._log_path = log
        self._restart = restart
        self._on_restart = on_restart
        self._prepare = functools.partial(_expendable if expendable else die_with, os.getpid())
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
        threading.Thread(target=self._keep_log_short, name="log-" + self._name, daemon=True).start()

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
        failures = -1
        first = True
        while not self._stopping.is_set():
            began = time.monotonic()
            status = self._run_once()
            if not self._restart or self._stopping.is_set() or (first and self._error is not None):
                return
            first = False
            failures = 0 if time.monotonic() - began >= STEADY_SECONDS else failures + 1
            pause = BACK_OFF[min(failures, len(BACK_OFF) - 1)]
            _log.warning("%s ended with %s; started again in %.0f s", self._name, status, pause)
            self._stopping.wait(pause)
            if self._on_restart is not None and not self._stopping.is_set():
                self._on_restart()

    def _run_once(self) -> int | OSError:
        """Its exit status, or what kept it from being started."""
        handle = self._open_log()
        try:
            with self._lock:
                # Once stop() has set the event and has had the lock, nothing is started any more.
                if self._stopping.is_set():
                    return 0
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=handle,
                    stderr=subprocess.STDOUT,
                    env=self._environ,
                    cwd="/",
                    start_new_session=True,
                    preexec_fn=self._prepare,  # noqa: PLW1509 - calls into what is loaded already
                )
        except OSError as error:
            self._error = error
            return error
        finally:
            os.close(handle)
            self._started.set()
        return self._process.wait()

    def _open_log(self) -> int:
        try:
            return os.open(str(self._log_path), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError:  # a full disk, for one: better no log than no child
            return os.open(os.devnull, os.O_WRONLY)

    def _keep_log_short(self) -> None:
        while not self._stopping.wait(TRIM_SECONDS):
            trim(self._log_path)
