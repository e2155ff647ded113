"""The evaluator of policies, by AWS's documented examples and rules (IAM user guide)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smssh_plugin.errors import SmsshError
from smssh_plugin.local.iam.conditions import condition, operator_names
from smssh_plugin.local.iam.documents import parse, parse_json
from smssh_plugin.local.iam.evaluator import (
    BOUNDARY,
    GUARDRAIL,
    IDENTITY,
    Context,
    Question,
    Rights,
    decide,
    trusts,
)
from smssh_plugin.local.iam.known_keys import check_keys
from smssh_plugin.local.iam.patterns import Pattern

VERSION = "2012-10-17"


def policy(*statements, name="p", version=VERSION):
    return parse(name, {"Version": version, "Statement": [{"Resource": "*", **each} for each in statements]})


def allow(**elements):
    return {"Effect": "Allow", "Action": "*", **elements}


def deny(**elements):
    return {"Effect": "Deny", "Action": "*", **elements}


def asked(action="s3:GetObject", resource="arn:aws:s3:::bucket/key", **keys):
    """A question; `aws__userid` is the key aws:userid."""
    return Question(action, resource, Context({key.replace("__", ":"): value for key, value in keys.items()}))


def allowed(document, question):
    return decide(Rights((document,)), question).allowed


def holds(operator, wanted, found, key="aws:k", **others):
    """Whether a statement with one condition allows a request whose key has some values; None: it has no such key."""
    values = {} if found is None else {key: found}
    context = Context({**values, **others})
    document = policy(allow(Condition={operator: {key: wanted}}))
    return allowed(document, Question("s3:GetObject", "arn:aws:s3:::b/k", context))


# ----------------------------------------------------------------------------------------------------- operators


@pytest.mark.parametrize(
    ("operator", "wanted", "found", "expected"),
    [
        ("StringEquals", "johndoe", "johndoe", True),
        ("StringEquals", "johndoe", "JohnDoe", False),
        ("StringEquals", ["a", "b"], "b", True),
        ("StringEquals", "a*", "abc", False),
        ("StringEquals", "a*", "a*", True),
        ("StringEquals", "", "", True),
        ("stringequals", "a", "a", True),
        ("StringNotEquals", "a", "b", True),
        ("StringNotEquals", ["a", "b"], "b", False),
        ("StringEqualsIgnoreCase", "JohnDoe", "johndoe", True),
        ("StringNotEqualsIgnoreCase", "JohnDoe", "johndoe", False),
        ("StringLike", "team-*", "team-a", True),
        ("StringLike", "team-?", "team-ab", False),
        ("StringLike", "Team*", "team", False),
        ("StringLike", "a.c", "abc", False),
        ("StringLike", "*", "", True),
        ("StringLike", "a*z", "a\nz", True),
        ("StringNotLike", "team-*", "other", True),
        ("StringNotLike", ["x*", "team-*"], "team-a", False),
        ("NumericEquals", "10", "10.0", True),
        ("NumericEquals", 10, "10", True),
        ("NumericNotEquals", "10", "11", True),
        ("NumericLessThan", "10", "9.5", True),
        ("NumericLessThan", "10", "10", False),
        ("NumericLessThanEquals", "10", "10", True),
        ("NumericLessThanEquals", "10", "many", False),
        ("NumericGreaterThan", "10", "11", True),
        ("NumericGreaterThanEquals", "10", "9", False),
        ("NumericLessThan", "10", "9" * 60, False),
        ("NumericEquals", "10", "\u0661\u0660", False),
        ("NumericEquals", "10", "1_0", False),
        ("DateEquals", "1796083200", "\u0661796083200", False),
        ("DateEquals", "1796083200", "\u00b2" * 5, False),
        ("DateEquals", "1796083200", "9" * 5000, False),
        ("DateEquals", "2026-11-30", "2026-11-30T00:00:00Z", True),
        ("DateNotEquals", "2026-11-30", "2026-11-30T00:00:01Z", True),
        ("DateLessThan", "2026-12-01T00:00:00Z", "2026-11-30T23:59:59Z", True),
        ("DateLessThan", "2026-12-01T00:00:00+02:00", "2026-11-30T22:30:00Z", False),
        ("DateGreaterThan", "1796083200", "2027-01-01T00:00:00Z", True),
        ("DateGreaterThanEquals", "2026-11-30T00:00:00Z", "1796000000", True),
        ("DateLessThanEquals", "2026-11-30T00:00:00Z", "2026-11-30T00:00:00Z", True),
        ("Bool", "true", "true", True),
        ("Bool", True, "TRUE", True),
        ("Bool", "false", "true", False),
        ("Bool", "true", "yes", False),
        ("BinaryEquals", "QmluYXJ5VmFsdWVJbkJhc2U2NA==", "QmluYXJ5VmFsdWVJbkJhc2U2NA==", True),
        ("BinaryEquals", "QUFB", "QUFC", False),
        ("IpAddress", "203.0.113.0/24", "203.0.113.9", True),
        ("IpAddress", "203.0.113.0/24", "203.0.114.9", False),
        ("IpAddress", "203.0.113.9", "203.0.113.9", True),
        ("IpAddress", ["2001:DB8:1234:5678::/64", "203.0.113.0/24"], "2001:db8:1234:5678::1", True),
        ("IpAddress", "203.0.113.0/24", "2001:db8::1", False),
        ("NotIpAddress", "203.0.113.0/24", "203.0.114.9", True),
        ("NotIpAddress", "203.0.113.0/24", "203.0.113.1", False),
        (
            "ArnEquals",
            "arn:aws:ssm:*:1:managed-instance/*",
            "arn:aws:ssm:eu-west-1:1:managed-instance/mi-0",
            True,
        ),
        ("ArnLike", "arn:aws:ssm:*:1:*", "arn:aws:ssm:eu-west-1:1:document/a:b/c", True),
        ("ArnLike", "arn:aws:ssm:*:1:*", "arn:aws:ssm:eu-west-1:2:document/a", False),
        # Each of the six parts is compared by itself: a star in one does not reach over a colon.
        ("ArnLike", "arn:aws:s*:1:x", "arn:aws:ssm:eu:1:x", False),
        ("ArnLike", "arn:aws:ssm:*:1:*", "no arn", False),
        ("ArnNotLike", "arn:aws:ssm:*:1:*", "arn:aws:ssm:eu-west-1:2:document/a", True),
        ("ArnNotEquals", "arn:aws:ssm:*:1:*", "arn:aws:ssm:eu-west-1:1:document/a", False),
        ("Null", "true", None, True),
        ("Null", "true", "x", False),
        ("Null", "false", "x", True),
        ("Null", False, None, False),
        ("Null", "false", ["x", "y"], True),
    ],
)
def test_an_operator(operator, wanted, found, expected) -> None:
    assert holds(operator, wanted, found) is expected


SAMPLES = {
    "Numeric": "1",
    "Date": "2026-11-30T00:00:00Z",
    "Bool": "true",
    "Binary": "QUFB",
    "Ip": "203.0.113.1",
    "NotIp": "203.0.113.1",
    "Arn": "arn:aws:ssm:r:1:x",
    "String": "a",
}
OPERATORS = [name for name in operator_names() if name != "Null"]


def sample(operator):
    return next(value for prefix, value in SAMPLES.items() if operator.startswith(prefix))


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_key_that_the_request_lacks(operator) -> None:
    """It matches nothing: only what must not match holds, and what is asked "if it exists"."""
    negated = "Not" in operator
    value = sample(operator)

    assert holds(operator, value, None) is negated
    assert holds(f"{operator}IfExists", value, None) is True
    assert holds(f"ForAllValues:{operator}", value, None) is True
    assert holds(f"ForAnyValue:{operator}", value, None) is False
    assert holds(f"ForAnyValue:{operator}IfExists", value, None) is False


@pytest.mark.parametrize("operator", OPERATORS)
def test_if_exists_is_the_operator_for_a_key_that_is_there(operator) -> None:
    value = sample(operator)
    for found in (value, "9", "2020-01-01T00:00:00Z", "false", "QUFD", "198.51.100.1", "arn:aws:s3:::b", "b"):
        assert holds(f"{operator}IfExists", value, found) is holds(operator, value, found)


@given(st.lists(st.sampled_from("abcd")), st.lists(st.sampled_from("abcd"), min_size=1))
def test_set_operators(found, wanted) -> None:
    """By the rules of the user guide, written as sets."""
    values, expected = set(found), set(wanted)
    some = found or None  # no value at all is not a key
    assert holds("ForAllValues:StringEquals", wanted, some) is (values <= expected)
    assert holds("ForAnyValue:StringEquals", wanted, some) is bool(values & expected)
    assert holds("ForAllValues:StringNotEquals", wanted, some) is not (values & expected)
    assert holds("ForAnyValue:StringNotEquals", wanted, some) is bool(values - expected)


def test_the_guides_example_of_tag_keys() -> None:
    """ "Use ForAllValues with Null": a request without the key passes the set operator alone."""
    alone = policy(
        allow(Condition={"ForAllValues:StringEquals": {"aws:TagKeys": ["environment", "webserver"]}})
    )
    both = policy(
        allow(
            Condition={
                "ForAllValues:StringEquals": {"aws:TagKeys": ["environment", "webserver"]},
                "Null": {"aws:TagKeys": "false"},
            }
        )
    )
    for keys, with_one, with_both in (
        (["environment"], True, True),
        (["environment", "webserver"], True, True),
        (["environment", "cost-center"], False, False),
        (["Environment"], False, False),
        ([], True, False),
    ):
        question = asked(aws__TagKeys=keys)
        assert allowed(alone, question) is with_one
        assert allowed(both, question) is with_both


def test_several_values_match_no_operator_for_one() -> None:
    """A tag that is there twice, with another case, is nobody's."""
    context = Context({"ssm:resourceTag/SSHOwner": "me", "ssm:resourceTag/sshowner": "you"})
    for operator in ("StringEquals", "StringLike", "StringNotEquals"):
        document = policy(allow(Condition={operator: {"ssm:resourceTag/SSHOwner": "me"}}))
        assert not allowed(document, Question("s3:GetObject", "arn:aws:s3:::b", context))


def test_every_operator_and_every_key_must_hold() -> None:
    document = policy(
        allow(Condition={"StringEquals": {"a:x": "1", "a:y": ["2", "3"]}, "Bool": {"a:z": "true"}})
    )
    assert allowed(document, asked(a__x="1", a__y="3", a__z="true"))
    for wrong in ({"a__x": "0"}, {"a__y": "1"}, {"a__z": "false"}):
        assert not allowed(document, asked(**{"a__x": "1", "a__y": "3", "a__z": "true", **wrong}))


def test_keys_have_no_case() -> None:
    assert allowed(policy(allow(Condition={"StringEquals": {"AWS:UserID": "x"}})), asked(aws__userid="x"))
    document = policy(allow(Condition={"StringEquals": {"aws:resourcetag/TAGKEY1": "v"}}))
    assert allowed(document, Question("a:B", "arn:aws:s3:::b", Context({"aws:ResourceTag/TagKey1": "v"})))


# ----------------------------------------------------------------------------------------------------- variables


def lookup(**values):
    return lambda key: values.get(key.replace(":", "__"))


def test_a_users_own_folder() -> None:
    """The guide's example of variables: a home directory by the name of the user."""
    document = policy(
        allow(
            Action="s3:ListBucket",
            Resource="arn:aws:s3:::amzn-s3-demo-bucket",
            Condition={"StringLike": {"s3:prefix": ["${aws:username}/*"]}},
        ),
        allow(
            Action=["s3:GetObject", "s3:PutObject"],
            Resource="arn:aws:s3:::amzn-s3-demo-bucket/${aws:username}/*",
        ),
    )
    bucket = "arn:aws:s3:::amzn-s3-demo-bucket"
    assert allowed(document, asked(resource=f"{bucket}/carlos/a/b", aws__username="carlos"))
    assert not allowed(document, asked(resource=f"{bucket}/martha/a", aws__username="carlos"))
    assert not allowed(document, asked(resource=f"{bucket}/a"))
    assert allowed(document, asked("s3:ListBucket", bucket, aws__username="carlos", s3__prefix="carlos/x"))
    assert not allowed(
        document, asked("s3:ListBucket", bucket, aws__username="carlos", s3__prefix="martha/x")
    )


def test_a_variable_without_a_value_equals_nothing() -> None:
    """ "Variables without values": not even itself, and the inverse operators match it."""
    keys = {"ssm:resourceTag/SSHOwner": "${aws:PrincipalTag/Owner}"}
    tag = {"ssm:resourceTag/SSHOwner": ""}
    for owner, found in (({}, False), ({"aws:PrincipalTag/Owner": ""}, True)):
        question = Question("a:B", "arn:aws:s3:::b", Context({**tag, **owner}))
        assert allowed(policy(allow(Condition={"StringEquals": keys})), question) is found
        assert allowed(policy(allow(Condition={"StringNotEquals": keys})), question) is not found


def test_the_default_of_a_variable() -> None:
    resource = "arn:aws:s3:::bucket/${aws:PrincipalTag/team, 'company-wide'}/*"
    document = policy(allow(Resource=resource))
    assert allowed(document, asked(resource="arn:aws:s3:::bucket/company-wide/x"))
    question = Question(
        "s3:GetObject", "arn:aws:s3:::bucket/yellow/x", Context({"aws:PrincipalTag/team": "yellow"})
    )
    assert allowed(document, question)
    assert not allowed(document, asked(resource="arn:aws:s3:::bucket/yellow/x"))


def test_wildcards_in_a_value_stand_for_themselves() -> None:
    document = policy(
        allow(
            Resource="arn:aws:s3:::bucket/${aws:userid}/*", Condition={"StringLike": {"a:k": "${aws:userid}"}}
        )
    )
    assert not allowed(document, asked(resource="arn:aws:s3:::bucket/other/x", aws__userid="*", a__k="*"))
    assert not allowed(document, asked(resource="arn:aws:s3:::bucket/*/x", aws__userid="*", a__k="anything"))
    assert allowed(document, asked(resource="arn:aws:s3:::bucket/*/x", aws__userid="*", a__k="*"))


def test_characters_that_are_escaped() -> None:
    pattern = Pattern("a${*}b${?}c${$}", variables=True)
    assert pattern.filled(lookup()) == "a*b?c$"
    assert pattern.matches("a*b?c$", lookup())
    assert not pattern.matches("axb?c$", lookup())


def test_a_colon_in_a_value_divides_no_arn() -> None:
    """aws:userid of a role is AROA...:NAME."""
    document = policy(allow(Resource="arn:aws:ssm:*:1:session/${aws:userid}-*"))
    resource = "arn:aws:ssm:eu:1:session/AROA1:jane-0a"
    assert allowed(document, asked(resource=resource, aws__userid="AROA1:jane"))
    assert not allowed(document, asked(resource=resource, aws__userid="AROA1:john"))


def test_the_old_version_has_no_variables() -> None:
    document = policy(allow(Resource="arn:aws:s3:::bucket/${aws:userid}"), version="2008-10-17")
    assert allowed(document, asked(resource="arn:aws:s3:::bucket/${aws:userid}", aws__userid="x"))
    assert not allowed(document, asked(resource="arn:aws:s3:::bucket/x", aws__userid="x"))


# ------------------------------------------------------------------------------------------- actions and resources


@pytest.mark.parametrize(
    ("pattern", "action", "expected"),
    [
        ("s3:GetObject", "s3:GetObject", True),
        ("S3:getobject", "s3:GetObject", True),
        ("s3:Get*", "s3:GetObject", True),
        ("s3:*", "s3:GetObject", True),
        ("s3:Get*", "s3:PutObject", False),
        ("s3:GetObject", "s3:GetObjectVersion", False),
        ("s3:?etObject", "s3:GetObject", True),
        ("*", "ssm:StartSession", True),
        ("iam:*AccessKey*", "iam:DeleteAccessKey", True),
        ("iam:*AccessKey*", "iam:ListUsers", False),
    ],
)
def test_actions(pattern, action, expected) -> None:
    assert allowed(policy(allow(Action=pattern)), asked(action)) is expected
    assert allowed(policy({"Effect": "Allow", "NotAction": pattern}), asked(action)) is not expected


@pytest.mark.parametrize(
    ("pattern", "resource", "expected"),
    [
        ("*", "arn:aws:s3:::b", True),
        ("arn:aws:s3:::b/*", "arn:aws:s3:::b/a/c", True),
        ("arn:aws:s3:::b/*", "arn:aws:s3:::b", False),
        ("arn:aws:s3:::B", "arn:aws:s3:::b", False),
        ("arn:aws:s3:::b/*/test/*", "arn:aws:s3:::b/1/2/test/x.jpg", True),
        ("arn:aws:s3:::b??/x", "arn:aws:s3:::b01/x", True),
        (
            "arn:aws:ssm:*::document/AWS-StartSSHSession",
            "arn:aws:ssm:eu-west-1::document/AWS-StartSSHSession",
            True,
        ),
        ("arn:aws:ssm:*::document/AWS-*", "arn:aws:ssm:eu-west-1:1:document/AWS-X", False),
        ("arn:aws:ssm:*:*:managed-instance/mi-*", "arn:aws:ssm:eu:1:managed-instance/mi-0", True),
        ("arn:aws:ssm:*:managed-instance/mi-*", "arn:aws:ssm:eu:1:managed-instance/mi-0", False),
        ("arn:*:ssm:eu:1:x", "arn:aws-cn:ssm:eu:1:x", True),
        # An ARN with fewer parts than six is completed with stars.
        ("arn:aws:sqs", "arn:aws:sqs:eu:1:queue", True),
        ("arn:aws:sqs:eu", "arn:aws:sqs:us:1:queue", False),
        ("arn:aws:logs:eu:1:log-group:/a/*", "arn:aws:logs:eu:1:log-group:/a/b:log-stream:c", True),
        ("arn:aws:s3:::b/k", "*", False),
    ],
)
def test_resources(pattern, resource, expected) -> None:
    assert allowed(policy(allow(Resource=pattern)), asked(resource=resource)) is expected
    document = parse(
        "p", {"Version": VERSION, "Statement": {"Effect": "Allow", "Action": "*", "NotResource": pattern}}
    )
    assert allowed(document, asked(resource=resource)) is not expected


@given(st.text(st.sampled_from("ab*?"), max_size=8), st.text(st.sampled_from("ab"), max_size=8))
def test_wildcards_are_those_of_a_shell(pattern, value) -> None:
    from fnmatch import fnmatchcase

    assert Pattern(pattern, variables=False).matches(value, lookup()) is fnmatchcase(value, pattern)


# ------------------------------------------------------------------------------------------------------ decisions


def test_nothing_is_allowed_by_default() -> None:
    decision = decide(Rights(), asked())
    assert (decision.allowed, decision.layer, decision.statement) == (False, IDENTITY, None)
    assert (
        decision.because("s3:GetObject") == "because no identity-based policy allows the s3:GetObject action"
    )


def test_an_explicit_deny_wins_wherever_it_is() -> None:
    everything = policy(allow(Sid="All"), name="all")
    denial = policy(deny(Sid="No", Action="s3:GetObject"), name="no")
    for rights, words in (
        (Rights((everything, denial)), "an identity-based policy"),
        (Rights((denial, everything)), "an identity-based policy"),
        (Rights((everything,), policy(allow(), deny(Sid="No"), name="no")), "a permissions boundary"),
        (Rights((everything,), None, (denial,)), "a service control policy"),
        (Rights((everything,), everything, (denial,)), "a service control policy"),
    ):
        decision = decide(rights, asked())
        assert not decision.allowed
        assert decision.statement.label == "no/No"
        assert decision.because("s3:GetObject") == f"with an explicit deny in {words}"
    assert decide(Rights((everything, denial)), asked("s3:PutObject")).allowed


def test_a_deny_whose_condition_does_not_hold_denies_nothing() -> None:
    document = policy(allow(), deny(Condition={"Bool": {"aws:SecureTransport": "false"}}))
    assert allowed(document, asked(aws__SecureTransport="true"))
    assert not allowed(document, asked(aws__SecureTransport="false"))
    assert allowed(document, asked())


def test_a_boundary_allows_nothing_and_limits_everything() -> None:
    wide, narrow = (
        policy(allow(Sid="W"), name="wide"),
        policy(allow(Sid="N", Action="s3:Get*"), name="narrow"),
    )
    assert decide(Rights((wide,), narrow), asked()).allowed
    assert decide(Rights((narrow,), wide), asked()).allowed
    decision = decide(Rights((wide,), narrow), asked("s3:PutObject"))
    assert (decision.allowed, decision.layer) == (False, BOUNDARY)
    assert decision.because("s3:PutObject").startswith("because no permissions boundary allows")
    assert decide(Rights((), wide), asked()).layer == IDENTITY


def test_service_control_policies_stand_beside_full_access() -> None:
    """A policy that only denies leaves the rest allowed: AWS's FullAWSAccess is attached besides."""
    denial = policy(deny(Action="ssm:SendCommand"), name="scp")
    rights = Rights((policy(allow()),), None, (denial,))
    assert decide(rights, asked()).allowed
    assert decide(rights, asked("ssm:SendCommand")).layer == GUARDRAIL


def test_the_statement_that_decided_and_the_others() -> None:
    rights = Rights((policy(allow(Sid="A", Action="s3:*"), allow(Sid="B")), policy(allow(Sid="C"), name="q")))
    decision = decide(rights, asked())
    assert decision.statement.label == "p/A"
    assert [each.label for each in decision.also] == ["p/B", "q/C"]
    assert decide(rights.without({"p/A", "p/B"}), asked()).statement.label == "q/C"
    assert not decide(rights.without({"p/A", "p/B", "q/C"}), asked()).allowed


def test_a_trust_policy() -> None:
    trust = parse(
        "trust",
        {
            "Version": VERSION,
            "Statement": {
                "Effect": "Allow",
                "Principal": {"Service": "ssm.amazonaws.com"},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"aws:SourceAccount": "1"}},
            },
        },
        trust=True,
    )
    assert trusts(trust, "ssm.amazonaws.com", Context({"aws:SourceAccount": "1"}))
    assert not trusts(trust, "ssm.amazonaws.com", Context({"aws:SourceAccount": "2"}))
    assert not trusts(trust, "sagemaker.amazonaws.com", Context({"aws:SourceAccount": "1"}))


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "not a policy document"),
        ({"Version": VERSION}, "no Statement"),
        ({"Version": VERSION, "Statement": []}, "no Statement"),
        ({"Version": "2026-01-01", "Statement": [allow(Resource="*")]}, "neither 2012-10-17 nor"),
        ({"Version": VERSION, "Statement": [allow(Resource="*")], "Extra": 1}, "not a policy document"),
        ({"Version": VERSION, "Statement": ["x"]}, "a statement is an object"),
    ],
)
def test_what_is_not_a_document(document, words) -> None:
    with pytest.raises(SmsshError, match=words):
        parse("p", document)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"Effect": "allow"}, "the Effect is Allow or Deny"),
        ({"Action": []}, "Action is a text"),
        ({"Action": "GetObject"}, "is not an action"),
        ({"Action": "s3:Get Object"}, "is not an action"),
        ({"NotAction": "s3:*"}, "Action or NotAction, and not both"),
        ({"NotResource": "*"}, "Resource or NotResource, and not both"),
        ({"Resource": "bucket"}, "neither an ARN nor"),
        ({"Resource": "arn:aws:s3:::${aws:userid"}, "not closed"),
        ({"Resource": "arn:aws:s3:::${}"}, "without a name"),
        ({"Principal": "*"}, "Principal is not an element"),
        ({"Conditions": {}}, "Conditions is not an element"),
        ({"Condition": {"StringEqual": {"aws:userid": "x"}}}, "no condition operator StringEqual"),
        ({"Condition": {"ForSomeValues:StringEquals": {"aws:userid": "x"}}}, "no condition operator"),
        ({"Condition": {"NullIfExists": {"aws:userid": "true"}}}, "no condition operator"),
        ({"Condition": {"ForAnyValue:Null": {"aws:userid": "true"}}}, "no condition operator"),
        ({"Condition": {"Bool": {"aws:SecureTransport": "yes"}}}, "neither true nor false"),
        ({"Condition": {"Null": {"aws:TagKeys": "maybe"}}}, "neither true nor false"),
        ({"Condition": {"NumericEquals": {"s3:max-keys": "ten"}}}, "not a number"),
        ({"Condition": {"DateEquals": {"aws:CurrentTime": "tomorrow"}}}, "not a date"),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "example.com"}}}, "not an address"),
        ({"Condition": {"StringEquals": {"aws:userid": {}}}}, "not a value"),
        ({"Condition": {"StringEquals": "x"}}, "object of operators"),
    ],
)
def test_a_statement_that_iam_refuses_is_refused(changes, words) -> None:
    written = {"Sid": "S", **allow(Resource="*"), **changes}
    with pytest.raises(SmsshError, match=words) as caught:
        parse("name", {"Version": VERSION, "Statement": [written]})
    assert caught.value.message.startswith("the local emulator cannot enforce name/S: ")


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ({"StringEquals": {"aws:SourceVpce": "x"}}, "condition key aws:SourceVpce"),
        ({"StringEqualsIfExists": {"aws:sourcevpce": "x"}}, "condition key aws:sourcevpce"),
        ({"StringEquals": {"aws:userid": "${aws:FederatedProvider}"}}, "condition key aws:FederatedProvider"),
        ({"StringEquals": {"ssm:resourceTag/": "x"}}, "condition key ssm:resourceTag/"),
        ({"StringEquals": {"aws:TagKeys": "x"}}, "needs ForAllValues or ForAnyValue"),
        ({"StringEquals": {"aws:userid": "${aws:TagKeys}"}}, "needs ForAllValues or ForAnyValue"),
    ],
)
def test_a_key_that_no_request_has_here_is_refused(conditions, words) -> None:
    with pytest.raises(SmsshError, match=words):
        check_keys(policy(allow(Condition=conditions)))


@pytest.mark.parametrize(
    "conditions",
    [
        {"Null": {"aws:TagKeys": "false"}, "ForAnyValue:StringEquals": {"AWS:tagkeys": "x"}},
        {"StringEquals": {"ssm:ResourceTag/SSHOwner": "${aws:PrincipalTag/Owner}"}},
    ],
)
def test_a_key_that_requests_have_here(conditions) -> None:
    check_keys(policy(allow(Condition=conditions)))


def test_json_with_a_member_twice_is_refused() -> None:
    with pytest.raises(SmsshError, match="a member is there twice"):
        parse_json("p", '{"StringEquals": {}, "StringEquals": {}}')
    with pytest.raises(SmsshError, match="not JSON"):
        parse_json("p", "{")


def test_two_statements_of_one_name_are_refused() -> None:
    with pytest.raises(SmsshError, match="two statements have this Sid"):
        policy(allow(Sid="A"), allow(Sid="A"))


def test_a_conditions_variables_are_known() -> None:
    read = condition("StringLike", "aws:userid", ["${aws:username}-*", "${*}", "x"], variables=True)
    assert read.variables == ("aws:username",)
