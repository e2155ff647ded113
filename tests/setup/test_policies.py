"""The policies as data: what they must allow, what they must not, and the traps of IAM that they keep clear of."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.container import managed_node, ssm_agent
from smssh_plugin.hooks import hosts
from smssh_plugin.hookspecs import Job
from smssh_plugin.session import lifetime
from smssh_plugin.setup import policies
from smssh_plugin.setup.documents import documents
from smssh_plugin.setup.notes import notes
from smssh_plugin.setup.owners import SCHEMES, TAG
from smssh_plugin.setup.parts import PARTS, Setup
from smssh_plugin.setup.plan import FEATURES, Plan
from tests.container.agents import context
from tests.setup.samples import ACCOUNT, all_setups, everything, listed, statements, whole

if TYPE_CHECKING:
    from pathlib import Path

SETUPS = list(all_setups())
EVERY = [(where, each) for setup in SETUPS for where, each in statements(setup)]
PLAIN = Plan.make(account=ACCOUNT)


def actions(setup: Setup, name: str) -> set[str]:
    return {action for each in documents(setup)[name]["Statement"] for action in listed(each["Action"])}


def by_sid(plan: Plan, part: str) -> dict[str, Any]:
    document = documents(Setup(plan, [part]))[f"smssh-{part}"]
    return {each["Sid"]: each for each in document["Statement"]}


@pytest.mark.parametrize("setup", SETUPS)
def test_every_document_is_whole(setup: Setup) -> None:
    for name, document in documents(setup).items():
        text = json.dumps(document)
        assert json.loads(text) == document
        assert not re.search(r"(?<!\$)\{[a-z]+\}", text), name
        if "Statement" in document and not name.endswith("-trust"):
            sids = [each["Sid"] for each in document["Statement"]]
            assert len(sids) == len(set(sids)), name
            assert all(re.fullmatch("[A-Za-z0-9]+", sid) for sid in sids)
            assert all(listed(each["Action"]) and listed(each["Resource"]) for each in document["Statement"])


@pytest.mark.parametrize("setup", SETUPS)
def test_every_arn_is_of_the_partition_and_the_account(setup: Setup) -> None:
    for where, statement in statements(setup):
        for resource in listed(statement["Resource"]):
            if resource != "*":
                _, partition, service, _, account, name = resource.split(":", 5)
                assert partition == setup.plan.partition, where
                public = service == "s3" or name.startswith("document/AWS-")
                assert account == ("" if public else ACCOUNT), where


def test_the_node_can_be_logged_in_to_and_nothing_else() -> None:
    setup = Setup(PLAIN, ["node"])
    assert actions(setup, "smssh-node-policy") == set(ssm_agent.NODE_ACTIONS)
    document = documents(setup)["smssh-node-trust"]
    assert len(json.dumps(document)) < 2_048  # a quota of IAM
    (trust,) = document["Statement"]
    assert trust["Principal"] == {"Service": "ssm.amazonaws.com"}
    assert trust["Action"] == "sts:AssumeRole"
    assert trust["Condition"] == {
        "StringEquals": {"aws:SourceAccount": ACCOUNT},
        "ArnLike": {"aws:SourceArn": f"arn:aws:ssm:*:{ACCOUNT}:*"},
    }


def test_the_keys_of_tags_are_those_that_the_code_writes(tmp_path: Path) -> None:
    job = Job("job", "training", "algo-1", step="Step", hosts=("algo-1", "algo-2"))
    made = context(tmp_path, job=job)
    made.settings = dataclasses.replace(made.settings, owner="team", hold_hosts="all")
    assert made.server is not None
    made.server = dataclasses.replace(made.server, control_port=2223)
    assert set(managed_node.tags(made)) == set(policies.ACTIVATION_KEYS)
    own = {hosts.TAG, hosts.PHASE, hosts.COURSE, hosts.FIRST, "SMSSHState"}
    assert own == set(policies.STATE_KEYS)
    assert not own & set(policies.IDENTITY_KEYS)


def test_the_documents_are_those_that_the_code_starts() -> None:
    assert policies.SSH_DOCUMENT == lifetime.SSH_DOCUMENT
    assert policies.FORWARD_DOCUMENTS == (lifetime.FORWARD_DOCUMENT, lifetime.REMOTE_DOCUMENT)
    named = " ".join(listed(by_sid(everything(), "people")["Documents"]["Resource"]))
    assert lifetime.COMMAND_DOCUMENT in named
    plain = listed(by_sid(PLAIN, "people")["Documents"]["Resource"])
    assert plain == ["arn:aws:ssm:*::document/AWS-StartSSHSession"]


def test_no_condition_on_tags_stands_with_documents() -> None:
    """Documents have no tags of nodes: it would deny every one of them."""
    for where, statement in EVERY:
        if any(":document/" in each for each in listed(statement["Resource"])):
            assert "Condition" not in statement, where


def test_a_condition_on_all_keys_asks_that_there_is_one() -> None:
    """`ForAllValues` is true for a request that has none."""
    for where, statement in EVERY:
        conditions = statement.get("Condition", {})
        for operator, keys in conditions.items():
            if operator.startswith("ForAllValues") and statement["Effect"] == "Allow":
                for key in keys:
                    assert conditions.get("Null", {}).get(key) == "false", where


WIDE = {
    "ssm:DescribeActivations",
    "ssm:CreateActivation",  # narrowed by conditions
    "ssm:DeleteActivation",
    "ssm:DescribeInstanceInformation",
    "ssm:ResumeSession",
    "ssm:StartSession",  # to hosts of SageMaker's own, narrowed by a condition
    "ssm:TerminateSession",
    "ssm:UpdateInstanceInformation",
    "logs:DescribeLogGroups",
    "pricing:GetProducts",
    "sagemaker:ListPipelines",
    "sagemaker:ListProcessingJobs",
    "sagemaker:ListTrainingJobs",
    "sagemaker:ListTransformJobs",
    *policies.CHANNELS,
}
"""What IAM cannot narrow to an ARN, or whose ARN is not known."""


def test_what_can_be_narrowed_is() -> None:
    for where, statement in EVERY:
        if statement["Effect"] == "Allow" and "boundary" not in where:
            assert not any("*" in action for action in listed(statement["Action"])), where
            if "*" in listed(statement["Resource"]):
                assert set(listed(statement["Action"])) <= WIDE, where
            if "iam:PassRole" in listed(statement["Action"]):
                assert statement["Condition"]["StringEquals"]["iam:PassedToService"], where
                assert not any("*" in each for each in listed(statement["Resource"])), where


def test_a_bucket_that_is_a_pattern_must_be_of_the_account() -> None:
    for where, statement in EVERY:
        for resource in listed(statement["Resource"]):
            if resource.split(":")[2:3] == ["s3"] and "*" in resource.partition(":::")[2].partition("/")[0]:
                assert statement["Condition"]["StringEquals"]["aws:ResourceAccount"] == ACCOUNT, where


def test_nothing_is_granted_twice_by_one_name() -> None:
    """A statement for each thing, none of another's resources: native's and repacking's are only there if asked for."""
    plain = actions(Setup(PLAIN, ["job"]), "smssh-job")
    assert not {each for each in plain if each.startswith(("ssmmessages:", "kms:", "sns:"))}
    assert "s3:PutObject" not in plain
    assert "sagemaker:UpdateTrainingJob" not in actions(Setup(PLAIN, ["people"]), "smssh-people")


@pytest.mark.parametrize("name", SCHEMES)
def test_owner_and_person_are_compared(name: str) -> None:
    scheme = SCHEMES[name]
    plan = everything(scheme=name)
    person, job = by_sid(plan, "people"), by_sid(plan, "job")
    assert person["Nodes"]["Condition"]["StringEquals"] == {f"ssm:resourceTag/{TAG}": scheme.value}
    activate, state, end = (job[sid]["Condition"] for sid in ("Activate", "TagState", "End"))
    if scheme.binds_jobs:
        assert activate["StringEquals"] == {f"aws:RequestTag/{TAG}": scheme.value}
        assert state["StringEquals"] == {f"aws:ResourceTag/{TAG}": scheme.value}
        assert end["StringEquals"] == {f"ssm:resourceTag/{TAG}": scheme.value}
    else:
        assert activate["Null"][f"aws:RequestTag/{TAG}"] == "false"
        assert state["Null"]["aws:ResourceTag/SMSSH"] == "false"
        assert end == {"Null": {"ssm:resourceTag/SMSSH": "false"}}
    assert activate["Null"]["aws:RequestTag/SMSSHJob"] == "false"


def test_a_role_that_must_be_trusted_to_hand_on_the_owner_gets_a_statement_and_nothing_else() -> None:
    found = {name: documents(whole(scheme=name)).get("smssh-job-trust-statement") for name in SCHEMES}
    assert found["team"] is None
    assert found["caller"] is None
    assert found["session-tag"]["Action"] == ["sts:AssumeRole", "sts:TagSession"]
    assert found["source-identity"]["Action"] == ["sts:AssumeRole", "sts:SetSourceIdentity"]


def test_deny_statements_touch_only_nodes_of_smssh() -> None:
    """A guardrail for a whole organization must leave the hybrid nodes of others as they are."""
    for where, statement in EVERY:
        if statement["Effect"] == "Deny" and "OwnerIsKnown" not in where:
            assert all(":managed-instance/" in each for each in listed(statement["Resource"])), where
            conditions = statement["Condition"]
            keys = conditions.get("ForAnyValue:StringEquals", {}).get("aws:TagKeys")
            assert keys == list(policies.IDENTITY_KEYS) or conditions == {
                "Null": {"ssm:resourceTag/SMSSH": "false"}
            }, where


def test_a_document_of_ones_own_is_allowed_with_it() -> None:
    for parts, there in ((["people"], False), (["people", "document"], True)):
        (documents_,) = (
            each
            for each in documents(Setup(PLAIN, parts))["smssh-people"]["Statement"]
            if each["Sid"] == "Documents"
        )
        mine = f"arn:aws:ssm:*:{ACCOUNT}:document/smssh-ssh"
        assert (mine in listed(documents_["Resource"])) is there


def test_every_part_has_something() -> None:
    for part in PARTS:
        plan = Plan.make(account=ACCOUNT, job_roles=["plain"])
        assert documents(Setup(plan, [part])), part


def test_who_enters_native_hosts_can_be_told_that_there_is_no_key_yet() -> None:
    """S3 answers 404 for an object that is not there only to who may list the bucket, whatever the prefix."""
    native = by_sid(Plan.make(account=ACCOUNT, features=["native"], bundle_prefix="s3://mine/x"), "people")
    assert native["NativeNotYet"]["Resource"] == "arn:aws:s3:::mine"
    assert "Condition" not in native["NativeNotYet"]


def test_every_feature_adds_something() -> None:
    parts = ["cleanup", "job", "people"]
    base = documents(Setup(PLAIN, parts))
    for feature in FEATURES:
        plan = Plan.make(account=ACCOUNT, features=[feature])
        assert documents(Setup(plan, parts)) != base, feature


def test_ci_may_run_every_kind_of_job_and_upsert_pipelines_with_tags() -> None:
    statements = by_sid(Plan.make(account=ACCOUNT, job_roles=["Jobs"]), "ci")
    # The SDK's Pipeline.upsert reads the tags of a pipeline that is there.
    assert {"sagemaker:ListTags", "sagemaker:AddTags"} <= set(statements["Pipelines"]["Action"])
    jobs = statements["Jobs"]
    assert "sagemaker:CreateHyperParameterTuningJob" in jobs["Action"]
    assert f"arn:aws:sagemaker:*:{ACCOUNT}:hyper-parameter-tuning-job/*" in jobs["Resource"]


def test_roles_that_json_does_not_attach_to_are_named() -> None:
    setup = Setup(Plan.make(account=ACCOUNT, job_roles=["service-role/Jobs"]), ["job"])
    wanted = "attach smssh-job to Jobs by hand: JSON attaches nothing"
    assert wanted in notes(setup, ["json"])
    for forms in (["cloudformation"], ["terraform"], ["json", "cloudformation"]):
        assert wanted not in notes(setup, forms)
