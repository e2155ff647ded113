"""What can be wrong before a command has begun, for each command that looks at an account or changes it.

Each is said in one line with a hint, by the exit status that is documented, with nothing on stdout that a program
would take for an answer, and nothing is changed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from smssh_plugin.cli import main
from smssh_plugin.errors import ExitStatus
from smssh_plugin.local.faults import Fault
from tests.client.nodes import add_node, use
from tests.local.service_harness import running
from tests.setup.accounts import Place
from tests.setup.samples import ACCOUNT, ROLE
from tests.waiting import LIMIT, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.local.service_harness import Service

YES = ("--yes", ACCOUNT)
COMMANDS = {
    "apply": ("setup", "--apply", "--part", "node", "--part", "job", "--job-role", ROLE, *YES),
    "apply of the tier": ("setup", "--apply", "--part", "tier", *YES),
    "undo": ("setup", "--undo", *YES),
    "cleanup": ("cleanup",),
    "cleanup that removes": ("cleanup", "--include-helper", "--apply", "--yes", "--json"),
    "costs": ("costs",),
    "costs for programs": ("costs", "--json"),
    "list": ("list",),
    "list for programs": ("list", "--json"),
}


@pytest.fixture(scope="module")
def emulator() -> Iterator[Service]:
    with running() as service:
        yield service


@pytest.fixture
def place(emulator: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Place:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("SMSSH_HOME", str(tmp_path / "smssh"))
    use(emulator, monkeypatch)
    return Place(emulator)


def no_credentials(patch: pytest.MonkeyPatch, _: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.delenv(name)


def profile(lines: str) -> Callable[[pytest.MonkeyPatch, Path], None]:
    """A profile, in place of variables."""

    def write(patch: pytest.MonkeyPatch, folder: Path) -> None:
        no_credentials(patch, folder)
        (folder / "config").write_text(f"[default]\n{lines}\n")

    return write


def no_such_profile(patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.setenv("AWS_PROFILE", "gone")


def no_region(patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.delenv("AWS_DEFAULT_REGION")


def no_endpoint(patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.setenv("AWS_ENDPOINT_URL", "localhost:4566")


ROLE_ARN = f"role_arn = arn:aws:iam::{ACCOUNT}:role/{ROLE}"
BEFORE = {
    "no credentials": (no_credentials, ExitStatus.REFUSED, "no AWS credentials were found"),
    "half a key": (
        profile("aws_access_key_id = AKIA"),
        ExitStatus.REFUSED,
        "Partial credentials found",
    ),
    "a role without a source": (profile(ROLE_ARN), ExitStatus.REFUSED, "Partial credentials found"),
    "a source that is gone": (
        profile(f"{ROLE_ARN}\nsource_profile = gone"),
        ExitStatus.REFUSED,
        'The source_profile "gone"',
    ),
    "a program that is gone": (
        profile("credential_process = /gone/login"),
        ExitStatus.REFUSED,
        "cannot be read: [Errno 2] No such file or directory: '/gone/login'",
    ),
    "a program that says something else": (
        profile("credential_process = echo hello"),
        ExitStatus.REFUSED,
        "the AWS credentials of profile 'default' cannot be read: ",
    ),
    "a token that is gone": (
        profile(f"{ROLE_ARN}\nweb_identity_token_file = /gone/token"),
        ExitStatus.REFUSED,
        "cannot be read: [Errno 2] No such file or directory: '/gone/token'",
    ),
    "a file that cannot be read": (
        profile("[default]"),
        ExitStatus.USAGE,
        "cannot read the AWS configuration",
    ),
    "no such profile": (no_such_profile, ExitStatus.USAGE, "the AWS configuration has no profile 'gone'"),
    "no region": (no_region, ExitStatus.USAGE, "no AWS region is configured"),
    "no endpoint": (no_endpoint, ExitStatus.USAGE, "invalid endpoint 'localhost:4566'"),
}


@pytest.mark.parametrize("trouble", BEFORE)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_wrong_with_this_machine_is_said_once(
    place: Place,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: str,
    trouble: str,
) -> None:
    before = place.state()
    arrange, status, message = BEFORE[trouble]
    with monkeypatch.context() as patch:
        arrange(patch, tmp_path)
        assert main(list(COMMANDS[command])) == status
    said_once(capsys, message)
    assert place.state() == before


def said_once(capsys: pytest.CaptureFixture[str], message: str) -> None:
    """One error and its hint, nothing more than the check that is named, and no half of an answer."""
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert printed.out == ""
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert [each.partition(":")[0] for each in lines[1:]] in (["hint"], ["hint", "see"]), lines


DENIED = (
    "User: arn:aws:iam::123456789012:user/ann is not authorized to perform: it with an explicit deny in a service "
    "control policy"
)
AFTER = {
    "expired": (
        "ExpiredToken",
        "The security token is expired",
        ExitStatus.REFUSED,
        "the AWS credentials are not valid (any more)",
    ),
    "may nothing": ("AccessDeniedException", DENIED, ExitStatus.REFUSED, "access denied"),
    "throttled": ("ThrottlingException", "Rate exceeded", ExitStatus.FAILED, "Rate exceeded"),
}


@pytest.mark.parametrize("trouble", AFTER)
@pytest.mark.parametrize("command", [each for each in COMMANDS if "costs" not in each])
def test_what_an_account_refuses_altogether_is_said_once(
    place: Place,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    trouble: str,
) -> None:
    code, text, status, message = AFTER[trouble]
    monkeypatch.setattr("time.sleep", lambda _: None)
    before = place.state()
    # GetCallerIdentity needs no permission.
    for service in ("iam", "ssm", "sagemaker") + (("sts",) if trouble == "expired" else ()):
        place.service.sessions.faults.add(Fault(f"{service}:*", code, text, 403))
    assert main(list(COMMANDS[command])) == status
    place.service.sessions.faults.clear()
    if command == "apply of the tier":  # what costs is said first, or why it is not known
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        assert message in printed.err
    else:
        said_once(capsys, message)
    assert place.state() == before


@pytest.mark.parametrize(("trouble", "status"), [("expired", 5), ("may nothing", 5), ("throttled", 1)])
def test_costs_say_all_that_they_may_not_read(
    place: Place,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
    status: int,
) -> None:
    code, text, _, message = AFTER[trouble]
    monkeypatch.setattr("time.sleep", lambda _: None)
    for service in ("ssm", "sagemaker"):
        place.service.sessions.faults.add(Fault(f"{service}:*", code, text, 403))
    assert main(["costs", "--json"]) == status
    place.service.sessions.faults.clear()
    printed = capsys.readouterr()
    assert message in printed.out + printed.err
    assert "Traceback" not in printed.err
    if printed.out:
        assert json.loads(printed.out)["jobs"] == []


def smssh(*words: str, shell: str = "", **more: str) -> subprocess.Popen[str]:
    """The command as a process; `shell` is what a shell does with its streams."""
    line = [sys.executable, "-m", "smssh_plugin.cli", *words]
    return subprocess.Popen(
        ["sh", "-c", f'exec "$@" {shell}', "sh", *line],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **more},
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "<&-"])
@pytest.mark.parametrize(
    "words",
    [
        ("list",),
        ("cleanup", "--apply", "--yes"),
        ("costs",),
        ("doctor", "laptop.region"),
        ("setup", "--part", "submit", "--account", ACCOUNT),
        ("setup", "--apply", "--part", "submit", *YES),
    ],
    ids=" ".join,
)
def test_streams_that_are_closed_are_no_trouble(place: Place, words: tuple[str, ...], closed: str) -> None:
    assert place
    process = smssh(*words, shell=closed)
    _, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, "Traceback" in err) == (0, False)


@pytest.mark.parametrize("words", [("list",), ("costs",), ("doctor", "laptop.region"), ("cleanup",)])
def test_a_narrow_terminal_and_no_colour_change_nothing(place: Place, words: tuple[str, ...]) -> None:
    add_node(place.service, "x" * 60)
    time_free = re.compile(r"\s+\d+ (s|min)$", re.MULTILINE)  # its age

    def shown(**more: str) -> str:
        out, _ = smssh(*words, **more).communicate(timeout=LIMIT)
        return time_free.sub("", out)

    assert shown(COLUMNS="20", NO_COLOR="1", TERM="dumb") == shown(COLUMNS="200", TERM="xterm-256color")
    assert "\x1b" not in shown(COLUMNS="20", TERM="xterm-256color", FORCE_COLOR="1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize(
    ("words", "operation", "said"),
    [
        (COMMANDS["apply"], "iam:AttachRolePolicy", "the next run finishes it, and --undo removes it"),
        (COMMANDS["undo"], "iam:DeletePolicy", "the next --undo goes on"),
    ],
    ids=["apply", "undo"],
)
def test_a_signal_in_the_middle_is_said_and_the_next_run_goes_on(
    place: Place, words: tuple[str, ...], operation: str, said: str, number: signal.Signals
) -> None:
    before = place.state()
    if words == COMMANDS["undo"]:
        assert main(list(COMMANDS["apply"])) == 0
    slow = place.service.sessions.faults.add(Fault(operation, "", delay=LIMIT))
    process = smssh(*words)
    until(lambda: slow.happened, operation)
    process.send_signal(number)
    _, err = process.communicate(timeout=LIMIT)
    place.service.sessions.faults.clear()
    assert process.returncode == (ExitStatus.INTERRUPTED if number is signal.SIGINT else 128 + number)
    (line,) = [each for each in err.splitlines() if each.startswith("interrupted at ")]
    assert line.endswith(said)
    assert main(list(words)) == 0
    assert main(list(COMMANDS["undo"])) == 0
    assert place.state() == before


def test_a_region_that_is_none_is_named_by_all(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert place
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    for words in COMMANDS.values():
        assert main([*words, "--region", "us east"]) == ExitStatus.USAGE
        said_once(capsys, "'us east' is not an AWS region")
