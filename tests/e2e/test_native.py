"""SageMaker's remote debugging as a person uses it: asked for at submit, and switched on in a job that runs."""

import json
import os
import re
import sys
import urllib.request

import pytest

from smssh_plugin.local.keyring import Key
from tests.local.service_harness import signed
from tests.waiting import until

from .conftest import make, unmake
from .machine import PATIENCE, client, image_with_asyncssh

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(2 * PATIENCE),
    pytest.mark.needs("image environment", "scp"),
]
ROLE = "arn:aws:iam::123456789012:role/native"
WORK = "while [ ! -e /opt/ml/go ]; do sleep 0.1; done"
SUBMIT = """
import json, sys, boto3, smssh_plugin
options = {"bundle_prefix": "s3://native/smssh", **json.loads(sys.argv[2])}
client = smssh_plugin.enable(boto3.client("sagemaker"), transport="native", **options)
client.create_training_job(**json.loads(sys.argv[1]))
"""
# Where the image has no sshd, asyncssh's wheels would come from PyPI; the image of this test has them.
INSTALL = """
import sys
from smssh_plugin.cli import main
from smssh_plugin.submit.bundle import build
build.wheels_for = lambda _version: {}
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def emulator():
    """A local emulator, and an ssh configuration that leads to its jobs."""
    machine = make()
    image = image_with_asyncssh(machine.home / "image")
    exports = machine.smssh("local", "up", "--port", "0", "--image", image).stdout
    machine.environ.update(re.findall(r"^export (\w+)='(.*)'$", exports, flags=re.MULTILINE))
    (machine.home / "config").write_text(machine.smssh("ssh-config").stdout)
    client(machine, "s3").create_bucket(Bucket="native")
    yield machine
    machine.smssh("local", "down")
    machine.assert_nothing_left()
    unmake(machine)


def request(name, hosts=1):
    return {
        "TrainingJobName": name,
        "AlgorithmSpecification": {
            "TrainingImage": "image",
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["sh", "-c", WORK],
        },
        "RoleArn": ROLE,
        "OutputDataConfig": {"S3OutputPath": "s3://native/out"},
        "ResourceConfig": {"InstanceCount": hosts, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    }


def submit(machine, made, **options):
    machine.run(sys.executable, "-c", SUBMIT, json.dumps(made), json.dumps(options))


def ssh(machine, *words, program="ssh", **options):
    return machine.run(program, "-F", machine.home / "config", *words, **options)


def documents(machine, target):
    """The documents that the sessions with a target were started with, oldest first."""
    found = []
    for state in ("Active", "History"):
        answer = client(machine, "ssm").describe_sessions(
            State=state, Filters=[{"key": "Target", "value": target}]
        )
        found += answer["Sessions"]
    return [one["DocumentName"] for one in sorted(found, key=lambda one: one["StartDate"])]


def refuse(machine, times):
    """Have the next calls of StartSession refused."""
    fault = {
        "operation": "ssm:StartSession",
        "code": "AccessDeniedException",
        "message": "User: me is not authorized to perform: ssm:StartSession on resource: document",
        "times": times,
    }
    url = f"{machine.environ['AWS_ENDPOINT_URL']}/_smssh/faults"
    body = json.dumps(fault).encode()
    key = Key(machine.environ["AWS_ACCESS_KEY_ID"], machine.environ["AWS_SECRET_ACCESS_KEY"])
    headers = signed("POST", url, body, {"Content-Type": "application/json"}, service="smssh", key=key)
    urllib.request.urlopen(urllib.request.Request(url, body, headers)).close()


def finish(machine, name, hosts=1):
    """Let a job go, and see that it ends as it would have.

    Not from within: the job, and its agent with it, could be over before the end of the command is told, and
    a client that nobody tells anything waits for minutes.
    """
    for number in range(hosts):
        (machine.home / f"smssh/local/jobs/{name}/algo-{number + 1}/ml/go").touch()
    describe = client(machine, "sagemaker").describe_training_job
    until(lambda: describe(TrainingJobName=name)["TrainingJobStatus"] == "Completed", seconds=PATIENCE)
    answer = client(machine, "ssm").describe_sessions(State="Active")
    assert answer["Sessions"] == []


def copied(machine, address):
    """Both ways, to the byte."""
    content = os.urandom(300_000)
    (machine.home / "up").write_bytes(content)
    ssh(machine, "-q", machine.home / "up", f"{address}:/opt/ml/there", program="scp")
    ssh(machine, "-q", f"{address}:/opt/ml/there", machine.home / "down", program="scp")
    return (machine.home / "down").read_bytes() == content


def test_asked_for_at_submit(emulator) -> None:
    name = "native-submitted"
    submit(emulator, request(name, hosts=2))
    first, second = (f"algo-{number}.{name}.training.sagemaker" for number in (1, 2))
    for address in (first, second):
        done = ssh(emulator, address, "cat /opt/ml/input/config/resourceconfig.json")
        assert json.loads(done.stdout)["current_host"] == address.partition(".")[0]
    assert copied(emulator, first)
    target = f"sagemaker-training-job:{name}_algo-1"
    assert set(documents(emulator, target)) == {"AWS-StartSSHSession"}
    # The host is not a managed node.
    assert json.loads(emulator.smssh("list", "--json").stdout)["hosts"] == []

    refuse(emulator, 1)
    assert ssh(emulator, first, "echo in").stdout == "in\n"
    assert documents(emulator, target)[-1] == "AWS-StartPortForwardingSession"

    refuse(emulator, 2)
    done = ssh(emulator, first, "true", check=False)
    assert done.returncode == 255
    assert f"try `smssh shell {first}`, which may be allowed all the same" in done.stderr
    assert "in-42" in emulator.smssh("shell", first, "--", "echo in-$((6 * 7))").stdout

    finish(emulator, name, hosts=2)


def test_who_asks_keeps_no_hold(emulator) -> None:
    name = "native-held"
    address = f"algo-1.{name}.training.sagemaker"
    made = request(name)
    made["AlgorithmSpecification"]["ContainerEntrypoint"] = ["sh", "-c", "exit 3"]
    submit(emulator, made, hold=("failure",))

    def held():
        done = emulator.smssh("status", address, "--json", check=False)
        found = json.loads(done.stdout) if done.returncode == 0 else {}
        return found.get("state") == "held" and (found["connected"], found["hold"]["deadline"])

    connected, deadline = until(held, seconds=PATIENCE)
    assert connected == 0
    for _ in range(4):
        assert held() == (0, deadline)
    person = emulator.start("ssh", "-F", emulator.home / "config", "-N", address)
    # Who is connected is counted at once, the hold gets longer at its next look.
    until(lambda: (found := held()) and found[0] == 1 and found[1] > deadline, seconds=PATIENCE)
    person.terminate()
    person.communicate()
    until(lambda: held()[0] == 0, seconds=PATIENCE)
    emulator.smssh("release", address)
    describe = client(emulator, "sagemaker").describe_training_job
    until(lambda: describe(TrainingJobName=name)["TrainingJobStatus"] == "Failed", seconds=PATIENCE)


def test_announced_elsewhere(emulator) -> None:
    name = "native-elsewhere"
    submit(emulator, request(name), extra={"announce": "s3://native/hosts-of-ours"})
    assert ssh(emulator, f"algo-1.{name}.training.sagemaker", "echo in").stdout == "in\n"
    finish(emulator, name)


def test_switched_on_in_a_job_that_runs_and_where_nothing_was_prepared(emulator) -> None:
    name = "native-enabled"
    address = f"algo-1.{name}.training.sagemaker"
    sagemaker = client(emulator, "sagemaker")
    sagemaker.create_training_job(**request(name))
    describe = sagemaker.describe_training_job
    until(lambda: describe(TrainingJobName=name)["SecondaryStatus"] == "Training", seconds=PATIENCE)
    done = emulator.smssh("connect", address, "--wait", "0", check=False)
    assert done.returncode == 4
    assert f"run `smssh remote-debug {name}`, which lets you in" in done.stderr

    done = emulator.smssh("remote-debug", name, "--wait", "1m")
    assert done.stdout == f"remote debugging is on: smssh shell {address}\n"
    seen = emulator.smssh("shell", address, "--", "cat /opt/ml/input/config/resourceconfig.json").stdout
    assert '"current_host": "algo-1"' in seen
    done = ssh(emulator, address, "true", check=False)
    assert done.returncode == 255
    assert f"start one: `smssh remote-debug {name} --install`" in done.stderr

    for idle in ("1s", "5m", "5m"):
        # The first time's server is gone when it is entered, and says how to have another; the third time finds the
        # second's.
        done = emulator.run(sys.executable, "-c", INSTALL, "remote-debug", name, "--install", "--idle", idle)
        assert done.stdout == f"remote debugging is on: smssh connect {address}\n"
        if idle == "1s":
            until(
                lambda: not any("placeholder" in one for one in emulator.processes().values()),
                seconds=PATIENCE,
            )
            done = ssh(emulator, address, "true", check=False)
            assert done.returncode == 255
            assert f"start one: `smssh remote-debug {address} --install`" in done.stderr
    done = ssh(emulator, address, "tr '\\0' ' ' </proc/1/cmdline; pgrep -fc 'smssh-hook[ ]placeholder'")
    assert done.stdout.startswith(f"sh -c {WORK}")
    assert copied(emulator, address)
    assert emulator.smssh("connect", address, "--", "echo in").stdout == "in\n"
    finish(emulator, name)


def test_jobs_that_cannot_have_it_say_so(emulator) -> None:
    done = emulator.smssh("remote-debug", "native-nobody", check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "'native-nobody'" in done.stderr
    name = "native-ended"
    sagemaker = client(emulator, "sagemaker")
    made = request(name)
    made["AlgorithmSpecification"]["ContainerEntrypoint"] = ["true"]
    sagemaker.create_training_job(**made)
    until(
        lambda: sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] == "Completed",
        seconds=PATIENCE,
    )
    done = emulator.smssh("remote-debug", name, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "switch it on while the job is Downloading or Training" in done.stderr
