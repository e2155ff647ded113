"""A setup as Terraform: a module without providers that makes the policies, and the resources on top of it.

The module can be tested without an AWS account, and used by those who make their roles in their own way. Policies are
JSON in here-documents, in which `${...}` of IAM is written `$${...}`.
"""

from __future__ import annotations

import json
from typing import Any

from .marks import MADE
from .model import AWS_NAMES
from .parts import SETTING, Setup

__all__ = ["modules"]

_HEAD = "# Written by smssh setup.\n"
_VARIABLES = """
variable "partition" {
  description = "The partition of AWS: aws, aws-cn or aws-us-gov."
  type        = string

  validation {
    condition     = can(regex("^aws[a-z-]*$", var.partition))
    error_message = "It must be a partition such as aws."
  }
}

variable "account" {
  description = "The account id."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account))
    error_message = "It must have twelve digits."
  }
}
"""
_PROVIDER = """
terraform {
  required_version = ">= 1.3"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

data "aws_caller_identity" "this" {}

data "aws_partition" "this" {}

module "policies" {
  source    = "./policies"
  partition = data.aws_partition.this.partition
  account   = data.aws_caller_identity.this.account_id
}
"""


def modules(setup: Setup) -> dict[str, str]:
    """The files by their names: `main.tf` and `policies/main.tf`."""
    documents: dict[str, Any] = {}
    if setup.role is not None:
        documents["node_trust"] = setup.role.trust(_variable)
        documents["node"] = setup.role.policy.document(_variable)
    for part, policy in setup.policies.items():
        documents[part] = policy.document(_variable)
    if setup.session_document is not None:
        documents["document"] = setup.session_document[1]
    outputs = [
        f'output "{name}" {{\n  value = <<-EOT\n{_indented(document)}\n  EOT\n}}\n'
        for name, document in documents.items()
    ]
    return {
        "main.tf": "\n".join([_HEAD + _PROVIDER, *_resources(setup)]),
        "policies/main.tf": "\n".join([_HEAD + _VARIABLES, *outputs]),
    }


def _resources(setup: Setup) -> list[str]:
    found = []
    tags = "{ " + ", ".join(f"{key} = {_text(value)}" for key, value in MADE.items()) + " }"
    role = setup.role
    if role is not None:
        found += [
            _block(
                'resource "aws_iam_role" "node"',
                name=_text(role.name),
                path=_text(role.path),
                description=_text(role.description),
                assume_role_policy="module.policies.node_trust",
                tags=tags,
            ),
            _block(
                'resource "aws_iam_role_policy" "node"',
                name=_text(role.policy.name),
                role="aws_iam_role.node.id",
                policy="module.policies.node",
            ),
            'output "node_role_arn" {\n  value = aws_iam_role.node.arn\n}\n',
        ]
    for part, policy in setup.managed.items():
        found += [
            _block(
                f'resource "aws_iam_policy" "{part}"',
                name=_text(policy.name),
                description=_text(policy.description),
                policy=f"module.policies.{part}",
                tags=tags,
            ),
            f'output "{part}_policy_arn" {{\n  value = aws_iam_policy.{part}.arn\n}}\n',
        ]
    if "job" in setup.parts and setup.plan.job_roles:
        names = ", ".join(_text(each.name) for each in setup.plan.job_roles)
        found.append(
            _block(
                'resource "aws_iam_role_policy_attachment" "job"',
                for_each=f"toset([{names}])",
                role="each.value",
                policy_arn="aws_iam_policy.job.arn",
            )
        )
    if setup.session_document is not None:
        found.append(
            _block(
                'resource "aws_ssm_document" "ssh"',
                name=_text(setup.session_document[0]),
                document_type='"Session"',
                document_format='"JSON"',
                content="module.policies.document",
                tags=tags,
            )
        )
    if setup.tier:
        found.append(_tier())
    return found


def _tier() -> str:
    """The tier: destroying it would end Session Manager on all hybrid nodes, so Terraform must not."""
    setting = "arn:${data.aws_partition.this.partition}:ssm:${data.aws_region.this.name}:"
    setting += "${data.aws_caller_identity.this.account_id}:servicesetting" + SETTING["SettingId"]
    return (
        'data "aws_region" "this" {}\n\n'
        'resource "aws_ssm_service_setting" "advanced_tier" {\n'
        f'  setting_id    = "{setting}"\n'
        f"  setting_value = {_text(SETTING['SettingValue'])}\n\n"
        "  lifecycle {\n    prevent_destroy = true\n  }\n}\n"
    )


def _variable(text: str) -> str:
    """A text of a policy as a template of Terraform."""
    return AWS_NAMES.sub(lambda found: f"${{var.{found[1]}}}", text.replace("${", "$${"))


def _indented(document: Any) -> str:
    return "\n".join(f"    {line}" for line in json.dumps(document, indent=2).splitlines())


def _block(head: str, **attributes: str) -> str:
    """A block as `terraform fmt` writes it."""
    width = max(map(len, attributes))
    lines = [f"  {name.ljust(width)} = {value}" for name, value in attributes.items()]
    return "\n".join([f"{head} {{", *lines, "}", ""])


def _text(value: str) -> str:
    """A string of Terraform; the names and descriptions here have neither quotes nor templates."""
    return json.dumps(value)
