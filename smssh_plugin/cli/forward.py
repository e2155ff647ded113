"""`smssh forward`."""

from __future__ import annotations

import re

import click

from .app import aws_options
from .parameters import show_waiting, wait_option

__all__ = ["forward"]


class Forwarding(click.ParamType):  # type: ignore[type-arg] # generic from click 8.3 on
    """What is forwarded: `[LOCAL:][HOST:]PORT`, to a tuple (local port, host, port)."""

    name = "[LOCAL:][HOST:]PORT"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, str, int]:
        """Read it; click shows the message of a `fail`."""
        form = r"(?:(\d{1,9}):)?(?:([A-Za-z][\w.-]*|\d+(?:\.\d+){3}|\[[0-9a-fA-F:]+\]):)?(\d{1,9})"
        found = re.fullmatch(form, str(value), re.ASCII)
        if found is None:
            self.fail(f"{value!r} is not a forward; use 8080, 9000:8080 or 5432:db.internal:5432", param, ctx)
        local, host, port = found.groups()
        if not 0 < int(port) < 65536 or int(local or 0) > 65535:
            self.fail(f"{value!r}: ports are numbers from 1 to 65535", param, ctx)
        # Like ssh -L: the same port here as there, unless another one is named.
        return int(port if local is None else local), (host or "").strip("[]"), int(port)


@click.command("forward")
@click.argument("address")
@click.argument("forwarding", type=Forwarding(), metavar="[LOCAL:][HOST:]PORT")
@wait_option
@click.option("--document", metavar="NAME", help="Session document to use instead of Amazon's for ports.")
@aws_options
def forward(
    address: str,
    forwarding: tuple[int, str, int],
    wait: float,
    document: str | None,
    region: str | None,
    profile: str | None,
) -> int:
    """Forward a port of this machine to a port of a job's container, by Session Manager alone.

    With HOST, the port is one of another machine that the container can reach. LOCAL is the port on
    127.0.0.1: by default the same as PORT, and a free one for 0. The container needs no SSH server; if it has
    one, `smssh connect -L` forwards through a login. Ctrl-C ends the command.
    """
    from ..aws.session import AwsSession
    from ..client.lookup import resolve
    from ..session import forward

    aws = AwsSession(region, profile)

    def find(anew: bool) -> str:
        return resolve(
            address, aws, wait=wait, on_wait=show_waiting, cached=not anew, without_server=True
        ).target

    local, host, port = forwarding
    if document is not None:
        aws.documents["remote_port" if host else "port"] = document
    return forward.run(aws, find, port, host=host, local_port=local)
