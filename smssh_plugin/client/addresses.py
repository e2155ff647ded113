"""Addresses of hosts, as `ssh` takes them.

`[<host>.]<job>.<kind>.sagemaker`, and `[<host>.]<step>[.<execution>].<pipeline>.pipeline.sagemaker`.
Neither jobs, steps, executions nor pipelines may have a dot in their name (service limits), so the labels are
never ambiguous, except for one case: a step that is itself called `algo-1` and is named with its execution reads
as a host. Name the host then.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from ..errors import ExitStatus, SmsshError

__all__ = ["DEFAULT_HOST", "KINDS", "Address", "JobAddress", "StepAddress", "parse"]

DEFAULT_HOST = "algo-1"
DOMAIN = "sagemaker"
PIPELINE = "pipeline"
KINDS = ("training", "processing", "transform", "inference", "notebook", "studio")

_HOST = re.compile(r"algo-[0-9]+\Z")
# The service's own patterns: job, pipeline and step names; 64 covers the longest of them but pipelines (256).
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,255})\Z")
_FORM = "[<host>.]<job>.<kind>.sagemaker or [<host>.]<step>[.<execution>].<pipeline>.pipeline.sagemaker"


@dataclass(frozen=True)
class JobAddress:
    """One host of a job.

    Attributes:
        host: `algo-1`, `algo-2`, ...; None where the address named none.
        job: the name of the job.
        kind: one of `KINDS`.
    """

    host: str | None
    job: str
    kind: str

    def __str__(self) -> str:
        return ".".join(part for part in (self.host, self.job, self.kind, DOMAIN) if part)


@dataclass(frozen=True)
class StepAddress:
    """One host of the job of a pipeline step.

    Attributes:
        host: `algo-1`, `algo-2`, ...; None where the address named none.
        step: the name of the step.
        execution: the id of the pipeline execution (the last part of its ARN); None: the latest one.
        pipeline: the name of the pipeline.
    """

    host: str | None
    step: str
    execution: str | None
    pipeline: str

    def __str__(self) -> str:
        return ".".join(
            part for part in (self.host, self.step, self.execution, self.pipeline, PIPELINE, DOMAIN) if part
        )


Address: TypeAlias = JobAddress | StepAddress


def parse(text: str) -> Address:
    """Read an address; a `user@` in front is the caller's to cut off.

    Raises:
        SmsshError: with what exactly is wrong; status USAGE.
    """
    labels = text.strip().removesuffix(".").split(".")
    if len(labels) < 3 or labels[-1].lower() != DOMAIN:
        raise _wrong(text, "it does not end in .<kind>.sagemaker")
    kind = labels[-2].lower()
    names = labels[:-2]
    for name in names:
        if not _NAME.match(name):
            raise _wrong(text, f"{name!r} is not a name of a host, job, step, execution or pipeline")
    if kind == PIPELINE:
        return _step(text, names)
    if kind not in KINDS:
        raise _wrong(text, f"there is no kind {labels[-2]!r}; kinds are {', '.join((*KINDS, PIPELINE))}")
    if len(names) > 2:
        raise _wrong(text, f"{len(names)} names stand before the kind; at most a host and a job can")
    if len(names) == 2:
        host, job = names
        if not _HOST.match(host):
            raise _wrong(text, f"{host!r} is not a host; hosts are algo-1, algo-2, ...")
        return JobAddress(host, job, kind)
    return JobAddress(None, names[0], kind)


def _step(text: str, names: list[str]) -> StepAddress:
    """The pipeline form, from the labels before `.pipeline.sagemaker`."""
    host = names.pop(0) if len(names) > 2 and _HOST.match(names[0]) else None
    if len(names) == 2:
        step, pipeline = names
        return StepAddress(host, step, None, pipeline)
    if len(names) == 3:
        step, execution, pipeline = names
        return StepAddress(host, step, execution, pipeline)
    if len(names) == 1:
        raise _wrong(text, "a step and a pipeline must stand before .pipeline.sagemaker")
    if host is None and len(names) == 4:
        raise _wrong(text, f"{names[0]!r} is not a host; hosts are algo-1, algo-2, ...")
    raise _wrong(text, "too many names stand before .pipeline.sagemaker")


def _wrong(text: str, why: str) -> SmsshError:
    return SmsshError(
        f"not an address: {text!r}: {why}",
        hint=f"write it as {_FORM}",
        reference="bad-address",
        status=ExitStatus.USAGE,
    )
