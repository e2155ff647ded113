"""How far the supervisor is: it starts, a login is possible or never will be, the job ends, it stops."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import protocol
    from .clock import Clock

__all__ = ["Lifecycle"]


class Lifecycle:
    """The supervisor's own state, and the lock of everything that changes with it.

    Args:
        clock: the time.
    """

    def __init__(self, clock: Clock) -> None:
        self.changed = threading.Condition()
        """Held to read and change this, the attempts and the hold; notified of each change."""
        self.stop_wanted = threading.Event()
        self.stopped = threading.Event()
        self.ready = False
        """Whether a login is possible."""
        self.error: str | None = None
        """Why no login ever will be."""
        self.ended = False
        """Whether the entry point has ended for good."""
        self._wanted = True
        self._clock = clock

    def started(self, error: str | None, *, wanted: bool) -> None:
        """The start is over, see `Operations.started`."""
        with self.changed:
            self._wanted = wanted
            self.ready = error is None
            self.error = error
            self.changed.notify_all()

    def wait_ready(self, seconds: float) -> protocol.Readiness:
        """Wait until the start is over, at most so long."""
        with self.changed:
            self._clock.wait(self.changed, lambda: self.ready or self.error is not None, seconds)
            return {"ready": self.ready, "error": self.error, "wanted": self._wanted}

    def end(self, seconds: float) -> protocol.Done:
        """The job is over: have the supervisor stop, and answer when it has, or after `seconds`."""
        self.stop_wanted.set()
        self.stopped.wait(seconds)
        return {"ok": True}
