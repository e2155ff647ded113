"""The policies of a run: the statements of `smssh setup`, and what the role for trials may do at most."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..setup import policies
from ..setup.model import literal
from ..setup.owners import owner_scheme
from ..setup.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..aws.identity_calls import Caller
    from .names import Run

__all__ = ["Policies", "document"]

VERSION = "2012-10-17"


def document(*statements: Mapping[str, Any]) -> dict[str, Any]:
    """A policy of some statements."""
    return {"Version": VERSION, "Statement": list(statements)}


class Policies:
    """What `smssh setup` would make for the node role and the owner of a run.

    Args:
        run: the run.
        caller: whose account it is.
    """

    def __init__(self, run: Run, caller: Caller) -> None:
        self._run = run
        self._caller = caller
        self._form = literal(caller.partition, caller.account)

    def _plan(self, owner: str) -> Plan:
        return Plan.make(
            partition=self._caller.partition,
            account=self._caller.account,
            node_role=self._run.roles["node"],
            owner=owner_scheme("team", owner),
        )

    def job(self, *sids: str, owner: str = "") -> list[dict[str, Any]]:
        """Statements of the policy for jobs, by their names.

        Args:
            sids: their names.
            owner: the owner that they name; by default that of the run.
        """
        return self._chosen(policies.job(self._plan(owner or self._run.name)), sids)

    def people(self, *sids: str, owner: str = "") -> list[dict[str, Any]]:
        """Statements of the policy for people; the arguments are those of `job`."""
        return self._chosen(policies.people(self._plan(owner or self._run.name)), sids)

    def _chosen(self, policy: Any, sids: tuple[str, ...]) -> list[dict[str, Any]]:
        found = {each.sid: each for each in policy.statements}
        return [found[sid].document(self._form) for sid in sids]

    @property
    def node_trust(self) -> dict[str, Any]:
        """The trust policy of the role of nodes."""
        return policies.node(self._plan(self._run.name)).trust(self._form)

    def test_trust(self, external_id: str) -> dict[str, Any]:
        """The trust policy of the role for trials: the caller alone, until the run is over.

        Args:
            external_id: what only this process knows.
        """
        condition = {"StringEquals": {"sts:ExternalId": external_id}, **self._until}
        principal = {"AWS": self._caller.arn}
        return document(
            {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole", "Condition": condition}
        )

    @property
    def test_policy(self) -> dict[str, Any]:
        """What the role for trials may do at most: session policies narrow it to what is tried.

        Nodes have to carry the run's tag, so that no mistake reaches a node of anybody else.
        """
        nodes = self._form(policies.NODES)

        def allow(sid: str, actions: Any, resource: str, key: str = "") -> dict[str, Any]:
            condition: dict[str, Any] = dict(self._until)
            if key:
                condition["StringEquals"] = {f"{key}/SMSSHJob": self._run.name}
            statement = {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resource}
            return {**statement, "Condition": condition}

        return document(
            allow("Activate", "ssm:CreateActivation", "*"),
            allow("TagNew", "ssm:AddTagsToResource", "*", "aws:RequestTag"),
            allow("TagNode", "ssm:AddTagsToResource", nodes, "aws:ResourceTag"),
            allow("Pass", "iam:PassRole", self.node_role),
            allow("Node", ["ssm:StartSession", "ssm:DeregisterManagedInstance"], nodes, "ssm:resourceTag"),
            allow("Document", "ssm:StartSession", self._form("arn:{partition}:ssm:*:*:document/*")),
            allow("PublicDocument", "ssm:StartSession", self._form("arn:{partition}:ssm:*::document/*")),
        )

    @property
    def node_role(self) -> str:
        """The ARN of the role of nodes."""
        return str(self._form(f"arn:{{partition}}:iam::{{account}}:role/{self._run.roles['node']}"))

    @property
    def _until(self) -> dict[str, Any]:
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._run.until))
        return {"DateLessThan": {"aws:CurrentTime": end}}
