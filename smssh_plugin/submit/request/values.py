"""What a part of a request is, told without touching it: any leaf may be a pipeline variable.

isinstance() asks a value for its __class__; type() asks nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Sequence

if TYPE_CHECKING:
    from typing import TypeGuard

__all__ = ["at", "is_list", "is_map", "is_text"]

_VARIABLES = frozenset({"Std:Join", "Std:JsonGet"})
_REFERENCE = re.compile(r"[A-Za-z]+\.")


def is_text(value: Any) -> TypeGuard[str]:
    """Whether it is a text."""
    return issubclass(type(value), str)


def is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    """Whether it is a list or a tuple."""
    return issubclass(type(value), (list, tuple))


def is_map(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether it is a dict of the request's, and no pipeline variable of a definition."""
    if not issubclass(type(value), dict):
        return False
    if len(value) != 1:
        return True
    reference = value.get("Get")
    return _VARIABLES.isdisjoint(value) and not (is_text(reference) and _REFERENCE.match(reference))


def at(value: Any, *names: str) -> Any:
    """What lies deep in a request; None where something on the way is missing or a pipeline variable."""
    for name in names:
        if not is_map(value):
            return None
        value = value.get(name)
    return value
