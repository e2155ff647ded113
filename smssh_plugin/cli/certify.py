"""`smssh certify`."""

from __future__ import annotations

from pathlib import Path

import click

from ..durations import format_duration
from .parameters import Seconds

__all__ = ["certify"]


@click.command("certify")
@click.argument("key", required=False, type=click.Path(path_type=Path))
@click.option(
    "--for", "seconds", type=Seconds(), default="8h", show_default=True, help="How long it is valid."
)
@click.option("--name", help="The name of its owner, for the server's log. [default: the key's file]")
@click.option("--authority", is_flag=True, help="Show the line that jobs need to accept certificates.")
@click.option(
    "--own",
    is_flag=True,
    help="Renew the certificate of this machine's own key if it is about to expire; print nothing.",
)
def certify(key: Path | None, seconds: float, name: str | None, authority: bool, own: bool) -> int:
    """Make a short-lived certificate for KEY.pub, with this machine as the authority.

    Jobs with the authority's line (SSHOptions(authorized_keys=...), SMSSH_AUTHORIZED_KEYS) accept everybody
    who has a valid certificate; ssh finds it beside the key. If this machine has an authority, smssh and the
    lines of `smssh ssh-config`, which run --own, renew the certificate of this machine's own key before a
    login.
    """
    from ..client import certificates

    if own or authority:
        line = certificates.authority() if authority else None
        certificates.own_key()
        if line is not None:
            click.echo(line)
        return 0
    if key is None:
        raise click.UsageError("missing argument 'KEY': name the public key, or --authority")
    made = certificates.certify(key, seconds, name or key.name.removesuffix(".pub"))
    click.echo(f"{made}: valid for {format_duration(seconds)}")
    return 0
