"""The evaluator against an independent one: @cloud-copilot/iam-simulate, of npm.

SMSSH_TEST_IAM_SIMULATE names the node_modules that has it. No maintained package of PyPI evaluates conditions.
"""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

from smssh_plugin.local.iam.documents import parse
from smssh_plugin.local.iam.evaluator import Context, Question, Rights, decide
from tests import needs

CASES = 3_000
ACTIONS = ("s3:GetObject", "s3:PutObject", "ssm:StartSession")
RESOURCES = (
    "arn:aws:s3:::bucket/a/b",
    "arn:aws:s3:::bucket",
    "arn:aws:ssm:us-east-1:123456789012:managed-instance/mi-0",
    "arn:aws:ssm:us-east-1::document/AWS-StartSSHSession",
)
ACTION_PATTERNS = (
    "*",
    "s3:*",
    "s3:Get*",
    "S3:getobject",
    "ssm:StartSession",
    "ssm:?tartSession",
    "s3:PutObject",
)
RESOURCE_PATTERNS = (
    "*",
    "arn:aws:s3:::bucket/*",
    "arn:aws:s3:::bucket/${aws:userid}/*",
    "arn:aws:s3:::buck?t",
    "arn:aws:ssm:*:123456789012:managed-instance/mi-*",
    "arn:aws:ssm:*::document/AWS-*",
    "arn:aws:s3:::bucket/${aws:PrincipalTag/team, 'a'}/*",
)
TEXTS = ("a", "A", "ab", "team")
ARNS = ("arn:aws:ssm:us-east-1:1:x/y", "arn:aws:iam::1:role/x", "no arn")
NUMBERS = ("1", "10", "10.5")
DATES = ("2026-11-30T00:00:00Z", "2026-11-30", "2027-01-01T00:00:00Z")
ADDRESSES = ("203.0.113.9", "198.51.100.1")
# Keys by the type that AWS documents for them; then the values of requests, and of policies.
KINDS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "String": (
        "aws:userid",
        TEXTS,
        ("a", "ab", "a*", "?", "${aws:PrincipalTag/team}", "team", "*"),
        (
            "StringEquals",
            "StringNotEquals",
            "StringEqualsIgnoreCase",
            "StringNotEqualsIgnoreCase",
            "StringLike",
            "StringNotLike",
        ),
    ),
    "Tag": (
        "aws:PrincipalTag/team",
        TEXTS,
        ("a", "team", "${aws:userid}", "t*"),
        ("StringEquals", "StringNotEquals", "StringLike", "StringNotLike"),
    ),
    "Arn": (
        "aws:SourceArn",
        ARNS[:2],
        ("arn:aws:ssm:*:1:*", "arn:aws:iam::1:role/?", "arn:aws:iam::1:role/x"),
        ("ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike"),
    ),
    "Bool": ("aws:SecureTransport", ("true", "false"), ("true", "false"), ("Bool",)),
    "Numeric": (
        "s3:max-keys",
        NUMBERS,
        NUMBERS,
        ("NumericEquals", "NumericNotEquals", "NumericLessThan", "NumericGreaterThanEquals"),
    ),
    "Date": (
        "aws:CurrentTime",
        DATES,
        DATES,
        ("DateEquals", "DateNotEquals", "DateLessThan", "DateGreaterThanEquals"),
    ),
    "Ip": (
        "aws:SourceIp",
        ADDRESSES,
        ("203.0.113.0/24", "198.51.100.1/32", "203.0.0.0/16"),
        ("IpAddress", "NotIpAddress"),
    ),
}
TAG_KEYS = ("SSHOwner", "SMSSH", "Other")


def condition(draw: random.Random) -> dict[str, Any]:
    if draw.random() < 0.3:
        operator = draw.choice(
            (
                "ForAllValues:StringEquals",
                "ForAnyValue:StringEquals",
                "ForAnyValue:StringLike",
                "ForAllValues:StringLike",
            )
        )
        return {operator: {"aws:TagKeys": draw.sample(TAG_KEYS, draw.randint(1, 3))}}
    key, _, wanted, operators = draw.choice(list(KINDS.values()))
    if draw.random() < 0.15:
        return {"Null": {draw.choice((key, "aws:TagKeys")): draw.choice(("true", "false"))}}
    operator = draw.choice(operators) + draw.choice(("", "", "IfExists"))
    return {operator: {key: draw.sample(wanted, draw.randint(1, 2))}}


def statement(draw: random.Random) -> dict[str, Any]:
    made: dict[str, Any] = {"Effect": draw.choice(("Allow", "Allow", "Deny"))}
    action = "NotAction" if draw.random() < 0.15 else "Action"
    resource = "NotResource" if draw.random() < 0.15 else "Resource"
    made[action] = draw.sample(ACTION_PATTERNS, draw.randint(1, 2))
    made[resource] = draw.sample(RESOURCE_PATTERNS, draw.randint(1, 2))
    conditions: dict[str, Any] = {}
    for _ in range(draw.randint(0, 2)):
        conditions.update(condition(draw))
    return {**made, "Condition": conditions} if conditions else made


def policy(draw: random.Random) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": [statement(draw) for _ in range(draw.randint(1, 3))]}


def case(draw: random.Random) -> dict[str, Any]:
    context: dict[str, Any] = {
        key: draw.choice(found) for key, found, _, _ in KINDS.values() if draw.random() < 0.7
    }
    if draw.random() < 0.7:
        context["aws:TagKeys"] = draw.sample(TAG_KEYS, draw.randint(1, 3))
    return {
        "action": draw.choice(ACTIONS),
        "resource": draw.choice(RESOURCES),
        "context": context,
        "policies": [policy(draw) for _ in range(draw.randint(1, 2))],
        "boundary": policy(draw) if draw.random() < 0.3 else None,
    }


def disputed(one: dict[str, Any]) -> bool:
    """Whether a variable without a value stands in NotResource or with a negated operator.

    AWS documents that it equals no value and that the inverse operators match it (IAM user guide, "Variables and
    tags"); iam-simulate lets such a statement match nothing.
    """
    have = {key.lower() for key in one["context"]}
    missing = [f"${{{key}}}" for key in ("aws:userid", "aws:PrincipalTag/team") if key.lower() not in have]
    every = [
        each
        for document in (*one["policies"], one["boundary"] or {})
        for each in document.get("Statement", ())
    ]
    texts = [text for each in every for text in each.get("NotResource", ())]
    texts += [
        value
        for each in every
        for operator, keys in each.get("Condition", {}).items()
        if "Not" in operator
        for values in keys.values()
        for value in values
    ]
    return any(name in text for text in texts for name in missing)


def ours(one: dict[str, Any]) -> bool:
    rights = Rights(
        tuple(parse(str(number), document) for number, document in enumerate(one["policies"])),
        parse("boundary", one["boundary"]) if one["boundary"] else None,
    )
    return decide(rights, Question(one["action"], one["resource"], Context(one["context"]))).allowed


def test_another_evaluator_decides_alike() -> None:
    folder = needs.program("iam-simulate")
    draw = random.Random(20261130)
    cases = [one for one in (case(draw) for _ in range(CASES)) if not disputed(one)]
    done = subprocess.run(
        ["node", Path(__file__).with_name("simulate.mjs"), folder],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = [result == "Allowed" for result in json.loads(done.stdout)]
    assert 0.05 < sum(theirs) / len(cases) < 0.95
    different = [
        {**one, "theirs": allowed}
        for one, allowed in zip(cases, theirs, strict=True)
        if ours(one) is not allowed
    ]
    assert not different, json.dumps(different[:3], indent=1)
