"""What an execution's and its steps' statuses mean for the watching: the known ones, and those of a later day."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest

from smssh_plugin.aws.session import ServiceRefused
from smssh_plugin.debug import run
from smssh_plugin.debug.incidents import EXECUTION_ENDED, EXECUTION_RUNS, STEP_ENDED
from smssh_plugin.debug.report_html import page
from smssh_plugin.debug.watch import Watch, changes
from smssh_plugin.errors import ExitStatus, SmsshError
from smssh_plugin.local.faults import Fault
from tests.client.nodes import add_node, use
from tests.local.service_harness import Service, definition, step, training
from tests.waiting import until

from .test_debug import Recorder
from .test_watch import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from smssh_plugin.debug.incidents import Report

FAILS = training(Environment={"OUTCOME": "fail"})
HOLDS = training(Environment={"OUTCOME": "hold"})


class Altered(Session):
    """A session whose answers a test changes."""

    def __init__(self) -> None:
        super().__init__()
        self.change: dict[str, Callable[[dict[str, Any]], None]] = {}

    def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        answer = super().call(service, operation, **arguments)
        self.change.get(operation, lambda _: None)(answer)
        return answer


class World:
    """A pipeline, and the debugger for it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.session = Altered()
        self.view = Recorder()

    def start(self, *steps: dict[str, Any]) -> str:
        self.service.pipeline(definition(*steps))
        return self.service.start_pipeline()

    def debug(self, **options: Any) -> Report:
        return run.debug(
            run.Options("pipe", poll=0.05, **{"timeout": 60, **options}), self.session, self.view
        )


@pytest.fixture
def world(service: Service, monkeypatch: pytest.MonkeyPatch) -> World:
    use(service, monkeypatch)
    monkeypatch.setattr(run, "LONGEST_PAUSE", 0.1)
    return World(service)


def test_all_statuses_of_the_api_are_known() -> None:
    model = botocore.session.get_session().get_service_model("sagemaker")
    assert set(model.shape_for("PipelineExecutionStatus").enum) == {*EXECUTION_RUNS, *EXECUTION_ENDED}
    assert set(model.shape_for("StepStatus").enum) == {*STEP_ENDED, "Starting", "Executing", "Stopping"}


def test_a_pipeline_goes_on_after_a_failed_step_that_others_wait_for(world: World) -> None:
    """And ends CompletedWithFailures, which is not Succeeded."""
    alarm = step("Alarm", "Training", training(), DependsOn=[{"Step": "Train", "Trigger": "Failed"}])
    world.start(step("Train", "Training", FAILS), alarm)
    found = world.debug()
    assert (found.status, found.stopped_because, found.finished) == ("CompletedWithFailures", "ended", True)
    assert run.exit_status(found) is ExitStatus.PIPELINE_FAILED
    assert {one.name: one.status for one in found.steps} == {"Train": "Failed", "Alarm": "Succeeded"}
    failed = next(n for n, event in enumerate(world.view.events) if "Train: failed" in event.text)
    after = [event.text for event in world.view.events[failed:]]
    assert "Alarm: training step succeeded" in "\n".join(after)
    assert "pipeline CompletedWithFailures" in after
    assert "The pipeline completed with failures." in page(found)


def test_a_status_that_nobody_knows_is_said_and_watched_until_no_step_runs_for_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "UNKNOWN_SECONDS", 0.5)
    world.session.change["describe_pipeline_execution"] = lambda answer: answer.update(
        PipelineExecutionStatus="Pausing"
    )
    world.start(step("Train", "Training", HOLDS))
    until(lambda: world.service.runner.running, "Train runs")
    job = world.service.runner.jobs[-1].name
    assert world.debug(timeout=2).stopped_because == "timeout"  # Train runs
    world.service.release(job)
    found = world.debug()
    assert (found.status, found.stopped_because) == ("Pausing", "unknown")
    assert run.exit_status(found) is ExitStatus.FAILED
    assert world.view.text.count("pipeline Pausing, a status that this version does not know") == 2  # runs
    assert world.view.events[-1].text.startswith("stopped watching: status Pausing is not known")
    assert "does not know the pipeline&#39;s status Pausing" in page(found)


def test_an_unknown_status_that_passes_changes_nothing(world: World) -> None:
    seen: list[str] = []

    def pause(answer: dict[str, Any]) -> None:
        seen.append("")
        if 1 < len(seen) < 4:
            answer["PipelineExecutionStatus"] = "Pausing"

    world.session.change["describe_pipeline_execution"] = pause
    world.start(step("Train", "Training", training(Environment={"SECONDS": "1"})))
    found = world.debug()
    assert found.status == "Succeeded"
    assert run.exit_status(found) is ExitStatus.OK


def test_an_unknown_status_of_a_step_is_shown_and_its_hosts_are_looked_at(world: World) -> None:
    arn = world.start(step("Train", "Training", HOLDS))
    until(lambda: world.service.runner.running, "Train runs")
    node = add_node(world.service, world.service.runner.jobs[-1].name, Step="Train", State="held")

    def odd(answer: dict[str, Any]) -> None:
        for one in answer["PipelineExecutionSteps"]:
            one["StepStatus"] = "Pausing"

    world.session.change["list_pipeline_execution_steps"] = odd
    watch = Watch(world.session, "pipe", arn)
    watch.look()
    watch._next_names = 0.0
    look = watch.look()
    assert [one.target for one in look.held] == [node]
    assert [event.text for event in changes(None, look)] == ["Train: Pausing"]
    assert look.running


def test_a_new_attempt_by_a_retry_policy_is_said(world: World) -> None:
    policy = {
        "ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR"],
        "IntervalSeconds": 0,
        "BackoffRate": 1.0,
        "MaxAttempts": 3,
    }
    flaky = training(Environment={"OUTCOME": "internal,internal,succeed", "SECONDS": "0.5"})
    world.start(step("Train", "Training", flaky, RetryPolicies=[policy]))
    found = world.debug()
    assert found.status == "Succeeded"
    assert found.steps[0].attempt == 3
    assert "Train: attempt 3 by its retry policy" in world.view.text
    assert "training · Succeeded · attempt 3" in page(found)
    assert len(world.service.runner.jobs) == 3


def test_the_attempt_of_a_retry_policy_that_is_held_is_told_apart(world: World) -> None:
    policy = {"ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR"], "IntervalSeconds": 0, "MaxAttempts": 3}
    flaky = training(Environment={"OUTCOME": "internal,hold"})
    arn = world.start(step("Train", "Training", flaky, RetryPolicies=[policy]))
    until(lambda: len(world.service.runner.jobs) == 2 and world.service.runner.running, "it runs again")
    job = world.service.runner.jobs[-1].name
    add_node(world.service, job, Step="Train", State="held")
    debugger = run._Debugger(run.Options("pipe"), world.session, world.view, arn, (), [])
    debugger._react(debugger._watch.look(), 0.0)
    debugger._watch._next_names = 0.0
    debugger._react(debugger._watch.look(), 0.0)
    (holds,) = debugger._hosts.values()
    debugger._close()
    assert holds.address == f"algo-1.{job}.training.sagemaker"


def test_a_cached_step_has_no_container(world: World) -> None:
    cached = step("Train", "Training", training(), CacheConfig={"Enabled": True})
    world.service.execution(world.start(cached), "Succeeded")
    world.service.start_pipeline()
    world.session.calls.clear()
    found = world.debug()
    assert found.status == "Succeeded"
    (one,) = found.steps
    assert (one.cached, one.address) == (True, "")
    assert "Train: training step succeeded (from an earlier execution)" in world.view.text


def test_steps_without_a_job_and_without_ssh_cost_no_calls_for_their_hosts(world: World) -> None:
    wait = {"Name": "Ask", "Type": "Callback", "SqsQueueUrl": "https://sqs/q", "OutputParameters": []}
    arn = world.start({**wait, "Arguments": {}}, step("Fails", "Fail", {"ErrorMessage": "as it should"}))
    watch = Watch(world.session, "pipe", arn)
    until(lambda: len(watch.look().steps) == 2, "both have started")
    world.session.calls.clear()
    look = watch.look()
    assert world.session.calls == ["describe_pipeline_execution", "list_pipeline_execution_steps"]
    assert {(one.name, one.kind, one.job, one.address) for one in look.steps} == {
        ("Ask", "Callback", "", ""),
        ("Fails", "Fail", "", ""),
    }
    world.service.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken="t" * 32)
    found = world.debug()
    assert found.status == "Stopped"
    assert "Fails: failed" in world.view.text
    assert "as it should" in world.view.text


@pytest.mark.parametrize("operation", ["DescribePipelineExecution", "ListPipelineExecutionSteps"])
def test_throttling_is_not_an_execution_that_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    arn = world.start(step("Train", "Training", HOLDS))
    until(lambda: world.service.runner.running, "Train runs")
    job = world.service.runner.jobs[-1].name
    watch = Watch(world.session, "pipe", arn)
    throttled = Fault(f"sagemaker:{operation}", "ThrottlingException", "Rate exceeded", times=3)
    world.service.sessions.faults.add(throttled)
    with pytest.raises(ServiceRefused) as caught:
        watch.look()
    assert caught.value.passing
    # Also where it meets the first look.
    world.view.on_event = lambda event: world.service.release(job) if "can look again" in event.text else None
    found = world.debug()
    assert found.status == "Succeeded"
    assert world.view.text.count("cannot look: ") == 1
    assert throttled.happened == 3


def test_a_network_that_is_gone_for_an_hour(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock; what was seen before goes on after it."""
    world.start(step("Train", "Training", HOLDS))
    until(lambda: world.service.runner.running, "Train runs")
    job = world.service.runner.jobs[-1].name
    clock = [1000.0]
    looks: list[float] = []
    call = world.session.call

    def away(service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        if operation == "describe_pipeline_execution":
            looks.append(clock[0])
            clock[0] += 60
            if len(looks) == 70:
                world.service.release(job)
            if 1 < len(looks) < 70:
                error = SmsshError("AWS cannot be reached", reference="aws-unreachable")
                error.passing = True
                raise error
        return call(service, operation, **arguments)

    monkeypatch.setattr(world.session, "call", away)
    watched = SimpleNamespace(monotonic=lambda: clock[0], time=time.time, sleep=time.sleep)
    monkeypatch.setattr(run, "time", watched)
    found = world.debug(timeout=None)
    assert found.status == "Succeeded"
    text = world.view.text
    assert text.count("cannot look: AWS cannot be reached; trying again, for 12 h at most") == 1
    assert text.count("can look again after 1 h 08 min") == 1


def test_what_was_just_started_may_be_unknown_for_a_moment(world: World) -> None:
    world.service.pipeline(definition(step("Train", "Training", training())))
    missing = Fault("sagemaker:DescribePipelineExecution", "ResourceNotFound", "does not exist", times=2)
    world.service.sessions.faults.add(missing)
    assert world.debug(start=True).status == "Succeeded"
    assert missing.happened == 2
    with pytest.raises(SmsshError, match="there is no execution 'nonesuch'"):
        world.debug(execution="nonesuch")
    denied = Fault("sagemaker:DescribePipelineExecution", "AccessDeniedException", "no")
    world.service.sessions.faults.add(denied)
    with pytest.raises(SmsshError, match="access denied"):
        world.debug(start=True)
