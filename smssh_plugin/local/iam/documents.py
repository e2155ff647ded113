"""Policy documents: read, and refused where this package would not evaluate them as IAM does."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...errors import ExitStatus, SmsshError
from .conditions import Condition, condition
from .patterns import Pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["Policy", "Statement", "bad_policy", "parse", "parse_json"]

_VERSIONS = ("2012-10-17", "2008-10-17")
_ELEMENTS = {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"}
_ACTION = re.compile(r"\*|[A-Za-z0-9-]+:[A-Za-z0-9*?]+")
_NO_VALUE: Callable[[str], str | None] = lambda _key: None  # noqa: E731


@dataclass(frozen=True)
class Statement:
    """One statement.

    Attributes:
        policy: the name of its policy.
        sid: its Sid, or its number where it has none.
        denies: whether its effect is Deny.
        actions: patterns of actions.
        but_actions: whether they are those that it does not name: NotAction.
        resources: patterns of ARNs.
        but_resources: whether they are those that it does not name: NotResource.
        conditions: all must hold.
        services: of a trust policy: the services that it is for.
    """

    policy: str
    sid: str
    denies: bool
    actions: tuple[Pattern, ...]
    but_actions: bool
    resources: tuple[Pattern, ...]
    but_resources: bool
    conditions: tuple[Condition, ...]
    services: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What it is called: `POLICY/SID`."""
        return f"{self.policy}/{self.sid}"

    def covers(self, action: str) -> bool:
        """Whether it is about an action; case does not matter."""
        found = any(each.matches(action, _NO_VALUE, any_case=True) for each in self.actions)
        return found != self.but_actions


@dataclass(frozen=True)
class Policy:
    """A policy by its name."""

    name: str
    statements: tuple[Statement, ...]

    def without(self, labels: Collection[str]) -> Policy:
        """The same policy without the statements of some labels."""
        return replace(self, statements=tuple(each for each in self.statements if each.label not in labels))


def parse_json(name: str, text: str) -> Any:
    """The JSON of a document; a member that is there twice is an error, as it is for IAM.

    Raises:
        SmsshError: it is not JSON.
    """

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a member is there twice")
        return made

    try:
        return json.loads(text, object_pairs_hook=members)
    except (ValueError, RecursionError) as error:
        raise bad_policy(name, f"not JSON: {error}") from None


def parse(name: str, document: Any, *, trust: bool = False) -> Policy:
    """Read a policy document.

    Args:
        name: of the policy.
        document: its JSON.
        trust: whether it is the trust policy of a role.

    Raises:
        SmsshError: it has something that IAM refuses, or that is not evaluated here.
    """
    if not isinstance(document, dict) or not document.keys() <= {"Version", "Id", "Statement"}:
        raise bad_policy(name, "not a policy document: it has other members than Version, Id and Statement")
    version = document.get("Version", "2008-10-17")
    if version not in _VERSIONS:
        raise bad_policy(name, f"the Version {version!r} is neither {' nor '.join(_VERSIONS)}")
    statements = document.get("Statement")
    statements = [statements] if isinstance(statements, dict) else statements
    if not isinstance(statements, list) or not statements:
        raise bad_policy(name, "no Statement")
    variables = version == _VERSIONS[0]
    found = []
    for number, each in enumerate(statements, 1):
        sid = str(each.get("Sid") or number) if isinstance(each, dict) else str(number)
        try:
            found.append(_statement(name, sid, each, variables=variables, trust=trust))
        except ValueError as error:
            raise bad_policy(f"{name}/{sid}", str(error)) from None
    labels = [each.label for each in found]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise bad_policy(twice, "two statements have this Sid")
    return Policy(name, tuple(found))


def _statement(policy: str, sid: str, written: Any, *, variables: bool, trust: bool) -> Statement:
    if not isinstance(written, dict):
        raise ValueError("a statement is an object")
    allowed = (_ELEMENTS - {"Resource", "NotResource"}) | {"Principal"} if trust else _ELEMENTS
    wrong = sorted(written.keys() - allowed)
    if wrong:
        raise ValueError(f"{wrong[0]} is not an element that is evaluated here")
    if written.get("Effect") not in ("Allow", "Deny"):
        raise ValueError(f"the Effect is Allow or Deny, not {written.get('Effect')!r}")
    actions, but_actions = _either(written, "Action", "NotAction")
    for text in actions:
        if not _ACTION.fullmatch(text):
            raise ValueError(f"{text!r} is not an action: use SERVICE:NAME")
    resources, but_resources = (["*"], False) if trust else _either(written, "Resource", "NotResource")
    for text in resources:
        if text != "*" and not text.startswith("arn:"):
            raise ValueError(f"{text!r} is neither an ARN nor *")
    conditions = written.get("Condition", {})
    if not isinstance(conditions, dict) or not all(isinstance(each, dict) for each in conditions.values()):
        raise ValueError("the Condition is an object of operators, each with its keys")
    return Statement(
        policy,
        sid,
        written["Effect"] == "Deny",
        tuple(Pattern(text, variables=False) for text in actions),
        but_actions,
        tuple(Pattern(text, variables=variables) for text in resources),
        but_resources,
        tuple(
            condition(operator, key, values, variables=variables)
            for operator, keys in conditions.items()
            for key, values in keys.items()
        ),
        _services(written["Principal"]) if trust and "Principal" in written else (),
    )


def _either(written: dict[str, Any], name: str, negated: str) -> tuple[list[str], bool]:
    """The texts of one of two elements, and whether it is the negated one."""
    if (name in written) == (negated in written):
        raise ValueError(f"a statement has {name} or {negated}, and not both")
    values = written[name] if name in written else written[negated]
    values = [values] if isinstance(values, str) else values
    if not isinstance(values, list) or not values or not all(isinstance(each, str) for each in values):
        raise ValueError(f"{name} is a text or a list of texts")
    return values, negated in written


def _services(principal: Any) -> tuple[str, ...]:
    services = principal.get("Service", []) if isinstance(principal, dict) else []
    return (services,) if isinstance(services, str) else tuple(map(str, services))


def bad_policy(name: str, why: str) -> SmsshError:
    """The error for a document that is not evaluated."""
    return SmsshError(
        f"the local emulator cannot enforce {name}: {why}",
        hint="correct the file, or leave it out of the folder of --iam",
        reference="bad-policy",
        status=ExitStatus.USAGE,
    )
