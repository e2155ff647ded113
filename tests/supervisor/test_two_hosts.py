"""Two hosts of one job, which know each other over the local emulator's session service only."""

import json
import signal
import time

import pytest

from smssh_plugin.local.agent.installed import install
from smssh_plugin.local.service_error import ServiceError
from tests import needs
from tests.entrypoints.container import Container
from tests.waiting import until

FAILS_UNTIL_FIXED = (
    "import os, sys\nprint('attempt', flush=True)\nsys.exit(0 if os.path.exists('fixed') else 7)\n"
)
WAITS = """\
import os, sys, time
print("attempt", flush=True)
if os.path.exists("again"):
    sys.exit(0)
open("again", "w").close()
while not os.path.exists("go"):
    time.sleep(0.05)
sys.exit(int(open("go").read()))
"""


@pytest.fixture
def hosts(tmp_path, bundle, key, stack):
    """Makes the two hosts of a job; each has a folder, a run folder and a node of its own."""
    needs.program("image environment")
    programs = tmp_path / "programs"
    install(programs)
    made = []
    for host in ("algo-1", "algo-2"):
        folder = tmp_path / host
        folder.mkdir()
        container = Container(folder, bundle, key)
        config = container.base / "input" / "config"
        config.mkdir(parents=True)
        config.joinpath("resourceconfig.json").write_text(
            json.dumps({"current_host": host, "hosts": ["algo-1", "algo-2"]})
        )
        container.on.update(
            PATH=f"{programs}:{container.environ['PATH']}",
            SMSSH_TRANSPORT="ssm",
            SMSSH_ROLE="arn:aws:iam::123456789012:role/Nodes",
            SMSSH_HOLD="failure",
            # Looked at every 4 s.
            SMSSH_HOLD_SECONDS="20",
            AWS_ENDPOINT_URL=stack.url,
            AWS_ACCESS_KEY_ID="ASIAJOBJOBJOBJOBJOBJ",
            AWS_SECRET_ACCESS_KEY="the-jobs-secret",
        )
        made.append(container)
    yield made
    for container in made:
        container.close()


def start(container, text, **environ):
    return container.wrap("python", container.script(text), **environ)


def online(*containers):
    """Wait until each has its node."""
    for container in containers:
        until(lambda found=container: found.wait_for("running")["transport"]["target"], what="the node")


def held(container):
    """Wait until it is held; this hold then outlasts the test, however late the other host looks."""
    status = container.wait_for("held")
    container.hook("extend", "10m")
    return status


def go(container, status):
    container.script(str(status), name="go.new").rename(container.folder / "go")


def test_the_report_says_which_host_failed_first(hosts) -> None:
    """By default each is held by its own failure only."""
    one, two = hosts
    processes = [start(each, WAITS, SMSSH_HOLD_SECONDS="60") for each in hosts]
    online(one, two)
    go(two, 7)
    two.wait_for("held")
    until(lambda: "algo-2 failed first" in two.output())
    go(one, 3)
    one.wait_for("held")
    report = json.loads(one.hook("report", "--json").stdout)
    assert report["first_failed"] == "algo-2"
    states = {host["host"]: (host["state"], host["exit_code"]) for host in report["hosts"]}
    assert states == {"algo-1": ("failed", 3), "algo-2": ("held", 7)}
    assert "first of the job's hosts to fail: algo-2" in one.hook("report").stdout
    until(lambda: "algo-2 held" in " ".join(one.hook("status").stdout.split()), what="the other's state")
    one.hook("release")
    assert processes[0].wait(60) == 3
    assert two.status()["state"] == "held"
    two.hook("release")
    assert processes[1].wait(60) == 7


def test_by_default_a_host_that_succeeds_does_not_wait(hosts) -> None:
    one, two = hosts
    processes = [start(each, WAITS) for each in hosts]
    online(one, two)
    go(two, 7)
    held(two)
    go(one, 0)
    assert processes[0].wait(60) == 0
    two.hook("release")
    assert processes[1].wait(60) == 7


def test_held_together_a_retry_is_for_all(hosts) -> None:
    """One fails, one still runs; then: one fails, one has succeeded, and is late to see that it is to run again."""
    one, two = hosts
    processes = [
        # It looks every 10 s, and the other one has succeeded long before.
        start(one, WAITS, SMSSH_HOLD_HOSTS="all", SMSSH_HOLD_SECONDS="50"),
        start(two, FAILS_UNTIL_FIXED, SMSSH_HOLD_HOSTS="all", SMSSH_WAIT="ready"),
    ]
    two.wait_for("held")
    online(one)
    # algo-1 waits for nobody in particular; it is ended and started again, and then succeeds.
    assert json.loads(two.hook("retry", "--json", check=False).stdout)["attempt"] == 2
    held(two)
    status = until(lambda: (found := one.status())["state"] == "held" and found, what="algo-1 waits")
    assert (status["point"], status["attempt"], status["exit_code"]) == ("end", 2, 0)
    assert one.output().count("attempt\n") == 2
    assert processes[0].poll() is None
    two.script("", name="fixed")
    assert json.loads(two.hook("retry", "--json").stdout)["exit_code"] == 0
    assert [process.wait(60) for process in processes] == [0, 0]
    assert one.output().count("attempt\n") == two.output().count("attempt\n") == 3


def test_held_together_a_release_is_for_all(hosts, stack) -> None:
    one, two = hosts
    processes = [start(each, WAITS, SMSSH_HOLD_HOSTS="all") for each in hosts]
    online(one, two)
    go(one, 0)
    assert until(lambda: (found := one.status())["state"] == "held" and found)["point"] == "end"
    go(two, 7)
    held(two)
    until(lambda: one.status()["hosts"].get("algo-2", {}).get("state") == "held")
    two.hook("release", "--exit", "0")
    assert [process.wait(60) for process in processes] == [0, 0]
    assert stack.call("DescribeInstanceInformation")["InstanceInformationList"] == []


def test_held_together_all_succeed(hosts) -> None:
    processes = [start(each, WAITS, SMSSH_HOLD_HOSTS="all") for each in hosts]
    online(*hosts)
    for each in hosts:
        go(each, 0)
    assert [process.wait(60) for process in processes] == [0, 0]
    assert "the other hosts have ended too" in hosts[0].output() + hosts[1].output()


def test_a_host_that_is_gone_is_not_waited_for(hosts) -> None:
    one, two = hosts
    processes = [start(each, WAITS, SMSSH_HOLD_HOSTS="all") for each in hosts]
    online(one, two)
    processes[1].send_signal(signal.SIGTERM)
    assert processes[1].wait(60) == 128 + signal.SIGTERM
    go(one, 0)
    assert processes[0].wait(60) == 0


def held_with_a_login(one, two):
    """Both entry points, of which the second host's has failed and is held, and a login there."""
    processes = [start(each, WAITS, SMSSH_HOLD_SECONDS="10") for each in (one, two)]
    online(one, two)
    go(two, 7)
    status = two.wait_for("held")
    client = two.start(
        "ssh", *two.ssh_options(status), "127.0.0.1", "sleep 600", on=False, PATH="/usr/bin:/bin"
    )
    return processes, client


def test_a_login_to_one_keeps_all(hosts) -> None:
    one, two = hosts
    processes, client = held_with_a_login(one, two)
    go(one, 3)
    since = one.wait_for("held")["hold"]["since"]
    until(lambda: one.status()["hold"]["deadline"] > since + 24, what="the deadline moves")
    assert processes[0].poll() is None
    client.terminate()
    assert [process.wait(60) for process in processes] == [3, 7]


def test_a_throttled_question_ends_no_hold(hosts, stack) -> None:
    """Somebody is logged in to the other host, and AWS does not say so."""
    one, two = hosts
    processes, client = held_with_a_login(one, two)
    until(lambda: two.status()["hold"]["connected"])
    stack.service.faults["DescribeInstanceInformation"] = ServiceError("ThrottlingException", "Rate exceeded")
    go(one, 3)
    one.wait_for("held")

    def overdue():
        hold = one.status()["hold"]
        assert hold, "the hold was given up"
        return time.time() > hold["ends"] + 4

    until(overdue, what="the deadline is over")
    assert processes[0].poll() is None
    del stack.service.faults["DescribeInstanceInformation"]
    since = one.status()["hold"]["since"]
    until(lambda: one.status()["hold"]["deadline"] > since + 11, what="the deadline moves")
    client.terminate()
    assert [process.wait(60) for process in processes] == [3, 7]


def claim(stack, job, host, role, text):
    """Another job's node, which says that it is this host of the job."""
    nodes = stack.service.nodes
    tags = {
        "SMSSHJob": job,
        "SMSSHKind": "training",
        "SMSSHHost": host,
        "SMSSHHold": text,
        "SMSSHPhase": "released",
        "SMSSHCourse": "released",
    }
    made = nodes.create_activation(
        {"IamRole": role, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
    )
    node = nodes.register({**made, "PublicKey": "k", "Fingerprint": "f"})["InstanceId"]
    nodes.nodes[node].pinged = time.time() + 3600
    return node


def test_only_hosts_of_the_job_are_followed(hosts, stack) -> None:
    """Any job may give its node any tags."""
    one, two = hosts
    processes = [start(each, WAITS, SMSSH_HOLD_HOSTS="all") for each in hosts]
    online(one, two)
    for each in hosts:
        go(each, 7)
    job = held(one)["job"]
    held(two)
    released = "released 1 7 0.000 0 release 0 0"
    claims = [
        (claim(stack, job, "algo-99", "Nodes", released), "the job has no host 'algo-99'"),
        (claim(stack, job, "algo-2", "Other", released), "its role is 'Other'"),
    ]
    for node, why in claims:
        until(lambda: f"{node} claims to be a host of this job and is ignored: {why}" in one.log())  # noqa: B023
    second = claim(stack, job, "algo-2", "Nodes", released)
    until(lambda: "two online nodes claim to be algo-2 of this job" in one.log())
    assert one.status()["state"] == two.status()["state"] == "held"
    for node in [second, *(node for node, _ in claims)]:
        stack.service.nodes.deregister(node)
    one.hook("release", "--exit", "5")
    assert [process.wait(60) for process in processes] == [5, 5]


def test_a_deadline_elsewhere_ends_no_hold_that_somebody_uses(hosts) -> None:
    one, two = hosts
    processes = [
        start(one, WAITS, SMSSH_HOLD_HOSTS="all", SMSSH_HOLD_MAX_SECONDS="10"),
        start(two, WAITS, SMSSH_HOLD_HOSTS="all"),
    ]
    online(one, two)
    go(two, 7)
    status = two.wait_for("held")
    client = two.start(
        "ssh", *two.ssh_options(status), "127.0.0.1", "sleep 600", on=False, PATH="/usr/bin:/bin"
    )
    until(lambda: two.status()["hold"]["connected"])
    go(one, 3)
    assert processes[0].wait(90) == 3
    assert two.status()["state"] == "held"
    client.terminate()
    two.hook("release", "--exit", "0")
    assert processes[1].wait(60) == 0


def test_nobody_to_ask(hosts) -> None:
    """Without the ssm transport each host stands for itself, whatever was asked for."""
    one = hosts[0]
    process = start(one, "print('ran')\n", SMSSH_HOLD_HOSTS="all", SMSSH_TRANSPORT="none", SMSSH_WAIT="ready")
    assert process.wait(60) == 0
    assert "the other hosts of this job cannot be asked" in one.log()
