"""The account that a folder of `smssh setup --write` describes: who there is, and what each may do."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import ExitStatus, SmsshError
from .documents import bad_policy, parse, parse_json
from .evaluator import Context, Rights, trusts
from .known_keys import check_keys

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .documents import Policy

__all__ = ["ACCOUNT", "CLIENTS", "REGION", "Account", "Principal", "read_account"]

ACCOUNT = "123456789012"
REGION = "us-east-1"
CLIENTS = {
    "person": ("people",),
    "ci": ("submit", "people", "ci"),
    "cleanup": ("cleanup",),
    "costs": ("costs",),
}
"""Who uses clients, and the parts of `smssh setup` whose policies they get."""
_PARTS = ("job", "submit", "people", "ci", "cleanup", "costs", "boundary", "scp")
_OTHERS = ("advanced-tier.json", "-job-trust-statement.json")
"""Files of `smssh setup` that are not policies of a principal."""
_PRINCIPALS = "principals.json"
_NAMES = (*CLIENTS, "job", "node", "function")
_MEMBERS = {"policies", "tags", "source_identity", "session"}
_NODE = "node"
_SESSION = "smssh"


@dataclass(frozen=True)
class Principal:
    """Who asks: a session of a role.

    Attributes:
        name: `person`, `ci`, `cleanup`, `costs`, `job`, `node`, `function`, or "" for others.
        role: the name of its role.
        session: the name of the role session.
        rights: what it may do.
        tags: its tags, or its session's.
        source_identity: its source identity; "" for none.
        path: of the role.
    """

    name: str
    role: str
    session: str
    rights: Rights
    tags: Mapping[str, str] = field(default_factory=dict)
    source_identity: str = ""
    path: str = "/"

    @property
    def arn(self) -> str:
        """As STS and messages name it."""
        return f"arn:aws:sts::{ACCOUNT}:assumed-role/{self.role}/{self.session}"

    @property
    def userid(self) -> str:
        """`aws:userid`: the id of the role, and the session."""
        digest = hashlib.sha256(self.role.encode()).hexdigest()[:16].upper()
        return f"AROA{digest}:{self.session}"

    @property
    def keys(self) -> dict[str, str]:
        """The condition keys that are about it."""
        found = {
            "aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role{self.path}{self.role}",
            "aws:PrincipalAccount": ACCOUNT,
            "aws:PrincipalType": "AssumedRole",
            "aws:userid": self.userid,
            **{f"aws:PrincipalTag/{key}": value for key, value in self.tags.items()},
        }
        return {**found, "aws:SourceIdentity": self.source_identity} if self.source_identity else found


@dataclass(frozen=True)
class _More:
    """What principals.json says of a principal."""

    policies: tuple[Policy, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    source_identity: str = ""
    session: str = ""


@dataclass(frozen=True)
class Account:
    """The policies of an account, by the parts of `smssh setup`.

    Attributes:
        policies: by part; `node` is the policy of the nodes' role.
        node_role: the name of the nodes' role; "" if there is no role.
        node_trust: its trust policy.
        session_documents: session documents of one's own, by name.
    """

    policies: Mapping[str, Policy]
    node_role: str
    node_trust: Policy | None
    session_documents: Mapping[str, Any]
    _more: Mapping[str, _More]

    @property
    def guardrails(self) -> tuple[Policy, ...]:
        """The organization's policies."""
        scp = self.policies.get("scp")
        return () if scp is None else (scp,)

    def client(self, name: str) -> Principal:
        """A principal that uses clients, by its name in CLIENTS."""
        return self._principal(name, name, CLIENTS[name], _SESSION)

    def job(self, role: str) -> Principal:
        """A job, or SageMaker in its place, by the ARN of its role: each role has the policy for jobs."""
        path, _, name = f"/{role.partition(':role/')[2]}".rpartition("/")
        return self._principal("job", name, ("job",), "SageMaker", boundary=True, path=f"{path}/")

    def node(self, role: str, node: str) -> Principal:
        """A managed node, by the name of its role and its id. A role other than the nodes' may do nothing."""
        parts = (_NODE,) if role == self.node_role else ()
        return self._principal("node" if parts else "", role, parts, node)

    def function(self, name: str) -> Principal:
        """A Lambda function."""
        return self._principal("function", "function", (), name)

    def unknown(self, role: str) -> Principal:
        """Somebody with credentials of STS or IAM, and no policy in the folder."""
        return self._principal("", role, (), _SESSION)

    def passes_to_nodes(self, role: str) -> bool:
        """Whether a role can be that of nodes: it is there, and Systems Manager may assume it."""
        if self.node_trust is None or role != self.node_role:
            return False
        # AWS documents both keys for this service, and no ARN but such as `arn:aws:ssm:REGION:ACCOUNT:*`.
        source = f"arn:aws:ssm:{REGION}:{ACCOUNT}:managed-instance/*"
        keys = Context({"aws:SourceAccount": ACCOUNT, "aws:SourceArn": source})
        return trusts(self.node_trust, "ssm.amazonaws.com", keys)

    def _principal(
        self,
        name: str,
        role: str,
        parts: tuple[str, ...],
        session: str,
        *,
        boundary: bool = False,
        path: str = "/",
    ) -> Principal:
        more = self._more.get(name, _More())
        rights = Rights(
            (*(self.policies[part] for part in parts if part in self.policies), *more.policies),
            self.policies.get("boundary") if boundary else None,
            self.guardrails,
        )
        return Principal(name, role, more.session or session, rights, more.tags, more.source_identity, path)


def read_account(folder: Path) -> Account:
    """Read a folder as `smssh setup --write FOLDER` writes it, and `principals.json` in it if it is there.

    Args:
        folder: it, or the folder `json` in it.

    Raises:
        SmsshError: there is no policy, or one that would not be evaluated as IAM does.
    """
    home = folder / "json" if (folder / "json").is_dir() else folder
    paths = [path for path in sorted(home.glob("*.json")) if path.name != _PRINCIPALS]
    if not paths:
        raise SmsshError(
            f"{folder} has no policies",
            hint=f"write them: smssh setup --account {ACCOUNT} --format json --write {folder}",
            reference="no-policies",
            status=ExitStatus.USAGE,
        )
    policies: dict[str, Policy] = {}
    node_role, node_trust = "", None
    documents: dict[str, Any] = {}
    for path in paths:
        if path.name.endswith(_OTHERS):
            continue
        content = parse_json(path.name, _text(path))
        stem = path.stem
        if isinstance(content, dict) and "schemaVersion" in content:
            documents[stem] = content
            continue
        part = _NODE if stem.endswith("-policy") else stem.rpartition("-")[2]
        if stem.endswith("-trust"):
            node_trust = parse(stem, content, trust=True)
            check_keys(node_trust)
            continue
        if part not in (*_PARTS, _NODE):
            raise bad_policy(path.name, "smssh setup writes no such file")
        if part in policies:
            raise bad_policy(path.name, f"{policies[part].name} is there as well")
        policies[part] = parse(stem, content)
        check_keys(policies[part])
        if part == _NODE:
            node_role = stem.removesuffix("-policy")
    return Account(policies, node_role, node_trust, documents, _read_principals(folder))


def _read_principals(folder: Path) -> dict[str, _More]:
    path = folder / _PRINCIPALS
    if not path.exists():
        return {}
    content = parse_json(_PRINCIPALS, _text(path))
    if not isinstance(content, dict):
        raise bad_policy(_PRINCIPALS, "not an object")
    found = {}
    for name, said in content.items():
        if name not in _NAMES:
            raise bad_policy(_PRINCIPALS, f"there is no principal {name!r}: use one of {', '.join(_NAMES)}")
        if not isinstance(said, dict) or not said.keys() <= _MEMBERS:
            raise bad_policy(f"{_PRINCIPALS}: {name}", f"its members are {', '.join(sorted(_MEMBERS))}")
        tags, documents = said.get("tags", {}), said.get("policies", {})
        texts = [said.get("source_identity", ""), said.get("session", "")]
        if not _all_texts(tags) or not all(isinstance(text, str) for text in texts):
            raise bad_policy(f"{_PRINCIPALS}: {name}", "tags, source_identity and session are texts")
        if not isinstance(documents, dict):
            raise bad_policy(f"{_PRINCIPALS}: {name}", "policies are an object of documents by name")
        policies = tuple(parse(str(each), document) for each, document in documents.items())
        for policy in policies:
            check_keys(policy)
        found[name] = _More(policies, tags, *texts)
    return found


def _all_texts(tags: Any) -> bool:
    return isinstance(tags, dict) and all(isinstance(value, str) for value in tags.values())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise bad_policy(str(path), str(error)) from None
