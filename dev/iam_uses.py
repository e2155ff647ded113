"""What each statement of the policies is needed for: the table in docs/iam.md, from requests that were recorded.

tests/e2e/test_iam.py runs everything on the local emulator, with exactly these policies enforced, and writes down what
IAM is asked. Here each statement is left out in turn, and the same questions are decided again.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Tuple

from smssh_plugin.local.iam.account import ACCOUNT, REGION, Account, Principal, read_account
from smssh_plugin.local.iam.documents import parse
from smssh_plugin.local.iam.evaluator import Context, Question, Rights, decide
from smssh_plugin.setup.files import write
from smssh_plugin.setup.parts import PARTS, Setup
from smssh_plugin.setup.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "BUCKET",
    "REQUESTS",
    "needed",
    "of_job",
    "read",
    "recorded",
    "section",
    "table",
    "write_policies",
    "write_requests",
]

REQUESTS = Path(__file__).with_name("iam_requests.json")
"""What was asked of IAM."""
BUCKET = f"sagemaker-{REGION}-{ACCOUNT}"
"""SageMaker's default bucket, where bundles are by default."""
ROLES = ("held", "native")
"""The roles of the jobs: those of the first are managed nodes, those of the second have remote debugging."""
_PLAN = Plan.make(
    account=ACCOUNT,
    job_roles=ROLES,
    features=("forward", "helper", "native", "repack", "shell"),
)
_NODE = f"arn:aws:ssm:{REGION}:{ACCOUNT}:managed-instance/mi-0"
_OWN_OBJECTS = [f"arn:aws:s3:::{BUCKET}/{place}" for place in ("churn*", "out/*")]
_OWN_DATA = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Sid": "Objects",
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:PutObject"],
            "Resource": _OWN_OBJECTS,
        },
        {
            "Sid": "List",
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": f"arn:aws:s3:::{BUCKET}",
            "Condition": {"StringLikeIfExists": {"s3:prefix": "churn*"}},
        },
    ],
}
_BESIDES = {who: {"policies": {"own-data": _OWN_DATA}} for who in ("ci", "job")}
"""What those who run jobs may do without smssh: read and store their data."""

Asked = Tuple[Dict[str, Any], Principal, Question]
"""A recorded request, who made it, and what it asks."""

NOT_ASKED = {
    "smssh-job/Repack": "SageMaker asks, in the job of a model step with `repack=True`; the run has none",
    "smssh-people/JobNames": "asked for a step whose job has capitals in its name and no node; the run's have nodes",
    "smssh-people/RemoteDebug": "`smssh remote-debug`; the run asks for remote debugging when it submits the job",
    "smssh-costs/OptionsGone": "`smssh costs` where a job's bundle has been deleted; those of the run are there",
    "smssh-cleanup/DeregisterHelper": "`smssh cleanup --include-helper`; the run has no node of sagemaker-ssh-helper",
}
"""Statements that nothing in the run is denied without, and why they are there all the same."""
BY_CHANCE = {
    "smssh-people/NativeNotYet": "`smssh connect` to a `native` host that has not announced its key: `s3:ListBucket`",
}
"""Statements that a run needs or not, by which of two is faster."""
_TAGS = {"aws:ResourceTag/SMSSH": "1", "ssm:resourceTag/SMSSH": "1"}
_RENAMED = {**_TAGS, "aws:TagKeys": ["SMSSHHostKey"], "aws:RequestTag/SMSSHHostKey": "x"}
GUARDS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "smssh-boundary/OwnerIsKnown": (
        "ssm:CreateActivation",
        f"arn:aws:ssm:{REGION}:{ACCOUNT}:*",
        {},
        "a job whose role may do everything makes a node without an owner",
    ),
    "smssh-boundary/KeepIdentity": (
        "ssm:AddTagsToResource",
        _NODE,
        _RENAMED,
        "such a job gives another host's node its own host key",
    ),
    "smssh-boundary/KeepRole": (
        "ssm:UpdateManagedInstanceRole",
        _NODE,
        _TAGS,
        "such a job gives a node another role",
    ),
    "smssh-scp/KeepIdentity": (
        "ssm:AddTagsToResource",
        _NODE,
        _RENAMED,
        "an administrator of the account gives a node another host key",
    ),
    "smssh-scp/KeepRole": (
        "ssm:UpdateManagedInstanceRole",
        _NODE,
        _TAGS,
        "an administrator gives a node another role",
    ),
    "smssh-scp/NoRunCommand": (
        "ssm:SendCommand",
        _NODE,
        _TAGS,
        "an administrator sends a command to a node by Run Command",
    ),
}
"""Statements that deny: a request that they deny to who may do everything, and what happens without them."""
_EVERYTHING = parse(
    "administrator",
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]},
)
_DROPPED = re.compile("aws:(?:currenttime|epochtime|requestedregion|securetransport|userid|principal.*)")
_KEPT = re.compile(r".*(?:/sshowner|/aws:.*|:tagkeys|^aws:[a-z]+|:passedtoservice|:prefix|check)$")
_IDS = (
    (re.compile(r"\bmi-[0-9a-f]{17}\b"), "mi-0"),
    (re.compile(r"\bsmssh-0[0-9a-f]{16}\b"), "smssh-0"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "DIGEST"),
    (re.compile(r"\b[0-9a-f]{8,40}\b"), "ID"),
    (re.compile(r"(pipelines-)\w+(-Train-)\w+"), r"\1ID\2ID"),
    (re.compile(r"(execution/)\w+"), r"\1ID"),
    (re.compile(r"(smssh/bundles/)[^/]+/(options\.json)$"), r"\1BUNDLE/\2"),
    (re.compile(r"(smssh/bundles/)(?!hosts/|repacked/|BUNDLE/)[^/]+(?:/.*)?$"), r"\1BUNDLE"),
)
_KEEP = (ACCOUNT,)

PAGE = """
## What each statement is needed for

The local emulator can [enforce these policies](local-emulator.md#iam). A test submits a job of two hosts that are held
together, logs in, opens a shell, releases them; logs in to a job with the `native` transport; lets `smssh debug` fix a
held step of a pipeline; sums the costs; and cleans up: with exactly these policies, and nothing is denied. What was
asked of IAM is kept. The table says what is denied if one statement is left out and the same requests are decided
again. Many of the statements are left out of the running emulator, too: what is denied, and what people are told, is
the same.

- People and CI are told to `ask for the permission ACTION on RESOURCE`.
- A job's log says `allow ACTION in the policy of the job's execution role`, and the job goes on without SSH. Where
  SageMaker asks in the job's name (`s3:ListBucket`, `s3:GetObject` on bundles), the job fails, and its FailureReason
  names the action.
- For a host's agent, the job's log says `the managed node's role may not ACTION`.

| statement | what is denied without it | its actions that the run does not ask for |
| --- | --- | --- |
"""
REST = """
Statements for keys of KMS, topics, logs of sessions and sources of keys are not in this run. AWS's own checks may
differ: see [what has been tested](aws.md#what-has-been-tested-without-an-aws-account).
"""


def write_policies(folder: Path) -> None:
    """Write the folder for `smssh local --iam`."""
    write(_setup(), ["json"], folder)
    (folder / "principals.json").write_text(json.dumps(_BESIDES), encoding="utf-8")


def of_job(entry: Mapping[str, Any]) -> str:
    """What somebody does who is not a person: a job, or a node."""
    if entry["principal"] == "node":
        return "the agent of a host"
    transport = "native" if "/native/" in entry["arn"] else "ssm"
    return f"a job with `{transport}`"


def recorded(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Entries as they are kept: each once, and without what is another in each run."""
    rows = {}
    for entry in entries:
        keys = {}
        for key, values in entry["keys"].items():
            if _DROPPED.fullmatch(key):
                continue
            keys[key] = sorted(_plain(value) for value in values) if _KEPT.fullmatch(key) else ["x"]
        row = {
            "what": entry["what"],
            "principal": entry["principal"],
            "role": entry["arn"].split("/")[1],
            "action": entry["action"],
            "resource": _plain(entry["resource"]),
            "keys": keys,
            "fatal": entry["fatal"],
        }
        rows[json.dumps(row, sort_keys=True)] = row
    return [rows[text] for text in sorted(rows)]


def read() -> list[dict[str, Any]]:
    """The recorded requests."""
    rows: list[dict[str, Any]] = json.loads(REQUESTS.read_text(encoding="utf-8"))
    return rows


def write_requests(rows: list[dict[str, Any]]) -> None:
    """Keep requests, one in a line."""
    lines = ",\n".join(json.dumps(row, sort_keys=True) for row in rows)
    REQUESTS.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def section() -> str:
    """The section of docs/iam.md."""
    return PAGE + table(read()) + REST


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each statement.

    Raises:
        ValueError: a statement is not needed and nobody says why it is there; or the other way round.
    """
    account = _account()
    asked = _asked(account, rows)
    for row, principal, question in asked:
        if row["fatal"] and not decide(principal.rights, question).allowed:
            raise ValueError(f"{row['what']}: {question.action} on {question.resource} is denied")
    lines = []
    for policy in account.policies.values():
        for statement in policy.statements:
            denied = _denied(statement.label, asked)
            said = _said(statement.label, denied, account, asked)
            unasked = sorted(
                each.text
                for each in statement.actions
                if not any(
                    each.matches(question.action, lambda _: None, any_case=True)
                    for _, principal, question in asked
                    if statement in [one for each in principal.rights.policies for one in each.statements]
                )
            )
            missing = [] if statement.denies or statement.label in NOT_ASKED else unasked
            if "*" in missing:
                missing = []
            lines.append(f"| `{statement.label}` | {said} | {', '.join(f'`{name}`' for name in missing)} |")
    return "\n".join(lines) + "\n"


def needed(rows: list[dict[str, Any]]) -> set[str]:
    """The statements without which something is denied, except for those of BY_CHANCE."""
    account = _account()
    asked = _asked(account, rows)
    labels = [each.label for policy in account.policies.values() for each in policy.statements]
    return {label for label in labels if label not in BY_CHANCE and _denied(label, asked)}


def _asked(account: Account, rows: list[dict[str, Any]]) -> list[Asked]:
    asked = []
    for row in rows:
        principal = _principal(account, row)
        keys = Context({**principal.keys, **row["keys"]})
        asked.append((row, principal, Question(row["action"], row["resource"], keys)))
    return asked


def _said(label: str, denied: dict[str, list[str]], account: Account, asked: list[Asked]) -> str:
    """What a line says of a statement."""
    if label in GUARDS:
        action, resource, keys, what = GUARDS[label]
        question = Question(action, resource, Context(keys))
        boundary = account.policies["boundary"] if "boundary" in label else None
        guardrails = (account.policies["scp"],) if "scp" in label else ()
        rights = Rights((_EVERYTHING,), boundary, guardrails)
        decision = decide(rights, question)
        assert decision.statement is not None
        if decision.statement.label != label or not decide(rights.without({label}), question).allowed:
            raise ValueError(f"{label} does not deny {action}")
        return f"denied by it: {what} (`{action}`)"
    if label in BY_CHANCE:
        return BY_CHANCE[label]
    if not denied:
        twice = _twice(label, asked)
        if twice:
            return f"nothing in this run: {twice}; who has this policy alone needs the statement"
        if label not in NOT_ASKED:
            raise ValueError(f"{label}: nothing is denied without it")
        return f"nothing in this run: {NOT_ASKED[label]}"
    if label in NOT_ASKED:
        raise ValueError(f"{label}: the run asks for it ({denied}), so NOT_ASKED is wrong")
    return "; ".join(
        f"{what}: {', '.join(f'`{each}`' for each in actions)}" for what, actions in denied.items()
    )


def _twice(label: str, asked: list[Asked]) -> str:
    """Who is allowed the same by other statements; "" where the statement allows nothing that was asked."""
    found = set()
    for row, principal, question in asked:
        decision = decide(principal.rights, question)
        allowing = [each.label for each in (decision.statement, *decision.also) if each is not None]
        if decision.allowed and label in allowing:
            others = " and ".join(f"`{each}`" for each in allowing if each != label)
            found.add(f"{row['principal']} is allowed `{question.action}` by {others} as well")
    return "; ".join(sorted(found))


def _denied(label: str, asked: list[Asked]) -> dict[str, list[str]]:
    """The actions that are denied without a statement, by what needs them."""
    found: dict[str, list[str]] = {}
    for row, principal, question in asked:
        if not decide(principal.rights, question).allowed:
            continue
        if not decide(principal.rights.without({label}), question).allowed:
            actions = found.setdefault(row["what"], [])
            if question.action not in actions:
                actions.append(question.action)
    return found


def _setup() -> Setup:
    return Setup(_PLAN, PARTS.keys() - {"tier"})


def _account() -> Account:
    with tempfile.TemporaryDirectory() as folder:
        write_policies(Path(folder))
        return read_account(Path(folder))


def _principal(account: Account, row: Mapping[str, Any]) -> Principal:
    if row["principal"] == "job":
        return account.job(f"arn:aws:iam::{ACCOUNT}:role/{row['role']}")
    if row["principal"] == "node":
        return account.node(row["role"], "mi-0")
    return account.client(row["principal"])


def _plain(text: str) -> str:
    for pattern, name in _IDS:
        text = pattern.sub(
            lambda found, name=name: found.group() if found.group() in _KEEP else found.expand(name), text
        )  # type: ignore[misc]
    return text
