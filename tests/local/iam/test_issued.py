"""Roles that are made in an emulator that enforces policies, and sessions of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from smssh_plugin.local.iam.account import read_account
from smssh_plugin.setup.files import write
from smssh_plugin.setup.parts import Setup
from smssh_plugin.setup.plan import Plan
from tests.local.service_harness import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ACCOUNT = "123456789012"
FIND = ("ssm:DescribeInstanceInformation", "ssm:DescribeActivations")


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("policies")
    write(Setup(Plan.make(account=ACCOUNT), ["node", "scp"]), ["json"], folder)
    service = Service(iam=read_account(folder))
    service.start()
    yield service
    service.stop()


def policy(*actions: str, effect: str = "Allow", **more: Any) -> str:
    statement = {"Effect": effect, "Action": list(actions), "Resource": "*", **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def trust(service: str) -> str:
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def role(emulator: Service, name: str, *inline: str, **more: Any) -> str:
    iam = emulator.client("iam")
    made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust("ec2.amazonaws.com"), **more)
    for number, text in enumerate(inline):
        iam.put_role_policy(RoleName=name, PolicyName=f"p{number}", PolicyDocument=text)
    return str(made["Role"]["Arn"])


def ssm_of(emulator: Service, arn: str, session: str = "") -> Any:
    """A client with a session of a role."""
    more = {"Policy": session} if session else {}
    keys = emulator.client("sts").assume_role(RoleArn=arn, RoleSessionName="ss", **more)["Credentials"]
    return boto3.client(
        "ssm",
        endpoint_url=emulator.endpoint,
        region_name="us-east-1",
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
        config=Config(proxies={}, retries={"max_attempts": 1}),
    )


def denial(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"
    return str(caught.value.response["Error"]["Message"])


def test_a_session_may_do_what_role_and_session_policy_both_allow(emulator: Service) -> None:
    arn = role(emulator, "both", policy(*FIND))
    plain = ssm_of(emulator, arn)
    plain.describe_instance_information()
    plain.describe_activations()
    assert "because no identity-based policy allows the ssm:DescribeSessions action" in denial(
        plain.describe_sessions, State="Active"
    )
    narrow = ssm_of(emulator, arn, policy(FIND[0], "ssm:DescribeSessions"))
    narrow.describe_instance_information()
    text = denial(narrow.describe_activations)
    assert text.startswith(f"User: arn:aws:sts::{ACCOUNT}:assumed-role/both/ss is not authorized to perform")
    assert text.endswith("because no session policy allows the ssm:DescribeActivations action")
    assert "no identity-based policy" in denial(narrow.describe_sessions, State="Active")
    denying = ssm_of(emulator, arn, policy(FIND[0], effect="Deny"))
    assert "with an explicit deny in a session policy" in denial(denying.describe_instance_information)


def test_attached_policies_and_a_boundary_count(emulator: Service) -> None:
    iam = emulator.client("iam")
    arns = [
        iam.create_policy(PolicyName=name, PolicyDocument=text)["Policy"]["Arn"]
        for name, text in (("wide", policy(*FIND)), ("bound", policy(FIND[0])))
    ]
    arn = role(emulator, "bounded", PermissionsBoundary=arns[1])
    iam.attach_role_policy(RoleName="bounded", PolicyArn=arns[0])
    ssm = ssm_of(emulator, arn)
    ssm.describe_instance_information()
    assert "because no permissions boundary allows" in denial(ssm.describe_activations)


def test_a_policy_that_is_not_evaluated_takes_all_rights(emulator: Service) -> None:
    """It may deny something."""
    odd = policy(FIND[1], effect="Deny", Condition={"StringEquals": {"aws:ViaAWSService": "x"}})
    ssm = ssm_of(emulator, role(emulator, "odd", policy(*FIND), odd))
    denial(ssm.describe_instance_information)


def test_a_session_of_a_role_that_is_not_there_may_do_nothing(emulator: Service) -> None:
    denial(ssm_of(emulator, f"arn:aws:iam::{ACCOUNT}:role/nowhere").describe_instance_information)


def test_nodes_get_a_role_that_systems_manager_may_assume(emulator: Service) -> None:
    iam, ssm = emulator.client("iam"), emulator.client("ssm")
    iam.create_role(RoleName="nodes", Path="/team/", AssumeRolePolicyDocument=trust("ssm.amazonaws.com"))
    ssm.create_activation(IamRole="team/nodes")
    ssm.create_activation(IamRole="smssh-node")
    role(emulator, "others")
    for name in ("others", "missing"):
        with pytest.raises(ClientError, match="missing ssm service principal"):
            ssm.create_activation(IamRole=name)
