"""What a run makes in an account is called, and how a later run knows it again.

Roles carry the tags. An activation has no room for them (the policy that is tried allows only the keys of a job's
host), but every activation and node of a run has one of its roles: they are found by it. A bucket and a job have the
name of the run, and are looked for if it has a role for jobs.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..setup.owners import TAG

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "END",
    "JOB_SECONDS",
    "MADE",
    "PATH",
    "PREFIX",
    "REGION",
    "RUN",
    "RUN_SECONDS",
    "Run",
    "run_of_role",
]

PREFIX = "smssh-live-"
PATH = "/smssh-live/"
"""Of the role that has one."""
MADE = {"smssh": "live"}
"""On each role that a run makes."""
RUN = "SMSSHLive"
"""On each role: the id of its run."""
END = "SMSSHLiveEnd"
"""On each role: when its run is over for certain, in seconds since the epoch."""
REGION = "SMSSHLiveRegion"
"""On each role: the region of its run. Roles are in every region, what has them is in that one."""
RUN_SECONDS = 900
"""The longest that a run tries things. What it allows in IAM ends with that, whatever becomes of the run."""
JOB_SECONDS = 2700
"""The same for a run with a job, which takes some minutes to start."""
_REMOVAL_SECONDS = 600
_ID = re.compile(r"[0-9a-f]{12}", re.ASCII)
_ROLES = ("path", "test", "job", "node")
"""The roles of a run, in the order in which they are removed: its job and its nodes are found by the last two."""


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        id: hexadecimal digits.
        region: where its activations and nodes are.
        until: the end of its trials, in seconds since the epoch; 0 for the run of another process.
        seconds: how long that is from its beginning.
    """

    id: str
    region: str
    until: int = 0
    seconds: int = RUN_SECONDS

    @classmethod
    def new(cls, region: str, seconds: int = RUN_SECONDS) -> Run:
        """A run that begins now.

        Args:
            region: see the attributes.
            seconds: see the attributes.
        """
        return cls(secrets.token_hex(6), region, int(time.time()) + seconds, seconds)

    @property
    def name(self) -> str:
        """What the names of all that it makes begin with; its job, its bucket, and the owner of its hosts."""
        return PREFIX + self.id

    @property
    def roles(self) -> dict[str, str]:
        """The names of its roles: `path`, `test`, `job`, `node`; in the order in which they are removed."""
        return {each: f"{self.name}-{each}" for each in _ROLES}

    @property
    def tags(self) -> dict[str, str]:
        """The tags of its roles."""
        return {**MADE, RUN: self.id, REGION: self.region, END: str(self.until + _REMOVAL_SECONDS)}

    def host_tags(self, **other: str) -> dict[str, str]:
        """The tags of an activation of a host, as a job's has them.

        Args:
            other: more of them, or other values.
        """
        own = {
            "SMSSH": "live",
            "SMSSHJob": self.name,
            "SMSSHKind": "training",
            "SMSSHHost": "algo-1",
            TAG: self.name,
        }
        return {**own, **other}


def run_of_role(name: str, tags: Mapping[str, str]) -> Run | None:
    """The run that a role is of, by its name and tags; None if no run made it."""
    run = Run(tags.get(RUN, ""), tags.get(REGION, ""))
    ours = tags.items() >= MADE.items() and _ID.fullmatch(run.id) is not None
    return run if ours and name in run.roles.values() else None
