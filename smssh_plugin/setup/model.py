"""What a policy is made of, before it is JSON, CloudFormation or Terraform.

Texts may have `{partition}` and `{account}` in them, which each form fills in its own way: JSON with values, a template
with what CloudFormation or Terraform knows. IAM's own variables (`${aws:userid}`) stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["AWS_NAMES", "Form", "Grant", "Policy", "Role", "Statement", "both", "literal"]

AWS_NAMES = re.compile(r"(?<!\$)\{(partition|account)\}")
"""The names that a form fills in; `${...}` is IAM's."""

Form = Callable[[str], Any]
"""Makes of a text what stands for it in a form: another text, or a function of CloudFormation."""
Conditions = Mapping[str, Mapping[str, Any]]
"""Operator -> key -> a value or several, as IAM has it."""


@dataclass(frozen=True)
class Grant:
    """Actions that are needed for one thing.

    Attributes:
        actions: as IAM names them, at least one.
        why: what needs them, as Markdown for a table.
        calls: the methods of a boto3 client in the code that need them.
    """

    actions: tuple[str, ...]
    why: str
    calls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Statement:
    """One statement of a policy.

    Attributes:
        sid: its name, letters and digits.
        grants: the actions, and why.
        resources: ARNs, or `*`; empty for actions that need no policy, which are documented only.
        place: the resources as Markdown for a table.
        conditions: all must hold.
        effect: `Allow` or `Deny`.
    """

    sid: str
    grants: tuple[Grant, ...]
    resources: tuple[str, ...]
    place: str
    conditions: Conditions = field(default_factory=dict)
    effect: str = "Allow"

    @property
    def actions(self) -> list[str]:
        """Every action, each once, in the order of the grants."""
        return list(dict.fromkeys(action for grant in self.grants for action in grant.actions))

    def document(self, form: Form) -> dict[str, Any]:
        """The statement in a form."""
        made: dict[str, Any] = {"Sid": self.sid, "Effect": self.effect, "Action": _short(self.actions)}
        made["Resource"] = _short([form(each) for each in self.resources])
        if self.conditions:
            made["Condition"] = _conditions(self.conditions, form)
        return made


@dataclass(frozen=True)
class Policy:
    """A policy of IAM, or of AWS Organizations.

    Attributes:
        name: its name.
        description: its users and its purpose; at most 1,000 characters of ASCII, as IAM has it.
        statements: in order.
        kind: what it is, for errors: "a managed policy".
        limit: the most characters without white space that AWS takes of that kind.
    """

    name: str
    description: str
    statements: tuple[Statement, ...]
    kind: str
    limit: int

    def document(self, form: Form) -> dict[str, Any]:
        """The policy document in a form."""
        written = [each.document(form) for each in self.statements if each.resources]
        return {"Version": "2012-10-17", "Statement": written}


@dataclass(frozen=True)
class Role:
    """A role to make, with one inline policy.

    Attributes:
        name: its name.
        path: `/`, or such as `/team/`.
        description: what it is for, as a policy's.
        service: the service that may assume it.
        conditions: of that.
        policy: what it may do.
    """

    name: str
    path: str
    description: str
    service: str
    conditions: Conditions
    policy: Policy

    def trust(self, form: Form) -> dict[str, Any]:
        """The trust policy in a form."""
        statement = {
            "Effect": "Allow",
            "Principal": {"Service": self.service},
            "Action": "sts:AssumeRole",
            "Condition": _conditions(self.conditions, form),
        }
        return {"Version": "2012-10-17", "Statement": [statement]}


def both(*parts: Conditions) -> dict[str, dict[str, Any]]:
    """Several conditions that must all hold, as one."""
    merged: dict[str, dict[str, Any]] = {}
    for part in parts:
        for operator, keys in part.items():
            into = merged.setdefault(operator, {})
            if into.keys() & keys.keys():
                raise ValueError(f"two conditions with {operator} on {sorted(into.keys() & keys.keys())}")
            into.update(keys)
    return merged


def literal(partition: str, account: str) -> Form:
    """The form in which the names are filled with values."""
    values = {"partition": partition, "account": account}
    return lambda text: AWS_NAMES.sub(lambda found: values[found[1]], text)


def _conditions(conditions: Conditions, form: Form) -> dict[str, Any]:
    return {
        operator: {
            key: form(value) if isinstance(value, str) else [form(each) for each in value]
            for key, value in keys.items()
        }
        for operator, keys in conditions.items()
    }


def _short(values: list[Any]) -> Any:
    """One value as itself, as people write it."""
    return values[0] if len(values) == 1 else values
