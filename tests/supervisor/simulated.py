"""A supervisor's attempts and holds in this process, in simulated time: nothing sleeps, and each moment is exact."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any

from smssh_plugin.hooks import hold
from smssh_plugin.hookspecs import Context, Hold, Job, Server, hookimpl
from smssh_plugin.plugins import Plugins
from smssh_plugin.settings import load
from smssh_plugin.supervisor.clock import Clock
from smssh_plugin.supervisor.operations import Operations

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

EPOCH = 1_800_000_000.0
"""What the wall clock shows when a simulation begins."""


class SimulatedClock(Clock):
    """Time passes while something waits, and only then; what is planned for a moment happens in it."""

    def __init__(self) -> None:
        self._passed = 0.0
        self._set = 0.0
        self._plans: list[tuple[float, Callable[[], object]]] = []

    def now(self) -> float:
        return EPOCH + self._passed + self._set

    def steady(self) -> float:
        return self._passed

    def wait(self, condition: threading.Condition, predicate: Callable[[], bool], seconds: float) -> bool:
        end = self._passed + seconds
        while not predicate():
            if not self._plans or self._plans[0][0] > end:
                self._passed = end
                return predicate()
            self._passed, act = self._plans.pop(0)
            act()
        return True

    def at(self, seconds: float, act: Callable[[], object]) -> None:
        """Plan something for a moment after the beginning."""
        bisect.insort(self._plans, (seconds, act), key=lambda plan: plan[0])

    def set(self, seconds: float) -> None:
        """Set the wall clock ahead by so much, as a person or NTP does."""
        self._set += seconds


class Recorder:
    """Keeps what people are told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int, int | None]] = []

    @hookimpl
    def smssh_notify(self, context: Context, event: str, message: str) -> None:
        self.told.append((event, message, context.attempt, context.exit_code))

    def events(self) -> list[str]:
        return [event for event, *_ in self.told]

    def messages(self, event: str) -> list[str]:
        return [message for each, message, *_ in self.told if each == event]


class Simulated:
    """One host's supervisor, and what runs its entry point.

    Args:
        folder: its run folder.
        ends: see `Operations`, in seconds from the beginning.
        clock: another clock than the simulated one.
        environ: settings.
    """

    def __init__(
        self, folder: Path, *, ends: float | None = None, clock: Clock | None = None, **environ: str
    ) -> None:
        self.clock = SimulatedClock()
        self.connected = 0
        self.is_gone = False
        self.said: list[str] = []
        self.recorder = Recorder()
        plugins = Plugins([("hold", hold)], entry_points=False)
        plugins.register(self.recorder, "recorder")
        self.context = Context(
            load({"SMSSH_HOLD": "failure", **environ}), Job("job", "training", "algo-1"), folder, {}, "/", ""
        )
        self.context.server = Server("sshd", 1, "root", "key")
        self.operations = Operations(
            self.context,
            plugins,
            self.said.append,
            holder=True,
            ends=None if ends is None else EPOCH + ends,
            connected=lambda: self.connected,
            clock=clock or self.clock,
        )

    def at(self, seconds: float, act: Callable[[], object]) -> None:
        """Plan something for a moment after the beginning."""
        self.clock.at(seconds, act)

    def connect(self, count: int = 1) -> None:
        """So many people are connected from now on."""
        self.connected = count

    def ask(self, **request: Any) -> Any:
        """A request's answer."""
        return self.operations.answer(request, self)  # type: ignore[arg-type]

    def fail(self) -> Any:
        """An attempt fails; returns the decision, when there is one."""
        return self.ask(op="failed", exit_code=3)

    def fail_and_end(self) -> tuple[Any, float]:
        """An attempt fails, and the job ends; returns the decision and the seconds until then.

        The recorder has everything after that.
        """
        decision = self.fail()
        seconds = self.clock.steady()
        self.operations.finish(10.0)
        return decision, seconds

    @property
    def hold(self) -> Hold:
        """The hold that goes on."""
        found = self.operations.holds.hold
        assert found is not None
        return found

    def say(self, line: str) -> None:
        self.said.append(line)

    def gone(self) -> bool:
        return self.is_gone
