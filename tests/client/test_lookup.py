"""From addresses to nodes, against the local emulator's service over HTTP."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.aws.session import AwsSession, ServiceRefused
from smssh_plugin.client import (
    addresses,
    cache,
    endpoint,
    executions,
    known_hosts,
    lookup,
    managed_nodes,
    patience,
)
from smssh_plugin.errors import ExitStatus, SmsshError
from smssh_plugin.home import home
from smssh_plugin.local.keyring import Key
from tests.aws.peers import Api
from tests.local.service_harness import Service, definition, step, training
from tests.waiting import until

from .nodes import HOST_KEY, add_node, set_tag, use

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def session(service: Service, monkeypatch: pytest.MonkeyPatch) -> AwsSession:
    return use(service, monkeypatch)


class Counting(AwsSession):
    """An AWS session that keeps the names of the calls it made."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        self.calls.append(operation)
        return super().call(service, operation, **arguments)


def start_job(service: Service, name: str, **environment: str) -> None:
    environment = {"SMSSH_ENABLE": "1", **environment}
    service.sagemaker.create_training_job(TrainingJobName=name, Environment=environment, **training())


def test_a_job_is_two_calls_however_many_nodes_there_are(session: AwsSession, service: Service) -> None:
    for number in range(60):
        add_node(service, f"other-{number}")
    target = add_node(service, "My-Job", Step="Train", State="held")
    add_node(service, "My-Job", kind="processing")
    counting = Counting()
    node = lookup.resolve("My-Job.training.sagemaker", counting)
    assert (node.target, node.host, node.port, node.user) == (target, "algo-1", 2222, "root")
    assert (node.step, node.state, node.host_key, node.ping_status) == ("Train", "held", HOST_KEY, "Online")
    assert node.address == "algo-1.My-Job.training.sagemaker"
    assert counting.calls == ["describe_instance_information", "list_tags_for_resource"]


def test_hosts_are_told_apart(session: AwsSession, service: Service) -> None:
    first = add_node(service, "job")
    second = add_node(service, "job", host="algo-2")
    assert lookup.resolve("job.training.sagemaker", session).target == first
    assert lookup.resolve("algo-2.job.training.sagemaker", session).target == second


def test_two_nodes_of_one_host_are_refused_and_named(
    session: AwsSession, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_job(service, "job", OUTCOME="hold")
    old, new = add_node(service, "job"), add_node(service, "job")
    set_tag(service, old, "SSHOwner", "ann")
    for node in (old, new):
        service.sessions.nodes.nodes[node].registered = time.time() + 60
    with pytest.raises(SmsshError, match="2 online nodes claim to be algo-1 of training job 'job'") as caught:
        lookup.resolve("job.training.sagemaker", session)
    assert caught.value.status is ExitStatus.REFUSED
    for part in (old, new, "owner 'ann'", "owner 'unknown'", "role 'role'", "since 2"):
        assert part in caught.value.message
    assert known_hosts.recall("job.training.sagemaker") is None
    add_node(service, "name", kind="inference")
    add_node(service, "name", kind="inference")
    with pytest.raises(SmsshError, match="2 online nodes claim"):
        lookup.resolve("name.inference.sagemaker", session)
    monkeypatch.setenv("SMSSH_NODE", old)
    assert lookup.resolve("job.training.sagemaker", session).target == old


def test_a_node_of_before_the_jobs_last_start_is_passed_over(session: AwsSession, service: Service) -> None:
    """A container that started again: SageMaker says since when, which no tag can."""
    start_job(service, "job", OUTCOME="hold")
    old, new = add_node(service, "job"), add_node(service, "job")
    service.sessions.nodes.nodes[old].registered = time.time() - 100
    service.sessions.nodes.nodes[new].registered = time.time() + 60
    assert lookup.resolve("job.training.sagemaker", session).target == new


def test_a_role_that_is_known_is_asked_for(
    session: AwsSession, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_job(service, "job", OUTCOME="hold", SMSSH_ROLE="arn:aws:iam::123456789012:role/team/role")
    own, foreign = add_node(service, "job"), add_node(service, "job")
    for node in (own, foreign):
        service.sessions.nodes.nodes[node].registered = time.time() + 60
    service.sessions.nodes.nodes[foreign].activation.role = "foreign"
    assert lookup.resolve("job.training.sagemaker", session).target == own
    monkeypatch.setenv("SMSSH_ROLE", "role")
    counting = Counting()
    assert lookup.resolve("job.training.sagemaker", counting).target == own
    assert counting.calls == ["describe_instance_information", "list_tags_for_resource"]


def test_the_owner_is_compared(
    session: AwsSession, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_tag(service, add_node(service, "job"), "SSHOwner", "ben")
    assert lookup.resolve("job.training.sagemaker", session).owner == "ben"
    monkeypatch.setenv("SMSSH_OWNER", "ann")
    for cached in (False, True):
        with pytest.raises(SmsshError, match="has the owner 'ben', and SMSSH_OWNER is 'ann'") as caught:
            lookup.resolve("job.training.sagemaker", session, cached=cached)
        assert caught.value.status is ExitStatus.REFUSED
    monkeypatch.setenv("SMSSH_OWNER", "ben")
    assert lookup.resolve("job.training.sagemaker", session).owner == "ben"


def test_the_key_of_a_resolved_host_is_remembered(session: AwsSession, service: Service) -> None:
    add_node(service, "job")
    lookup.resolve("job.training.sagemaker", session)
    assert known_hosts.recall("job.training.sagemaker") == HOST_KEY
    assert known_hosts.recall("algo-1.job.training.sagemaker") is None


def test_a_pipeline_address(session: AwsSession, service: Service) -> None:
    service.pipeline(definition(step("Train", "Training", training(Environment={"OUTCOME": "hold"}))))
    arn = service.start_pipeline()
    until(lambda: service.runner.running, "the job runs")
    (job,) = service.runner.running
    target = add_node(service, job)
    execution = arn.rpartition("/")[2]
    for address in ("Train.pipe", f"Train.{execution}.pipe", f"algo-1.Train.{execution}.pipe"):
        assert lookup.resolve(f"{address}.pipeline.sagemaker", session).target == target
    with pytest.raises(SmsshError, match="no step 'Trian' has started") as caught:
        lookup.resolve("Trian.pipe.pipeline.sagemaker", session)
    assert caught.value.hint == "choose one that has: Train"
    assert caught.value.status is ExitStatus.NOT_FOUND
    with pytest.raises(SmsshError, match="no pipeline execution 'nonesuch'"):
        lookup.resolve("Train.nonesuch.pipe.pipeline.sagemaker", session)
    service.release(job)
    service.execution(arn, "Succeeded")
    with pytest.raises(SmsshError, match="has ended \\(Succeeded\\)"):
        lookup.resolve("Train.pipe.pipeline.sagemaker", session)


def test_a_step_that_comes_later_is_waited_for(session: AwsSession, service: Service) -> None:
    first = step("First", "Training", training(Environment={"OUTCOME": "hold"}))
    environment = {"OUTCOME": "hold", "SMSSH_ENABLE": "1"}
    then = step("Then", "Training", training(Environment=environment), DependsOn=["First"])
    service.pipeline(definition(first, then))
    service.start_pipeline()
    until(lambda: service.runner.running, "the first job runs")
    told: list[str] = []

    def on_wait(what: str) -> None:
        told.append(what)
        if len(told) == 1:
            service.release(next(iter(service.runner.running)))
        elif "not online" in what:
            add_node(service, service.runner.jobs[-1].name)

    node = lookup.resolve("Then.pipe.pipeline.sagemaker", session, wait=30, on_wait=on_wait)
    assert node.job == service.runner.jobs[-1].name
    assert "no step 'Then' has started" in told[0]


def test_remote_debugging_of_a_step_that_has_no_job_yet(
    session: AwsSession,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from smssh_plugin.cli import main

    monkeypatch.setattr(patience, "POLL_FIRST_SECONDS", 0.01)
    first = step("First", "Training", training(Environment={"OUTCOME": "hold"}))
    then = step("Then", "Training", training(Environment={"OUTCOME": "hold"}), DependsOn=["First"])
    service.pipeline(definition(first, then))
    service.start_pipeline()
    until(lambda: service.runner.running, "the first job runs")
    address = "Then.pipe.pipeline.sagemaker"
    assert main(["remote-debug", address]) == ExitStatus.NOT_FOUND
    assert "error: no step 'Then' has started" in capsys.readouterr().err
    assert main(["remote-debug", address, "--wait", "0.1s"]) == ExitStatus.TIMEOUT
    assert service.runner.debugged == []

    def go_on() -> None:
        service.release(next(iter(service.runner.running)))
        until(lambda: len(service.runner.jobs) == 2, "the second job runs")
        progress = service.sagemaker_service.jobs.progress
        service._loop.call_soon_threadsafe(progress, service.runner.jobs[-1], "Training", "")

    going = threading.Timer(0.5, go_on)
    going.start()
    assert main(["remote-debug", address, "--wait", "30s"]) == 0
    going.join()
    job = service.runner.jobs[-1].name
    assert service.runner.debugged == [(job, True)]
    shown = capsys.readouterr()
    assert shown.out == f"remote debugging is on: smssh shell algo-1.{job}.training.sagemaker\n"
    assert "waiting: no step 'Then' has started" in shown.err


def test_pipelines_that_are_not_there(session: AwsSession, service: Service) -> None:
    with pytest.raises(SmsshError, match="no pipeline 'pipe' in us-east-1") as caught:
        lookup.resolve("Train.pipe.pipeline.sagemaker", session)
    assert caught.value.status is ExitStatus.NOT_FOUND
    service.pipeline(definition(step("Train", "Training", training())))
    with pytest.raises(SmsshError, match="has never been started"):
        lookup.resolve("Train.pipe.pipeline.sagemaker", session)


def test_jobs_that_are_not_there(session: AwsSession, service: Service) -> None:
    for kind in ("training", "processing", "transform"):
        with pytest.raises(SmsshError, match=f"no {kind} job 'job' in us-east-1") as caught:
            lookup.resolve(f"job.{kind}.sagemaker", session)
        assert caught.value.status is ExitStatus.NOT_FOUND
    with pytest.raises(SmsshError, match="no host algo-1 of notebook") as caught:
        lookup.resolve("job.notebook.sagemaker", session)
    assert caught.value.status is ExitStatus.UNREACHABLE


def test_a_job_without_a_node(session: AwsSession, service: Service) -> None:
    start_job(service, "job", OUTCOME="hold")
    service.job_status("Training", "job", "InProgress")
    with pytest.raises(SmsshError, match="not online yet") as caught:
        lookup.resolve("job.training.sagemaker", session)
    assert caught.value.status is ExitStatus.UNREACHABLE
    began = time.monotonic()
    with pytest.raises(SmsshError, match="not online yet") as caught:
        lookup.resolve("job.training.sagemaker", session, wait=0.3)
    assert caught.value.status is ExitStatus.TIMEOUT
    assert time.monotonic() - began < 5


def test_a_job_that_has_failed_says_why(session: AwsSession, service: Service) -> None:
    start_job(service, "job", OUTCOME="fail")
    service.job_status("Training", "job", "Failed")
    with pytest.raises(SmsshError, match=r"has ended \(Failed\): AlgorithmError") as caught:
        lookup.resolve("job.training.sagemaker", session, wait=60)
    assert "hold" in (caught.value.hint or "")


def test_nodes_are_listed_and_foreign_ones_are_not(session: AwsSession, service: Service) -> None:
    add_node(service, "old", Created="100")
    add_node(service, "new", Created="200")
    gone = add_node(service, "gone", Created="50")
    service.sessions.nodes.nodes[gone].pinged = time.time() - 3600
    foreign = add_node(service, "foreign")
    service.sessions.nodes.nodes[foreign].tags.clear()
    assert [node.job for node in managed_nodes.list_nodes(session)] == ["new", "old"]
    assert [node.job for node in managed_nodes.list_nodes(session, everything=True)] == ["new", "old", "gone"]
    set_tag(service, add_node(service, "mine"), "SSHOwner", "me@example.com")
    (found,) = managed_nodes.list_nodes(session, owner="me@example.com")
    assert (found.job, found.owner) == ("mine", "me@example.com")


class Ending(Counting):
    """An AWS session in which a node is deregistered after it was found, before its tags are read."""

    def __init__(self, service: Service, target: str) -> None:
        super().__init__()
        self._service = service
        self._target = target

    def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        if operation == "list_tags_for_resource" and arguments["ResourceId"] == self._target:
            super().call("ssm", "deregister_managed_instance", InstanceId=self._target)
        return super().call(service, operation, **arguments)


def test_a_job_may_end_while_it_is_looked_up(session: AwsSession, service: Service) -> None:
    start_job(service, "ending")
    target = add_node(service, "ending")
    other = add_node(service, "staying")
    assert [node.target for node in managed_nodes.list_nodes(Ending(service, target))] == [other]
    target = add_node(service, "ending")
    with pytest.raises(SmsshError, match=r"has ended|is not online yet"):
        lookup.resolve("ending.training.sagemaker", Ending(service, target))


def test_a_refusal_is_told_from_trouble(session: AwsSession, service: Service) -> None:
    from smssh_plugin.local.service_error import ServiceError

    service.sessions.faults["DescribeInstanceInformation"] = ServiceError("AccessDeniedException", "no way")
    with pytest.raises(SmsshError, match="access denied: DescribeInstanceInformation: no way") as caught:
        lookup.resolve("job.training.sagemaker", session)
    assert caught.value.status is ExitStatus.REFUSED
    service.sessions.faults["DescribeInstanceInformation"] = ServiceError("Odd", "strange")
    with pytest.raises(ServiceRefused, match="strange") as refused:
        lookup.resolve("job.training.sagemaker", session)
    assert refused.value.code == "Odd"


def test_no_region(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(SmsshError, match="no AWS region") as caught:
        lookup.resolve("job.training.sagemaker")
    assert caught.value.status is ExitStatus.USAGE
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert AwsSession().region == "eu-west-1"
    monkeypatch.setenv("AWS_PROFILE", "nonesuch")
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(SmsshError, match="nonesuch"):
        _ = AwsSession().region


def test_no_credentials_and_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(SmsshError, match="no AWS credentials"):
        lookup.resolve("job.training.sagemaker")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(SmsshError, match="AWS cannot be reached") as caught:
        lookup.resolve("job.training.sagemaker")
    assert caught.value.status is ExitStatus.UNREACHABLE


def test_names_in_lower_case_arns_get_their_capitals_back() -> None:
    arn = "arn:aws:sagemaker:us-east-1:1:training-job/pipelines-abcdefghijkl-trainmode-x1y2z3"
    found = executions.describe_step({"StepName": "TrainModel", "Metadata": {"TrainingJob": {"Arn": arn}}})
    assert found is not None
    assert found.names == (
        "pipelines-abcdefghijkl-trainmode-x1y2z3",
        "pipelines-abcdefghijkl-TrainMode-x1y2z3",
    )
    arn = arn.replace("trainmode-", "TrainModel-")
    found = executions.describe_step({"StepName": "TrainModel", "Metadata": {"TrainingJob": {"Arn": arn}}})
    assert found is not None
    assert found.names == ("pipelines-abcdefghijkl-TrainModel-x1y2z3",)


def test_a_node_whose_job_is_over_is_passed_over(session: AwsSession, service: Service) -> None:
    """It shows as Online for minutes when its container was killed before it could deregister."""
    add_node(service, "job", State="ended")
    start_job(service, "job", OUTCOME="hold")
    with pytest.raises(SmsshError, match="has ended, and the job is InProgress"):
        lookup.resolve("job.training.sagemaker", session)
    old, new = add_node(service, "other"), add_node(service, "other", State="ended")
    service.sessions.nodes.nodes[old].registered = time.time() - 100
    service.sessions.nodes.nodes[new].registered = time.time()
    counting = Counting()
    assert lookup.resolve("other.training.sagemaker", counting).target == old
    assert counting.calls == ["describe_instance_information"] + ["list_tags_for_resource"] * 2


def test_what_was_found_a_moment_ago_is_remembered(
    session: AwsSession, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = add_node(service, "job")
    address = "job.training.sagemaker"
    service.keyring.add_source(lambda name: Key(name, "secret") if name == "AKIAANOTHERANOTHER" else None)
    node = lookup.resolve(address, session, cached=True)
    counting = Counting()
    known_hosts.file_for(address).unlink()
    assert lookup.resolve(address, counting, cached=True) == node
    assert counting.calls == []
    assert known_hosts.recall(address) == HOST_KEY
    assert lookup.resolve(address, counting).target == target
    assert len(counting.calls) == 2
    (entry,) = (home() / cache.FOLDER).iterdir()
    assert entry.stat().st_mode & 0o777 == 0o600
    for change in (
        lambda: monkeypatch.setattr(cache, "FRESH_SECONDS", -1.0),
        lambda: (monkeypatch.setattr(cache, "FRESH_SECONDS", 60.0), entry.write_text("{}")),
        lambda: entry.write_text("no JSON"),
        lambda: entry.write_text('{"of": "another version"}'),
        lambda: monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAANOTHERANOTHER"),
    ):
        change()
        counting = Counting()
        assert lookup.resolve(address, counting, cached=True).target == target
        assert len(counting.calls) == 2


STEPS = ["list_pipeline_executions", "list_pipeline_execution_steps"]
NODE = ["describe_instance_information", "list_tags_for_resource"]


@pytest.fixture
def running(session: AwsSession, service: Service) -> Iterator[tuple[str, str]]:
    """A pipeline `pipe` whose step `Train` runs: the id of its execution, and the name of its job."""
    service.pipeline(definition(step("Train", "Training", training(Environment={"OUTCOME": "hold"}))))
    arn = service.start_pipeline()
    until(lambda: service.runner.running, "the job runs")
    (job,) = service.runner.running
    yield arn.rpartition("/")[2], job
    service.release(job)


def test_a_step_is_found_by_the_name_of_its_job(running: tuple[str, str], service: Service) -> None:
    """Three calls with StartSession where the address names the execution, four where it is the newest."""
    execution, job = running
    target = add_node(service, job, Step="Train")
    add_node(service, "pipelines-another-Train-x", Step="Train")
    add_node(service, f"pipelines-{execution}-Other-x", Step="Other")
    for address, calls in ((f"Train.{execution}.pipe", NODE), ("Train.pipe", [STEPS[0], *NODE])):
        counting = Counting()
        node = lookup.resolve(f"{address}.pipeline.sagemaker", counting, cached=True)
        assert (node.target, counting.calls) == (target, calls)
    counting = Counting()
    assert lookup.resolve("Train.pipe.pipeline.sagemaker", counting).target == target
    assert counting.calls == STEPS + NODE


def test_a_step_whose_container_does_not_say_so_is_found_all_the_same(
    running: tuple[str, str], service: Service
) -> None:
    execution, job = running
    target = add_node(service, job)
    add_node(service, f"pipelines-{execution}-Train-old", Step="Train", State="ended")
    for address, calls in (
        (f"Train.{execution}.pipe", [*NODE, *STEPS, *NODE]),
        ("Train.pipe", [STEPS[0], *NODE, STEPS[1], *NODE]),
    ):
        counting = Counting()
        node = lookup.resolve(f"{address}.pipeline.sagemaker", counting, cached=True)
        assert (node.target, counting.calls) == (target, calls)


def test_the_newest_execution_is_remembered_for_a_shorter_time(
    running: tuple[str, str], service: Service
) -> None:
    execution, job = running
    add_node(service, job, Step="Train")
    for address, seconds in (("Train.pipe", 20), (f"Train.{execution}.pipe", 70)):
        text = f"{address}.pipeline.sagemaker"
        counting = Counting()
        lookup.resolve(text, counting, cached=True)
        calls = list(counting.calls)
        lookup.resolve(text, counting, cached=True)
        assert counting.calls == calls
        past = time.time() - seconds
        for entry in (home() / cache.FOLDER).iterdir():
            os.utime(entry, (past, past))
        lookup.resolve(text, counting, cached=True)
        assert counting.calls == calls * 2


def test_a_host_that_the_job_has_not_got_is_named(session: AwsSession, service: Service) -> None:
    start_job(service, "job", OUTCOME="hold")
    with pytest.raises(SmsshError, match="has no host algo-2: it has 1, algo-1") as caught:
        lookup.resolve("algo-2.job.training.sagemaker", session, wait=60)
    assert caught.value.status is ExitStatus.NOT_FOUND


@pytest.mark.parametrize(
    "odd",
    [
        {"Port": "x"},
        {"Port": "-1"},
        {"Port": "65536"},
        {"ControlPort": "x"},
        {"Created": "soon"},
        {"Created": "nan"},
        {"Created": "inf"},
        {"Created": "1e400"},
    ],
)
def test_a_node_with_odd_tags_is_a_node_among_others(
    service: Service, session: AwsSession, odd: dict[str, str]
) -> None:
    """Any job may write any tags: what one says is of no consequence for the others."""
    good, other = add_node(service, "good"), add_node(service, "odd", **odd)
    found = managed_nodes.list_nodes(session)
    assert {node.target for node in found} == {good, other}
    assert all(0 < node.created < time.time() + 60 for node in found)
    assert not managed_nodes.conflicts(found)
    start_job(service, "odd")
    if odd.get("Port"):
        with pytest.raises(SmsshError, match="names no port of an SSH server"):
            lookup.resolve("odd.training.sagemaker", session)
        assert lookup.resolve("odd.training.sagemaker", session, without_server=True).target == other
    else:
        assert lookup.resolve("odd.training.sagemaker", session).target == other


# ------------------------------------------------------------------------------- native remote debugging


DIGEST = "0" * 64
NATIVE = {
    "TrainingJobName": "job",
    "TrainingJobStatus": "InProgress",
    "SecondaryStatus": "Training",
    "RemoteDebugConfig": {"EnableRemoteDebug": True},
    "ResourceConfig": {"InstanceCount": 2},
    "InputDataConfig": [
        {"ChannelName": "data", "DataSource": {"S3DataSource": {"S3Uri": "s3://other/data"}}},
        {
            "ChannelName": "smssh",
            "DataSource": {"S3DataSource": {"S3Uri": f"s3://bucket/team/smssh/{DIGEST}/"}},
        },
    ],
}
ANNOUNCED = {
    "version": 1,
    "job": "job",
    "host": "algo-2",
    "step": "Train",
    "port": 2222,
    "user": "root",
    "host_key": HOST_KEY,
    "state": "held",
    "created": 5.0,
    "from the future": {},
}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    made = Api()
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_SSM", "AWS_ENDPOINT_URL_SAGEMAKER", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    yield made
    made.close()


NO_NODES = (200, {"InstanceInformationList": []})


def test_a_native_host_is_found_by_what_it_announced(api: Api) -> None:
    api.answers = [NO_NODES, (200, NATIVE), (200, json.dumps(ANNOUNCED).encode())]
    node = lookup.resolve("algo-2.job.training.sagemaker")
    assert (node.target, node.port, node.user) == ("sagemaker-training-job:job_algo-2", 2222, "root")
    assert (node.host_key, node.state, node.step) == (HOST_KEY, "held", "Train")
    assert api.operations == ["DescribeInstanceInformation", "DescribeTrainingJob", ""]
    assert api.paths[-1] == "/bucket/team/smssh/hosts/job/algo-2.json"
    assert known_hosts.recall("algo-2.job.training.sagemaker") == HOST_KEY


def test_the_place_of_announcements_may_be_named(api: Api) -> None:
    described = {**NATIVE, "InputDataConfig": [], "Environment": {"SMSSH_ANNOUNCE": "s3://mine"}}
    api.answers = [NO_NODES, (200, described), (200, json.dumps(ANNOUNCED).encode())]
    assert lookup.resolve("algo-2.job.training.sagemaker").port == 2222
    assert api.paths[-1] == "/mine/hosts/job/algo-2.json"


@pytest.mark.parametrize("owner", ["", "222222222222"])
def test_the_bucket_of_announcements_must_be_the_jobs_own_accounts(api: Api, owner: str) -> None:
    """Somebody else's bucket would say which host key to trust."""
    place = "s3://mine/x" + (f"?owner={owner}" if owner else "")
    described = {
        **NATIVE,
        "TrainingJobArn": "arn:aws:sagemaker:us-east-1:111111111111:training-job/job",
        "Environment": {"SMSSH_ANNOUNCE": place},
    }
    api.answers = [NO_NODES, (200, described), (200, json.dumps(ANNOUNCED).encode())]
    assert lookup.resolve("algo-2.job.training.sagemaker").port == 2222
    assert api.paths[-1] == "/mine/x/hosts/job/algo-2.json"
    assert api.headers[-1]["x-amz-expected-bucket-owner"] == (owner or "111111111111")


@pytest.mark.parametrize(
    ("described", "announced", "words", "status"),
    [
        ({"SecondaryStatus": "Downloading"}, None, "is Downloading; .*while it is Training", "UNREACHABLE"),
        ({}, (404, b"<Code>NoSuchKey</Code>"), "has not announced its SSH server yet", "UNREACHABLE"),
        ({}, {"state": "ended"}, "has not announced its SSH server yet", "UNREACHABLE"),
        ({"InputDataConfig": []}, None, "runs no SSH server", "UNREACHABLE"),
        ({}, {"job": "another"}, "not an announcement of algo-2 of job", "REFUSED"),
        ({}, {"port": "x"}, "not an announcement of algo-2 of job", "REFUSED"),
        ({}, {"port": 0}, "not an announcement of algo-2 of job", "REFUSED"),
        ({}, {"version": 2}, "not an announcement of algo-2 of job", "REFUSED"),
        ({}, (200, b"garbage"), "not an announcement of algo-2 of job", "REFUSED"),
        ({}, (403, b""), "access denied: GetObject", "REFUSED"),
        (
            {"TrainingJobStatus": "Failed", "FailureReason": "it\nfell"},
            None,
            r"\(Failed\): it\n",
            "NOT_FOUND",
        ),
        ({"ResourceConfig": {"InstanceGroups": [{"InstanceCount": 1}]}}, None, "has no host", "NOT_FOUND"),
        ({"RemoteDebugConfig": {"EnableRemoteDebug": False}}, None, "not online yet", "UNREACHABLE"),
    ],
)
def test_why_a_native_host_cannot_be_reached(
    api: Api, described: dict[str, Any], announced: Any, words: str, status: str
) -> None:
    api.answers = [NO_NODES, (200, {**NATIVE, **described})]
    if isinstance(announced, dict):
        announced = (200, json.dumps({**ANNOUNCED, **announced}).encode())
    if announced is not None:
        api.answers.append(announced)
    with pytest.raises(SmsshError, match=words) as caught:
        lookup.resolve("algo-2.job.training.sagemaker")
    assert caught.value.status is ExitStatus[status]
    assert not api.answers


@pytest.mark.parametrize(
    "user",
    [
        'root\nMatch exec "touch it"',
        "-oProxyCommand=touch it",
        "root ProxyJump x",
        "%h",
        "$(touch it)",
        "\u2028",
    ],
)
def test_a_user_that_is_no_name_is_refused(api: Api, user: str) -> None:
    announced = {**ANNOUNCED, "user": user}
    api.answers = [NO_NODES, (200, NATIVE), (200, json.dumps(announced).encode())]
    with pytest.raises(SmsshError, match="not the name of an account") as caught:
        endpoint.reach("algo-2.job.training.sagemaker")
    assert caught.value.status is ExitStatus.REFUSED


@pytest.mark.parametrize(
    "odd",
    [
        {"created": "soon"},
        {"created": [5]},
        {"created": float("nan")},
        {"created": float("inf")},
        {"created": 10**400},
        {"created": -5},
    ],
)
def test_an_odd_time_in_an_announcement_costs_no_login(api: Api, odd: dict[str, Any]) -> None:
    api.answers = [NO_NODES, (200, NATIVE), (200, json.dumps({**ANNOUNCED, **odd}).encode())]
    node = lookup.resolve("algo-2.job.training.sagemaker")
    assert (node.port, node.created) == (2222, 0.0)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"version": 1, "job": "job", "host": "algo-2", "port": 1e999}']
)
def test_an_announcement_that_is_not_understood_is_refused(api: Api, content: bytes) -> None:
    api.answers = [NO_NODES, (200, NATIVE), (200, content)]
    with pytest.raises(SmsshError, match="not an announcement of algo-2 of job"):
        lookup.resolve("algo-2.job.training.sagemaker")


def test_a_shell_needs_no_ssh_server(api: Api) -> None:
    api.answers = [NO_NODES, (200, {**NATIVE, "InputDataConfig": []})]
    node = lookup.resolve("job.training.sagemaker", without_server=True)
    assert (node.target, node.port, node.host_key) == ("sagemaker-training-job:job_algo-1", 0, "")


def test_remote_debugging_is_switched_on_in_a_job_that_runs(
    api: Api, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from smssh_plugin.cli import main

    assert main(["remote-debug", "job"]) == 0
    assert api.asked == [
        (
            "SageMaker.UpdateTrainingJob",
            {"TrainingJobName": "job", "RemoteDebugConfig": {"EnableRemoteDebug": True}},
        )
    ]
    assert "smssh shell algo-1.job.training.sagemaker" in capsys.readouterr().out
    monkeypatch.setattr(patience, "POLL_FIRST_SECONDS", 0.01)
    starting = {**NATIVE, "SecondaryStatus": "Downloading"}
    api.answers = [(200, {}), NO_NODES, (200, starting), NO_NODES, (200, NATIVE), (404, b"")]
    assert main(["remote-debug", "algo-2.job.training.sagemaker", "--wait", "30s"]) == 0
    assert not api.answers
    young = (400, {"__type": "ValidationException", "message": "it is Starting"})
    starting = {**NATIVE, "SecondaryStatus": "Starting"}
    api.answers = [young, (200, starting), (200, {}), NO_NODES, (200, NATIVE), (404, b"")]
    assert main(["remote-debug", "job", "--wait", "30s"]) == 0
    assert "it is Starting" in capsys.readouterr().err
    api.answers = [young, (200, starting)]
    assert main(["remote-debug", "job"]) == ExitStatus.FAILED
    assert "Downloading or Training" in capsys.readouterr().err
    for code, message, status, hint in (
        ("ValidationException", "not allowed in Stopping", ExitStatus.FAILED, "Downloading or Training"),
        ("ValidationException", "Requested resource not found.", ExitStatus.NOT_FOUND, "check the name"),
    ):
        api.answers = [(400, {"__type": code, "message": message})]
        assert main(["remote-debug", "job"]) == status
        assert hint in capsys.readouterr().err
    assert main(["remote-debug", "job.processing.sagemaker"]) == ExitStatus.USAGE


PLAIN = [
    ("training", {}, "no-smssh"),
    ("training", {"Environment": {"EPOCHS": "3"}}, "no-smssh"),
    ("training", {"Environment": {"SMSSH_ENABLE": "0", "SMSSH_HOLD": "failure"}}, "no-smssh"),
    ("training", {"Environment": {"SMSSH_ENABLE": "1"}}, "no-node"),
    ("training", {"Environment": {"START_SSH": "true"}}, "no-node"),
    ("training", {"SecondaryStatus": "Uploading"}, "job-ended"),
    ("training", {"TrainingJobStatus": "Stopping"}, "job-ended"),
    ("processing", {}, "no-smssh"),
    ("processing", {"ProcessingJobStatus": "Stopping"}, "job-ended"),
    ("processing", {"Environment": {"SMSSH_ENABLE": "1"}}, "no-node"),
    ("processing", {"AppSpecification": {"ContainerEntrypoint": ["sh", "/x/smssh/run.sh", "a"]}}, "no-node"),
    ("transform", {}, "no-smssh"),
    ("transform", {"Environment": {"EPOCHS": "3"}}, "no-smssh"),
    ("transform", {"Environment": {"SMSSH_ENABLE": "0"}}, "no-smssh"),
    ("transform", {"Environment": {"SMSSH_ENABLE": "1"}}, "no-node"),
    ("transform", {"Environment": {"START_SSH": "true"}}, "no-node"),
    ("transform", {"TransformJobStatus": "Stopping"}, "job-ended"),
]


class Describing(Counting):
    """An AWS session whose jobs are as a test says."""

    def __init__(self, kind: str, described: dict[str, Any]) -> None:
        super().__init__()
        name = f"{kind.capitalize()}JobStatus"
        self.described = {name: "InProgress", "SecondaryStatus": "Training", **described}

    def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        if operation == "describe_model":
            return {"PrimaryContainer": {"Image": "image", "Environment": {"SAGEMAKER_PROGRAM": "serve.py"}}}
        if operation.startswith("describe_") and service == "sagemaker":
            return self.described
        return super().call(service, operation, **arguments)


@pytest.mark.parametrize(("kind", "described", "reference"), PLAIN)
def test_what_cannot_come_is_not_waited_for(
    kind: str, described: dict[str, Any], reference: str, session: AwsSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def stop(seconds: float) -> None:
        pauses.append(seconds)
        raise InterruptedError

    monkeypatch.setattr(patience.time, "sleep", stop)
    aws = Describing(kind, dict(described))
    with pytest.raises((SmsshError, InterruptedError)) as caught:
        lookup.resolve(f"job.{kind}.sagemaker", aws, wait=600)
    assert bool(pauses) is (reference == "no-node")
    if not pauses:
        assert isinstance(caught.value, SmsshError)
        assert caught.value.reference == reference
        assert ("smssh remote-debug job" in str(caught.value)) is (
            kind == "training" and reference == "no-smssh"
        )


FILES = {"S3Uri": "s3://bucket/x/", "S3DataType": "S3Prefix", "CompressionType": "None"}
BROUGHT = {
    "AdditionalModelDataSources": [{"ChannelName": "smssh", "S3DataSource": FILES}],
    "Environment": {"SMSSH_BUNDLE": "/opt/ml"},
}


@pytest.mark.parametrize(
    ("container", "reference"),
    [
        ({}, "no-smssh"),
        (BROUGHT, "no-smssh"),  # the model brings our files, and the job does not turn them on
        ({"Environment": {"SMSSH_ENABLE": "0"}}, "no-smssh"),
        ({"Environment": {"SMSSH_ENABLE": "1"}}, "no-node"),  # SSHOptions(endpoints=True)
        ({"Environment": {"START_SSH": "true"}}, "no-node"),
    ],
)
@pytest.mark.parametrize("member", ["PrimaryContainer", "Containers"])
def test_the_model_of_a_transform_job_says_whether_it_is_waited_for(
    container: dict[str, Any], reference: str, member: str, session: AwsSession, service: Service
) -> None:
    """Against the emulator, which describes models as AWS does."""
    whole = {"Image": "image", **container}
    service.sagemaker.create_model(
        ModelName="scorer",
        ExecutionRoleArn="arn:aws:iam::123456789012:role/job",
        **{member: whole if member == "PrimaryContainer" else [whole]},
    )
    service.sagemaker.create_transform_job(
        TransformJobName="job",
        ModelName="scorer",
        TransformInput={
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/in"}}
        },
        TransformOutput={"S3OutputPath": "s3://bucket/out"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
        Environment={"OUTCOME": "hold"},
    )
    with pytest.raises(SmsshError) as caught:
        lookup.resolve("job.transform.sagemaker", Counting(), wait=0)
    assert caught.value.reference == reference


@pytest.mark.parametrize(
    "trouble",
    [
        ServiceRefused("Could not find model", "ValidationException"),
        SmsshError("access denied: DescribeModel", reference="access-denied", status=ExitStatus.REFUSED),
    ],
)
def test_a_model_that_cannot_be_looked_at_may_turn_ssh_on(
    trouble: SmsshError, session: AwsSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws = Describing("transform", {"ModelName": "scorer"})

    def call(service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        if operation == "describe_model":
            raise trouble
        return Describing.call(aws, service, operation, **arguments)

    monkeypatch.setattr(aws, "call", call)
    with pytest.raises(SmsshError) as caught:
        lookup.resolve("job.transform.sagemaker", aws, wait=0)
    assert caught.value.reference == "no-node"


@pytest.mark.parametrize("kind", ["inference", "notebook", "studio"])
def test_a_kind_that_nobody_can_be_asked_about_is_not_waited_for(kind: str, session: AwsSession) -> None:
    with pytest.raises(SmsshError, match=f"no host algo-1 of {kind} 'job' is online"):
        lookup.resolve(f"job.{kind}.sagemaker", session, wait=600)


def test_a_container_that_has_ended_is_waited_for_a_minute(
    session: AwsSession, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_node(service, "job", State="ended")
    start_job(service, "job", OUTCOME="hold")
    now = [0.0]
    clock = SimpleNamespace(
        monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds), time=time.time
    )
    monkeypatch.setattr(patience, "time", clock)
    with pytest.raises(SmsshError, match="the container of host algo-1 of training job 'job' has ended"):
        lookup.resolve("job.training.sagemaker", session, wait=600)
    assert 60 <= now[0] < 70


@pytest.mark.parametrize(("status", "hold"), [("Completed", False), ("Stopped", False), ("Failed", True)])
def test_a_hold_is_the_advice_for_what_has_failed_alone(status: str, hold: bool, session: AwsSession) -> None:
    aws = Describing("training", {"TrainingJobStatus": status, "SecondaryStatus": status})
    with pytest.raises(SmsshError, match="has ended") as caught:
        lookup.resolve("job.training.sagemaker", aws, wait=600)
    assert ("hold" in str(caught.value.hint)) is hold


def test_a_step_of_another_kind_is_not_waited_for(
    session: AwsSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [{"StepName": "Ask", "StepStatus": "Executing", "Metadata": {"Callback": {"CallbackToken": "x"}}}]
    monkeypatch.setattr(
        executions, "execution_arn", lambda *_: "arn:aws:sagemaker:us-east-1:1:pipeline/p/execution/e"
    )
    monkeypatch.setattr(executions, "steps_of", lambda *_: steps)
    with pytest.raises(SmsshError, match="step 'Ask' has no job"):
        lookup.resolve("Ask.p.pipeline.sagemaker", session, wait=600)


def test_a_full_disk_is_said(session: AwsSession, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    add_node(service, "job")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(known_hosts, "write_atomically", full)
    with pytest.raises(SmsshError, match=r"cannot write .*job\.training\.sagemaker") as caught:
        lookup.resolve("job.training.sagemaker", session)
    assert "No space left on device" in str(caught.value)


def test_a_step_whose_arn_is_in_lower_case_altogether(
    session: AwsSession, monkeypatch: pytest.MonkeyPatch, service: Service
) -> None:
    own = "pipelines-abcdefghijkl-Train-hWEjyentHL"
    target = add_node(service, own, Step="Train")
    add_node(service, "pipelines-another00000-Train-hWEjyentHL", Step="Train")
    arn = f"arn:aws:sagemaker:us-east-1:1:training-job/{own.lower()}"
    steps = [{"StepName": "Train", "StepStatus": "Executing", "Metadata": {"TrainingJob": {"Arn": arn}}}]
    execution = "arn:aws:sagemaker:us-east-1:1:pipeline/p/execution/abcdefghijkl"
    monkeypatch.setattr(executions, "execution_arn", lambda *_: execution)
    monkeypatch.setattr(executions, "steps_of", lambda *_: steps)
    assert lookup.resolve("Train.p.pipeline.sagemaker", session).target == target
    service.sessions.nodes.nodes[target].pinged = time.time() - 3600
    with pytest.raises(SmsshError, match="host algo-1 of step 'Train' is not online yet"):
        lookup.resolve("Train.p.pipeline.sagemaker", session)


def test_such_a_step_without_a_node_is_found_in_the_list_of_jobs(
    session: AwsSession, monkeypatch: pytest.MonkeyPatch, service: Service
) -> None:
    own = "pipelines-abcdefghijkl-Train-hWEjyentHL"
    start_job(service, own, OUTCOME="hold", SMSSH_ENABLE="0")
    arn = f"arn:aws:sagemaker:us-east-1:1:training-job/{own.lower()}"
    steps = [{"StepName": "Train", "StepStatus": "Executing", "Metadata": {"TrainingJob": {"Arn": arn}}}]
    execution = "arn:aws:sagemaker:us-east-1:1:pipeline/p/execution/abcdefghijkl"
    monkeypatch.setattr(executions, "execution_arn", lambda *_: execution)
    monkeypatch.setattr(executions, "steps_of", lambda *_: steps)
    with pytest.raises(SmsshError, match=f"training job '{own}' was submitted without smssh"):
        lookup.resolve("Train.p.pipeline.sagemaker", session)
    until(lambda: own in service.runner.running, "it runs")
    service._loop.call_soon_threadsafe(
        service.sagemaker_service.jobs.progress, service.runner.jobs[0], "Training", "now"
    )
    assert lookup.switch_on(addresses.parse("Train.p.pipeline.sagemaker"), session, wait=30) == own
    assert service.runner.debugged == [(own, True)]


def test_a_step_is_found_without_its_capitals(
    session: AwsSession, monkeypatch: pytest.MonkeyPatch, service: Service
) -> None:
    """Programs around ssh write host names in lower case; a name that two steps have is not guessed at."""
    target = add_node(service, "job-1", Step="Train")
    arn = "arn:aws:sagemaker:us-east-1:1:training-job/job-1"
    steps = [{"StepName": "Train", "StepStatus": "Executing", "Metadata": {"TrainingJob": {"Arn": arn}}}]
    execution = "arn:aws:sagemaker:us-east-1:1:pipeline/p/execution/abcdefghijkl"
    monkeypatch.setattr(executions, "execution_arn", lambda *_: execution)
    monkeypatch.setattr(executions, "steps_of", lambda *_: steps)
    assert lookup.resolve("train.p.pipeline.sagemaker", session).target == target
    assert executions._chosen([*steps, {"StepName": "TRAIN"}], "train") is None


def test_what_is_not_a_persons_login_goes_to_the_control_port(service: Service, session: AwsSession) -> None:
    def port(job: str, **how: bool) -> str:
        words = endpoint.reach(f"{job}.training.sagemaker", session, **how).proxy
        return words[words.index("--port") + 1]

    add_node(service, "new", ControlPort="2223")
    assert (port("new"), port("new", control=True)) == ("2222", "2223")
    # A container whose smssh has none, one that was found a moment ago, and one whose tag is not a port.
    add_node(service, "old")
    assert (port("old"), port("old", control=True)) == ("2222", "2222")
    assert lookup.resolve("new.training.sagemaker", session, cached=True).control_port == 2223
    add_node(service, "odd", ControlPort="everything")
    assert (port("odd"), port("odd", control=True)) == ("2222", "2222")
