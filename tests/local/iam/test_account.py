"""The folder of `smssh local --iam`: what is read, who there is, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.errors import SmsshError
from smssh_plugin.local.iam.account import CLIENTS, read_account
from smssh_plugin.local.iam.evaluator import Context, Question, decide
from smssh_plugin.setup.files import write
from smssh_plugin.setup.owners import SCHEMES
from smssh_plugin.setup.parts import PARTS, Setup
from smssh_plugin.setup.plan import FEATURES, Plan
from tests.setup.samples import all_setups, everything

if TYPE_CHECKING:
    from pathlib import Path

    from smssh_plugin.local.iam.account import Account, Principal

EVERY = list(all_setups())
ACCOUNT = "123456789012"


def allowed(principal: Principal, action: str, resource: str = "*", **keys: Any) -> bool:
    named = {key.replace("__", ":"): value for key, value in keys.items()}
    question = Question(action, resource, Context({**principal.keys, **named}))
    return decide(principal.rights, question).allowed


def labels(account: Account) -> list[str]:
    return [each.label for policy in account.policies.values() for each in policy.statements]


def written(folder: Path, plan: Plan | None = None, parts: Any = PARTS) -> Path:
    write(Setup(plan or everything(), parts), ["json"], folder)
    return folder


@pytest.mark.parametrize("setup", EVERY, ids=range(len(EVERY)))
def test_every_setup_can_be_enforced(setup: Setup, tmp_path: Path) -> None:
    write(setup, ["json"], tmp_path)
    account = read_account(tmp_path)
    assert set(account.policies) == set(PARTS) - {"tier", "document"}
    assert account.node_role == setup.plan.node_role.name
    assert account.session_documents.keys() == {f"{setup.plan.name}-ssh"}


def test_a_folder_of_several_formats_and_the_json_in_it(tmp_path: Path) -> None:
    write(Setup(everything(), PARTS), ["json", "cloudformation", "terraform"], tmp_path)
    whole, part = read_account(tmp_path), read_account(tmp_path / "json")
    assert labels(whole) == labels(part)


def test_who_gets_what(tmp_path: Path) -> None:
    account = read_account(written(tmp_path))
    person, ci, cleanup, costs = (account.client(name) for name in CLIENTS)
    job = account.job(f"arn:aws:iam::{ACCOUNT}:role/service-role/x")
    node = account.node("smssh-node", "mi-0")
    every = {
        "ssm:DescribeInstanceInformation": (person, ci, cleanup, costs, job),
        "ssm:DescribeActivations": (cleanup,),
        "pricing:GetProducts": (costs,),
    }
    every |= {"ssm:DeleteActivation": (cleanup, job), "ssmmessages:OpenControlChannel": (node, job)}
    every |= {
        "sagemaker:ListTrainingJobs": (person, ci, costs),
        "ssmmessages:OpenDataChannel": (person, ci, node, job),
    }
    resource = f"arn:aws:ssm:us-east-1:{ACCOUNT}:*"
    for action, who in every.items():
        for principal in (person, ci, cleanup, costs, job, node):
            assert allowed(principal, action, resource) is (principal in who), (action, principal.name)
    pipeline = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:pipeline/p"
    assert allowed(ci, "sagemaker:CreatePipeline", pipeline)
    assert not allowed(person, "sagemaker:CreatePipeline", pipeline)
    assert job.arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/x/SageMaker"
    assert job.keys["aws:PrincipalArn"] == f"arn:aws:iam::{ACCOUNT}:role/service-role/x"


def test_only_the_nodes_role_has_the_nodes_policy(tmp_path: Path) -> None:
    account = read_account(written(tmp_path))
    assert account.passes_to_nodes("smssh-node")
    assert not account.passes_to_nodes("x")
    assert not allowed(account.node("x", "mi-0"), "ssmmessages:OpenControlChannel")
    trust = json.loads((tmp_path / "json" / "smssh-node-trust.json").read_text())
    trust["Statement"][0]["Condition"]["StringEquals"]["aws:SourceAccount"] = "0" * 12
    (tmp_path / "json" / "smssh-node-trust.json").write_text(json.dumps(trust))
    assert not read_account(tmp_path).passes_to_nodes("smssh-node")


def test_who_is_not_named_may_do_nothing(tmp_path: Path) -> None:
    account = read_account(written(tmp_path))
    for principal in (account.unknown("x"), account.function("f")):
        assert not allowed(principal, "ssm:DescribeInstanceInformation")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_only_the_owner_gets_in(scheme: str, tmp_path: Path) -> None:
    written(tmp_path, everything(scheme=scheme))
    said = {"tags": {"Owner": "jane"}, "source_identity": "jane", "session": "jane"}
    (tmp_path / "principals.json").write_text(json.dumps({"person": said, "job": said}))
    account = read_account(tmp_path)
    person, job = account.client("person"), account.job(f"arn:aws:iam::{ACCOUNT}:role/x")
    owner = {"team": "team", "caller": person.userid}.get(scheme, "jane")
    node = f"arn:aws:ssm:us-east-1:{ACCOUNT}:managed-instance/mi-0"
    for tag, expected in ((owner, True), ("john", False), (owner.upper(), False)):
        keys = {"ssm__resourceTag/SSHOwner": tag, "ssm__SessionDocumentAccessCheck": "true"}
        assert allowed(person, "ssm:StartSession", node, **keys) is expected
        made = {
            "aws__RequestTag/SSHOwner": tag,
            "aws__RequestTag/SMSSHJob": "j",
            "aws__TagKeys": ["SSHOwner"],
        }
        # With `caller`, IAM cannot hold a job to its owner.
        assert allowed(job, "ssm:CreateActivation", **made) is (expected or scheme == "caller")
    assert not allowed(person, "ssm:StartSession", node)
    assert not allowed(job, "ssm:CreateActivation", aws__TagKeys=["SMSSHJob"])


def test_what_principals_have_besides(tmp_path: Path) -> None:
    written(tmp_path, Plan.make(account=ACCOUNT), ["people"])
    document = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}}
    (tmp_path / "principals.json").write_text(json.dumps({"person": {"policies": {"data": document}}}))
    account = read_account(tmp_path)
    assert allowed(account.client("person"), "s3:GetObject", "arn:aws:s3:::b/k")
    assert not allowed(account.client("ci"), "s3:GetObject", "arn:aws:s3:::b/k")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("json/other.json", "{}", "smssh setup writes no such file"),
        (
            "json/ml-people.json",
            '{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}',
            "ml-people is there as well",
        ),
        ("json/smssh-people.json", "{", "not JSON"),
        ("json/smssh-people.json", '{"Version": "2012-10-17"}', "no Statement"),
        ("principals.json", "[]", "not an object"),
        ("principals.json", '{"jane": {}}', "there is no principal 'jane'"),
        ("principals.json", '{"person": {"tag": {}}}', "its members are"),
        ("principals.json", '{"person": {"tags": {"a": 1}}}', "are texts"),
        ("principals.json", '{"person": {"policies": []}}', "documents by name"),
        ("principals.json", '{"person": {"policies": {"p": {}}}}', "no Statement"),
    ],
)
def test_a_folder_that_is_refused(name: str, content: str, words: str, tmp_path: Path) -> None:
    written(tmp_path, parts=["people"])
    (tmp_path / name).write_text(content)
    with pytest.raises(SmsshError, match=words):
        read_account(tmp_path)


def test_a_condition_that_would_not_be_evaluated_is_refused(tmp_path: Path) -> None:
    written(tmp_path, parts=["people"])
    path = tmp_path / "json" / "smssh-people.json"
    document = json.loads(path.read_text())
    document["Statement"][0]["Condition"] = {"StringEquals": {"aws:SourceVpce": "vpce-1"}}
    path.write_text(json.dumps(document))
    with pytest.raises(SmsshError, match=r"smssh-people/Nodes: .*aws:SourceVpce"):
        read_account(tmp_path)


def test_a_folder_without_policies(tmp_path: Path) -> None:
    with pytest.raises(SmsshError, match="has no policies") as caught:
        read_account(tmp_path)
    assert "smssh setup" in caught.value.hint


def test_features_are_all_there() -> None:
    """`everything` has every statement; so the folder that is read above has, too."""
    assert everything().features == frozenset(FEATURES)
