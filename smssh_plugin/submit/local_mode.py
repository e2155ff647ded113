"""The SageMaker SDK's local mode: jobs in Docker on this machine, which are left as they are.

Such a job reads no bundle and becomes no managed node, so nothing is added to its request, and one warning says so. It
is told by its session, of SDK v2 or v3: `LocalSession`, both kinds of `LocalPipelineSession`, their clients.
"""

from __future__ import annotations

import sys
from typing import Any

from .warnings import RequestWarning, say

__all__ = ["is_local", "is_local_step", "warn"]

_COMPILERS = ("sagemaker.workflow.utilities", "sagemaker.core.workflow.utilities")
"""The modules of SDK v2 and v3 that know which pipeline is being compiled."""

_EXECUTORS = (
    *("sagemaker.local.entities", "sagemaker.local.pipeline"),
    *("sagemaker.mlops.local.pipeline_entities", "sagemaker.mlops.local.pipeline"),
)
"""The modules of SDK v2 and v3 that run pipelines in local mode."""

_LOCAL = RequestWarning(
    "local mode of the SageMaker SDK gets no SSH",
    ": its jobs run in Docker on this machine as they would without smssh; `docker exec -it CONTAINER sh` enters one, "
    "and jobs of the local emulator (`smssh local`) can be entered as on AWS",
    each=False,
)


def is_local(target: Any) -> bool:
    """Whether something is a session of local mode, or the client of one."""
    return any(
        getattr(each, "local_mode", False) is True
        for each in (target, getattr(target, "sagemaker_session", None))
    )


def is_local_step(own: Any, fallback: Any) -> bool:
    """Whether a step whose request is being made is going to run in local mode.

    What makes the request decides, if it is known: local mode, or the pipeline that is being compiled. A person may
    look at the request of a step, too; then the sessions decide.

    Args:
        own: the session of what the step runs; None where it is not known.
        fallback: the session of the pipeline that was decorated; None where the step itself was.
    """
    if _executing():
        return True
    compiling = _compiling()
    if compiling is not None:
        return is_local(compiling)
    return is_local(own) or is_local(fallback)


def _compiling() -> Any:
    """The session of the pipeline that is being compiled; None if no pipeline is."""
    for name in _COMPILERS:
        context = getattr(sys.modules.get(name), "_pipeline_config", None)
        sagemaker_session = getattr(context, "sagemaker_session", None)
        if sagemaker_session is not None:
            return sagemaker_session
    return None


def _executing() -> bool:
    """Whether local mode asks for the request: it does so whatever session the step has, or its pipeline."""
    if not any(name in sys.modules for name in _EXECUTORS):
        return False
    frame: Any = sys._getframe()  # noqa: SLF001 - as `warnings` finds its callers
    while frame is not None and frame.f_globals.get("__name__") not in _EXECUTORS:
        frame = frame.f_back
    return frame is not None


def warn(subject: str) -> None:
    """Warn that something stays without SSH; once in a process."""
    say(subject, [_LOCAL])
