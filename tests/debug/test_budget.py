"""What a look costs: 200 steps, 20 jobs at once, 4 hosts each; it does not grow with the hosts."""

from __future__ import annotations

import math
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.debug import logs, run, watch
from tests.client.nodes import add_node, set_state, use
from tests.local.service_harness import Service, definition, step, training
from tests.waiting import until

from .test_watch import Session

if TYPE_CHECKING:
    from smssh_plugin.debug.incidents import Event, Report

STEPS, AT_ONCE, HOSTS = 200, 20, 4
MOST = 10
"""API calls of a look are fewer."""


class Silent:
    """A view that shows nothing, and counts the calls of each look."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.looks: list[list[str]] = []

    def show(self, event: Event) -> None:
        pass

    def update(self, report: Report) -> None:
        del report
        self.looks.append(list(self._session.calls))
        self._session.calls.clear()


class Big:
    """An execution of many steps, of which some run."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.session = Session()
        done = [step(f"Done{number}", "Training", training()) for number in range(STEPS - AT_ONCE)]
        held = training(Environment={"OUTCOME": "hold"})
        runs = [step(f"Runs{number}", "Training", held) for number in range(AT_ONCE)]
        service.pipeline(definition(*done, *runs))
        self.arn = service.start_pipeline()
        until(lambda: len(service.runner.running) == AT_ONCE and len(service.runner.jobs) == STEPS, "all run")
        self.jobs = [job.name for job in service.runner.jobs if job.name in service.runner.running]
        self.nodes = [
            add_node(service, job, host=f"algo-{host + 1}", Step=f"Runs{number}", State="running")
            for number, job in enumerate(self.jobs)
            for host in range(HOSTS)
        ]

    def hold(self) -> None:
        for node in self.nodes:
            set_state(self.service, node, "held")


@pytest.fixture
def big(service: Service, monkeypatch: pytest.MonkeyPatch) -> Big:
    use(service, monkeypatch)
    # What is done only now and then is done as often as it can be.
    for module, name, often in (
        (watch, "ASK_SECONDS", 0.5),
        (watch, "NAMES_SECONDS", 0.0),
        (logs, "FOLLOW_SECONDS", 0.0),
    ):
        monkeypatch.setattr(module, name, often)
    return Big(service)


def test_a_look_takes_less_than_ten_calls(big: Big) -> None:
    looked = watch.Watch(big.session, "pipe", big.arn)
    calls: list[int] = []

    def look() -> watch.Snapshot:
        big.session.calls.clear()
        found = looked.look()
        calls.append(len(big.session.calls))
        return found

    first = look()
    assert len(first.steps) == STEPS
    assert look().held == []
    big.hold()
    seen: set[str] = set()
    for _ in range(len(big.nodes)):
        seen |= {node.target for node in look().held}
        if len(seen) == len(big.nodes):
            break
    assert seen == set(big.nodes)
    assert len({node.address for node in look().held}) == AT_ONCE * HOSTS
    assert max(calls) < MOST
    looked._next_ask = math.inf
    assert look().busy is False
    for node in big.nodes:
        set_state(big.service, node, "running")
    looked._next_ask = 0.0
    assert look().busy is True
    assert max(calls) < MOST


def test_so_does_a_look_of_the_whole_debugger_and_it_remembers_no_more_than_the_ends_of_logs(
    big: Big, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoRepair:
        running = True
        incident = None

        def __init__(self, *_: object) -> None:
            pass

        def start(self) -> None:
            pass

        def cancel(self, _seconds: float) -> None:
            pass

    monkeypatch.setattr(run, "Repair", NoRepair)
    client = big.service.client("logs")
    group = "/aws/sagemaker/TrainingJobs"
    client.create_log_group(logGroupName=group)
    began = int(time.time())
    for job in big.jobs:
        for host in range(HOSTS):
            stream = {"logGroupName": group, "logStreamName": f"{job}/algo-{host + 1}-{began}"}
            client.create_log_stream(**stream)
            lines: list[Any] = [
                {"timestamp": int(time.time() * 1000), "message": f"{'x' * 1000} {number}"}
                for number in range(100)
            ]
            client.put_log_events(**stream, logEvents=lines)
    big.hold()
    view = Silent(big.session)
    tracemalloc.start()
    found = run.debug(run.Options("pipe", poll=0.01, timeout=20), big.session, view)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.steps) == STEPS
    counted = [
        len(calls) for calls in view.looks[1:-1]
    ]  # the first has those before it, the last those after
    assert len(counted) > 3
    assert max(counted) < MOST, max(view.looks[1:-1], key=len)
    assert any("filter_log_events" in calls for calls in view.looks)
    assert most < 100e6
