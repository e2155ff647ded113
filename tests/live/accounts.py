"""What a run has left in an account of the local emulator, and an account as it is before one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moto.iam.models import iam_backends
from moto.s3.models import s3_backends

if TYPE_CHECKING:
    from tests.local.service_harness import Service

ACCOUNT = "123456789012"


def made(service: Service) -> dict[str, Any]:
    """The roles, activations, nodes, buckets and running jobs of the account."""
    nodes = service.sessions.nodes
    return {
        "roles": sorted(role.name for role in iam_backends[ACCOUNT]["aws"].roles.values()),
        "activations": sorted(nodes.activations),
        "nodes": sorted(nodes.nodes),
        "buckets": sorted(s3_backends[ACCOUNT]["aws"].buckets),
        "jobs": sorted(service.runner.running),
    }


NOTHING: dict[str, Any] = {"roles": [], "activations": [], "nodes": [], "buckets": [], "jobs": []}


def reset(service: Service, without: tuple[str, ...] = ()) -> None:
    """An account with nothing in it, in which nothing goes wrong; some statements do not count."""
    service.sessions.faults.clear()
    service.sessions.tier = "advanced"
    service.sessions.nodes.activations.clear()
    for node in list(service.sessions.nodes.nodes):
        service.sessions.nodes.deregister(node)
    iam_backends[ACCOUNT]["aws"].roles.clear()
    s3_backends[ACCOUNT]["aws"].buckets.clear()
    service.runner.usual = "hold"
    if service.iam is not None:
        service.iam.without = frozenset(without)
