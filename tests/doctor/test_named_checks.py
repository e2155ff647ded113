"""Errors name the check that looks for their cause, and every check that is named is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import smssh_plugin
from smssh_plugin.aws import session as aws_session
from smssh_plugin.aws.session import AwsSession
from smssh_plugin.cli import main
from smssh_plugin.client.known_hosts import checked
from smssh_plugin.doctor.catalogue import SUBJECTS, chosen
from smssh_plugin.doctor.permissions import NEEDS
from smssh_plugin.errors import SmsshError

ROOT = Path(smssh_plugin.__file__).parent
NAMES_ONE = re.compile(r"\bcheck\s*=(?!\s*False\b)")
IDS = {check.id for checks in SUBJECTS.values() for check in checks}


def named() -> list[tuple[str, str]]:
    """What errors name: where, and the text up to what is filled in."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        if "local" in path.relative_to(ROOT).parts:
            continue
        text = path.read_text(encoding="utf-8")
        if not NAMES_ONE.search(text):  # every worker that collects this file would parse the whole package
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.keyword) or node.arg != "check":
                continue
            for part in ast.walk(node.value):
                if isinstance(part, ast.JoinedStr):
                    assert isinstance(part.values[0], ast.Constant), ast.dump(part)
                    found.append((f"{path.name}:{node.value.lineno}", str(part.values[0].value)))
            if isinstance(node.value, ast.JoinedStr):
                continue
            constants = (part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant))
            found += [(f"{path.name}:{node.value.lineno}", str(each)) for each in constants if each]
    return found + [("_CHECKED", each) for each in aws_session._CHECKED.values()]


NAMED = named()


def test_errors_of_every_room_of_the_laptop_name_checks() -> None:
    assert len(NAMED) > 25
    assert {text.partition(".")[0].partition(" ")[0] for _, text in NAMED} >= {
        "laptop",
        "identity",
        "permissions",
        "--job",
    }


@pytest.mark.parametrize(("where", "text"), NAMED, ids=lambda each: each)
def test_a_check_that_is_named_is_there(where: str, text: str) -> None:
    words = text.split()
    if "--job" in words:
        assert words[-1] == "--job", where
        assert chosen([], ["job"])
        words = words[:-1]
    for word in words:
        assert word in IDS or word in SUBJECTS, where


def test_an_operation_names_the_checks_of_its_own_permission() -> None:
    for operation, checks in aws_session._CHECKED.items():
        expected = {
            f"permissions.{need.name}" for need in NEEDS if need.action.partition(":")[2] == operation
        }
        assert set(checks.split()) == expected, operation


def test_a_command_says_which_check_looks_further(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    main(["list"])
    assert "\nsee: `smssh doctor laptop.region` looks for the cause\n" in capsys.readouterr().err


def test_a_traceback_says_it_too() -> None:
    error = AwsSession("eu-west-1").refused("ssm", "StartSession", ("AccessDeniedException", "no"), "")
    assert str(error).splitlines()[-1] == (
        "  see: `smssh doctor permissions.start-session permissions.use-document` looks for the cause"
    )
    assert str(SmsshError("x", hint="y")) == "x\n  hint: y"


def test_a_denial_that_no_check_is_about_names_none() -> None:
    error = AwsSession("eu-west-1").refused("ssm", "DeleteActivation", ("AccessDeniedException", "no"), "")
    assert error.check == ""
    assert "see:" not in str(error)


def test_a_clock_that_is_wrong_names_the_clock() -> None:
    refused = AwsSession("eu-west-1").refused
    assert refused("ssm", "X", ("ExpiredTokenException", "no"), "").check == "identity.credentials"
    assert (
        refused("ssm", "X", ("SignatureDoesNotMatch", "no"), "Mon, 01 Jan 2001 00:00:00 GMT").check
        == "laptop.clock"
    )


def test_an_error_about_a_job_names_the_job() -> None:
    with pytest.raises(SmsshError) as caught:
        checked("none", "algo-1.x.training.sagemaker")
    assert caught.value.further == "`smssh doctor --job algo-1.x.training.sagemaker` looks for the cause"
