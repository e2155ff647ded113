"""What runs have made in the account: found by the names and tags of their roles, and removed.

The same code ends a run and what a killed run left. Whatever a run makes has one of its roles, or stands for the one
of its job, and a role is made before what has it and removed after that. So nothing is lost, whichever call a run is
killed at.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ..errors import SmsshError
from ..setup.marks import tags_of
from . import job
from .names import END, PATH, PREFIX, Run, run_of_role
from .place import PAUSE_SECONDS
from .running import Mark, ended

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..setup.account import Account
    from .place import Place

__all__ = ["Remains", "left_by_others", "remove"]

_SECONDS = re.compile(r"[0-9]{1,10}")
_FOUND_BY = ("job", "node")
"""The roles by which the rest is found."""


@dataclass(frozen=True)
class Remains:
    """What a run left.

    Attributes:
        run: the run.
        roles: the names of its roles that are there.
        end: when it is over for certain, in seconds since the epoch.
        here: whether what has the roles is in the region of the calls: only from there can it be removed.
    """

    run: Run
    roles: tuple[str, ...]
    end: float
    here: bool

    @property
    def stale(self) -> bool:
        """Whether the run is over: its time is, or it was one of this machine and its process is no more."""
        return time.time() > self.end or ended(self.run)


def left_by_others(account: Account) -> list[Remains]:
    """What runs that are not this one have in the account, stale or not.

    Raises:
        SmsshError: the roles cannot be listed or read.
    """
    found: dict[Run, tuple[list[str], float]] = {}
    for each in account.pages("iam", "list_roles", "Roles", MaxItems=1000):
        name = str(each["RoleName"])
        if not name.startswith(PREFIX):
            continue
        role = account.find("iam", "get_role", RoleName=name)
        tags = {} if role is None else tags_of(role["Role"])
        run = run_of_role(name, tags)
        if run is not None:
            roles, end = found.setdefault(run, ([], 0.0))
            roles.append(name)
            said = tags.get(END, "")
            found[run] = (roles, max(end, float(said) if _SECONDS.fullmatch(said) else 0.0))
    return [
        Remains(run, tuple(roles), end, here=run.region == account.aws.region)
        for run, (roles, end) in sorted(found.items(), key=lambda each: each[0].id)
    ]


def remove(place: Place, roles: Sequence[str], progress: Callable[[str], None]) -> None:
    """Remove what the run of a place has: its job, activations, nodes, its bucket, and then its roles.

    The rest is removed even if one of them cannot be, except the roles of jobs and of nodes: the others are found by
    them. The job is the first, because it may make activations as long as it runs.

    Args:
        place: the account and the run; what it knows is removed, too, though a listing does not show it yet.
        roles: the names of the roles that are there, or may be.
        progress: called with each thing that is removed.

    Raises:
        SmsshError: something could not be removed; the next run does it.
    """
    place.ends = True
    errors: list[SmsshError] = []

    def attempt(what: str, action: Callable[[], object]) -> None:
        try:
            action()
        except SmsshError as error:
            errors.append(error)
        else:
            progress(what)

    if place.pending:
        place.sleep(PAUSE_SECONDS)  # until a listing has what no answer has named
    has_job = place.run.roles["job"] in roles
    if has_job:
        attempt("the job, if there was one", partial(job.end, place))
    if roles:
        for activation in dict.fromkeys([*place.activations, *_ids(place, roles, errors, nodes=False)]):
            attempt("an activation", partial(place.end_activation, activation))
        for node in dict.fromkeys(
            [*place.nodes, *([place.host] if place.host else []), *_ids(place, roles, errors, nodes=True)]
        ):
            attempt("the node", partial(place.end_node, node))
    if has_job:
        attempt("the bucket", partial(job.remove_bucket, place))
    for kind, name in place.run.roles.items():
        if name in roles and not (kind in _FOUND_BY and errors):
            attempt(f"the role {name}", partial(place.end_role, name))
    if errors:
        raise errors[0]
    Mark(place.run).remove()


def _ids(place: Place, roles: Sequence[str], errors: list[SmsshError], *, nodes: bool) -> list[str]:
    """The activations or nodes that a listing has of some roles; a role with a path is looked for with and without."""
    values = [*roles, *(f"{PATH}{each}"[1:] for each in roles)]
    try:
        if nodes:
            return [str(each["InstanceId"]) for each in place.found("IamRole", values)]
        return [str(each["ActivationId"]) for each in place.activations_of(values)]
    except SmsshError as error:
        errors.append(error)
        return []
