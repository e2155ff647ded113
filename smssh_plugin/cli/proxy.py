"""`smssh proxy`, as click sees it; ssh comes in through `fast_path`."""

from __future__ import annotations

import click

from .app import aws_options
from .fast_path import VIAS
from .parameters import wait_option

__all__ = ["proxy"]


@click.command("proxy")
@click.argument("address")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port in the container; by default the one it announces."
)
@click.option(
    "--target", metavar="ID", help="Managed node (mi-...), where it is known: saves looking ADDRESS up."
)
@click.option("--user", metavar="NAME", help="User that ssh logs in as (%r); a wrong one is reported.")
@wait_option
@click.option(
    "--via",
    type=click.Choice(VIAS),
    default="session",
    show_default=True,
    help="Move the bytes ourselves, or by Amazon's session-manager-plugin.",
)
@click.option("--document", metavar="NAME", help="Session document to use instead of AWS-StartSSHSession.")
@aws_options
def proxy(
    address: str,
    port: int | None,
    target: str | None,
    user: str | None,
    wait: float,
    via: str,
    document: str | None,
    region: str | None,
    profile: str | None,
) -> int:
    """Connect stdin and stdout with a job's SSH server.

    For ssh_config: ProxyCommand smssh proxy %n --user %r
    """
    from ..aws.session import AwsSession
    from ..client.lookup import resolve
    from ..session.proxy import Route, run

    aws = AwsSession(region, profile)
    if document is not None:
        aws.documents["ssh"] = document
    return run(Route(aws, address, resolve, target=target, port=port, user=user, wait=wait, via=via))
