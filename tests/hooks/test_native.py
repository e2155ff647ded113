"""The native transport: an SSH server, an announcement in S3, and no agent, activation or node of ours."""

import dataclasses
import json
import os
import signal
import time

import boto3
import pytest

from smssh_plugin.errors import SmsshError
from smssh_plugin.hooks import native
from smssh_plugin.hookspecs import Job
from smssh_plugin.submit.bundle import publish
from smssh_plugin.submit.options import SSHOptions
from tests.container.agents import context, silence
from tests.waiting import LIMIT, until

BUCKET = "announcements"
WAITING = "while [ ! -e go ]; do sleep 0.05; done"


@pytest.fixture(scope="session")
def s3_url():
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_url, monkeypatch, tmp_path):
    for name in ("AWS_PROFILE", "AWS_MAX_ATTEMPTS", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIAJOBJOBJOBJOBJOBJ")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-jobs-secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_url)
    client = boto3.session.Session(region_name="us-east-1").client("s3")
    # moto's state is one a process: other tests may have emptied it.
    if BUCKET not in [found["Name"] for found in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)
    for found in client.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        client.delete_object(Bucket=BUCKET, Key=found["Key"])
    return client


@pytest.fixture(autouse=True)
def no_announcement_before(monkeypatch):
    monkeypatch.setattr(native._State, "announcement", None)


def announced(s3, key="smssh/bundles/hosts/job-1/algo-1.json"):
    return json.loads(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())


@pytest.fixture
def job_of(container, s3, s3_url):
    """Starts a wrapped training job with the native transport."""

    def start(*command, **environ):
        return container.wrap(
            *command,
            **{
                "SMSSH_TRANSPORT": "native",
                "SMSSH_ANNOUNCE": f"s3://{BUCKET}/smssh/bundles",
                "SMSSH_STEP": "Train",
                "SMSSH_OWNER": "me@example.com",
                "TRAINING_JOB_ARN": "arn:aws:sagemaker:us-east-1:123456789012:training-job/job-1",
                "AWS_ENDPOINT_URL": s3_url,
                "AWS_ACCESS_KEY_ID": "ASIAJOBJOBJOBJOBJOBJ",
                "AWS_SECRET_ACCESS_KEY": "the-jobs-secret",
                **environ,
            },
        )

    return start


def test_announced_states_and_the_end(container, s3, job_of) -> None:
    process = job_of("sh", "-c", f"{WAITING}; rm go; exit 3", SMSSH_HOLD="failure")
    status = until(lambda: (found := container.wait_for("running"))["transport"]["target"] and found)
    assert status["transport"] == {"name": "native", "target": "sagemaker-training-job:job-1_algo-1"}
    found = announced(s3)
    assert {
        "version": 1,
        "job": "job-1",
        "kind": "training",
        "host": "algo-1",
        "step": "Train",
        "owner": "me@example.com",
        "arn": "arn:aws:sagemaker:us-east-1:123456789012:training-job/job-1",
        "target": "sagemaker-training-job:job-1_algo-1",
        "port": status["ssh"]["port"],
        "control_port": status["ssh"]["control_port"],
        "user": status["ssh"]["user"],
        "host_key": status["ssh"]["host_key"],
    }.items() <= found.items()
    assert abs(found["created"] - time.time()) < 300
    # The announced key is the one that the server shows: a login with it alone works.
    assert container.ssh(status, "echo in").stdout == "in\n"
    # Nothing of the ssm transport is there.
    assert not (container.run_dir / "agent").exists()
    assert not [command for _, command in container.strays() if "amazon-ssm-agent" in command]
    container.script("", name="go")
    container.wait_for("held")
    until(lambda: announced(s3)["state"] == "held", what="held")
    container.hook("release")
    assert process.wait(LIMIT) == 3
    assert announced(s3)["state"] == "ended"
    assert announced(s3)["created"] == found["created"]
    container.assert_quiet()


def test_a_job_that_is_stopped_says_so(container, s3, job_of) -> None:
    process = job_of("sh", "-c", "exec sleep 100")
    until(lambda: container.wait_for("running")["transport"]["target"])
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 143
    assert announced(s3)["state"] == "ended"
    container.assert_quiet()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"SMSSH_ANNOUNCE": ""}, "where its host key is announced"),
        ({"SMSSH_ANNOUNCE": "s3://no-such-bucket/x"}, "NoSuchBucket"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "2"}, "no answer from"),
        ({"TRANSFORM_JOB_NAME": "t"}, "which no transform job has"),
    ],
)
def test_without_an_announcement_the_job_runs_and_the_log_says_why(container, job_of, change, words) -> None:
    process = job_of("sh", "-c", f"{WAITING}; exit 4", **change)
    until(lambda: "no login is possible" in container.output(), what=lambda: f"a message; {container.log()}")
    assert [line for line in container.output().splitlines() if words in line], container.output()
    container.script("", name="go")
    assert process.wait(LIMIT) == 4
    container.assert_quiet()


def test_a_network_that_swallows_everything_delays_no_job(container, job_of) -> None:
    with silence() as url:
        process = job_of("sh", "-c", f"{WAITING}; exit 7", AWS_ENDPOINT_URL=url)
        until(lambda: "SSH server" in container.log(), what="the start")
        began = time.monotonic()
        container.script("", name="go")
        assert process.wait(LIMIT) == 7
        assert time.monotonic() - began < 15
        container.assert_quiet()


def test_the_last_word_is_bounded(tmp_path, s3, monkeypatch) -> None:
    monkeypatch.setattr(native, "END_SECONDS", 0.3)
    made = context(tmp_path, SMSSH_TRANSPORT="native", SMSSH_ANNOUNCE=f"s3://{BUCKET}")
    assert native.smssh_start_transport(made).target == "sagemaker-training-job:job-1_algo-1"
    announcement = native._State.announcement
    with silence() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        announcement._client = boto3.session.Session(region_name="us-east-1").client("s3")
        native.smssh_stop()
        # The harm that the bound keeps away: the call itself is still waiting.
        assert announcement._thread.is_alive()


def test_where_it_is(tmp_path) -> None:
    job = Job("job-1", "training", "algo-2")
    assert native.announcement_key("", job) == "hosts/job-1/algo-2.json"
    assert native.announcement_key("a/b", job) == "a/b/hosts/job-1/algo-2.json"
    assert native.target(job) == "sagemaker-training-job:job-1_algo-2"
    assert native.smssh_start_transport(context(tmp_path)) is None


@pytest.mark.parametrize("owner", ["", "222222222222"])
def test_the_bucket_must_be_that_of_the_job_or_of_the_account_that_is_named(tmp_path, s3, owner) -> None:
    place = f"s3://{BUCKET}/owned" + (f"?owner={owner}" if owner else "")
    made = context(tmp_path, SMSSH_TRANSPORT="native", SMSSH_ANNOUNCE=place)
    arn = "arn:aws:sagemaker:us-east-1:123456789012:training-job/job-1"
    made = dataclasses.replace(made, job=dataclasses.replace(made.job, arn=arn))
    requests = []
    s3.meta.events.register("before-call.s3.PutObject", lambda params, **_: requests.append(params))
    native.Announcement(made, s3).start()
    assert requests[0]["url_path"].endswith("/owned/hosts/job-1/algo-1.json")
    assert requests[0]["headers"]["x-amz-expected-bucket-owner"] == (owner or "123456789012")


def test_a_denied_write_names_the_action(tmp_path, s3, monkeypatch) -> None:
    from botocore.exceptions import ClientError

    made = context(tmp_path, SMSSH_TRANSPORT="native", SMSSH_ANNOUNCE=f"s3://{BUCKET}/x")

    def deny(**_):
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "Access Denied"}}, "PutObject")

    client = boto3.session.Session(region_name="us-east-1").client("s3")
    deny.__self__ = client
    monkeypatch.setattr(client, "put_object", deny)
    with pytest.raises(SmsshError, match="may not s3:PutObject"):
        native.Announcement(made, client).start()


def test_a_client_finds_it_from_the_jobs_own_request(tmp_path, s3, monkeypatch) -> None:
    """What stands before the digest in the bundle's address is the place of the announcements."""
    monkeypatch.setenv("SMSSH_HOME", str(tmp_path / "home"))
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO7tHAuphTTyE5a9CYRfcOTPNUOEeZ0zJlOA+XjiM8Wo tests"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "id_ed25519").write_text("not a key\n")
    (tmp_path / "home" / "id_ed25519.pub").write_text(key + "\n")
    session = boto3.session.Session(region_name="us-east-1")
    for place in (f"s3://{BUCKET}", f"s3://{BUCKET}/mine"):
        address = publish.publish(SSHOptions(transport="native", bundle_prefix=place), session)
        named = s3.get_object(Bucket=BUCKET, Key=address[len(f"s3://{BUCKET}/") :] + "options.json")
        options = json.loads(named["Body"].read())
        assert options["announce"] == os.path.dirname(address.rstrip("/")) == place
    # Nothing of it in the bundles of others.
    address = publish.publish(SSHOptions(transport="none", bundle_prefix=place), session)
    named = s3.get_object(Bucket=BUCKET, Key=address[len(f"s3://{BUCKET}/") :] + "options.json")
    assert "announce" not in json.loads(named["Body"].read())


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("", {}),
        ("AES256", {"ServerSideEncryption": "AES256"}),
        ("aws:kms", {"ServerSideEncryption": "aws:kms"}),
        ("alias/team", {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/team"}),
    ],
)
def test_it_is_encrypted_as_the_bundle_is(tmp_path, s3, how, expected) -> None:
    """A bucket whose policy demands a key of each PUT takes the announcement, too."""
    options = SSHOptions(transport="native", **({"s3_encryption": how} if how else {}))
    document = options.document(())
    assert ("s3_encryption" in document) == bool(how)
    assert "s3_encryption" not in SSHOptions(s3_encryption=how or None).document(()), (
        "nobody there puts anything"
    )
    made = context(tmp_path, SMSSH_TRANSPORT="native", SMSSH_ANNOUNCE=f"s3://{BUCKET}/smssh")
    made.settings = dataclasses.replace(made.settings, s3_encryption=document.get("s3_encryption", ""))
    native.Announcement(made, s3).start()
    found = s3.head_object(Bucket=BUCKET, Key=f"smssh/hosts/{made.job.name}/{made.job.host}.json")
    assert {name: found[name] for name in expected} == expected
