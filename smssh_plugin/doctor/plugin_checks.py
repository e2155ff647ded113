"""Checks of plugins (the hook `smssh_checks`), as ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..plugins import Plugins
from .checks import Check, Finding, Outcome

if TYPE_CHECKING:
    from .case import Case

__all__ = ["plugin_checks"]

_ID = re.compile(r"[a-z0-9-]+\.[a-z0-9-]+")
_TEXTS = ("fix", "who")


def plugin_checks(plugins: Plugins | None = None) -> list[Check]:
    """The checks of installed plugins; one without a usable id is a check that crashes, which names it.

    Args:
        plugins: the plugins; by default those that are installed.
    """
    found = []
    for each in (Plugins() if plugins is None else plugins).checks():
        name = getattr(each, "id", None)
        kind = f"{type(each).__module__}.{type(each).__qualname__}"
        usable = isinstance(name, str) and _ID.fullmatch(name) is not None
        found.append(
            Check(
                name if isinstance(name, str) and usable else f"plugin.{type(each).__name__.lower()}",
                str(getattr(each, "summary", "") or f"a check of {kind}"),
                partial(_run, each, kind, usable),
                tuple(map(str, getattr(each, "after", ()))),
            )
        )
    return found


def _run(check: Any, kind: str, usable: bool, case: Case) -> Finding:
    """What a plugin's check finds.

    Raises:
        TypeError: it is not what the hook asks for.
    """
    if not usable:
        raise TypeError(f"{kind} has no id of the form SUBJECT.NAME, in lower case")
    answer = check.run(case.aws)
    if not isinstance(answer, Mapping):
        raise TypeError(f"{kind}.run returned a {type(answer).__name__}, not a mapping")
    outcome = Outcome(answer.get("outcome"))
    fix, who = (str(answer.get(name) or "") for name in _TEXTS)
    if outcome is Outcome.PROBLEM and not fix:
        raise TypeError(f"{kind}.run returned a problem without `fix`")
    statement = answer.get("statement")
    return Finding(
        outcome,
        str(answer.get("message") or ""),
        fix,
        who or ("you" if fix else ""),
        dict(statement) if isinstance(statement, Mapping) else None,
        tuple(map(str, answer.get("details") or ())),
    )
