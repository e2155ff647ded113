"""A local emulator that enforces policies, asked over the wire."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from smssh_plugin.local.iam.account import read_account
from smssh_plugin.setup.files import write
from smssh_plugin.setup.parts import PARTS, Setup
from smssh_plugin.setup.plan import Plan
from smssh_plugin.setup.policies import STATE_KEYS
from tests.local.service_harness import Service, signed, training

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smssh_plugin.local.keyring import Key

ACCOUNT = "123456789012"
BUCKET = "iam"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/jobs"
SESSION = boto3.Session()
"""Not boto3's default one, which would stay for the tests of other files."""
NODE = {"Key": "SSHOwner", "Value": "team"}, {"Key": "SMSSHJob", "Value": "j"}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("policies")
    plan = Plan.make(
        account=ACCOUNT, job_roles=["jobs"], bundle_prefix=f"s3://{BUCKET}/smssh", features=["native"]
    )
    write(Setup(plan, PARTS), ["json"], folder)
    service = Service(iam=read_account(folder))
    service.start()
    service.s3.create_bucket(Bucket=BUCKET)
    service.s3.put_object(Bucket=BUCKET, Key="smssh/hosts/a", Body=b"public")
    service.s3.put_object(Bucket=BUCKET, Key="other", Body=b"secret")
    yield service
    service.stop()


def client(emulator: Service, name: str, who: str | Key, **settings: Any) -> Any:
    assert emulator.iam is not None
    key = emulator.iam.keys[who] if isinstance(who, str) else who
    return SESSION.client(
        name,
        endpoint_url=emulator.endpoint,
        region_name="us-east-1",
        aws_access_key_id=key.access_key,
        aws_secret_access_key=key.secret_key,
        aws_session_token=key.token,
        config=Config(proxies={}, retries={"max_attempts": 1}, **settings),
    )


def job(emulator: Service) -> Key:
    return emulator.keyring.issue("job j", ROLE)


def activate(emulator: Service, **changes: Any) -> Any:
    return client(emulator, "ssm", job(emulator)).create_activation(
        **{"IamRole": "smssh-node", "Tags": list(NODE), **changes}
    )


def registered(emulator: Service, activation: dict[str, Any]) -> str:
    answer = emulator.sessions.nodes.register(
        {**activation, "PublicKey": "key", "Fingerprint": "f" * 8, "PublicKeyType": "Rsa"}
    )
    return str(answer["InstanceId"])


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_presigned_addresses_have_the_rights_of_who_signed_them(emulator: Service, version: str) -> None:
    s3 = client(emulator, "s3", "person", signature_version=version, s3={"addressing_style": "path"})

    def get(key: str) -> bytes:
        url = s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": key})
        with urllib.request.urlopen(url) as answer:
            found: bytes = answer.read()
            return found

    assert get("smssh/hosts/a") == b"public"
    with pytest.raises(urllib.error.HTTPError) as caught:
        get("other")
    text = caught.value.read().decode()
    assert (caught.value.code, "<Code>AccessDenied</Code>" in text) == (403, True)
    assert (
        f"User: arn:aws:sts::{ACCOUNT}:assumed-role/person/smssh is not authorized to perform: s3:GetObject on "
        f'resource: "arn:aws:s3:::{BUCKET}/other" because no identity-based policy allows the s3:GetObject action'
        in text
    )


def test_an_object_that_is_missing_is_denied_to_who_may_not_list_the_bucket(emulator: Service) -> None:
    for who, code in (("person", "NoSuchKey"), (job(emulator), "AccessDenied")):
        with pytest.raises(ClientError) as caught:
            client(emulator, "s3", who).get_object(Bucket=BUCKET, Key="smssh/hosts/missing")
        assert caught.value.response["Error"]["Code"] == code


def test_a_copy_and_a_deletion(emulator: Service) -> None:
    s3 = client(emulator, "s3", "ci")
    with pytest.raises(ClientError, match="s3:GetObject on resource"):
        s3.copy_object(Bucket=BUCKET, Key="smssh/x", CopySource={"Bucket": BUCKET, "Key": "other"})
    s3.copy_object(Bucket=BUCKET, Key="smssh/x", CopySource={"Bucket": BUCKET, "Key": "smssh/hosts/a"})
    with pytest.raises(ClientError, match="s3:DeleteObject on resource"):
        s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "smssh/x"}]})
    assert s3.get_object(Bucket=BUCKET, Key="smssh/x")["Body"].read() == b"public"


def test_who_am_i(emulator: Service) -> None:
    found = client(emulator, "sts", "person").get_caller_identity()
    assert found["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/person/smssh"
    assert re.fullmatch(r"AROA[0-9A-F]{16}:smssh", found["UserId"])
    assert found["Account"] == ACCOUNT


def test_the_administrator_may_everything(emulator: Service) -> None:
    assert emulator.s3.get_object(Bucket=BUCKET, Key="other")["Body"].read() == b"secret"
    assert emulator.client("ssm").describe_activations()["ActivationList"] is not None


@pytest.mark.parametrize(
    ("service", "call", "arguments", "action"),
    [
        ("sts", "assume_role", {"RoleArn": ROLE, "RoleSessionName": "someone"}, "sts:AssumeRole"),
        ("iam", "create_access_key", {}, "iam:CreateAccessKey"),
        (
            "iam",
            "put_role_policy",
            {"RoleName": "x", "PolicyName": "x", "PolicyDocument": "{}"},
            "iam:PutRolePolicy",
        ),
        ("logs", "delete_log_group", {"logGroupName": "/aws/sagemaker/x"}, "logs:DeleteLogGroup"),
        ("ssm", "get_parameter", {"Name": "/secret"}, "ssm:GetParameter"),
        ("ssm", "send_command", {"DocumentName": "AWS-RunShellScript"}, "ssm:SendCommand"),
        ("ssm", "describe_activations", {}, "ssm:DescribeActivations"),
        (
            "sagemaker",
            "delete_pipeline",
            {"PipelineName": "x", "ClientRequestToken": "t" * 32},
            "sagemaker:DeletePipeline",
        ),
        ("s3", "list_buckets", {}, "s3:ListAllMyBuckets"),
    ],
)
def test_what_no_policy_allows(
    emulator: Service, service: str, call: str, arguments: dict[str, Any], action: str
) -> None:
    with pytest.raises(ClientError) as caught:
        getattr(client(emulator, service, "person"), call)(**arguments)
    error = caught.value.response["Error"]
    assert error["Code"] in ("AccessDenied", "AccessDeniedException")
    assert f"is not authorized to perform: {action} on resource: " in error["Message"]


def test_an_action_that_cannot_be_told_is_denied(emulator: Service) -> None:
    with pytest.raises(ClientError, match="does not know which action of IAM"):
        client(emulator, "lambda", "ci").list_functions()


def test_credentials_of_sts_have_no_policy(emulator: Service) -> None:
    emulator.client("iam").create_role(RoleName="someone", AssumeRolePolicyDocument="{}")
    role = f"arn:aws:iam::{ACCOUNT}:role/someone"
    given = emulator.client("sts").assume_role(RoleArn=role, RoleSessionName="someone")["Credentials"]
    key = emulator.keyring.find(given["AccessKeyId"])
    assert key is not None
    with pytest.raises(ClientError, match="ssm:DescribeInstanceInformation"):
        client(emulator, "ssm", key).describe_instance_information()


def test_the_role_of_an_activation(emulator: Service) -> None:
    with pytest.raises(ClientError, match="no identity-based policy allows the ssm:AddTagsToResource"):
        activate(emulator, IamRole="other")
    # The administrator may pass any role; Systems Manager may not assume it.
    with pytest.raises(ClientError, match="Nonexistent role or missing ssm service principal"):
        emulator.client("ssm").create_activation(IamRole="other")
    assert activate(emulator)["ActivationCode"]


@pytest.mark.parametrize(
    "tags",
    [
        [],
        [NODE[0]],
        [NODE[1]],
        [{"Key": "SSHOwner", "Value": "others"}, NODE[1]],
        [*NODE, {"Key": "Name", "Value": "x"}],
    ],
)
def test_an_activation_with_other_tags_is_denied(emulator: Service, tags: list[dict[str, str]]) -> None:
    with pytest.raises(ClientError, match="ssm:CreateActivation"):
        activate(emulator, Tags=tags)


def test_the_boundary_holds_for_jobs(emulator: Service) -> None:
    with pytest.raises(ClientError, match="with an explicit deny in a permissions boundary"):
        activate(emulator, Tags=[NODE[1]])


def test_a_job_changes_the_state_of_its_owners_nodes_and_nothing_else(emulator: Service) -> None:
    node = registered(emulator, activate(emulator))
    ssm = client(emulator, "ssm", job(emulator))
    change = {"ResourceType": "ManagedInstance", "ResourceId": node}
    ssm.add_tags_to_resource(**change, Tags=[{"Key": "SMSSHState", "Value": "held"}])
    with pytest.raises(ClientError, match="explicit deny in a service control policy"):
        ssm.add_tags_to_resource(**change, Tags=[{"Key": "SMSSHHostKey", "Value": "x"}])
    with pytest.raises(ClientError, match="explicit deny"):
        ssm.remove_tags_from_resource(**change, TagKeys=["SSHOwner"])
    ssm.deregister_managed_instance(InstanceId=node)
    theirs = registered(emulator, emulator.client("ssm").create_activation(IamRole="smssh-node"))
    with pytest.raises(ClientError, match="ssm:DeregisterManagedInstance"):
        ssm.deregister_managed_instance(InstanceId=theirs)
    with pytest.raises(ClientError, match="ssm:DeregisterManagedInstance"):
        client(emulator, "ssm", "cleanup").deregister_managed_instance(InstanceId=theirs)


@pytest.mark.parametrize("others", [["Name"], ["SMSSHState", "Name"], ["SMSSHHold", "SMSSHHostKey"]])
def test_no_other_tag_is_set_of_a_registered_node(emulator: Service, others: list[str]) -> None:
    """With one of the state's it is denied as well, and on the node of another owner the state's are."""
    node = registered(emulator, activate(emulator))
    theirs = registered(emulator, emulator.client("ssm").create_activation(IamRole="smssh-node"))
    ssm = client(emulator, "ssm", job(emulator))

    def tag(resource: str, *keys: str) -> None:
        ssm.add_tags_to_resource(
            ResourceType="ManagedInstance",
            ResourceId=resource,
            Tags=[{"Key": key, "Value": "x"} for key in keys],
        )

    for resource, keys in ((node, others), (theirs, list(STATE_KEYS))):
        before = emulator.sessions.nodes.nodes[resource].tags.copy()
        with pytest.raises(ClientError, match="not authorized to perform: ssm:AddTagsToResource on resource"):
            tag(resource, *keys)
        assert emulator.sessions.nodes.nodes[resource].tags == before
    tag(node, *STATE_KEYS)


def test_people_start_sessions_on_their_owners_nodes_only(emulator: Service) -> None:
    mine = registered(emulator, activate(emulator))
    made = emulator.client("ssm").create_activation(
        IamRole="smssh-node", Tags=[{"Key": "SSHOwner", "Value": "others"}, NODE[1]]
    )
    theirs = registered(emulator, made)
    bare = registered(emulator, emulator.client("ssm").create_activation(IamRole="smssh-node"))
    ssm = client(emulator, "ssm", "person")
    for node in (theirs, bare):
        for document in ({"DocumentName": "AWS-StartSSHSession"}, {}):
            with pytest.raises(ClientError, match=f"ssm:StartSession on resource: .*managed-instance/{node}"):
                ssm.start_session(Target=node, **document)
    # A shell, and a tunnel through the container, are for those who asked for them.
    for other in ("SSM-SessionManagerRunShell", "AWS-StartPortForwardingSessionToRemoteHost"):
        with pytest.raises(ClientError, match=f"ssm:StartSession on resource: .*document/{other}"):
            ssm.start_session(Target=mine, DocumentName=other)
    with pytest.raises(ClientError, match="TargetNotConnected"):  # allowed: it has no agent
        ssm.start_session(Target=mine, DocumentName="AWS-StartSSHSession")


def test_ci_passes_the_roles_of_jobs_only(emulator: Service) -> None:
    sagemaker = client(emulator, "sagemaker", "ci")
    request = {**training(), "TrainingJobName": "passed"}
    with pytest.raises(ClientError, match="iam:PassRole on resource: arn:aws:iam::123456789012:role/other"):
        sagemaker.create_training_job(**{**request, "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/other"})
    sagemaker.create_training_job(**{**request, "RoleArn": ROLE})
    with pytest.raises(ClientError, match="sagemaker:CreateTrainingJob"):
        client(emulator, "sagemaker", "person").create_training_job(**{**request, "RoleArn": ROLE})


def test_nobody_ends_a_session_of_others(emulator: Service) -> None:
    from smssh_plugin.local.sessions.channels import Session

    assert emulator.iam is not None
    person = emulator.iam.principal(emulator.iam.keys["person"])
    assert person is not None
    for name, userid in (("mine", person.userid), ("theirs", "AROA0:other"), ("admins", "")):
        emulator.sessions.sessions[name] = Session(name, "mi-0", "d", "o", "", 0.0, 0.0, userid=userid)
    ssm = client(emulator, "ssm", "person")
    ssm.terminate_session(SessionId="mine")
    for other in ("theirs", "admins", "missing"):
        with pytest.raises(ClientError, match="ssm:TerminateSession on resource"):
            ssm.terminate_session(SessionId=other)
        with pytest.raises(ClientError, match="ssm:ResumeSession on resource"):
            ssm.resume_session(SessionId=other)


def control(emulator: Service, method: str, path: str, said: Any = None, who: str = "") -> Any:
    assert emulator.iam is not None
    url = f"{emulator.endpoint}/_smssh/{path}"
    body = b"" if said is None else json.dumps(said).encode()
    key = emulator.iam.keys[who] if who else emulator.keyring.caller
    headers = signed(method, url, body, {"Content-Type": "application/json"}, service="smssh", key=key)
    request = urllib.request.Request(url, body or None, headers, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_the_control_api_shows_decisions_and_leaves_statements_out(emulator: Service) -> None:
    ssm = client(emulator, "ssm", "person")
    before = max(each["number"] for each in control(emulator, "GET", "iam")["decisions"])
    ssm.describe_instance_information()
    (found,) = control(emulator, "GET", f"iam?after={before}")["decisions"]
    assert (found["principal"], found["action"]) == ("person", "ssm:DescribeInstanceInformation")
    assert (found["allowed"], found["statement"]) == (True, "smssh-people/Find")
    assert control(emulator, "POST", "iam", {"without": ["smssh-people/Find"]}) == {
        "without": ["smssh-people/Find"]
    }
    try:
        with pytest.raises(ClientError, match="ssm:DescribeInstanceInformation"):
            ssm.describe_instance_information()
    finally:
        control(emulator, "POST", "iam", {"without": []})
    ssm.describe_instance_information()
    for wrong in ({"without": ["smssh-people/None"]}, {"without": "x"}, {}):
        with pytest.raises(urllib.error.HTTPError):
            control(emulator, "POST", "iam", wrong)
    with pytest.raises(urllib.error.HTTPError):
        control(emulator, "POST", "iam", {"without": ["smssh-people/Find"]}, who="person")


def test_channels_are_decided(emulator: Service) -> None:
    """A client that may start a session and not open its channel, and an agent of another role."""
    url = f"{emulator.endpoint}/v1/data-channel/smssh-0"
    assert emulator.iam is not None
    for key, method in ((emulator.iam.keys["cleanup"], "GET"), (emulator.keyring.issue("node mi-0"), "POST")):
        headers = signed(method, url, b"", service="ssmmessages", key=key)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(
                urllib.request.Request(url, b"" if method == "POST" else None, headers, method=method)
            )
        text = caught.value.read().decode()
        action = {"GET": "OpenDataChannel", "POST": "CreateDataChannel"}[method]
        assert f"is not authorized to perform: ssmmessages:{action} on resource" in text
