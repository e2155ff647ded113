"""`smssh list`."""

from __future__ import annotations

import dataclasses
import json
import time

import click

from ..durations import format_duration
from ..terminal import line, put
from .app import aws_options, json_option

__all__ = ["list_"]


@click.command("list")
@click.option("--all", "everything", is_flag=True, help="Show hosts that are not online as well.")
@click.option("--owner", metavar="NAME", help="Show only hosts whose tag SSHOwner is NAME.")
@json_option
@aws_options
def list_(everything: bool, owner: str | None, as_json: bool, region: str | None, profile: str | None) -> int:
    """List the hosts that can be reached."""
    from ..aws.session import AwsSession
    from ..client.managed_nodes import conflicts, list_nodes
    from ..costs.waiting import waiting

    aws = AwsSession(region, profile)
    nodes = list_nodes(aws, everything=everything, owner=owner)
    claimed = conflicts(nodes, None if owner is None else aws)
    if as_json:
        found = [
            {
                "address": node.address,
                **dataclasses.asdict(node),
                "claimed_by": [one.target for one in claimed.get(node.address, ())],
            }
            for node in nodes
        ]
        click.echo(json.dumps({"version": 1, "region": aws.region, "hosts": found}, indent=2))
        return 0
    if not nodes:
        put(f"no hosts are online in {aws.region}", error=True)
        return 0
    now = time.time()
    rows: list[tuple[str, ...]] = [("ADDRESS", "STATE", "STEP", "OWNER", "AGE")]
    for node in nodes:
        state = node.state or "" if node.ping_status == "Online" else node.ping_status
        if any(one.target == node.target for one in claimed.get(node.address, ())):
            state = f"conflict ({node.target})"
        cells = (node.address, state, node.step or "", node.owner, format_duration(int(now - node.created)))
        rows.append(tuple(line(cell) for cell in cells))  # tags are other people's text
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for kind, job in dict.fromkeys((node.kind, node.job) for node in nodes if node.state == "held"):
        cost = waiting(aws, kind, job)
        if cost:
            put(line(f"{job}.{kind}.sagemaker is held: {cost}"), error=True)
    for address, some in claimed.items():
        who = "; ".join(
            f"{one.target} (owner {one.owner or 'unknown'!r}, {one.state or 'state unknown'})" for one in some
        )
        put(line(f"{len(some)} online nodes claim to be {address}: {who}"), error=True)
    if claimed:
        put(
            "smssh enters none of them unless SageMaker's description of the job, or SMSSH_NODE=ID, says "
            "which one it is",
            error=True,
        )
    return 0
