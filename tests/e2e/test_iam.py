"""With IAM enforced by exactly what `smssh setup` writes, everything works; without a statement, what needs it fails.

What is asked of IAM is written down in dev/iam_requests.json, from which docs/iam.md has its table:
SMSSH_TEST_GOLDEN=write writes it again.
"""

import contextlib
import json
import os
import re
import sys
import time
import urllib.request

import pytest

from dev import iam_uses
from dev.iam_uses import BUCKET
from smssh_plugin.local.iam.account import ACCOUNT
from tests.waiting import until

from .conftest import make, unmake
from .machine import CHURN, IMAGE, PATIENCE, Machine, client, control, image_with_asyncssh

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(3 * PATIENCE),
    pytest.mark.needs("image environment", "ssh"),
]

HELD = "held.training.sagemaker"
NATIVE = "algo-1.native.training.sagemaker"
STEP = "Train.enforced.pipeline.sagemaker"
SUBMIT = """
import json, sys, boto3, smssh_plugin
options, name, request = map(json.loads, sys.argv[1:])
client = boto3.client("sagemaker")
smssh_plugin.enable(client, **options)
getattr(client, name)(**request)
"""
SSM = {"role": f"arn:aws:iam::{ACCOUNT}:role/smssh-node", "owner": "team", "hold": ["failure"]}
WORKS = "while [ ! -e /opt/ml/go ]; do sleep 0.1; done"
FAILS = "test -e /opt/ml/model/go"


class Emulator:
    """A local emulator that enforces policies, people with their own credentials, and a record of what was asked."""

    def __init__(self, admin, people):
        self.admin = admin
        self.people = people
        self.recorded = []
        self.asked = []

    def control(self, method, path, said=None):
        return control(self.admin, method, path, said)

    def decisions(self, after=0):
        return self.control("GET", f"iam?after={after}")["decisions"]

    def last(self):
        return max((each["number"] for each in self.decisions()), default=0)

    @contextlib.contextmanager
    def doing(self, what):
        """Write down what people ask meanwhile, and nothing of it is denied."""
        before = self.last()
        yield
        found = [each for each in self.decisions(before) if each["principal"] in self.people]
        refused = [each for each in found if not each["allowed"]]
        assert not refused, [(each["action"], each["resource"], each["keys"]) for each in refused]
        self.recorded += [{"what": what, **each} for each in found]

    @contextlib.contextmanager
    def without(self, *labels):
        self.control("POST", "iam", {"without": labels})
        try:
            yield
        finally:
            self.control("POST", "iam", {"without": []})

    def submit(self, operation, request, *, check=True, **options):
        return self.people["ci"].run(
            sys.executable,
            "-c",
            SUBMIT,
            json.dumps(options),
            json.dumps(operation),
            json.dumps(request),
            check=check,
        )

    def until_held(self, address, who="person"):
        def held():
            done = self.people[who].smssh("status", address, "--json", check=False)
            return done.returncode == 0 and json.loads(done.stdout).get("state") == "held"

        until(held, seconds=PATIENCE)


def training(name, command, role, hosts=1):
    return {
        "TrainingJobName": name,
        "AlgorithmSpecification": {
            "TrainingImage": "image",
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["sh", "-c", command],
        },
        "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/{role}",
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
        "ResourceConfig": {"InstanceCount": hosts, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    }


def exported(machine, *words):
    text = machine.smssh("local", "up", *words).stdout
    return dict(re.findall(r"^export (\w+)='(.*)'$", text, flags=re.MULTILINE))


@pytest.fixture(scope="module")
def running():
    machine = make()
    image = image_with_asyncssh(machine.home / "image")
    policies = machine.home / "policies"
    iam_uses.write_policies(policies)
    plain = {**machine.environ, "SMSSH_OWNER": "team"}
    exports = exported(
        machine, "--port", "0", "--iam", policies, "--image", image, "--image", f"churn={IMAGE}"
    )
    machine.environ.update(exports)
    client(machine, "s3").create_bucket(Bucket=BUCKET)
    people = {
        name: Machine(machine.home, {**plain, **exported(machine, "--as", name)})
        for name in ("person", "ci", "cleanup", "costs")
    }
    yield Emulator(machine, people)
    machine.smssh("local", "down")
    machine.assert_nothing_left()
    unmake(machine)


def describe(emulator, name):
    return client(emulator.admin, "sagemaker").describe_training_job(TrainingJobName=name)


def ended(emulator, name):
    until(
        lambda: describe(emulator, name)["TrainingJobStatus"] in ("Completed", "Failed", "Stopped"),
        seconds=PATIENCE,
    )


def release(emulator, address, name, who="person"):
    emulator.people[who].smssh("release", address)
    ended(emulator, name)


def left_behind(emulator, job):
    """An activation that is over, and a node that was never online, of a job that has ended."""
    ssm = client(emulator.admin, "ssm")
    tags = {
        "SMSSH": "1",
        "SMSSHJob": job,
        "SMSSHKind": "training",
        "SMSSHHost": "algo-1",
        "SSHOwner": "team",
    }
    for registered in (True, False):
        made = ssm.create_activation(
            IamRole="smssh-node",
            DefaultInstanceName=job,
            ExpirationDate=time.time() + (3600 if registered else 1),
            Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
        )
        if registered:
            body = {**made, "PublicKey": "a", "PublicKeyType": "Rsa", "Fingerprint": "f" * 8}
            body.pop("ResponseMetadata")
            register(emulator, body)
            ssm.delete_activation(ActivationId=made["ActivationId"])
    until(
        lambda: all(each["Expired"] for each in ssm.describe_activations()["ActivationList"]),
        seconds=PATIENCE,
    )


def register(emulator, body):
    """What an agent asks with its activation's code, and no credentials."""
    url = emulator.admin.environ["AWS_ENDPOINT_URL"] + "/"
    headers = {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": "AmazonSSM.RegisterManagedInstance",
    }
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)).close()


@pytest.fixture(scope="module")
def emulator(running):
    """An emulator on which everything was done once, with no denial, before statements are left out."""
    running.asked = everything(running)
    return running


def spent(emulator):
    """What `smssh costs` says of each job."""
    with emulator.doing("`smssh costs`"):
        shown = emulator.people["costs"].smssh("costs", "--json").stdout
    return {each["job"]: each for each in json.loads(shown)["jobs"]}


def everything(emulator):
    """Do everything with exactly the policies; answers what IAM was asked, as it is kept."""
    person, cleaner = emulator.people["person"], emulator.people["cleanup"]
    start = emulator.last()
    request = training("held", FAILS, "held", hosts=2)
    with emulator.doing("submitting a job"):
        emulator.submit("create_training_job", request, **SSM, hold_hosts="all")
    emulator.until_held(f"algo-1.{HELD}")
    emulator.until_held(f"algo-2.{HELD}")
    with emulator.doing("`smssh list`"):
        assert {each["host"] for each in json.loads(person.smssh("list", "--json").stdout)["hosts"]} == {
            "algo-1",
            "algo-2",
        }
    # Its owner is a tag of its nodes.
    assert spent(emulator)["held"]["owner"] == "team"
    with emulator.doing("`smssh connect`"):
        assert "in" in person.smssh("connect", f"algo-1.{HELD}", "--", "echo in").stdout
    with emulator.doing("`smssh shell`"):
        assert "in-42" in person.smssh("shell", f"algo-1.{HELD}", "--", "echo in-$((6 * 7))").stdout
    with emulator.doing("`smssh release`"):
        # One host: with holds of all hosts, the other follows.
        person.smssh("release", f"algo-1.{HELD}")
    ended(emulator, "held")

    request = training("native", WORKS, "native")
    with emulator.doing("submitting a job with `transport='native'`"):
        emulator.submit("create_training_job", request, transport="native")
    with emulator.doing("`smssh connect` to a `native` host"):
        assert "in" in person.smssh("connect", NATIVE, "--", "echo in").stdout
    (emulator.admin.home / "smssh/local/jobs/native/algo-1/ml/go").touch()
    ended(emulator, "native")

    left_behind(emulator, "held")
    with emulator.doing("`smssh cleanup`"):
        shown = cleaner.smssh("cleanup", "--apply", "--yes", "--older-than", "0", "--json").stdout
    outcomes = [
        (each["what"], each["outcome"]) for each in json.loads(shown)["entries"] if each["job"] == "held"
    ]
    assert sorted(outcomes) == [("activation", "removed"), ("node", "removed")], shown

    definition = {"Version": "2020-12-01", "Steps": [step()]}
    with emulator.doing("submitting a pipeline"):
        emulator.submit(
            "create_pipeline",
            {
                "PipelineName": "enforced",
                "PipelineDefinition": json.dumps(definition),
                "ClientRequestToken": "t" * 32,
                "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/held",
            },
            **SSM,
        )
        emulator.submit(
            "start_pipeline_execution", {"PipelineName": "enforced", "ClientRequestToken": "t" * 32}, **SSM
        )
    with emulator.doing("`smssh debug`"):
        fixes = emulator.admin.home / "fixes"
        fixes.mkdir()
        (fixes / "Train.sh").write_text("touch /opt/ml/model/go\n")
        done = person.smssh("debug", "enforced", "--fixes", fixes, "--report", "debugged")
    assert "Succeeded" in done.stdout

    # The owner is in its bundle now, its hold in its log.
    jobs = spent(emulator)
    assert (jobs["held"]["owner"], jobs["held"]["hold_minutes"] > 0) == ("team", True)
    assert {each["pipeline"] for each in jobs.values()} == {"", "enforced"}

    # What jobs and nodes ask while they run is theirs, whatever anybody does meanwhile.
    decisions = emulator.decisions(start)
    refused = [each for each in decisions if not each["allowed"] and each["principal"] in ("job", "node")]
    assert not refused, [(each["action"], each["resource"], each["keys"]) for each in refused]
    found = emulator.recorded + [
        {"what": iam_uses.of_job(each), **each} for each in decisions if each["principal"] in ("job", "node")
    ]
    return iam_uses.recorded(found)


def test_everything_works_with_exactly_the_policies(emulator) -> None:
    """And needs the statements that the table in docs/iam.md says are needed."""
    if os.environ.get("SMSSH_TEST_GOLDEN") == "write":
        iam_uses.write_requests(emulator.asked)
    assert iam_uses.needed(emulator.asked) == iam_uses.needed(iam_uses.read())


def step():
    request = training("x", FAILS, "held")
    del request["TrainingJobName"]
    return {"Name": "Train", "Type": "Training", "Arguments": request}


def test_the_demo(emulator) -> None:
    done = emulator.people["ci"].run(
        sys.executable,
        CHURN / "pipeline.py",
        "--role",
        f"arn:aws:iam::{ACCOUNT}:role/held",
        "--node-role",
        "smssh-node",
        "--report",
        "report",
    )
    assert "Train: the entry point succeeded on attempt 2" in done.stdout
    assert json.loads((emulator.admin.home / "report" / "report.json").read_text())["status"] == "Succeeded"


def said_without(label):
    """What the table says of a statement."""
    return next(line for line in iam_uses.table(iam_uses.read()).splitlines() if f"`{label}`" in line)


@pytest.mark.parametrize(
    ("label", "action", "status"),
    [
        ("smssh-costs/Find", "sagemaker:ListTrainingJobs", 5),
        ("smssh-costs/Jobs", "sagemaker:DescribeTrainingJob", 5),
        ("smssh-costs/Executions", "sagemaker:ListPipelineExecutions", 0),
        ("smssh-costs/JobLogs", "logs:FilterLogEvents", 0),
        ("smssh-costs/Options", "s3:GetObject", 0),
        ("smssh-costs/Prices", "pricing:GetProducts", 0),
    ],
)
def test_without_a_statement_costs_are_summed_and_what_is_missing_is_said(
    emulator, label, action, status
) -> None:
    with emulator.without(label):
        done = emulator.people["costs"].smssh("costs", check=False)
    assert (done.returncode, action in done.stderr) == (status, True), done
    assert f"`{action}`" in said_without(label)


def log_of(emulator, name):
    logs = client(emulator.admin, "logs")
    group = "/aws/sagemaker/TrainingJobs"
    streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
    return "\n".join(
        event["message"]
        for stream in streams
        for event in logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
    )


def test_without_a_statement_people_are_told_what_to_ask_for(emulator) -> None:
    """In earnest, what the table says."""
    person = emulator.people["person"]
    emulator.submit("create_training_job", training("told", FAILS, "held"), **SSM)
    address = "algo-1.told.training.sagemaker"
    emulator.until_held(address)
    login = ("connect", address, "--wait", "0", "-o", "ControlPath=none", "--", "true")
    for label, command, permission in (
        ("smssh-people/Find", ("list",), "ssm:DescribeInstanceInformation on arn:aws:ssm:"),
        ("smssh-people/Nodes", login, r"ssm:StartSession on arn:aws:ssm:us-east-1:\d+:managed-instance/mi-"),
        (
            "smssh-people/Documents",
            login,
            "ssm:StartSession on arn:aws:ssm:us-east-1::document/AWS-StartSSHSession",
        ),
        ("smssh-people/Channel", login, "ssmmessages:OpenDataChannel"),
        ("smssh-people/HostKeys", login, "ssm:ListTagsForResource on arn:aws:ssm:"),
    ):
        with emulator.without(label):
            done = person.smssh(*command, check=False)
        assert done.returncode != 0, label
        assert re.search(permission, done.stderr), (label, done.stderr)
        assert f"`{permission.partition(' ')[0]}`" in said_without(label)
        assert person.smssh(*command, check=False).returncode == 0, label
    # The session of a login that may not end it is over with its client; the login works.
    with emulator.without("smssh-people/OwnSessions"):
        assert person.smssh(*login, check=False).returncode == 0
    assert "`ssm:TerminateSession`" in said_without("smssh-people/OwnSessions")
    release(emulator, address, "told")


@pytest.mark.parametrize(
    ("label", "action"),
    [
        ("smssh-job/Activate", "ssm:CreateActivation"),
        ("smssh-job/TagNew", "ssm:AddTagsToResource"),
        ("smssh-job/Pass", "iam:PassRole"),
    ],
)
def test_without_a_statement_a_job_goes_on_and_says_what_it_lacks(emulator, label, action) -> None:
    name = label.rpartition("/")[2].lower()
    with emulator.without(label):
        emulator.submit(
            "create_training_job",
            training(name, WORKS, "held"),
            **{**SSM, "hold": []},
        )
        until(
            lambda: f"allow {action} in the policy of the job's execution role" in log_of(emulator, name),
            seconds=PATIENCE,
        )
    (emulator.admin.home / f"smssh/local/jobs/{name}/algo-1/ml/go").touch()
    ended(emulator, name)
    assert describe(emulator, name)["TrainingJobStatus"] == "Completed"
    assert f"`{action}`" in said_without(label)


def test_without_its_bundle_a_job_fails_with_the_action(emulator) -> None:
    for label, action in (
        ("smssh-job/ListBundles", "s3:ListBucket"),
        ("smssh-job/ReadBundles", "s3:GetObject"),
    ):
        name = label.rpartition("/")[2].lower()
        with emulator.without(label):
            emulator.submit("create_training_job", training(name, "true", "held"), **SSM)
            ended(emulator, name)
        found = describe(emulator, name)
        assert found["TrainingJobStatus"] == "Failed"
        assert f"is not authorized to perform: {action} on resource" in found["FailureReason"]
        assert f"`{action}`" in said_without(label)


def test_without_the_right_to_remove_cleanup_says_what_it_lacks(emulator) -> None:
    emulator.submit("create_training_job", training("over", "true", "native"), transport="native")
    ended(emulator, "over")
    left_behind(emulator, "over")
    cleaner = emulator.people["cleanup"]
    for label, action in (
        ("smssh-cleanup/Deregister", "ssm:DeregisterManagedInstance"),
        ("smssh-cleanup/DeleteActivation", "ssm:DeleteActivation"),
    ):
        with emulator.without(label):
            done = cleaner.smssh("cleanup", "--apply", "--yes", "--older-than", "0", check=False)
        assert done.returncode != 0
        assert f"ask for the permission {action}" in done.stderr
        assert f"`{action}`" in said_without(label)
        left_behind(emulator, "over")


def test_another_owners_host_is_closed(emulator) -> None:
    """The condition of the statement, and not the statement, decides."""
    emulator.submit(
        "create_training_job", training("theirs", FAILS, "held"), **{**SSM, "owner": "others"}, check=False
    )
    until(
        lambda: (
            "allow ssm:CreateActivation in the policy of the job's execution role"
            in log_of(emulator, "theirs")
        ),
        seconds=PATIENCE,
    )
    client(emulator.admin, "sagemaker").stop_training_job(TrainingJobName="theirs")
    ended(emulator, "theirs")
