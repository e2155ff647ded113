"""Why a step failed: what its container, its logs and SageMaker say, handed to `causes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..client.job_state import described_job
from ..errors import SmsshError
from . import logs, validate
from .causes.find import Facts, Finding, Log, find
from .causes.table import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..aws.session import AwsSession
    from .incidents import Step

__all__ = ["SURE", "of_hold", "of_step", "sentences"]

SURE = {
    "recorded": "recorded in the container",
    "parsed": "read from the log",
    "service": "said by SageMaker",
}
"""Where a chosen error is from, in words."""
_HOLDS = {
    "y": "",
    "part": "the request may have to change",
    "n": "a hold does not help",
}
_TIME_LIMITS = ("MaxRuntimeExceeded", "MaxWaitTimeExceeded")


def of_hold(report: dict[str, Any], log_tail: Sequence[str], more: Sequence[Log] = ()) -> Finding:
    """Why a held attempt failed.

    Args:
        report: what its container reported, as `validate.report` gives it.
        log_tail: the last lines of its log.
        more: the logs of its job's hosts, where they were read.
    """
    memory = report.get("memory")
    memory = memory if isinstance(memory, dict) else {}
    host = str(report.get("host") or "")
    here = [Log(host, [(None, line) for line in log_tail])]
    return find(
        Facts(
            error=str(report.get("error") or ""),
            traceback=str(report.get("traceback") or ""),
            thread=str(report.get("error_thread") or ""),
            exit_code=validate.whole(report.get("exit_code"), -255, 255),
            logs=more or here,
            code_dir=str(report.get("code_dir") or ""),
            oom_kills=validate.whole(memory.get("oom_kills"), 0, 1 << 31),
            peak_bytes=validate.whole(memory.get("peak_bytes"), 0, 1 << 60),
            limit_bytes=validate.whole(memory.get("limit_bytes"), 0, 1 << 60),
        )
    )


def of_step(aws: AwsSession, step: Step) -> Finding:
    """Why a step failed whose container is gone, or never was.

    Asks SageMaker for its job, and CloudWatch Logs for the last lines of each host; what may not be read is left out.
    """
    told = _described(aws, step)
    secondary = str(told.get("SecondaryStatus") or "")
    service = [
        secondary if secondary in _TIME_LIMITS else "",
        str(told.get("FailureReason") or ""),
        str(told.get("ExitMessage") or ""),
        step.failure_reason,
    ]
    found = logs.ends(aws, step.kind, step.job) if step.job else []
    return find(
        Facts(logs=[Log(host, events) for host, events in found], service=list(dict.fromkeys(service)))
    )


def _described(aws: AwsSession, step: Step) -> dict[str, Any]:
    if not step.job:
        return {}
    try:
        return described_job(aws, step.kind, step.job) or {}
    except SmsshError:  # what it says is an extra
        return {}


def sentences(found: Finding) -> list[str]:
    """What to say of a finding, for a person: one line each."""
    known = SURE.get(found.sure, "") if found.id != UNKNOWN.id else ""
    about = "; ".join(part for part in (known, found.place and f"at {found.place}") if part)
    said = [f"cause: {found.line}" + (f" ({about})" if about else "")]
    if found.advice:
        said.append("; ".join(part for part in (found.advice, _HOLDS.get(found.hold, "")) if part))
    return said
