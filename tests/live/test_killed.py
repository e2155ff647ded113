"""A run that is interrupted or killed at any call, and what the next one makes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.aws.session import AwsSession
from smssh_plugin.cli import main
from smssh_plugin.errors import SmsshError
from smssh_plugin.live import job, job_steps
from smssh_plugin.live.names import END
from smssh_plugin.live.place import Place
from smssh_plugin.live.remains import left_by_others
from smssh_plugin.live.run import Record, chosen, run
from smssh_plugin.live.wanted import Wanted
from smssh_plugin.local.faults import Fault
from smssh_plugin.setup.account import Account
from tests.live.accounts import ACCOUNT, NOTHING, made
from tests.local.service_harness import IMAGE
from tests.waiting import LIMIT, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.local.service_harness import Service

READS = ("get_", "list_", "describe_")


class Killed(BaseException):
    """The process is no more: nothing that it would do happens."""


class Failing:
    """Ends a run at one of its calls, before or after the call has its effect.

    Args:
        patch: pytest's.
        error: what happens.
    """

    def __init__(self, patch: pytest.MonkeyPatch, error: BaseException) -> None:
        self.number: int | None = None
        self.after = False
        self.error = error
        self.made = 0
        self.operations: list[str] = []
        self.changes = False
        self._dead = False
        plain: Callable[..., dict[str, Any]] = Place.call

        def call(place: Place, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
            if self._dead:
                raise self.error
            self.made += 1
            self.operations.append(operation)
            fails = self.made == self.number
            if fails:
                self.changes = not operation.startswith(READS)
                self._dead = isinstance(self.error, Killed)
            if fails and not self.after:
                raise self.error
            try:
                return plain(place, service, operation, **arguments)
            finally:
                if fails:  # whatever was answered
                    raise self.error

        patch.setattr(Place, "call", call)

    def every_call(self, action: Callable[[], object], since: str = "") -> Iterator[str]:
        """Do something that fails at each of its calls in turn, until it makes no further call.

        Args:
            action: does it.
            since: the operation that is the first to fail; by default the first one that is made.
        """
        self.operations.clear()
        if since:
            self._fails(action, 0, after=False)
        number = self.operations.index(since) if since else 0
        while self._fails(action, number := number + 1, after=False):
            changes = self.changes
            yield f"before call {number}"
            # A job takes its time to stop: the last calls are not as many each time.
            if changes and self._fails(action, number, after=True):
                yield f"after call {number}"

    def _fails(self, action: Callable[[], object], number: int, *, after: bool) -> bool:
        self.number, self.after, self.made, self._dead = number, after, 0, False
        try:
            action()
        except (KeyboardInterrupt, Killed) as error:
            if error is not self.error:
                raise
            return True
        finally:
            self.number, self._dead = None, False
        return False


def live(account: Account, *steps: str) -> None:
    """A run; without steps it only removes what others left."""
    found = chosen(steps, with_job=True) if steps else []
    run(
        found,
        account,
        lambda _: None,
        sleep=lambda _: time.sleep(0.01),
        record=Record(),
        wanted=Wanted(IMAGE),
    )


@pytest.fixture
def account(emulator: Service) -> Account:
    """The account as the command has it; it does not wait."""
    assert emulator
    return Account(AwsSession(), lambda _: None)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Killed()], ids=["interrupted", "killed"])
def test_what_a_run_leaves_that_is_ended_at_any_call_is_removed(
    emulator: Service, environment: pytest.MonkeyPatch, account: Account, error: BaseException
) -> None:
    """By itself if it is interrupted while it tries things, else by the next run."""
    failing = Failing(environment, error)
    left: dict[str, int] = dict.fromkeys(NOTHING, 0)
    clean = 0
    for where in failing.every_call(lambda: live(account, "registration")):
        found = made(emulator)
        clean += found == NOTHING
        for kind in found:
            left[kind] += bool(found[kind])
        live(account)
        assert made(emulator) == NOTHING, where
    if isinstance(error, Killed):
        assert min(left[each] for each in ("roles", "activations", "nodes")) > 1, left
    else:
        assert clean > 15


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Killed()], ids=["interrupted", "killed"])
def test_the_job_of_a_run_that_is_ended_at_any_call_is_stopped_and_what_it_needs_is_removed(
    emulator: Service, environment: pytest.MonkeyPatch, account: Account, error: BaseException
) -> None:
    environment.setattr(job_steps, "ONLINE_SECONDS", 0.0)  # the emulator's job runs, and never has a host
    failing = Failing(environment, error)
    left: dict[str, int] = dict.fromkeys(NOTHING, 0)
    for where in failing.every_call(lambda: live(account, "job-online"), since="create_bucket"):
        found = made(emulator)
        for kind in found:
            left[kind] += bool(found[kind])
        live(account)
        until(lambda: made(emulator) == NOTHING, f"nothing is left: {where}")
    assert failing.operations.count("create_processing_job") > 1
    if isinstance(error, Killed):
        assert min(left["jobs"], left["buckets"]) > 1, left


def test_a_job_that_does_not_stop_keeps_what_it_is_found_by(
    emulator: Service, environment: pytest.MonkeyPatch, account: Account
) -> None:

    async def stop(_name: str, _kind: object = None) -> None:
        """Takes its time."""

    environment.setattr(emulator.runner, "stop", stop)
    environment.setattr(job_steps, "ONLINE_SECONDS", 0.0)
    environment.setattr(job, "END_SECONDS", 0.0)
    with pytest.raises(SmsshError, match="has not stopped within"):
        live(account, "job-online")
    (name,) = made(emulator)["jobs"]
    assert made(emulator)["roles"] == [f"{name}-job", f"{name}-node"]
    emulator.release(name)
    until(lambda: made(emulator)["jobs"] == [], "the job has ended")
    live(account)
    assert made(emulator) == NOTHING


def start(*steps: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "smssh_plugin.cli", "doctor", "--live", *steps, "--yes", ACCOUNT],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def in_the_middle(emulator: Service, operation: str) -> subprocess.Popen[str]:
    """A run that has made something, and gets no answer to a call."""
    fault = emulator.sessions.faults.add(Fault(operation, delay=LIMIT, hang_up=True, times=1))
    process = start("registration")
    until(lambda: fault.happened or process.poll() is not None, f"{operation} is called")
    return process


@pytest.mark.parametrize(
    ("sent", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGHUP, 128 + signal.SIGHUP)],
)
@pytest.mark.parametrize("operation", ["ssm:RegisterManagedInstance", "iam:PutRolePolicy"])
def test_a_signal_ends_a_run_and_what_it_made_is_removed(
    emulator: Service, operation: str, sent: signal.Signals, status: int
) -> None:
    process = in_the_middle(emulator, operation)
    process.send_signal(sent)
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == status, err
    assert "steps ended; nothing of this run is left" in err
    assert "Traceback" not in err
    assert "| on session documents | not tried | `live.documents` was not run |" in out
    assert made(emulator) == NOTHING


@pytest.mark.parametrize("operation", ["sagemaker:CreateProcessingJob", "sagemaker:DescribeProcessingJob"])
def test_a_signal_ends_a_run_with_a_job_and_the_job(emulator: Service, operation: str) -> None:
    fault = emulator.sessions.faults.add(Fault(operation, delay=LIMIT, hang_up=True, times=1))
    process = start("job-online", "--jobs", "--image", IMAGE)
    until(lambda: fault.happened or process.poll() is not None, f"{operation} is called")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert "steps ended; nothing of this run is left" in err
    assert "Traceback" not in err
    assert "| whether ssh logs in to it | not tried | `live.login` was not run: it needs `--jobs` |" in out
    until(lambda: made(emulator) == NOTHING, "nothing is left")


@pytest.mark.parametrize(
    "operation", ["iam:ListAccountAliases", "iam:ListRoles"], ids=["before the run", "before a step"]
)
def test_a_run_that_is_interrupted_before_its_first_step_has_json_with_no_results(
    emulator: Service, operation: str
) -> None:
    fault = emulator.sessions.faults.add(Fault(operation, delay=LIMIT, hang_up=True, times=1))
    process = start("tier", "--json")
    until(lambda: fault.happened or process.poll() is not None, f"{operation} is called")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 128 + signal.SIGTERM, err
    found = json.loads(out)
    assert (found["steps"], found["status"], found["error"]) == ([], 143, "the run was interrupted")
    assert "0 of 1 steps ended; nothing of this run is left" in err


def test_a_run_that_is_killed_is_shown_and_removed_where_it_ran_and_elsewhere_once_its_time_is_over(
    emulator: Service,
    account: Account,
    environment: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    process = in_the_middle(emulator, "ssm:RegisterManagedInstance")
    plan = ["doctor", "--live", "tier", "--json"]
    assert main(plan) == 0
    (left,) = json.loads(capsys.readouterr().out)["left"]
    assert not left["stale"]
    live(account)
    assert made(emulator)["roles"] == sorted(left["roles"]), "the run goes on"
    process.kill()
    process.communicate(timeout=LIMIT)

    here = os.environ["SMSSH_HOME"]
    environment.setenv("SMSSH_HOME", str(tmp_path / "elsewhere"))
    live(account)
    assert made(emulator)["roles"] == sorted(left["roles"])
    assert main(["doctor", "--live", "tier"]) == 0
    assert "if it does not end, a run with --yes after " in capsys.readouterr().out
    iam = emulator.client("iam")
    for name in left["roles"]:
        iam.tag_role(RoleName=name, Tags=[{"Key": END, "Value": "1000000000"}])
    assert main(["doctor", "--live", "tier"]) == 0
    assert "an ended run left " in capsys.readouterr().out
    environment.setenv("SMSSH_HOME", here)
    live(account)
    assert made(emulator) == NOTHING


def test_what_a_run_left_in_another_region_is_named_and_kept_for_a_run_there(
    emulator: Service, environment: pytest.MonkeyPatch, account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its roles are everywhere, its node is not: without the roles no run would find the node any more."""
    text = "User: me is not authorized to perform: ssm:DeregisterManagedInstance on resource: *"
    emulator.sessions.faults.add(Fault("ssm:DeregisterManagedInstance", "AccessDeniedException", text))
    with pytest.raises(SmsshError, match="DeregisterManagedInstance"):
        live(account, "registration")
    emulator.sessions.faults.clear()
    left, region = made(emulator), account.aws.region
    assert left["nodes"]
    assert left["roles"]
    environment.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    environment.setenv("AWS_REGION", "eu-west-1")
    assert main(["doctor", "--live", "tier"]) == 0
    assert f"the next run with --yes in {region} removes it" in capsys.readouterr().out
    main(["doctor", "--live", "tier", "--yes", ACCOUNT])
    assert f"an ended run in {region} left " in capsys.readouterr().err
    environment.setenv("AWS_DEFAULT_REGION", region)
    environment.setenv("AWS_REGION", region)
    assert made(emulator) == left
    live(account)
    assert made(emulator) == NOTHING


def test_roles_of_others_with_such_a_name_are_left(emulator: Service, account: Account) -> None:
    iam = emulator.client("iam")
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    theirs = {"smssh-live-mine": [], "smssh-live-x-node": [{"Key": "smssh", "Value": "live"}]}
    for name, tags in theirs.items():
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust, Tags=tags)
    assert left_by_others(account) == []
    live(account)
    assert made(emulator)["roles"] == sorted(theirs)


@pytest.mark.parametrize(
    "operation", ["ssm:DeregisterManagedInstance", "iam:DeleteRole", "ssm:DescribeActivations"]
)
def test_what_cannot_be_removed_is_said_and_the_next_run_removes_it(
    emulator: Service, account: Account, capsys: pytest.CaptureFixture[str], operation: str
) -> None:
    text = f"User: me is not authorized to perform: {operation} on resource: *"
    emulator.sessions.faults.add(Fault(operation, "AccessDeniedException", text))
    assert main(["doctor", "--live", "registration", "--json", "--yes", ACCOUNT]) == 5
    shown = capsys.readouterr()
    assert json.loads(shown.out)["status"] == 5
    assert f"ask for the permission {operation}" in shown.err
    assert "the next run with --yes removes what is left" in shown.err
    assert made(emulator) != NOTHING
    emulator.sessions.faults.clear()
    live(account)
    assert made(emulator) == NOTHING
