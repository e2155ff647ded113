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
    "--port", type=click.IntRange(1, 65535), help="Port in the container. [default: the announced one]"
)
@click.option(
    "--target", metavar="ID", help="Managed node (mi-...), if it is known: ADDRESS is then not looked up."
)
@click.option(
    "--user",
    metavar="NAME",
    help="The user that ssh logs in as (%r); a warning is shown if the job has no such user.",
)
@wait_option
@click.option(
    "--via",
    type=click.Choice(VIAS),
    default="session",
    show_default=True,
    help="Who moves the bytes: smssh, or Amazon's session-manager-plugin.",
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
