"""`smssh doctor --live` as a person and a script meet it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.aws.identity_calls import Caller
from smssh_plugin.cli import main
from smssh_plugin.live.redaction import Redaction
from smssh_plugin.live.steps import STEPS
from smssh_plugin.local.faults import Fault, Faults
from tests.live.accounts import ACCOUNT, NOTHING, made
from tests.waiting import LIMIT

if TYPE_CHECKING:
    from tests.costs.price_list import PriceList
    from tests.local.service_harness import Service

READS = ("Get", "List", "Describe")


@pytest.fixture
def asked(emulator: Service, environment: pytest.MonkeyPatch) -> list[str]:
    """The operations that the emulator is asked for, as they come."""
    emulator.sessions.faults.add(
        Fault("no:Operation", "Never")
    )  # moto's are looked at only if there is a fault
    found: list[str] = []
    plain = Faults.apply

    async def apply(faults: Faults, operation: str) -> None:
        found.append(operation)
        await plain(faults, operation)

    environment.setattr(Faults, "apply", apply)
    return found


@pytest.mark.parametrize("words", [[], ["--json"], ["owner"]])
def test_without_yes_nothing_is_changed(asked: list[str], emulator: Service, words: list[str]) -> None:
    assert main(["doctor", "--live", *words]) == 0
    assert asked
    assert [each for each in asked if not each.partition(":")[2].startswith(READS)] == []
    assert made(emulator) == NOTHING
    asked.clear()
    assert main(["doctor", "--live", "tier", *words, "--yes", ACCOUNT]) == 0
    if "owner" not in words:
        assert [each for each in asked if not each.partition(":")[2].startswith(READS)] == []


def test_the_plan_has_every_step_the_time_the_cost_and_the_permissions(
    emulator: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert emulator
    assert main(["doctor", "--live"]) == 0
    shown = capsys.readouterr().out
    free = [each.id for each in STEPS.values() if not each.needs_job]
    assert [line.split()[0] for line in shown.splitlines() if line.startswith("  live.")] == free
    assert "may bill one hour of a managed node (0.007 USD)" in shown
    assert "no job is started" in shown
    assert "makes a role that only you can assume, for 15 minutes" in shown
    assert f"nothing was tried: add --yes {ACCOUNT} to try it" in shown
    assert "sts:AssumeRole" in shown
    assert main(["doctor", "--live", "tier", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["applied"] is False
    assert [each["id"] for each in plan["steps"]] == ["live.tier"]
    assert plan["cost"] == "no charge: it makes nothing that AWS bills"


def test_the_plan_of_a_run_with_a_job_says_what_the_job_costs(
    emulator: Service, price_list: PriceList, capsys: pytest.CaptureFixture[str]
) -> None:
    price_list.instance("ml.t3.medium", "0.0600000000", component="Processing")
    assert main(["doctor", "--live", "--jobs", "--image", "x"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines() if line.startswith("  live.")] == list(STEPS)
    assert (
        "one ml.t3.medium for about 9 min 40 s, 30 min at most (0.06 USD an hour, so about 0.0097 USD)"
        in shown
    )
    assert "AWS may bill one hour of each of 2 managed nodes (0.007 USD)" in shown
    assert "what stays: the job in SageMaker's list of jobs, and its log" in shown
    assert "sagemaker:CreateProcessingJob" in shown
    assert made(emulator) == NOTHING
    words = ["--live", "--jobs", "--image", "x", "--instance-type", "ml.m5.xlarge"]
    assert main(["doctor", *words, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert "one ml.m5.xlarge for about 9 min 40 s" in plan["cost"]
    assert next(each["id"] for each in plan["steps"] if each["job"]) == "live.job"
    # Steps that need no job start none.
    assert main(["doctor", "owner", *words, "--json"]) == 0
    assert "no job is started" in json.loads(capsys.readouterr().out)["cost"]


def test_steps_are_listed_and_come_with_what_they_need(
    emulator: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert emulator
    assert main(["doctor", "--live", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(STEPS)
    assert main(["doctor", "--live", "--list", "--json"]) == 0
    assert [each["id"] for each in json.loads(capsys.readouterr().out)] == list(STEPS)
    assert main(["doctor", "--live", "live.owner", "--json"]) == 0
    found = [each["id"] for each in json.loads(capsys.readouterr().out)["steps"]]
    assert found == ["live.node-role", "live.test-role", "live.registration", "live.owner"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--live", "nothing"], "there is no step 'live.nothing'"),
        (["--live", "--job", "x"], "--live goes with --list, --json, --yes and --jobs only"),
        (["--yes", ACCOUNT], "--yes, --jobs and the options of the job are for --live"),
        (["--jobs", "--image", "x"], "--yes, --jobs and the options of the job are for --live"),
        (["--live", "--jobs"], "--jobs needs the image of the job"),
        (["--live", "--image", "x"], "--image is for --jobs"),
        (["--live", "--wheels", "3.11"], "--wheels is for --jobs"),
        (["--live", "login"], "live.login needs a job that runs"),
        (
            ["--live", "--yes", "000000000000"],
            f"--yes is '000000000000', and the credentials are of {ACCOUNT}",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    asked: list[str], capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["doctor", *words]) == 2
    assert said in capsys.readouterr().err
    assert [each for each in asked if each != "sts:GetCallerIdentity"] == []


def test_without_credentials_one_line_says_it(
    emulator: Service, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert emulator
    environment.delenv("AWS_ACCESS_KEY_ID")
    environment.delenv("AWS_SECRET_ACCESS_KEY")
    assert main(["doctor", "--live", "--yes", ACCOUNT]) == 5
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: no AWS credentials were found\n")


def test_who_may_nothing_is_told_what_to_ask_for_and_nothing_is_made(
    emulator: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "User: me is not authorized to perform: iam:ListRoles on resource: *"
    emulator.sessions.faults.add(Fault("iam:ListRoles", "AccessDenied", text, status=403))
    assert main(["doctor", "--live", "--yes", ACCOUNT]) == 5
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "ask for the permission iam:ListRoles" in shown.err
    assert made(emulator) == NOTHING
    assert main(["doctor", "--live", "--json"]) == 0
    assert "cannot tell what runs have left: access denied: ListRoles" in capsys.readouterr().err


@pytest.mark.parametrize(("typed", "status"), [(ACCOUNT, 0), ("yes", 1)])
def test_at_a_terminal_the_account_id_is_asked_for(emulator: Service, typed: str, status: int) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "smssh_plugin.cli", "doctor", "--live", "role-path"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(theirs)
        os.write(ours, f"{typed}\n".encode())
        out, err = process.communicate(timeout=LIMIT)
    os.close(ours)
    assert process.returncode == status, err
    assert "type the account id to try this: " in err
    assert ("| on a node role with a path | yes |" in out) is (status == 0)
    assert ("that is not the account id: nothing was tried" in err) is (status == 1)
    assert made(emulator) == NOTHING


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "User: arn:aws:sts::111122223333:assumed-role/Admin/jane.doe is not authorized",
            "User: ARN (sts assumed-role) is not authorized",
        ),
        (
            "explicit deny: arn:aws:organizations::999988887777:policy/o-abcdefghij/service_control_policy/p-1234abcd",
            "explicit deny: ARN (organizations policy)",
        ),
        ("the session jane.doe of Admin in acme-prod", "the session USER of USER in USER"),
        ("user AROAEXAMPLEEXAMPLE:jane.doe", "user USER"),
        ("endpoint vpce-0123456789abcdef0, key ASIAEXAMPLEEXAMPLE", "endpoint ID, key KEY"),
        ("activation 12345678-1234-1234-1234-123456789abc, mi-0123456789abcdef0", "activation ID, NODE"),
        ("mail jane@example.com about 111122223333", "mail USER about ACCOUNT"),
        (
            "resource: arn:aws:ssm:us-east-1:111122223333:session/smssh-live-12-34 because",
            "resource: arn:aws:ssm:us-east-1:ACCOUNT:session/smssh-live-12-34 because",
        ),
        (
            "on arn:aws:ssm:us-east-1::document/AWS-StartSSHSession",
            "on arn:aws:ssm:us-east-1::document/AWS-StartSSHSession",
        ),
        (
            "on arn:aws:s3:::acme-data/secret/x, arn:aws:kms:eu-west-1:111122223333:key/ab-cd.",
            "on ARN (s3), ARN (kms)",
        ),
        ("Administrators and Admins stay", "Administrators and Admins stay"),
    ],
)
def test_a_report_names_no_account_person_or_resource(text: str, shown: str) -> None:
    caller = Caller(
        "arn:aws:sts::111122223333:assumed-role/Admin/jane.doe", "111122223333", "AROAEXAMPLEEXAMPLE:jane.doe"
    )
    assert Redaction(caller, "acme-prod", "work").text(text) == shown


def test_a_short_name_is_taken_out_where_it_is_a_word_of_its_own() -> None:
    caller = Caller("arn:aws:iam::111122223333:user/al", "111122223333", "AIDAEXAMPLEEXAMPLE")
    text = "also allowed: al, the role al-admin, al_b and total of (al) by al."
    shown = "also allowed: USER, the role al-admin, al_b and total of (USER) by USER."
    assert Redaction(caller, "", "default").text(text) == shown


def test_texts_of_aws_are_no_markdown(emulator: Service, capsys: pytest.CaptureFixture[str]) -> None:
    text = "a|b [x](http://y) <img> @team `c`\nd \x1b]52;c;eA==\x07"
    emulator.sessions.faults.add(Fault("ssm:GetServiceSetting", "Odd", text))
    assert main(["doctor", "--live", "tier", "--yes", ACCOUNT]) == 8
    shown: Any = capsys.readouterr().out
    assert r"a\|b \[x\](http://y) \<img\> (at)team \`c\` d" in shown
    assert "\x1b" not in shown
