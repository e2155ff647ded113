"""`smssh known-hosts`, as click sees it; ssh comes in through `fast_path`."""

from __future__ import annotations

import click

from . import fast_path
from .app import aws_options

__all__ = ["known_hosts"]


@click.command("known-hosts")
@click.argument("address")
@click.argument("name", required=False)
@aws_options
def known_hosts(address: str, name: str | None, region: str | None, profile: str | None) -> int:
    """Print the host key that ADDRESS announced, as a known_hosts line for NAME (by default ADDRESS).

    For ssh_config: KnownHostsCommand smssh known-hosts %n %H
    """
    return fast_path.known_hosts(address, name or address, region, profile)
