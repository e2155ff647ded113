"""The pure transformer against requests that the service model itself makes up, with pipeline variables anywhere.

1,000 examples a property, over the kinds of requests, or as many as SMSSH_TEST_EXAMPLES says (`make test-properties`:
10,000).
"""

from __future__ import annotations

import functools
import json
import os
import re
from dataclasses import replace
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from smssh_plugin.errors import ExitStatus, SmsshError
from smssh_plugin.submit.request.add_ssh import Injection, add_ssh
from smssh_plugin.submit.warnings import Held, warnings_of

OPERATIONS = {
    "training": "CreateTrainingJob",
    "processing": "CreateProcessingJob",
    "transform": "CreateTransformJob",
    "model": "CreateModel",
    "tuning": "CreateHyperParameterTuningJob",
}
EXAMPLES = int(os.environ.get("SMSSH_TEST_EXAMPLES", "1000"))
PROPERTY = settings(
    max_examples=max(1, EXAMPLES // len(OPERATIONS)),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
BUNDLE = "s3://bucket/smssh/bundles/" + "a" * 64 + "/"
OTHER = "s3://bucket/smssh/bundles/" + "b" * 64 + "/"

# -------------------------------------------------------------------------------- pipeline variables


def _raise(*_: Any) -> Any:
    raise AssertionError("a pipeline variable was touched")


def _refuse(*_: Any) -> Any:
    raise TypeError("Pipeline variables do not support this operation")


OPERATORS = re.findall(
    r"\w+",
    "add and bool bytes call complex contains copy deepcopy delitem enter eq float floordiv format fspath ge getitem "
    "gt hash index int iter le len lt mod mul ne neg next or radd reduce reduce_ex repr reversed rmod setitem sizeof "
    "str sub truediv xor",
)
# Raises whatever is done to it: what it is may be asked of its type only.
Untouchable = type(
    "Untouchable",
    (),
    {**{f"__{name}__": _raise for name in OPERATORS}, "__getattribute__": _raise, "__setattr__": _raise},
)


class Liar:
    """As the SDKs have theirs: no text, no length and no hash, never equal to anything, and always true."""

    __str__ = __int__ = __float__ = __len__ = __iter__ = __contains__ = __add__ = __format__ = (
        __deepcopy__
    ) = _refuse
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return False

    def __bool__(self) -> bool:
        return True


OBJECTS = st.one_of(st.builds(Untouchable), st.builds(Liar))
REFERENCES = st.sampled_from(
    ["Parameters.Value", "Steps.Train.ModelArtifacts.S3ModelArtifacts", "Execution.PipelineExecutionId"]
).map(lambda name: {"Get": name})
DOCUMENTS = st.one_of(
    REFERENCES,
    st.lists(st.one_of(REFERENCES, st.just("text")), max_size=2).map(
        lambda values: {"Std:Join": {"On": "/", "Values": values}}
    ),
    REFERENCES.map(lambda path: {"Std:JsonGet": {"PropertyFile": path, "Path": "a.b"}}),
)
"""As a pipeline's definition has them."""

# -------------------------------------------------------------------------------- requests

SERVICE = botocore.session.get_session().get_service_model("sagemaker")

ODD = {"AlgorithmName", "ModelPackageName", "ServerlessJobConfig", "Containers", "TrainingJobDefinitions"}
"""Members that lead to refusals, each with a test of its own: in one example of eight only."""
ALWAYS = {"AlgorithmSpecification", "PrimaryContainer", "TrainingJobDefinition"}
"""Optional in the model, and the point of most requests."""
NAMES = ["A", "B", "PYTHONPATH", "SMSSH_ENABLE", "SMSSH_ROLE", "SMSSH_BUNDLE"]


def values(shape: Any, variables: Any, odd: bool, depth: int = 0) -> Any:
    """Values of a shape that botocore accepts; each may be a variable instead, if there are any."""
    kind, limits = shape.type_name, shape.metadata
    low = limits.get("min", 0)
    found: Any
    if kind == "structure":
        always = {*shape.required_members, *(ALWAYS & set(shape.members) if depth < 2 and not odd else ())}
        optional = {
            name: values(member, variables, odd, depth + 1)
            for name, member in (shape.members.items() if depth < 4 else ())
            if name not in always and (odd or name not in ODD)
        }
        if getattr(shape, "is_tagged_union", False):
            return st.sampled_from(sorted(optional)).flatmap(
                lambda name: st.fixed_dictionaries({name: optional[name]})
            )
        required = {name: values(shape.members[name], variables, odd, depth + 1) for name in sorted(always)}
        found = st.fixed_dictionaries(required, optional=optional)
    elif kind == "list":
        each = values(shape.member, variables, odd, depth + 1)
        found = st.lists(each, min_size=low, max_size=max(low, 2))
        if limits.get("max", 1000) <= 100:
            # Full, or nearly: copies of one element.
            sizes = st.integers(max(low, limits["max"] - 2), limits["max"])
            found = st.one_of(
                found, found, found, st.tuples(each, sizes).map(lambda pair: [pair[0]] * pair[1])
            )
    elif kind == "map":
        each = values(shape.value, variables, odd, depth + 1)
        found = st.dictionaries(st.sampled_from(NAMES), each, max_size=4)
        if limits.get("max", 1000) <= 100:
            sizes = st.integers(max(low, limits["max"] - 6), limits["max"])
            full = st.tuples(each, sizes).map(
                lambda pair: {f"V{number}": pair[0] for number in range(pair[1])}
            )
            found = mostly(found, full, 6)
    elif kind == "string":
        texts = [
            *shape.enum,
            "smssh",
            "x" * max(1, low),
            "s3://bucket/x",
            "/" * min(limits.get("max", 1), 2048),
        ]
        found = st.sampled_from([text for text in texts if len(text) >= low])
    elif kind == "boolean":
        found = st.booleans()
    elif kind in ("integer", "long"):
        found = st.just(max(1, low))
    elif kind in ("float", "double"):
        found = st.just(max(1.0, low))
    else:
        found = st.just("2026-01-01T00:00:00Z")
    if variables is None or depth == 0:
        return found
    # A whole member less often than a text or a number: then nothing can be added to it.
    return mostly(found, variables, 15 if kind in ("structure", "list", "map") else 4)


def mostly(usual: Any, other: Any, odds: int) -> Any:
    """One strategy, and in one of `odds` draws another; `st.one_of` gives both the same chance."""
    return st.integers(1, odds).flatmap(lambda number: other if number == odds else usual)


def shape_of(kind: str) -> Any:
    return SERVICE.operation_model(OPERATIONS[kind]).input_shape


@functools.cache
def requests_of(kind: str, variables: str | None) -> Any:
    """Requests of a kind, as botocore's service model has them."""
    of = {"objects": OBJECTS, "documents": DOCUMENTS, None: None}[variables]
    usual, odd = (values(shape_of(kind), of, odd) for odd in (False, True))
    return mostly(usual, odd, 8)


def injections(variables: Any) -> Any:
    role = st.one_of(st.none(), st.just("role"), *([] if variables is None else [variables]))
    return st.builds(
        Injection,
        bundle=st.just(BUNDLE),
        step=st.sampled_from([None, "Step", "S" * 64]),
        role=role,
        transport=st.sampled_from(["ssm", "ssm", "none", "native"]),
        launcher=st.sampled_from(["auto", "wrap", "sitecustomize", "chain", "bash_env", "baked", "baked"]),
        enable=st.one_of(st.just("1"), role.filter(lambda each: each is not None)),
        environment=st.dictionaries(
            st.sampled_from(["EXTRA", "B", "SMSSH_HOLD"]), role.filter(lambda each: each is not None)
        ),
        endpoints=st.booleans(),
        repacked=st.booleans(),
    )


# -------------------------------------------------------------------------------- what is compared


def frozen(value: Any) -> Any:
    """Something to compare containers by, with leaves by identity."""
    if type(value) is dict:
        return ("dict", tuple((name, frozen(each)) for name, each in value.items()))
    if type(value) is list:
        return ("list", tuple(frozen(each) for each in value))
    return id(value)


def changes(before: Any, after: Any, path: str = "") -> list[str]:
    """Where two requests differ: paths, with `+` for what was added; leaves are compared by identity."""
    if (
        type(before) is dict
        and len(before) == 1
        and not before.keys().isdisjoint(("Get", "Std:Join", "Std:JsonGet"))
    ):
        return [] if before is after else [path]
    if type(before) is dict and type(after) is dict:
        found = [f"{path}.{name} gone" for name in before if name not in after]
        for name, value in after.items():
            inner = f"{path}.{name}".lstrip(".")
            found += changes(before[name], value, inner) if name in before else [f"+{inner}"]
        return found
    if type(before) is list and type(after) is list:
        # Ours come last, but in an entry point.
        shift = len(after) - len(before) if path.endswith("ContainerEntrypoint") else 0
        found = []
        for index, value in enumerate(before):
            inner = f"{path}[{'*' if path.endswith('Definitions') else ''}]"
            found += (
                changes(value, after[index + shift], inner)
                if index + shift < len(after)
                else [f"{inner} gone"]
            )
        return found + [f"+{path}[]"] * (len(after) - len(before))
    return [] if before is after else [path]


ENVIRONMENT = r"Environment(\.(SMSSH_\w+|PYTHONPATH|BASH_ENV|SAGEMAKER_TRAINING_MODULE|EXTRA|B))?"
ENTRY_POINT = r"ContainerEntrypoint\[\]"
HOLDER = r"(TrainingJobDefinition\.|TrainingJobDefinitions\[\*\]\.)"
CONTAINER = r"(PrimaryContainer|Containers\[\])"
OURS = {
    "training": rf"InputDataConfig(\[\])?|{ENVIRONMENT}|AlgorithmSpecification\.{ENTRY_POINT}|RemoteDebugConfig",
    "processing": rf"ProcessingInputs(\[\])?|{ENVIRONMENT}|AppSpecification\.{ENTRY_POINT}",
    "transform": ENVIRONMENT,
    "model": rf"{CONTAINER}\.(AdditionalModelDataSources(\[\])?|{ENVIRONMENT})",
    "tuning": rf"{HOLDER}(InputDataConfig(\[\])?|{ENVIRONMENT})",
}
"""What may be added, by kind. Of what is there already, PYTHONPATH alone is changed."""


def violations(value: Any, shape: Any, path: str = "") -> set[str]:
    """What breaks the model's own limits, botocore's and those that it leaves to the service."""
    limits, found = shape.metadata, set()
    if shape.type_name == "structure":
        for name, each in value.items():
            found |= violations(each, shape.members[name], f"{path}.{name}")
        return found
    if shape.type_name == "list":
        for each in value:
            found |= violations(each, shape.member, path + "[]")
    elif shape.type_name == "map":
        for name, each in value.items():
            found |= violations(name, shape.key, f"{path}.{name}") | violations(
                each, shape.value, f"{path}.{name}"
            )
    elif shape.type_name == "string":
        pattern = compiled(limits.get("pattern", ""))
        if pattern is not None and not pattern.fullmatch(value):
            found.add(f"{path} pattern")
    else:
        return set()
    if len(value) > limits.get("max", len(value)):
        found.add(f"{path} max")
    return found


@functools.cache
def compiled(pattern: str) -> re.Pattern[str] | None:
    """A pattern of the model; None for those that Python has no words for (they are Java's)."""
    try:
        return re.compile(pattern) if pattern else None
    except re.error:
        return None


def attempt(kind: str, request: Any, injection: Injection) -> Any:
    """The changed request; None where it is refused, in our words."""
    try:
        return add_ssh(kind, request, injection)
    except SmsshError as error:
        refusal = error
    event(f"{kind}: {refusal.reference}")
    where = f"step {injection.step!r}: " if injection.step is not None else "the "
    assert refusal.message.startswith(where)
    assert refusal.reference != "error"
    assert refusal.status is ExitStatus.USAGE
    return None


# -------------------------------------------------------------------------------- the properties


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("variables", ["objects", "documents"])
@pytest.mark.parametrize("kind", OPERATIONS)
@settings(PROPERTY, max_examples=max(1, EXAMPLES // len(OPERATIONS) // 2))
@given(data=st.data())
def test_any_request_with_variables_anywhere_goes_through_or_is_refused(
    kind: str, variables: str, data: Any
) -> None:
    request = data.draw(requests_of(kind, variables))
    injection = data.draw(injections(OBJECTS if variables == "objects" else DOCUMENTS))
    before = frozen(request)
    changed = attempt(kind, request, injection)
    assert frozen(request) == before
    if changed is None:
        return
    for warning in warnings_of(kind, request, changed, injection, Held(60, 60)):
        assert isinstance(warning.text, str)
    assert frozen(request) == before
    found = changes(request, changed)
    for change in found:
        assert re.fullmatch(rf"\+?({OURS[kind]})", change), change
        if not change.startswith("+"):
            assert change.endswith("PYTHONPATH"), change
    for again in (injection, replace(injection, bundle=OTHER)):
        assert frozen(add_ssh(kind, changed, again)) == frozen(changed)
    if variables == "documents":
        json.dumps(changed)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", OPERATIONS)
@PROPERTY
@given(data=st.data())
def test_what_the_service_model_accepts_it_accepts_with_ssh(kind: str, data: Any) -> None:
    """botocore's own validation, and the limits of the model that botocore leaves to the service."""
    shape = shape_of(kind)
    request = data.draw(requests_of(kind, None))
    validator = ParamValidator()
    report = validator.validate(request, shape)
    assert not report.has_errors(), report.generate_report()
    changed = attempt(kind, request, data.draw(injections(None)))
    if changed is None:
        return
    report = validator.validate(changed, shape)
    assert not report.has_errors(), report.generate_report()
    assert violations(changed, shape) <= violations(request, shape)
