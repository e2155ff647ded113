"""Expressions and conditions of a pipeline definition, evaluated while it runs."""

from __future__ import annotations

import json
import operator
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from ..sagemaker.shapes import is_expression
from .definition import parse_json_path, parse_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .definition import Definition, Path

__all__ = ["ReadObject", "StepError", "Values", "shown"]

_ORDERED = {
    "GreaterThan": operator.gt,
    "GreaterThanOrEqualTo": operator.ge,
    "LessThan": operator.lt,
    "LessThanOrEqualTo": operator.le,
}
ReadObject = Callable[[str, str], Awaitable[bytes]]
"""Reads an S3 object, given its bucket and key."""
_KEYS = ("OutputName", "InputName", "ChannelName")
"""The members by which a list is indexed with a name: `Outputs['train'].S3Output.S3Uri`."""


class StepError(Exception):
    """A step fails for a reason of the pipeline's, not of its job; its text is the step's FailureReason."""


def shown(value: Any) -> str:
    """A value as Std:Join writes it: booleans as `true` and `false` (so the SDK's integration tests)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


@dataclass
class Values:
    """Evaluates for one execution.

    Args:
        definition: of the pipeline.
        parameters: their values in this execution.
        variables: the execution's variables, by name, except for those of a job.
        properties: describes a step that has ended, as its Describe operation does.
        read_object: reads an S3 object by bucket and key.
    """

    definition: Definition
    parameters: dict[str, Any]
    variables: Callable[[], dict[str, str]]
    properties: Callable[[str], Awaitable[dict[str, Any]]]
    read_object: ReadObject

    async def of(self, value: Any, extra: dict[str, str] | None = None) -> Any:
        """`value` with every expression in it replaced by what it stands for.

        Args:
            value: a part of the definition.
            extra: execution variables that only the asking step has (TrainingJobName, ProcessingJobName).

        Raises:
            StepError: something that an expression names is not there.
        """
        if is_expression(value):
            return await self._expression(value, extra or {})
        if isinstance(value, dict):
            return {key: await self.of(item, extra) for key, item in value.items()}
        if isinstance(value, list):
            return [await self.of(item, extra) for item in value]
        return value

    async def holds(self, condition: dict[str, Any]) -> bool:
        """Whether a condition is true.

        Raises:
            StepError: its values cannot be obtained or compared.
        """
        kind = condition["Type"]
        if kind == "Not":
            return not await self.holds(condition["Condition"])
        if kind in ("And", "Or"):
            outcomes = [await self.holds(inner) for inner in condition["Conditions"]]
            return all(outcomes) if kind == "And" else any(outcomes)
        if kind == "In":
            query, values = await self.of(condition["QueryValue"]), await self.of(condition["Values"])
            if not isinstance(values, list):
                raise StepError(f"In needs a list of values, not '{shown(values)}'.")
            return any(_equal(query, value) for value in values)
        left, right = await self.of(condition["LeftValue"]), await self.of(condition["RightValue"])
        if kind == "Equals":
            return _equal(left, right)
        if not _alike(left, right) or isinstance(left, (bool, dict, list)):
            raise StepError(f"{kind} can not compare '{shown(left)}' with '{shown(right)}'.")
        return bool(_ORDERED[kind](left, right))

    async def _expression(self, expression: dict[str, Any], extra: dict[str, str]) -> Any:
        name, value = next(iter(expression.items()))
        if name == "Get":
            path = parse_path(value)
            assert path is not None  # checked when the pipeline was made
            return await self._get(value, path, extra)
        if name == "Std:Join":
            parts = [await self.of(item, extra) for item in value["Values"]]
            for part in parts:
                if isinstance(part, (dict, list)):
                    raise StepError(f"Std:Join can not join '{part}'.")
            return str(value.get("On", "")).join(map(shown, parts))
        return await self._json_get(value, extra)

    async def _get(self, text: str, path: Path, extra: dict[str, str]) -> Any:
        if path.root == "Parameters":
            return self.parameters[path.name]
        if path.root == "Execution":
            variables = {**self.variables(), **extra}
            if path.name not in variables:
                raise StepError(f"The execution variable '{path.name}' has no value in this step.")
            return variables[path.name]
        return _follow(await self.properties(path.name), path.parts, text)

    async def _json_get(self, value: dict[str, Any], extra: dict[str, str]) -> Any:
        if "S3Uri" in value:
            uri = str(await self.of(value["S3Uri"], extra))
        else:
            path = parse_path(value["PropertyFile"]["Get"])
            assert path is not None
            output, file = self.definition.steps[path.name].property_files[str(path.parts[1])]
            parts = ("ProcessingOutputConfig", "Outputs", output, "S3Output", "S3Uri")
            uri = f"{str(_follow(await self.properties(path.name), parts, output)).rstrip('/')}/{file}"
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        try:
            document = json.loads(await self.read_object(bucket, key))
        except ValueError as error:
            raise StepError(f"Std:JsonGet: {uri} is not JSON: {error}.") from None
        except (BotoCoreError, ClientError) as error:
            raise StepError(f"Std:JsonGet: {uri} can not be read: {error}") from None
        inside = parse_json_path(value["Path"])
        assert inside is not None
        return _follow(document, inside, f"{value['Path']} in {uri}")


def _alike(left: Any, right: Any) -> bool:
    numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
    return numbers or type(left) is type(right)


def _equal(left: Any, right: Any) -> bool:
    """JSON equality: 1 and 1.0 are one, true and 1 are two."""
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    return bool(left == right)


def _follow(value: Any, parts: Sequence[str | int], text: str) -> Any:
    try:
        for part in parts:
            if isinstance(value, list) and isinstance(part, str):
                value = next(item for item in value if part in [item.get(key) for key in _KEYS])
            else:
                value = value[part]
    except (KeyError, IndexError, TypeError, StopIteration, AttributeError):
        raise StepError(f"'{text}' has no value.") from None
    return value
