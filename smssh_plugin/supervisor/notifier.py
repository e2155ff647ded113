"""What happens to the job, told to people through the hook `smssh_notify`."""

from __future__ import annotations

import logging
import queue
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..hookspecs import Context, Hold
    from ..plugins import Plugins

__all__ = ["Notifier"]

_log = logging.getLogger("smssh.notifier")


class Notifier:
    """Calls the hooks one event after another, in a thread of its own: they may talk to networks.

    Args:
        context: the supervisor's context.
        plugins: the hooks.
    """

    def __init__(self, context: Context, plugins: Plugins) -> None:
        self._context = context
        self._plugins = plugins
        self._events: queue.Queue[tuple[str, str, Hold | None, int, int | None] | None] = queue.Queue()
        self._configured = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="notify", daemon=True)
        self._thread.start()

    def notify(self, event: str, message: str, hold: Hold | None = None) -> None:
        """Tell an event, see `smssh_notify`; never waits."""
        # It may be told late; its attempt and exit status are those of the moment in which it happened.
        self._events.put((event, message, hold, self._context.attempt, self._context.exit_code))

    def configured(self) -> None:
        """Begin: from now on no plugin changes the settings."""
        self._configured.set()

    def finish(self, seconds: float) -> None:
        """Wait until everything is told, at most so long; nothing is told after that."""
        self._configured.set()
        self._events.put(None)
        self._thread.join(seconds)

    def _tell(self) -> None:
        self._configured.wait()
        for event, message, hold, attempt, exit_code in iter(self._events.get, None):
            try:
                context = replace(self._context, attempt=attempt, exit_code=exit_code)
                self._plugins.notify(context, event, message, hold)
            except Exception:  # noqa: BLE001, PERF203 - the next event is told too
                _log.exception("notify")
