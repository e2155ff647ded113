"""Steps about what the role of a job needs for an activation."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import SmsshError
from ..setup.owners import TAG
from .step import Step
from .trials import STRANGER, judged, patient, refused, tried

if TYPE_CHECKING:
    from collections.abc import Callable

    from .place import Place
    from .trials import Answer

__all__ = ["STEPS"]

_NEEDS_TRIALS = ("live.node-role", "live.test-role")


def _activating(place: Place, statements: list[dict[str, Any]], **other: str) -> Callable[[], object]:
    """Makes an activation with some rights, and removes it."""
    aws = place.assumed(*statements)

    def call() -> None:
        activation = place.activate(aws=aws, tags=place.run.host_tags(**other))
        with suppress(SmsshError):  # what the trial has shown stands; the end of the run removes it
            place.end_activation(activation)

    return call


def _all_is_allowed(place: Place) -> Any:
    """The trial without which a denial says nothing: with all statements it is allowed."""
    call = _activating(place, place.policies.job("Activate", "Pass", "TagNew"))

    what = "CreateActivation with tags, with the statements Activate, Pass and TagNew"
    return tried(what, patient(place, call))


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


STEPS = (
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
)
