"""Since when nobody is logged in to this container; `people` says who counts as logged in."""

from __future__ import annotations

import sys
import threading
import time

from .workers import Workers

TYPE_CHECKING = False  # typing itself is not imported in the job's interpreters
if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Collection

__all__ = ["Watch", "is_last_session_timeout"]


class Watch:
    """For how long nobody has been connected.

    Args:
        seconds: after which time is up.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def over(self, connected: int) -> bool:
        """Whether time is up.

        Args:
            connected: how many are connected now.
        """
        if connected:
            self._last = time.monotonic()
        return time.monotonic() - self._last >= self._seconds

    @property
    def left(self) -> float:
        """Seconds until time is up, if nobody connects."""
        return max(0.0, self._seconds - (time.monotonic() - self._last))


_imported = time.monotonic()
_lock = threading.Lock()
_workers = Workers()


def is_last_session_timeout(time_delta: timedelta) -> bool:
    """Whether nobody has been connected to this container for `time_delta`; for the loop of a placeholder script.

    As sagemaker-ssh-helper's function of this name, whose clock starts with its import too:

        while not is_last_session_timeout(timedelta(minutes=30)):
            time.sleep(10)

    What counts is what `people` says. Where no supervisor answers, nobody can be connected over SSH.

    Args:
        time_delta: how long a last session is waited for.
    """
    global _imported  # noqa: PLW0603 - the function has no other place for it
    connected = _connected()
    with _lock:
        if connected:
            _imported = time.monotonic()
        left = time_delta.total_seconds() - (time.monotonic() - _imported)
    sys.stdout.write(
        f"smssh: {connected} connected" + ("\n" if connected else f", {max(0, round(left))} s left\n")
    )
    sys.stdout.flush()
    return not connected and left <= 0


def _connected() -> int:
    from . import supervisor_client

    # A supervisor that is slow to answer, as on a busy machine, may have people connected.
    status = supervisor_client.status(supervisor_client.SILENCE_LIMIT)
    if status is None:
        return _shells(())
    # Sessions of an agent that is not the supervisor's, too.
    return max(status["connected"], _shells((status["ssh"]["port"], status["ssh"]["control_port"])))


def _shells(ports: Collection[int | None]) -> int:
    with _lock:
        return _workers.count([port for port in ports if port])
