"""Requests checked, and answers cut, by the service model that botocore ships.

botocore itself checks only types, required members and minimum lengths; the service also checks maxima,
patterns and enumerations. The wording of a refusal is the service's: "1 validation error detected: Value 'x'
at 'trainingJobName' failed to satisfy constraint: Member must satisfy regular expression pattern: ..." (seen
in public issues, e.g. aws-samples/sagemaker-ml-workflow-with-apache-airflow #3).
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

import botocore.session

from ..service_error import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from botocore.model import ServiceModel

    AnyShape = Any
    """A botocore.model.Shape: which subclass it is, `type_name` says, and a type checker does not follow."""

__all__ = ["Shapes", "is_expression", "validation_error"]

_NUMBERS = {"integer", "long", "float", "double"}
_JAVA_CLASSES = {r"\p{L}": r"\w", r"\p{N}": r"\w", r"\p{Z}": r"\s", r"\p{Alnum}": "0-9A-Za-z"}
_SHOWN = 256
"""Longest piece of a refused value that is repeated in the message, in characters."""


def validation_error(message: str) -> ServiceError:
    """The service's answer to a request that is wrong in itself."""
    return ServiceError("ValidationException", message)


def is_expression(value: object) -> bool:
    """Whether `value` is a function of the pipeline language, `{"Get": ...}` or `{"Std:...": ...}`."""
    return isinstance(value, dict) and len(value) == 1 and _is_function(next(iter(value)))


def _is_function(name: object) -> bool:
    return isinstance(name, str) and (name == "Get" or name.startswith("Std:"))


class Shapes:
    """The input and output shapes of one AWS service.

    Args:
        service: its name in botocore, as in `boto3.client(name)`.
    """

    def __init__(self, service: str = "sagemaker") -> None:
        self.model: ServiceModel = _service_model(service)
        self.operations = frozenset(self.model.operation_names)

    def check(self, operation: str, request: object) -> None:
        """Refuse what the service would refuse before it does anything.

        Unknown members are let through, as the service does (it cannot tell a newer client's member from a
        wrong one).

        Raises:
            ServiceError: SerializationException for a wrong JSON type, ValidationException for a broken
                constraint.
        """
        shape = self.model.operation_model(operation).input_shape
        if not isinstance(request, dict):
            raise ServiceError(
                "SerializationException", "Start of structure or map found where not expected."
            )
        if shape is None:
            return
        broken = list(_broken(shape, request, "", required=True))
        if broken:
            noun = "error" if len(broken) == 1 else "errors"
            raise validation_error(f"{len(broken)} validation {noun} detected: {'; '.join(broken)}")

    def check_arguments(self, operation: str, arguments: object, *, absent: Iterable[str]) -> None:
        """Refuse what the pipeline service refuses in a step's `Arguments`, whose leaves may be expressions.

        Args:
            operation: the operation that the step calls.
            arguments: the step's Arguments.
            absent: required members that the pipeline service fills in itself.

        Raises:
            ValueError: in the service's words ("Unknown Argument member 'X'.", "Expecting start of Json
                Array.").
        """
        shape = self.model.operation_model(operation).input_shape
        if not isinstance(arguments, dict):
            raise ValueError("Expecting start of Json Object.")
        filled = {**arguments, **{name: {"Get": "filled in"} for name in absent}}
        _check_template(shape, filled)

    def cut(self, operation: str, answer: Mapping[str, Any]) -> dict[str, Any]:
        """The members of `answer` that the operation's output has, `None` left out, however deep."""
        shape = self.model.operation_model(operation).output_shape
        cut: dict[str, Any] = _cut(shape, answer) if shape is not None else {}
        return cut

    def has_path(self, operation: str, path: Iterable[str | int]) -> bool:
        """Whether the operation's output can have something at `path` (member names, indices, keys)."""
        shape: Any = self.model.operation_model(operation).output_shape
        for part in path:
            if shape is None:
                return False
            if shape.type_name == "structure":
                shape = shape.members.get(part)
            elif shape.type_name == "list":
                shape = shape.member
            elif shape.type_name == "map":
                shape = shape.value
            else:
                return False
        return shape is not None


@functools.cache
def _service_model(service: str) -> ServiceModel:
    return botocore.session.get_session().get_service_model(service)


def _broken(shape: AnyShape, value: Any, path: str, *, required: bool) -> Iterator[str]:
    """Every broken constraint at and below `path`, worded as the service words it."""
    kind = shape.type_name
    if kind == "structure":
        _expect(isinstance(value, dict), "structure or map")
        for name in shape.required_members if required else ():
            if value.get(name) is None:
                yield _constraint("null", _join(path, name), "Member must not be null", quoted=False)
        for name, member in shape.members.items():
            if value.get(name) is not None:
                yield from _broken(member, value[name], _join(path, name), required=required)
    elif kind == "list":
        _expect(isinstance(value, list), "list")
        yield from _size(shape, value, len(value), path)
        for index, item in enumerate(value, 1):
            yield from _broken(shape.member, item, f"{path}.{index}.member", required=required)
    elif kind == "map":
        yield from _broken_map(shape, value, path, required=required)
    else:
        for shown, text in _scalar_faults(shape, value):
            yield _constraint(shown, path, text)


def _broken_map(shape: AnyShape, value: Any, path: str, *, required: bool) -> Iterator[str]:
    _expect(isinstance(value, dict), "structure or map")
    yield from _size(shape, value, len(value), path)
    for key, item in value.items():
        faults = [text for _, text in _scalar_faults(shape.key, key)]
        if faults:
            yield _constraint(value, path, f"Map keys must satisfy constraint: [{', '.join(faults)}]")
        if shape.value.type_name in ("structure", "list", "map"):
            yield from _broken(shape.value, item, f"{path}.{key}.member", required=required)
            continue
        faults = [text for _, text in _scalar_faults(shape.value, item)]
        if faults:
            yield _constraint(value, path, f"Map value must satisfy constraint: [{', '.join(faults)}]")


def _scalar_faults(shape: AnyShape, value: Any) -> Iterator[tuple[Any, str]]:
    """What is wrong with a leaf: the value to show, and the constraint in the service's words."""
    kind = shape.type_name
    limits = shape.metadata
    if kind == "string":
        _expect(isinstance(value, str), "string")
        if "max" in limits and len(value) > limits["max"]:
            yield value, f"Member must have length less than or equal to {limits['max']}"
        if "min" in limits and len(value) < limits["min"]:
            yield value, f"Member must have length greater than or equal to {limits['min']}"
        pattern = limits.get("pattern")
        if pattern and not _matches(pattern, value):
            yield value, f"Member must satisfy regular expression pattern: {pattern}"
        if "enum" in limits and value not in limits["enum"]:
            yield value, f"Member must satisfy enum value set: [{', '.join(limits['enum'])}]"
    elif kind in _NUMBERS:
        whole = kind in ("integer", "long")
        _expect(isinstance(value, int if whole else (int, float)) and not isinstance(value, bool), kind)
        if "max" in limits and value > limits["max"]:
            yield value, f"Member must have value less than or equal to {limits['max']}"
        if "min" in limits and value < limits["min"]:
            yield value, f"Member must have value greater than or equal to {limits['min']}"
    elif kind == "boolean":
        _expect(isinstance(value, bool), "boolean")
    elif kind == "timestamp":
        _expect(isinstance(value, (int, float)) and not isinstance(value, bool), "timestamp")


def _size(shape: AnyShape, value: Any, size: int, path: str) -> Iterator[str]:
    limits = shape.metadata
    if "max" in limits and size > limits["max"]:
        yield _constraint(value, path, f"Member must have length less than or equal to {limits['max']}")
    if "min" in limits and size < limits["min"]:
        yield _constraint(value, path, f"Member must have length greater than or equal to {limits['min']}")


def _constraint(value: Any, path: str, text: str, *, quoted: bool = True) -> str:
    shown = str(value)
    shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
    return f"Value {repr(shown) if quoted else shown} at '{path}' failed to satisfy constraint: {text}"


def _join(path: str, name: str) -> str:
    """The service names members with a small first letter."""
    small = name[:1].lower() + name[1:]
    return f"{path}.{small}" if path else small


def _expect(right: bool, kind: str) -> None:
    if not right:
        raise ServiceError("SerializationException", f"Unexpected JSON type where a {kind} is expected.")


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str] | None:
    for java, ours in _JAVA_CLASSES.items():
        pattern = pattern.replace(java, ours)
    try:
        return re.compile(pattern)
    except re.error:  # surrogate ranges, \p{P}: of free texts, which then are not checked
        return None


def _matches(pattern: str, value: str) -> bool:
    compiled = _compiled(pattern)
    return compiled is None or compiled.fullmatch(value) is not None


def _check_template(shape: AnyShape, value: Any) -> None:
    if shape is None or is_expression(value):
        return
    kind = shape.type_name
    if kind in ("structure", "map") and not isinstance(value, dict):
        raise ValueError("Expecting start of Json Object.")
    if kind == "structure":
        _check_members(shape, value)
    elif kind == "map":
        for item in value.values():
            _check_template(shape.value, item)
    elif kind == "list":
        if not isinstance(value, list):
            raise ValueError("Expecting start of Json Array.")
        for item in value:
            _check_template(shape.member, item)
    else:
        _check_scalar(shape, value)


def _check_members(shape: AnyShape, value: dict[str, Any]) -> None:
    for name in value:
        if name not in shape.members:
            raise ValueError(f"Unknown Argument member '{name}'.")
    for name in shape.required_members:
        if value.get(name) is None:
            raise ValueError(f"Model Validation failed: Missing required field '{name}' in '{shape.name}'.")
    for name, item in value.items():
        if item is not None:
            _check_template(shape.members[name], item)


def _check_scalar(shape: AnyShape, value: Any) -> None:
    try:
        faults = [text for _, text in _scalar_faults(shape, value)]
    except ServiceError as error:
        raise ValueError(f"Model Validation failed: '{shape.name}': {error.message}") from None
    if faults and "enum" in shape.metadata:
        choices = ", ".join(shape.metadata["enum"])
        raise ValueError(
            f"Model Validation failed: Value '{value}' for '{shape.name}' "
            f"failed to satisfy enum value set: [{choices}]"
        )
    if faults:
        raise ValueError(f"Model Validation failed: Value '{value}' for '{shape.name}': {faults[0]}")


def _cut(shape: AnyShape, value: Any) -> Any:
    kind = shape.type_name
    if kind == "structure":
        return {
            name: _cut(member, value[name])
            for name, member in shape.members.items()
            if value.get(name) is not None
        }
    if kind == "list":
        return [_cut(shape.member, item) for item in value]
    if kind == "map":
        return {key: _cut(shape.value, item) for key, item in value.items()}
    return value
