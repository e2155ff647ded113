"""Roles that are made in the emulator's IAM, and sessions of them: what each may do.

`smssh local --iam FOLDER` knows the principals of `smssh setup` from the folder. A role that is made while it runs
(CreateRole, PutRolePolicy) and assumed, with a session policy or without, may do what its policies allow; so may
jobs and managed nodes that have it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moto.iam.models import iam_backends
from moto.sts.models import sts_backends

from ...errors import SmsshError
from .account import ACCOUNT, REGION, Principal
from .documents import Policy, parse, parse_json
from .evaluator import Context, Rights, trusts
from .known_keys import check_keys

if TYPE_CHECKING:
    from ..keyring import Key

__all__ = ["SESSION_POLICY", "passes_to_nodes", "principal", "service_principal"]

SESSION_POLICY = "session"
"""What session policies are called here; for AWS they have no name."""
_PARTITION = "aws"
_SSM = "ssm.amazonaws.com"


def principal(key: Key, guardrails: tuple[Policy, ...]) -> Principal | None:
    """Whose credentials of STS these are; None if they are of no session of a role that is there.

    Args:
        key: the credentials.
        guardrails: the organization's policies.
    """
    assumed = sts_backends[ACCOUNT][_PARTITION].get_assumed_role_from_access_key(key.access_key)
    role = None if assumed is None else _role(str(assumed.role_arn).rpartition("/")[2])
    if assumed is None or role is None:
        return None
    try:
        rights = _rights(role, assumed.policy, guardrails)
    except SmsshError:  # a policy that is not evaluated may deny something
        rights = Rights()
    return Principal("", role.name, str(assumed.session_name), rights, path=role.path)


def service_principal(
    kind: str, role_name: str, session: str, guardrails: tuple[Policy, ...]
) -> Principal | None:
    """A job or a node with a role that was made here; None if there is no such role.

    Args:
        kind: `job` or `node`.
        role_name: the name of the role, without its path.
        session: the name of the role session.
        guardrails: the organization's policies.
    """
    role = _role(role_name)
    if role is None:
        return None
    try:
        rights = _rights(role, None, guardrails)
    except SmsshError:  # as above
        rights = Rights()
    return Principal(kind, role.name, session, rights, path=role.path)


def passes_to_nodes(name: str) -> bool:
    """Whether a role can be that of nodes: it is there, and Systems Manager may assume it."""
    role = _role(name)
    if role is None:
        return False
    source = f"arn:aws:ssm:{REGION}:{ACCOUNT}:managed-instance/*"
    keys = Context({"aws:SourceAccount": ACCOUNT, "aws:SourceArn": source})
    try:
        return trusts(parse(name, _json(name, role.assume_role_policy_document), trust=True), _SSM, keys)
    except SmsshError:
        return False


def _role(name: str) -> Any:
    """The role of a name; None if no role has it."""
    roles = iam_backends[ACCOUNT][_PARTITION].roles
    return next((role for role in list(roles.values()) if role.name == name), None)


def _rights(role: Any, session: str | None, guardrails: tuple[Policy, ...]) -> Rights:
    """What decides for a session of a role.

    Raises:
        SmsshError: it has a policy that would not be evaluated as IAM does.
    """
    attached = [_policy(each.name, _current(each)) for each in list(role.managed_policies.values())]
    inline = [_policy(name, text) for name, text in list(role.policies.items())]
    bound = role.permissions_boundary_arn
    boundary = None if not bound else iam_backends[ACCOUNT][_PARTITION].get_policy(bound)
    return Rights(
        (*inline, *attached),
        None if boundary is None else _policy(boundary.name, _current(boundary)),
        guardrails,
        _policy(SESSION_POLICY, session) if session else None,
    )


def _current(policy: Any) -> Any:
    """The document of a managed policy of moto's."""
    return next(each.document for each in policy.versions if each.version_id == policy.default_version_id)


def _policy(name: str, document: Any) -> Policy:
    found = parse(name, _json(name, document))
    check_keys(found)
    return found


def _json(name: str, document: Any) -> Any:
    return parse_json(name, document) if isinstance(document, str) else document
