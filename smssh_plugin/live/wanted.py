"""The job that somebody wants to be tried."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["INSTANCE_TYPE", "Wanted"]

INSTANCE_TYPE = "ml.t3.medium"
"""The smallest instance type of processing jobs."""


@dataclass(frozen=True)
class Wanted:
    """The job that somebody wants to be tried.

    Attributes:
        image: the URI of its image.
        instance_type: of its one instance.
        wheels: the Python of the image, if it has no sshd; see `SSHOptions`.
    """

    image: str
    instance_type: str = INSTANCE_TYPE
    wheels: tuple[str, ...] = ()
