"""The decision of IAM on a request: pure, from policies and the context of the request.

Facts: IAM user guide, "Policy evaluation logic", "Access denied error messages". Resource-based policies and resource
control policies are not evaluated: nothing in the local emulator has one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from .documents import Policy, Statement

__all__ = [
    "BOUNDARY",
    "GUARDRAIL",
    "IDENTITY",
    "SESSION",
    "Context",
    "Decision",
    "Question",
    "Rights",
    "decide",
    "trusts",
]

IDENTITY, BOUNDARY, GUARDRAIL = "identity-based policy", "permissions boundary", "service control policy"
SESSION = "session policy"
"""Where a decision comes from, in the words of AWS's messages."""


class Context:
    """The keys of a request and their values; the case of a key does not matter, tags' keys included.

    Args:
        values: a value or several of each key. A key with no value at all counts as one that is not there.
    """

    def __init__(self, values: Mapping[str, str | Sequence[str]]) -> None:
        self._values: dict[str, tuple[str, ...]] = {}
        for key, value in values.items():
            found = (value,) if isinstance(value, str) else tuple(value)
            if found:
                self._values[key.lower()] = (*self._values.get(key.lower(), ()), *found)

    def get(self, key: str) -> tuple[str, ...] | None:
        """The values of a key; None for one that the request lacks."""
        return self._values.get(key.lower())

    def variable(self, key: str) -> str | None:
        """The value of a key as a policy variable; None where there is not exactly one."""
        found = self.get(key)
        return found[0] if found is not None and len(found) == 1 else None

    def to_json(self) -> dict[str, list[str]]:
        """The values by their keys, in lower case."""
        return {key: list(values) for key, values in sorted(self._values.items())}


@dataclass(frozen=True)
class Question:
    """Whether an action may be done to a resource.

    Attributes:
        action: `ssm:StartSession`.
        resource: an ARN.
        context: the keys of the request.
    """

    action: str
    resource: str
    context: Context


@dataclass(frozen=True)
class Rights:
    """What decides for a principal.

    Attributes:
        policies: attached to it, or inline.
        boundary: its permissions boundary, if it has one.
        guardrails: service control policies; the organization has AWS's FullAWSAccess besides them.
        session: the policy that its session was made with, if there is one.
    """

    policies: tuple[Policy, ...] = ()
    boundary: Policy | None = None
    guardrails: tuple[Policy, ...] = ()
    session: Policy | None = None

    def without(self, labels: Collection[str]) -> Rights:
        """The same without the statements of some labels."""
        return replace(
            self,
            policies=tuple(each.without(labels) for each in self.policies),
            boundary=None if self.boundary is None else self.boundary.without(labels),
            guardrails=tuple(each.without(labels) for each in self.guardrails),
            session=None if self.session is None else self.session.without(labels),
        )


@dataclass(frozen=True)
class Decision:
    """What IAM says.

    Attributes:
        allowed: whether the request is allowed.
        layer: where that comes from; see IDENTITY.
        statement: the statement that decided; None where none allows it.
        also: the statements that allow it as well.
    """

    allowed: bool
    layer: str = IDENTITY
    statement: Statement | None = None
    also: tuple[Statement, ...] = field(default=())

    def because(self, action: str) -> str:
        """The end of AWS's message on a denial."""
        article = "an" if self.layer == IDENTITY else "a"
        if self.statement is not None:
            return f"with an explicit deny in {article} {self.layer}"
        return f"because no {self.layer} allows the {action} action"


def decide(rights: Rights, question: Question) -> Decision:
    """Decide: an explicit deny anywhere wins; then every layer that there is must allow it."""
    boundary = () if rights.boundary is None else (rights.boundary,)
    session = () if rights.session is None else (rights.session,)
    layers = (
        (GUARDRAIL, rights.guardrails),
        (BOUNDARY, boundary),
        (SESSION, session),
        (IDENTITY, rights.policies),
    )
    allows: dict[str, list[Statement]] = {}
    for layer, policies in layers:
        matching = [each for policy in policies for each in policy.statements if _matches(each, question)]
        denial = next((each for each in matching if each.denies), None)
        if denial is not None:
            return Decision(False, layer, denial)
        allows[layer] = matching
    for layer, present in ((BOUNDARY, boundary), (SESSION, session)):
        if present and not allows[layer]:
            return Decision(False, layer)
    if not allows[IDENTITY]:
        return Decision(False, IDENTITY)
    first, *others = allows[IDENTITY]
    return Decision(True, IDENTITY, first, tuple(others))


def trusts(policy: Policy, service: str, context: Context) -> bool:
    """Whether the trust policy of a role lets a service assume it."""
    question = Question("sts:AssumeRole", "", context)
    matching = [
        each
        for each in policy.statements
        if service in each.services and each.covers(question.action) and _conditions_hold(each, context)
    ]
    return bool(matching) and not any(each.denies for each in matching)


def _matches(statement: Statement, question: Question) -> bool:
    if not statement.covers(question.action):
        return False
    variable = question.context.variable
    named = any(each.matches_arn(question.resource, variable) for each in statement.resources)
    return named != statement.but_resources and _conditions_hold(statement, question.context)


def _conditions_hold(statement: Statement, context: Context) -> bool:
    return all(each.holds(context.get(each.key), context.variable) for each in statement.conditions)
