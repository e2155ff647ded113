"""An account in the local emulator that a setup is applied to: what is in it, and calls that fail there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from moto.iam.models import iam_backends

from smssh_plugin.aws.session import AwsSession
from smssh_plugin.setup.account import Account
from smssh_plugin.setup.apply import Run, changes_of, removals_of
from smssh_plugin.setup.parts import PARTS, Setup
from tests.setup.samples import ACCOUNT, everything

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pytest

    from tests.local.service_harness import Service

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}
EVERY_PART = tuple(part for part in PARTS if part != "scp")


class Place:
    """The account, as it is before a setup: two roles of jobs, and things of others.

    A service starts for some seconds, so tests share one: what the test before left there is removed.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.iam = service.client("iam")
        self.ssm = service.client("ssm")
        self._clear()
        for role in everything().job_roles:
            self.iam.create_role(
                RoleName=role.name, Path=role.path, AssumeRolePolicyDocument=json.dumps(TRUST)
            )
        other = {"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}}
        made = self.iam.create_policy(PolicyName="others", PolicyDocument=json.dumps(other))
        self.iam.attach_role_policy(RoleName="plain", PolicyArn=made["Policy"]["Arn"])

    def _clear(self) -> None:
        sessions = self.service.sessions
        sessions.tier, sessions.tier_set_by = "standard", ""
        sessions.faults.clear()
        for node in list(sessions.nodes.nodes):
            body = {"InstanceId": node}
            self.service.do(sessions.handle("DeregisterManagedInstance", body, None))
        for name in [name for name, one in sessions.documents._documents.items() if one.owner != "Amazon"]:
            sessions.documents.delete({"Name": name})
        for each in self.ssm.get_parameters_by_path(Path="/smssh", Recursive=True)["Parameters"]:
            self.ssm.delete_parameter(Name=each["Name"])
        backend = iam_backends[ACCOUNT]["aws"]
        for arn in [arn for arn in backend.managed_policies if not arn.startswith("arn:aws:iam::aws:")]:
            del backend.managed_policies[arn]
        backend.roles.clear()
        backend.groups.clear()
        backend.account_aliases.clear()

    def state(self) -> dict[str, Any]:
        """All that a setup could touch."""
        backend = iam_backends[ACCOUNT]["aws"]
        policies = {
            policy.name: (
                next(
                    json.loads(each.document)
                    for each in policy.versions
                    if each.version_id == policy.default_version_id
                ),
                tags(policy.tags.values()),
            )
            for policy in backend.managed_policies.values()
            if not policy.arn.startswith("arn:aws:iam::aws:")
        }
        roles = {
            role.name: (
                role.path,
                role.assume_role_policy_document,
                {name: json.loads(text) for name, text in role.policies.items()},
                sorted(role.managed_policies),
                tags(role.tags),
            )
            for role in backend.roles.values()
        }
        documents = {
            name: (document.content, document.tags)
            for name, document in self.service.sessions.documents._documents.items()
        }
        parameters = [
            (each["Name"], each["Value"])
            for each in self.ssm.get_parameters_by_path(Path="/smssh", Recursive=True)["Parameters"]
        ]
        return json.loads(json.dumps([policies, roles, documents, parameters, self.service.sessions.tier]))

    def account(self) -> Account:
        """The account as the command has it; it does not wait."""
        return Account(AwsSession(), lambda _: None)


def tags(listed: Iterable[dict[str, str]]) -> dict[str, str]:
    """Tags as a table."""
    return {each["Key"]: each["Value"] for each in listed}


def apply(
    account: Account, replace: bool = False, parts: tuple[str, ...] = EVERY_PART, **answers: Any
) -> Run:
    """Apply a setup with every part; answers what there was to do."""
    run = Run(changes_of(Setup(everything(**answers), parts), account, replace=replace), undo=False)
    assert run.refused == []
    run.act(lambda _: None)
    return run


def undo(account: Account, *parts: str, **answers: Any) -> Run:
    """Undo it."""
    run = Run(removals_of(everything(**answers), account, parts), undo=True)
    run.act(lambda _: None)
    return run


class Failing:
    """Lets one call of many fail, before or after it had its effect.

    Args:
        patch: pytest's.
        error: what happens.
    """

    def __init__(self, patch: pytest.MonkeyPatch, error: BaseException) -> None:
        self._error = error
        self.number: int | None = None
        self.after = False
        self.made = 0
        self.changes = False
        plain: Callable[..., Any] = Account.call

        def call(account: Account, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
            self.made += 1
            fails = self.made == self.number
            if fails:
                self.changes = not operation.startswith(("get_", "list_", "describe_"))
            if fails and not self.after:
                raise error
            answer: dict[str, Any] = plain(account, service, operation, **arguments)
            if fails:
                raise error
            return answer

        patch.setattr(Account, "call", call)

    def every_call(self, action: Callable[[], object]) -> Iterator[tuple[int, bool]]:
        """Do something with each of its calls failing in turn, until it makes no further call.

        A call that changes something also fails after it has.
        """
        number = 0
        while self._fails(action, number := number + 1, after=False):
            changes = self.changes
            yield number, False
            if changes:
                assert self._fails(action, number, after=True)
                yield number, True

    def _fails(self, action: Callable[[], object], number: int, after: bool) -> bool:
        """Whether something makes so many calls that this one fails."""
        self.number, self.after, self.made = number, after, 0
        try:
            action()
        except (Exception, KeyboardInterrupt) as error:
            if error is not self._error:
                raise
            return True
        finally:
            self.number = None
        return False
