"""`smssh setup`, as it is typed: what is printed, written, said besides, and refused."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.cli import main
from smssh_plugin.errors import ExitStatus
from tests.client.nodes import add_node, use
from tests.setup.samples import ACCOUNT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.local.service_harness import Service

MINE = ("--account", ACCOUNT)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.chdir(tmp_path)


def setup(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["setup", *words])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_the_examples_of_its_help_are_lines_of_their_own(capsys) -> None:
    status, out, _ = setup(capsys, "--help")
    assert status == 0
    assert "\n  smssh setup --part people --owner source-identity\n" in out
    assert "\\b" not in out


def test_one_document_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = setup(capsys, *MINE, "--part", "people")
    assert status == 0
    assert err == ""
    assert json.loads(out)["Version"] == "2012-10-17"


def test_the_usual_parts_are_printed_by_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = setup(capsys, *MINE, "--team", "vision")
    assert status == 0
    assert list(json.loads(out)) == [
        "smssh-node-trust",
        "smssh-node-policy",
        "smssh-job",
        "smssh-submit",
        "smssh-people",
    ]
    assert f"smssh: submit jobs with SSHOptions(role='arn:aws:iam::{ACCOUNT}:role/smssh-node')" in err
    assert "smssh: set SMSSH_OWNER=vision where jobs are submitted" in err
    assert "smssh: attach smssh-job to the roles of jobs" in err


def test_the_account_is_that_of_the_credentials(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from moto import mock_aws

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws():
        status, out, _ = setup(capsys, "--part", "node", "--region", "eu-west-1")
    assert status == 0
    assert (
        "123456789012"
        in json.loads(out)["smssh-node-trust"]["Statement"][0]["Condition"]["StringEquals"].values()
    )


def test_json_without_an_account_says_how_to_name_it(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = setup(capsys, "--region", "eu-west-1")
    assert (status, out) == (ExitStatus.USAGE, "")
    assert err.splitlines() == [
        "error: the account is not known: Unable to locate credentials",
        "hint: pass --account with twelve digits, or use --format cloudformation or terraform, which need none",
    ]


@pytest.mark.parametrize("form", ["cloudformation", "terraform", "cdk"])
def test_templates_need_neither_credentials_nor_an_account(
    capsys: pytest.CaptureFixture[str], form: str
) -> None:
    status, out, _ = setup(capsys, "--format", form)
    assert status == 0
    assert out
    assert ACCOUNT not in out
    if form == "cloudformation":
        assert json.loads(out)["Resources"].keys() == {
            "NodeRole",
            "JobPolicy",
            "SubmitPolicy",
            "PeoplePolicy",
        }


@pytest.mark.parametrize(
    ("region", "partition"),
    [("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov"), ("eu-west-1", "aws"), (None, "aws")],
)
def test_the_partition_is_that_of_the_region(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, region: str | None, partition: str
) -> None:
    if region:
        monkeypatch.setenv("AWS_REGION", region)
    status, out, _ = setup(capsys, *MINE, "--part", "people")
    assert status == 0
    assert f'"arn:{partition}:ssm:*:{ACCOUNT}:managed-instance/mi-*"' in out


def test_files_are_written_and_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, _ = setup(capsys, *MINE, "--write", "made", "--job-role", "plain")
    assert status == 0
    names = out.splitlines()
    assert sorted(names) == sorted(
        str(path.relative_to(tmp_path)) for path in (tmp_path / "made").rglob("*") if path.is_file()
    )
    assert "made/json/smssh-job.json" in names
    assert "made/terraform/policies/main.tf" in names
    assert "made/cloudformation/smssh.template.json" in names
    assert "made/cdk/app.py" in names
    again = setup(capsys, *MINE, "--write", "made", "--job-role", "plain")
    assert again[:2] == (0, "")
    status, out, err = setup(capsys, *MINE, "--write", "made", "--job-role", "other")
    assert (status, out) == (ExitStatus.USAGE, "")
    assert "error: made/cloudformation/smssh.template.json has other content, and so have" in err
    assert setup(capsys, *MINE, "--write", "made", "--job-role", "other", "--replace")[0] == 0


def test_a_folder_that_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    status, _, err = setup(capsys, *MINE, "--write", "file/made")
    assert status == ExitStatus.FAILED
    assert "file/made" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--replace"], "--replace is for --write"),
        (["--owner", "caller", "--team", "x"], "--team is for --owner team, not caller"),
        (["--team", "a*b"], "'a*b' cannot be an owner: no tag can hold '*'"),
        (["--part", "ci"], "the policy for CI must name the roles that it passes to SageMaker"),
        (["--part", "scp", "--format", "cloudformation"], "CloudFormation has no resource for scp"),
        (["--account", "1"], "'1' is not an account id"),
        (["--region", "us-iso-east-1"], "there are no policies for us-iso-east-1: its partition is aws-iso"),
        (["--region", "nonsense"], "'nonsense' is not an AWS region"),
        (["--profile", "gone"], "gone"),
        (["--job-role", "\x1b]52;c;x\x07"], "is not the name of a role"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    status, out, err = setup(capsys, *(() if "--account" in words else MINE), *words)
    assert (status, out) == (ExitStatus.USAGE, "")
    assert err.startswith("error: ")
    assert message in err.splitlines()[0]
    assert "\x1b" not in err


def test_what_a_scheme_needs_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, err = setup(capsys, *MINE, "--part", "job", "--owner", "source-identity")
    assert "smssh: add sts:SetSourceIdentity to the trust policy of each job's role by hand" in err
    assert "smssh: the owner scheme source-identity needs an identity provider" in err
    assert "smssh-job-trust-statement" in json.loads(out)


def test_a_role_of_the_console_without_its_path_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    name = "AmazonSageMaker-ExecutionRole-20260101T000000"
    _, _, err = setup(capsys, *MINE, "--part", "ci", "--job-role", name)
    assert f"is it service-role/{name}?" in err
    assert setup(capsys, *MINE, "--part", "ci", "--job-role", f"service-role/{name}")[2] == ""


# ----------------------------------------------------------------------------------------------------- the tier


def tier(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, Any], str]:
    status, out, err = setup(capsys, *MINE, "--part", "tier", *words)
    assert status == 0
    return json.loads(out), err


def test_the_tier_says_first_what_becomes_billable(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(service, monkeypatch)
    made, err = tier(capsys, "--part", "document", "--format", "cloudformation")
    assert err.index("billable") < err.index("SMSSH_SSH_DOCUMENT")
    made, err = tier(capsys)
    assert made == {"SettingId": "/ssm/managed-instance/activation-tier", "SettingValue": "advanced"}
    assert "billable by the hour: 0 now\n" in err
    add_node(service, "mine")
    assert "billable by the hour: 1 now\n" in tier(capsys)[1]
    others = [foreign(service) for _ in range(60)]
    err = tier(capsys)[1]
    assert (
        "the advanced tier makes every hybrid node of us-east-1 billable by the hour: 61 now, 60 of them not"
        in err
    )
    assert sum(each in err for each in others) == 3


def foreign(service: Service) -> str:
    """A hybrid node of somebody else."""

    def call(operation: str, **body: Any) -> dict[str, Any]:
        return dict(service.do(service.sessions.handle(operation, body, None)))

    made = call("CreateActivation", IamRole="role")
    words = {name: made[name] for name in ("ActivationId", "ActivationCode")}
    return str(call("RegisterManagedInstance", **words, PublicKey="key", Fingerprint="x")["InstanceId"])


def test_what_becomes_billable_may_not_be_known(capsys: pytest.CaptureFixture[str]) -> None:
    made, err = tier(capsys)
    assert made["SettingValue"] == "advanced"
    assert err.startswith("smssh: cannot tell which hybrid nodes the advanced tier makes billable: ")


def test_the_call_is_named_where_cloudformation_has_no_resource(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--part", "tier", "--part", "document", "--format", "cloudformation", "--partition", "aws-cn")
    status, out, err = setup(capsys, *words)
    assert status == 0
    assert json.loads(out)["Resources"].keys() == {"SessionDocument"}
    assert "`aws ssm update-service-setting --setting-id /ssm/managed-instance/activation-tier" in err
