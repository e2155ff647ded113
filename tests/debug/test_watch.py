"""Which hosts an execution's look finds held, and which of those are entered."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.aws.session import AwsSession, ServiceRefused
from smssh_plugin.debug import logs, repair
from smssh_plugin.debug.watch import Watch
from smssh_plugin.errors import ExitStatus, SmsshError
from smssh_plugin.local.pipelines.engine import Execution
from tests.client.nodes import add_node, set_tag, use
from tests.local.service_harness import Service, definition, step, training
from tests.waiting import until

if TYPE_CHECKING:
    from smssh_plugin.client.managed_nodes import Node

LOWER = "list_pipeline_execution_steps"


class Session(AwsSession):
    """An AWS session that counts its calls; ARNs of steps' jobs are in lower case, as SageMaker has had them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.forbidden = ""

    def call_once(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        self._begin(operation)
        return super().call_once(service, operation, **arguments)

    def _begin(self, operation: str) -> None:
        self.calls.append(operation)
        if operation == self.forbidden:
            raise SmsshError("access denied", reference="access-denied", status=ExitStatus.REFUSED)

    def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        self._begin(operation)
        answer = super().call(service, operation, **arguments)
        if operation == LOWER:
            for one in answer["PipelineExecutionSteps"]:
                for made in one["Metadata"].values():
                    if "Arn" in made:
                        made["Arn"] = made["Arn"].lower()
        return answer


class World:
    """A pipeline with one training step, whose job's name has capitals at its end."""

    def __init__(self, service: Service, outcome: str = "hold") -> None:
        self.service = service
        self.session = Session()
        environment = {"OUTCOME": outcome, "SMSSH_ENABLE": "1"}
        service.pipeline(definition(step("Train", "Training", training(Environment=environment))))
        self.arn = service.start_pipeline()
        until(lambda: service.runner.jobs, "Train runs")
        self.job = service.runner.jobs[-1].name
        self.watch = Watch(self.session, "pipe", self.arn)

    def node(self, job: str = "", **tags: str) -> str:
        """A node that says that it is held."""
        return add_node(self.service, job or self.job, **{"Step": "Train", "State": "held", **tags})

    def held(self) -> Node:
        (node,) = self.watch.look().held
        return node


@pytest.fixture
def world(service: Service, monkeypatch: pytest.MonkeyPatch) -> World:
    use(service, monkeypatch)
    monkeypatch.setattr(
        Execution, "_job_name", lambda self, step, _prefix, _longest: f"pipelines-{self.id}-{step}-hWEjyentHL"
    )
    monkeypatch.setattr(repair, "control", lambda address, session, node: node)
    return World(service)


@pytest.mark.parametrize("state", ["held", ""])
def test_a_job_whose_arn_is_in_lower_case_is_found_and_named(world: World, state: str) -> None:
    look = world.watch.look()
    assert (look.held, look.silent) == ([], [])
    target = world.node(State=state) if state else add_node(world.service, world.job, Step="Train")
    other = f"pipelines-another00000-Train-{world.job[-10:]}"
    world.node(other)
    world.watch._next_names = 0.0
    world.watch.look()
    world.watch._next_ask = 0.0
    look = world.watch.look()
    assert [node.target for node in (look.held if state else look.silent)] == [target]
    assert look.steps[0].job == world.job
    world.session.calls.clear()
    world.watch._next_ask = math.inf
    again = world.watch.look()
    # Its name is known now, and what the tags of its node say.
    assert (again.held, again.silent) == (look.held, look.silent)
    assert world.session.calls == [
        "describe_pipeline_execution",
        "list_pipeline_execution_steps",
        "describe_instance_information",
    ]
    world.watch.forget(target)
    world.watch.look()
    assert world.session.calls[-1] == "list_tags_for_resource"


def test_the_log_of_such_a_job_is_found_without_a_node(world: World) -> None:
    client = world.service.client("logs")
    group = "/aws/sagemaker/TrainingJobs"
    client.create_log_group(logGroupName=group)
    for job, text in ((world.job, "its last words"), (f"{world.job}x", "another's")):
        stream = f"{job}/algo-1-1700000000"
        client.create_log_stream(logGroupName=group, logStreamName=stream)
        client.put_log_events(
            logGroupName=group,
            logStreamName=stream,
            logEvents=[{"timestamp": int(time.time() * 1000), "message": text}],
        )
    cased = world.watch.look().steps[0].job
    assert cased != world.job
    assert logs.tail(world.session, "training", cased) == ["its last words"]
    assert logs.tail(world.session, "training", world.job) == ["its last words"]


def test_the_host_that_is_held_is_entered(world: World) -> None:
    target = world.node()
    entered: Any = repair.login(world.session, world.held())
    assert entered.target == target


def test_a_host_that_another_claims_as_well_is_not_entered(world: World) -> None:
    """The real one runs; what claims to be held is of another's making."""
    real, fake = add_node(world.service, world.job, Step="Train"), world.node()
    for node in (real, fake):
        world.service.sessions.nodes.nodes[node].registered = time.time() + 60
    held = world.held()
    assert held.target == fake
    with pytest.raises(SmsshError, match="2 online nodes claim to be algo-1") as caught:
        repair.login(world.session, held)
    assert real in caught.value.message
    assert fake in caught.value.message


def test_what_is_left_of_an_earlier_start_is_not_entered(world: World) -> None:
    old, new = world.node(), add_node(world.service, world.job, Step="Train")
    world.service.sessions.nodes.nodes[old].registered = time.time() - 1000
    world.service.sessions.nodes.nodes[new].registered = time.time() + 60
    with pytest.raises(SmsshError, match=f"{old} claims to be .*, which is {new}"):
        repair.login(world.session, world.held())


def test_a_host_that_the_job_has_not_got_is_not_entered(world: World) -> None:
    world.node(Host="algo-99")
    with pytest.raises(SmsshError, match="has no host algo-99"):
        repair.login(world.session, world.held())


def test_a_node_with_another_role_or_owner_is_not_entered(
    service: Service, monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    node = world.node()
    set_tag(service, node, "SSHOwner", "ben")
    monkeypatch.setenv("SMSSH_OWNER", "ann")
    with pytest.raises(SmsshError, match="has the owner 'ben'"):
        repair.login(world.session, world.held())
    monkeypatch.delenv("SMSSH_OWNER")
    monkeypatch.setenv("SMSSH_ROLE", "another")
    assert world.watch.look().held == []
    monkeypatch.delenv("SMSSH_ROLE")
    held = world.held()
    job = service.runner.jobs[-1]
    record = service.sagemaker.describe_training_job(TrainingJobName=job.name)
    described = {**record, "Environment": {"SMSSH_ROLE": "arn:aws:iam::123456789012:role/own"}}
    call = world.session.call
    monkeypatch.setattr(
        world.session,
        "call",
        lambda service, operation, **more: (
            described if operation == "describe_training_job" else call(service, operation, **more)
        ),
    )
    with pytest.raises(SmsshError, match=r"has the role 'role': the job's request names .*:role/own'"):
        repair.login(world.session, held)


def test_a_name_that_only_looks_like_the_jobs_is_not_entered(world: World) -> None:
    """Where an ARN is in lower case, a node may claim any capitals."""
    fake = world.node(world.job.swapcase().replace("PIPELINES", "pipelines"))
    held = world.held()
    assert held.target == fake
    with pytest.raises(SmsshError, match="which SageMaker does not know"):
        repair.login(world.session, held)
    world.node()
    world.watch = Watch(world.session, "pipe", world.arn)
    assert {node.job for node in world.watch.look().held} == {held.job, world.job}


def test_a_node_of_another_kind_is_not_the_steps(world: World) -> None:
    world.node(Kind="processing")
    assert world.watch.look().held == []


def test_who_may_not_describe_jobs_can_debug_all_the_same(world: World) -> None:
    target = world.node()
    world.session.forbidden = "describe_training_job"
    entered: Any = repair.login(world.session, world.held())
    assert entered.target == target


def test_a_service_that_refuses_otherwise_is_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.node()
    held = world.held()
    call = world.session.call

    def refuse(service: str, operation: str, **more: Any) -> Any:
        if operation == "describe_training_job":
            raise ServiceRefused("ThrottlingException", "slow down")
        return call(service, operation, **more)

    monkeypatch.setattr(world.session, "call", refuse)
    with pytest.raises(SmsshError, match="ThrottlingException"):
        repair.login(world.session, held)
