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

BUILT = f"s3://bucket/prefix/{'a' * 64}"
"""The address of a bundle."""


def test_the_defaults_ask_for_nothing() -> None:
    assert SSHOptions().document(()) == {"transport": "ssm"}
    assert SSHOptions().active


@pytest.mark.parametrize("hold", ["failure, end", ("failure", "end"), ["failure", "end"]])
def test_lists_may_be_texts(hold: Any) -> None:
    assert SSHOptions(hold=hold).hold == ("failure", "end")


@pytest.mark.parametrize(
    ("name", "written", "meant"),
    [
        ("transport", "Native", "native"),
        ("transport", " SSM", "ssm"),
        ("transport", None, "ssm"),
        ("agent", "Bundle", "bundle"),
        ("ssh_server", "ASYNCSSH", "asyncssh"),
        ("ssh_server", None, None),
        ("hold_hosts", "Own", "own"),
    ],
)
def test_one_spelling_of_each_choice(name: str, written: Any, meant: Any) -> None:
    options = SSHOptions(**{name: written})
    assert getattr(options, name) == meant
    assert options == SSHOptions(**{name: meant})
    assert options.document(()).get(name) == meant


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
        ({"owner": "x" * 257}, "owner"),
        ({"owner": "ann (ops)"}, "owner"),
        ({"transport": "tcp"}, "transport"),
        ({"ssh_server": "dropbear"}, "ssh_server"),
        ({"endpoints": "no"}, "endpoints"),
        ({"repack": "false"}, "repack"),
        ({"repack": 1}, "repack"),
        ({"offline": True, "wheels": "3.11", "agent": "Download"}, "agent"),
        ({"launcher": "baked", "agent": "BUNDLE"}, "agent"),
        ({"hold_hosts": "All", "transport": "Native"}, "hold_hosts"),
        ({"enabled": "yes"}, "enabled"),
        ({"wheels": ("3",)}, "wheels"),
        ({"wheels": ("3.11-arm",)}, "wheels"),
        ({"bundle": "bucket/prefix"}, "bundle"),
        ({"bundle": "s3://UPPER/case"}, "bundle"),
        ({"bundle": "s3://bucket/prefix"}, "bundle"),
        ({"bundle": "auto"}, "bundle"),
        ({"bundle": 1}, "bundle"),
        ({"offline": "yes"}, "offline"),
        ({"bundle_prefix": "bucket/prefix"}, "bundle_prefix"),
        ({"bundle_prefix": "s3://b-1/p", "bundle": BUILT}, "bundle_prefix"),
        ({"launcher": "baked", "bundle": BUILT}, "bundle"),
        ({"launcher": "baked", "offline": True, "ssh_server": "sshd"}, "offline"),
        ({"launcher": "baked", "wheels": "3.11"}, "wheels"),
        ({"launcher": "baked", "agent": "bundle"}, "agent"),
        ({"launcher": "baked", "plugins": "mine"}, "plugins"),
        ({"launcher": "baked", "extra": {"mine": 1}}, "extra"),
        ({"offline": True}, "wheels"),
        ({"offline": True, "wheels": "3.11-aarch64"}, "wheels"),
        ({"offline": True, "wheels": "3.11", "machines": "x86_64,aarch64"}, "wheels"),
        ({"offline": True, "wheels": "3.11", "agent": "download"}, "agent"),
        ({"offline": True, "wheels": "3.11", "ssh_server": "apt"}, "ssh_server"),
        ({"idle_seconds": "forever"}, "idle_seconds"),
        ({"idle_seconds": ()}, "idle_seconds"),
        ({"hosts": ()}, "hosts"),
        ({"transport": ""}, "transport"),
        ({"s3_encryption": ""}, "s3_encryption"),
        ({"s3_encryption": False}, "s3_encryption"),
        ({"hold_hosts": "some"}, "hold_hosts"),
        ({"hold_hosts": "all", "transport": "native"}, "hold_hosts"),
        ({"price_per_hour": "cheap"}, "price_per_hour"),
        ({"notify": "http://example.com/plain"}, "notify"),
        ({"notify_events": "lunch"}, "notify_events"),
        ({"notify_template": "$password"}, "notify_template"),
        ({"environment": {"1A": "x"}}, "environment"),
        ({"environment": {"A": 1}}, "environment"),
        ({"environment": {"A": None}}, "environment"),
        ({"environment": {"SMSSH_HOLD": "failures"}}, "environment"),
        ({"environment": {"SMSSH_ENABLE": "1"}}, "environment"),
        ({"environment": {1: "x"}}, "environment"),
        ({"environment": {"PYTHONPATH": "/x"}}, "environment"),
        ({"environment": ("A", "x")}, "environment"),
        ({"extra": {1: 2}}, "extra"),
        ({"extra": "strict"}, "extra"),
        ({"role": " "}, "role"),
        ({"extra": {"hold": "end"}}, "extra"),
        ({"authorized_keys": ("no such file",)}, "authorized_keys"),
        ({"authorized_keys": ("~nobody-of-that-name/key.pub",)}, "authorized_keys"),
        ({"hold_seconds": 10**400}, "hold_seconds"),
        ({"wait": 10**400}, "wait"),
        ({"hold_seconds": []}, "hold_seconds"),
        ({"owner": ["ann"]}, "owner"),
        ({"owner": b"ann"}, "owner"),
        ({"notify_template": ["$event"]}, "notify_template"),
        ({"notify_template": {"$event"}}, "notify_template"),
        ({"price_per_hour": []}, "price_per_hour"),
        ({"authorized_keys": ("-----BEGIN OPENSSH PRIVATE KEY-----",)}, "authorized_keys"),
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(SmsshError) as caught:
        SSHOptions(**wrong)
    assert caught.value.message.startswith(f"SSHOptions: {named}")
    assert caught.value.status is ExitStatus.USAGE


def test_a_number_without_end_is_refused() -> None:
    with pytest.raises(SmsshError, match="ssh_port is not usable"):
        SSHOptions(extra={"ssh_port": float("inf")})


def test_keys_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.pub"
    file.write_text(f"# the team\n{KEY}\n\nrestrict,pty {KEY}\n")
    assert public_keys(str(file)) == [KEY, f"restrict,pty {KEY}"]
    assert SSHOptions(authorized_keys=(str(file), KEY)).authorized_keys == (str(file), KEY)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", "a private key; name keys.pub instead"),
        ("hello\n", "a line that is not a public key"),
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


# -------------------------------------------------------------------------------- every option, and its variable

SAME: dict[str, tuple[Any, dict[str, str]]] = {
    "hold": (("failure", "end"), {"SMSSH_HOLD": "failure,end"}),
    "hold_seconds": ("20m", {"SMSSH_HOLD_SECONDS": "20m"}),
    "hold_max_seconds": (7200, {"SMSSH_HOLD_MAX_SECONDS": "7200"}),
    "idle_seconds": (90, {"SMSSH_IDLE_SECONDS": "90"}),
    "hold_hosts": ("all", {"SMSSH_HOLD_HOSTS": "all"}),
    "price_per_hour": (1.21, {"SMSSH_PRICE_PER_HOUR": "1.21"}),
    "notify": (
        ("arn:aws:sns:eu-west-1:123456789012:jobs", "https://hooks.example.com/x"),
        {"SMSSH_NOTIFY": "arn:aws:sns:eu-west-1:123456789012:jobs,https://hooks.example.com/x"},
    ),
    "notify_events": ("held, released", {"SMSSH_NOTIFY_EVENTS": "held,released"}),
    "notify_template": ("$step: $message", {"SMSSH_NOTIFY_TEMPLATE": "$step: $message"}),
    "wait": ("ready", {"SMSSH_WAIT": "ready"}),
    "owner": ("ann", {"SMSSH_OWNER": "ann"}),
    "authorized_keys": ((KEY,), {"SMSSH_AUTHORIZED_KEYS": KEY}),
    "transport": ("native", {"SMSSH_TRANSPORT": "native"}),
    "ssh_server": ("asyncssh", {"SMSSH_SSH_SERVER": "asyncssh"}),
    "agent": ("found", {"SMSSH_AGENT": "found"}),
    "hosts": (2, {"SMSSH_HOSTS": "2"}),
    "extra": (
        {"strict": True, "disable_hooks": ["ssm", "apt"]},
        {"SMSSH_STRICT": "1", "SMSSH_DISABLE_HOOKS": "ssm,apt"},
    ),
}
"""Option -> a value of it, and the variables that say the same."""
PINNED = {"agent_version", "machines"}
"""Are in `options.json` as what was pinned: tests/submit/bundle/test_agent.py."""
OF_NATIVE = {"s3_encryption"}
"""Is in `options.json` with transport='native' alone: tests/hooks/test_native.py."""
OF_SCHEME = {"owner_scheme"}
"""Is in `options.json` as the owner: tests/submit/test_owners.py."""
INTERNAL = {
    "SMSSH_STEP",  # the step's own name
    "SMSSH_MAX_RUNTIME",  # the request's own limit
    "SMSSH_TRAINING_MODULE",  # what an image sets, for a launcher that users set
    "SMSSH_BUNDLE",  # where the bundle is in the container: the request says it
    "SMSSH_RUN_DIR",  # the container's own affair
}


def test_every_variable_has_its_option() -> None:
    """Or is reached through `extra`."""
    of_options = {option.setting for option in settings.OPTIONS.values()}
    for setting in settings.SETTINGS:
        ways = [setting.field in of_options, setting.extra, setting.variable in INTERNAL]
        assert ways.count(True) == 1, setting.variable
        if setting.extra:
            SSHOptions(extra={setting.field: setting.default})


def test_options_and_variables_say_the_same() -> None:
    assert set(SAME) | PINNED | OF_NATIVE | OF_SCHEME == {
        option.name for option in settings.OPTIONS.values() if option.travels == settings.OPTIONS_JSON
    }
    for name, (value, variables) in SAME.items():
        options = SSHOptions(**{name: value})
        keys = options.authorized_keys
        read = settings.load({}, options.document(keys))
        assert read != settings.Settings(), name
        assert read == settings.load(variables), name
        said = settings.variables(options.document(keys))
        assert {**said, "SMSSH_TRANSPORT": ""} == {**variables, "SMSSH_TRANSPORT": ""}, name
        assert settings.load(said) == read, name


def test_an_owner_that_no_tag_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tag would be another one or none, and no IAM condition on it would be met."""
    with pytest.raises(
        SmsshError, match=r"SSHOptions: owner is not usable: no tag can hold '\(' '\)'"
    ) as caught:
        SSHOptions(owner="ann (ops)")
    assert caught.value.hint == "use up to 256 letters, numbers, spaces and `_.:/=+-@`"
    with pytest.raises(SmsshError, match="owner is not usable: it has 300 characters, and a tag holds 256"):
        SSHOptions().merged({"owner": "x" * 300})
    monkeypatch.setenv("SMSSH_OWNER", "ann;bob")
    with pytest.raises(SmsshError, match=r"^SMSSH_OWNER is not usable: no tag can hold ';'"):
        SSHOptions()
    assert SSHOptions(owner="ann").owner == "ann"


def test_secrets_are_not_shown() -> None:
    assert "hooks.example.com" not in repr(SSHOptions(notify="https://hooks.example.com/x"))


def test_variables_of_a_job_may_be_pipeline_variables() -> None:
    class Variable:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError("a pipeline variable was touched")

        def __eq__(self, other: object) -> bool:
            raise AssertionError("a pipeline variable was compared")

        __hash__ = None  # type: ignore[assignment]

    variable = Variable()
    options = SSHOptions(environment={"A": "x", "B": variable, "SMSSH_LOG_TO_STDOUT": "1"})
    assert options.environment["B"] is variable
    assert options == SSHOptions(environment={"B": Variable()})
    assert options.environment["SMSSH_LOG_TO_STDOUT"] == "1"
    assert options.merged({"hold": "end"}).environment["B"] is variable


# -------------------------------------------------------------------------------- bundles


def test_where_bundles_are_and_go() -> None:
    assert SSHOptions(bundle="", bundle_prefix="") == SSHOptions()
    assert (SSHOptions().bundle_uri, SSHOptions().place, SSHOptions().baked) == (None, None, False)
    for address in (BUILT, BUILT + "/", BUILT + "/?owner=123456789012"):
        assert SSHOptions(bundle=address).bundle_uri == BUILT + "/"
        assert SSHOptions(bundle=address).place == "s3://bucket/prefix"
    assert SSHOptions(bundle=BUILT + "?owner=123456789012").bucket_owner == "123456789012"
    named = SSHOptions(offline=True, wheels="3.11", bundle_prefix="s3://bucket/prefix?owner=123456789012")
    assert (named.bundle_uri, named.place) == (None, "s3://bucket/prefix")
    assert named.bucket_owner == "123456789012"
    assert SSHOptions(launcher="baked").baked


def test_a_place_is_not_the_address_of_a_bundle() -> None:
    with pytest.raises(SmsshError, match="does not end in the digest of a bundle") as caught:
        SSHOptions(bundle="s3://bucket/prefix")
    assert "bundle_prefix says where bundles are stored" in (caught.value.hint or "")


def test_offline_brings_the_agent_where_one_is_needed() -> None:
    assert SSHOptions(offline=True, wheels="3.11").agent_source == "bundle"
    assert SSHOptions(offline=True, wheels="3.11", agent="found").agent_source == "found"
    assert SSHOptions(offline=True, wheels="3.11", transport="none").agent_source == "auto"
    assert SSHOptions(offline=True, ssh_server="sshd").agent_source == "bundle"
    both = SSHOptions(offline=True, wheels=("3.11", "3.11-aarch64"), machines=("x86_64", "aarch64"))
    assert both.agent_source == "bundle"


def test_other_options_leave_nothing_of_the_first() -> None:
    """What an option implies goes with it."""
    ways: list[dict[str, Any]] = [
        {"launcher": "auto", "bundle": None, "offline": False},
        {"launcher": "baked", "bundle": None, "offline": False},
        {"launcher": "auto", "bundle": None, "offline": True},
        {"launcher": "auto", "bundle": BUILT, "offline": True},
        {"launcher": "auto", "bundle": BUILT, "offline": False},
    ]
    for first in ways:
        for then in ways:
            options = SSHOptions(**first, ssh_server="sshd").merged(then)
            fresh = SSHOptions(**then, ssh_server="sshd")
            assert options == fresh
            assert options.document(()) == fresh.document(())
    assert SSHOptions(launcher="baked").merged({"launcher": "auto", "wheels": "3.11"}).wheels == ("3.11",)
