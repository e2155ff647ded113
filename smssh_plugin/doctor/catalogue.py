"""All checks, by subject; and those that a person asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ExitStatus, SmsshError
from . import account, identity, job, laptop, network, permissions, pipeline

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .checks import Check

__all__ = ["SUBJECTS", "chosen"]

SUBJECTS: dict[str, tuple[Check, ...]] = {
    "laptop": laptop.CHECKS,
    "identity": identity.CHECKS,
    "permissions": permissions.CHECKS,
    "account": account.CHECKS,
    "network": network.CHECKS,
    "job": job.CHECKS,
    "pipeline": pipeline.CHECKS,
}
"""In the order in which they are shown."""
NAMED = {
    "network": "--job NAME, --pipeline NAME or --subnet ID",
    "job": "--job NAME",
    "pipeline": "--pipeline NAME",
}
"""Subjects that have to be named, and how."""


def chosen(names: Iterable[str], given: Iterable[str], others: Iterable[Check] = ()) -> list[Check]:
    """The checks that were asked for, and those that they come after.

    Args:
        names: ids of checks, or subjects; none: all subjects that need no name, and those that were given one.
        given: what was given a name: job, pipeline or subnet.
        others: checks of plugins; ours come before one with the same id.

    Raises:
        SmsshError: USAGE: there is no such check, or its subject was given no name.
    """
    every = {check.id: check for checks in SUBJECTS.values() for check in checks}
    for check in others:
        every.setdefault(check.id, check)
    named = frozenset(given)
    if named:
        named |= {"network"}
    wanted: set[str] = set()
    subjects = dict.fromkeys(check.subject for check in every.values())
    asked = list(names) or [subject for subject in subjects if subject not in NAMED or subject in named]
    for name in asked:
        found = {each for each in every if each == name or every[each].subject == name}
        if not found:
            raise SmsshError(
                f"there is no check and no subject {name!r}",
                hint="run `smssh doctor --list`, which shows them",
                reference="no-check",
                status=ExitStatus.USAGE,
            )
        subject = name.partition(".")[0]
        if subject in NAMED and subject not in named:
            raise SmsshError(
                f"{name} looks at a {subject}, and none was named",
                hint=f"add {NAMED[subject]}",
                reference="nothing-to-check",
                status=ExitStatus.USAGE,
            )
        wanted |= found
    while more := {each for name in wanted for each in every[name].after if each in every} - wanted:
        wanted |= more
    return [check for check in every.values() if check.id in wanted]
