"""The ssm transport against the local emulator's session service and fake agent: node, tags, states, the end."""

import configparser
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from smssh_plugin.local.agent.installed import install
from smssh_plugin.local.service_error import ServiceError
from tests.container.agents import Mirror, fake_agent_package, pinned, silence
from tests.session.support import proxy_command
from tests.waiting import LIMIT, until

WAITING = "while [ ! -e go ]; do sleep 0.05; done"


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


def test_node_tags_states_and_the_end(container, stack, node_of) -> None:
    process = node_of(
        "sh", "-c", "while [ ! -e go ]; do sleep 0.05; done; rm go; exit 3", SMSSH_HOLD="failure"
    )
    status = until(lambda: (found := container.wait_for("running"))["transport"]["target"] and found)
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
        "SMSSHControlPort": str(status["ssh"]["control_port"]),
        "SMSSHUser": status["ssh"]["user"],
    }
    assert expected.items() <= tags_of(stack, node).items()
    assert all(len(value) <= 256 for value in tags_of(stack, node).values())
    until(lambda: tags_of(stack, node).get("SMSSHState") in ("ready", "running"), what="the state")
    container.script("", name="go")
    container.wait_for("held")
    until(lambda: tags_of(stack, node).get("SMSSHState") == "held", what="held")
    environ = (container.run_dir / "agent" / "configuration" / "amazon-ssm-agent.json").read_text()
    assert json.loads(environ)["Mgs"]["SessionWorkerBufferLimit"] == 100
    # The agent has credentials of its own, in a file of its own.
    credentials = configparser.ConfigParser()
    until(lambda: credentials.read(container.run_dir / "agent" / "credentials"), what="the credentials")
    assert not (container.home / ".aws").exists()
    for pid, command in container.strays():
        if "amazon-ssm-agent" in command:
            with open(f"/proc/{pid}/environ", "rb") as file:
                assert b"the-jobs-secret" not in file.read()
    secrets = ("the-jobs-secret", "the-jobs-token", credentials["default"]["aws_secret_access_key"])
    assert not [secret for secret in secrets if secret in container.log() + container.output()]
    # The environment of logins is private to the job's user.
    for path in (container.run_dir / "ssh").rglob("*"):
        secret = path.is_file() and "the-jobs-secret" in path.read_text()
        assert not secret or path.stat().st_mode & 0o077 == 0
    container.hook("release")
    assert process.wait(LIMIT) == 3
    assert nodes(stack) == []
    assert stack.call("DescribeActivations")["ActivationList"] == []
    container.assert_quiet()


def test_a_failing_job_that_is_stopped_leaves_no_node(container, stack, node_of) -> None:
    process = node_of("sh", "-c", "exec sleep 100")
    until(lambda: container.wait_for("running")["transport"]["target"])
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 143
    assert nodes(stack) == []
    container.assert_quiet()


def agents(container):
    """The fake agent's processes, by their command line."""
    return [pid for pid, command in container.strays() if "/agent/amazon-ssm-agent" in command]


def connected(stack, node):
    return stack.call("GetConnectionStatus", Target=node)["Status"] == "connected"


def log_in(container, stack, status, seconds=40):
    """One login through the session service; answers its output, or None if it failed."""
    command = proxy_command(status["transport"]["target"], status["ssh"]["port"])
    quoted = " ".join("'" + part.replace("'", "'\\''").replace("%", "%%") + "'" for part in command)
    try:
        done = subprocess.run(
            ["ssh", *container.ssh_options(status), "-o", f"ProxyCommand={quoted}", "job", "echo in"],
            env=stack.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def test_an_agent_that_dies_is_started_again(container, stack, node_of) -> None:
    process = node_of("sh", "-c", "while [ ! -e go ]; do sleep 0.05; done")
    node = until(lambda: container.wait_for("running")["transport"]["target"])

    # It is connected before the job is told that it can be entered.
    assert connected(stack, node)
    first = agents(container)
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    until(lambda: agents(container) and agents(container) != first, what="the restart")
    until(lambda: connected(stack, node), what="the control channel")
    container.script("", name="go")
    assert process.wait(LIMIT) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"SMSSH_ROLE": ""}, "SMSSH_ROLE is not set"),
        ({"AWS_REGION": ""}, "does not say its AWS region"),
        (
            {"PATH": "/usr/bin:/bin"},
            "neither the image nor the bundle has boto3|image has no amazon-ssm-agent",
        ),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "2"},
            "no answer from http://127.0.0.1:9",
        ),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_EC2_METADATA_DISABLED": "true"}, "no AWS credentials"),
    ],
)
def test_without_a_transport_the_job_runs_and_the_log_says_why(container, node_of, change, words) -> None:
    process = node_of("sh", "-c", "while [ ! -e go ]; do sleep 0.05; done; exit 4", **change)
    until(lambda: "no login is possible" in container.output(), what=lambda: f"a message; {container.log()}")
    lines = container.output().splitlines()
    # One line of the job's own log says what is wrong and what to do.
    assert [line for line in lines if any(word in line for word in words.split("|")) and "hint:" in line], (
        lines
    )
    container.script("", name="go")
    assert process.wait(LIMIT) == 4
    container.assert_quiet()


def test_an_agent_that_is_killed_at_any_moment_comes_back_as_the_same_node(container, stack, node_of) -> None:
    process = node_of("sh", "-c", WAITING)
    status = until(lambda: (found := container.wait_for("running"))["transport"]["target"] and found)
    node = status["transport"]["target"]
    assert log_in(container, stack, status) == "in"
    for _ in range(3):
        time.sleep(random.uniform(0.0, 0.4))
        for pid in until(lambda: agents(container), what="the agent"):
            os.kill(pid, signal.SIGKILL)
    until(lambda: agents(container), what="the agent's return")
    until(lambda: connected(stack, node) and log_in(container, stack, status) == "in", what="a login")
    assert [found["InstanceId"] for found in nodes(stack)] == [node]
    container.script("", name="go")
    assert process.wait(LIMIT) == 0
    assert nodes(stack) == []


def test_the_agent_stays_out_of_the_jobs_way(container, stack, node_of) -> None:
    process = node_of("sh", "-c", WAITING)
    until(lambda: container.wait_for("running")["transport"]["target"])
    (agent,) = agents(container)
    # When memory runs out it goes first, and what it starts goes with it; the job's own processes don't change.
    assert Path(f"/proc/{agent}/oom_score_adj").read_text().strip() == "1000"
    own = Path("/proc/self/oom_score_adj").read_text()
    assert Path(f"/proc/{process.pid}/oom_score_adj").read_text() == own
    # It is nobody's child that waits for its children, and has no descriptor of the job's.
    ancestors, pid = [], agent
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        ancestors.append(pid)
    assert process.pid not in ancestors
    assert container.logs[0].name not in [os.readlink(path) for path in Path(f"/proc/{agent}/fd").iterdir()]
    container.script("", name="go")
    assert process.wait(LIMIT) == 0


def test_the_activation_code_is_left_nowhere(container, stack, node_of, monkeypatch) -> None:
    codes = []
    create = stack.service._operations["CreateActivation"]

    async def remember(body, key):
        answer = await create(body, key)
        codes.append(answer["ActivationCode"])
        return answer

    monkeypatch.setitem(stack.service._operations, "CreateActivation", remember)
    process = node_of("sh", "-c", WAITING)
    until(lambda: container.wait_for("running")["transport"]["target"])
    (code,) = codes
    assert not [command for _, command in container.strays() if code in command]
    until(lambda: stack.call("DescribeActivations")["ActivationList"] == [], what="its deletion")
    for path in container.folder.rglob("*"):
        assert not path.is_file() or code.encode() not in path.read_bytes(), path
    container.script("", name="go")
    assert process.wait(LIMIT) == 0


def test_an_image_without_an_agent_gets_the_pinned_one(container, stack, node_of, tmp_path) -> None:
    package = fake_agent_package(tmp_path)
    mirror = Mirror()
    try:
        mirror.serve(package)
        bare = container.environ["PATH"]
        more = {"PATH": bare, "SMSSH_AGENT": "download", "SMSSH_AGENT_URL": mirror.url, **pinned(package)}
        process = node_of("sh", "-c", WAITING, **more)
        status = until(lambda: (found := container.wait_for("running"))["transport"]["target"] and found)
        assert log_in(container, stack, status) == "in"
        container.script("", name="go")
        assert process.wait(LIMIT) == 0
        container.assert_quiet()
    finally:
        mirror.close()


def test_a_wrong_agent_is_not_started_and_the_job_runs(container, stack, node_of, tmp_path) -> None:
    package = fake_agent_package(tmp_path)
    mirror = Mirror()
    try:
        mirror.serve(package.replace(b"debian-binary", b"debian-bin4ry"))
        more = {"SMSSH_AGENT": "download", "SMSSH_AGENT_URL": mirror.url, **pinned(package)}
        process = node_of("sh", "-c", f"{WAITING}; exit 5", **more)
        until(lambda: "no login is possible" in container.output(), what="a message")
        assert "is not the agent that was pinned" in container.output()
        container.script("", name="go")
        assert process.wait(LIMIT) == 5
        assert stack.calls == []  # no activation is made for an agent that is not there
        container.assert_quiet()
    finally:
        mirror.close()


def test_a_role_that_may_not_serve_sessions_is_named(container, stack, node_of) -> None:
    """Registered, but never connected: without a word of ours, a client waits for a host that never comes."""
    message = (
        "User: arn:aws:sts::123456789012:assumed-role/Nodes/mi-0 is not authorized to perform: "
        "ssm:UpdateInstanceInformation on resource: *"
    )
    stack.service.faults["UpdateInstanceInformation"] = ServiceError("AccessDeniedException", message)
    process = node_of("sh", "-c", f"{WAITING}; exit 6")
    until(
        lambda: "no login is possible" in container.output(),
        seconds=LIMIT,
        what=lambda: f"a message; {container.log()}",
    )
    assert "node's role may not ssm:UpdateInstanceInformation" in container.output()
    assert agents(container) == []
    container.script("", name="go")
    assert process.wait(LIMIT) == 6
    assert nodes(stack) == []
    container.assert_quiet()


def test_an_agent_that_never_comes_up_leaves_no_node(container, stack, node_of, tmp_path) -> None:
    folder = tmp_path / "broken"
    install(folder)
    (folder / "amazon-ssm-agent").rename(folder / "real")
    (folder / "amazon-ssm-agent").write_text(
        f'#!/bin/sh\n[ "$1" = -register ] || exit 9\nexec {folder}/real "$@"\n'
    )
    (folder / "amazon-ssm-agent").chmod(0o755)
    (folder / "configuration").mkdir()
    configuration = {"Ssm": {"Endpoint": stack.url}, "Mgs": {"Endpoint": stack.url}}
    (folder / "configuration" / "amazon-ssm-agent.json").write_text(json.dumps(configuration))
    process = node_of("sh", "-c", f"{WAITING}; exit 3", PATH=f"{folder}:{container.environ['PATH']}")
    until(lambda: nodes(stack), what="the node")
    container.script("", name="go")
    assert process.wait(LIMIT) == 3
    assert nodes(stack) == []
    container.assert_quiet()


@pytest.mark.parametrize("ending", ["exit", "SIGTERM"])
def test_a_network_that_swallows_everything_delays_no_job(container, node_of, ending) -> None:
    """Without a bound on our side, the end would wait for the time-outs of calls that nobody answers: minutes."""
    with silence() as url:
        process = node_of("sh", "-c", f"{WAITING}; exit 7", AWS_ENDPOINT_URL=url)
        until(lambda: "SSH server" in container.log(), what="the start")
        began = time.monotonic()
        if ending == "exit":
            container.script("", name="go")
            assert process.wait(LIMIT) == 7
        else:
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT) == 143
        print(f"the end took {time.monotonic() - began:.2f} s")
        # 12 s is what the end of a job waits for its supervisor at most; 2 s is what it takes here.
        assert time.monotonic() - began < 15
        container.assert_quiet()
