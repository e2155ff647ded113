"""A pipeline definition read and checked: what can be known wrong before it runs is refused at create.

The language is "SageMaker Pipeline Definition JSON Schema", Version 2020-12-01, as the SageMaker Python SDK
emits it. A step of a type that the local emulator does not interpret fails when it is reached, and its FailureReason
names the type; a function or member that it does not know is refused here. What is left out silently would
make a pipeline look as if it worked.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ..sagemaker.shapes import Shapes, is_expression, validation_error
from .retries import RetryPolicy, read_retries

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "CALLS",
    "NOT_INTERPRETED",
    "OTHER_TYPES",
    "Definition",
    "Made",
    "Parameter",
    "Path",
    "Step",
    "parse",
    "parse_json_path",
    "parse_path",
]

_VERSION = "2020-12-01"
_STEP_NAME = re.compile(r"[A-Za-z0-9\-_]{1,64}")
_TYPES: dict[str, tuple[type, ...]] = {
    "String": (str,),
    "Integer": (int,),
    "Float": (float, int),
    "Boolean": (bool,),
}
_COMPARISONS = ("Equals", "GreaterThan", "GreaterThanOrEqualTo", "LessThan", "LessThanOrEqualTo")
_EXECUTION = {
    "StartDateTime",
    "CurrentDateTime",
    "PipelineName",
    "PipelineArn",
    "PipelineExecutionId",
    "PipelineExecutionArn",
    "TrainingJobName",
    "ProcessingJobName",
}
_STEP_MEMBERS = {
    "Name",
    "Type",
    "Arguments",
    "DependsOn",
    "DisplayName",
    "Description",
    "RetryPolicies",
    "CacheConfig",
    "PropertyFiles",
}


_TARGETS = {"Callback": "SqsQueueUrl", "Lambda": "FunctionArn"}
"""The member with what a step with output parameters sends to."""
_OUTPUT_TYPES = ("String", "Integer", "Boolean", "Float")
_DURATION = re.compile(
    r"P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?", re.IGNORECASE
)
_SECONDS = (365 * 86400, 30 * 86400, 7 * 86400, 86400, 3600, 60, 1)
"""Of the parts of a duration. How long the service's months and years are is not documented."""


Made = Literal["training", "processing", "transform", "tuning"]
"""What a step makes and waits for."""


@dataclass(frozen=True)
class Call:
    """The API operations behind a step type."""

    create: str
    describe: str
    name: str
    """The member with the name of what is made."""
    kind: Made | None
    """Of the job; None: it makes no job."""
    metadata: str
    """The member of the step's Metadata."""
    retries_itself: bool = False
    """Whether it retries its jobs' internal errors itself, so that no policy acts on them."""
    longest: int = 63
    """Characters of the name of what is made."""
    lists: str | None = None
    """Another operation whose answer is among the properties of the step."""


CALLS = {
    "Training": Call(
        "CreateTrainingJob", "DescribeTrainingJob", "TrainingJobName", "training", "TrainingJob"
    ),
    "Processing": Call(
        "CreateProcessingJob", "DescribeProcessingJob", "ProcessingJobName", "processing", "ProcessingJob"
    ),
    "Transform": Call(
        "CreateTransformJob", "DescribeTransformJob", "TransformJobName", "transform", "TransformJob"
    ),
    "Model": Call("CreateModel", "DescribeModel", "ModelName", None, "Model"),
    "Tuning": Call(
        "CreateHyperParameterTuningJob",
        "DescribeHyperParameterTuningJob",
        "HyperParameterTuningJobName",
        "tuning",
        "TuningJob",
        retries_itself=True,
        longest=32,
        lists="ListTrainingJobsForHyperParameterTuningJob",
    ),
    "RegisterModel": Call(
        "CreateModelPackage", "DescribeModelPackage", "ModelPackageName", None, "RegisterModel"
    ),
}
OTHER_TYPES = ("Condition", "Fail", "Callback", "Lambda")
NOT_INTERPRETED = (
    "QualityCheck",
    "ClarifyCheck",
    "EMR",
    "EMRServerless",
    "AutoML",
    "ForEach",
    "Job",
    "InferenceComponent",
    "InferenceRecommendation",
    "Endpoint",
    "EndpointConfig",
    "Lineage",
    "Cleanup",
    "Athena",
    "HubContent",
    "BedrockCustomModel",
    "BedrockCustomModelDeployment",
    "BedrockModelImport",
    "BedrockProvisionedModelThroughput",
)
"""Types of the service that are in a pipeline like any other; an execution that comes to one of them fails there.

They are what the SDK's StepTypeEnum has, and what the API has in the Metadata of a step.
"""
_TRIGGERS = ("Completed", "Failed", "Stopped", "Any")
"""With which end of a step another one may run, as the SDK's StepDependency has it."""


@dataclass(frozen=True)
class Parameter:
    """One pipeline parameter."""

    name: str
    type: str
    default: Any
    choices: list[str] | None

    def read(self, value: Any) -> Any:
        """The parameter's value from text (StartPipelineExecution gives strings) or from the definition.

        Raises:
            ServiceError: ValidationException: the wrong type, or none of the parameter's EnumValues.
        """
        made: Any = value
        if isinstance(value, str) and self.type != "String":
            try:
                made = _READERS[self.type](value)
            except (ValueError, KeyError):
                made = value
        right = isinstance(made, _TYPES[self.type]) and (self.type == "Boolean" or not isinstance(made, bool))
        if not right:
            raise validation_error(
                f"Invalid value '{value}' for parameter '{self.name}': expected type {self.type}."
            )
        if self.choices is not None and made not in self.choices:
            choices = ", ".join(self.choices)
            raise validation_error(
                f"Invalid value '{value}' for parameter '{self.name}': it must be one of [{choices}]."
            )
        return float(made) if self.type == "Float" else made


_READERS: dict[str, Any] = {
    "Integer": int,
    "Float": float,
    "Boolean": lambda text: {"true": True, "false": False}[text.lower()],
}


@dataclass
class Step:
    """One step, nested ones too."""

    name: str
    type: str
    arguments: dict[str, Any]
    depends_on: list[str]
    parent: str | None = None
    """The Condition step it is nested in."""
    branch: bool | None = None
    """The outcome of the parent with which it runs."""
    display_name: str | None = None
    description: str | None = None
    property_files: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Name: (output name, path below that output)."""
    target: Any = None
    """Of a Callback step: the URL of its queue; of a Lambda step: the ARN of its function; or an expression."""
    outputs: dict[str, str] = field(default_factory=dict)
    """Of those steps: the types of their output parameters, by name."""
    cache: float | None = None
    """Seconds for which its result may be taken again; None: never."""
    retries: tuple[RetryPolicy, ...] = ()
    needs: set[str] = field(default_factory=set)
    """Every step that must have ended before this one: declared, referred to, and the parent."""
    triggers: dict[str, str] = field(default_factory=dict)
    """Of the steps that it needs and that need not have ended well: Failed, Stopped or Any."""


@dataclass
class Definition:
    """A checked definition. Steps stand in the order of the text."""

    text: str
    parameters: dict[str, Parameter]
    steps: dict[str, Step]
    experiment: dict[str, Any] | None


@dataclass(frozen=True)
class Path:
    """What a `Get` names: a root (Parameters, Execution, Steps), a name under it, and the way from there."""

    root: str
    name: str
    parts: tuple[str | int, ...] = ()


_PART = re.compile(r"""\.?([A-Za-z0-9_\-]+)|\[(\d+)\]|\['([^']*)'\]|\["([^"]*)"\]""")


def _parts(text: str) -> tuple[str | int, ...] | None:
    """`A.b[0]['key']` taken apart; None if it cannot be."""
    found: list[str | int] = []
    at = 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None or (at == 0 and text.startswith(".")):
            return None
        name, index, single, double = match.groups()
        if name is not None and at > 0 and not match.group().startswith("."):
            return None
        found.append(
            int(index) if index is not None else next(p for p in (name, single, double) if p is not None)
        )
        at = match.end()
    return tuple(found)


def parse_path(text: Any) -> Path | None:
    """What `{"Get": text}` means; None if the local emulator does not know it."""
    parts = _parts(text) if isinstance(text, str) else None
    if parts is None or len(parts) < 2 or not isinstance(parts[0], str) or not isinstance(parts[1], str):
        return None
    root, name, rest = parts[0], parts[1], parts[2:]
    if (root in ("Parameters", "Execution") and not rest) or (root == "Steps" and rest):
        return Path(root, name, rest)
    return None


def parse_json_path(text: Any) -> tuple[str | int, ...] | None:
    """The Path of a Std:JsonGet, `a.b[0].c`, with or without a leading `$.`; None if it is more than that."""
    if not isinstance(text, str):
        return None
    return _parts(re.sub(r"^\$\.?", "", text))


def expressions(value: Any) -> Iterator[dict[str, Any]]:
    """Every outermost expression in `value`."""
    if is_expression(value):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from expressions(item)
    elif isinstance(value, list):
        for item in value:
            yield from expressions(item)


def _referred(value: Any) -> Iterator[str]:
    """The name of every step that a `Get` anywhere in `value` names."""
    if isinstance(value, dict):
        path = parse_path(value["Get"]) if is_expression(value) and "Get" in value else None
        if path is not None and path.root == "Steps":
            yield path.name
        for item in value.values():
            yield from _referred(item)
    elif isinstance(value, list):
        for item in value:
            yield from _referred(item)


def parse(text: str, shapes: Shapes) -> Definition:
    """Read and check a definition.

    Raises:
        ServiceError: ValidationException, naming what is wrong and where.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unparsable(f"Not valid JSON: {error}.") from None
    if not isinstance(document, dict):
        raise _unparsable("Expecting start of Json Object.")
    if document.get("Version") != _VERSION:
        raise _unparsable(f"Unknown version '{document.get('Version')}', expected '{_VERSION}'.")
    if document.get("MlflowConfig"):
        raise _refused("the pipeline's MlflowConfig")
    for name in document:
        if name not in (
            "Version",
            "Metadata",
            "Parameters",
            "PipelineExperimentConfig",
            "MlflowConfig",
            "Steps",
        ):
            raise _unparsable(f"Unknown member '{name}'.")
    if not isinstance(document.get("Steps"), list) or not document["Steps"]:
        raise _unparsable("A pipeline needs at least one step.")
    parameters = _read_parameters(document.get("Parameters") or [])
    steps: dict[str, Step] = {}
    _read_steps(document["Steps"], steps, None, None)
    definition = Definition(text, parameters, steps, document.get("PipelineExperimentConfig"))
    checker = _Checker(definition, shapes)
    for step in steps.values():
        checker.step(step)
    checker.experiment()
    _check_cycles(steps)
    return definition


def _unparsable(why: str) -> Exception:
    return validation_error(f"Unable to parse pipeline definition. {why}")


def _refused(what: str, where: str = "") -> Exception:
    return validation_error(
        f"Unable to parse pipeline definition. smssh local does not interpret {what}{where}."
    )


def _read_parameters(entries: Any) -> dict[str, Parameter]:
    if not isinstance(entries, list):
        raise _unparsable("Expecting start of Json Array.")
    parameters: dict[str, Parameter] = {}
    for entry in entries:
        name = entry.get("Name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            raise _unparsable("A parameter needs a Name.")
        if name in parameters:
            raise _unparsable(f"Two parameters have the name '{name}'.")
        kind, choices = entry.get("Type"), entry.get("EnumValues")
        if not isinstance(kind, str) or kind not in _TYPES:
            raise _unparsable(f"Parameter '{name}' has the unknown type '{kind}'.")
        if choices is not None and not _is_texts(choices):
            raise _unparsable(f"Parameter '{name}': EnumValues must be a list of strings.")
        parameter = Parameter(name, kind, entry.get("DefaultValue"), choices)
        if parameter.default is not None:
            parameter.read(parameter.default)
        parameters[name] = parameter
    return parameters


def _read_steps(entries: Any, steps: dict[str, Step], parent: str | None, branch: bool | None) -> None:
    if not isinstance(entries, list):
        raise _unparsable("Expecting start of Json Array.")
    for entry in entries:
        name, kind = _read_name_and_type(entry, steps)
        # A Callback, a Lambda and an EMR step may have none.
        arguments = entry.get("Arguments", {} if kind in (*_TARGETS, *NOT_INTERPRETED) else None)
        if not isinstance(arguments, dict):
            raise _unparsable(f"Step '{name}': Expecting start of Json Object.")
        depends_on, triggers = _read_depends_on(name, entry.get("DependsOn"))
        for member in ("DisplayName", "Description"):
            if not isinstance(entry.get(member), (str, type(None))):
                raise _unparsable(f"Step '{name}': {member} must be a string.")
        step = Step(
            name,
            kind,
            arguments,
            depends_on,
            parent,
            branch,
            entry.get("DisplayName"),
            entry.get("Description"),
            triggers=triggers,
        )
        if kind in _TARGETS:
            _read_outputs(step, entry)
        step.cache = _read_cache(name, entry.get("CacheConfig"))
        steps[name] = step
        _read_property_files(step, entry.get("PropertyFiles"))
        try:
            step.retries = read_retries(entry.get("RetryPolicies"))
        except ValueError as error:
            raise _unparsable(f"Step '{name}': {error}") from None
        if step.retries and kind in OTHER_TYPES:
            raise _unparsable(f"Step '{name}': a {kind} step has no RetryPolicies.")
        if kind == "Condition":
            _read_steps(arguments.get("IfSteps") or [], steps, name, branch=True)
            _read_steps(arguments.get("ElseSteps") or [], steps, name, branch=False)


def _read_name_and_type(entry: Any, steps: dict[str, Step]) -> tuple[str, str]:
    """The name and the type of a step that has the members of its type, and no name of another."""
    name = entry.get("Name") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not _STEP_NAME.fullmatch(name):
        raise _unparsable(f"The step name '{name}' must match {_STEP_NAME.pattern}.")
    if name in steps:
        raise _unparsable(f"Two steps have the name '{name}'; step names must be unique within a pipeline.")
    kind = entry.get("Type")
    if not isinstance(kind, str) or kind not in (*CALLS, *OTHER_TYPES, *NOT_INTERPRETED):
        raise _unparsable(f"Unknown step type '{kind}' (step '{name}').")
    known = _STEP_MEMBERS | ({_TARGETS[kind], "OutputParameters"} if kind in _TARGETS else set())
    for member in entry:
        if member not in known and kind not in NOT_INTERPRETED:
            raise _refused(f"the member '{member}'", f" (step '{name}')")
    return name, kind


def _read_depends_on(name: str, entries: Any) -> tuple[list[str], dict[str, str]]:
    """The steps that DependsOn names, and for those that must not have ended well how they must have."""
    names: list[str] = []
    triggers: dict[str, str] = {}
    if entries is not None and not isinstance(entries, list):
        raise _unparsable(f"Step '{name}': DependsOn must be a list of step names.")
    for entry in entries or ():
        if isinstance(entry, str):
            names.append(entry)
            continue
        if (
            not isinstance(entry, dict)
            or entry.keys() != {"Step", "Trigger"}
            or not _is_texts([entry["Step"]])
        ):
            raise _unparsable(f"Step '{name}': DependsOn must be a list of step names.")
        if entry["Trigger"] not in _TRIGGERS:
            raise _unparsable(
                f"Step '{name}': Value '{entry['Trigger']}' for 'Trigger' "
                f"failed to satisfy enum value set: [{', '.join(_TRIGGERS)}]"
            )
        names.append(entry["Step"])
        triggers[entry["Step"]] = entry["Trigger"]
    return names, triggers


def _read_outputs(step: Step, entry: dict[str, Any]) -> None:
    member = _TARGETS[step.type]
    step.target = entry.get(member)
    if not isinstance(step.target, str) and not is_expression(step.target):
        raise _unparsable(f"Step '{step.name}': a {step.type} step needs {member}.")
    outputs = entry.get("OutputParameters")
    if outputs is not None and not isinstance(outputs, list):
        raise _unparsable(f"Step '{step.name}': OutputParameters: Expecting start of Json Array.")
    for output in outputs or ():
        name = output.get("OutputName") if isinstance(output, dict) else None
        if not isinstance(name, str):
            raise _unparsable(f"Step '{step.name}': an output parameter needs an OutputName.")
        kind = output.get("OutputType", "String")
        if kind not in _OUTPUT_TYPES:
            raise _unparsable(f"Step '{step.name}': output '{name}' has the unknown type '{kind}'.")
        step.outputs[name] = kind


def _read_cache(name: str, entry: Any) -> float | None:
    """For how long a result may be taken again, in seconds; None where caching is off."""
    if entry is None:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("Enabled"), bool):
        raise _unparsable(f"Step '{name}': CacheConfig needs Enabled.")
    if not entry["Enabled"]:
        return None
    after = entry.get("ExpireAfter")
    if after is None:
        return float("inf")
    match = _DURATION.fullmatch(after) if isinstance(after, str) and len(after) > 1 else None
    if match is None or after.endswith("T"):
        raise _unparsable(
            f"Step '{name}': ExpireAfter '{after}' is not a duration of ISO 8601, such as p30d."
        )
    return sum(int(part or 0) * seconds for part, seconds in zip(match.groups(), _SECONDS, strict=True))


def _read_property_files(step: Step, entries: Any) -> None:
    if entries is None:
        return
    if not isinstance(entries, list):
        raise _unparsable(f"Step '{step.name}': PropertyFiles: Expecting start of Json Array.")
    config = step.arguments.get("ProcessingOutputConfig")
    outputs = config.get("Outputs") if isinstance(config, dict) else None
    outputs = outputs if isinstance(outputs, list) else []
    names = [made.get("OutputName") for made in outputs if isinstance(made, dict)]
    for entry in entries:
        values: list[Any] = [
            entry.get(key) if isinstance(entry, dict) else None
            for key in ("PropertyFileName", "OutputName", "FilePath")
        ]
        if not _is_texts(values):
            raise _unparsable(
                f"Step '{step.name}': a property file needs PropertyFileName, OutputName and FilePath."
            )
        name, output, path = values
        if step.type != "Processing" or output not in names:
            raise _unparsable(
                f"Step '{step.name}': property file '{name}' names the unknown output '{output}'."
            )
        step.property_files[name] = (output, path)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


class _Checker:
    """Checks references, and collects what each step needs."""

    def __init__(self, definition: Definition, shapes: Shapes) -> None:
        self._definition = definition
        self._shapes = shapes

    def step(self, step: Step) -> None:
        where = f" (step '{step.name}')"
        if step.parent is not None:
            step.needs.add(step.parent)
        for other in step.depends_on:
            self._need(step, other, "DependsOn")
        for expression in expressions(self._arguments(step)):
            step.needs |= self._expression(expression, where)
        for other in step.needs:
            if self._definition.steps[other].type == "Fail" and step.triggers.get(other) not in (
                "Failed",
                "Any",
            ):
                raise _unparsable(f"{step.name} can not depends on {other}: {other} is a Fail step.")

    def _arguments(self, step: Step) -> dict[str, Any]:
        """Check a step's arguments as its type wants it; answers those that may refer to other steps."""
        arguments = step.arguments
        if step.type == "Condition":
            conditions = arguments.get("Conditions")
            if not isinstance(conditions, list) or not conditions:
                raise _unparsable(f"Step '{step.name}': a Condition step needs Conditions.")
            for condition in conditions:
                self._condition(step, condition)
            return {"Conditions": conditions}
        if step.type == "Fail":
            return {"ErrorMessage": arguments.get("ErrorMessage", "")}
        if step.type in _TARGETS:
            return {"Arguments": arguments, "Target": step.target}
        if step.type in NOT_INTERPRETED:
            # What it refers to need not be something that is known here; whether it depends on a step is.
            step.needs |= self._definition.steps.keys() & set(_referred(arguments)) - {step.name}
            return {}
        call = CALLS[step.type]
        try:
            self._shapes.check_arguments(call.create, arguments, absent=[call.name])
        except ValueError as error:
            raise _unparsable(f"{error} (Step '{step.name}'.)") from None
        return arguments

    def experiment(self) -> None:
        for expression in expressions(self._definition.experiment):
            if self._expression(expression, " (PipelineExperimentConfig)"):
                raise _unparsable("PipelineExperimentConfig can not refer to steps.")

    def _need(self, step: Step, other: str, how: str) -> None:
        if other not in self._definition.steps:
            raise _unparsable(f"Step '{step.name}': {how} names the unknown step '{other}'.")
        step.needs.add(other)

    def _condition(self, step: Step, condition: Any) -> None:
        kind = condition.get("Type") if isinstance(condition, dict) else None
        needed = {
            "In": ("QueryValue", "Values"),
            "Not": ("Condition",),
            "Or": ("Conditions",),
            "And": ("Conditions",),
        }
        kind = kind if isinstance(kind, str) else str(kind)
        members = ("LeftValue", "RightValue") if kind in _COMPARISONS else needed.get(kind)
        if members is None:
            raise _refused(f"conditions of type '{kind}'", f" (step '{step.name}')")
        for member in members:
            if member not in condition:
                raise _unparsable(f"Step '{step.name}': a condition of type '{kind}' needs {member}.")
        nested = condition["Conditions"] if kind in ("Or", "And") else []
        if not isinstance(nested, list):
            raise _unparsable(f"Step '{step.name}': Conditions: Expecting start of Json Array.")
        for inner in [condition["Condition"]] if kind == "Not" else nested:
            self._condition(step, inner)

    def _expression(self, expression: dict[str, Any], where: str) -> set[str]:
        """Check one expression; answers the steps it refers to."""
        name, value = next(iter(expression.items()))
        if name == "Get":
            return self._get(value, where)
        if name == "Std:Join":
            if not isinstance(value, dict) or not isinstance(value.get("Values"), list):
                raise _unparsable(f"Std:Join needs On and Values{where}.")
            inner: set[str] = set()
            for item in value["Values"]:
                for nested in expressions(item):
                    inner |= self._expression(nested, where)
            return inner
        if name == "Std:JsonGet":
            return self._json_get(value, where)
        raise _refused(f"the function '{name}'", where)

    def _json_get(self, value: Any, where: str) -> set[str]:
        if not isinstance(value, dict) or parse_json_path(value.get("Path")) is None:
            path = value.get("Path") if isinstance(value, dict) else None
            raise _refused(f"the Path '{path}' of Std:JsonGet", where)
        if "S3Uri" in value:
            return {
                step for nested in expressions(value["S3Uri"]) for step in self._expression(nested, where)
            }
        got = value.get("PropertyFile")
        path = parse_path(got.get("Get") if isinstance(got, dict) else None)
        if path is None or path.root != "Steps" or path.parts[0] != "PropertyFiles" or len(path.parts) != 2:
            raise _unparsable(f"Std:JsonGet needs a PropertyFile or an S3Uri{where}.")
        step = self._definition.steps.get(path.name)
        if step is None:
            raise _unparsable(f"Std:JsonGet names the unknown step '{path.name}'{where}.")
        if path.parts[1] not in step.property_files:
            raise _unparsable(f"Step '{path.name}' has no property file '{path.parts[1]}'{where}.")
        return {path.name}

    def _get(self, text: Any, where: str) -> set[str]:
        path = parse_path(text)
        if path is None:
            raise _refused(f"{{'Get': '{text}'}}", where)
        if path.root == "Parameters":
            if path.name not in self._definition.parameters:
                raise _unparsable(f"'{text}' names an unknown parameter{where}.")
            return set()
        if path.root == "Execution":
            if path.name not in _EXECUTION:
                raise _refused(f"the execution variable '{path.name}'", where)
            return set()
        step = self._definition.steps.get(path.name)
        if step is None:
            raise _unparsable(f"'{text}' names the unknown step '{path.name}'{where}.")
        if step.type == "Condition":
            known = path.parts == ("Outcome",)
        elif step.type in _TARGETS:
            known = (
                len(path.parts) == 2 and path.parts[0] == "OutputParameters" and path.parts[1] in step.outputs
            )
        else:
            # Nobody ever reads a property of a step that fails.
            known = step.type in NOT_INTERPRETED or (
                step.type in CALLS
                and any(
                    self._shapes.has_path(operation, path.parts)
                    for operation in (CALLS[step.type].describe, CALLS[step.type].lists)
                    if operation is not None
                )
            )
        if not known:
            raise _unparsable(f"'{text}' is not a property of a {step.type} step{where}.")
        return {path.name}


def _check_cycles(steps: dict[str, Step]) -> None:
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> None:
        if name in trail:
            cycle = " -> ".join([*trail[trail.index(name) :], name])
            raise _unparsable(f"The steps depend on each other in a cycle: {cycle}.")
        if name in done:
            return
        for other in sorted(steps[name].needs):
            visit(other, [*trail, name])
        done.add(name)

    for name in steps:
        visit(name, [])
