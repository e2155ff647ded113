"""The operators of conditions, as IAM evaluates them.

Facts: IAM user guide, "IAM JSON policy elements: Condition operators", "Set operators for multi-valued context keys".
A key that the request lacks matches no operator except the negated ones, `IfExists`, `ForAllValues` and `Null`.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import ipaddress
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from .patterns import Pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Condition", "Values", "condition", "operator_names"]

Values = "Sequence[str] | None"
"""The values of a key in a request; None for a key that it lacks."""

_FOR_ALL, _FOR_ANY, _IF_EXISTS = "ForAllValues:", "ForAnyValue:", "IfExists"
_TEXT, _PATTERN, _ARN, _PARSED = "text", "pattern", "arn", "parsed"


@dataclass(frozen=True)
class _Operator:
    """One operator.

    Attributes:
        kind: how a value is compared: as a text, a pattern or an ARN, which may have variables, or parsed.
        negated: whether it holds where nothing matches.
        parse: of a value, policy's and request's, where it is parsed.
        compare: the parsed value of the request and that of the policy.
        any_case: whether case does not matter.
    """

    kind: str
    negated: bool = False
    parse: Callable[[str], Any] = str
    compare: Callable[[Any, Any], bool] = lambda found, wanted: bool(found == wanted)
    any_case: bool = False


def _number(text: str) -> Decimal:
    if not text.isascii() or "_" in text:  # Decimal takes the digits of other scripts, and 1_000
        raise ValueError(f"{text!r} is not a number")
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a number") from None
    if not value.is_finite():
        raise ValueError(f"{text!r} is not a number")
    return value


def _date(text: str) -> dt.datetime:
    """ISO 8601 as W3C profiles it, or seconds since the epoch."""
    try:
        if text.isascii() and text.replace(".", "", 1).isdigit() and len(text) > 4:
            return dt.datetime.fromtimestamp(float(text), dt.timezone.utc)
        written = text.replace("Z", "+00:00").replace("z", "+00:00")
        moment = dt.datetime.fromisoformat(f"{written}-01-01" if len(written) == 4 else written)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text!r} is not a date: use 2026-11-30T12:00:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.timezone.utc)


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is not an address or a range of addresses") from None


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError(f"{text!r} is not base64") from None


def _within(found: Any, wanted: Any) -> bool:
    return found.version == wanted.version and bool(found.subnet_of(wanted))


_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "LessThan": lambda found, wanted: bool(found < wanted),
    "LessThanEquals": lambda found, wanted: bool(found <= wanted),
    "GreaterThan": lambda found, wanted: bool(found > wanted),
    "GreaterThanEquals": lambda found, wanted: bool(found >= wanted),
}
_OPERATORS = {
    "StringEquals": _Operator(_TEXT),
    "StringNotEquals": _Operator(_TEXT, negated=True),
    "StringEqualsIgnoreCase": _Operator(_TEXT, any_case=True),
    "StringNotEqualsIgnoreCase": _Operator(_TEXT, negated=True, any_case=True),
    "StringLike": _Operator(_PATTERN),
    "StringNotLike": _Operator(_PATTERN, negated=True),
    "ArnEquals": _Operator(_ARN),
    "ArnLike": _Operator(_ARN),
    "ArnNotEquals": _Operator(_ARN, negated=True),
    "ArnNotLike": _Operator(_ARN, negated=True),
    "Bool": _Operator(_PARSED, parse=_truth),
    "BinaryEquals": _Operator(_PARSED, parse=_bytes),
    "IpAddress": _Operator(_PARSED, parse=_network, compare=_within),
    "NotIpAddress": _Operator(_PARSED, negated=True, parse=_network, compare=_within),
    "NumericEquals": _Operator(_PARSED, parse=_number),
    "NumericNotEquals": _Operator(_PARSED, negated=True, parse=_number),
    "DateEquals": _Operator(_PARSED, parse=_date),
    "DateNotEquals": _Operator(_PARSED, negated=True, parse=_date),
    **{
        f"{kind}{name}": _Operator(_PARSED, parse=parse, compare=compare)
        for kind, parse in (("Numeric", _number), ("Date", _date))
        for name, compare in _ORDERS.items()
    },
}
_NAMES = {name.lower(): name for name in _OPERATORS}


def operator_names() -> list[str]:
    """Every operator without what may stand before and behind it; `Null` besides."""
    return [*_OPERATORS, "Null"]


@dataclass(frozen=True)
class Condition:
    """One operator, one key, and the values that it is compared with.

    Attributes:
        key: the key, as written.
        written: the operator, as written.
        several: whether it is for keys with several values: `ForAllValues` or `ForAnyValue`.
        variables: the keys that its values name.
    """

    key: str
    written: str
    several: bool
    variables: tuple[str, ...]
    _holds: Callable[[Any, Any], bool]

    def holds(self, values: Sequence[str] | None, lookup: Callable[[str], str | None]) -> bool:
        """Whether it holds.

        Args:
            values: those of its key in the request; None for a key that the request lacks.
            lookup: the values of variables.
        """
        return self._holds(values, lookup)


def condition(written: str, key: str, values: Any, *, variables: bool) -> Condition:
    """Read a condition.

    Args:
        written: the operator, as it stands in the policy.
        key: the key.
        values: a value or a list of values.
        variables: whether the policy's version has variables.

    Raises:
        ValueError: there is no such operator, or a value is not one of its kind.
    """
    wanted = _texts(values)
    name, all_of, any_of = written, False, False
    if name.lower().startswith(_FOR_ALL.lower()):
        name, all_of = name[len(_FOR_ALL) :], True
    elif name.lower().startswith(_FOR_ANY.lower()):
        name, any_of = name[len(_FOR_ANY) :], True
    if name.lower() == "null" and not (all_of or any_of):
        absent = {_truth(text) for text in wanted}
        return Condition(key, written, True, (), lambda found, _lookup: (not found) in absent)
    if_exists = name.lower().endswith(_IF_EXISTS.lower())
    name = name[: -len(_IF_EXISTS)] if if_exists else name
    operator = _OPERATORS.get(_NAMES.get(name.lower(), ""))
    if operator is None:
        raise ValueError(f"there is no condition operator {written}")
    patterns = [Pattern(text, variables=variables and operator.kind != _PARSED) for text in wanted]
    matches = _matcher(operator, patterns)

    def passes(value: str, lookup: Callable[[str], str | None]) -> bool:
        return matches(value, lookup) != operator.negated

    def holds(found: Sequence[str] | None, lookup: Callable[[str], str | None]) -> bool:
        if found is None:
            # ForAnyValue finds no value that matches, with IfExists or without.
            return not any_of and (if_exists or all_of or operator.negated)
        if all_of:
            return all(passes(value, lookup) for value in found)
        if any_of:
            return any(passes(value, lookup) for value in found)
        # One value: a key with several is for the set operators.
        return len(found) == 1 and passes(found[0], lookup)

    named = tuple(key for pattern in patterns for key in pattern.variables)
    return Condition(key, written, all_of or any_of, named, holds)


def _matcher(operator: _Operator, patterns: list[Pattern]) -> Callable[[str, Any], bool]:
    """Whether a value of the request is one of the policy's."""
    if operator.kind == _TEXT:

        def same(value: str, lookup: Callable[[str], str | None]) -> bool:
            texts = [text for pattern in patterns if (text := pattern.filled(lookup)) is not None]
            if operator.any_case:
                return value.lower() in [text.lower() for text in texts]
            return value in texts

        return same
    if operator.kind == _PATTERN:
        return lambda value, lookup: any(pattern.matches(value, lookup) for pattern in patterns)
    if operator.kind == _ARN:
        return lambda value, lookup: any(pattern.matches_arn(value, lookup) for pattern in patterns)
    wanted = [operator.parse(pattern.text) for pattern in patterns]

    def parsed(value: str, _lookup: Callable[[str], str | None]) -> bool:
        try:
            found = operator.parse(value)
        except ValueError:
            return False
        return any(operator.compare(found, each) for each in wanted)

    return parsed


def _texts(values: Any) -> list[str]:
    """The values of a condition as texts: JSON's own true, false and numbers are allowed."""
    found = []
    for value in values if isinstance(values, list) else [values]:
        if isinstance(value, bool):
            found.append("true" if value else "false")
        elif isinstance(value, (str, int, float)):
            found.append(str(value))
        else:
            raise ValueError(f"{value!r} is not a value of a condition")
    return found
