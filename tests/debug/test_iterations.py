"""Steps of a ForEach step: one name, and an IterationContext that tells them apart."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.client.addresses import parse
from smssh_plugin.client.executions import job_of_step, label_of
from smssh_plugin.client.patience import NotYet
from smssh_plugin.debug import repair, run, watch
from smssh_plugin.debug.report import as_json
from smssh_plugin.debug.report_html import page
from smssh_plugin.debug.view import _state
from smssh_plugin.errors import ExitStatus, SmsshError
from tests.client.nodes import add_node, use
from tests.local.service_harness import Service, definition, step, training
from tests.waiting import until

from .test_debug import Recorder
from .test_watch import Session

if TYPE_CHECKING:
    from smssh_plugin.client.addresses import StepAddress

ITEMS = ("red", "green blue", "")


class Looped(Session):
    """A session to which the steps Train-0, Train-1, ... are iterations of a step in a loop.

    Args:
        named: whether the service shows the index in the names, too.
    """

    def __init__(self, named: bool = False) -> None:
        super().__init__()
        self.named = named

    def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        answer = super().call(service, operation, **arguments)
        if operation == "list_pipeline_execution_steps":
            for one in answer["PipelineExecutionSteps"]:
                name, _, index = one["StepName"].rpartition("-")
                one["IterationContext"] = {
                    "ParentStepName": "Each",
                    "Index": int(index),
                    "Item": ITEMS[int(index)],
                }
                if not self.named:
                    one["StepName"] = name
        if "PipelineDefinition" in answer:
            body = [step("Train", "Training", training())]
            loop = {"Name": "Each", "Type": "ForEach", "Arguments": {"ForEachBody": body}}
            answer["PipelineDefinition"] = json.dumps({"Steps": [loop]})
        return answer


class World:
    """A pipeline whose step fails in each of its iterations."""

    def __init__(self, service: Service, session: Looped) -> None:
        self.service = service
        self.session = session
        self.view = Recorder()
        held = training(Environment={"OUTCOME": "hold"})
        service.pipeline(definition(*(step(f"Train-{number}", "Training", held) for number in range(3))))
        self.arn = service.start_pipeline()
        self.execution = self.arn.rpartition("/")[2]
        until(lambda: len(service.runner.running) == 3, "all run")
        self.jobs = sorted(
            (job.name for job in service.runner.jobs), key=lambda name: name.partition("-Train-")[2]
        )

    def address(self, step: str) -> StepAddress:
        found = parse(f"{step}.{self.execution}.pipe.pipeline.sagemaker")
        assert not hasattr(found, "job")
        return found  # type: ignore[return-value]


@pytest.fixture(params=[False, True], ids=["one name", "indexed names"])
def world(service: Service, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> World:
    use(service, monkeypatch)
    return World(service, Looped(request.param))


def test_each_iteration_has_its_events_steps_and_end(world: World) -> None:
    def end(event: Any) -> None:
        if event.text.startswith("Train-1: training step runs"):
            world.service.do(world.service.runner.stop(world.jobs[1]))
            world.service.release(world.jobs[0])
            world.service.release(world.jobs[2])

    world.view.on_event = end
    found = run.debug(run.Options("pipe", poll=0.05, timeout=60), world.session, world.view)
    assert [(one.name, one.defined, one.parent, one.item, one.status) for one in found.steps] == [
        ("Train-0", "Train", "Each", "red", "Succeeded"),
        ("Train-1", "Train", "Each", "green blue", "Failed"),
        ("Train-2", "Train", "Each", "", "Succeeded"),
    ]
    for line in (
        "Train-0: training step runs on red (",
        "Train-1: training step runs on 'green blue' (",
        "Train-2: training step runs (",
        "Train-0: training step succeeded after",
        "Train-1: failed after",
        "Train-2: training step succeeded after",
    ):
        assert world.view.text.count(line) == 1
    assert [one["name"] for one in as_json(found)["steps"]] == ["Train-0", "Train-1", "Train-2"]
    shown = page(found)
    assert 'title="Train-1"' in shown
    assert "training · Failed · green blue" in shown


def test_the_hosts_incidents_and_fixes_of_iterations_are_told_apart(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its own address, its own fix first, and its own end in the report."""
    nodes = {
        add_node(world.service, job, host=host, Step="Train", State="held"): (number, host)
        for number, job in enumerate(world.jobs[:2])
        for host in ("algo-1", "algo-2")
    }
    looked: list[repair.Repair] = []

    def start(self: repair.Repair) -> None:
        looked.append(self)
        if len(looked) == len(nodes):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(repair.Repair, "start", start)
    monkeypatch.setattr(watch, "NAMES_SECONDS", 0.0)
    monkeypatch.setattr(repair.Repair, "running", property(lambda _: True))
    monkeypatch.setattr(repair.Repair, "cancel", lambda self, seconds: None)
    run.debug(run.Options("pipe", poll=0.05, timeout=60), world.session, world.view)
    assert {one.node.target: (one.step, one.address) for one in looked} == {
        target: (
            f"Train-{number}",
            f"{'' if host == 'algo-1' else host + '.'}Train-{number}.{world.execution}.pipe.pipeline.sagemaker",
        )
        for target, (number, host) in nodes.items()
    }
    assert {one._defined for one in looked} == {"Train"}


def test_an_address_leads_to_its_iteration(world: World) -> None:
    for number, job in enumerate(world.jobs):
        assert job.lower() in job_of_step(world.address(f"Train-{number}"), world.session).names
        assert job.lower() in job_of_step(world.address(f"train-{number}"), world.session).names
    with pytest.raises(NotYet):
        job_of_step(world.address("Train-3"), world.session)
    with pytest.raises(SmsshError, match="no step 'Score-1' has started"):
        job_of_step(world.address("Score-1"), world.session)


@pytest.mark.parametrize("world", [False], indirect=True)
def test_a_name_without_an_index_is_that_of_the_only_one_that_runs(world: World) -> None:
    with pytest.raises(SmsshError, match="3 iterations of step 'Train' run") as caught:
        job_of_step(world.address("Train"), world.session)
    assert caught.value.hint == "choose one: Train-0, Train-1, Train-2"
    assert caught.value.status is ExitStatus.USAGE
    for job in (world.jobs[0], world.jobs[2]):
        world.service.release(job)
    until(lambda: len(world.service.runner.running) == 1)
    until(
        lambda: sum(one["StepStatus"] == "Succeeded" for one in world.service.steps(world.arn).values()) == 2
    )
    assert world.jobs[1].lower() in job_of_step(world.address("Train"), world.session).names
    world.service.release(world.jobs[1])
    world.service.execution(world.arn, "Succeeded")
    with pytest.raises(SmsshError, match="3 iterations of step 'train' have ended"):
        job_of_step(world.address("train"), world.session)


def test_labels_of_odd_contexts() -> None:
    for context in (None, {}, {"Index": None}, {"Index": True}, {"Index": "1"}):
        assert label_of({"StepName": "Train", "IterationContext": context}) == "Train"
    assert label_of({"StepName": "Train", "IterationContext": {"Index": 0}}) == "Train-0"


def test_the_table_tells_attempts_and_earlier_executions() -> None:
    from smssh_plugin.debug.incidents import Step

    assert _state(Step("Train-1", "training", "Executing", attempt=2), None, "")[0] == "Executing, attempt 2"
    cached = Step("Train-1", "training", "Succeeded", cached=True)
    assert _state(cached, None, "")[0] == "Succeeded, from an earlier execution"
