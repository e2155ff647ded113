"""The steps of `smssh doctor --live` that need a job: each answer, good and bad, with a real job in the emulator."""

import contextlib
import json
import os
import re
from dataclasses import replace

import pytest

from smssh_plugin.cli import main
from smssh_plugin.live import job, job_steps, place
from smssh_plugin.live.steps import STEPS

from .conftest import make, unmake
from .machine import PATIENCE, client, control, image_with_asyncssh

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(2 * PATIENCE),
    pytest.mark.needs("image environment", "ssh"),
]

ACCOUNT = "123456789012"
DENIED = f"User: arn:aws:sts::{ACCOUNT}:assumed-role/a/b is not authorized to perform: {{}} on resource: *"


class Emulator:
    """A local emulator, and what is to go wrong in it."""

    def __init__(self, machine):
        self.machine = machine

    def control(self, method, path, said=None):
        return control(self.machine, method, path, said)

    @contextlib.contextmanager
    def wrong(self, *, without=(), **fault):
        """Within this block a statement does not count, or an operation fails."""
        if without:
            self.control("POST", "iam", {"without": without})
        if fault:
            self.control("POST", "faults", fault)
        try:
            yield
        finally:
            self.control("DELETE", "faults")
            if without:
                self.control("POST", "iam", {"without": []})

    def left(self):
        """What runs have left: all of it should be gone."""
        services = {name: client(self.machine, name) for name in ("iam", "s3", "ssm", "sagemaker")}
        jobs = services["sagemaker"].list_processing_jobs(NameContains="smssh-live-")[
            "ProcessingJobSummaries"
        ]
        return [
            *(each["RoleName"] for each in services["iam"].list_roles()["Roles"]),
            *(each["Name"] for each in services["s3"].list_buckets()["Buckets"]),
            *(each["ActivationId"] for each in services["ssm"].describe_activations()["ActivationList"]),
            *(
                each["InstanceId"]
                for each in services["ssm"].describe_instance_information()["InstanceInformationList"]
            ),
            *(each["ProcessingJobName"] for each in jobs if each["ProcessingJobStatus"] not in job.ENDED),
        ]


@contextlib.contextmanager
def started(*, enforcing):
    machine = make()
    image = image_with_asyncssh(machine.home / "image")
    words = ["--port", "0", "--image", f"live={image}", "--known-images-only"]
    if enforcing:
        policies = machine.home / "policies"
        parts = [word for part in ("node", "job", "people") for word in ("--part", part)]
        machine.smssh("setup", *parts, "--account", ACCOUNT, "--format", "json", "--write", policies)
        words += ["--iam", policies]
    exports = machine.smssh("local", "up", *words).stdout
    machine.environ.update(re.findall(r"^export (\w+)='(.*)'$", exports, flags=re.MULTILINE))
    try:
        yield Emulator(machine)
    finally:
        machine.smssh("local", "down")
        machine.assert_nothing_left()
        unmake(machine)


@pytest.fixture(scope="module")
def enforcing():
    with started(enforcing=True) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def permissive():
    with started(enforcing=False) as emulator:
        yield emulator


@pytest.fixture
def environment(monkeypatch):
    """An environment in which what takes a moment on AWS is there soon, or never."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(place, "PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(place, "SETTLE_SECONDS", 2.0)
    return monkeypatch


def answers(emulator, environment, capsys, *steps, image="live"):
    """What a run answers, by step; nothing of it is left."""
    for name, value in emulator.machine.environ.items():
        environment.setenv(name, value)
    words = ["--jobs", "--image", image, "--yes", ACCOUNT, "--json"]
    main(["doctor", "--live", *steps, *words])
    found = json.loads(capsys.readouterr().out)
    assert emulator.left() == []
    return {each["id"]: (each["answer"], each["message"], each["evidence"]) for each in found["steps"]}


@pytest.mark.parametrize(
    ("step", "fault", "answer", "message"),
    [
        (
            "job",
            {
                "operation": "sagemaker:CreateProcessingJob",
                "code": "ValidationException",
                "message": "no such",
            },
            "no",
            "SageMaker does not accept the request",
        ),
        (
            "job",
            {
                "operation": "sagemaker:CreateProcessingJob",
                "code": "ResourceLimitExceeded",
                "message": "0 left",
            },
            "could not be tried",
            "CreateProcessingJob: 0 left",
        ),
        (
            "job",
            {"operation": "s3:PUT", "code": "AccessDenied", "message": "not you", "status": 403},
            "could not be tried",
            "access denied: CreateBucket",
        ),
        (
            "job-log",
            {
                "operation": "logs:GetLogEvents",
                "code": "AccessDeniedException",
                "message": DENIED.format("logs:GetLogEvents"),
            },
            "could not be tried",
            "access denied: GetLogEvents",
        ),
        (
            "job-log",
            {"operation": "logs:DescribeLogStreams", "code": "ResourceNotFoundException", "message": "none"},
            "no",
            "no line of smssh is in the log group /aws/sagemaker/ProcessingJobs",
        ),
    ],
)
def test_calls_that_fail(enforcing, environment, capsys, step, fault, answer, message) -> None:
    environment.setattr(job_steps, "LOG_SECONDS", 0.0)
    with enforcing.wrong(**fault):
        found = answers(enforcing, environment, capsys, step)
    assert found[f"live.{step}"][0] == answer
    assert message in found[f"live.{step}"][1]
    assert {each for each, said in found.items() if said[0] == "no"} <= {f"live.{step}"}


@pytest.mark.parametrize(
    ("step", "statement", "message"),
    [
        ("job-online", "trials/Activate", "the container runs, and its host is not registered"),
        ("job-online", "trials/Agent", "the container runs, and its host is registered, and not online"),
        ("host-tags", "trials/TagState", "the job's failure does not show in the tag SMSSHState"),
        ("host-owner", "session/Nodes", "denied: a session with a host of one's owner"),
        ("data-channel", "session/Channel", "denied: a data channel, with ssmmessages:OpenDataChannel"),
        ("own-sessions", "session/OwnSessions", "denied: ending one's own session"),
        ("login", "session/HostKeys", "ssh ended with 5"),
        ("job-end", "trials/End", "the job has ended, and its node is still there"),
    ],
)
def test_what_is_denied_that_should_not_be(enforcing, environment, capsys, step, statement, message) -> None:
    environment.setattr(job_steps, "ONLINE_SECONDS", 10.0 if step == "job-online" else PATIENCE)
    environment.setattr(job_steps, "HELD_SECONDS", 5.0 if step == "host-tags" else PATIENCE)
    with enforcing.wrong(without=[statement]):
        found = answers(enforcing, environment, capsys, step)
    assert found[f"live.{step}"][0] == "no", found
    assert message in found[f"live.{step}"][1]
    assert {each for each, said in found.items() if said[0] != "yes"} == {f"live.{step}"}


def test_what_is_allowed_that_should_not_be(permissive, environment, capsys) -> None:
    found = answers(permissive, environment, capsys, "host-owner", "data-channel")
    assert found["live.host-owner"][:2] == ("no", "allowed: a session with a host of another owner")
    assert found["live.data-channel"][:2] == ("could not be tried", "it needs live.host-owner")
    for step, message in (
        ("data-channel", "allowed: a data channel, without ssmmessages:OpenDataChannel"),
        ("own-sessions", "allowed: ending a session of somebody else"),
    ):
        with alone(environment, f"live.{step}"):
            found = answers(permissive, environment, capsys, step)
        assert found[f"live.{step}"][:2] == ("no", message)


@contextlib.contextmanager
def alone(environment, step):
    """Within this block a step needs a host that is online, and no other answer."""
    with environment.context() as within:
        within.setitem(STEPS, step, replace(STEPS[step], after=("live.job-online",)))
        yield


def test_an_image_that_is_not_there(enforcing, environment, capsys) -> None:
    found = answers(enforcing, environment, capsys, "job-online", image="another")
    answer, message, _ = found["live.job-online"]
    assert answer == "could not be tried"
    assert message.startswith("the container did not start: ")


def test_a_job_that_ends_otherwise(enforcing, environment, capsys) -> None:
    environment.setattr(job, "MESSAGE", "another message")
    answer, message, evidence = answers(enforcing, environment, capsys, "job-end")["live.job-end"]
    assert (answer, message) == ("no", "the job has not ended as its entry point did")
    assert evidence[0] == "the job: Failed, ExitMessage 'smssh-live'"
