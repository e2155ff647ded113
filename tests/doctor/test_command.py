"""`smssh doctor` as a person and a script meet it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from smssh_plugin.cli import main
from smssh_plugin.doctor.catalogue import SUBJECTS
from tests.client.nodes import use
from tests.local.service_harness import running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.local.service_harness import Service


@pytest.fixture(scope="module")
def emulator() -> Iterator[Service]:
    with running() as service:
        yield service


@pytest.fixture
def capsys_of(
    emulator: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> pytest.CaptureFixture[str]:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws"))
    use(emulator, monkeypatch)
    return capsys


def test_json_and_the_exit_status(emulator: Service, capsys_of: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "account", "--json"])
    found = json.loads(capsys_of.readouterr().out)
    assert (status, found["status"]) == (0, 0)
    outcomes = {each["id"]: each["outcome"] for each in found["checks"]}
    assert outcomes["account.tier"] == "ok"
    assert set(outcomes) >= {"laptop.endpoints", "identity.credentials", "account.preferences"}
    emulator.sessions.tier = "standard"
    try:
        assert main(["doctor", "account.tier"]) == 1
    finally:
        emulator.sessions.tier = "advanced"
    shown = capsys_of.readouterr().out
    assert "problem      account.tier: the tier of hybrid nodes in us-east-1 is 'standard'" in shown
    assert "fix (an administrator of the account): run `aws ssm update-service-setting" in shown
    assert '"Action": "ssm:UpdateServiceSetting"' in shown
    assert main(["doctor", "permissions.open-channel"]) == 8


def test_checks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--list"]) == 0
    shown = capsys.readouterr().out
    names = [line.split()[0] for line in shown.splitlines()]
    assert names == [check.id for checks in SUBJECTS.values() for check in checks]
    assert main(["doctor", "--list", "--json"]) == 0
    assert [each["id"] for each in json.loads(capsys.readouterr().out)] == names


@pytest.mark.parametrize("words", [["laptop.nothing"], ["job"], ["pipeline.exists"]])
def test_what_cannot_be_checked_is_refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["doctor", *words]) == 2
    assert "hint: " in capsys.readouterr().err
