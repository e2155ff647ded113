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
_JOB_LOGS = "arn:{partition}:logs:*:{account}:log-group:/aws/sagemaker/ProcessingJobs"


def document(*statements: Mapping[str, Any]) -> dict[str, Any]:
    """A policy of some statements."""
    return {"Version": VERSION, "Statement": list(statements)}


class Policies:
    """What `smssh setup` would make for the node role and the owner of a run.

    Args:
        run: the run.
        caller: whose account it is.
        with_job: whether the run may start a job.
    """

    def __init__(self, run: Run, caller: Caller, *, with_job: bool = False) -> None:
        self._run = run
        self._with_job = with_job
        self._caller = caller
        self._form = literal(caller.partition, caller.account)

    def _plan(self, owner: str) -> Plan:
        return Plan.make(
            partition=self._caller.partition,
            account=self._caller.account,
            node_role=self._run.roles["node"],
            owner=owner_scheme("team", owner),
            bundle_prefix=self.bundles,
        )

    @property
    def bundles(self) -> str:
        """Where the bundle of the job is stored: in a bucket of the run."""
        return f"s3://{self._run.name}/bundles"

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

    @property
    def node_policy(self) -> dict[str, Any] | None:
        """What nodes may do, if one of them is to be online."""
        if not self._with_job:
            return None
        found: dict[str, Any] = policies.node(self._plan(self._run.name)).policy.document(self._form)
        return found

    @property
    def job_trust(self) -> dict[str, Any]:
        """The trust policy of the role of the job."""
        condition = {"StringEquals": {"aws:SourceAccount": self._caller.account}}
        principal = {"Service": "sagemaker.amazonaws.com"}
        return document(
            {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole", "Condition": condition}
        )

    @property
    def job_policy(self) -> dict[str, Any]:
        """What the job may do: the policy for jobs, and what every job of SageMaker needs."""
        made: dict[str, Any] = policies.job(self._plan(self._run.name)).document(self._form)
        logs = self._form(_JOB_LOGS)
        own = [
            {
                "Sid": "Logs",
                "Effect": "Allow",
                "Action": [
                    "logs:CreateLogGroup",
                    "logs:CreateLogStream",
                    "logs:DescribeLogStreams",
                    "logs:PutLogEvents",
                ],
                "Resource": [logs, f"{logs}:log-stream:*"],
            },
            {
                "Sid": "Image",
                "Effect": "Allow",
                "Action": [
                    "ecr:BatchCheckLayerAvailability",
                    "ecr:BatchGetImage",
                    "ecr:GetAuthorizationToken",
                    "ecr:GetDownloadUrlForLayer",
                ],
                "Resource": "*",
            },
        ]
        return document(*made["Statement"], *own)

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

        logs = self._form(_JOB_LOGS)
        with_job = (
            allow("Channel", "ssmmessages:OpenDataChannel", "*"),
            allow("Sessions", ["ssm:TerminateSession", "ssm:ResumeSession"], "*"),
            allow("Find", "ssm:DescribeInstanceInformation", "*"),
            allow("HostKeys", "ssm:ListTagsForResource", nodes),
            allow("JobLogs", ["logs:DescribeLogStreams", "logs:GetLogEvents"], f"{logs}*"),
        )
        return document(
            *(with_job if self._with_job else ()),
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
