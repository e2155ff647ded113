"""What ended jobs left behind in Systems Manager: managed nodes and activations, found by the tags they carry.

A job deregisters its nodes itself. One that is killed cannot, and nothing in the service does it later. Whether a node
is stale is told by three things together: it has all of our tags, it has not been online for a while, and SageMaker
says that its job has ended. Nodes of others are neither read nor counted: the service filters by tag.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ..at_once import at_once
from ..aws.session import ServiceRefused
from ..client.addresses import DEFAULT_HOST, JobAddress
from ..client.job_state import DESCRIBE, ENDED
from ..client.managed_nodes import registered
from ..durations import format_duration
from ..errors import SmsshError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..aws.session import AwsSession

__all__ = [
    "HELPER",
    "SMSSH",
    "UNKNOWN_SECONDS",
    "Entry",
    "Fate",
    "Finding",
    "Limits",
    "Maker",
    "Overview",
    "fate_of",
    "judge",
    "look",
    "read",
]

UNKNOWN_SECONDS = 86400.0
"""How long a node whose job SageMaker does not know must not have been seen, at least.

Such a node may be of an endpoint, which has no job, or of a container in SageMaker's local mode; and a container that
only knows the ARN of its job may have its name in lower case. Agents report every 5 minutes.
"""
_OFFLINE = frozenset({"ConnectionLost", "Inactive"})
_NODE = re.compile(r"mi-[0-9a-f]{17}")
_JOB_NAME = re.compile(r"[a-zA-Z0-9](?:-*[a-zA-Z0-9]){0,62}")
# API_DescribeTrainingJob: "Requested resource not found."; the others: "Could not find requested job with name: ..."
_NO_SUCH_JOB = re.compile(r"not found|could not find", re.IGNORECASE)
_ARN = re.compile(r"arn:[\w-]+:sagemaker:[\w-]*:\d*:(training|processing|transform)-job/(.+)")


@dataclass(frozen=True)
class Maker:
    """What made a node or an activation, as its tags show.

    Attributes:
        name: `smssh` or `sagemaker-ssh-helper`.
        tags: the tags that all of its nodes and activations have; the service is asked for the first.
    """

    name: str
    tags: tuple[str, ...]


SMSSH = Maker("smssh", ("SMSSH", "SMSSHJob", "SMSSHKind"))
HELPER = Maker("sagemaker-ssh-helper", ("SSHTimestamp", "SSHOwner", "SSHCreator"))
"""sagemaker-ssh-helper never deregisters; it tags nodes with these three and, unless endpoints, with the job's ARN."""


@dataclass(frozen=True)
class Entry:
    """A managed node or an activation that carries the tags of a maker.

    Attributes:
        what: `node` or `activation`.
        id: `mi-...`, or the activation's id.
        maker: what made it.
        tags: all of its tags.
        name: the default instance name, which was given with the activation and cannot be changed by a tag.
        online: whether the service has heard from the node lately; of an activation, false.
        seen: when the node was last heard of or the activation ended (created, if it has not), in seconds since the
            epoch; 0.0 where unknown.
        activation: the id of the activation that a node was registered with; "" where unknown, and of an activation.
    """

    what: str
    id: str
    maker: Maker
    tags: dict[str, str] = field(default_factory=dict)
    name: str = ""
    online: bool = False
    seen: float = 0.0
    activation: str = ""

    @property
    def owner(self) -> str:
        """The SSHOwner tag; "" if there is no tag."""
        return self.tags.get("SSHOwner", "")

    @property
    def job(self) -> tuple[str, str]:
        """Kind and name of its job; "" where the tags do not say."""
        if self.maker is SMSSH:
            return self.tags.get("SMSSHKind", ""), self.tags.get("SMSSHJob", "")
        found = _ARN.fullmatch(self.tags.get("SSHResourceArn", ""))
        name = self.tags.get("SSHResourceName", "")
        if found is None:
            return "", name
        # An ARN may have a name in lower case.
        return found[1], name if name.lower() == found[2].lower() else found[2]

    @property
    def address(self) -> str:
        """Where the host was reached; "" where the tags do not say."""
        kind, name = self.job
        if not kind or not name:
            return name
        host = self.tags.get("SMSSHHost", DEFAULT_HOST) if self.maker is SMSSH else None
        return str(JobAddress(host, name, kind))


@dataclass(frozen=True)
class Limits:
    """What may be removed at all.

    Attributes:
        older_than: seconds for which it must not have been seen.
        owner: its SSHOwner tag must be this; None for any.
    """

    older_than: float
    owner: str | None = None


@dataclass(frozen=True)
class Finding:
    """An entry, and what is to become of it.

    Attributes:
        entry: the node or activation.
        stale: whether it is to be removed.
        reason: why, or why not.
        untold: whether it is kept because its job could not be asked for.
    """

    entry: Entry
    stale: bool
    reason: str
    untold: bool = False


class Fate(NamedTuple):
    """What SageMaker says of a job.

    Attributes:
        state: ended, running, unknown, or untold where it did not answer.
        detail: the job's status, or the reason.
    """

    state: str
    detail: str


@dataclass(frozen=True)
class Overview:
    """What a look found.

    Attributes:
        findings: all nodes and activations, the one seen longest ago first.
        problem: why the activations are not among them; None if they are.
    """

    findings: list[Finding]
    problem: SmsshError | None = None


_NOT_ASKED = Fate("untold", "it was not asked for")


def look(aws: AwsSession, makers: tuple[Maker, ...], limits: Limits, now: float) -> Overview:
    """All nodes and activations of these makers, in this account and region.

    The calls are one for 50 nodes with such tags, one for 50 activations of the account (DescribeActivations cannot
    filter by tag), one for each node that is not online and old enough, and one for each job.

    Args:
        aws: the AWS session.
        makers: what made the entries; of several that fit, the first.
        limits: what may be removed.
        now: the time, in seconds since the epoch.

    Raises:
        SmsshError: the nodes or their tags cannot be read, or the service cannot be reached.
    """
    listed: dict[str, Entry] = {}
    for maker in makers:
        for entry in _listed_nodes(aws, maker, limits):
            listed.setdefault(entry.id, entry)
    found: list[Finding] = []
    old: list[Entry] = []
    for entry in listed.values():
        early = _early(entry, limits, now)
        if early:
            found.append(Finding(entry, False, early))
        else:
            old.append(entry)
    problem = None
    activations: list[dict[str, Any]] = []
    try:
        activations += _listed_activations(aws)
    except SmsshError as error:
        if error.reference != "access-denied":
            raise
        problem = error
    tags_of = {str(info.get("ActivationId")): _tags(info.get("Tags")) for info in activations}
    others = [one for one in old if not _made_by(one.maker, tags_of.get(one.activation))]
    # Tags can be put on any server later; those of the activation that it was registered with cannot be changed.
    found += [Finding(one, False, f"its activation was not made by {one.maker.name}") for one in others]
    own = [one for one in old if one not in others]
    tagged = [entry for entry in at_once(lambda one: _with_tags(aws, one), own) if entry is not None]
    tagged += _own_activations(activations, makers, limits)
    jobs = sorted({one.job for one in tagged if not (_early(one, limits, now) or _foreign(one, limits))})
    fates = dict(zip(jobs, at_once(lambda job: fate_of(aws, *job), jobs), strict=True))
    found += [judge(one, fates.get(one.job, _NOT_ASKED), limits, now) for one in tagged]
    return Overview(sorted(found, key=lambda finding: (finding.entry.seen, finding.entry.id)), problem)


def read(aws: AwsSession, entry: Entry) -> Entry | None:
    """The entry as it is now, its tags read last; None where it is gone."""
    if entry.what == "activation":
        filters = [{"FilterKey": "ActivationIds", "FilterValues": [entry.id]}]
        for page in aws.pages("ssm", "describe_activations", Filters=filters, MaxResults=50):
            for info in page.get("ActivationList", []):
                if info.get("ActivationId") == entry.id:
                    return _activation(info, entry.maker)
        return None
    wanted = [{"Key": "InstanceIds", "Values": [entry.id]}]
    try:
        answer = aws.call("ssm", "describe_instance_information", Filters=wanted, MaxResults=50)
    except ServiceRefused as error:
        if error.code != "InvalidInstanceId":
            raise
        return None
    for info in answer.get("InstanceInformationList", []):
        if info.get("InstanceId") == entry.id:
            return _with_tags(aws, _node(info, entry.maker))
    return None


def judge(entry: Entry, fate: Fate, limits: Limits, now: float) -> Finding:
    """What is to become of one entry.

    Args:
        entry: the entry, with its tags.
        fate: of its job.
        limits: what may be removed.
        now: the time, in seconds since the epoch.
    """
    early = _early(entry, limits, now) or _foreign(entry, limits)
    if early:
        return Finding(entry, False, early)
    if fate.state == "ended":
        return Finding(entry, True, f"its job has ended ({fate.detail})")
    if fate.state == "unknown":
        if now - entry.seen < UNKNOWN_SECONDS:
            least = format_duration(UNKNOWN_SECONDS)
            return Finding(entry, False, f"{fate.detail}, and it was seen less than {least} ago")
        return Finding(entry, True, fate.detail)
    if fate.state == "untold":
        return Finding(entry, False, f"cannot tell whether its job has ended: {fate.detail}", untold=True)
    return Finding(entry, False, f"its job has not ended ({fate.detail})")


def fate_of(aws: AwsSession, kind: str, name: str) -> Fate:
    """What SageMaker says of a job.

    Raises:
        SmsshError: it cannot be asked: throttled, unreachable, or no credentials.
    """
    if kind not in DESCRIBE or not _JOB_NAME.fullmatch(name):
        return Fate("unknown", "SageMaker keeps no record of such a host" if kind else "its tags name no job")
    operation, key, status = DESCRIBE[kind]
    try:
        found = str(aws.call("sagemaker", operation, **{key: name}).get(status, "without a status"))
    except ServiceRefused as error:
        if error.passing:
            raise
        if error.code in ("ResourceNotFound", "ValidationException") and _NO_SUCH_JOB.search(error.message):
            return Fate("unknown", "SageMaker knows no such job")
        return Fate("untold", error.message)
    except SmsshError as error:
        if error.reference != "access-denied":
            raise
        return Fate("untold", f"access denied: sagemaker:Describe{kind.capitalize()}Job")
    return Fate("ended" if found in ENDED else "running", found)


# ----------------------------------------------------------------------------------------------------- what there is


def _listed_nodes(aws: AwsSession, maker: Maker, limits: Limits) -> Iterator[Entry]:
    """The nodes that have the first tag of a maker, without their tags."""
    filters = [{"Key": "tag-key", "Values": [maker.tags[0]]}]
    if limits.owner is not None:
        filters.append({"Key": "tag:SSHOwner", "Values": [limits.owner]})
    for page in aws.pages("ssm", "describe_instance_information", Filters=filters, MaxResults=50):
        for info in page.get("InstanceInformationList", []):
            if _NODE.fullmatch(str(info.get("InstanceId"))):  # no instance of EC2, whatever its tags are
                yield _node(info, maker)


def _listed_activations(aws: AwsSession) -> Iterator[dict[str, Any]]:
    """All activations of the account."""
    for page in aws.pages("ssm", "describe_activations", MaxResults=50):
        yield from page.get("ActivationList", [])


def _own_activations(
    listed: list[dict[str, Any]], makers: tuple[Maker, ...], limits: Limits
) -> Iterator[Entry]:
    """The activations that have all tags of a maker, and the owner, if one is wanted."""
    for info in listed:
        made = (_activation(info, maker) for maker in makers)
        entry = next((one for one in made if _made_by(one.maker, one.tags)), None)
        if entry is not None and limits.owner in (None, entry.owner):
            yield entry


def _node(info: dict[str, Any], maker: Maker) -> Entry:
    """The node of one entry of DescribeInstanceInformation; its tags are not in there."""
    return Entry(
        "node",
        str(info["InstanceId"]),
        maker,
        name=str(info.get("Name") or ""),
        online=info.get("PingStatus") not in _OFFLINE,
        seen=max(float(info.get("LastPingDateTime") or 0.0), registered(info)),
        activation=str(info.get("ActivationId") or ""),
    )


def _activation(info: dict[str, Any], maker: Maker) -> Entry:
    """The activation of one entry of DescribeActivations."""
    ended = info.get("ExpirationDate") if info.get("Expired") else None
    return Entry(
        "activation",
        str(info.get("ActivationId")),
        maker,
        tags=_tags(info.get("Tags")),
        name=str(info.get("DefaultInstanceName") or ""),
        seen=float(ended or info.get("CreatedDate") or 0.0),
    )


def _with_tags(aws: AwsSession, entry: Entry) -> Entry | None:
    """A node with its tags; None where it is gone."""
    try:
        answer = aws.call(
            "ssm", "list_tags_for_resource", ResourceType="ManagedInstance", ResourceId=entry.id
        )
    except ServiceRefused as error:
        if error.code != "InvalidResourceId":
            raise
        return None
    return replace(entry, tags=_tags(answer.get("TagList")))


def _tags(listed: list[dict[str, str]] | None) -> dict[str, str]:
    return {str(tag["Key"]): str(tag["Value"]) for tag in listed or ()}


def _made_by(maker: Maker, tags: dict[str, str] | None) -> bool:
    """Whether an activation with these tags may be a maker's; None: it is deleted, as ours are once they are used."""
    return tags is None or all(tag in tags for tag in maker.tags)


# --------------------------------------------------------------------------------------------------- what becomes of it


def _early(entry: Entry, limits: Limits, now: float) -> str:
    """Why an entry is kept, whatever its tags say; "" where they have to be read."""
    if entry.online:
        return "online (as it is for 5 minutes after its container was killed)"
    if not entry.seen:
        return "the service does not say when it was last seen"
    if now - entry.seen < limits.older_than:
        did = "seen" if entry.what == "node" else "made or over"
        return f"{did} less than {format_duration(limits.older_than)} ago"
    return ""


def _foreign(entry: Entry, limits: Limits) -> str:
    """Why an entry is not ours to remove, by its tags and name; "" where it is."""
    missing = [tag for tag in entry.maker.tags if tag not in entry.tags]
    if missing:
        return f"without the tag {missing[0]}"
    if limits.owner is not None and entry.owner != limits.owner:
        return f"of another owner than {limits.owner!r}"
    if entry.maker is SMSSH and entry.name != entry.tags["SMSSHJob"]:
        # Our activations name their nodes after the job. Tags can be put on any server, its name cannot.
        return "its name is not that of the job in its tags"
    if entry.maker is HELPER and entry.name:
        return "it has a name, which sagemaker-ssh-helper gives to none"
    return ""
