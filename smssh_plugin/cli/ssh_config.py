"""`smssh ssh-config`."""

from __future__ import annotations

import click

__all__ = ["ssh_config"]


@click.command("ssh-config")
@click.option(
    "--write", is_flag=True, help="Write it to $SMSSH_HOME/ssh_config and include that in ~/.ssh/config."
)
def ssh_config(write: bool) -> int:
    """Make `ssh ADDRESS`, scp, rsync, VS Code and PyCharm work.

    Prints the lines for ~/.ssh/config; `--write` puts them in place, and changes nothing the second time.
    """
    from ..client import ssh_config as text

    if not write:
        click.echo(text.block(), nl=False)
        return 0
    path, changed = text.install()
    click.echo(
        f"{path}: {'included in ~/.ssh/config now' if changed else 'was included in ~/.ssh/config already'}"
    )
    return 0
