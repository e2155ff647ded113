"""Who the caller is, and whether that name stays the same."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ..errors import SmsshError
from .checks import Check, Finding, hint, ok, problem

if TYPE_CHECKING:
    from .case import Case

__all__ = ["CHECKS"]

_UNSTABLE = re.compile(
    r"(botocore-session-\d+|AWSCLI-Session-\d+|aws-sdk-[a-z]+-\d+|\d{9,}|[0-9a-f-]{32,36})\Z"
)
"""Names that SDKs make up anew for each assumption of a role: `botocore-session-<time>` of boto3 and the AWS CLI."""
NOT_VALID = ("no-credentials", "stale-credentials", "mfa-needed", "no-profile", "aws-unusable")


def credentials(case: Case) -> Finding:
    """The credentials, and whose they are."""
    try:
        caller = case.caller()
    except SmsshError as error:
        if error.reference in NOT_VALID:
            return problem(error.message, fix=error.hint or "log in again")
        raise
    return ok(
        f"these credentials are {caller.arn}", f"account {caller.account}", f"aws:userid {caller.user_id}"
    )


def session_name(case: Case) -> Finding:
    """The name of an assumed role's session."""
    caller = case.caller()
    kind, *rest = caller.resource
    if kind == "root":
        return hint(
            "these are the credentials of the account's root user, whom no policy limits",
            fix="use a role or a user of IAM",
        )
    if kind != "assumed-role":
        return ok(f"aws:userid, {caller.user_id}, stays the same")
    name = rest[-1]
    if _UNSTABLE.match(name):
        return hint(
            f"the name of the role's session, {name!r}, differs each time that the role is assumed: a policy with "
            "${aws:userid} (owners of hosts, one's own sessions) fits once only",
            fix="set role_session_name in the profile, for instance to your user name",
        )
    return ok(f"the name of the role's session is {name!r}")


def owner(case: Case) -> Finding:
    """The owner that this client names."""
    del case
    named = os.environ.get("SMSSH_OWNER", "").strip()
    if named:
        return ok(f"SMSSH_OWNER is {named!r}: hosts of other owners are refused")
    return ok("SMSSH_OWNER is not set: hosts of any owner are entered, as far as IAM allows")


CHECKS = (
    Check(
        "identity.credentials",
        "the credentials, by GetCallerIdentity",
        credentials,
        ("laptop.endpoints", "laptop.clock"),
    ),
    Check(
        "identity.session-name",
        "whether the role session's name stays the same",
        session_name,
        ("identity.credentials",),
    ),
    Check("identity.owner", "SMSSH_OWNER", owner),
)
