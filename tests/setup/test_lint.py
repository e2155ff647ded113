"""Every policy as parliament sees it: actions, resource types and condition keys of IAM's reference."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import pytest

from smssh_plugin.setup.documents import documents
from tests.setup.samples import all_setups, statements, whole

FALSE_ALARMS = {
    # AWS's service authorization reference lists it for StartSession; parliament's data is older.
    ("Nodes", "UNKNOWN_CONDITION_FOR_ACTION", "ssm:SessionDocumentAccessCheck"),
    # The ARN of a session is reported in different forms; the condition on the session's id narrows it.
    ("OwnSessions", "RESOURCE_STAR", "ssm:TerminateSession"),
}
"""Statement, finding, and what its text has in it."""


def findings(statement: dict[str, Any]) -> list[tuple[str, str]]:
    """By itself: parliament ends at the first fault of a statement."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # of pkg_resources
        patch.setattr("sys.path", list(sys.path))  # pkg_resources changes it
        import parliament  # half a second, of which every worker that collects this file would take its own
    text = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    return [(each.issue, str(each.detail)) for each in parliament.analyze_policy_string(text).findings]


def alarms(sid: str, statement: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (issue, detail)
        for issue, detail in findings(statement)
        if not any(sid == one and issue == two and three in detail for one, two, three in FALSE_ALARMS)
    ]


def test_parliament_finds_nothing_else() -> None:
    seen: set[str] = set()
    for setup in all_setups():
        if setup.plan.partition != "aws":
            continue  # parliament knows the commercial one's ARNs; the others differ in nothing else
        for where, statement in statements(setup):
            text = json.dumps(statement, sort_keys=True)
            if text not in seen:
                seen.add(text)
                assert alarms(statement["Sid"], statement) == [], where
    assert len(seen) > 60


def test_what_a_statement_with_a_fault_hides_is_looked_at_without_it() -> None:
    (nodes,) = (each for where, each in statements(whole()) if where == "smssh-people Nodes")
    del nodes["Condition"]["BoolIfExists"]
    assert findings(nodes) == []


@pytest.mark.parametrize(
    "change",
    [
        {"Action": "ssm:MakeActivation"},
        {"Resource": "arn:aws:s3:::bucket"},
        {"Condition": {"StringEquals": {"ssm:Owner": "team"}}},
    ],
)
def test_it_would_find_something(change: dict[str, Any]) -> None:
    (activate,) = (each for where, each in statements(whole()) if where == "smssh-job Activate")
    assert findings({**activate, **change})


def test_false_alarms_are_still_raised() -> None:
    raised = {
        (statement["Sid"], issue) for _, statement in statements(whole()) for issue, _ in findings(statement)
    }
    assert raised == {(sid, issue) for sid, issue, _ in FALSE_ALARMS}


def test_every_document_of_the_commercial_partition_is_looked_at() -> None:
    names = {where.split()[0] for where, _ in statements(whole())}
    policies = {name for name, each in documents(whole()).items() if "Statement" in each}
    assert names == policies - {"smssh-node-trust"}
