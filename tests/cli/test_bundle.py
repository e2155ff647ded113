"""`smssh bundle`: built, shown and verified, in a folder and in S3 as moto has it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from smssh_plugin import __version__
from smssh_plugin.cli import main
from smssh_plugin.errors import ExitStatus
from smssh_plugin.submit.bundle.build import build
from smssh_plugin.submit.options import SSHOptions

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO7tHAuphTTyE5a9CYRfcOTPNUOEeZ0zJlOA+XjiM8Wo tests"
FINGERPRINT = "SHA256:MGrSOaGXxWeleYFfTjooGc56oI0iwRMG0MbY1gS1oB0"
"""As `ssh-keygen -l` says it."""
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPmghorh9zx1v9BThkn2f25Zqh3y0mVMUvTzLDbHrAB0"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "id_ed25519").write_text("not a key\n")
    (home / "id_ed25519.pub").write_text(KEY + "\n")
    monkeypatch.setenv("SMSSH_HOME", str(home))
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with mock_aws():
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="mine")
        yield "mine"


def smssh(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["bundle", *words])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


BUILD = ("build", "-o", "hold=failure, end", "-o", "agent=found")
EXPECTED = SSHOptions(hold=("failure", "end"), agent="found")


def test_build_into_a_folder(capsys, tmp_path) -> None:
    status, out, err = smssh(capsys, *BUILD, "--to", "there")
    expected = build(EXPECTED, [KEY])
    assert (status, out, err) == (0, f"there/{expected.digest}\n", "")
    folder = tmp_path / "there" / expected.digest
    assert {name: (folder / name).read_bytes() for name in expected.files} == expected.files
    assert smssh(capsys, *BUILD, "--to", "there")[:2] == (0, out)


def test_build_into_s3_and_use_it(capsys, bucket) -> None:
    status, out, _ = smssh(capsys, *BUILD, "--to", f"s3://{bucket}/deep", "--json")
    made = json.loads(out)
    expected = build(EXPECTED, [KEY])
    assert status == 0
    assert made == {
        "version": 1,
        "bundle": f"s3://{bucket}/deep/{expected.digest}/",
        "digest": expected.digest,
        "bytes": expected.size,
    }
    assert smssh(capsys, "verify", made["bundle"])[0] == 0
    from smssh_plugin.submit.bundle.publish import publish

    session = boto3.Session(region_name="us-east-1")
    assert publish(SSHOptions(bundle=made["bundle"], hold="failure,end"), session) == made["bundle"]


def test_build_where_with_ssh_would(capsys, bucket) -> None:
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="sagemaker-us-east-1-123456789012")
    _, out, _ = smssh(capsys, *BUILD)
    assert out == f"s3://sagemaker-us-east-1-123456789012/smssh/bundles/{build(EXPECTED, [KEY]).digest}/\n"


def test_options_of_all_kinds(capsys, tmp_path) -> None:
    keys = tmp_path / "team.pub"
    keys.write_text(f"{OTHER} ann b\n")
    words = [
        "-o",
        "hold=failure",
        "-o",
        "hold=end",
        "-o",
        "price_per_hour=1.21",
        "-o",
        f"authorized_keys={keys}",
    ]
    words += [
        "-o",
        "extra.strict=true",
        "-o",
        "extra.mine=text",
        "-o",
        'extra.deep={"a": [1]}',
        "-o",
        "agent=found",
    ]
    words += ["-o", "notify=https://hooks.example.com/T0/secret,arn:aws:sns:eu-west-1:123456789012:jobs"]
    _, out, _ = smssh(capsys, "build", *words, "--to", ".")
    status, text, _ = smssh(capsys, "show", out.strip())
    assert status == 0
    assert "secret" not in text
    shown = [line.strip() for line in text.splitlines()]
    for line in (
        f"version  smssh-plugin {__version__}",
        "hold = failure,end",
        "price_per_hour = 1.21",
        "strict = true",
        "mine = text",
        'deep = {"a": [1]}',
        'notify = ["https://hooks.example.com/...", "arn:aws:sns:eu-west-1:123456789012:jobs"]',
        f"{FINGERPRINT} tests (ssh-ed25519)",
    ):
        assert line in shown
    assert any(line.endswith("ann b (ssh-ed25519)") for line in shown)


def test_show_for_programs(capsys) -> None:
    _, out, _ = smssh(capsys, *BUILD, "--to", ".")
    status, text, _ = smssh(capsys, "show", out.strip(), "--json")
    shown = json.loads(text)
    expected = build(EXPECTED, [KEY])
    assert status == 0
    assert (shown["version"], shown["digest"], shown["plugin_version"]) == (1, expected.digest, __version__)
    assert shown["options"] == {"hold": "failure,end", "agent": "found", "transport": "ssm"}
    assert shown["keys"] == [f"{FINGERPRINT} tests (ssh-ed25519)"]
    assert {name: each["bytes"] for name, each in shown["files"].items()} == {
        name: len(data) for name, data in expected.files.items() if name != "smssh-manifest.json"
    }


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_verify_a_damaged_one(capsys, tmp_path, form) -> None:
    _, out, _ = smssh(capsys, *BUILD, "--to", ".")
    folder = Path(shutil.copytree(out.strip(), tmp_path / "copy"))
    status, text, err = smssh(capsys, "verify", str(folder))
    assert (status, "whole, 7 files" in text) == (0, True)
    assert err == "note: it is not named after its digest, so its manifest itself was not checked\n"
    (folder / "run.sh").write_text("exit 1\n")
    (folder / "env.sh").unlink()
    (folder / "json.py").touch()
    status, text, err = smssh(capsys, "verify", str(folder), *form)
    assert status == ExitStatus.FAILED
    assert f"error: {folder} is damaged: 3 of 8 files are not as they should be" in err
    if form:
        found = json.loads(text)
        assert (found["whole"], found["named_after_its_digest"], found["listed"]) == (False, False, True)
        states = {each["name"]: each["state"] for each in found["files"] if each["state"] != "ok"}
    else:
        states = {name: state for state, name in (line.split() for line in text.splitlines())}
    assert states == {"run.sh": "changed", "env.sh": "missing", "json.py": "unknown"}


def test_verify_a_manifest_that_is_another_ones(capsys) -> None:
    _, out, _ = smssh(capsys, *BUILD, "--to", ".")
    manifest = Path(out.strip(), "smssh-manifest.json")
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    status, text, _ = smssh(capsys, "verify", out.strip())
    assert (status, text) == (ExitStatus.FAILED, "changed  smssh-manifest.json\n")


def test_a_place_without_bundles(capsys, bucket, tmp_path) -> None:
    for where in ("nowhere", f"s3://{bucket}/nothing", "s3://nobodys-bucket/prefix"):
        for command in ("show", "verify"):
            status, out, err = smssh(capsys, command, where)
            assert (status, out) == (ExitStatus.NOT_FOUND, "")
            assert "smssh-manifest.json cannot be read" in err
    (tmp_path / "smssh-manifest.json").write_text("{}")
    assert smssh(capsys, "verify", ".")[0] == ExitStatus.FAILED


def test_where_it_may_not_be_read(capsys, bucket) -> None:
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::mine/*"}
    client = boto3.client("s3", region_name="us-east-1")
    _, out, _ = smssh(capsys, *BUILD, "--to", f"s3://{bucket}/closed")
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]}))
    assert smssh(capsys, "verify", out.strip())[0] == ExitStatus.REFUSED


def test_a_profile_that_is_not_there(capsys) -> None:
    status, _, err = smssh(capsys, "verify", "s3://mine/prefix", "--profile", "nobody")
    assert status == ExitStatus.UNREACHABLE
    assert "The config profile (nobody) could not be found" in err


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["build", "-o", "hold"], "'hold' is not NAME=VALUE"),
        (["build", "-o", "role=x"], "the option 'role' is not part of a bundle"),
        (["build", "-o", "nonsense=x"], "there is no SSH option 'nonsense'"),
        (["build", "-o", "launcher=baked"], "the option 'launcher' is not part of a bundle"),
        (["build", "-o", "bundle=s3://a-b/c"], "the option 'bundle' is not part of a bundle"),
        (["build", "-o", "offline=perhaps"], "offline is not usable: 'perhaps' is not True or False"),
        (["build", "-o", "offline=true"], "wheels has nothing for x86_64"),
        (["build", "-o", "transport=native", "--to", "here"], "the transport native announces itself in S3"),
        (["build", "--to", "s3://A"], "bundle_prefix is 's3://A'"),
        (["verify", "s3://bucket"], "s3://bucket is not s3://bucket/prefix"),
    ],
)
def test_what_is_wrong_is_named(capsys, words, error) -> None:
    status, out, err = smssh(capsys, *words)
    assert (status, out) == (ExitStatus.USAGE, "")
    assert f"error: {error}" in err or error in err
    assert "hint: " in err or "SSHOptions" in err


# -------------------------------------------------------------------------------- of a pipeline


def _upserted(address):
    channel = {"ChannelName": "smssh", "DataSource": {"S3DataSource": {"S3Uri": address}}}
    step = {"Name": "T", "Type": "Training", "Arguments": {"InputDataConfig": [channel]}}
    boto3.client("sagemaker", region_name="us-east-1").create_pipeline(
        PipelineName="churn",
        PipelineDefinition=json.dumps({"Steps": [step]}),
        RoleArn="arn:aws:iam::123456789012:role/job",
        ClientRequestToken="x" * 32,
    )


def test_the_bundles_of_a_pipeline_are_verified_and_renewed(capsys, bucket) -> None:
    _, out, _ = smssh(capsys, *BUILD, "--to", f"s3://{bucket}/deep")
    address = out.strip()
    _upserted(address)
    s3 = boto3.client("s3", region_name="us-east-1")
    key = address[len(f"s3://{bucket}/") :]
    before = s3.head_object(Bucket=bucket, Key=key + "run.sh")["ResponseMetadata"]["RequestId"]
    assert before
    status, out, _ = smssh(capsys, "verify", "--pipeline", "churn")
    assert (status, out.startswith(f"{address}: whole")) == (0, True)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert smssh(capsys, "renew", "--pipeline", "churn")[:2] == (0, f"{address}\n")
    versions = s3.list_object_versions(Bucket=bucket, Prefix=key)["Versions"]
    expected = build(EXPECTED, [KEY])
    assert len(versions) == 2 * len(expected.files)
    s3.delete_object(Bucket=bucket, Key=key + "run.sh")
    status, out, err = smssh(capsys, "verify", "--pipeline", "churn", "--json")
    assert status == ExitStatus.FAILED
    assert json.loads(out)["bundles"][0]["whole"] is False
    status, _, err = smssh(capsys, "renew", "--pipeline", "churn")
    assert status == ExitStatus.NOT_FOUND
    assert "run.sh" in err


def _sent(monkeypatch):
    """The encryption that each PUT of this process asks for."""
    sent = []
    real = boto3.Session.client

    def client(self, name, *arguments, **options):
        made = real(self, name, *arguments, **options)
        if name == "s3":
            made.meta.events.register(
                "before-call.s3.PutObject",
                lambda params, **_: sent.append(
                    params["headers"].get("x-amz-server-side-encryption-aws-kms-key-id")
                ),
            )
        return made

    monkeypatch.setattr(boto3.Session, "client", client)
    return sent


def test_a_bundle_is_built_and_renewed_with_a_key(capsys, bucket, monkeypatch) -> None:
    """In a bucket whose policy demands one: what was stored with it is renewed with it."""
    sent = _sent(monkeypatch)
    status, out, _ = smssh(
        capsys, *BUILD, "-o", "s3_encryption=alias/team", "--to", f"s3://{bucket}/encrypted"
    )
    assert status == 0
    assert sent
    assert set(sent) == {"alias/team"}
    address = out.strip()
    for words, key in (
        ((), "alias/team"),
        (("--s3-encryption", "alias/other"), "alias/other"),
        ((), "alias/other"),
    ):
        sent.clear()
        assert smssh(capsys, "renew", address, *words)[0] == 0
        assert sent
        assert {each.rpartition(":")[2] for each in sent} == {key}
    status, _, err = smssh(capsys, "renew", address, "--s3-encryption", "secret")
    assert status == ExitStatus.USAGE
    assert "not AES256, aws:kms or a key of KMS" in err


def test_a_bundle_without_a_key_is_renewed_without_one(capsys, bucket, monkeypatch) -> None:
    sent = _sent(monkeypatch)
    _, out, _ = smssh(capsys, *BUILD, "--to", f"s3://{bucket}/plain")
    assert smssh(capsys, "renew", out.strip())[0] == 0
    assert set(sent) == {None}


@pytest.mark.parametrize(
    ("words", "status", "problem"),
    [
        (("verify",), ExitStatus.USAGE, "give either WHERE or --pipeline"),
        (("renew", "s3://mine/x", "--pipeline", "churn"), ExitStatus.USAGE, "give either"),
        (("renew", "here"), ExitStatus.USAGE, "here is not s3://bucket/prefix"),
        (("verify", "--pipeline", "gone"), ExitStatus.NOT_FOUND, "pipeline 'gone' cannot be read"),
    ],
)
def test_what_is_no_bundle_of_a_pipeline(capsys, bucket, words, status, problem) -> None:
    found, _, err = smssh(capsys, *words)
    assert (found, problem in err) == (status, True), err


def test_the_files_of_plugins_are_shown(capsys, tmp_path, monkeypatch) -> None:
    (tmp_path / "mine" / "acme").mkdir(parents=True)
    (tmp_path / "mine" / "acme" / "__init__.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path / "mine")
    _, out, _ = smssh(capsys, *BUILD, "-o", "plugins=acme", "--to", "there")
    _, shown, _ = smssh(capsys, "show", out.strip())
    assert " 6  acme/__init__.py" in shown.partition("files of plugins")[2]
    assert (
        json.loads(smssh(capsys, "show", out.strip(), "--json")[1])["plugin_files"]["acme/__init__.py"] == 6
    )


def test_the_files_of_plugins_are_told_when_they_are_uploaded(capsys, bucket, tmp_path, monkeypatch) -> None:
    (tmp_path / "mine" / "acme").mkdir(parents=True)
    (tmp_path / "mine" / "acme" / "__init__.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path / "mine")
    words = (*BUILD, "-o", "plugins=acme", "--to", f"s3://{bucket}/told")
    assert "of plugins, these files are sent: acme/__init__.py" in smssh(capsys, *words)[2]
    assert "of plugins" not in smssh(capsys, *words)[2]
