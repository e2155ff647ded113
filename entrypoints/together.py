"""The hosts of one job as far as holds go: who failed first, who waits for whom, and one decision for all.

Hosts can rely on no way between them but AWS; what they tell each other goes through the hooks
`smssh_tell_hosts` and `smssh_other_hosts`. A host looks every LOOK_SECONDS, so it is late by as much.

A host that fails and is held tells it, so that each report can say which host was first. And whoever is connected to
one host that is held is connected to all of them, as far as deadlines go: when one gives up, the job is over.

With `SMSSH_HOLD_HOSTS=all` also:

* A host whose entry point has succeeded stays, held at `end`, while another runs or is held. (SageMaker's job ends
  with its last host anyway.)
* What a person, or a deadline, decides on one host holds for all. Before a retry, an attempt that still runs on
  another host is ended: it waits for ranks that are gone.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Callable

from ..hookspecs import HostState

if TYPE_CHECKING:
    from typing import Mapping

    from ..hookspecs import Context
    from ..plugins import Plugins

__all__ = ["Together"]

LOOK_SECONDS = 10.0
"""How often the others are looked at; a fifth of SMSSH_HOLD_SECONDS where that is less."""
CALLS_PER_SECOND = 10.0
"""Of all hosts of a job together: each reads the tag of each, so many hosts look less often."""
BLIND_LIMIT = 3
"""Looks that may fail in a row before the others count as gone."""
REPORT_LIMIT = 5.0
"""Seconds that a report waits for what the others have told."""
FOLLOW_LIMIT = 30.0
"""Seconds that a host stays at least for the others to learn what was decided: its tags go with it."""

_log = logging.getLogger("smssh.together")


class Together:
    """What this host tells, and what it knows of the others.

    Args:
        context: the supervisor's context.
        plugins: the hooks.
        changed: called in a thread of this object's when the others may have changed.
    """

    def __init__(self, context: Context, plugins: Plugins, changed: Callable[[], None]) -> None:
        self._context = context
        self._plugins = plugins
        self._on_change = changed
        self._lock = threading.Condition()
        self._own = HostState(context.job.host, "running")
        self._told: HostState | None = None
        self._others: Mapping[str, HostState] | None = None
        self._looked = 0.0
        self._blind = 0
        self._watching = False
        self._started = False
        self._thread: threading.Thread | None = None

    @property
    def several(self) -> bool:
        """Whether the job has other hosts at all."""
        return len(self._context.job.hosts) > 1

    @property
    def all(self) -> bool:
        """Whether the hosts are held together."""
        return self.several and self._context.settings.hold_hosts == "all"

    @property
    def others(self) -> Mapping[str, HostState]:
        """What is known of the others by now, by host."""
        with self._lock:
            return dict(self._others or {})

    def tell(self, **changes: Any) -> None:
        """Change this host's own state (fields of HostState) and let the others know, in the background."""
        if not self.several:
            return
        with self._lock:
            self._own = replace(self._own, **changes)
            self._start()
            self._lock.notify_all()

    def start_over(self) -> None:
        """The start of the supervisor is over: from now on others can be asked, or never."""
        with self._lock:
            self._started = True
            self._lock.notify_all()

    def watch(self, on: bool = True) -> None:
        """Begin to look at the others, or stop it; hosts that are held together never stop."""
        if self.several:
            with self._lock:
                self._watching = on or self.all
                self._start()
                self._lock.notify_all()

    def somebody_connected(self) -> bool:
        """Whether a person is logged in to another host."""
        return any(other.connected for other in self.others.values())

    def others_go_on(self, since: float) -> bool:
        """Whether another host runs, is held or has yet to follow into our attempt; True until that is known.

        Args:
            since: only what was seen after this moment of time.monotonic() counts.
        """
        with self._lock:
            if self._blind >= BLIND_LIMIT:
                return False
            if self._looked < since or self._others is None:
                return True
            # What it succeeded with is an attempt that a retry has made void. It may be unable to learn of it.
            void = self._own.attempt if time.monotonic() < since + self._follow_limit() else 0
            return any(
                other.state not in ("succeeded", "released")
                or (other.state == "succeeded" and other.attempt < void)
                for other in self._others.values()
            )

    def held(self) -> list[str]:
        """The other hosts that are held, sorted."""
        return sorted(host for host, other in self.others.items() if other.state == "held")

    def let_others_follow(self) -> None:
        """Stay until no other host is held any more, at most FOLLOW_LIMIT or two of the others' looks."""
        if not self.all:
            return
        deadline = time.monotonic() + self._follow_limit()
        waiting = ("held", "succeeded")
        with self._lock:
            self._lock.wait_for(
                lambda: (
                    self._blind > 0
                    or not any(other.state in waiting for other in (self._others or {}).values())
                ),
                deadline - time.monotonic(),
            )

    def flush(self, seconds: float) -> None:
        """Wait until what was told is told, at most so long."""
        with self._lock:
            if self._thread is not None:
                self._lock.wait_for(lambda: self._told == self._own, seconds)

    def report(self) -> dict[str, Any]:
        """Sections of the report: every host that has told something, and which failed first by its own clock."""
        if not self.several:
            return {}
        looked: list[Mapping[str, HostState] | None] = []
        looker = threading.Thread(
            target=lambda: looked.append(self._plugins.other_hosts(self._context)), daemon=True
        )
        looker.start()
        looker.join(REPORT_LIMIT)
        with self._lock:
            others = looked[0] if looked and looked[0] is not None else self._others
            known = {self._own.host: self._own, **(others or {})}
        failed = [state for state in known.values() if state.failed]
        first = min(failed, key=lambda state: state.failed, default=None)
        return {
            "hosts": [asdict(known[host]) for host in sorted(known)],
            "first_failed": None if first is None else first.host,
        }

    # ------------------------------------------------------------------------------------------------- inside

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="together", daemon=True)
            self._thread.start()

    def _interval(self) -> float:
        tellers = sum(1 for other in (self._others or {}).values() if other.state != "running")
        seconds = min(LOOK_SECONDS, self._context.settings.hold_seconds / 5)
        return max(seconds, tellers * tellers / CALLS_PER_SECOND)

    def _follow_limit(self) -> float:
        return max(FOLLOW_LIMIT, 2 * self._interval())

    def _run(self) -> None:
        due = 0.0
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._started)
                if self._told == self._own and not (self._watching and time.monotonic() >= due):
                    self._lock.wait(max(0.0, due - time.monotonic()) if self._watching else None)
                own, look = self._own, self._watching and time.monotonic() >= due
            if own != self._told:
                self._plugins.tell_hosts(self._context, own)
                with self._lock:
                    self._told = own
                    self._lock.notify_all()
            if look:
                self._look()
                due = time.monotonic() + self._interval()

    def _look(self) -> None:
        began = time.monotonic()
        others = self._plugins.other_hosts(self._context)
        with self._lock:
            if others is None:
                self._blind += 1
                if self._blind == BLIND_LIMIT:
                    _log.warning("the other hosts of this job cannot be asked")
                    self._others = {}
            else:
                self._blind = 0
                self._others = others
                self._looked = began
            self._lock.notify_all()
        self._on_change()
