"""The owner of a job's nodes where nobody names one: who submits, or an error, by the scheme of `smssh setup --owner`.

It is found when the request is made and is a part of it from then on, so that a pipeline that somebody else starts
months later has the same owner. What a session's tags and its source identity are, AWS tells nobody: with these schemes
the owner must be named.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from .. import settings
from ..errors import ExitStatus, SmsshError
from .account import user_id_of
from .options import SSHOptions, own_owner

if TYPE_CHECKING:
    from .sessions import SessionOf

__all__ = ["owned"]

VARIABLE = "SMSSH_OWNER_SCHEME"


def owned(options: SSHOptions, session_of: SessionOf) -> SSHOptions:
    """The options with an owner, if there is a scheme and neither they nor SMSSH_OWNER name one.

    Only managed nodes have owners: those of the transport `ssm`.

    Args:
        options: what was asked for.
        session_of: answers the session that makes the request; asked if its caller is the owner.

    Raises:
        SmsshError: the scheme is not one, it needs an owner that is not named, or STS does not say who calls.
    """
    scheme = options.owner_scheme or _own_scheme()
    if scheme is None or options.transport != "ssm" or options.owner or own_owner():
        return options
    if scheme != "caller":
        raise SmsshError(
            f"the owner scheme is {scheme!r}, and no owner is named: IAM would refuse the job a node",
            hint="set SMSSH_OWNER, or SSHOptions(owner=...), to the value that `smssh setup` said",
            reference="no-owner",
            status=ExitStatus.USAGE,
        )
    owner = settings.OPTIONS["owner"]
    found = settings.parsed(
        owner.kind, "the user id of the caller", user_id_of(session_of()), owner.limits, "bad-owner"
    )
    return replace(options, owner=found)


def _own_scheme() -> str | None:
    """The scheme that the submitting process names."""
    said = os.environ.get(VARIABLE, "").strip()
    if not said:
        return None
    option = settings.OPTIONS["owner_scheme"]
    return str(settings.parsed(option.kind, VARIABLE, said, option.limits, "bad-owner-scheme"))
