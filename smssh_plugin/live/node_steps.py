"""Steps about a managed node that is never online: its tags, its sessions and its end."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ..at_once import at_once
from ..aws.json_client import THROTTLED, denied
from ..aws.session import ServiceRefused
from ..errors import SmsshError
from ..setup import policies
from ..setup.owners import TAG
from .step import Step
from .trials import STRANGER, Answer, judged, no, patient, refused, tried, untried, yes

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..aws.session import AwsSession
    from .place import Place

__all__ = ["STEPS"]

FORWARD = policies.FORWARD_DOCUMENTS[0]
STARTS = 8
"""Calls of StartSession at once."""
_START = "ssm:StartSession"
_NEEDS_TRIALS = ("live.node-role", "live.test-role")
_NEEDS_NODE = ("live.registration",)


def _registration(place: Place) -> Answer:
    aws = place.assumed(*place.policies.job("Activate", "Pass", "TagNew"))
    wanted = place.run.host_tags()
    activation = place.patiently("access-denied", lambda: place.activate(aws=aws, tags=wanted))
    node = place.register(activation)
    place.end_activation(activation)
    tags = place.tags_of(node)
    missing = sorted(key for key, value in wanted.items() if tags.get(key) != value)
    evidence = [f"its tags: {', '.join(sorted(tags))}"]
    if missing:
        return no(f"the node lacks the tags {', '.join(missing)} of its activation", *evidence)
    for key, value in (("tag:SMSSHJob", place.run.name), ("IamRole", place.run.roles["node"])):
        if not place.until(partial(_listed, place, key, value, node)):
            return no(f"DescribeInstanceInformation does not find the node by {key}", *evidence)
        evidence.append(f"found by the filter {key}")
    return yes("a node has the tags of its activation, and is found by tag and role", *evidence)


def _listed(place: Place, key: str, value: str, node: str) -> bool:
    """Whether a filter of DescribeInstanceInformation finds a node."""
    return any(each.get("InstanceId") == node for each in place.found(key, [value]))


def _node(place: Place) -> str:
    """The node of the run.

    Raises:
        SmsshError: the run has no node.
    """
    if not place.nodes:
        raise SmsshError("there is no node to try it with", reference="no-node")
    return place.nodes[0]


def _state_tags(place: Place) -> Answer:
    node = _node(place)

    def tagging(aws: AwsSession, key: str) -> Callable[[], object]:
        return lambda: place.call(
            "ssm",
            "add_tags_to_resource",
            aws=aws,
            ResourceType="ManagedInstance",
            ResourceId=node,
            Tags=[{"Key": key, "Value": "x"}],
        )

    own = place.assumed(*place.policies.job("TagState"))
    other = place.assumed(*place.policies.job("TagState", owner=STRANGER))
    state = policies.STATE_KEYS[0]
    action = "ssm:AddTagsToResource"
    trials = [
        tried(f"the tag {state} on a node of one's owner", patient(place, tagging(own, state))),
        refused(action, f"the tag {state} on a node of another owner", tagging(other, state)),
        refused(action, "the tag SMSSHHostKey on a node of one's owner", tagging(own, "SMSSHHostKey")),
    ]
    return judged(trials, "a job changes the state tags of its owner's nodes, and no others")


def _starting(place: Place, statements: list[dict[str, Any]], document: str = "") -> Callable[[], object]:
    """Starts a session with the node of the run, which is offline; one that comes about is ended."""
    node = _node(place)
    aws = place.assumed(*statements)
    named = {"DocumentName": document, "Parameters": {"portNumber": ["22"]}} if document else {}

    def call() -> None:
        made = place.call("ssm", "start_session", aws=aws, Target=node, **named)
        with suppress(SmsshError):  # as above; a session with nobody at either end ends by itself
            place.call("ssm", "terminate_session", SessionId=str(made["SessionId"]))

    return call


def _own_session(place: Place) -> Any:
    """The trial without which a denial says nothing: one's own node, by SSH's document."""
    call = _starting(place, place.policies.people("Nodes", "Documents"), policies.SSH_DOCUMENT)
    return tried("a session with a node of one's owner", patient(place, call), offline=True)


def _owner(place: Place) -> Answer:
    other = _starting(
        place, place.policies.people("Nodes", "Documents", owner=STRANGER), policies.SSH_DOCUMENT
    )
    trials = [_own_session(place), refused(_START, "a session with a node of another owner", other)]
    return judged(trials, f"the condition on ssm:resourceTag/{TAG} lets the owner in, and nobody else")


def _documents(place: Place) -> Answer:
    nodes, documents = place.policies.people("Nodes", "Documents")
    both = {**nodes, "Resource": [nodes["Resource"], documents["Resource"]]}
    trials = [
        _own_session(place),
        refused(
            _START,
            f"a session by {FORWARD}, which no statement names",
            _starting(place, [nodes, documents], FORWARD),
        ),
        refused(
            _START,
            "a session with nodes and documents in one statement with a condition on tags",
            _starting(place, [both], policies.SSH_DOCUMENT),
        ),
    ]
    return judged(trials, "the document of a session is checked, and has no tags")


def _no_document(place: Place) -> Answer:
    nodes, documents = place.policies.people("Nodes", "Documents")
    unchecked = {
        **nodes,
        "Condition": {key: value for key, value in nodes["Condition"].items() if "Bool" not in key},
    }
    trials = [
        _own_session(place),
        refused(_START, "a session without a document", _starting(place, [nodes, documents])),
    ]
    found = judged(trials, "a session without a document is denied: no shell opens where only SSH was meant")
    plain = refused(
        _START, "the same without ssm:SessionDocumentAccessCheck", _starting(place, [unchecked, documents])
    )
    return Answer(found.verdict, found.message, (*found.evidence, plain.line))


def _pacing(place: Place) -> Answer:
    node = _node(place)
    aws = place.assumed(*place.policies.people("Nodes", "Documents"))
    named = {"DocumentName": policies.SSH_DOCUMENT, "Parameters": {"portNumber": ["22"]}}

    def start(_number: int) -> str:
        try:
            made = aws.call_once("ssm", "start_session", Target=node, **named)
        except ServiceRefused as error:
            return error.code
        place.call("ssm", "terminate_session", SessionId=str(made["SessionId"]))
        return "started"

    codes = Counter(at_once(start, range(STARTS)))
    throttled = sum(count for code, count in codes.items() if code in THROTTLED)
    evidence = ", ".join(f"{count} {code}" for code, count in sorted(codes.items()))
    what = f"{throttled} of {STARTS} calls of StartSession at once were throttled"
    return yes(what, evidence) if throttled else no(what, evidence)


def _session_resource(place: Place) -> Answer:
    aws = place.assumed(*place.policies.job("Activate"))
    trial = refused(
        "ssm:TerminateSession",
        "TerminateSession of a session that does not exist, without permission",
        lambda: place.call(
            "ssm", "terminate_session", aws=aws, SessionId=f"{place.run.name}-0123456789abcdef0"
        ),
    )
    if trial.allowed is not False:
        return untried("the service looks for the session before the permission", trial.line)
    named = denied(trial.said)
    resource = "" if named is None else named[1]
    if f":session/{place.run.name}-" in resource:
        return yes("TerminateSession is checked against the ARN of the session", trial.line)
    return no(f"TerminateSession is checked against {resource or 'nothing that AWS names'}", trial.line)


def _deregister(place: Place) -> Answer:
    node = _node(place)

    def ending(aws: AwsSession) -> Callable[[], object]:
        return lambda: place.call("ssm", "deregister_managed_instance", aws=aws, InstanceId=node)

    action = "ssm:DeregisterManagedInstance"
    other = place.assumed(*place.policies.job("End", owner=STRANGER))
    own = place.assumed(*place.policies.job("End"))
    trials = [refused(action, "ending a node of another owner", ending(other))]
    if trials[0].allowed is not True:
        trials.append(tried("ending a node of one's owner", patient(place, ending(own))))
    if trials[-1].allowed is True and node in place.nodes:
        place.nodes.remove(node)
    return judged(trials, "a job ends the nodes of its owner, and no others")


STEPS = (
    Step(
        "live.registration",
        "Does a node have the tags of its activation, and is it found by tag and by role?",
        "an activation, a managed node that is never online",
        ("ssm:DeleteActivation", "ssm:ListTagsForResource", "ssm:DescribeInstanceInformation"),
        10,
        _registration,
        _NEEDS_TRIALS,
    ),
    Step(
        "live.state-tags",
        "Can a job change the state tags of its owner's nodes, and no other tags and nodes?",
        "",
        (),
        10,
        _state_tags,
        _NEEDS_NODE,
    ),
    Step(
        "live.owner",
        "Does the condition on `ssm:resourceTag/SSHOwner` let the owner start a session, and nobody else?",
        "",
        ("ssm:TerminateSession",),
        10,
        _owner,
        _NEEDS_NODE,
    ),
    Step(
        "live.documents",
        "Is the document of a session checked, and is it denied by a condition on tags?",
        "",
        ("ssm:TerminateSession",),
        10,
        _documents,
        _NEEDS_NODE,
    ),
    Step(
        "live.no-document",
        "Is a session without a document denied to those who may use SSH's document only?",
        "",
        ("ssm:TerminateSession",),
        10,
        _no_document,
        _NEEDS_NODE,
    ),
    Step(
        "live.pacing",
        "Is StartSession throttled above 3 calls a second, as its quota says?",
        "",
        ("ssm:TerminateSession",),
        5,
        _pacing,
        ("live.owner",),
    ),
    Step(
        "live.session-resource",
        "Is TerminateSession checked against the ARN of the session?",
        "",
        (),
        5,
        _session_resource,
        ("live.test-role",),
    ),
    Step(
        "live.deregister",
        "Can a job end the nodes of its owner, and no others?",
        "",
        (),
        5,
        _deregister,
        _NEEDS_NODE,
    ),
)
