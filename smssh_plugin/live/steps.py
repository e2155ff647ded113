"""The steps of `smssh doctor --live`, smallest call first: what each asks, does, needs and how its answer is judged.

No step starts a job: what they make is free of charge, unless the advanced tier bills a node by the hour.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..at_once import at_once
from ..aws.json_client import THROTTLED, denied
from ..aws.session import ServiceRefused
from ..aws.tier import ADVANCED, TIER
from ..costs.prices import Prices
from ..errors import SmsshError
from ..setup import policies
from ..setup.owners import TAG
from .names import PATH
from .trials import Answer, judged, no, refused, tried, untried, yes

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..aws.session import AwsSession
    from .place import Place

__all__ = ["STEPS", "Step"]

PREFERENCES = "SSM-SessionManagerRunShell"
FORWARD = policies.FORWARD_DOCUMENTS[0]
STRANGER = "smssh-live-nobody"
"""An owner that is not the run's."""
_START = "ssm:StartSession"
STARTS = 8
"""Calls of StartSession at once."""
INSTANCES = (("training", "ml.m5.large"), ("processing", "ml.m5.xlarge"), ("transform", "ml.m5.xlarge"))


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        id: `live.NAME`, which stays the same over versions.
        asks: the question; "" for a step that only makes what others need.
        makes: what it makes in the account; "" for nothing.
        actions: the actions of IAM that the caller needs for it.
        seconds: about how long it takes.
        run: tries it. An SmsshError that it raises is "could not be tried".
        after: the ids of the steps whose answer has to be yes for it, or what they make has to be there.
    """

    id: str
    asks: str
    makes: str
    actions: tuple[str, ...]
    seconds: int
    run: Callable[[Place], Answer]
    after: tuple[str, ...] = ()


# --------------------------------------------------------------------------------------------------- settings, prices


def _tier(place: Place) -> Answer:
    setting = place.call("ssm", "get_service_setting", SettingId=TIER)["ServiceSetting"]
    value, status = str(setting.get("SettingValue")), str(setting.get("Status"))
    try:
        place.call("ssm", "get_document", Name=PREFERENCES)
        preferences = "the account has preferences of Session Manager"
    except ServiceRefused as error:
        if error.code != "InvalidDocument":
            raise
        preferences = "the account has no preferences of Session Manager"
    evidence = (f"SettingValue {value}, Status {status}", preferences)
    if value != ADVANCED:
        return no(f"the tier is {value}: Session Manager enters no hybrid node of this region", *evidence)
    return yes("the tier is advanced", *evidence)


def _prices(place: Place) -> Answer:
    prices = Prices(place.account.aws)
    found = {f"{name} ({kind})": prices.instance(kind, name) for kind, name in INSTANCES}
    found["a managed node"] = prices.node()
    if prices.trouble is not None:
        return untried(prices.trouble.message)
    evidence = [
        f"{what}: {f'{price.amount:g} {price.currency} an hour' if price else 'no price, or several'}"
        for what, price in found.items()
    ]
    missing = [what for what, price in found.items() if price is None]
    if missing:
        return no(f"the price list does not have exactly one price for {', '.join(missing)}", *evidence)
    return yes("the price list has one price for each", *evidence)


# --------------------------------------------------------------------------------------------------- roles


def _node_role(place: Place) -> Answer:
    place.create_role("node", place.policies.node_trust)
    return _accepted(place, place.run.roles["node"], "the trust policy")


def _role_path(place: Place) -> Answer:
    place.create_role("path", place.policies.node_trust, path=PATH)
    return _accepted(place, f"{PATH}{place.run.roles['path']}"[1:], "PATH/NAME")


def _accepted(place: Place, role: str, what: str) -> Answer:
    """Whether Systems Manager takes a role for nodes, and how long it takes to know it."""
    began = time.monotonic()
    try:
        activation = place.patiently("ValidationException", lambda: place.activate(role=role))
    except ServiceRefused as error:
        if error.code != "ValidationException":
            raise
        return no(f"{what} is not accepted", error.message)
    seconds = time.monotonic() - began
    place.end_activation(activation)
    return yes(f"{what} is accepted", f"CreateActivation succeeded {seconds:.0f} s after the role was made")


def _test_role(place: Place) -> Answer:
    place.create_test_role()
    place.assumed(*place.policies.job("Activate"))
    return yes("the role for trials is there")


# --------------------------------------------------------------------------------------------------- activations


def _activating(place: Place, statements: list[dict[str, Any]], **other: str) -> Callable[[], object]:
    """Makes an activation with some rights, and removes it."""
    aws = place.assumed(*statements)

    def call() -> None:
        activation = place.activate(aws=aws, tags=place.run.host_tags(**other))
        with suppress(SmsshError):  # what the trial has shown stands; the end of the run removes it
            place.end_activation(activation)

    return call


def _patient(place: Place, call: Callable[[], object]) -> Callable[[], object]:
    """Makes a call that should be allowed, again while it is denied: policies and tags take a moment."""
    return lambda: place.patiently("access-denied", call)


def _all_is_allowed(place: Place) -> Any:
    """The trial without which a denial says nothing: with all statements it is allowed."""
    call = _activating(place, place.policies.job("Activate", "Pass", "TagNew"))

    what = "CreateActivation with tags, with the statements Activate, Pass and TagNew"
    return tried(what, _patient(place, call))


def _tag_new(place: Place) -> Answer:
    first = _all_is_allowed(place)
    (tag_new,) = place.policies.job("TagNew")
    (tag_state,) = place.policies.job("TagState")
    on_nodes = {**tag_new, "Resource": tag_state["Resource"]}
    both = place.policies.job("Activate", "Pass")
    action = "ssm:AddTagsToResource"
    what = f"CreateActivation with tags, {action}"
    trials = [
        first,
        refused(action, f"{what} on managed instances only", _activating(place, [*both, on_nodes])),
        refused(action, f"{what} on nothing", _activating(place, both)),
    ]
    if first.allowed is False:
        everywhere = _activating(place, [*both, {**tag_new, "Resource": "*"}])
        trials.append(tried(f"{what} on *", everywhere))
    return judged(trials, "ssm:AddTagsToResource is needed, and on the role of the nodes")


def _pass_role(place: Place) -> Answer:
    statements = place.policies.job("Activate", "TagNew")
    (passes,) = place.policies.job("Pass")
    other = {**passes, "Resource": f"{passes['Resource']}-other"}
    action = "iam:PassRole"
    trials = [
        _all_is_allowed(place),
        refused(
            action,
            f"CreateActivation, {action} on another role",
            _activating(place, [*statements, other]),
        ),
        refused(action, f"CreateActivation, no {action}", _activating(place, statements)),
    ]
    return judged(trials, "iam:PassRole is needed, with iam:PassedToService ssm.amazonaws.com")


def _tag_conditions(place: Place) -> Answer:
    statements = place.policies.job("Activate", "Pass", "TagNew")
    action = "ssm:CreateActivation"
    trials = [
        _all_is_allowed(place),
        refused(action, "an activation of another owner", _activating(place, statements, **{TAG: STRANGER})),
        refused(action, "an activation with one more tag", _activating(place, statements, Other="x")),
    ]
    return judged(trials, "aws:RequestTag and aws:TagKeys hold for the tags of an activation")


# --------------------------------------------------------------------------------------------------- a node


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
        tried(f"the tag {state} on a node of one's owner", _patient(place, tagging(own, state))),
        refused(action, f"the tag {state} on a node of another owner", tagging(other, state)),
        refused(action, "the tag SMSSHHostKey on a node of one's owner", tagging(own, "SMSSHHostKey")),
    ]
    return judged(trials, "a job changes the state tags of its owner's nodes, and no others")


# --------------------------------------------------------------------------------------------------- sessions


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
    return tried("a session with a node of one's owner", _patient(place, call), offline=True)


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
        trials.append(tried("ending a node of one's owner", _patient(place, ending(own))))
    if trials[-1].allowed is True and node in place.nodes:
        place.nodes.remove(node)
    return judged(trials, "a job ends the nodes of its owner, and no others")


_ROLE = ("iam:CreateRole", "iam:TagRole")
_ACTIVATION = ("ssm:CreateActivation", "iam:PassRole", "ssm:DeleteActivation")
_NEEDS_TRIALS = ("live.node-role", "live.test-role")
_NEEDS_NODE = ("live.registration",)

STEPS = {
    each.id: each
    for each in (
        Step(
            "live.tier",
            "Is the advanced tier on, which Session Manager needs for hybrid nodes?",
            "",
            ("ssm:GetServiceSetting", "ssm:GetDocument"),
            2,
            _tier,
        ),
        Step(
            "live.prices",
            "Does the price list have one price for each instance type and component, and for nodes?",
            "",
            ("pricing:GetProducts",),
            10,
            _prices,
        ),
        Step(
            "live.node-role",
            "Does Systems Manager accept the trust policy of the node role, with every region in `aws:SourceArn`?",
            "a role, an activation",
            (*_ROLE, *_ACTIVATION),
            20,
            _node_role,
        ),
        Step(
            "live.role-path",
            "Does CreateActivation take a role with a path as `PATH/NAME`?",
            "a role, an activation",
            (*_ROLE, *_ACTIVATION),
            20,
            _role_path,
        ),
        Step(
            "live.test-role",
            "",
            "a role that only you can assume, for 15 minutes",
            (*_ROLE, "iam:PutRolePolicy", "sts:AssumeRole"),
            15,
            _test_role,
        ),
        Step(
            "live.tag-new",
            "Do tags of a new activation need `ssm:AddTagsToResource`, and on the role of the nodes?",
            "activations",
            ("ssm:DeleteActivation",),
            10,
            _tag_new,
            _NEEDS_TRIALS,
        ),
        Step(
            "live.pass-role",
            "Does CreateActivation need `iam:PassRole` on the role of the nodes?",
            "activations",
            ("ssm:DeleteActivation",),
            10,
            _pass_role,
            _NEEDS_TRIALS,
        ),
        Step(
            "live.tag-conditions",
            "Do the conditions on `aws:RequestTag` and `aws:TagKeys` hold for CreateActivation?",
            "activations",
            ("ssm:DeleteActivation",),
            10,
            _tag_conditions,
            _NEEDS_TRIALS,
        ),
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
}
"""By id, smallest call first; the last one ends the node that others need."""
