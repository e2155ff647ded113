"""The role of managed nodes in an account. Its trust policy is written when it is made, and never again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from . import marks
from .change import CHANGE, KEEP, LEAVE, MAKE, REFUSE, REMOVE, Change, difference

if TYPE_CHECKING:
    from .account import Account

__all__ = ["NodeRole", "roles_like"]

NODES = "ssm.amazonaws.com"
"""The service that gives its role to a managed node, in all partitions."""


class NodeRole:
    """One role of an account.

    Args:
        account: the account.
        setup: the name of the setup that it belongs to.
        name: its name.
        path: its path.
        description: what for.
        trust: its trust policy; {} for an undo.
        inline: the name and content of its policy; the content is {} for an undo.
        replace: whether its policy is written over what others have changed.
    """

    def __init__(
        self,
        account: Account,
        setup: str,
        name: str,
        *,
        inline: tuple[str, dict[str, Any]],
        path: str = "/",
        description: str = "",
        trust: dict[str, Any] | None = None,
        replace: bool = False,
    ) -> None:
        self.what = f"role {path}{name}".replace(" /", " ")
        self._account = account
        self._setup = setup
        self._name = name
        self._path = path
        self._description = description
        self._trust = trust or {}
        self._inline_name, self._inline = inline
        self._replace = replace
        self._role: dict[str, Any] | None = None
        self._tags: dict[str, str] = {}
        self._current: dict[str, Any] | None = None

    def _look(self) -> None:
        found = self._account.find("iam", "get_role", RoleName=self._name)
        self._role = None if found is None else found["Role"]
        self._tags, self._current = marks.tags_of(self._role or {}), None
        if self._role is not None:
            policy = self._account.find(
                "iam", "get_role_policy", RoleName=self._name, PolicyName=self._inline_name
            )
            self._current = None if policy is None else policy["PolicyDocument"]

    def wanted(self) -> Change:
        """See `Resource`."""
        self._look()
        if self._role is None:
            return Change(MAKE, self.what, f"with the policy {self._inline_name}")
        path = str(self._role["Path"])
        if path != self._path:
            right = f"{path}{self._name}"[1:]
            return Change(REFUSE, self.what, f"the role of that name is {right}: pass --node-role {right}")
        stranger = marks.owner(self._tags, self._setup)
        by_hand = self._by_hand(stranger)
        if stranger:
            return Change(KEEP, self.what, f"{stranger}, and stays as it is{by_hand}", ours=False)
        if self._current is None:
            return Change(CHANGE, self.what, f"it lacks the policy {self._inline_name}{by_hand}")
        same = self._current == self._inline
        changed = not marks.written(self._tags, self._current)
        if same and not changed:
            return Change(KEEP, self.what, by_hand.removeprefix(": "))
        lines = difference(self._current, self._inline)
        if changed and not same and not self._replace:
            why = f"somebody has changed its policy {self._inline_name}: --replace writes over it"
            return Change(REFUSE, self.what, why, lines)
        return Change(
            CHANGE, self.what, ("somebody has changed its policy" if changed else "") + by_hand, lines
        )

    def _by_hand(self, stranger: str) -> str:
        """What the role lacks that is not for us to change."""
        assert self._role is not None
        found = ""
        statements = self._role["AssumeRolePolicyDocument"].get("Statement") or []
        statements = statements if isinstance(statements, list) else [statements]
        (wanted,) = self._trust["Statement"]
        if wanted not in statements:
            found = f": add {json.dumps(wanted)} to its trust policy by hand, unless it has its like"
        if stranger and self._current != self._inline:
            found += f"{', and' if found else ':'} give it the permissions of `smssh setup --part node`"
        return found

    def make(self) -> None:
        """See `Resource`."""
        if self._role is None:
            tags = {
                **marks.MADE,
                marks.SETUP: self._setup,
                marks.CONTENT: marks.content(self._inline),
                marks.TRUST: marks.digest(self._trust),
            }
            self._account.call(
                "iam",
                "create_role",
                RoleName=self._name,
                Path=self._path,
                Description=self._description,
                AssumeRolePolicyDocument=json.dumps(self._trust),
                Tags=marks.listed(tags),
            )
            self._role, self._tags = {"Path": self._path}, tags
        there = [self._inline] if self._current is None else [self._current, self._inline]
        value = marks.content(*there)
        if self._tags.get(marks.CONTENT) != value:
            self._account.call(
                "iam", "tag_role", RoleName=self._name, Tags=marks.listed({marks.CONTENT: value})
            )
        if self._current != self._inline:
            self._account.patiently(
                "NoSuchEntity",
                "iam",
                "put_role_policy",
                RoleName=self._name,
                PolicyName=self._inline_name,
                PolicyDocument=json.dumps(self._inline, separators=(",", ":")),
            )

    def removal(self) -> Change | None:
        """See `Resource`. It is left if somebody has changed it or added to it."""
        self._look()
        if self._role is None:
            return None
        self.what = f"role {self._role['Path']}{self._name}".replace(" /", " ")
        stranger = marks.owner(self._tags, self._setup)
        if stranger:
            return Change(LEAVE, self.what, stranger, ours=False)
        if marks.digest(self._role["AssumeRolePolicyDocument"]) != self._tags.get(marks.TRUST):
            return Change(LEAVE, self.what, "somebody has changed its trust policy: delete it by hand")
        if not _of_nodes(self._role["AssumeRolePolicyDocument"]):
            # Our tags can be put on any role by those who may tag roles.
            return Change(LEAVE, self.what, "others than Systems Manager may assume it: delete it by hand")
        if self._current is not None and not marks.written(self._tags, self._current):
            why = f"somebody has changed its policy {self._inline_name}: delete it by hand"
            return Change(LEAVE, self.what, why)
        added = self._added()
        if added:
            return Change(
                LEAVE, self.what, f"somebody has added {', '.join(added)}: remove that, and run this again"
            )
        return Change(REMOVE, self.what, "nodes that have it lose their sessions within the hour")

    def _added(self) -> list[str]:
        """What others have given it."""
        arguments = {"RoleName": self._name}
        listing = self._account.pages
        found = [
            f"the policy {each['PolicyName']}"
            for each in listing("iam", "list_attached_role_policies", "AttachedPolicies", **arguments)
        ]
        inline = [str(each) for each in listing("iam", "list_role_policies", "PolicyNames", **arguments)]
        found += [f"the policy {each}" for each in inline if each != self._inline_name]
        found += [
            f"the instance profile {each['InstanceProfileName']}"
            for each in listing("iam", "list_instance_profiles_for_role", "InstanceProfiles", **arguments)
        ]
        return found

    def remove(self) -> None:
        """See `Resource`."""
        if self._current is not None:
            self._account.call("iam", "delete_role_policy", RoleName=self._name, PolicyName=self._inline_name)
        self._account.patiently("DeleteConflict", "iam", "delete_role", RoleName=self._name)


def _of_nodes(trust: dict[str, Any]) -> bool:
    """Whether a trust policy lets in Systems Manager alone, as that of every role made here does."""
    statements = trust.get("Statement") or []
    statements = statements if isinstance(statements, list) else [statements]
    return bool(statements) and all(each.get("Principal") == {"Service": NODES} for each in statements)


def roles_like(account: Account, description: str) -> list[str]:
    """The names of the account's roles with a description: a listing has no tags, which say whose they are."""
    return [
        str(each["RoleName"])
        for each in account.pages("iam", "list_roles", "Roles", MaxItems=1000)
        if each.get("Description") == description
    ]
