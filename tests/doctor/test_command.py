"""`smssh doctor` as a person and a script meet it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from smssh_plugin.cli import main
from smssh_plugin.doctor.catalogue import SUBJECTS
from tests.cli.test_app import smssh
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


HOOKS = """\
from smssh_plugin import hookimpl

class Vpn:
    id = "company.vpn"
    summary = "the VPN"
    after = ("laptop.python",)
    def run(self, session):
        return {"outcome": "problem", "message": f"no VPN to {session.region}", "fix": "start it", "details": ["a"]}

class Broken(Vpn):
    id = "company.broken"
    def run(self, session):
        return "all is well"

class Silent(Vpn):
    id = "company.silent"
    def run(self, session):
        return {"outcome": "problem", "message": "it does not work"}

class Nameless:
    def run(self, session):
        return {"outcome": "ok"}

class Ours(Vpn):
    id = "laptop.python"

@hookimpl
def smssh_checks():
    return [Vpn(), Broken(), Silent(), Nameless(), Ours()]
"""


def test_checks_of_plugins_run_beside_ours(tmp_path: Path) -> None:
    site = tmp_path / "site"
    metadata = site / "theirs-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[smssh]\ntheirs = theirs_hooks\n")
    (site / "theirs_hooks.py").write_text(HOOKS)
    done = smssh("doctor", "company", "plugin", "--json", PYTHONPATH=str(site), AWS_REGION="eu-west-1")
    assert done.returncode == 1, done.stderr
    found = {each["id"]: each for each in json.loads(done.stdout)["checks"]}
    assert list(found) == [
        "laptop.python",
        "company.vpn",
        "company.broken",
        "company.silent",
        "plugin.nameless",
    ]
    assert found["laptop.python"]["outcome"] == "ok"
    vpn = found["company.vpn"]
    assert (vpn["outcome"], vpn["message"], vpn["fix"]) == ("problem", "no VPN to eu-west-1", "start it")
    assert (vpn["who"], vpn["details"]) == ("you", ["a"])
    crashes = {name: each["message"] for name, each in found.items() if each["outcome"] == "crash"}
    assert list(crashes) == ["company.broken", "company.silent", "plugin.nameless"]
    assert "returned a str, not a mapping" in crashes["company.broken"]
    assert "without `fix`" in crashes["company.silent"]
    assert "theirs_hooks.Nameless has no id" in crashes["plugin.nameless"]
    listed = smssh("doctor", "--list", PYTHONPATH=str(site)).stdout
    assert "company.vpn" in listed
