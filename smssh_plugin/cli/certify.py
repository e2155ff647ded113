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
    "--for", "seconds", type=Seconds(), default="8h", show_default=True, help="How long it is good."
)
@click.option("--name", help="Who it is for, for the server's log; by default the key's file.")
@click.option(
    "--authority", is_flag=True, help="Show the line that jobs have to carry to accept certificates."
)
@click.option(
    "--own", is_flag=True, help="Certify this machine's own key anew, if it is time to; prints nothing."
)
def certify(key: Path | None, seconds: float, name: str | None, authority: bool, own: bool) -> int:
    """Make a short-lived certificate for KEY.pub, with this machine as the authority.

    Jobs that carry the authority's line (SSHOptions(authorized_keys=...), SMSSH_AUTHORIZED_KEYS) let in whoever has a
    certificate that is still good; ssh finds it beside the key. This machine's own key is certified by itself before a
    login once there is an authority: by smssh, and by the lines of `smssh ssh-config`, which run --own.
    """
    from ..client import certificates

    if own or authority:
        line = certificates.authority() if authority else None
        certificates.own_key()
        if line is not None:
            click.echo(line)
        return 0
    if key is None:
        raise click.UsageError("Missing argument 'KEY': the public key, or --authority.")
    made = certificates.certify(key, seconds, name or key.name.removesuffix(".pub"))
    click.echo(f"{made}: good for {format_duration(seconds)}")
    return 0
