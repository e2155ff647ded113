"""Managed nodes that carry our tags, as Systems Manager describes them.

The service filters by the tags that the container's activation carries, so that the number of calls is constant,
whatever the size of the account.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..aws.session import ServiceRefused
from ..errors import ExitStatus, SmsshError
from .addresses import DEFAULT_HOST, JobAddress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..aws.session import AwsSession

__all__ = [
    "NAMES_A_FILTER",
    "Node",
    "checked_owner",
    "conflicts",
    "list_nodes",
    "living",
    "living_nodes",
    "moment_of",
    "node_of",
    "port_of",
    "registered",
    "role_names",
]

LATEST = 1e11
"""Seconds since the epoch, in the year 5138: what is not before it is not a time of a job."""
NAMES_A_FILTER = 50
"""Values of one filter of DescribeInstanceInformation, at most."""


@dataclass(frozen=True)
class Node:
    """A container that can be reached, as its managed node describes it.

    Attributes:
        target: the target of StartSession: the managed node's id, `mi-...`, or
            `sagemaker-training-job:JOB_HOST`.
        job: the name of the job.
        kind: training, processing, transform, ...
        host: `algo-1`, `algo-2`, ...
        step: the pipeline step, where the container was told.
        state: ready, held, running, released or ended; None where the container could not set it.
        port: the loopback port of the container's SSH server; 0 where it has none, or announced none that can be.
        user: the user to log in as.
        host_key: the SSH host key, `ssh-ed25519 AAAA...`; "" where none was announced (login is refused
            then).
        ping_status: Online, ConnectionLost or Inactive.
        created: seconds since the epoch when the node was made; 0.0 where unknown.
        owner: the SSHOwner tag; "" if there is no tag.
        control_port: the port of the same server for what does not count as a person; 0 where it has none.
    """

    target: str
    job: str
    kind: str
    host: str
    step: str | None
    state: str | None
    port: int
    user: str
    host_key: str
    ping_status: str
    created: float = 0.0
    owner: str = ""
    control_port: int = 0

    @property
    def address(self) -> str:
        """The address of this host."""
        return str(JobAddress(self.host, self.job, self.kind))


def list_nodes(aws: AwsSession, *, everything: bool = False, owner: str | None = None) -> list[Node]:
    """All nodes of this account and region that carry our tags, newest first.

    Args:
        aws: the AWS session.
        everything: also those that are not online (ended jobs that were not deregistered).
        owner: only those whose SSHOwner tag is this.
    """
    filters = [{"Key": "tag-key", "Values": ["SMSSH", "SMSSHJob"]}]
    if owner is not None:
        filters.append({"Key": "tag:SSHOwner", "Values": [owner]})
    # Here, not above: only `smssh list` needs threads, and every login imports this module.
    from ..at_once import at_once

    found = [info for info in _instances(aws, filters) if everything or _online(info)]
    nodes = [node for node in at_once(lambda info: node_of(aws, info), found) if node is not None]
    return sorted(nodes, key=lambda node: node.created, reverse=True)


def conflicts(nodes: list[Node], aws: AwsSession | None = None) -> dict[str, list[Node]]:
    """Which addresses of these nodes several nodes claim, and which those are.

    Only what is online and not over claims anything.

    Args:
        nodes: what `list_nodes` answered.
        aws: the AWS session, where that was of one owner alone: the nodes of others are asked for.
    """
    found = {node.target: node for node in nodes if _claims_something(node)}
    jobs = sorted({node.job for node in found.values() if node.job}) if aws is not None else []
    for start in range(0, len(jobs), NAMES_A_FILTER):
        assert aws is not None
        filters = [{"Key": "tag:SMSSHJob", "Values": jobs[start : start + NAMES_A_FILTER]}]
        for info in filter(_online, _instances(aws, filters)):
            if info["InstanceId"] not in found and (node := node_of(aws, info)) is not None:
                found[node.target] = node
    claims: dict[str, list[Node]] = {}
    for node in found.values():
        if _claims_something(node):
            claims.setdefault(node.address, []).append(node)
    return {address: some for address, some in claims.items() if len(some) > 1}


def living_nodes(aws: AwsSession, tags: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The nodes with these tags that are online, and have the job's role where this client was told it (SMSSH_ROLE).

    Compared here: "Tag filters can't be combined with other filter types" (DescribeInstanceInformation's reference).

    Args:
        aws: the AWS session.
        tags: filters of tags, as DescribeInstanceInformation takes them.
    """
    return filter(living, _instances(aws, tags))


def node_of(aws: AwsSession, info: dict[str, Any]) -> Node | None:
    """The node of one entry of DescribeInstanceInformation; None where it is deregistered when its tags are read."""
    target = str(info["InstanceId"])
    try:
        answer = aws.call("ssm", "list_tags_for_resource", ResourceType="ManagedInstance", ResourceId=target)
    except ServiceRefused as error:
        if error.code != "InvalidResourceId":
            raise
        return None
    tags = {tag["Key"]: tag["Value"] for tag in answer.get("TagList", [])}
    return Node(
        target=target,
        job=tags.get("SMSSHJob", ""),
        kind=tags.get("SMSSHKind", ""),
        host=tags.get("SMSSHHost", DEFAULT_HOST),
        step=tags.get("SMSSHStep") or None,
        state=tags.get("SMSSHState") or None,
        port=port_of(tags.get("SMSSHPort", "22")),
        user=tags.get("SMSSHUser", "root"),
        host_key=tags.get("SMSSHHostKey", "").strip(),
        ping_status=str(info.get("PingStatus", "")),
        created=moment_of(tags.get("SMSSHCreated")) or registered(info),
        owner=tags.get("SSHOwner", ""),
        control_port=port_of(tags.get("SMSSHControlPort")),
    )


def port_of(said: object) -> int:
    """A port that a container announced; 0 for anything else, as any job may announce anything."""
    try:
        number = int(str(said))
    except ValueError:
        return 0
    return number if 0 < number < 65536 else 0


def moment_of(said: object) -> float:
    """A time that a container announced, in seconds since the epoch; 0.0 for anything else."""
    try:
        seconds = float(str(said))
    except ValueError:
        return 0.0
    return seconds if 0.0 < seconds < LATEST else 0.0


def checked_owner(node: Node) -> Node:
    """The node, if it belongs to the owner that this client names (SMSSH_OWNER), or the client names none.

    Raises:
        SmsshError: REFUSED: it is another's.
    """
    wanted = os.environ.get("SMSSH_OWNER", "").strip()
    if wanted and node.owner != wanted:
        raise SmsshError(
            f"{node.address} ({node.target}) has the owner {node.owner!r}, and SMSSH_OWNER is {wanted!r}",
            hint=f"if you mean to enter it, set SMSSH_OWNER={node.owner!r} for this command"
            if node.owner
            else "if you mean to enter it, unset SMSSH_OWNER for this command",
            reference="another-owner",
            status=ExitStatus.REFUSED,
            check=f"--job {node.address}",
        )
    return node


def living(info: dict[str, Any]) -> bool:
    """Whether a node is online, and has the job's role where this client was told it (SMSSH_ROLE)."""
    role = os.environ.get("SMSSH_ROLE", "").strip()
    return _online(info) and (not role or info.get("IamRole") in role_names(role))


def role_names(role: str) -> list[str]:
    """A role, name or ARN, as a node may show it: with its path, and by its bare name."""
    whole = role.partition(":role/")[2] if role.startswith("arn:") else role
    return list(dict.fromkeys([whole, whole.rpartition("/")[2]]))


def registered(info: dict[str, Any]) -> float:
    """When a managed node was registered, seconds since the epoch; 0.0 where the service does not say."""
    return float(info.get("RegistrationDate") or 0.0)


def _online(info: dict[str, Any]) -> bool:
    return info.get("PingStatus") == "Online"


def _claims_something(node: Node) -> bool:
    return node.ping_status == "Online" and node.state != "ended"


def _instances(aws: AwsSession, filters: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """DescribeInstanceInformation, all pages, by filters of tags alone; see `living_nodes`."""
    for page in aws.pages("ssm", "describe_instance_information", Filters=filters, MaxResults=50):
        yield from page.get("InstanceInformationList", [])
