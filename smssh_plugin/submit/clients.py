"""`enable`: SSH for whatever a boto3 session or client of SageMaker creates.

For `ModelTrainer.train()`, `Estimator.fit()`, `Processor.run()` and plain boto3, outside pipelines.
"""

from __future__ import annotations

import functools
from typing import Any, Mapping

from ..errors import ExitStatus, SmsshError
from .options import SSHOptions
from .steps import Attachment, inject

__all__ = ["enable"]

OPERATIONS: Mapping[str, str] = {
    "CreateTrainingJob": "training",
    "CreateProcessingJob": "processing",
    "CreateTransformJob": "transform",
    "CreateModel": "model",
    "CreateHyperParameterTuningJob": "tuning",
}


def enable(
    target: Any, options: SSHOptions | None = None, *, boto_session: Any = None, **changes: Any
) -> Any:
    """Let the jobs that a boto3 session or client creates from now on be entered over SSH.

    A request that can't have SSH is sent as it is, with a warning. A second call replaces the options of the
    first.

    Args:
        target: a boto3 session (all SageMaker clients that it makes from now on), or a client of SageMaker.
        options: what is asked for; see `SSHOptions`.
        boto_session: the boto3 session that stores the bundle; by default the target, or boto3's default
            session in the client's region.
        changes: single options, which go before `options`.

    Returns:
        The target.

    Raises:
        SmsshError: the target is neither, or an option is wrong.
    """
    wanted = (options if options is not None else SSHOptions()).merged(changes)
    meta = getattr(target, "meta", None)
    events: Any = getattr(meta, "events", None) or getattr(target, "events", None)
    if not callable(getattr(events, "register", None)):
        raise SmsshError(
            f"enable takes a boto3 session or a SageMaker client, not a {type(target).__qualname__}",
            hint="steps and pipelines are for with_ssh",
            reference="not-a-client",
            status=ExitStatus.USAGE,
        )
    if boto_session is None:
        boto_session = _session_for(target, meta)
    attachment = Attachment(wanted, named=False, session=boto_session)
    for operation, kind in OPERATIONS.items():
        event, name = f"provide-client-params.sagemaker.{operation}", f"smssh-{operation}"
        events.unregister(event, unique_id=name)
        events.register(event, functools.partial(_on_call, kind, attachment), unique_id=name)
    return target


def _session_for(target: Any, meta: Any) -> Any:
    import boto3

    if isinstance(target, boto3.Session):
        return target
    return boto3.Session(region_name=getattr(meta, "region_name", None))


def _on_call(kind: str, attachment: Attachment, params: Any, **_: Any) -> None:
    """Change the parameters of a call in place: the dict is botocore's own, and other handlers may follow."""
    changed = inject(kind, None, dict(params), attachment, lambda: attachment.session)
    params.clear()
    params.update(changed)
