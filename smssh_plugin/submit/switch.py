"""The switch from outside: `SSHOptions(enabled=...)` and `SMSSH_ENABLE` of the submitting process.

What a bool or an environment variable turns off is not there at all: the request is the one without SSH, byte for byte.
A pipeline parameter has its value only when an execution starts, when the request has long been written: it can be the
value of SMSSH_ENABLE in the job, and nothing else of a request can depend on it (a pipeline definition has no way to
leave out a channel or an item of an entry point).
"""

from __future__ import annotations

import os
import re
from typing import Any, Mapping

from .. import settings
from ..errors import ExitStatus, SmsshError

__all__ = ["ENABLE", "as_json", "as_text", "is_on", "is_variable", "problem", "switched_off"]

ENABLE = "SMSSH_ENABLE"
_NAME = re.compile(r"[A-Z_][A-Z0-9_]*\Z")
_TYPES = ("String", "Integer")


def is_variable(value: Any) -> bool:
    """Whether it is a pipeline variable of SDK v2 or v3: they all have an expression."""
    return isinstance(getattr(type(value), "expr", None), property)


def problem(enabled: Any) -> str | None:
    """What is wrong with a value of `SSHOptions.enabled`; None where nothing is."""
    if is_variable(enabled):
        return _problem_of_parameter(enabled)
    if enabled is None or isinstance(enabled, bool) or (isinstance(enabled, str) and _NAME.match(enabled)):
        return None
    return f"is {enabled!r}, not True, False, None, an environment variable's name in capitals, or a pipeline parameter"


def _problem_of_parameter(parameter: Any) -> str | None:
    kind = getattr(parameter, "parameter_type", None)
    if kind is None:
        return None  # a step's property, or a function of some: nobody knows yet what it will be
    kind = str(getattr(kind, "value", kind))
    if kind not in _TYPES:
        return (
            f"is the {kind} parameter {parameter.name!r}, which would reach the job as another text than 1 or 0; "
            f"use ParameterString({parameter.name!r}, default_value='0', enum_values=['0', '1'])"
        )
    default = getattr(parameter, "default_value", None)
    if default is not None and str(default) not in ("0", "1"):
        return f"is the parameter {parameter.name!r}, whose default is {default!r}; a job understands 1 and 0"
    return None


def is_on(enabled: Any) -> bool:
    """Whether requests are changed, in this process and now.

    Raises:
        SmsshError: an environment variable that decides is neither 1 nor 0.
    """
    if enabled is False or switched_off():
        return False
    return _flag(enabled) if isinstance(enabled, str) else True


def switched_off() -> bool:
    """Whether `SMSSH_ENABLE=0` in the submitting process turns every `with_ssh` and `enable` off.

    Raises:
        SmsshError: the variable is neither 1 nor 0.
    """
    return bool(os.environ.get(ENABLE, "").strip()) and not _flag(ENABLE)


def _flag(name: str) -> bool:
    """The environment variable as a flag; not set is off."""
    try:
        return settings.load({ENABLE: os.environ.get(name, "")}).enable
    except SmsshError:
        raise SmsshError(
            f"{name} is {os.environ[name]!r}, and turns SSH on with 1 and off with 0",
            reference="bad-setting",
            status=ExitStatus.USAGE,
        ) from None


def as_text(value: Any) -> Any:
    """A pipeline variable as one that is text when the pipeline runs: environments hold nothing else."""
    return value.to_string() if is_variable(value) else value


def as_json(value: Any) -> Any:
    """A pipeline variable as a pipeline definition has it; anything else as it is."""
    expression: Mapping[str, Any] = value.expr if is_variable(value) else value
    return expression
