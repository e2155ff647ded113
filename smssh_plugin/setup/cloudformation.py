"""A setup as a CloudFormation template, in JSON, and as a CDK app that includes it.

Account and partition are the stack's own. IAM's variables are escaped where `Fn::Sub` would take them for its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .marks import MADE, listed
from .model import AWS_NAMES
from .parts import SETTING, Setup

if TYPE_CHECKING:
    from .model import Policy, Role

__all__ = ["LOGICAL", "cdk_app", "setting_is_supported", "template"]

LOGICAL = {
    "job": "JobPolicy",
    "submit": "SubmitPolicy",
    "people": "PeoplePolicy",
    "ci": "CIPolicy",
    "cleanup": "CleanupPolicy",
    "costs": "CostsPolicy",
    "boundary": "BoundaryPolicy",
}
"""Part -> the logical id of its managed policy."""
_TAGS = listed(MADE)
_PSEUDO = {"partition": "${AWS::Partition}", "account": "${AWS::AccountId}"}

_CDK = '''\
"""The setup of smssh as a stack of its own: its template beside this file, as `smssh setup` wrote it."""

from pathlib import Path

import aws_cdk as cdk
from aws_cdk.cloudformation_include import CfnInclude

app = cdk.App()
stack = cdk.Stack(app, "{name}", description="smssh")
CfnInclude(stack, "Setup", template_file=str(Path(__file__).with_name("{template}")))
app.synth()
'''


def template(setup: Setup) -> dict[str, Any]:
    """The template. It needs the capability CAPABILITY_NAMED_IAM.

    The tier is left out where CloudFormation has no resource for it: see `setting_is_supported`.
    """
    resources: dict[str, Any] = {}
    outputs: dict[str, Any] = {}
    if setup.role is not None:
        resources["NodeRole"] = _node(setup.role)
        outputs["NodeRoleArn"] = {
            "Description": "The value of SSHOptions(role=...), or of SMSSH_ROLE.",
            "Value": {"Fn::GetAtt": ["NodeRole", "Arn"]},
        }
    for part, policy in setup.managed.items():
        # CloudFormation takes roles without their paths.
        roles = [each.name for each in setup.plan.job_roles] if part == "job" else []
        resources[LOGICAL[part]] = _policy(policy, roles)
        outputs[f"{LOGICAL[part]}Arn"] = {"Description": policy.description, "Value": {"Ref": LOGICAL[part]}}
    if setup.session_document is not None:
        resources["SessionDocument"] = _document(*setup.session_document)
    if setup.tier and setting_is_supported(setup.plan.partition):
        # Retained: deleting the setting would end Session Manager on all hybrid nodes, those of others included.
        resources["AdvancedTier"] = {
            "Type": "AWS::SSM::ServiceSetting",
            "DeletionPolicy": "Retain",
            "UpdateReplacePolicy": "Retain",
            "Properties": SETTING,
        }
    made: dict[str, Any] = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "SSH into SageMaker jobs by smssh, as smssh setup wrote it.",
        "Resources": resources,
    }
    return {**made, "Outputs": outputs} if outputs else made


def _node(role: Role) -> dict[str, Any]:
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "RoleName": role.name,
            "Path": role.path,
            "Description": role.description,
            "AssumeRolePolicyDocument": role.trust(_sub),
            "Policies": [{"PolicyName": role.policy.name, "PolicyDocument": role.policy.document(_sub)}],
            "Tags": _TAGS,
        },
    }


def _policy(policy: Policy, roles: list[str]) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "ManagedPolicyName": policy.name,
        "Description": policy.description,
        "PolicyDocument": policy.document(_sub),
    }
    if roles:
        properties["Roles"] = roles
    return {"Type": "AWS::IAM::ManagedPolicy", "Properties": properties}


def _document(name: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "Type": "AWS::SSM::Document",
        "Properties": {
            "Name": name,
            "DocumentType": "Session",
            "DocumentFormat": "JSON",
            "Content": content,
            "UpdateMethod": "NewVersion",
            "Tags": _TAGS,
        },
    }


def cdk_app(setup: Setup, template_name: str) -> str:
    """A CDK app in Python that includes the template."""
    return _CDK.format(name=setup.plan.name, template=template_name)


def setting_is_supported(partition: str) -> bool:
    """Whether CloudFormation has AWS::SSM::ServiceSetting in a partition: not in China and GovCloud (cfn-lint 1.58)."""
    return partition == "aws"


def _sub(text: str) -> Any:
    if AWS_NAMES.search(text) is None:
        return text
    escaped = text.replace("${", "${!")
    return {"Fn::Sub": AWS_NAMES.sub(lambda found: _PSEUDO[found[1]], escaped)}
