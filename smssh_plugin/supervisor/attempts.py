"""The attempts of the entry point: which one runs, how each has ended, and in what environment they run."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

from ..entrypoints import orphans
from ..hookspecs import Failure
from . import job

if TYPE_CHECKING:
    from ..hookspecs import Context
    from ..plugins import Plugins
    from . import protocol
    from .clock import Clock
    from .lifecycle import Lifecycle
    from .peers import Peers

__all__ = ["Attempts"]

HOLDERS = ("init", "toolkit")
"""Roles that wait for the end of an attempt; a `script` is only there before the first."""

_log = logging.getLogger("smssh.attempts")


class Attempts:
    """What init, or the toolkit's import hook, has told of the entry point.

    Args:
        context: the supervisor's context; its environment, folder of the code, attempt and exit status follow.
        plugins: the hooks.
        lifecycle: its lock is held for each change.
        peers: the job's other hosts.
        clock: the time.
        notify: tells people an event and its message.
        holder: whether a process is there, or is going to be, that can hold the job when an attempt ends.
    """

    def __init__(
        self,
        context: Context,
        plugins: Plugins,
        lifecycle: Lifecycle,
        peers: Peers,
        clock: Clock,
        notify: Callable[[str, str], None],
        *,
        holder: bool,
    ) -> None:
        self.number = 0
        """The attempt that runs, or the last one; 0 before the first."""
        self.running = False
        self.exit_code: int | None = None
        """How the last one has ended."""
        self.command: list[str] = []
        self.began = 0.0
        """When it started, in seconds since the epoch."""
        self.first_began = 0.0
        """When the first one started; 0 before that."""
        self.results: dict[int, protocol.AttemptResult] = {}
        self.holder = holder
        self._context = context
        self._plugins = plugins
        self._lifecycle = lifecycle
        self._peers = peers
        self._clock = clock
        self._notify = notify
        self._entry = ""
        self._left_out: list[str] = []
        self._reached_start = False
        self._before: threading.Thread | None = None

    def attach(self, message: protocol.Attach) -> protocol.Attached:
        """What runs the entry point introduces itself."""
        with self._lifecycle.changed:
            self.command = [str(part) for part in message.get("command") or ()]
            found = message.get("code_dir") or job.code_dir(
                self._context.environment, self._context.job.kind, self.command, message.get("cwd")
            )
            self._context.code_dir = str(found)
            self._entry = str(message.get("entry") or self._entry)
            self.holder = self.holder or message.get("role") in HOLDERS
        return {"ok": True, "beats": True}

    def is_first_start(self) -> bool:
        """Whether neither this was asked before nor an attempt has started."""
        with self._lifecycle.changed:
            first, self._reached_start = not self._reached_start, True
            return first

    def begin(self, message: protocol.Before) -> protocol.Began:
        """An attempt starts. Where init runs a toolkit, both say so: it is the same attempt.

        Init may come to say it when the toolkit's is over already: it started no later than that one did.
        """
        began = float(message.get("started") or self._clock.now())
        with self._lifecycle.changed:
            if self.number and began <= self.began:
                return {"ok": True, "attempt": self.number}
        self._take_environment(message)
        with self._lifecycle.changed:
            is_new = not self.running
            if is_new:
                self.running = True
                self.number += 1
                self.began = began
                self.first_began = self.first_began or began
            self._reached_start = True
            number = self.number
            self._context.attempt, self._context.exit_code = number, None
            self._lifecycle.changed.notify_all()
        self._peers.begin(number)
        if is_new:
            self._notify("running", f"attempt {number} of the entry point runs")
        # Not in the way of the entry point, which waits for the answer; what follows waits for the hooks.
        before = threading.Thread(
            target=self._before_hooks,
            args=(self._before, number, tuple(self.command)),
            name="before",
            daemon=True,
        )
        before.start()
        self._before = (
            before  # not earlier: init's word and the toolkit's come in two threads, and one may join it
        )
        return {"ok": True, "attempt": number}

    def _before_hooks(self, earlier: threading.Thread | None, attempt: int, command: Sequence[str]) -> None:
        if earlier is not None:
            earlier.join()
        self._plugins.before_entry_point(self._context, attempt, command)

    def fail(self, message: protocol.Failed) -> Failure:
        """An attempt failed; `close` ends it."""
        exit_code = int(message.get("exit_code") or 1)
        self.end_before_hooks()
        self._take_environment(message)
        with self._lifecycle.changed:
            began = self.began
            if not self.number:  # over before the socket was there; init may still come to say that it runs
                self.number, self.began = 1, self._clock.now()
                self.first_began = self.first_began or self.began
        self._context.attempt, self._context.exit_code = self.number, exit_code
        return Failure(
            attempt=self.number,
            command=tuple(self.command),
            exit_code=exit_code,
            error=message.get("error"),
            log_tail=message.get("log_tail"),
            started=began,
        )

    def close(self, exit_code: int) -> None:
        """An attempt has ended, and the hooks of its failure have run."""
        with self._lifecycle.changed:
            was_running = self.running
            number = self.number = max(1, self.number)
            self.running = False
            self.exit_code = exit_code
            self._context.attempt, self._context.exit_code = number, exit_code
            if was_running or number not in self.results:
                seconds = round(self._clock.now() - self.began, 3) if self.began else 0.0
                self.results[number] = {"attempt": number, "exit_code": exit_code, "seconds": seconds}
            self._lifecycle.changed.notify_all()
        if was_running:
            self._plugins.after_entry_point(self._context, number, exit_code)

    def end_before_hooks(self) -> None:
        """The hooks are called in order: those of the start of an attempt end before those of its end begin."""
        if self._before is not None:
            self._before.join()  # bounded by the limits of the hooks

    def end_running(self) -> None:
        """End the attempt that runs, because another host is retried; the next one starts as soon as it has ended."""
        if self._entry:
            self._notify(
                "reminder", "another host is retried: the attempt that runs here is ended, and runs again"
            )
            # What runs now, and nothing later.
            ending = orphans.find(self._entry)
            orphans.end(lambda: [pid for pid in orphans.find(self._entry) if pid in ending])

    def _take_environment(self, message: Mapping[str, Any]) -> None:
        environment = message.get("environment")
        left_out = list(message.get("left_out") or ())
        if left_out != self._left_out:
            self._left_out = left_out
            _log.warning(
                "logins go without these variables, which are too large: %s", ", ".join(left_out) or "none"
            )
        if environment:
            bundle = None if self._context.bundle is None else str(self._context.bundle)
            self._context.environment = job.login_environment(environment, bundle)
