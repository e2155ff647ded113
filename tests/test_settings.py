"""The table of settings: parsing, limits, precedence, and that everybody else leaves SMSSH_* alone."""

import re
from pathlib import Path

import pytest

from smssh_plugin.durations import parse_duration
from smssh_plugin.errors import ExitStatus, SmsshError
from smssh_plugin.settings import SETTINGS, Settings, deprecated, load, variables

ROOT = Path(__file__).resolve().parents[1]


def test_defaults_cost_nobody_money() -> None:
    settings = load({}, {})
    assert settings == Settings()
    assert (settings.enable, settings.hold, settings.wait, settings.strict) == (False, (), "", False)
    assert settings.hold_seconds == 600
    assert settings.hold_max_seconds == 4 * 3600


def test_a_default_is_a_value_within_its_limits() -> None:
    for setting in SETTINGS:
        assert setting.variable == "SMSSH_" + setting.field.upper()
        assert setting.limits
        assert load(variables({setting.field: setting.default}), {}) == Settings()
        assert load({}, {setting.field: setting.default}) == Settings()


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("SMSSH_ENABLE", "1", True),
        ("SMSSH_ENABLE", "0", False),
        ("SMSSH_HOLD", "failure, end", ("failure", "end")),
        ("SMSSH_HOLD", "", ()),
        ("SMSSH_HOLD_SECONDS", "90", 90),
        ("SMSSH_HOLD_SECONDS", "1.5h", 5400),
        ("SMSSH_WAIT", "ready", "ready"),
        ("SMSSH_WAIT", "5m", "300"),
        ("SMSSH_WAIT", "0", ""),
        ("SMSSH_WAIT", "0.0", ""),
        ("SMSSH_WAIT", "600.0", "600"),
        ("SMSSH_HOLD_HOSTS", "All", "all"),
        ("SMSSH_HOSTS", "2", 2),
        ("SMSSH_PRICE_PER_HOUR", "1.21 USD", "1.21 USD"),
        ("SMSSH_PRICE_PER_HOUR", "37.688", "37.688"),
        (
            "SMSSH_NOTIFY",
            "arn:aws:sns:eu-west-1:123456789012:jobs, https://hooks.slack.com/services/T0/B0/x",
            ("arn:aws:sns:eu-west-1:123456789012:jobs", "https://hooks.slack.com/services/T0/B0/x"),
        ),
        ("SMSSH_NOTIFY_EVENTS", "held, released", ("held", "released")),
        ("SMSSH_NOTIFY_TEMPLATE", "$step costs $$5: ${message}", "$step costs $$5: ${message}"),
        ("SMSSH_OWNER", " AROAEXAMPLE:Jürgen 学習@example.com ", "AROAEXAMPLE:Jürgen 学習@example.com"),
        ("SMSSH_OWNER", "x" * 256, "x" * 256),
        ("SMSSH_TRANSPORT", "NONE", "none"),
        ("SMSSH_SSH_PORT", "2222", 2222),
        ("SMSSH_AUTHORIZED_KEYS", "ssh-ed25519 A\n\n ssh-ed25519 B \n", ("ssh-ed25519 A", "ssh-ed25519 B")),
        ("SMSSH_DISABLE_HOOKS", "ssm,notify", ("ssm", "notify")),
    ],
)
def test_parsing(variable, text, value) -> None:
    assert getattr(load({variable: text}), variable[6:].lower()) == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("SMSSH_HOLD", "sometimes"),
        ("SMSSH_HOLD_SECONDS", "0"),
        ("SMSSH_HOLD_SECONDS", "25h"),
        ("SMSSH_HOLD_SECONDS", "soon"),
        ("SMSSH_WAIT", "-1"),
        ("SMSSH_WAIT", "5h"),
        ("SMSSH_STRICT", "perhaps"),
        ("SMSSH_HOLD_HOSTS", "some"),
        ("SMSSH_HOSTS", "-1"),
        ("SMSSH_PRICE_PER_HOUR", "cheap"),
        ("SMSSH_PRICE_PER_HOUR", "1,21"),
        ("SMSSH_NOTIFY", "http://example.com/plain"),
        ("SMSSH_NOTIFY", "https://"),
        ("SMSSH_NOTIFY", "arn:aws:sqs:eu-west-1:123456789012:queue"),
        ("SMSSH_NOTIFY_EVENTS", "lunch"),
        ("SMSSH_NOTIFY_TEMPLATE", "$password"),
        ("SMSSH_NOTIFY_TEMPLATE", "5 $"),
        ("SMSSH_OWNER", "x" * 257),
        ("SMSSH_OWNER", "ann, bob"),
        ("SMSSH_OWNER", "ann\tbob"),
        ("SMSSH_TRANSPORT", "pigeon"),
        ("SMSSH_SSH_SERVER", "dropbear"),
        ("SMSSH_SSH_PORT", "22"),
        ("SMSSH_SSH_PORT", "x"),
        ("SMSSH_AUTHORIZED_KEYS", "-----BEGIN OPENSSH PRIVATE KEY-----"),
    ],
)
def test_a_bad_value_is_refused_by_name(variable, text) -> None:
    with pytest.raises(SmsshError, match=variable) as caught:
        load({variable: text})
    assert caught.value.status is ExitStatus.USAGE
    assert caught.value.reference == "bad-setting"
    assert caught.value.hint
    field = variable[6:].lower()
    with pytest.raises(SmsshError, match=f"options.json: {field}"):
        load({}, {field: text})


def test_durations_are_documented_as_they_are_taken() -> None:
    """The limits of each, as a person would type them after reading the page."""
    page = (ROOT / "docs" / "settings.md").read_text()
    shown = re.search(r"^A duration is .*: (.*)\.$", page, re.MULTILINE)
    assert [parse_duration(each) for each in re.findall(r"`([^`]+)`", shown[1])] == [
        90,
        90,
        1800,
        5400,
        172800,
    ]
    durations = [setting for setting in SETTINGS if "duration" in setting.limits]
    assert len(durations) == 4
    for setting in durations:
        *_, highest = texts = re.findall(r"\b(\d+[smh]?)\b(?! days)", setting.limits)
        for text in texts:
            load({setting.variable: text})
        with pytest.raises(SmsshError, match="outside") as caught:
            load({setting.variable: f"{parse_duration(highest) + 1:.0f}"})
        assert caught.value.hint == f"use {setting.limits}"
        assert setting.limits in page


def test_private_keys_are_not_repeated_in_the_message() -> None:
    with pytest.raises(SmsshError) as caught:
        load({"SMSSH_AUTHORIZED_KEYS": "-----BEGIN PRIVATE KEY-----\nsecret"})
    assert "secret" not in str(caught.value)


def test_the_jobs_environment_wins_over_the_bundle() -> None:
    options = {"hold": ["failure"], "hold_seconds": 60, "unknown": 1, "role": None}
    settings = load({"SMSSH_HOLD": "end"}, options)
    assert (settings.hold, settings.hold_seconds, settings.role) == (("end",), 60, "")


def test_webhooks_are_not_repeated_in_the_message() -> None:
    with pytest.raises(SmsshError) as caught:
        load({"SMSSH_NOTIFY": "ftp://hooks.example.com/T0/secret"})
    assert "secret" not in str(caught.value)


def test_sagemaker_ssh_helpers_names_are_understood() -> None:
    """All that its wrappers set in a job, as its 2.3.0 has them."""
    environ = {
        "START_SSH": "true",
        "SSH_SSM_ROLE": "Role",
        "SSH_OWNER_TAG": "me",
        "SSH_LOG_TO_STDOUT": "true",
        "SSH_WAIT_TIME_SECONDS": "600.0",
        "SSH_INSTANCE_COUNT": "2",
    }
    settings = load(environ)
    assert settings == Settings(enable=True, role="Role", owner="me", log_to_stdout=True, wait="600", hosts=2)
    assert deprecated(environ, {}) == {
        "START_SSH": "SMSSH_ENABLE",
        "SSH_SSM_ROLE": "SMSSH_ROLE",
        "SSH_OWNER_TAG": "SMSSH_OWNER",
        "SSH_LOG_TO_STDOUT": "SMSSH_LOG_TO_STDOUT",
        "SSH_WAIT_TIME_SECONDS": "SMSSH_WAIT",
        "SSH_INSTANCE_COUNT": "SMSSH_HOSTS",
    }
    assert load({**environ, "SMSSH_OWNER": "you"}).owner == "you"
    assert "SSH_OWNER_TAG" not in deprecated({**environ, "SMSSH_OWNER": "you"}, {})
    assert "SSH_OWNER_TAG" not in deprecated(environ, {"owner": "you"})


def test_variables_say_what_the_file_would() -> None:
    options = {
        "hold": "failure,end",
        "hold_seconds": 900,
        "strict": True,
        "log_to_stdout": False,
        "owner": "ann",
        "authorized_keys": ["ssh-ed25519 AAAA ann", "ssh-ed25519 BBBB bob"],
        "agent_sha256": {"aarch64": "b" * 64, "x86_64": "a" * 64},
        "disable_hooks": ["price", "report"],
    }
    found = variables(options)
    assert found["SMSSH_STRICT"] == "1"
    assert load(found, {}) == load({}, options)
    assert variables(dict(reversed(options.items()))) == found


def test_variables_carry_settings_only() -> None:
    with pytest.raises(SmsshError, match="'mine' is not a setting"):
        variables({"mine": 1})


def test_nobody_else_reads_the_variables() -> None:
    """settings.py is the only reader; boot decides, before anything is imported, whether anything is."""
    reading = re.compile(r"""environ(?:\.get\(|\[)\s*["'](SMSSH_\w+)""")
    allowed = {
        "boot.py": {"SMSSH_BUNDLE"},
        "sitecustomize.py": {"SMSSH_ENABLE"},
        "chain.py": {"SMSSH_ENABLE"},
        # A glance, to start the child before the settings are imported; and init's own mark, which is not a setting.
        "init.py": {"SMSSH_HOLD", "SMSSH_ENTRY"},
    }
    for folder in ("hooks", "entrypoints", "smssh_plugin/container", "smssh_plugin/supervisor"):
        for path in (ROOT / folder).glob("*.py"):
            assert set(reading.findall(path.read_text())) <= allowed.get(path.name, set()), path
