"""`smssh setup --apply` and `--undo`, as they are typed: asked, agreed to, interrupted, denied."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from smssh_plugin.cli import main
from smssh_plugin.errors import ExitStatus
from smssh_plugin.local.faults import Fault
from smssh_plugin.setup.account import Account
from tests.client.nodes import add_node, use
from tests.local.service_harness import running
from tests.setup.accounts import Place
from tests.setup.samples import ACCOUNT, ROLE
from tests.waiting import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.local.service_harness import Service

NEXT = "the next run finishes it, and --undo removes it"
YES = ("--yes", ACCOUNT)
WHOLE = ("--job-role", ROLE, "--part", "node", "--part", "job", "--part", "tier")


@pytest.fixture(scope="module")
def emulator() -> Iterator[Service]:
    with running() as service:
        yield service


@pytest.fixture
def place(emulator: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Place:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    use(emulator, monkeypatch)
    return Place(emulator)


def setup(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main(["setup", *words])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_it_is_shown_and_made_and_a_second_run_has_nothing_to_do(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.iam.create_account_alias(AccountAlias="acme")
    before = place.state()
    where = f"account {ACCOUNT} (acme), us-east-1"
    status, out, err = setup(capsys, *WHOLE, "--apply", *YES)
    assert status == 0
    lines = out.splitlines()
    # What costs comes first.
    assert lines[0].startswith(
        "the advanced tier makes every hybrid node of us-east-1 billable by the hour: 0"
    )
    assert lines[1] == f"{where}, as arn:aws:sts::{ACCOUNT}:user/moto"
    assert lines[2:6] == [
        "make    role smssh-node: with the policy session-manager",
        "make    policy smssh-job: 9 statements",
        f"make    attachment of smssh-job to the role {ROLE}",
        "make    service setting advanced tier: from standard",
    ]
    assert lines[-1] == f"did 4 of 4 in {where}"
    assert f"smssh: submit jobs with SSHOptions(role='arn:aws:iam::{ACCOUNT}:role/smssh-node')" in err
    assert "by hand" not in err
    made = place.state()
    status, out, _ = setup(capsys, *WHOLE, "--apply")  # asks nobody
    assert (status, out.splitlines()[-1]) == (0, f"nothing to do in {where}")
    assert "billable" not in out
    assert place.state() == made
    status, out, _ = setup(capsys, "--undo", *YES)
    assert (status, out.splitlines()[-1]) == (0, f"did 4 of 4 in {where}")
    assert "removed service setting advanced tier" in out
    assert place.state() == before
    status, out, _ = setup(capsys, "--undo", "--name", "vision")
    assert (status, out.splitlines()[-1]) == (0, f"nothing to remove of the setup 'vision' in {where}")


def test_a_change_is_shown_line_by_line(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert setup(capsys, "--part", "job", "--apply", *YES)[0] == 0
    status, out, _ = setup(capsys, "--part", "job", "--team", "vision", "--apply", *YES)
    assert status == 0
    lines = out.splitlines()
    assert lines[1] == "change  policy smssh-job"
    assert '        -          "aws:RequestTag/SSHOwner": "team"' in lines
    assert '        +          "aws:RequestTag/SSHOwner": "vision"' in lines
    assert "changed policy smssh-job" in lines


def test_nobody_who_can_be_asked_is_an_error_after_it_is_shown(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    before = place.state()
    status, out, err = setup(capsys, *WHOLE, "--apply")
    assert status == ExitStatus.USAGE
    assert "make    role smssh-node" in out
    assert err.splitlines() == [
        "error: --apply asks before it changes anything, and there is nobody to ask",
        f"hint: look at what it shows, then add --yes {ACCOUNT}",
    ]
    assert place.state() == before


@pytest.mark.parametrize(
    ("answer", "agrees"), [(ACCOUNT, True), ("yes", False), ("", False), (ACCOUNT[:-1], False)]
)
def test_a_person_types_the_account_id(place: Place, answer: str, agrees: bool) -> None:
    before = place.state()
    other, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "smssh_plugin.cli", "setup", "--part", "people", "--apply"],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    os.close(terminal)
    os.write(other, f"{answer}\n".encode())
    out, err = process.communicate(timeout=LIMIT)
    os.close(other)
    assert "make    policy smssh-people" in out
    assert "type the account id to apply this: " in err
    assert (place.state() == before) != agrees
    assert process.returncode == (0 if agrees else ExitStatus.FAILED)
    assert ("that is not the account id: nothing was changed" in err) != agrees


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--apply", "--undo"], "--apply and --undo do not go together"),
        (["--apply", "--write", "x"], "--apply does not go with --write and --format"),
        (["--undo", "--format", "json"], "--undo does not go with --write and --format"),
        (["--yes", ACCOUNT], "--yes is for --apply and --undo"),
        (["--undo", "--replace"], "--replace is for --write and --apply"),
        (["--apply", "--yes", "1"], f"--yes is '1', and the credentials are of {ACCOUNT}"),
        (
            ["--apply", "--account", "9" * 12],
            f"--account is '{'9' * 12}', and the credentials are of {ACCOUNT}",
        ),
        (["--undo", "--partition", "aws-cn"], "--partition is 'aws-cn', and the credentials are of aws"),
        (["--apply", "--part", "scp"], "the service control policy is for the management account"),
        (["--apply", "--part", "ci"], "the policy for CI must name the roles that it passes to SageMaker"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(
    place: Place, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    before = place.state()
    status, out, err = setup(capsys, *words)
    assert (status, out) == (ExitStatus.USAGE, "")
    assert err.splitlines()[0].startswith(f"error: {message}")
    assert place.state() == before


def test_what_is_refused_changes_nothing(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}
    place.iam.create_policy(PolicyName="smssh-job", PolicyDocument=json.dumps(document))
    before = place.state()
    status, out, err = setup(capsys, *WHOLE, "--job-role", "gone", "--apply", *YES)
    assert status == ExitStatus.FAILED
    assert "refuse  policy smssh-job: it was not made by `smssh setup --apply`" in out
    assert err.splitlines()[0].startswith("error: nothing was changed: policy smssh-job: it was not made by")
    assert "attachment of smssh-job to the role gone: there is no such role" in err.splitlines()[0]
    assert place.state() == before


def test_the_statement_for_a_trust_policy_is_shown(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--part", "job", "--job-role", ROLE, "--owner", "source-identity", "--apply", *YES)
    _, _, err = setup(capsys, *words)
    assert "smssh changes no trust policy; the statement is {" in err
    assert '"Action": ["sts:AssumeRole", "sts:SetSourceIdentity"]' in err
    role = place.iam.get_role(RoleName=ROLE.rpartition("/")[2])["Role"]
    assert "SetSourceIdentity" not in json.dumps(role["AssumeRolePolicyDocument"])


DENIED = (
    "User: arn:aws:iam::123456789012:user/moto is not authorized to perform: iam:CreatePolicy on resource: policy "
    "smssh-job with an explicit deny in a service control policy"
)


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        (Fault("iam:CreatePolicy", "AccessDenied", DENIED, 403), 5, "access denied: CreatePolicy: User: "),
        (
            Fault("iam:CreatePolicy", "LimitExceeded", "Cannot exceed quota", 409),
            1,
            "CreatePolicy: Cannot exceed",
        ),
        (Fault("iam:CreatePolicy", "Throttling", "Rate exceeded", 400), 1, "CreatePolicy: Rate exceeded"),
        (
            Fault("ssm:UpdateServiceSetting", "ThrottlingException", "Rate exceeded"),
            1,
            "UpdateServiceSetting: Rate",
        ),
    ],
    ids=["scp", "quota", "throttling", "tier"],
)
def test_a_refusal_in_the_middle_is_said_and_the_next_run_goes_on(
    place: Place,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    status: int,
    message: str,
) -> None:
    before = place.state()
    monkeypatch.setattr("time.sleep", lambda _: None)
    place.service.sessions.faults.add(fault)
    ended, _, err = setup(capsys, *WHOLE, "--apply", *YES)
    assert ended == status
    lines = err.splitlines()
    assert lines[0].startswith(f"error: {message}")
    count = 3 if fault.operation.startswith("ssm") else 1
    what = "make service setting advanced tier" if count == 3 else "make policy smssh-job"
    assert lines[-1] == f"ended at {what}: did {count} of 4; {NEXT}"
    place.service.sessions.faults.clear()
    assert setup(capsys, *WHOLE, "--apply", *YES)[0] == 0
    assert setup(capsys, "--undo", *YES)[0] == 0
    assert place.state() == before


def test_a_reader_who_may_not_know_the_alias_goes_on(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.service.sessions.faults.add(Fault("iam:ListAccountAliases", "AccessDenied", "no", 403))
    status, out, _ = setup(capsys, "--part", "people", "--apply", *YES)
    assert (status, out.splitlines()[0]) == (
        0,
        f"account {ACCOUNT}, us-east-1, as arn:aws:sts::{ACCOUNT}:user/moto",
    )
    place.service.sessions.faults.add(Fault("iam:GetPolicy", "AccessDenied", "no", 403))
    status, out, err = setup(capsys, "--part", "people", "--apply", *YES)
    assert (status, out) == (ExitStatus.REFUSED, "")
    assert err.splitlines() == [
        "error: access denied: GetPolicy: no",
        "hint: ask for the permission iam:GetPolicy",
    ]


def test_ctrl_c_says_where_it_was(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = place.state()
    plain = Account.call

    def interrupt(at: str, *words: str) -> list[str]:
        def call(account: Account, service: str, operation: str, **arguments: object) -> object:
            if operation == at:
                raise KeyboardInterrupt
            return plain(account, service, operation, **arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Account, "call", call)
            status, _, err = setup(capsys, *words, *YES)
        assert status == ExitStatus.INTERRUPTED
        return err.splitlines()

    assert interrupt("attach_role_policy", *WHOLE, "--apply") == [
        f"interrupted at make attachment of smssh-job to the role {ROLE}: did 2 of 4; {NEXT}"
    ]
    assert interrupt("delete_policy", "--undo") == [
        "interrupted at remove policy smssh-job: did 1 of 3; the next --undo goes on"
    ]
    assert setup(capsys, "--undo", *YES)[0] == 0
    assert place.state() == before


def test_what_an_undo_leaves_is_named_and_its_status_says_so(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert setup(capsys, *WHOLE, "--apply", *YES)[0] == 0
    add_node(place.service, "job")
    status, out, _ = setup(capsys, "--undo", *YES)
    assert status == ExitStatus.FAILED
    assert "leave   service setting advanced tier: going back ends Session Manager on one hybrid node" in out
    assert "did 3 of 3" in out
    status, out, _ = setup(capsys, "--undo", "--part", "tier", *YES)
    assert status == 0
    assert (
        "remove  service setting advanced tier: back to standard; it ends Session Manager on one hybrid"
        in out
    )
    assert place.service.sessions.tier == "standard"


@pytest.mark.parametrize("names", [("smssh", "vision"), ("vision", "smssh")])
def test_an_undo_leaves_the_tier_on_for_another_setup(
    place: Place, capsys: pytest.CaptureFixture[str], names: tuple[str, str]
) -> None:
    before = place.state()
    first, last = names
    tier = ("--part", "tier")
    for name in ("smssh", "vision"):
        assert setup(capsys, *tier, "--name", name, "--apply", *YES)[0] == 0
    status, out, _ = setup(capsys, *tier, "--name", "vision", "--apply", *YES)
    assert (status, "keep    service setting advanced tier" in out) == (0, True)
    status, out, _ = setup(capsys, "--undo", *tier, "--name", first, *YES)
    assert status == 0
    assert (
        f"remove  parameter /smssh/setup/{first}/tier: the tier stays on: the setup '{last}' uses it; the undo of the "
        "last one switches it off\n"
    ) in out
    assert place.service.sessions.tier == "advanced"
    add_node(place.service, "job")
    status, out, _ = setup(capsys, "--undo", "--name", last, *YES)
    assert (status, place.service.sessions.tier) == (ExitStatus.FAILED, "advanced")
    assert f"`smssh setup --undo --part tier{'' if last == 'smssh' else ' --name vision'}` does it" in out
    status, out, _ = setup(capsys, "--undo", *tier, "--name", last, *YES)
    assert (status, "removed service setting advanced tier: back" in out) == (0, False)
    assert place.state() == before


def test_other_partitions_have_their_own_names(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller's ARN says which partition it is."""
    from smssh_plugin.aws import identity_calls

    asked: list[str] = []
    plain = identity_calls.IdentityClient.call

    def call(client: identity_calls.IdentityClient, operation: str, **arguments: object) -> dict[str, object]:
        asked.extend(str(value) for value in arguments.values())
        answer = plain(client, operation, **arguments)
        if operation == "get_caller_identity":
            answer["Arn"] = str(answer["Arn"]).replace("arn:aws:", "arn:aws-cn:")
        return answer

    monkeypatch.setattr(identity_calls.IdentityClient, "call", call)
    status, out, _ = setup(capsys, "--part", "people", "--apply", *YES)
    assert (status, "make    policy smssh-people" in out) == (0, True)
    assert f"arn:aws-cn:iam::{ACCOUNT}:policy/smssh-people" in asked
    (document,) = (each for each in asked if each.startswith('{"Version"'))
    assert "arn:aws-cn:ssm:" in document
    assert "arn:aws:" not in document


def test_no_credentials_are_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for word in ("--apply", "--undo"):
        status, out, err = setup(capsys, word, "--region", "eu-west-1", *YES)
        assert (status, out) == (ExitStatus.REFUSED, "")
        assert err.splitlines()[0] == "error: no AWS credentials were found"
