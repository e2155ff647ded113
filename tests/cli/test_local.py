"""`smssh local`, as a person uses it: real processes, a folder of its own for each test."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from smssh_plugin.cli import main
from smssh_plugin.errors import SmsshError
from smssh_plugin.local.environment import Access, client_environment, exports, removed_variables
from smssh_plugin.local.keyring import Key
from smssh_plugin.local.sandbox import container
from smssh_plugin.local.state import State, StateFolder, process_birth
from smssh_plugin.setup.files import write
from smssh_plugin.setup.parts import Setup
from smssh_plugin.setup.plan import Plan
from tests.local.root_folders import make_root
from tests.local.service_harness import signed
from tests.waiting import LIMIT, until

runs = pytest.mark.needs("namespaces")

COMMAND = [sys.executable, "-c", "import sys; from smssh_plugin.cli import main; sys.exit(main())", "local"]


class Home:
    """A home folder, and `smssh local` in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = StateFolder(path / "local")
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self.environ |= {
            "SMSSH_HOME": str(path),
            "AWS_PROFILE": "real",
            # As `aws configure export-credentials --format env` sets them.
            "AWS_CREDENTIAL_EXPIRATION": "2020-01-01T00:00:00Z",
            "AWS_ACCOUNT_ID": "999999999999",
            "AWS_ENDPOINT_URL_S3": "https://s3.invalid",
        }

    def start(self, *words: str, **settings) -> subprocess.Popen:
        return subprocess.Popen([*COMMAND, *words], env=self.environ, text=True, **settings)

    def do(self, *words: str, data: str | None = None) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*COMMAND, *words],
            input=data,
            env=self.environ,
            text=True,
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    yield home
    state = home.folder.read() if home.folder.path.exists() else None
    if state is not None:
        os.kill(state.pid, signal.SIGKILL)


def _gone(state: State) -> bool:
    return process_birth(state.pid) != state.birth


@runs
def test_up_twice_status_use_down(home) -> None:
    assert home.do("status").returncode == 3
    up = home.do("up", "--port", "0")
    assert up.returncode == 0, up.stderr
    state = home.folder.read()
    assert f"smssh local is up at {state.endpoint}" in up.stderr
    assert f"export AWS_ENDPOINT_URL='{state.endpoint}'" in up.stdout
    removed = "AWS_ACCOUNT_ID AWS_CREDENTIAL_EXPIRATION AWS_ENDPOINT_URL_S3 AWS_PROFILE"
    assert f"unset {removed}\n" in up.stdout

    again = home.do("up", "--port", "0")
    assert again.returncode == 0
    assert f"already running at {state.endpoint} (process {state.pid})" in again.stderr
    assert again.stdout == up.stdout

    program = (
        'import boto3; print(boto3.client("sts").get_caller_identity()["Account"]);'
        ' print(boto3.client("s3").list_buckets()["Buckets"])'
    )
    script = f"{up.stdout}\n{sys.executable} -c '{program}'"
    used = subprocess.run(["sh", "-ec", script], env=home.environ, text=True, capture_output=True, check=True)
    assert used.stdout == "123456789012\n[]\n"

    facts = json.loads(home.do("status", "--json").stdout)
    assert (facts["running"], facts["endpoint"], facts["pid"]) == (True, state.endpoint, state.pid)
    status = home.do("status").stdout
    assert state.endpoint in status
    assert f"agents' channels {state.channels}, certified by {state.authority}" in status
    trusting = ssl.create_default_context(cafile=state.authority)
    assert state.secret_key not in status + json.dumps(facts)
    url = f"{state.channels}/_smssh/sessions"
    request = urllib.request.Request(url, headers=signed("GET", url, service="smssh", key=state.key))
    with urllib.request.urlopen(request, context=trusting) as answer:
        assert json.load(answer) == {"sessions": []}
    other = home.do("run", "--", "sh", "-c", "echo $AWS_ENDPOINT_URL; cat", data="its stdin\n")
    assert other.stdout == f"{state.endpoint}\nits stdin\n", "a command uses the one that is up"

    down = home.do("down")
    assert (down.returncode, down.stderr) == (0, "smssh local has stopped.\n")
    assert _gone(state)
    assert not home.folder.state_file.exists()
    assert home.do("down").returncode == 0
    assert json.loads(home.do("status", "--json").stdout) == {"version": 1, "running": False}


@runs
def test_a_port_in_use_is_named(home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for words in (["up"], ["run"]):
            done = home.do(*words, "--port", str(port), *(["--", "true"] if words == ["run"] else []))
            assert done.returncode == 2
            assert f"port {port} on 127.0.0.1 is in use" in done.stderr
            assert "--port" in done.stderr
    assert home.folder.read() is None


@runs
def test_one_that_was_killed_is_forgotten(home) -> None:
    assert home.do("up", "--port", "0").returncode == 0
    first = home.folder.read()
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: _gone(first), "the process is gone")
    assert home.folder.state_file.exists()
    assert home.do("status").returncode == 3
    assert not home.folder.state_file.exists()
    assert home.do("up", "--port", "0").returncode == 0
    assert home.folder.read().pid != first.pid


def test_a_process_of_the_same_number_is_not_it(tmp_path) -> None:
    folder = StateFolder(tmp_path / "local")
    folder.make()
    right = State(os.getpid(), process_birth(os.getpid()), 1, "http://127.0.0.1:1", 0.0, "/env")
    folder.write(right)
    assert folder.read() == right
    folder.write(State(os.getpid(), "another boot/1", 1, "http://127.0.0.1:1", 0.0, "/env"))
    assert folder.read() is None
    folder.state_file.write_text("{half")
    assert folder.read() is None
    assert not folder.state_file.exists()


@runs
def test_foreground_ends_with_ctrl_c(home) -> None:
    process = home.start(
        "up", "--port", "0", "--foreground", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    until(home.folder.read, "it is up")
    second = home.do("up")
    assert "already running" in second.stderr
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert "export AWS_ENDPOINT_URL=" in out
    assert home.folder.read() is None


@runs
def test_run_ends_as_its_command_and_leaves_nothing(home) -> None:
    script = (
        "import os, sys; sys.stdout.write(os.environ['AWS_ENDPOINT_URL']);"
        " sys.exit(9 if 'AWS_PROFILE' in os.environ or 'AWS_ENDPOINT_URL_S3' in os.environ else 7)"
    )
    process = home.start(
        "run", "--", sys.executable, "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 7, err
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", out)
    assert home.folder.read() is None
    port = int(out.rpartition(":")[2])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert home.do("run", "--", "sh", "-c", "kill -TERM $$").returncode == 128 + 15
    done = home.do("run", "--", "/no/such/program")
    assert (done.returncode, "cannot run /no/such/program" in done.stderr) == (3, True)
    assert home.folder.read() is None


def _sleeper(home, **settings) -> tuple[subprocess.Popen, State]:
    process = home.start(
        "run", "--", "sh", "-c", "echo started; exec sleep 1000", stdout=subprocess.PIPE, **settings
    )
    assert process.stdout.readline() == "started\n"
    return process, home.folder.read()


@runs
def test_run_is_interrupted(home) -> None:
    process, state = _sleeper(home, start_new_session=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(LIMIT) == 130
    assert _gone(state)


@runs
def test_run_is_terminated(home) -> None:
    process, state = _sleeper(home)
    process.terminate()
    assert process.wait(LIMIT) == 128 + 15
    assert _gone(state)


@runs
def test_run_is_killed(home) -> None:
    process, state = _sleeper(home, start_new_session=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(LIMIT)
    until(lambda: _gone(state), "the local emulator notices that its parent is gone")
    os.killpg(process.pid, signal.SIGKILL)  # its command, which nothing could tell
    assert home.folder.read() is None


USER = "echo $AWS_ENDPOINT_URL; read line || :; exec {python} -c 'import boto3; boto3.client(\"s3\").list_buckets()'"


def _user(home: Home) -> subprocess.Popen:
    """A `run` whose command tells the endpoint, and makes a request of it when its input ends."""
    return home.start(
        "run",
        "--",
        "sh",
        "-c",
        USER.format(python=sys.executable),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


@pytest.fixture
def two(home):
    """Two `run` that were started at once, and what they use."""
    both = [_user(home) for _ in range(2)]
    try:
        endpoints = {process.stdout.readline().strip() for process in both}
        state = home.folder.read()
        assert endpoints == {state.endpoint}
        yield (*both, state)
    finally:
        for process in both:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(LIMIT)
            process.stdin.close()
            process.stdout.close()


def _end(process: subprocess.Popen) -> int:
    process.stdin.close()
    return process.wait(LIMIT)


@runs
@pytest.mark.parametrize("first", [0, 1])
def test_the_last_of_two_runs_ends_it(two, first) -> None:
    state = two[2]
    assert _end(two[first]) == 0
    assert not _gone(state)
    assert _end(two[1 - first]) == 0
    assert _gone(state)


@runs
@pytest.mark.parametrize("first", [0, 1])
def test_a_run_that_is_killed_takes_it_from_no_other(two, first) -> None:
    state = two[2]
    os.kill(two[first].pid, signal.SIGKILL)
    two[first].wait(LIMIT)
    assert _end(two[1 - first]) == 0
    assert _gone(state)


@runs
def test_two_runs_that_are_killed_leave_none(two) -> None:
    for process in two[:2]:
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: _gone(two[2]), "the local emulator notices that it is not used any more")


@runs
def test_up_makes_one_stay_that_a_run_started(home) -> None:
    process, state = _sleeper(home)
    assert "it ends with the last smssh local run" in home.do("status").stdout
    up = home.do("up")
    assert (up.returncode, state.endpoint in up.stdout) == (0, True)
    process.terminate()
    process.wait(LIMIT)
    assert not _gone(state)
    assert "it ends with" not in home.do("status").stdout
    assert home.do("down").returncode == 0
    assert _gone(state)


@runs
def test_one_that_is_up_is_not_as_asked_for(home, tmp_path) -> None:
    assert home.do("up", "--port", "0").returncode == 0
    state = home.folder.read()
    for words, fact in (
        (["--image", str(tmp_path)], f"has the image {state.image_env}"),
        (["--port", str(state.port - 1)], f"listens on port {state.port}"),
        (["--latency", "50"], "has a latency of 3 ms"),
        (["--agent-rate", "0"], "has an agent that sends at 1.024 MB/s"),
        (["--unsigned-clients"], "wants clients to sign"),
        (["--image", f"train={tmp_path}"], "has no image train"),
        (["--known-images-only"], "takes every image"),
    ):
        for command in (["up", *words], ["run", *words, "--", "echo", "ran"]):
            done = home.do(*command)
            assert (done.returncode, done.stdout) == (2, "")
            assert f"already running (process {state.pid}) and {fact}" in done.stderr
            assert f"leave out {words[0]}" in done.stderr
    same = home.do("run", "--image", state.image_env, "--port", str(state.port), "--", "echo", "ran")
    assert (same.returncode, same.stdout) == (0, "ran\n")


REAL_JOB = """
import sys, time, boto3
s3, sm, logs = (boto3.client(name) for name in ("s3", "sagemaker", "logs"))
s3.create_bucket(Bucket="bucket")
def job(name, script):
    sm.create_processing_job(
        ProcessingJobName=name,
        RoleArn="arn:aws:iam::123456789012:role/SageMakerRole",
        AppSpecification={"ImageUri": "image:1", "ContainerEntrypoint": ["/bin/sh", "-c", script]},
        ProcessingResources={
            "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}},
        ProcessingOutputConfig={"Outputs": [{"OutputName": "out", "S3Output": {
            "S3Uri": "s3://bucket/" + name, "LocalPath": "/opt/ml/processing/out",
            "S3UploadMode": "EndOfJob"}}]},
    )
def wait(name):
    found = sm.describe_processing_job(ProcessingJobName=name)
    if found["ProcessingJobStatus"] != "InProgress":
        return found
    time.sleep(0.05)
    return wait(name)
job("good", "echo hello; echo $AWS_ENDPOINT_URL > /opt/ml/processing/out/where")
job("bad", "exit 3")
job("left", "echo $$; exec sleep 1000")
good, bad = wait("good"), wait("bad")
print(good["ProcessingJobStatus"], bad["ProcessingJobStatus"])
print(s3.get_object(Bucket="bucket", Key="good/where")["Body"].read().decode().strip())
group = "/aws/sagemaker/ProcessingJobs"
events = logs.filter_log_events(logGroupName=group, logStreamNamePrefix="good/")["events"]
print([event["message"] for event in events])
"""


@runs
def test_jobs_really_run_and_none_is_left(home) -> None:
    environ_mark = f"SMSSH_HOME={home.path}"
    done = home.do("run", "--", sys.executable, "-c", REAL_JOB)
    assert done.returncode == 0, done.stderr + home.folder.log_file.read_text()
    statuses, endpoint, lines = done.stdout.splitlines()
    assert statuses == "Completed Failed"
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", endpoint)
    assert "hello" in lines
    left = [
        path
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if b"sleep\x001000" in _read(path) and environ_mark.encode() in _read(path.with_name("environ"))
    ]
    assert left == []
    assert str(home.path) not in Path("/proc/self/mountinfo").read_text()


@runs
def test_what_jobs_of_a_killed_one_left_is_removed(home) -> None:
    assert home.do("up", "--port", "0").returncode == 0
    state = home.folder.read()
    assert home.do("run", "--", sys.executable, "-c", REAL_JOB).returncode == 0
    folder = home.folder.path / "jobs" / "left"
    log = folder / "algo-1.log"
    until(lambda: _read(log), "the job writes to its log")
    os.kill(state.pid, signal.SIGKILL)
    until(lambda: _gone(state), "the process is gone")
    assert (folder / "algo-1").is_dir()
    (folder / "upload.tar.gz").touch()  # of a training job at its end

    assert home.do("up", "--port", "0").returncode == 0
    assert list(folder.iterdir()) == [log]
    assert (home.folder.path / "jobs" / "good" / "algo-1.log").exists()
    assert home.do("down").returncode == 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_no_namespaces_is_said(home, monkeypatch, capsys) -> None:
    def refuse() -> None:
        raise SmsshError("no user namespaces and not root", hint="sysctl", reference="no-namespaces")

    monkeypatch.setenv("SMSSH_HOME", str(home.path))
    monkeypatch.setattr(container, "check_support", refuse)
    assert main(["local", "up"]) == 1
    assert "no user namespaces and not root" in capsys.readouterr().err
    assert home.folder.read() is None


@pytest.mark.parametrize("module", ["aiohttp", "moto"])
def test_the_extra_is_missing(home, monkeypatch, capsys, module) -> None:
    monkeypatch.setenv("SMSSH_HOME", str(home.path))
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["local", "run", "--", "true"]) == 2
    assert 'pip install "smssh-plugin[local]"' in capsys.readouterr().err


@runs
def test_a_start_that_fails_says_why(home, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    done = home.do("up", "--port", "0", "--image", str(tmp_path / "empty"))
    assert done.returncode != 0
    assert "empty" in done.stderr
    assert "Traceback" not in done.stderr
    assert home.folder.read() is None


def refused(home, folder, command, message) -> None:
    """A command in this folder that fails before anything starts."""
    done = subprocess.run(
        [*COMMAND, *command],
        env=home.environ,
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "hint:" in done.stderr.lower()
    assert not home.folder.log_file.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--image", "train"], "--image 'train': there is no folder"),
        (["--image", "train=missing"], "--image 'train=missing': there is no folder"),
        (["--image", "train=home", "--image", "train=home"], "the image train is given twice"),
        (["--image", "train=home"], "has no bin/python of a Python environment, and is not a root folder"),
        (["--known-images-only"], "no image that is known"),
    ],
)
def test_what_is_not_an_image_is_said_before_anything_starts(home, tmp_path, words, message) -> None:
    (tmp_path / "home").mkdir(exist_ok=True)
    for command in (["up", *words], ["run", *words, "--", "echo", "ran"]):
        refused(home, tmp_path, command, message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--as", "person"), "--as person means nothing without policies"),
        (("--iam", "empty"), "has no policies"),
        (("--iam", "wrong"), "cannot enforce smssh-people/1: there is no condition operator StringEqual"),
    ],
)
def test_policies_that_cannot_be_enforced_are_said_before_anything_starts(
    home, tmp_path, words, message
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong").mkdir()
    statement = {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"StringEqual": {"a": "b"}}}
    document = {"Version": "2012-10-17", "Statement": [statement]}
    (tmp_path / "wrong" / "smssh-people.json").write_text(json.dumps(document))
    refused(home, tmp_path, ["up", *words], message)


@runs
def test_the_credentials_of_a_principal(home, tmp_path) -> None:
    policies = tmp_path / "policies"
    write(Setup(Plan.make(account="123456789012"), ["people"]), ["json"], policies)
    up = home.do("up", "--port", "0", "--iam", str(policies))
    assert up.returncode == 0, up.stderr
    state = home.folder.read()
    program = (
        'import boto3; print(boto3.client("sts").get_caller_identity()["Arn"]);'
        ' print(boto3.client("ssm").describe_instance_information()["InstanceInformationList"])'
    )
    done = home.do("run", "--as", "person", "--", sys.executable, "-c", program)
    assert done.stdout == "arn:aws:sts::123456789012:assumed-role/person/smssh\n[]\n", done.stderr
    again = home.do("up", "--as", "cleanup", "--iam", str(policies))
    assert state.clients["cleanup"][0] in again.stdout
    shown = home.do("status", "--json").stdout + home.do("status").stdout
    assert str(policies) in shown
    assert not any(text in shown for key in state.clients.values() for text in key)
    other = home.do("up", "--iam", str(tmp_path))
    assert (other.returncode, other.stdout) == (2, "")
    assert f"enforces {policies}" in other.stderr
    home.do("down")


IMAGES = """
import sys, time, boto3
sm, logs = boto3.client("sagemaker"), boto3.client("logs")
for name, image in (("a", "123456789012.dkr.ecr.us-east-1.amazonaws.com/one:1"), ("b", "two"), ("c", "three")):
    sm.create_processing_job(
        ProcessingJobName=name,
        RoleArn="arn:aws:iam::123456789012:role/SageMakerRole",
        AppSpecification={"ImageUri": image, "ContainerEntrypoint": ["/bin/sh", "-c", "cat /etc/image >&2; exit 3"]},
        ProcessingResources={
            "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}},
    )
    while (job := sm.describe_processing_job(ProcessingJobName=name))["ProcessingJobStatus"] == "InProgress":
        time.sleep(0.05)
    print(name, job["FailureReason"])
streams = logs.describe_log_streams(logGroupName="/aws/sagemaker/ProcessingJobs")["logStreams"]
for each in sorted(stream["logStreamName"] for stream in streams):
    events = logs.get_log_events(logGroupName="/aws/sagemaker/ProcessingJobs", logStreamName=each)["events"]
    print(each.split("/")[0], *(event["message"] for event in events))
"""


@runs
def test_images_by_name(home, tmp_path) -> None:
    for name in ("one", "two"):
        make_root(tmp_path / "root folders" / name, name)
    home.environ["HOME"] = str(tmp_path)
    images = ["--image", f"one={tmp_path}/root folders/one", "--image", "two:latest=~/root folders/two"]
    up = home.do("up", "--port", "0", *images, "--known-images-only")
    assert up.returncode == 0, up.stderr
    folder = tmp_path / "root folders"
    assert f"  image one: {folder}/one\n  image two:latest: {folder}/two\n" in home.do("status").stdout
    assert "other images are refused" in home.do("status").stdout
    assert json.loads(home.do("status", "--json").stdout)["images"]["one"] == f"{folder}/one"
    done = home.do("run", *images, "--", sys.executable, "-c", IMAGES)
    assert done.returncode == 0, done.stderr
    failed = "AlgorithmError: See job logs for more information"
    pulled = (
        "ClientError: Cannot pull algorithm container. Either the image does not exist or its permissions are"
        " incorrect."
    )
    assert done.stdout.splitlines() == [f"a {failed}", f"b {failed}", f"c {pulled}", "a one", "b two"]
    other = home.do("run", "--image", f"one={folder}/two", "--", "echo", "ran")
    assert f"has the image one in {folder}/one" in other.stderr
    assert home.do("down").returncode == 0


@runs
def test_two_starts_at_once_make_one(home) -> None:
    starts = [
        home.start("up", "--port", "0", stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    results = [(process.communicate(timeout=LIMIT), process.returncode) for process in starts]
    state = home.folder.read()
    assert state is not None, results
    for (out, err), code in results:
        if code == 0:
            assert state.endpoint in out
        else:
            assert "another smssh local runs, or is just starting" in err


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from smssh_plugin.cli import main; main(['local', '--help']);"
        " sys.exit([name for name in ('aiohttp', 'moto', 'boto3', 'botocore') if name in sys.modules] or 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=LIMIT)


def test_what_clients_get(tmp_path) -> None:
    authority = tmp_path / "authority.pem"
    authority.write_text("ours")
    access = Access("http://127.0.0.1:1", Key("AKIA", "secret"), authority, "password")
    variables = client_environment(access, tmp_path, {"NO_PROXY": "example.com,localhost"})
    assert variables["NO_PROXY"] == variables["no_proxy"] == "example.com,localhost,127.0.0.1,::1"
    trusted = Path(variables["AWS_CA_BUNDLE"]).read_text()
    assert trusted.startswith("ours\n")
    assert "BEGIN CERTIFICATE" in trusted
    assert "TelemetryOptOut: true" in Path(variables["SAGEMAKER_USER_CONFIG_OVERRIDE"]).read_text()
    removed = removed_variables(
        {"AWS_PROFILE": "x", "AWS_ENDPOINT_URL_SSM": "y", "AWS_REGION": "z", "HOME": "h"}
    )
    assert removed == ["AWS_ENDPOINT_URL_SSM", "AWS_PROFILE"]
    text = exports({"A": "it's"}, removed)
    shown = subprocess.run(
        ["sh", "-c", f'AWS_PROFILE=x; {text}\nprintf %s "$A${{AWS_PROFILE-}}"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "it's"
