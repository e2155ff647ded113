"""What a person can ask for, and how what is wrong is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin import settings
from smssh_plugin.errors import ExitStatus, SmsshError
from smssh_plugin.submit.options import SSHOptions, public_keys, switched_off

from .conftest import KEY

if TYPE_CHECKING:
    from pathlib import Path


def test_the_defaults_ask_for_nothing() -> None:
    assert SSHOptions().document(()) == {"transport": "ssm"}
    assert SSHOptions().active


@pytest.mark.parametrize("hold", ["failure, end", ("failure", "end"), ["failure", "end"]])
def test_lists_may_be_texts(hold: Any) -> None:
    assert SSHOptions(hold=hold).hold == ("failure", "end")


def test_the_container_reads_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMSSH_OWNER", "ann")
    options = SSHOptions(
        hold=("start",),
        hold_seconds="20m",
        hold_max_seconds=7200,
        wait="ready",
        ssh_server="asyncssh",
        extra={"strict": True, "ssh_port": 2222, "mine": {"any": ["thing"]}},
    )
    read = settings.load({}, options.document((KEY,)))
    assert read.hold == ("start",)
    assert (read.hold_seconds, read.hold_max_seconds) == (1200, 7200)
    assert read.wait == "ready"
    assert read.owner == "ann"
    assert read.ssh_server == "asyncssh"
    assert read.strict
    assert read.ssh_port == 2222
    assert read.authorized_keys == (KEY,)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"hold": "failures"}, "hold"),
        ({"hold": 1}, "hold"),
        ({"hold": (1,)}, "hold"),
        ({"hold_seconds": 0}, "hold_seconds"),
        ({"hold_seconds": "soon"}, "hold_seconds"),
        ({"hold_seconds": 900, "hold_max_seconds": 800}, "hold_max_seconds"),
        ({"wait": "forever"}, "wait"),
        ({"transport": "tcp"}, "transport"),
        ({"ssh_server": "dropbear"}, "ssh_server"),
        ({"enabled": "yes"}, "enabled"),
        ({"wheels": ("3",)}, "wheels"),
        ({"wheels": ("3.11-arm",)}, "wheels"),
        ({"bundle": "bucket/prefix"}, "bundle"),
        ({"bundle": "s3://UPPER/case"}, "bundle"),
        ({"role": " "}, "role"),
        ({"extra": {"hold": "end"}}, "extra"),
        ({"authorized_keys": ("no such file",)}, "authorized_keys"),
        ({"authorized_keys": ("-----BEGIN OPENSSH PRIVATE KEY-----",)}, "authorized_keys"),
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(SmsshError) as caught:
        SSHOptions(**wrong)
    assert caught.value.message.startswith(f"SSHOptions: {named}")
    assert caught.value.status is ExitStatus.USAGE


def test_keys_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.pub"
    file.write_text(f"# the team\n{KEY}\n\nrestrict,pty {KEY}\n")
    assert public_keys(str(file)) == [KEY, f"restrict,pty {KEY}"]
    assert SSHOptions(authorized_keys=(str(file), KEY)).authorized_keys == (str(file), KEY)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", "a private key; name keys.pub instead"),
        ("hello\n", "a line that is no public key"),
        ("# nothing\n", "no public key in it"),
    ],
)
def test_files_without_keys(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(SmsshError, match=problem):
        public_keys(str(file))


def test_roles_are_not_compared() -> None:
    class Variable:
        def __eq__(self, other: object) -> bool:
            raise AssertionError("a pipeline variable was compared")

        __hash__ = None  # type: ignore[assignment]

    assert SSHOptions(role=Variable()) == SSHOptions(role=Variable())


@pytest.mark.parametrize(
    ("value", "off"), [(None, False), ("", False), ("1", False), ("0", True), ("off", True), ("false", True)]
)
def test_the_switch_of_the_submitting_process(
    monkeypatch: pytest.MonkeyPatch, value: str | None, off: bool
) -> None:
    if value is not None:
        monkeypatch.setenv("SMSSH_ENABLE", value)
    assert switched_off() is off
    assert SSHOptions(enabled=True).active is not off
    assert not SSHOptions(enabled=False).active


def test_a_switch_that_is_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMSSH_ENABLE", "perhaps")
    with pytest.raises(SmsshError, match="SMSSH_ENABLE"):
        switched_off()
