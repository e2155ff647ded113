"""`smssh ssh-config`."""

from __future__ import annotations

import click

from .app import aws_options

__all__ = ["ssh_config"]


@click.command("ssh-config")
@click.option(
    "--write",
    is_flag=True,
    help="Write the lines to $SMSSH_HOME/ssh_config, and include that file in ~/.ssh/config.",
)
@aws_options
def ssh_config(write: bool, region: str | None, profile: str | None) -> int:
    """Make `ssh ADDRESS`, scp, rsync, VS Code and PyCharm work.

    Prints the lines for ~/.ssh/config; `--write` writes them, and changes nothing if they are there already.
    --profile and --region are written into the lines, for programs without AWS_PROFILE, such as an IDE.
    """
    from ..client import ssh_config as text

    if not write:
        click.echo(text.block(region, profile), nl=False)
        return 0
    path, changed = text.install(region, profile)
    click.echo(
        f"{path}: {'included in ~/.ssh/config now' if changed else 'was included in ~/.ssh/config already'}"
    )
    return 0
