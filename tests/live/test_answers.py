"""Each step on the local emulator: where AWS is as smssh relies on it, and where it is not."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.cli import main
from smssh_plugin.errors import SmsshError
from smssh_plugin.live.place import Place
from smssh_plugin.live.questions import SUBJECTS
from smssh_plugin.live.steps import STEPS
from smssh_plugin.local.faults import Fault
from tests.client.nodes import use
from tests.live.accounts import ACCOUNT, NOTHING, made, reset
from tests.local.service_harness import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smssh_plugin.live.trials import Answer
    from tests.costs.price_list import PriceList
    from tests.local.service_harness import Service

DENIED = (
    f"User: arn:aws:sts::{ACCOUNT}:assumed-role/a/b is not authorized to perform: {{0}} on resource: {{1}}"
)


@pytest.fixture(scope="module")
def permissive() -> Iterator[Service]:
    with running() as service:
        yield service


@pytest.fixture
def unenforced(permissive: Service, environment: pytest.MonkeyPatch) -> Service:
    """An account whose IAM denies nothing."""
    use(permissive, environment)
    reset(permissive)
    return permissive


def answers(capsys: pytest.CaptureFixture[str], *steps: str) -> dict[str, tuple[str, str]]:
    """What a run answers, by step."""
    main(["doctor", "--live", *steps, "--yes", ACCOUNT, "--json"])
    found = json.loads(capsys.readouterr().out)
    return {each["id"]: (each["answer"], each["message"]) for each in found["steps"]}


def test_every_question_is_answered_where_aws_is_as_it_is_thought_to_be(
    emulator: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.sessions.faults.add(Fault("ssm:StartSession", "ThrottlingException", per_second=3))
    assert main(["doctor", "--live", "--yes", ACCOUNT]) == 0
    shown = capsys.readouterr()
    rows = [line.split(" | ") for line in shown.out.splitlines() if line.startswith("| ")][2:]
    questions = [question for subject in SUBJECTS for question in subject.questions]
    assert [row[1] for row in rows] == [question.text for question in questions]
    free = [each.step and not STEPS[each.step].needs_job for each in questions]
    assert [row[2] for row in rows] == ["yes" if each else "not tried" for each in free]
    assert made(emulator) == NOTHING
    count = sum(not each.needs_job for each in STEPS.values())
    assert f"{count} of {count}: live.deregister" in shown.err
    for secret in (ACCOUNT, "AKIA", "ASIA", "AROA"):
        assert secret not in shown.out
    assert not re.search(r"\bmi-0|[0-9a-f]{8}-[0-9a-f]{4}-", shown.out)


def test_every_step_settles_a_question_or_is_needed_by_one() -> None:
    settling = {question.step for subject in SUBJECTS for question in subject.questions if question.step}
    assert settling == {step.id for step in STEPS.values() if step.asks}
    assert settling <= STEPS.keys()
    needed = {each for step in STEPS.values() for each in step.after}
    assert {step.id for step in STEPS.values() if not step.asks} <= needed
    for subject in SUBJECTS:
        assert all(bool(each.step) != bool(each.why_not) for each in subject.questions)


def denial(operation: str, action: str, resource: str = "*") -> Fault:
    return Fault(operation, "AccessDeniedException", DENIED.format(action, resource))


UNKNOWN_ROLE = Fault("ssm:CreateActivation", "ValidationException", "Nonexistent role or missing ssm service")
ALLOWED = "CreateActivation with tags, with the statements Activate, Pass and TagNew"


@pytest.mark.parametrize(
    ("step", "wrong", "answer", "message"),
    [
        ("node-role", UNKNOWN_ROLE, "no", "the trust policy is not accepted"),
        ("role-path", UNKNOWN_ROLE, "no", "PATH/NAME is not accepted"),
        (
            "node-role",
            denial("iam:CreateRole", "iam:CreateRole"),
            "could not be tried",
            "access denied: CreateRole",
        ),
        (
            "test-role",
            denial("sts:AssumeRole", "sts:AssumeRole"),
            "could not be tried",
            "access denied: AssumeRole",
        ),
        (
            "tier",
            denial("ssm:GetServiceSetting", "ssm:GetServiceSetting"),
            "could not be tried",
            "access denied",
        ),
        ("tag-new", "session/TagNew", "no", f"denied: {ALLOWED}"),
        ("pass-role", "session/Pass", "no", f"denied: {ALLOWED}"),
        ("tag-conditions", "session/Activate", "no", f"denied: {ALLOWED}"),
        (
            "registration",
            Fault("ssm:RegisterManagedInstance", "InvalidActivation", "not valid"),
            "could not be tried",
            "RegisterManagedInstance: not valid",
        ),
        ("state-tags", "session/TagState", "no", "denied: the tag SMSSHState on a node of one's owner"),
        ("owner", "session/Nodes", "no", "denied: a session with a node of one's owner"),
        ("documents", "session/Documents", "no", "denied: a session with a node of one's owner"),
        ("no-document", "session/Nodes", "no", "denied: a session with a node of one's owner"),
        ("deregister", "session/End", "no", "denied: ending a node of one's owner"),
    ],
)
def test_what_is_denied_that_should_not_be_is_answered_by_no(
    emulator: Service,
    capsys: pytest.CaptureFixture[str],
    step: str,
    wrong: Fault | str,
    answer: str,
    message: str,
) -> None:
    assert emulator.iam is not None
    if isinstance(wrong, str):
        emulator.iam.without |= {wrong}
    else:
        emulator.sessions.faults.add(wrong)
    found = answers(capsys, step)
    assert found[f"live.{step}"][0] == answer
    assert message in found[f"live.{step}"][1]
    # What others need is as it should be, or the cause.
    assert {each for each, (said, _) in found.items() if said == "no"} <= {f"live.{step}"}
    emulator.sessions.faults.clear()
    assert made(emulator) == NOTHING


@pytest.mark.parametrize(
    ("step", "answer", "message"),
    [
        (
            "tag-new",
            "no",
            "allowed: CreateActivation with tags, ssm:AddTagsToResource on managed instances only",
        ),
        ("pass-role", "no", "allowed: CreateActivation, iam:PassRole on another role"),
        ("tag-conditions", "no", "allowed: an activation of another owner"),
        ("state-tags", "no", "allowed: the tag SMSSHState on a node of another owner"),
        ("owner", "could not be tried", "a session with a node of another owner: the answer does not tell"),
        ("documents", "could not be tried", "the answer does not tell"),
        ("no-document", "could not be tried", "a session without a document: the answer does not tell"),
        ("session-resource", "could not be tried", "the service looks for the session before the permission"),
        ("deregister", "no", "allowed: ending a node of another owner"),
    ],
)
def test_what_is_not_denied_that_should_be_is_no_yes(
    unenforced: Service, capsys: pytest.CaptureFixture[str], step: str, answer: str, message: str
) -> None:
    found = answers(capsys, step)[f"live.{step}"]
    assert found[0] == answer
    assert message in found[1]
    assert made(unenforced) == NOTHING


def test_the_tier(emulator: Service, capsys: pytest.CaptureFixture[str]) -> None:
    emulator.sessions.tier = "standard"
    found = answers(capsys, "live.tier", "owner")
    assert found["live.tier"][0] == "no"
    # The permission is looked at before the tier is.
    assert found["live.owner"][0] == "yes"
    assert main(["doctor", "--live", "tier", "--yes", ACCOUNT]) == 1


def test_prices(emulator: Service, price_list: PriceList, capsys: pytest.CaptureFixture[str]) -> None:
    assert emulator
    price_list.instance("ml.m5.large", "0.9900000000")
    assert answers(capsys, "prices")["live.prices"] == (
        "no",
        "the price list does not have exactly one price for ml.m5.large (training)",
    )


def test_prices_that_may_not_be_read(
    emulator: Service, price_list: PriceList, capsys: pytest.CaptureFixture[str]
) -> None:
    assert emulator
    price_list.refusal = 400, {"__type": "AccessDeniedException", "message": DENIED.format("a:b", "*")}
    assert answers(capsys, "prices")["live.prices"][0] == "could not be tried"
    assert main(["doctor", "--live", "prices", "--yes", ACCOUNT]) == 8


@pytest.mark.parametrize(
    ("operation", "answer", "message"),
    [
        (
            "ListTagsForResource",
            {"TagList": [{"Key": "SSHOwner", "Value": "x"}]},
            "the node lacks the tags SMSSH, SMSSHHost, SMSSHJob, SMSSHKind, SSHOwner of its activation",
        ),
        (
            "DescribeInstanceInformation",
            {"InstanceInformationList": []},
            "does not find the node by tag:SMSSHJob",
        ),
    ],
)
def test_a_node_without_its_tags_or_that_is_not_found(
    emulator: Service,
    environment: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    operation: str,
    answer: dict[str, Any],
    message: str,
) -> None:
    async def other(_body: dict[str, Any], _key: str | None) -> dict[str, Any]:
        return answer

    environment.setitem(emulator.sessions._operations, operation, other)
    found = answers(capsys, "registration", "deregister")
    assert found["live.registration"][0] == "no"
    assert message in found["live.registration"][1]
    assert found["live.deregister"] == ("could not be tried", "it needs live.registration")
    assert made(emulator) == NOTHING


@pytest.mark.parametrize(
    ("per_second", "answer", "throttled"), [(3.0, "yes", range(1, 8)), (100.0, "no", range(1))]
)
def test_pacing(
    emulator: Service,
    capsys: pytest.CaptureFixture[str],
    per_second: float,
    answer: str,
    throttled: range,
) -> None:
    emulator.sessions.faults.add(Fault("ssm:StartSession", "ThrottlingException", per_second=per_second))
    found = answers(capsys, "pacing")["live.pacing"]
    assert found[0] == answer
    assert found[1] in [f"{count} of 8 calls of StartSession at once were throttled" for count in throttled]


def test_a_denial_by_the_organization_does_not_tell(
    emulator: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert emulator.iam is not None
    emulator.iam.without = frozenset()
    answer, message = answers(capsys, "state-tags")["live.state-tags"]
    assert answer == "could not be tried"
    assert message.startswith("the tag SMSSHHostKey on a node of one's owner: the answer does not tell")


@pytest.mark.parametrize(
    ("action", "resource", "answer", "message"),
    [
        (
            "ssm:TerminateSession",
            f"arn:aws:sts::{ACCOUNT}:assumed-role/me/x",
            "no",
            "TerminateSession is checked against ARN (sts assumed-role)",
        ),
        ("ssm:DescribeSessions", "*", "could not be tried", "the service looks for the session"),
    ],
)
def test_what_terminate_session_is_denied_for(
    unenforced: Service,
    capsys: pytest.CaptureFixture[str],
    action: str,
    resource: str,
    answer: str,
    message: str,
) -> None:
    unenforced.sessions.faults.add(denial("ssm:TerminateSession", action, resource))
    found = answers(capsys, "session-resource")["live.session-resource"]
    assert found[0] == answer
    assert message in found[1]


@pytest.mark.parametrize("operation", ["ssm:CreateActivation", "iam:CreateRole", "sts:AssumeRole"])
def test_throttling_that_does_not_end_is_said_and_leaves_nothing(
    emulator: Service,
    environment: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    operation: str,
) -> None:
    environment.setenv("AWS_MAX_ATTEMPTS", "1")
    emulator.sessions.faults.add(Fault(operation, "ThrottlingException", "Rate exceeded"))
    environment.setattr("smssh_plugin.setup.account.ATTEMPTS", 1)
    found = answers(capsys, "tag-new")
    assert ("could not be tried", True) in [(said, "Rate exceeded" in text) for said, text in found.values()]
    emulator.sessions.faults.clear()
    assert made(emulator) == NOTHING


def test_what_a_trial_has_shown_stands_if_what_it_made_cannot_be_removed_at_once(
    emulator: Service, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a call that was allowed would count as denied."""
    plain = Place.end_activation
    begun: list[str] = []
    made_by_trials: list[str] = []

    def end_activation(place: Place, activation: str) -> None:
        if "live.tag-new" in begun and not place.ends:
            made_by_trials.append(activation)
            raise SmsshError("access denied: DeleteActivation: no", reference="access-denied")
        plain(place, activation)

    step = STEPS["live.tag-new"]

    def noted(place: Place) -> Answer:
        begun.append(step.id)
        return step.run(place)

    environment.setitem(STEPS, step.id, replace(step, run=noted))
    environment.setattr(Place, "end_activation", end_activation)
    assert answers(capsys, "tag-new")["live.tag-new"][0] == "yes"
    assert len(made_by_trials) == 1
    assert made(emulator) == NOTHING


def test_a_mistake_in_a_step_does_not_end_the_others(
    emulator: Service, capsys: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch
) -> None:
    async def odd(_body: dict[str, Any], _key: str | None) -> dict[str, Any]:
        return {}

    environment.setitem(emulator.sessions._operations, "GetServiceSetting", odd)
    found = answers(capsys, "tier", "node-role")
    assert found["live.tier"][0] == "could not be tried"
    assert found["live.tier"][1].startswith("the step failed: KeyError: 'ServiceSetting'")
    assert found["live.node-role"][0] == "yes"
