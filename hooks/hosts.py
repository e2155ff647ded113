"""What the hosts of one job tell each other, over the tags of their managed nodes: AWS is the only way between them.

Each host writes tags of its own node and no other: SMSSHHold says all of it, and three of few values say what the
others ask for: SMSSHPhase, SMSSHCourse and SMSSHFirst. A question is one DescribeInstanceInformation with these as
filters, whatever the number of hosts; the tags of a node are listed where what it says decides something, and once to
know whose it is. Filters are of tags alone: by the API's reference they "can't be combined with other filter types".

Any job may give its node any tags, so a node counts only where it has the role and the owner that this job's nodes have
and names another of this job's hosts. Where two that are online name the same one, neither decides anything.

Beside what the ssm transport needs anyway, the role needs `ssm:DescribeInstanceInformation` and
`ssm:ListTagsForResource`. Without the ssm transport there are no nodes, and each host stands for itself.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any

from ..container import aws_calls
from ..container.managed_node import role_names, tag_text
from ..hookspecs import Context, HostAnswer, HostQuestion, HostState, hookimpl

if TYPE_CHECKING:
    from typing import Callable, Iterator, Mapping

__all__ = ["Hosts", "decode", "encode"]

TAG = "SMSSHHold"
PHASE = "SMSSHPhase"
COURSE = "SMSSHCourse"
FIRST = "SMSSHFirst"
LISTED_MOST = 20
LISTED_LEAST = 3
LISTED_TOGETHER = 400
"""Hosts that a list has at most and at least, and of all lists of a job, which are asked for in the same moment when
all of its hosts fail: each costs a call."""
PAGE = 50
"""MaxResults of DescribeInstanceInformation, at most."""
FEW = 10
SOLE_SECONDS = 60.0
"""How long a node counts as the only one of its host, and what it has decided, without being asked for again."""
SILENT_SECONDS = 600.0
"""From when on a network that brings no answer counts as none."""
STATES = frozenset({"running", "failed", "succeeded", "held", "released"})
DECISIONS = frozenset({"", "retry", "release", "expire"})
ATTEMPTS_MOST = 1_000_000
STATUS_MOST = 0xFFFFFFFF
"""Of an entry point, as some systems have it; the one that a person chooses is 0 to 255."""


class Hosts:
    """The tags of this host's node, and what those of the others say.

    Args:
        context: the supervisor's.
        client: of Systems Manager, see `aws_calls.client`.
        node: the id of this host's own node.
        clock: a clock in seconds that nobody sets.
    """

    def __init__(
        self, context: Context, client: Any, node: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._context = context
        self._client = client
        self._node = node
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[str, str] = {}
        self._names: dict[str, str] = {}
        """The host that each node is, by its id; "" for a node that is not a host of this job."""
        self._sole: dict[str, tuple[str, float]] = {}
        """The one node that claimed to be a host, by the host, and until when that counts."""
        self._decisions: dict[str, tuple[Mapping[str, str], float]] = {}
        """The tags of the last node that had decided something, and until when they count."""
        self._logged: set[str] = set()
        self._answered = clock()
        self._closed = threading.Event()

    def close(self) -> None:
        """Tell nothing any more: the own node is about to be deregistered, and its tags go with it."""
        self._closed.set()

    def tell(self, own: HostState) -> bool:
        """Write the own node's tags, where they say something new; whether there is nothing left to write.

        Raises:
            Exception: it cannot be done, now or later.
        """
        tags = {
            TAG: encode(own),
            PHASE: own.phase,
            COURSE: own.course,
            FIRST: str(own.attempt) if own.first else "-",
        }
        if tags == self._told or self._closed.is_set():
            return True
        given = [{"Key": key, "Value": value} for key, value in tags.items()]
        try:
            self._client.add_tags_to_resource(
                ResourceType="ManagedInstance", ResourceId=self._node, Tags=given
            )
        except Exception as error:
            if self._closed.is_set():
                return True  # the node is gone, and has no owner that IAM could compare
            if self._may_pass(error):
                return False
            raise
        self._told = tags
        return True

    def ask(self, question: HostQuestion) -> HostAnswer:
        """Look for one host that fits; without `decides`, only its name is sure.

        Raises:
            Exception: the others cannot be asked, now or later.
        """
        filters = []
        if question.phases:
            filters.append(_tag(PHASE, *question.phases))
        if question.courses:
            filters.append(_tag(COURSE, *question.courses))
        if question.first:
            filters.append(_tag(FIRST, str(question.first)))
        try:
            for info in self._nodes(filters, FEW):
                state = self._fitting(info, question)
                if state is not None:
                    return HostAnswer(state)
        except Exception as error:
            if self._may_pass(error):
                return HostAnswer(known=False)
            raise
        return HostAnswer()

    def listed(self) -> dict[str, HostState]:
        """What the other hosts have told, by host; those that failed first go first, and not all of many are listed.

        Raises:
            Exception: they cannot be asked now.
        """
        count = len(self._context.job.hosts)
        limit = max(LISTED_LEAST, min(LISTED_MOST, LISTED_TOGETHER // max(1, count)))
        searches = [[{"Key": "tag-key", "Values": [TAG]}]]
        if count > limit:
            searches.insert(0, [_tag(FIRST, str(max(1, self._context.attempt)))])
        states: dict[str, HostState] = {}
        seen: set[str] = set()
        twice: set[str] = set()
        for filters in searches:
            for info in self._nodes(filters, PAGE):
                if len(seen) == limit:
                    break
                if info["InstanceId"] in seen:
                    continue
                seen.add(info["InstanceId"])
                tags = self._tags(info)
                host = self._identify(info, tags)
                state = decode(host, tags.get(TAG, "")) if host else None
                if state is not None:
                    twice.update({host} & states.keys())
                    states[host] = state
        for host in twice:
            self._log_doubt(host)
        return {host: state for host, state in states.items() if host not in twice}

    # ------------------------------------------------------------------------------------------------- inside

    def _fitting(self, info: Mapping[str, Any], question: HostQuestion) -> HostState | None:
        """The state of this node's host, if it is one that is looked for."""
        if not question.decides:
            host = self._host(info)
            return HostState(host, question.phases[0] if question.phases else "running") if host else None
        tags = self._decided(info, question)
        host = self._identify(info, tags)
        if not host or self._is_doubtful(host, str(info["InstanceId"])):
            return None
        state = decode(host, tags.get(TAG, ""))
        return state if state is not None and question.fits(state) else None

    def _decided(self, info: Mapping[str, Any], question: HostQuestion) -> Mapping[str, str]:
        """The tags of a node that has decided something: a release is not taken back, and attempts only grow."""
        node, now = str(info["InstanceId"]), self._clock()
        tags, until = self._decisions.get(node, ({}, -math.inf))
        state = decode("", tags.get(TAG, ""))
        if now >= until or state is None or not question.fits(state):
            tags = self._tags(info)
            # So that where the next call is throttled, there is less to ask the next time.
            self._decisions = {node: (tags, now + SOLE_SECONDS)}
        return tags

    def _is_doubtful(self, host: str, node: str) -> bool:
        """Whether another node than this one claims to be this host too."""
        sole, until = self._sole.get(host, ("", -math.inf))
        if node == sole and self._clock() < until:
            return False
        claims = [info for info in self._nodes([_tag("SMSSHHost", host)], FEW) if self._host(info) == host]
        if len(claims) > 1:
            self._log_doubt(host)
            return True
        self._sole[host] = node, self._clock() + SOLE_SECONDS
        return False

    def _log_doubt(self, host: str) -> None:
        self._log(host, "two online nodes claim to be %s of this job: what they decide is not followed", host)

    def _host(self, info: Mapping[str, Any]) -> str:
        """Which of the others this node is; "" for none of them. Its tags are listed once."""
        node = str(info["InstanceId"])
        with self._lock:
            known = self._names.get(node)
        return self._identify(info, self._tags(info)) if known is None else known

    def _identify(self, info: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        context, node = self._context, str(info["InstanceId"])
        host, wrong = tags.get("SMSSHHost", ""), ""
        role = str(info.get("IamRole") or "").rpartition("/")[2]
        if role and context.settings.role and role != role_names(context.settings.role)[-1]:
            wrong = f"its role is {role!r}"
        elif tags.get("SSHOwner", "") != tag_text(context.settings.owner):
            wrong = f"its owner is {tags.get('SSHOwner', '')!r}"
        elif host not in context.job.hosts:
            wrong = f"the job has no host {host!r}"
        elif host == context.job.host:
            wrong = f"this is {host}"
        if wrong:
            self._log(node, "%s claims to be a host of this job and is ignored: %s", node, wrong)
        with self._lock:
            self._names[node] = "" if wrong else host
        return "" if wrong else host

    def _tags(self, info: Mapping[str, Any]) -> dict[str, str]:
        answer = self._client.list_tags_for_resource(
            ResourceType="ManagedInstance", ResourceId=info["InstanceId"]
        )
        self._answered = self._clock()
        return {str(tag["Key"]): str(tag["Value"]) for tag in answer["TagList"]}

    def _nodes(self, filters: list[dict[str, Any]], size: int) -> Iterator[dict[str, Any]]:
        """The online nodes of this job beside the own one, as DescribeInstanceInformation has them."""
        job, owner = self._context.job, tag_text(self._context.settings.owner)
        wanted = [_tag("SMSSHJob", tag_text(job.name)), _tag("SMSSHKind", job.kind), *filters]
        if owner:
            wanted.append(_tag("SSHOwner", owner))
        token: dict[str, str] = {}
        while True:
            answer = self._client.describe_instance_information(Filters=wanted, MaxResults=size, **token)
            self._answered = self._clock()
            for info in answer["InstanceInformationList"]:
                if info.get("PingStatus") == "Online" and info["InstanceId"] != self._node:
                    yield info
            if not answer.get("NextToken"):
                return
            token = {"NextToken": answer["NextToken"]}

    def _may_pass(self, error: Exception) -> bool:
        """Whether it is worth asking again; a network that never answers is not."""
        if aws_calls.throttled(error):
            self._answered = self._clock()
        return aws_calls.passing(error) and self._clock() - self._answered < SILENT_SECONDS

    def _log(self, about: str, message: str, *arguments: str) -> None:
        """Log it, once about each."""
        if about not in self._logged:
            self._logged.add(about)
            self._context.log.warning(message, *arguments)


class _State:
    """The hosts as this supervisor knows them; there is one supervisor in a process."""

    hosts: Hosts | None = None


@hookimpl
def smssh_tell_hosts(context: Context, own: HostState) -> bool | None:
    """Write the own node's tags."""
    hosts = _hosts(context)
    return None if hosts is None else hosts.tell(own)


@hookimpl
def smssh_ask_hosts(context: Context, question: HostQuestion) -> HostAnswer | None:
    """Ask for nodes by their tags."""
    hosts = _hosts(context)
    return None if hosts is None else hosts.ask(question)


@hookimpl
def smssh_other_hosts(context: Context) -> Mapping[str, HostState] | None:
    """Read the others' tags."""
    hosts = _hosts(context)
    return None if hosts is None else hosts.listed()


@hookimpl(tryfirst=True)
def smssh_stop() -> None:
    """Tell nothing any more. This hook comes before `ssm`, which deregisters the node."""
    if _State.hosts is not None:
        _State.hosts.close()


def _hosts(context: Context) -> Hosts | None:
    transport = context.transport
    if transport is None or transport.name != "ssm" or not transport.target:
        return None
    if _State.hosts is None:
        _State.hosts = Hosts(context, aws_calls.client("ssm", aws_calls.region(context)), transport.target)
    return _State.hosts


def _tag(key: str, *values: str) -> dict[str, Any]:
    """A filter of DescribeInstanceInformation: of the nodes where this tag has one of the values."""
    return {"Key": f"tag:{key}", "Values": list(values)}


def encode(state: HostState) -> str:
    """The value of the tag SMSSHHold: words, of characters that a tag may have."""
    words = (
        state.state,
        str(state.attempt),
        "-" if state.exit_code is None else str(state.exit_code),
        f"{state.failed:.3f}",
        "1" if state.connected else "0",
        state.decision or "-",
        "-" if state.chosen is None else str(state.chosen),
        "1" if state.first else "0",
    )
    return " ".join(words)


def decode(host: str, text: str) -> HostState | None:
    """The opposite of `encode`; None for anything that it does not write."""
    try:
        state, attempt, exit_code, failed, connected, decision, chosen, first = text.split(" ")
        found = HostState(
            host,
            state,
            int(attempt),
            None if exit_code == "-" else int(exit_code),
            float(failed),
            connected == "1",
            "" if decision == "-" else decision,
            None if chosen == "-" else int(chosen),
            first == "1",
        )
    except ValueError:
        return None
    sound = (
        found.state in STATES
        and found.decision in DECISIONS
        and 1 <= found.attempt <= ATTEMPTS_MOST
        and abs(found.exit_code or 0) <= STATUS_MOST
        and 0 <= (found.chosen or 0) <= 255
        and math.isfinite(found.failed)
    )
    return found if sound else None
