"""AWS's own IAM policies as moto has them, made when something first looks at them.

At the first request of any service, moto makes an IAM backend for each partition, each with all 1,500 policies: two
seconds of a processor for what few look at.
"""

from __future__ import annotations

import threading
from typing import Any

from moto.core.config import default_user_config
from moto.iam.models import IAMBackend

__all__ = ["provide"]

_MADE = "_smssh_aws_policies"
_ALL = "_smssh_policies"

_make = IAMBackend._init_aws_policies  # noqa: SLF001 - moto has no public way to it
_lock = threading.RLock()


def provide() -> None:
    """Have AWS's own policies in all accounts by name, as on AWS; for the whole process."""
    default_user_config["iam"]["load_aws_managed_policies"] = True
    # What moto's constructor assigns to the two attributes is empty, and the properties take none of it.
    setattr(IAMBackend, "_init_aws_policies", lambda _: [])  # noqa: B010 - mypy refuses the assignment
    setattr(IAMBackend, "_init_managed_policies", lambda _: {})  # noqa: B010
    setattr(IAMBackend, "aws_managed_policies", property(_aws_policies, _ignore))  # noqa: B010
    setattr(IAMBackend, "managed_policies", property(_policies, _ignore))  # noqa: B010


def _ignore(backend: IAMBackend, value: Any) -> None:
    del backend, value


def _aws_policies(backend: IAMBackend) -> list[Any]:
    # Requests have threads of their own.
    with _lock:
        held = vars(backend)  # which moto empties at a reset
        if _MADE not in held:
            held[_MADE] = _make(backend)
        made: list[Any] = held[_MADE]
        return made


def _policies(backend: IAMBackend) -> dict[str, Any]:
    with _lock:
        held = vars(backend)
        if _ALL not in held:
            held[_ALL] = {policy.arn: policy for policy in _aws_policies(backend)}
        policies: dict[str, Any] = held[_ALL]
        return policies
