"""Public keys that are kept in S3, Systems Manager, on GitHub or a web server; for who submits and for the job."""

from __future__ import annotations

import boto3
import pytest
from moto import mock_aws

from smssh_plugin import key_sources, settings
from smssh_plugin.errors import ExitStatus, SmsshError
from smssh_plugin.hooks import keys
from smssh_plugin.key_sources import is_source, read_source
from smssh_plugin.submit import authorized
from smssh_plugin.submit.authorized import authorized_keys
from smssh_plugin.submit.options import SSHOptions
from tests.container.agents import Mirror, context

ANN = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPmghorh9zx1v9BThkn2f25Zqh3y0mVMUvTzLDbHrAB0 ann"
BOB = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO7tHAuphTTyE5a9CYRfcOTPNUOEeZ0zJlOA+XjiM8Wo bob"
PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n"
OBJECT = "s3://team/ssh/keys"


@pytest.fixture
def aws(monkeypatch):
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="team")
        yield


@pytest.fixture
def web(monkeypatch):
    mirror = Mirror()
    monkeypatch.setattr(key_sources, "GITHUB", mirror.url + "/{}.keys")
    yield mirror
    mirror.close()


@pytest.fixture(autouse=True)
def _nothing_read(monkeypatch, tmp_path):
    monkeypatch.setattr(authorized, "_read", {})
    (tmp_path / "id_ed25519").write_text("not a key\n")
    (tmp_path / "id_ed25519.pub").write_text(BOB + "\n")
    monkeypatch.setenv("SMSSH_HOME", str(tmp_path))


def put(text, source=OBJECT):
    bucket, _, key = source[len("s3://") :].partition("/")
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=text.encode())


@pytest.mark.parametrize(
    "entry",
    [OBJECT, "ssm:/team/keys", "ssm:keys", "github:ann", "https://gitlab.com/ann.keys", "http://localhost/k"],
)
def test_what_is_a_source(entry) -> None:
    assert is_source(entry)
    assert SSHOptions(authorized_keys=entry).authorized_keys == (entry,)


@pytest.mark.parametrize("entry", [ANN, "/home/ann/keys.pub", "keys.pub", "sssm:x"])
def test_what_is_not_a_source(entry) -> None:
    assert not is_source(entry)


@pytest.mark.parametrize(
    "entry", ["s3://team", "ssm:", "github:-ann", "github:a/b", "http://example.com/keys", "https://x"]
)
def test_what_begins_as_one(entry) -> None:
    with pytest.raises(SmsshError, match="is not a source of public keys"):
        is_source(entry)
    with pytest.raises(SmsshError) as caught:
        SSHOptions(authorized_keys=entry)
    assert "github:USER" in (caught.value.hint or "")


def test_each_kind_is_read(aws, web) -> None:
    text = f"# the team\n{BOB}\n\n{ANN}\n{BOB}\n"
    put(text)
    ssm = boto3.client("ssm")
    ssm.put_parameter(Name="/team/keys", Value=text, Type="SecureString")
    arn = ssm.get_parameter(Name="/team/keys")["Parameter"]["ARN"]
    web.files["/ann.keys"] = text.encode()
    for source in (OBJECT, "ssm:/team/keys", f"ssm:{arn}", "github:ann", f"{web.url}/ann.keys"):
        assert read_source(source, boto3.client) == sorted([ANN, BOB])


def _owners(session):
    """The owners that the calls of a session expect, as they come."""
    found = []
    session.events.register(
        "before-call.s3",
        lambda params, **_: found.append(params["headers"].get("x-amz-expected-bucket-owner")),
    )
    return found


def test_a_bucket_must_be_ones_own_or_that_of_the_account_that_is_named(aws) -> None:
    put(ANN)
    session = boto3.Session()
    owners = _owners(session)
    assert read_source(OBJECT, session.client) == [ANN]
    assert read_source(OBJECT, session.client, lambda: "111111111111") == [ANN]
    assert read_source(OBJECT + "?owner=222222222222", session.client) == [ANN]
    assert owners == ["123456789012", "111111111111", "222222222222"]
    with pytest.raises(SmsshError, match="does not name an account"):
        is_source(OBJECT + "?owner=ann")


@pytest.mark.parametrize(
    ("source", "problem", "hint", "status"),
    [
        (OBJECT, "NoSuchKey", "s3:GetObject on team/ssh/keys", ExitStatus.NOT_FOUND),
        ("s3://nobodys/keys", "NoSuchBucket", "s3:GetObject on nobodys/keys", ExitStatus.NOT_FOUND),
        ("ssm:/gone", "ParameterNotFound", "ssm:GetParameter on /gone", ExitStatus.NOT_FOUND),
        ("github:nobody", "HTTP status 404", "there is such a user", ExitStatus.UNREACHABLE),
    ],
)
def test_what_cannot_be_read(aws, web, source, problem, hint, status) -> None:
    with pytest.raises(
        SmsshError, match=f"the public keys of {source} cannot be read: .*{problem}"
    ) as caught:
        read_source(source, boto3.client)
    assert hint in caught.value.hint
    assert caught.value.status is status


def test_without_credentials(monkeypatch, tmp_path) -> None:
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_PROFILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(SmsshError, match="Unable to locate credentials"):
        read_source(OBJECT, lambda service: boto3.Session(region_name="us-east-1").client(service))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no public key in it"),
        ("# nothing\n", "has no public key in it"),
        (PRIVATE, "has a private key"),
        ("x" * (1 << 20) + "x", "larger than 1048576 bytes"),
        ("\udcff", "not a list of public keys"),
    ],
)
def test_what_has_no_keys(aws, text, problem) -> None:
    boto3.client("s3").put_object(Bucket="team", Key="ssh/keys", Body=text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SmsshError, match=problem) as caught:
        read_source(OBJECT, boto3.client)
    assert "secret" not in str(caught.value)


# -------------------------------------------------------------------------------- who submits


def test_who_submits_reads_them(aws, web, tmp_path) -> None:
    put(ANN)
    web.files["/carl.keys"] = BOB.replace("bob", "carl").encode()
    options = SSHOptions(authorized_keys=(OBJECT, "github:carl"))
    assert authorized_keys(options) == (BOB, ANN, BOB.replace("bob", "carl"))


def test_all_steps_of_a_pipeline_get_the_same(aws, monkeypatch) -> None:
    options = SSHOptions(authorized_keys=OBJECT)
    put(ANN)
    assert authorized_keys(options) == (BOB, ANN)
    put(ANN.replace("ann", "another"))
    assert authorized_keys(options) == (BOB, ANN)
    monkeypatch.setattr(authorized, "FRESH_SECONDS", -1.0)
    assert authorized_keys(options) == (BOB, ANN.replace("ann", "another"))


def test_another_account_has_keys_of_its_own_under_the_same_name(aws) -> None:
    source = "ssm:team"
    for account, text in (("111111111111", ANN), ("222222222222", BOB)):
        role = boto3.client("sts").assume_role(
            RoleArn=f"arn:aws:iam::{account}:role/r", RoleSessionName="ann"
        )
        keys = role["Credentials"]
        session = boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
        session.client("ssm").put_parameter(Name="team", Value=text, Type="String")
        assert authorized.named_keys(SSHOptions(authorized_keys=(source,)), session) == [text]


def test_a_source_with_something_else_in_it_is_refused(aws) -> None:
    put(f"{ANN}\n<html>a page</html>\n")
    with pytest.raises(
        SmsshError, match=f"names {OBJECT}, which has a line that is not a public key"
    ) as caught:
        authorized_keys(SSHOptions(authorized_keys=OBJECT))
    assert "html" not in str(caught.value)


def test_without_a_bundle_the_job_gets_the_sources(tmp_path) -> None:
    """Nobody is asked here, and there is no server to ask."""
    options = SSHOptions(launcher="baked", authorized_keys=(OBJECT, ANN))
    assert authorized_keys(options) == (BOB, OBJECT, ANN)
    variables = settings.variables(options.document(authorized_keys(options)))
    assert variables["SMSSH_AUTHORIZED_KEYS"] == f"{BOB}\n{OBJECT}\n{ANN}"


# -------------------------------------------------------------------------------- the job


def test_the_job_reads_them_too(aws, web, tmp_path) -> None:
    put(f"{ANN}\nnot a key\n")
    made = context(tmp_path, SMSSH_AUTHORIZED_KEYS=f"{OBJECT}\n{BOB}\ngithub:nobody\nssm:\n")
    assert keys.smssh_authorized_keys(made) == [ANN, BOB]
    unread, wrong = made.said
    assert "smssh: the public keys of github:nobody cannot be read" in unread
    assert "'ssm:' is not a source of public keys" in wrong
