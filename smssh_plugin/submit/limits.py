"""The service's limits that botocore does not check, and what it can't do at all: refused before submission.

Numbers: the constraints of the SageMaker service model in botocore 1.44.5 (`min`, `max`, `pattern` of the
shapes) and, where a comment says so, the API reference. botocore checks required members, types and minimums
only.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple

from ..errors import ExitStatus, SmsshError

__all__ = ["LIMITS", "Limits", "check_count", "check_environment", "refuse"]


class Limits(NamedTuple):
    """What one kind of request may hold.

    Attributes:
        call: what the request is called in messages.
        entries: environment entries.
        value: characters of one environment value.
        inputs: channels, processing inputs or additional model data sources; 0 where there are none.
        entry_point: items of the entry point; 0 where a request has no such field.
    """

    call: str
    entries: int
    value: int
    inputs: int
    entry_point: int


LIMITS: Mapping[str, Limits] = {
    "training": Limits("training job", 100, 512, 20, 100),
    "processing": Limits("processing job", 100, 256, 10, 100),
    "transform": Limits("transform job", 16, 10240, 0, 0),
    # The API reference also wants all of a container's environment within 32 KB; ours is a few hundred bytes.
    "model": Limits("model", 100, 1024, 5, 0),
    # Over all definitions of the tuning job together.
    "tuning": Limits("tuning job", 48, 512, 20, 0),
}


def refuse(where: str, problem: str, way_out: str | None, reference: str) -> SmsshError:
    """The error for a request that can't have SSH.

    Args:
        where: the step or request, as a person knows it.
        problem: what stands in the way, naming the field.
        way_out: what to do about it.
        reference: its kebab-case name.
    """
    return SmsshError(f"{where}: {problem}", hint=way_out, reference=reference, status=ExitStatus.USAGE)


def check_count(where: str, field: str, count: int, added: int, limit: int, thing: str) -> None:
    """Refuse what has too many entries once ours are in.

    Args:
        where: the step or request.
        field: the member of the request.
        count: entries, ours included.
        added: how many of them are ours.
        limit: what the service takes.
        thing: what the entries are, in the plural.

    Raises:
        SmsshError: there are too many.
    """
    if count > limit:
        raise refuse(
            where,
            f"{field} has {count - added} {thing} and SSH adds {added}; SageMaker takes {limit}",
            f"take {count - limit} out, or leave SSH off here (SSHOptions(enabled=False))",
            "too-many-" + thing.replace(" ", "-"),
        )


def check_environment(
    where: str, kind: str, field: str, environment: Mapping[str, Any], ours: Mapping[str, Any]
) -> None:
    """Refuse an environment that the service would, because of what was added to it.

    Args:
        where: the step or request.
        kind: the kind of request, a key of `LIMITS`.
        field: the member of the request that holds the environment.
        environment: all entries, ours included; values may be pipeline variables.
        ours: the entries that were added or lengthened.

    Raises:
        SmsshError: there are too many entries, or one of ours is too long.
    """
    limits = LIMITS[kind]
    check_count(where, field, len(environment), len(ours), limits.entries, "entries")
    for name, value in ours.items():
        if issubclass(type(value), str) and len(value) > limits.value:
            raise refuse(
                where,
                f"{field}.{name} would have {len(value)} characters; SageMaker takes {limits.value} "
                f"for a {limits.call}",
                "shorten it: for SMSSH_ROLE a role's name does as well as its ARN",
                "value-too-long",
            )
