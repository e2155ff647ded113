"""Managed policies in an account, and their attachments to the roles of jobs."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from ..errors import SmsshError
from . import marks
from .change import KEEP, LEAVE, MAKE, REFUSE, REMOVE, Change, compared

if TYPE_CHECKING:
    from .account import Account
    from .plan import RoleName

__all__ = ["MOST_ROLES", "Attachment", "ManagedPolicy"]

VERSIONS = 5
"""The versions that a managed policy can have (IAM's quotas)."""
USUAL_ATTACHED = 10
"""The managed policies that a role can have, unless the account's quota was raised."""
MOST_ROLES = 40
"""The job roles of one setup: each is a tag of the policy, which can have 50."""


class ManagedPolicy:
    """One policy of an account.

    Args:
        account: the account.
        setup: the name of the setup that it belongs to.
        name: its name.
        description: what for.
        document: what it is to be; {} for an undo.
        replace: whether it is written over what others have changed.
    """

    def __init__(
        self,
        account: Account,
        setup: str,
        name: str,
        description: str = "",
        document: dict[str, Any] | None = None,
        *,
        replace: bool = False,
    ) -> None:
        who = account.caller
        self.account = account
        self.setup = setup
        self.name = name
        self.arn = f"arn:{who.partition}:iam::{who.account}:policy/{name}"
        self.what = f"policy {name}"
        self.tags: dict[str, str] = {}
        self.there = False
        self.planned: set[str] = set()
        """The roles that this run attaches it to."""
        self.detached: set[str] = set()
        """The roles from which this run has detached it: IAM may not have heard of it yet."""
        self._description = description
        self._wanted = document or {}
        self._replace = replace
        self._current: dict[str, Any] = {}

    @property
    def ours(self) -> bool:
        """Whether this setup made it, by the last look."""
        return self.there and not marks.owner(self.tags, self.setup)

    @property
    def attached_by_us(self) -> list[str]:
        """The names of the roles that this setup attached it to, by the last look."""
        return marks.roles_of(self.tags) if self.ours else []

    @property
    def changed(self) -> bool:
        """Whether somebody else has changed it, by the last look."""
        return self.there and not marks.written(self.tags, self._current)

    def look(self) -> None:
        """Read it."""
        found = self.account.find("iam", "get_policy", PolicyArn=self.arn)
        self.there = found is not None
        self.tags, self._current = {}, {}
        if found is None:
            return
        self.tags = marks.tags_of(found["Policy"])
        version = found["Policy"]["DefaultVersionId"]
        answer = self.account.call("iam", "get_policy_version", PolicyArn=self.arn, VersionId=version)
        self._current = answer["PolicyVersion"]["Document"]

    def wanted(self) -> Change:
        """See `Resource`."""
        self.look()
        if not self.there:
            return Change(MAKE, self.what, f"{len(self._wanted['Statement'])} statements")
        stranger = marks.owner(self.tags, self.setup)
        return compared(self.what, self._current, self._wanted, stranger, self.changed, replace=self._replace)

    def make(self) -> None:
        """See `Resource`."""
        if not self.there:
            tags = {**marks.MADE, marks.SETUP: self.setup, marks.CONTENT: marks.content(self._wanted)}
            self.account.call(
                "iam",
                "create_policy",
                PolicyName=self.name,
                PolicyDocument=_json(self._wanted),
                Description=self._description,
                Tags=marks.listed(tags),
            )
            self.there, self.tags, self._current = True, tags, self._wanted
            return
        self._tag(marks.CONTENT, marks.content(self._current, self._wanted))
        if self._current == self._wanted:
            return
        versions = self.account.pages("iam", "list_policy_versions", "Versions", PolicyArn=self.arn)
        old = sorted(
            (each["VersionId"] for each in versions if not each["IsDefaultVersion"]),
            key=lambda version: int(version[1:]),
        )
        if len(versions) >= VERSIONS:
            self.account.call("iam", "delete_policy_version", PolicyArn=self.arn, VersionId=old[0])
        self.account.call(
            "iam",
            "create_policy_version",
            PolicyArn=self.arn,
            PolicyDocument=_json(self._wanted),
            SetAsDefault=True,
        )
        self._current = self._wanted

    def removal(self) -> Change | None:
        """See `Resource`. It is left if it is attached to what this setup did not attach it to."""
        self.look()
        if not self.there:
            return None
        stranger = marks.owner(self.tags, self.setup)
        if stranger:
            return Change(LEAVE, self.what, stranger, ours=False)
        if self.changed:
            return Change(LEAVE, self.what, "somebody has changed it: delete it by hand")
        users = self._users()
        if users:
            return Change(
                LEAVE, self.what, f"it is attached to {', '.join(users)}: detach it, and run this again"
            )
        return Change(REMOVE, self.what)

    def _users(self) -> list[str]:
        """What it is attached to beside the roles that this setup attached it to."""
        found = []
        arguments: dict[str, Any] = {"PolicyArn": self.arn}
        while True:
            answer = self.account.call("iam", "list_entities_for_policy", **arguments)
            ours = {*self.attached_by_us, *self.detached}
            found += [f"group {each['GroupName']}" for each in answer.get("PolicyGroups", ())]
            found += [f"user {each['UserName']}" for each in answer.get("PolicyUsers", ())]
            found += [
                f"role {each['RoleName']}"
                for each in answer.get("PolicyRoles", ())
                if each["RoleName"] not in ours
            ]
            if not answer.get("IsTruncated"):
                return found
            arguments["Marker"] = answer["Marker"]

    def remove(self) -> None:
        """See `Resource`."""
        for version in self.account.pages("iam", "list_policy_versions", "Versions", PolicyArn=self.arn):
            if not version["IsDefaultVersion"]:
                self.account.call(
                    "iam", "delete_policy_version", PolicyArn=self.arn, VersionId=version["VersionId"]
                )
        self.account.patiently("DeleteConflict", "iam", "delete_policy", PolicyArn=self.arn)

    def _tag(self, key: str, value: str) -> None:
        if self.tags.get(key) != value:
            self.account.call("iam", "tag_policy", PolicyArn=self.arn, Tags=marks.listed({key: value}))
            self.tags[key] = value

    def mark(self, role: str) -> None:
        """Note that this setup attaches it to a role, before it does."""
        key = marks.role_mark(role)
        if key not in self.tags:
            self.account.patiently(
                "NoSuchEntity", "iam", "tag_policy", PolicyArn=self.arn, Tags=marks.listed({key: "attached"})
            )
            self.tags[key] = "attached"

    def unmark(self, role: str) -> None:
        """Forget that."""
        key = marks.role_mark(role)
        self.account.call("iam", "untag_policy", PolicyArn=self.arn, TagKeys=[key])
        self.tags.pop(key, None)


class Attachment:
    """A policy at a role of jobs.

    Args:
        policy: the policy, which comes before its attachments.
        role: the role; for an undo only its name counts.
    """

    def __init__(self, policy: ManagedPolicy, role: RoleName) -> None:
        self._policy = policy
        self._role = role
        self._account = policy.account
        self.what = f"attachment of {policy.name} to the role {role.short}"

    def _attached(self) -> list[str] | None:
        """The ARNs of the role's managed policies; None if there is no such role."""
        found = self._account.find("iam", "get_role", RoleName=self._role.name)
        if found is None:
            return None
        pages = self._account.pages(
            "iam", "list_attached_role_policies", "AttachedPolicies", RoleName=self._role.name
        )
        return [str(each["PolicyArn"]) for each in pages]

    def wanted(self) -> Change:
        """See `Resource`."""
        found = self._account.find("iam", "get_role", RoleName=self._role.name)
        if found is None:
            return Change(REFUSE, self.what, "there is no such role")
        path = str(found["Role"]["Path"])
        if path != self._role.path:
            right = f"{path}{self._role.name}"[1:]
            return Change(REFUSE, self.what, f"the role is {right}: pass --job-role {right}")
        attached = self._attached() or []
        if self._policy.arn in attached:
            ours = self._role.name in self._policy.attached_by_us
            return Change(KEEP, self.what, "" if ours else "somebody else attached it", ours=ours)
        if self._policy.there and not self._policy.ours:
            return Change(
                REFUSE, self.what, f"{self._policy.name} was not made by this setup: attach it by hand"
            )
        if len(attached) >= USUAL_ATTACHED and len(attached) >= self._quota():
            return Change(
                REFUSE, self.what, f"the role has {len(attached)} managed policies, the most that it can"
            )
        self._policy.planned.add(self._role.name)
        if len(self._policy.planned.union(self._policy.attached_by_us)) > MOST_ROLES:
            return Change(
                REFUSE,
                self.what,
                f"the setup keeps record of {MOST_ROLES} job roles at most: use another --name for more",
            )
        return Change(MAKE, self.what)

    def _quota(self) -> int:
        summary = self._account.call("iam", "get_account_summary")["SummaryMap"]
        return int(summary.get("AttachedPoliciesPerRoleQuota", USUAL_ATTACHED))

    def make(self) -> None:
        """See `Resource`."""
        self._policy.mark(self._role.name)
        try:
            self._account.patiently(
                "NoSuchEntity",
                "iam",
                "attach_role_policy",
                RoleName=self._role.name,
                PolicyArn=self._policy.arn,
            )
        except SmsshError as error:
            # Refused for certain: who attaches it by hand now must keep that at an undo.
            if error.reference == "access-denied":
                with contextlib.suppress(SmsshError):
                    self._policy.unmark(self._role.name)
            raise

    def removal(self) -> Change | None:
        """See `Resource`. An attachment that is gone already leaves its mark, which is removed.

        What somebody has written into the policy, a Deny for instance, goes on to hold for its roles: it is left.
        """
        self._policy.look()
        if self._role.name not in self._policy.attached_by_us:
            return None
        if self._policy.changed and self._policy.arn in (self._attached() or ()):
            why = f"somebody has changed the policy {self._policy.name}: detach it by hand"
            return Change(LEAVE, self.what, why)
        return Change(REMOVE, self.what)

    def remove(self) -> None:
        """See `Resource`."""
        if self._policy.arn in (self._attached() or ()):
            self._account.call(
                "iam", "detach_role_policy", RoleName=self._role.name, PolicyArn=self._policy.arn
            )
        self._policy.detached.add(self._role.name)
        self._policy.unmark(self._role.name)


def _json(document: dict[str, Any]) -> str:
    """Without white space, which counts for some of IAM's limits."""
    return json.dumps(document, separators=(",", ":"))
