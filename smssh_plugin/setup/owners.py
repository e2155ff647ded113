"""Who owns a job's node, and the conditions of IAM that let nobody else in.

A node has the tag SSHOwner from its activation on. A scheme says what its value is, and gives one condition for the
job's role, which must not create nodes of other owners, and one for people, who must not enter those of others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ExitStatus, SmsshError
from ..setting_values import OWNER

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULT_TEAM", "SCHEMES", "TAG", "Scheme", "owner_scheme"]

TAG = "SSHOwner"
DEFAULT_TEAM = "team"
PRINCIPAL_TAG = "Owner"
"""The tag of a session or a principal whose value is the owner, with `session-tag`."""


@dataclass(frozen=True)
class Scheme:
    """One way to say who the owner is.

    Attributes:
        name: of the command line.
        summary: in words, for a table.
        value: what SSHOwner must be in a policy; a constant or a variable of IAM.
        binds_jobs: whether IAM can compare a job's new node with it.
        needs: what must be true in the account besides, as Markdown.
        to_set: how SMSSH_OWNER is set where requests are made.
        trust_action: what the trust policy of a job's role must allow SageMaker besides `sts:AssumeRole`, if anything.
    """

    name: str
    summary: str
    value: str
    binds_jobs: bool
    needs: str
    to_set: str
    trust_action: str = ""

    def of_node(self, key: str = f"ssm:resourceTag/{TAG}") -> dict[str, Mapping[str, Any]]:
        """The condition that a node belongs to the caller."""
        return {"StringEquals": {key: self.value}}

    def of_request(self) -> dict[str, Mapping[str, Any]]:
        """The condition that a new node will belong to the caller, or to anybody where IAM cannot say more."""
        if self.binds_jobs:
            return {"StringEquals": {f"aws:RequestTag/{TAG}": self.value}}
        return {"Null": {f"aws:RequestTag/{TAG}": "false"}}

    def of_job(self, key: str) -> dict[str, Mapping[str, Any]]:
        """The condition that an existing node is of the job's owner, or of smssh where IAM cannot say more."""
        if self.binds_jobs:
            return {"StringEquals": {f"{key}/{TAG}": self.value}}
        return {"Null": {f"{key}/SMSSH": "false"}}


def owner_scheme(name: str, team: str = DEFAULT_TEAM) -> Scheme:
    """The scheme of a name.

    Args:
        name: `team`, `caller`, `session-tag` or `source-identity`.
        team: the owner that all jobs and people of a team share; used by `team` only.

    Raises:
        SmsshError: there is no such scheme, or no tag can hold the team's name.
    """
    if name not in SCHEMES:
        raise SmsshError(
            f"{name!r} is not an owner scheme",
            hint=f"use one of {', '.join(SCHEMES)}",
            reference="bad-owner-scheme",
            status=ExitStatus.USAGE,
        )
    if name != "team":
        return SCHEMES[name]
    try:
        value = OWNER.parse(team)
    except ValueError as error:
        raise _bad_team(team, str(error)) from None
    if not value:
        raise _bad_team(team, "it is empty")
    return _team(value)


def _team(value: str) -> Scheme:
    return Scheme(
        "team",
        "one name for all jobs and people of a team",
        value,
        True,
        "nothing",
        f"SMSSH_OWNER={value!r}" if " " in value else f"SMSSH_OWNER={value}",
    )


def _bad_team(team: str, why: str) -> SmsshError:
    return SmsshError(
        f"{team!r} cannot be an owner: {why}",
        hint=f"use {OWNER.limits}",
        reference="bad-owner",
        status=ExitStatus.USAGE,
    )


SCHEMES = {
    each.name: each
    for each in (
        _team(DEFAULT_TEAM),
        Scheme(
            "caller",
            "the user id that STS says of who submits",
            "${aws:userid}",
            False,
            "session names that stay the same (`role_session_name` in a profile with `role_arn`); any job can name "
            "anybody as its owner",
            "SMSSH_OWNER_SCHEME=caller",
        ),
        Scheme(
            "session-tag",
            f"the tag `{PRINCIPAL_TAG}` of the session or role",
            f"${{aws:PrincipalTag/{PRINCIPAL_TAG}}}",
            True,
            f"the tag `{PRINCIPAL_TAG}` on the job's role, or a session tag that SageMaker hands on (training jobs "
            "with `SessionChainingConfig` only), which the role's trust policy must allow",
            f"SMSSH_OWNER to the value of your tag {PRINCIPAL_TAG}",
            "sts:TagSession",
        ),
        Scheme(
            "source-identity",
            "the source identity of who submits, which no session can change",
            "${aws:SourceIdentity}",
            True,
            "an identity provider or a Studio domain that sets it (`ExecutionRoleIdentityConfig=USER_PROFILE_NAME`), "
            "and trust policies of job roles that allow it; documented by AWS for jobs from Studio",
            "SMSSH_OWNER to your source identity",
            "sts:SetSourceIdentity",
        ),
    )
}
"""Weakest first, except for `team`, the default."""
