"""Steps about the account's settings and prices, and the roles that Systems Manager accepts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..aws.session import ServiceRefused
from ..aws.tier import ADVANCED, TIER
from ..costs.prices import Prices
from .names import PATH
from .step import Step
from .trials import no, untried, yes

if TYPE_CHECKING:
    from .place import Place
    from .trials import Answer

__all__ = ["STEPS"]

PREFERENCES = "SSM-SessionManagerRunShell"
INSTANCES = (("training", "ml.m5.large"), ("processing", "ml.m5.xlarge"), ("transform", "ml.m5.xlarge"))
_ROLE = ("iam:CreateRole", "iam:TagRole")
_ACTIVATION = ("ssm:CreateActivation", "iam:PassRole", "ssm:DeleteActivation")


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


def _node_role(place: Place) -> Answer:
    place.create_role("node", place.policies.node_trust, place.policies.node_policy)
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


STEPS = (
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
)
