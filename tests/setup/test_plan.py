"""What an administrator can type wrong, each said in one line; and policies that AWS would not take."""

from __future__ import annotations

import re
from typing import Any

import pytest

from smssh_plugin.errors import ExitStatus, SmsshError
from smssh_plugin.setup.documents import documents
from smssh_plugin.setup.owners import owner_scheme
from smssh_plugin.setup.parts import Setup
from smssh_plugin.setup.plan import PARTITIONS, Plan, RoleName, partition_of
from tests.setup.samples import ACCOUNT, everything

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "account": ({"account": "12345"}, "'12345' is not an account id"),
    "partition": ({"partition": "aws-iso"}, "there are no policies for the partition 'aws-iso'"),
    "name": ({"name": "my team"}, "'my team' cannot be the beginning of names"),
    "reserved name": ({"name": "Amazon"}, "'Amazon' cannot be the beginning of names"),
    "feature": ({"features": ["telnet"]}, "'telnet' is not a feature"),
    "role": ({"job_roles": ["a role"]}, "'a role' is not the name of a role"),
    "long role": ({"job_roles": ["r" * 65]}, f"'{'r' * 65}' is not the name of a role"),
    "pattern of roles": ({"job_roles": ["*"]}, "'*' is not the name of a role"),
    "variable in a role": ({"job_roles": ["${aws:username}"]}, "'${aws:username}' is not the name of a role"),
    "variable in a path": (
        {"job_roles": ["${aws:username}/x"]},
        "'${aws:username}/x' is not the name of a role",
    ),
    "ARN of a user": (
        {"job_roles": [f"arn:aws:iam::{ACCOUNT}:user/me"]},
        f"'arn:aws:iam::{ACCOUNT}:user/me' is not the ARN of a role",
    ),
    "account in digits of another script": (
        {"job_roles": ["arn:aws:iam::" + "\u0661" * 12 + ":role/x"]},
        "'arn:aws:iam::" + "\u0661" * 12 + ":role/x' is not the ARN of a role",
    ),
    "role of another partition": (
        {"job_roles": [f"arn:aws-cn:iam::{ACCOUNT}:role/x"]},
        f"'arn:aws-cn:iam::{ACCOUNT}:role/x' is of the partition aws-cn, and the policies are for aws",
    ),
    "role of another account": (
        {"job_roles": ["arn:aws:iam::999999999999:role/x"]},
        f"'arn:aws:iam::999999999999:role/x' is of account 999999999999, and the policies are for {ACCOUNT}",
    ),
    "node role with a long path": (
        {"node_role": f"{'p' * 40}/{'n' * 30}"},
        f"the node role '{'p' * 40}/{'n' * 30}' has 71 characters with its path, and CreateActivation takes 64",
    ),
    "no prefix": ({"bundle_prefix": "s3://bucket"}, "'s3://bucket' is not a place for bundles"),
    "no bucket": ({"bundle_prefix": "bucket/prefix"}, "'bucket/prefix' is not a place for bundles"),
    "pattern in a prefix": ({"bundle_prefix": "s3://bucket/*"}, "'s3://bucket/*' is not a place for bundles"),
    "variable in a prefix": (
        {"bundle_prefix": "s3://bucket/${aws:userid}"},
        "'s3://bucket/${aws:userid}' is not a place for bundles",
    ),
    "pattern of buckets": ({"bundle_prefix": "s3://b*t/x"}, "'s3://b*t/x' is not a place for bundles"),
    "quotes": ({"bundle_prefix": 's3://bucket/"x'}, "'s3://bucket/\"x' is not a place for bundles"),
    "key": ({"bucket_keys": ["alias/mine"]}, "'alias/mine' is not the ARN of a key of KMS"),
    "alias": (
        {"session_keys": [f"arn:aws:kms:us-east-1:{ACCOUNT}:alias/mine"]},
        f"'arn:aws:kms:us-east-1:{ACCOUNT}:alias/mine' is not the ARN of a key of KMS",
    ),
    "topic": (
        {"topics": [f"arn:aws:sqs:us-east-1:{ACCOUNT}:q"]},
        f"'arn:aws:sqs:us-east-1:{ACCOUNT}:q' is not the ARN of a topic",
    ),
    "topic of another partition": (
        {"topics": [f"arn:aws-cn:sns:cn-north-1:{ACCOUNT}:t"]},
        f"'arn:aws-cn:sns:cn-north-1:{ACCOUNT}:t' is of the partition aws-cn, and the policies are for aws",
    ),
    "log": ({"session_logs": ["/var/log"]}, "'/var/log' is not the ARN of a place of session logs"),
    "every object": (
        {"key_sources": ["arn:aws:s3:::*"]},
        "'arn:aws:s3:::*' is not the ARN of a source of keys",
    ),
    "a whole bucket": (
        {"key_sources": ["arn:aws:s3:::keys"]},
        "'arn:aws:s3:::keys' is not the ARN of a source of keys",
    ),
    "objects of any bucket": (
        {"session_logs": ["arn:aws:s3:::*/logs"]},
        "'arn:aws:s3:::*/logs' is not the ARN of a place of session logs",
    ),
    "every key": (
        {"bucket_keys": [f"arn:aws:kms:us-east-1:{ACCOUNT}:key/*"]},
        f"'arn:aws:kms:us-east-1:{ACCOUNT}:key/*' is not the ARN of a key of KMS",
    ),
    "owner of a bucket": (
        {"bundle_prefix": "s3://bucket/x?owner=me"},
        "'s3://bucket/x?owner=me' does not name an account: 'me' is not twelve digits",
    ),
    "role of a service": (
        {"job_roles": ["aws-service-role/sagemaker.amazonaws.com/AWSServiceRoleForSageMaker"]},
        (
            "'aws-service-role/sagemaker.amazonaws.com/AWSServiceRoleForSageMaker' is a role of AWS's own, "
            "to which no policy can be attached"
        ),
    ),
    "role of Identity Center": (
        {"job_roles": [f"arn:aws:iam::{ACCOUNT}:role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_A"]},
        (
            f"'arn:aws:iam::{ACCOUNT}:role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_A' is a role of AWS's own, to "
            "which no policy can be attached"
        ),
    ),
    "ARN of a session": (
        {"job_roles": [f"arn:aws:sts::{ACCOUNT}:assumed-role/x/me"]},
        f"'arn:aws:sts::{ACCOUNT}:assumed-role/x/me' is not the ARN of a role",
    ),
    "every parameter": (
        {"key_sources": [f"arn:aws:ssm:us-east-1:{ACCOUNT}:parameter/*"]},
        f"'arn:aws:ssm:us-east-1:{ACCOUNT}:parameter/*' is not the ARN of a source of keys",
    ),
    "every log group": (
        {"session_logs": [f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:*"]},
        f"'arn:aws:logs:us-east-1:{ACCOUNT}:log-group:*' is not the ARN of a place of session logs",
    ),
    "keys": ({"key_sources": ["github:me"]}, "'github:me' is not the ARN of a source of keys"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_named(name: str) -> None:
    answers, message = WRONG[name]
    with pytest.raises(SmsshError) as caught:
        Plan.make(**{"account": ACCOUNT, **answers})
    assert caught.value.message == message
    assert caught.value.hint
    assert caught.value.status is ExitStatus.USAGE


@pytest.mark.parametrize(
    ("text", "role"),
    [
        ("plain", RoleName("plain")),
        ("service-role/Name", RoleName("Name", "/service-role/")),
        ("/a/b/Name", RoleName("Name", "/a/b/")),
        (f"arn:aws:iam::{ACCOUNT}:role/service-role/Name", RoleName("Name", "/service-role/")),
        ("a+b=c,d.e@f-g_h", RoleName("a+b=c,d.e@f-g_h")),
    ],
)
def test_a_role_is_named_with_its_path_or_by_its_arn(text: str, role: RoleName) -> None:
    plan = Plan.make(account=ACCOUNT, job_roles=[text, text], node_role=text)
    assert plan.job_roles == (role,)
    assert plan.node_role == role
    passed = documents(Setup(plan, ["ci"]))["smssh-ci"]["Statement"][-1]["Resource"]
    assert passed == f"arn:aws:iam::{ACCOUNT}:role{role.path}{role.name}"


@pytest.mark.parametrize(
    ("team", "why"),
    [
        ("", "it is empty"),
        ("a*b", "no tag can hold '*'"),
        ("${x}", "no tag can hold"),
        ("x" * 257, "257 characters"),
    ],
)
def test_a_team_is_what_a_tag_can_hold(team: str, why: str) -> None:
    with pytest.raises(SmsshError, match="cannot be an owner") as caught:
        owner_scheme("team", team)
    assert why in caught.value.message


def test_a_place_may_name_its_owner_as_the_option_does() -> None:
    plan = Plan.make(account=ACCOUNT, bundle_prefix=f"s3://bucket/some/where/?owner={ACCOUNT}")
    assert (plan.bucket, plan.prefix) == ("bucket", "some/where")


def test_a_region_that_does_not_exist_is_named() -> None:
    with pytest.raises(SmsshError, match="'nonsense' is not an AWS region"):
        partition_of("nonsense")


def test_a_scheme_that_does_not_exist_is_named() -> None:
    with pytest.raises(SmsshError, match="'everybody' is not an owner scheme"):
        owner_scheme("everybody")


@pytest.mark.parametrize(("partition", "region"), PARTITIONS.items())
def test_the_partition_is_that_of_the_region(partition: str, region: str) -> None:
    assert partition_of(region) == partition


def test_a_partition_without_policies_is_named() -> None:
    with pytest.raises(SmsshError, match="there are no policies for us-iso-east-1: its partition is aws-iso"):
        partition_of("us-iso-east-1")


def test_a_ci_must_name_the_roles_that_it_passes() -> None:
    with pytest.raises(SmsshError, match="the policy for CI must name the roles"):
        Setup(Plan.make(account=ACCOUNT), ["ci"])


def test_the_largest_setups_fit() -> None:
    long = "x" * 256
    plan = everything(job_roles=["r" * 64], owner=owner_scheme("team", long), name="n" * 32)
    assert documents(Setup(plan, ["node", "job", "submit", "people", "ci", "boundary", "scp"]))


TOPIC, KEY = (f"arn:aws:{kind}:eu-west-1:{ACCOUNT}:" for kind in ("sns", "kms"))
LARGE: dict[str, tuple[str, list[str], int, str]] = {
    "ci": ("job_roles", [f"{n:064}" for n in range(70)], 6_144, "a managed policy"),
    "job": ("topics", [f"{TOPIC}{n:0100}" for n in range(40)], 6_144, "a managed policy"),
    "node": (
        "session_keys",
        [f"{KEY}key/{n:0200}" for n in range(45)],
        10_240,
        "the inline policies of a role",
    ),
}


def refusal(part: str, field: str, entries: list[str]) -> SmsshError | None:
    try:
        Setup(Plan.make(account=ACCOUNT, **{field: entries}), [part])
    except SmsshError as error:
        return error
    return None


@pytest.mark.parametrize("part", LARGE)
def test_a_policy_that_iam_would_refuse_is_named(part: str) -> None:
    """With one entry more than fits, by the size without white space."""
    field, entries, limit, kind = LARGE[part]
    refused = [refusal(part, field, entries[:count]) for count in range(1, len(entries) + 1)]
    first = next(error for error in refused if error is not None)
    index = refused.index(first)
    assert index > 0
    assert first.reference == "policy-too-large"
    assert first.message.endswith(f" characters, and {kind} may have {limit:,}")
    size = int(re.search(r"would have ([\d,]+)", first.message)[1].replace(",", ""))  # type: ignore[index]
    one = len(f'"arn:aws:iam::{ACCOUNT}:role/",') + 64 if part == "ci" else len(f'"{entries[0]}",')
    assert limit < size <= limit + one
