"""One set of policies in every form: what CloudFormation, Terraform and CDK make of it is what the JSON says."""

from __future__ import annotations

import ast
import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from smssh_plugin.errors import SmsshError
from smssh_plugin.setup import cloudformation, files, terraform
from smssh_plugin.setup.documents import documents
from smssh_plugin.setup.model import Grant, Policy, Statement, literal
from smssh_plugin.setup.owners import SCHEMES
from smssh_plugin.setup.parts import PARTS, Setup
from smssh_plugin.setup.plan import PARTITIONS, Plan
from tests import needs
from tests.setup.samples import ACCOUNT, ROLE, all_setups, everything, whole
from tests.waiting import LIMIT

REGIONS = [
    ("us-east-1", "aws"),
    ("eu-west-1", "aws"),
    ("cn-north-1", "aws-cn"),
    ("us-gov-west-1", "aws-us-gov"),
]


@pytest.mark.parametrize(("region", "partition"), REGIONS)
def test_cfn_lint_finds_nothing(tmp_path: Path, region: str, partition: str) -> None:
    paths = []
    for number, setup in enumerate(all_setups()):
        if setup.plan.partition == partition:
            for part in ("all", *setup.managed):
                some = setup if part == "all" else Setup(setup.plan, [part])
                paths.append(tmp_path / f"{number}-{part}.json")
                paths[-1].write_text(files.files(some, "cloudformation")[f"{setup.plan.name}.template.json"])
    command = [str(Path(sys.executable).with_name("cfn-lint")), "--regions", region, "--", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


def test_cfn_lint_would_find_something(tmp_path: Path) -> None:
    template = cloudformation.template(whole())
    template["Resources"]["JobPolicy"]["Properties"]["PolicyDocument"]["Statement"][0]["Effect"] = "Perhaps"
    path = tmp_path / "template.json"
    path.write_text(json.dumps(template))
    command = [str(Path(sys.executable).with_name("cfn-lint")), "--regions", "us-east-1", "--", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert "Perhaps" in done.stdout


@pytest.mark.parametrize("scheme", SCHEMES)
@mock_aws
def test_a_stack_has_the_policies_of_the_json(scheme: str) -> None:
    """CloudFormation as moto has it resolves its functions and makes roles and policies."""
    setup = Setup(everything(scheme=scheme), set(PARTS) - {"tier"})  # which moto has not
    iam, stacks = (boto3.client(name, region_name="us-east-1") for name in ("iam", "cloudformation"))
    for role in setup.plan.job_roles:
        trust = json.dumps(setup.role.trust(literal("aws", ACCOUNT)) if setup.role else {})
        iam.create_role(RoleName=role.name, Path=role.path, AssumeRolePolicyDocument=trust)
    before = {role.name: iam.get_role(RoleName=role.name) for role in setup.plan.job_roles}
    stacks.create_stack(
        StackName="smssh",
        TemplateBody=json.dumps(cloudformation.template(setup)),
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    expected = documents(setup)
    for policy in setup.managed.values():
        arn = f"arn:aws:iam::{ACCOUNT}:policy/{policy.name}"
        version = iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]
        assert version["Document"] == expected[policy.name]
    made = iam.get_role(RoleName="smssh-node")["Role"]
    assert made["AssumeRolePolicyDocument"] == expected["smssh-node-trust"]
    inline = iam.get_role_policy(RoleName="smssh-node", PolicyName="session-manager")
    document = inline["PolicyDocument"]  # moto answers Python's repr of one that a stack made
    assert (ast.literal_eval(document) if isinstance(document, str) else document) == expected[
        "smssh-node-policy"
    ]
    for role in setup.plan.job_roles:
        attached = iam.list_attached_role_policies(RoleName=role.name)["AttachedPolicies"]
        assert [each["PolicyName"] for each in attached] == ["smssh-job"]
        after = iam.get_role(RoleName=role.name)["Role"]
        assert after["AssumeRolePolicyDocument"] == before[role.name]["Role"]["AssumeRolePolicyDocument"]
    document = boto3.client("ssm", region_name="us-east-1").get_document(Name="smssh-ssh")
    assert ast.literal_eval(document["Content"]) == expected["smssh-ssh"]


def test_variables_of_iam_stay_what_they_are_beside_those_of_the_form() -> None:
    text = "arn:{partition}:x:::{account}/${aws:userid}"
    statement = Statement("All", (Grant(("s3:GetObject",), ""),), (text, "${aws:userid}"), "")
    policy = Policy("p", "", (statement,), "a policy", 1000)
    setup = whole()
    setup.policies["job"] = policy
    template = cloudformation.template(setup)["Resources"]["JobPolicy"]["Properties"]["PolicyDocument"]
    assert template["Statement"][0]["Resource"] == [
        {"Fn::Sub": "arn:${AWS::Partition}:x:::${AWS::AccountId}/${!aws:userid}"},
        "${aws:userid}",
    ]
    module = terraform.modules(setup)["policies/main.tf"]
    assert '"arn:${var.partition}:x:::${var.account}/$${aws:userid}"' in module
    made = documents(setup)["p"]["Statement"][0]["Resource"]
    assert made == [f"arn:aws:x:::{ACCOUNT}/${{aws:userid}}", "${aws:userid}"]


def test_the_tier_is_kept_when_a_stack_is_deleted() -> None:
    setting = cloudformation.template(whole())["Resources"]["AdvancedTier"]
    assert setting["DeletionPolicy"] == setting["UpdateReplacePolicy"] == "Retain"
    main = terraform.modules(whole())["main.tf"]
    tier = main[main.index('"aws_ssm_service_setting"') :]
    assert "prevent_destroy = true" in tier


@pytest.mark.parametrize("partition", sorted(set(PARTITIONS) - {"aws"}))
def test_the_tier_alone_is_no_template_where_cloudformation_has_no_resource(partition: str) -> None:
    plan = Plan.make(partition=partition)
    with pytest.raises(SmsshError, match=f"no resource for tier in the partition {partition}"):
        files.files(Setup(plan, ["tier"]), "cloudformation")
    assert "AdvancedTier" not in cloudformation.template(Setup(plan, PARTS.keys() - {"ci"}))["Resources"]


def test_a_service_control_policy_is_no_resource() -> None:
    plan = Plan.make(account=ACCOUNT)
    with pytest.raises(SmsshError, match="no resource for scp"):
        files.files(Setup(plan, ["scp"]), "cloudformation")
    assert files.files(Setup(plan, ["scp"]), "json").keys() == {"smssh-scp.json"}


# --------------------------------------------------------------------------------------------------- Terraform


@pytest.fixture
def program() -> str:
    return needs.program("terraform")


def run(program: str, folder: Path, *words: str) -> str:
    command = [program, f"-chdir={folder}", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def unpacked(setup: Setup, folder: Path) -> None:
    for name, text in terraform.modules(setup).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_terraform_would_write_it_as_it_is(program: str, tmp_path: Path) -> None:
    for number, setup in enumerate(all_setups()):
        unpacked(setup, tmp_path / str(number))
    assert run(program, tmp_path, "fmt", "-check", "-diff", "-recursive") == ""


@pytest.mark.parametrize(("partition", "scheme"), [("aws", "source-identity"), ("aws-cn", "team")])
def test_the_module_has_the_policies_of_the_json(
    program: str, tmp_path: Path, partition: str, scheme: str
) -> None:
    setup = whole(partition, scheme)
    unpacked(setup, tmp_path)
    module = tmp_path / "policies"
    run(program, module, "init", "-backend=false", "-no-color")
    run(program, module, "validate", "-no-color")
    values = (f"-var=partition={partition}", f"-var=account={ACCOUNT}")
    run(program, module, "apply", "-auto-approve", "-no-color", *values)
    outputs = json.loads(run(program, module, "output", "-json", "-no-color"))
    made = {name: json.loads(output["value"]) for name, output in outputs.items()}
    expected = documents(setup)
    assert made.pop("node_trust") == expected["smssh-node-trust"]
    assert made.pop("node") == expected["smssh-node-policy"]
    assert made.pop("document") == expected["smssh-ssh"]
    assert made == {part: expected[f"smssh-{part}"] for part in setup.policies}


def test_the_module_refuses_what_is_not_an_account(program: str, tmp_path: Path) -> None:
    unpacked(whole(), tmp_path)
    run(program, tmp_path / "policies", "init", "-backend=false", "-no-color")
    command = [
        program,
        f"-chdir={tmp_path / 'policies'}",
        "plan",
        "-no-color",
        "-var=partition=aws",
        "-var=account=*",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 1
    assert "It must have twelve digits." in done.stderr


ATTRIBUTES = {
    "aws_iam_role": {"name", "path", "description", "assume_role_policy", "tags"},
    "aws_iam_role_policy": {"name", "role", "policy"},
    "aws_iam_policy": {"name", "description", "policy", "tags"},
    "aws_iam_role_policy_attachment": {"for_each", "role", "policy_arn"},
    "aws_ssm_document": {"name", "document_type", "document_format", "content", "tags"},
    "aws_ssm_service_setting": {"setting_id", "setting_value", "prevent_destroy"},
}
"""What the provider's documentation has; the provider itself cannot be fetched by every machine that runs the tests."""


def test_resources_have_only_attributes_of_the_provider() -> None:
    text = terraform.modules(whole())["main.tf"]
    found: dict[str, set[str]] = {}
    for kind, block in re.findall(r'^resource "(\w+)" "\w+" \{\n(.*?)^\}', text, re.MULTILINE | re.DOTALL):
        found.setdefault(kind, set()).update(re.findall(r"^ +(\w+) += ", block, re.MULTILINE))
    assert found == ATTRIBUTES


def test_every_output_of_the_module_is_there() -> None:
    made = terraform.modules(whole())
    used = set(re.findall(r"module\.policies\.(\w+)", made["main.tf"]))
    assert used | {"scp"} == set(re.findall(r'^output "(\w+)"', made["policies/main.tf"], re.MULTILINE))


# --------------------------------------------------------------------------------------------------------- CDK


def test_the_app_is_a_program_that_names_its_template() -> None:
    made = files.files(whole(), "cdk")
    compile(made["app.py"], "app.py", "exec")
    assert set(made) == {"app.py", "smssh.template.json"}
    assert '"smssh.template.json"' in made["app.py"]


def test_cdk_makes_the_same_template(tmp_path: Path) -> None:
    """Of 460 MB of packages: SMSSH_TEST_CDK names a Python that has aws-cdk-lib."""
    python = needs.program("aws-cdk-lib")
    setup = whole()
    for name, text in files.files(setup, "cdk").items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [python, "app.py"],
        cwd=tmp_path,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "CDK_OUTDIR": str(tmp_path / "out")},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads((tmp_path / "out" / "smssh.template.json").read_text())
    expected = cloudformation.template(setup)
    assert {name: made["Resources"][name] for name in expected["Resources"]} == expected["Resources"]


# ------------------------------------------------------------------------------------------------------- files


def test_files_are_written_once_and_over_nobodys_changes(tmp_path: Path) -> None:
    setup, folder = whole(), tmp_path / "a" / "b"
    first = files.write(setup, files.FORMATS, folder)
    assert {path.relative_to(folder).parts[0] for path in first} == set(files.FORMATS)
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in first)
    assert files.write(setup, files.FORMATS, folder) == []
    mine = folder / "json" / "smssh-job.json"
    mine.write_text("mine")
    gone = folder / "json" / "smssh-people.json"
    gone.unlink()
    with pytest.raises(SmsshError, match=r"smssh-job\.json has other content\n"):
        files.write(setup, files.FORMATS, folder)
    assert mine.read_text() == "mine"
    assert not gone.exists()
    assert set(files.write(setup, files.FORMATS, folder, replace=True)) == {mine, gone}
    assert json.loads(mine.read_text()) == documents(setup)["smssh-job"]


def test_an_interrupted_run_is_finished_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, write, written = whole(), files.write_atomically, []

    def interrupted(path: Path, data: str, mode: int) -> None:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        write(path, data, mode=mode)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomically", interrupted)
        with pytest.raises(KeyboardInterrupt):
            files.write(setup, files.FORMATS, tmp_path)
    rest = files.write(setup, files.FORMATS, tmp_path)
    assert not set(rest) & set(written)
    assert sorted([*written, *rest]) == sorted(path for path in tmp_path.rglob("*") if path.is_file())


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    place = tmp_path / "json"
    place.mkdir()
    os.mkfifo(place / "smssh-people.json")
    (place / "smssh-submit.json").mkdir()
    for part in ("people", "submit"):
        with pytest.raises(SmsshError, match=f"smssh-{part}.json is not a file") as caught:
            files.write(Setup(everything(), [part]), ["json"], tmp_path, replace=True)
        assert caught.value.hint


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    place = tmp_path / "made" / "json"
    place.mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.write_text("keep")
    (place / "smssh-people.json").symlink_to(victim)
    (place / "smssh-submit.json").symlink_to(tmp_path / "nothing")
    setup = Setup(everything(), ["people", "submit"])
    with pytest.raises(SmsshError, match=r"smssh-people\.json has other content"):
        files.write(setup, ["json"], tmp_path / "made")
    files.write(setup, ["json"], tmp_path / "made", replace=True)
    assert victim.read_text() == "keep"
    assert not (tmp_path / "nothing").exists()
    assert not any(path.is_symlink() for path in place.iterdir())


def test_a_full_disk_names_the_file_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(everything(), ["people", "submit"])
    plain = files.write_atomically

    def full(path: Path, data: str, mode: int) -> None:
        if "people" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        plain(path, data, mode=mode)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomically", full)
        with pytest.raises(SmsshError, match=r"smssh-people\.json: No space left on device") as caught:
            files.write(setup, ["json"], tmp_path)
    assert "the same command goes on" in str(caught.value.hint)
    assert [path.name for path in files.write(setup, ["json"], tmp_path)] == ["smssh-people.json"]


def test_a_format_with_nothing_in_it_is_left_out_of_all_of_them(tmp_path: Path) -> None:
    setup = Setup(Plan.make(account=ACCOUNT), ["scp"])
    made = files.write(setup, files.FORMATS, tmp_path)
    assert {path.relative_to(tmp_path).parts[0] for path in made} == {"json", "terraform"}


def test_roles_are_attached_by_name_and_passed_by_path() -> None:
    """CloudFormation and Terraform take the name of a role alone; an ARN has its path."""
    name = ROLE.rpartition("/")[2]
    assert cloudformation.template(whole())["Resources"]["JobPolicy"]["Properties"]["Roles"] == [
        name,
        "plain",
    ]
    assert f'toset(["{name}", "plain"])' in terraform.modules(whole())["main.tf"]
    assert f"role/{ROLE}" in json.dumps(documents(whole())["smssh-ci"])
