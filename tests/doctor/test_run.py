"""How checks are run: side by side, in order, each within its time; a mistake in one ends no other."""

from __future__ import annotations

import threading

import pytest

from smssh_plugin.aws.session import AwsSession, ServiceRefused
from smssh_plugin.doctor import simulation, trust
from smssh_plugin.doctor.case import Case
from smssh_plugin.doctor.catalogue import SUBJECTS, chosen
from smssh_plugin.doctor.checks import Check, Finding, Outcome, hint, ok, problem, unknown
from smssh_plugin.doctor.run import run
from smssh_plugin.doctor.show import as_json, exit_status, lines
from smssh_plugin.errors import ExitStatus, SmsshError

ACCOUNT = "123456789012"


def case() -> Case:
    return Case(AwsSession())


def check(name: str, found: Finding | BaseException, *after: str) -> Check:
    def look(_: Case) -> Finding:
        if isinstance(found, BaseException):
            raise found
        return found

    return Check(name, "", look, after)


def outcomes(*checks: Check) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {
        each.check.id: (each.finding.outcome.value, each.finding.waits_for) for each in run(checks, case())
    }


def test_a_check_that_raises_is_a_crash_and_ends_no_other() -> None:
    found = run([check("a.one", ValueError("broken")), check("a.two", ok("well"))], case())
    assert [each.finding.outcome for each in found] == [Outcome.CRASH, Outcome.OK]
    crash = found[0].finding
    assert "ValueError: broken" in crash.message
    assert "report it" in crash.fix
    assert "a.one" in crash.fix
    assert any("test_run.py" in each for each in crash.details)
    assert exit_status(found) is ExitStatus.FAILED


def test_what_comes_after_a_problem_waits_for_its_cause() -> None:
    found = outcomes(
        check("a.one", problem("wrong", fix="x")),
        check("a.two", ok(""), "a.one"),
        check("a.three", ok(""), "a.two", "a.four"),
        check("a.four", hint("so what"), "a.five"),
        check("a.five", unknown("who knows")),
    )
    assert found == {
        "a.one": ("problem", ()),
        "a.two": ("cannot tell", ("a.one",)),
        "a.three": ("cannot tell", ("a.one",)),
        "a.four": ("hint", ()),
        "a.five": ("cannot tell", ()),
    }


def test_a_check_has_its_time_and_no_more() -> None:
    ever = threading.Event()
    try:

        def wait(_: Case) -> Finding:
            ever.wait()
            return ok("")

        slow = Check("a.slow", "", wait)
        found = run([slow, check("a.fast", ok(""))], case(), limit=0.2)
    finally:
        ever.set()
    assert [each.finding.outcome for each in found] == [Outcome.UNKNOWN, Outcome.OK]
    assert "no answer within 0.2 s" in found[0].finding.message


def test_checks_run_side_by_side() -> None:
    meeting = threading.Barrier(3, timeout=60)

    def meet(_: Case) -> Finding:
        meeting.wait()
        return ok("met")

    found = run([Check(f"a.{number}", "", meet) for number in range(3)], case())
    assert {each.finding.message for each in found} == {"met"}


def test_checks_that_wait_for_each_other_end() -> None:
    found = outcomes(
        check("a.one", ok(""), "a.two"), check("a.two", ok(""), "a.one"), check("a.three", ok(""))
    )
    assert {name: outcome for name, (outcome, _) in found.items()} == {
        "a.one": "cannot tell",
        "a.two": "cannot tell",
        "a.three": "ok",
    }


def test_a_file_that_cannot_be_read_is_no_crash() -> None:
    denied = PermissionError(13, "Permission denied", "/home/ann/.ssh/config")
    (found,) = run([check("a.one", denied)], case())
    assert found.finding.outcome is Outcome.UNKNOWN
    assert "/home/ann/.ssh/config" in found.finding.message


def test_progress_is_told() -> None:
    told: list[tuple[int, list[str]]] = []
    run(
        [check("a.one", ok("")), check("a.two", ok(""), "a.one")],
        case(),
        progress=lambda n, r: told.append((n, list(r))),
    )
    assert told == [(0, ["a.one"]), (1, ["a.two"])]


def test_a_denied_call_names_what_it_needs() -> None:
    text = (
        "access denied: GetDocument: User: arn:aws:iam::1:user/a is not authorized to perform: ssm:GetDocument on "
        "resource: arn:aws:ssm:::document/X because no identity-based policy allows the ssm:GetDocument action"
    )
    denied = SmsshError(text, hint="ask for the permission", reference="access-denied")
    (found,) = run([check("a.one", denied)], case())
    assert found.finding.message == "cannot tell: needs ssm:GetDocument"
    assert found.finding.statement == {
        "Effect": "Allow",
        "Action": "ssm:GetDocument",
        "Resource": "arn:aws:ssm:::document/X",
    }
    (found,) = run([check("a.one", ServiceRefused("Throttled", "Throttling"))], case())
    assert (found.finding.outcome, found.finding.message) == (Outcome.UNKNOWN, "cannot tell: Throttled")
    assert exit_status([found]) is ExitStatus.UNKNOWN


@pytest.mark.parametrize(
    ("because", "blamed", "who"),
    [
        ("with an explicit deny in a service control policy", "the service control policy", "organization"),
        (
            "because no permissions boundary allows the ssm:GetDocument action",
            "the permissions boundary",
            "account",
        ),
        (
            "with an explicit deny in an identity-based policy",
            "an identity-based policy's explicit deny",
            "account",
        ),
    ],
)
def test_no_statement_is_asked_for_that_would_not_help(because: str, blamed: str, who: str) -> None:
    text = (
        f"User: arn:aws:iam::1:user/a is not authorized to perform: ssm:GetDocument on resource: * {because}"
    )
    (found,) = run([check("a.one", SmsshError(text, reference="access-denied"))], case())
    assert found.finding.outcome is Outcome.UNKNOWN
    assert found.finding.statement is None
    assert blamed in found.finding.message
    assert found.finding.who == f"an administrator of the {who}"


def test_what_a_check_says_is_safe_for_a_terminal() -> None:
    found = run([check("a.one", problem("a\x1b]52;c;eA==\x07\n::error::b", fix="c\x1b[2Kd"))], case())
    text = "\n".join(lines(found, details=True))
    assert "\x1b" not in text
    assert "\n::" not in text


def test_every_check_is_told_apart_and_explained() -> None:
    every = [each for checks in SUBJECTS.values() for each in checks]
    names = [each.id for each in every]
    assert len(set(names)) == len(names)
    for subject, checks in SUBJECTS.items():
        assert {each.subject for each in checks} == {subject}
    for number, each in enumerate(every):
        assert each.summary
        assert set(each.after) <= set(names[:number]), f"{each.id} comes before what it needs"


def test_checks_are_chosen_by_name_and_by_subject() -> None:
    assert [each.id for each in chosen(["laptop.openssh"], [])] == ["laptop.openssh"]
    assert [each.id for each in chosen(["laptop.keys"], [])] == ["laptop.openssh", "laptop.keys"]
    assert {each.subject for each in chosen([], [])} == {"laptop", "identity", "permissions", "account"}
    assert "job.node" in {each.id for each in chosen([], ["job"])}
    for names in (["laptop.none"], ["job.node"], ["pipeline"]):
        with pytest.raises(SmsshError) as caught:
            chosen(names, [])
        assert caught.value.status is ExitStatus.USAGE


def test_the_json_has_every_member() -> None:
    found = as_json(run([check("a.one", ok("well"))], case()))
    assert (found["schema"], found["status"]) == (1, 0)
    (one,) = found["checks"]
    one.pop("seconds")
    assert one == {
        "id": "a.one",
        "subject": "a",
        "outcome": "ok",
        "message": "well",
        "fix": None,
        "who": None,
        "statement": None,
        "details": [],
        "waits_for": [],
    }


# ------------------------------------------------------------------------------------------ what IAM's words mean


@pytest.mark.parametrize(
    ("result", "allowed", "said"),
    [
        ({"EvalDecision": "allowed"}, True, ""),
        ({"EvalDecision": "implicitDeny"}, False, "no policy allows it"),
        (
            {"EvalDecision": "implicitDeny", "MissingContextValues": ["ssm:resourceTag/SSHOwner"]},
            False,
            "it depends on ssm:resourceTag/SSHOwner",
        ),
        # IAM's reference: asked about ARNs, it says what is missing there.
        (
            {
                "EvalDecision": "implicitDeny",
                "MissingContextValues": [],
                "ResourceSpecificResults": [{"MissingContextValues": ["ssm:resourceTag/SSHOwner"]}],
            },
            False,
            "it depends on ssm:resourceTag/SSHOwner",
        ),
        (
            {
                "EvalDecision": "implicitDeny",
                "ResourceSpecificResults": [
                    {"PermissionsBoundaryDecisionDetail": {"AllowedByPermissionsBoundary": False}}
                ],
            },
            False,
            "the permissions boundary does not allow it",
        ),
        (
            {
                "EvalDecision": "explicitDeny",
                "MatchedStatements": [{"SourcePolicyId": "no-ssh"}],
                "ResourceSpecificResults": [{"MatchedStatements": [{"SourcePolicyId": "no-ssh"}]}],
            },
            False,
            "denied explicitly by no-ssh",
        ),
        (
            {
                "EvalDecision": "implicitDeny",
                "OrganizationsDecisionDetail": {"AllowedByOrganizations": False},
            },
            False,
            "a policy of the organization may deny it",
        ),
        (
            {
                "EvalDecision": "implicitDeny",
                "PermissionsBoundaryDecisionDetail": {"AllowedByPermissionsBoundary": False},
            },
            False,
            "the permissions boundary does not allow it",
        ),
        (
            {"EvalDecision": "explicitDeny", "MatchedStatements": [{"SourcePolicyId": "no-ssh"}]},
            False,
            "denied explicitly by no-ssh",
        ),
    ],
)
def test_what_a_simulation_says(result: dict[str, object], allowed: bool, said: str) -> None:
    found = simulation.verdict(result)
    assert (found.allowed, found.why or found.unsure) == (allowed, said)
    assert bool(found.unsure) == ("depends" in said or "organization" in said)


@pytest.mark.parametrize(
    ("message", "layer"),
    [
        ("because no identity-based policy allows the ssm:X action", ""),
        ("with an explicit deny in an identity-based policy", "an identity-based policy's explicit deny"),
        ("with an explicit deny in a service control policy", "the service control policy"),
        ("because no permissions boundary allows the ssm:X action", "the permissions boundary"),
        ("with an explicit deny in a VPC endpoint policy", "the vpc endpoint policy"),
        ("denied", ""),
    ],
)
def test_the_policy_that_a_denial_blames(message: str, layer: str) -> None:
    assert simulation.layer(message) == layer


SSM = {"Effect": "Allow", "Principal": {"Service": "ssm.amazonaws.com"}, "Action": "sts:AssumeRole"}


@pytest.mark.parametrize(
    ("statements", "trusted"),
    [
        ([], False),
        ([SSM], True),
        (SSM, True),
        ([{**SSM, "Action": ["sts:TagSession", "sts:Assume*"]}], True),
        ([{**SSM, "Action": "sts:TagSession"}], False),
        ([{**SSM, "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}}], False),
        ([trust.statement("aws", ACCOUNT, "eu-west-1")], True),
        ([trust.statement("aws", ACCOUNT, "us-east-1")], False),
        ([trust.statement("aws", ACCOUNT, "*")], True),
        ([trust.statement("aws", "999999999999", "eu-west-1")], False),
        ([{**SSM, "Condition": {"StringEquals": {"sts:ExternalId": "x"}}}], None),
        ([{**SSM, "Condition": {"ArnLike": {"aws:SourceArn": "*"}}}], True),
        ([{**SSM, "Condition": {"StringLike": {"aws:SourceArn": f"arn:aws:ssm:*:{ACCOUNT}:*"}}}], True),
        ([{**SSM, "Condition": {"StringEquals": {"aws:SourceArn": f"arn:aws:ssm:*:{ACCOUNT}:*"}}}], False),
        ([SSM, {"Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRole"}], False),
        (
            [
                SSM,
                {
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "sts:*",
                    "Condition": {"StringNotEquals": {"aws:PrincipalOrgID": "o-1"}},
                },
            ],
            None,
        ),
        ([trust.statement("aws", "999999999999", "eu-west-1"), SSM], True),
    ],
)
def test_what_a_trust_policy_means(statements: object, trusted: bool | None) -> None:
    assert trust.trust({"Statement": statements}, "aws", ACCOUNT, "eu-west-1").trusted is trusted
