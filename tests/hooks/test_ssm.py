"""The ssm transport against the stand-in's session service and agent double: node, tags, states, the end."""

import configparser
import json
import os
import signal

import pytest
from smssh_plugin.hooks import ssm

from smssh_plugin.local.agent.install import install
from tests.entrypoints.container import poll


@pytest.fixture
def node_of(container, stack):
    """Starts a wrapped job with the ssm transport."""
    programs = container.folder / "programs"
    install(programs)

    def start(*command, **environ):
        environ.setdefault("PATH", f"{programs}:{container.environ['PATH']}")
        return container.wrap(
            *command,
            **{
                "SMSSH_TRANSPORT": "ssm",
                "SMSSH_ROLE": "arn:aws:iam::123456789012:role/service-role/Nodes",
                "SMSSH_STEP": "Train",
                "SMSSH_OWNER": "me@example.com",
                "AWS_ENDPOINT_URL": stack.url,
                "AWS_ACCESS_KEY_ID": "ASIAJOBJOBJOBJOBJOBJ",
                "AWS_SECRET_ACCESS_KEY": "the-jobs-secret",
                "AWS_SESSION_TOKEN": "the-jobs-token",
                **environ,
            },
        )

    return start


def tags_of(stack, node):
    answer = stack.call("ListTagsForResource", ResourceType="ManagedInstance", ResourceId=node)
    return {tag["Key"]: tag["Value"] for tag in answer["TagList"]}


def nodes(stack):
    return stack.call("DescribeInstanceInformation")["InstanceInformationList"]


def test_node_tags_states_and_the_end(container, stack, node_of):
    process = node_of(
        "sh", "-c", "while [ ! -e go ]; do sleep 0.05; done; rm go; exit 3", SMSSH_HOLD="failure"
    )
    status = poll(lambda: (found := container.wait_for("running"))["transport"]["target"] and found)
    node = status["transport"]["target"]
    assert [found["InstanceId"] for found in nodes(stack)] == [node]
    expected = {
        "SMSSHJob": "job-1",
        "SMSSHKind": "training",
        "SMSSHHost": "algo-1",
        "SMSSHStep": "Train",
        "SSHOwner": "me@example.com",
        "SMSSHHostKey": status["ssh"]["host_key"],
        "SMSSHPort": str(status["ssh"]["port"]),
        "SMSSHUser": status["ssh"]["user"],
    }
    assert expected.items() <= tags_of(stack, node).items()
    assert all(len(value) <= 256 for value in tags_of(stack, node).values())
    poll(lambda: tags_of(stack, node).get("SMSSHState") in ("ready", "running"), what="the state")
    container.script("", name="go")
    container.wait_for("held")
    poll(lambda: tags_of(stack, node).get("SMSSHState") == "held", what="held")
    environ = (container.run_dir / "agent" / "configuration" / "amazon-ssm-agent.json").read_text()
    assert json.loads(environ)["Mgs"]["SessionWorkerBufferLimit"] == 100
    # The agent has credentials of its own, in a file of its own.
    credentials = configparser.ConfigParser()
    poll(lambda: credentials.read(container.run_dir / "agent" / "credentials"), what="the credentials")
    assert not (container.home / ".aws").exists()
    for pid, command in container.strays():
        if "amazon-ssm-agent" in command:
            with open(f"/proc/{pid}/environ", "rb") as file:
                assert b"the-jobs-secret" not in file.read()
    secrets = ("the-jobs-secret", "the-jobs-token", credentials["default"]["aws_secret_access_key"])
    assert not [secret for secret in secrets if secret in container.log() + container.output()]
    # The environment of logins is private to the job's user.
    for path in (container.run_dir / "ssh").iterdir():
        assert "the-jobs-secret" not in path.read_text() or path.stat().st_mode & 0o077 == 0
    container.hook("release")
    assert process.wait(40) == 3
    assert nodes(stack) == []
    assert stack.call("DescribeActivations")["ActivationList"] == []
    container.assert_quiet()


def test_a_failing_job_that_is_stopped_leaves_no_node(container, stack, node_of):
    process = node_of("sh", "-c", "exec sleep 100")
    poll(lambda: container.wait_for("running")["transport"]["target"])
    process.send_signal(signal.SIGTERM)
    assert process.wait(40) == 143
    assert nodes(stack) == []
    container.assert_quiet()


def test_an_agent_that_dies_is_started_again(container, stack, node_of):
    process = node_of("sh", "-c", "while [ ! -e go ]; do sleep 0.05; done")
    node = poll(lambda: container.wait_for("running")["transport"]["target"])

    def connected():
        return stack.call("GetConnectionStatus", Target=node)["Status"] == "connected"

    def agents():
        return [pid for pid, command in container.strays() if "/agent/amazon-ssm-agent" in command]

    poll(connected, what="the control channel")
    first = agents()
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    poll(lambda: agents() and agents() != first, what="the restart")
    poll(connected, what="the control channel")
    container.script("", name="go")
    assert process.wait(40) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"SMSSH_ROLE": ""}, "SMSSH_ROLE is not set"),
        ({"AWS_REGION": ""}, "AWS_REGION is not set"),
        ({"PATH": "/usr/bin:/bin"}, "Neither the image nor the bundle has boto3|no amazon-ssm-agent"),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "2"},
            "Could not connect|no transport",
        ),
    ],
)
def test_without_a_transport_the_job_runs_and_the_log_says_why(container, node_of, change, words):
    process = node_of("sh", "-c", "while [ ! -e go ]; do sleep 0.05; done; exit 4", **change)
    poll(lambda: "no login is possible" in container.output(), what=f"a message; {container.log()}")
    assert any(word in container.log() for word in words.split("|")), container.log()
    container.script("", name="go")
    assert process.wait(40) == 4
    container.assert_quiet()


def test_endpoints():
    assert ssm.endpoints({}) == {}
    assert ssm.agent_configuration("eu-west-1", {})["Mgs"] == {
        "Region": "eu-west-1",
        "SessionWorkerBufferLimit": 100,
    }
    both = {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_SSMMESSAGES": "http://b"}
    assert ssm.endpoints(both) == {"ssm": "http://a", "ssmmessages": "http://b"}
    assert ssm.agent_configuration("r", both)["Mds"] == {"Endpoint": "http://a"}
