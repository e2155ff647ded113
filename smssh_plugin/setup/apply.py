"""A setup and an account: what is to be done, one thing after another, and doing it.

Everything is looked at before the first change, and each thing again right before its own. A run that ends in the
middle leaves whole things, or such as the next run finishes or removes: what says whose a thing is comes with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ExitStatus, SmsshError
from . import policies
from .change import LEAVE, REFUSE, Change, Resource
from .managed_policies import MOST_ROLES, Attachment, ManagedPolicy
from .model import literal
from .node_roles import NodeRole, roles_like
from .plan import RoleName
from .session_documents import SessionDocument
from .tier import Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from .account import Account
    from .parts import Setup
    from .plan import Plan

__all__ = ["Run", "changes_of", "removals_of"]

MANAGED = ("job", "submit", "people", "ci", "cleanup", "costs", "boundary")
"""The parts that are managed policies."""


def changes_of(setup: Setup, account: Account, *, replace: bool = False) -> list[Resource]:
    """The things of a setup in an account, in the order in which they are made; the tier, which costs, last.

    Args:
        setup: the setup. Its plan must be for this account.
        account: the account.
        replace: whether what others have changed is written over.

    Raises:
        SmsshError: nothing of it can be applied, or it has more job roles than it can keep record of.
    """
    plan = setup.plan
    if len(plan.job_roles) > MOST_ROLES:
        raise SmsshError(
            f"{len(plan.job_roles)} job roles are more than one setup can be attached to: {MOST_ROLES}",
            hint="run `smssh setup --apply` for each group of them, with a --name",
            reference="too-many-roles",
            status=ExitStatus.USAGE,
        )
    form = literal(plan.partition, plan.account)
    found: list[Resource] = []
    if setup.role is not None:
        role = setup.role
        found.append(
            NodeRole(
                account,
                plan.name,
                role.name,
                path=role.path,
                description=role.description,
                trust=role.trust(form),
                inline=(role.policy.name, role.policy.document(form)),
                replace=replace,
            )
        )
    for part, policy in setup.managed.items():
        made = ManagedPolicy(
            account, plan.name, policy.name, policy.description, policy.document(form), replace=replace
        )
        found.append(made)
        if part == "job":
            found += [Attachment(made, each) for each in plan.job_roles]
    if setup.session_document is not None:
        name, content = setup.session_document
        found.append(SessionDocument(account, plan.name, name, content, replace=replace))
    if setup.tier:
        found.append(Tier(account, plan.name))
    if not found:
        raise SmsshError(
            "the service control policy is for the management account: there is nothing else to apply",
            hint="use `smssh setup --part scp`, and attach there what it prints",
            reference="no-resource",
            status=ExitStatus.USAGE,
        )
    return found


def removals_of(plan: Plan, account: Account, parts: Collection[str]) -> list[Resource]:
    """The things that a setup may have made in an account, in the order in which they are removed.

    Args:
        plan: whose name says which setup it is, and whose node role is looked at beside all that may be one.
        account: the account.
        parts: names of PARTS; none for all. The tier is switched off whatever needs it only if it is named.
    """
    chosen = set(parts)
    found: list[Resource] = []
    if not chosen or "tier" in chosen:
        found.append(Tier(account, plan.name, certainly="tier" in chosen))
    if not chosen or "document" in chosen:
        found.append(SessionDocument(account, plan.name, policies.session_document(plan)))
    for part in MANAGED:
        if not chosen or part in chosen:
            policy = ManagedPolicy(account, plan.name, f"{plan.name}-{part}")
            policy.look()
            found += [Attachment(policy, RoleName(each)) for each in policy.attached_by_us]
            found.append(policy)
    if not chosen or "node" in chosen:
        role = policies.node(plan)
        names = dict.fromkeys([role.name, *roles_like(account, role.description)])
        found += [NodeRole(account, plan.name, each, inline=(role.policy.name, {})) for each in names]
    return found


class Run:
    """Looks at things, and then makes or removes them one by one.

    Args:
        resources: the things, in order.
        undo: whether they are removed.
    """

    def __init__(self, resources: list[Resource], *, undo: bool) -> None:
        self._undo = undo
        self.steps: list[tuple[Resource, Change]] = []
        """Each thing that is there or wanted, with what is to happen to it."""
        for each in resources:
            change = self._look(each)
            # The role of another setup is of no interest here, whatever its description.
            if change is not None and not (undo and not change.ours and isinstance(each, NodeRole)):
                self.steps.append((each, change))
        self.current = ""
        """What is being done now."""
        self.done: list[Change] = []
        """What was done, or turned out not to be needed any more."""
        self.left: list[Change] = []
        """What has changed since the first look, so that it was left."""

    def _look(self, resource: Resource) -> Change | None:
        return resource.removal() if self._undo else resource.wanted()

    @property
    def changes(self) -> list[Change]:
        """All that was found."""
        return [change for _, change in self.steps]

    @property
    def to_do(self) -> list[Change]:
        """What is to be done."""
        return [change for change in self.changes if change.acts]

    @property
    def refused(self) -> list[Change]:
        """Why nothing can be applied."""
        return [change for change in self.changes if change.verb == REFUSE]

    def act(self, progress: Callable[[Change], None]) -> None:
        """Do what is to be done.

        Args:
            progress: called with each thing that is done.

        Raises:
            SmsshError: a call failed, or a thing is not what was shown; those before it are done.
        """
        for resource, shown in self.steps:
            if not shown.acts:
                continue
            self.current = f"{shown.verb} {shown.what}"
            now = self._look(resource)
            if now is not None and now.verb in (LEAVE, REFUSE):
                if not self._undo:
                    raise _changed(now)
                self.left.append(now)
                progress(now)
                continue
            if now is not None and now.acts:
                if not self._undo and (now.what, now.lines) != (shown.what, shown.lines):
                    raise _changed(now)
                (resource.remove if self._undo else resource.make)()
            # What no longer needs to be done has been done by somebody else.
            done = shown if now is None or now.acts else now
            self.done.append(done)
            progress(done)
        self.current = ""


def _changed(now: Change) -> SmsshError:
    return SmsshError(
        f"{now.what} has changed since it was shown{f': {now.why}' if now.why else ''}",
        hint="run it again, and look at what it shows",
        reference="changed-meanwhile",
    )
