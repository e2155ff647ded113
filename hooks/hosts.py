"""What the hosts of one job tell each other, over the tags of their managed nodes: AWS is the only way between them.

Each host that has something to tell writes one tag of its own node, SMSSHHold, and reads the others' with the job's
own credentials. Beside what the ssm transport needs anyway, the role needs `ssm:DescribeInstanceInformation` and
`ssm:ListTagsForResource`. Without the ssm transport there are no nodes, and each host stands for itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..hookspecs import Context, HostState, hookimpl
from . import _aws

if TYPE_CHECKING:
    from typing import Iterator, Mapping

TAG = "SMSSHHold"
TRIES = 3


class _State:
    """The client of this supervisor; there is one supervisor in a process."""

    client: Any = None
    own = ""


@hookimpl
def smssh_tell_hosts(context: Context, own: HostState) -> None:
    """Write the own node's tag, if it says something new."""
    node = _node(context)
    text = encode(own)
    if not node or text == _State.own:
        return
    tag = {"Key": TAG, "Value": text}
    for tried in range(1, TRIES + 1):
        try:
            _client(context).add_tags_to_resource(ResourceType="ManagedInstance", ResourceId=node, Tags=[tag])
        except Exception:  # noqa: PERF203 - it waits
            if tried == TRIES or context.ending.wait(tried):
                raise
        else:
            _State.own = text
            return


@hookimpl
def smssh_other_hosts(context: Context) -> Mapping[str, HostState] | None:
    """Read the others' tags; a host that has told nothing yet runs, and is named by its node."""
    own = _node(context)
    if not own:
        return None
    mine = {"Key": "tag:SMSSHJob", "Values": [context.job.name]}
    kind = {"Key": "tag:SMSSHKind", "Values": [context.job.kind]}
    up = {"Key": "PingStatus", "Values": ["Online"]}
    client = _client(context)
    silent = set(_nodes(client, [mine, kind, up])) - {own}
    if not silent:
        return {}
    states: dict[str, HostState] = {}
    for node in _nodes(client, [mine, kind, up, {"Key": "tag-key", "Values": [TAG]}]):
        if node != own:
            answer = client.list_tags_for_resource(ResourceType="ManagedInstance", ResourceId=node)
            tags = {tag["Key"]: tag["Value"] for tag in answer["TagList"]}
            state = decode(tags.get("SMSSHHost", node), tags.get(TAG, ""))
            if state is not None:
                states[state.host] = state
                silent.discard(node)
    states.update((node, HostState(node, "running")) for node in silent)
    return states


def _node(context: Context) -> str:
    transport = context.transport
    return transport.target or "" if transport is not None and transport.name == "ssm" else ""


def _client(context: Context) -> Any:
    if _State.client is None:
        _State.client = _aws.client("ssm", _aws.region(context))
    return _State.client


def _nodes(client: Any, filters: list[dict[str, Any]]) -> Iterator[str]:
    """The ids of the nodes that pass all filters."""
    token: dict[str, str] = {}
    while True:
        answer = client.describe_instance_information(Filters=filters, MaxResults=50, **token)
        for node in answer["InstanceInformationList"]:
            yield str(node["InstanceId"])
        if not answer.get("NextToken"):
            return
        token = {"NextToken": answer["NextToken"]}


def encode(state: HostState) -> str:
    """The value of the tag: words, of characters that a tag may have."""
    words = (
        state.state,
        str(state.attempt),
        "-" if state.exit_code is None else str(state.exit_code),
        f"{state.failed:.3f}",
        "1" if state.connected else "0",
        state.decision or "-",
        "-" if state.chosen is None else str(state.chosen),
    )
    return " ".join(words)


def decode(host: str, text: str) -> HostState | None:
    """The opposite of `encode`; None for what another version has written."""
    try:
        state, attempt, exit_code, failed, connected, decision, chosen = text.split(" ")
        return HostState(
            host,
            state,
            int(attempt),
            None if exit_code == "-" else int(exit_code),
            float(failed),
            connected == "1",
            "" if decision == "-" else decision,
            None if chosen == "-" else int(chosen),
        )
    except ValueError:
        return None
