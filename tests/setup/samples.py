"""Plans of every kind, and every policy of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smssh_plugin.setup.documents import documents
from smssh_plugin.setup.owners import SCHEMES, owner_scheme
from smssh_plugin.setup.parts import PARTS, Setup
from smssh_plugin.setup.plan import FEATURES, PARTITIONS, Plan

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCOUNT = "123456789012"
ROLE = "service-role/AmazonSageMaker-ExecutionRole-20260101T000000"


def everything(partition: str = "aws", scheme: str = "team", **other: Any) -> Plan:
    """A plan in which every statement is there."""
    region = PARTITIONS[partition]
    arn = f"arn:{partition}"
    answers: dict[str, Any] = {
        "partition": partition,
        "account": ACCOUNT,
        "owner": owner_scheme(scheme),
        "job_roles": [ROLE, "plain"],
        "features": list(FEATURES),
        "bucket_keys": [f"{arn}:kms:{region}:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"],
        "session_keys": [f"{arn}:kms:{region}:{ACCOUNT}:key/4321abcd-12ab-34cd-56ef-1234567890ab"],
        "session_logs": [f"{arn}:s3:::logs/sessions", f"{arn}:logs:{region}:{ACCOUNT}:log-group:/sessions:*"],
        "topics": [f"{arn}:sns:{region}:{ACCOUNT}:jobs"],
        "key_sources": [f"{arn}:s3:::keys/team.pub", f"{arn}:ssm:{region}:{ACCOUNT}:parameter/team/keys"],
    }
    return Plan.make(**{**answers, **other})


def whole(partition: str = "aws", scheme: str = "team", **other: Any) -> Setup:
    """Every part of such a plan."""
    return Setup(everything(partition, scheme, **other), PARTS)


def all_setups() -> Iterator[Setup]:
    """Every part, in every partition and by every scheme; with and without a bucket of one's own."""
    for partition in PARTITIONS:
        for scheme in SCHEMES:
            yield whole(partition, scheme)
    yield whole(bundle_prefix="s3://mine/some/where", name="ml", node_role="team/nodes")
    yield Setup(Plan.make(account=ACCOUNT, job_roles=["plain"]), PARTS)


def statements(setup: Setup) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every statement of permissions, with where it is."""
    for name, document in documents(setup).items():
        if "Statement" in document and not name.endswith("-trust"):
            for each in document["Statement"]:
                yield f"{name} {each['Sid']}", each


def listed(value: Any) -> list[Any]:
    """One value or several as a list."""
    return value if isinstance(value, list) else [value]
