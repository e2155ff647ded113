"""The service's limits that botocore does not check, and what it can't do at all: refused before submission.

Numbers: the constraints of the SageMaker service model in botocore 1.44.5 (`min`, `max`, `pattern` of the
shapes) and, where a comment says so, the API reference. botocore checks required members, types and minimums
only.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple

from ...errors import ExitStatus, SmsshError

__all__ = [
    "DEFINITION",
    "LIMITS",
    "OFF",
    "Limits",
    "check_count",
    "check_definition",
    "check_environment",
    "check_length",
    "refuse",
]

DEFINITION = 1_048_576
"""Characters of a pipeline definition in a request."""
URI = 1024
"""Characters of an address in S3."""
ENVIRONMENT = 32 * 1024
"""Bytes of all the variables of a model's container: API reference, CreateModel."""


class Limits(NamedTuple):
    """What one kind of request may hold.

    Attributes:
        call: what the request is called in messages.
        entries: environment entries.
        name: characters of the name of an environment variable.
        value: characters of one environment value.
        inputs: channels, processing inputs or additional model data sources; 0 if it has none.
        entry_point: items of the entry point; 0 where a request has no such field.
    """

    call: str
    entries: int
    name: int
    value: int
    inputs: int
    entry_point: int


LIMITS: Mapping[str, Limits] = {
    "training": Limits("training job", 100, 512, 512, 20, 100),
    "processing": Limits("processing job", 100, 256, 256, 10, 100),
    "transform": Limits("transform job", 16, 1024, 10240, 0, 0),
    "model": Limits("model", 100, 1024, 1024, 5, 0),
    # Over all definitions of the tuning job together.
    "tuning": Limits("tuning job", 48, 512, 512, 20, 0),
}


OFF = "leave SSH off here (SSHOptions(enabled=False))"


def refuse(where: str, problem: str, way_out: str | None, reference: str) -> SmsshError:
    """The error for a request that can't have SSH.

    Args:
        where: the step or request, as a person knows it.
        problem: what stands in the way, naming the field.
        way_out: what to do about it.
        reference: its kebab-case name.
    """
    return SmsshError(f"{where}: {problem}", hint=way_out, reference=reference, status=ExitStatus.USAGE)


def check_count(
    where: str, field: str, count: int, added: int, limit: int, thing: str, instead: str = ""
) -> None:
    """Refuse what has too many entries once ours are in.

    Args:
        where: the step or request.
        field: the member of the request.
        count: entries, ours included.
        added: how many of them are ours.
        limit: what the service takes.
        thing: what the entries are, in the plural.
        instead: what else can be done than taking some out.

    Raises:
        SmsshError: there are too many.
    """
    if count > limit:
        raise refuse(
            where,
            f"{field} has {count - added} {thing} and SSH adds {added}; SageMaker takes {limit}",
            ", ".join(filter(None, [f"take {count - limit} out", instead, f"or {OFF}"])),
            "too-many-" + thing.replace(" ", "-"),
        )


def check_environment(
    where: str, kind: str, field: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> None:
    """Refuse an environment that the service would, because of what was added to it.

    Args:
        where: the step or request.
        kind: the kind of request, a key of `LIMITS`.
        field: the member of the request that holds the environment.
        before: the environment as it was; values may be pipeline variables.
        after: the environment with ours in it.

    Raises:
        SmsshError: there are too many entries, or one of ours is too long, by its name or its value.
    """
    limits = LIMITS[kind]
    check_count(where, field, len(after), len(after) - len(before), limits.entries, "entries")
    for name, value in after.items():
        if name not in before and len(name) > limits.name:
            raise refuse(
                where,
                f"{field}.{name[:20]}... would have a name of {len(name)} characters; SageMaker takes {limits.name} "
                f"for a {limits.call}",
                "give the variable a shorter name (SSHOptions(environment=...))",
                "name-too-long",
            )
        ours = name not in before or before[name] is not value
        if ours and issubclass(type(value), str) and len(value) > limits.value:
            raise refuse(
                where,
                f"{field}.{name} would have {len(value)} characters; SageMaker takes {limits.value} "
                f"for a {limits.call}",
                _shorter(name, limits),
                "value-too-long",
            )
    if kind == "model":
        total = _bytes(after)
        if total > ENVIRONMENT >= _bytes(before):
            raise refuse(
                where,
                f"{field} would have {total} bytes in all; SageMaker takes {ENVIRONMENT} for a container of a model",
                f"make it shorter, or {OFF}",
                "environment-too-large",
            )


def _bytes(environment: Mapping[str, Any]) -> int:
    texts = [text for pair in environment.items() for text in pair if issubclass(type(text), str)]
    return sum(len(text.encode()) for text in texts)


def _shorter(name: str, limits: Limits) -> str:
    if name == "PYTHONPATH":
        named = (
            ", or name a ContainerEntrypoint, which is wrapped instead"
            if limits.entry_point
            else f", or {OFF}"
        )
        return f"make the request's own PYTHONPATH shorter{named}"
    return _SHORTER.get(name, f"make it shorter, or {OFF}")


_SHORTER = {
    "SMSSH_ROLE": "a role's name does as well as its ARN",
    "SMSSH_STEP": "give the step a shorter name",
    "SMSSH_AUTHORIZED_KEYS": "let fewer keys in (Ed25519 keys are the shortest), keep them where the job can read them "
    "(authorized_keys=('ssm:PARAMETER',) or 's3://bucket/key'), or let the job have a bundle, which takes any number",
}


def check_length(where: str, field: str, uri: str) -> None:
    """Refuse an address in S3 that is longer than the service takes.

    Raises:
        SmsshError: it is.
    """
    if len(uri) > URI:
        raise refuse(
            where,
            f"{field} would have {len(uri)} characters; SageMaker takes {URI}",
            "name a shorter place in SSHOptions(bundle_prefix='s3://bucket/prefix')",
            "address-too-long",
        )


def check_definition(pipeline: str, before: str, after: str) -> None:
    """Refuse a pipeline definition that is too long for a request, because of what was added to it.

    Args:
        pipeline: the pipeline's name.
        before: the definition as it was.
        after: the definition with SSH in it.

    Raises:
        SmsshError: it is too long now.
    """
    if len(after) > DEFINITION >= len(before):
        raise refuse(
            f"pipeline {pipeline!r}",
            f"PipelineDefinition has {len(before)} characters, and {len(after)} with SSH; SageMaker takes {DEFINITION}",
            "choose fewer steps (steps=...), or put the definition in S3 (PipelineDefinitionS3Location)",
            "definition-too-long",
        )
