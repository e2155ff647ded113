"""`smssh shell`."""

from __future__ import annotations

import shlex

import click

from .app import aws_options
from .parameters import show_waiting, wait_option

__all__ = ["shell"]


@click.command("shell", context_settings={"ignore_unknown_options": False})
@click.argument("address")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@wait_option
@click.option("--document", metavar="NAME", help="Session document to use instead of the account's own.")
@aws_options
def shell(
    address: str,
    command: tuple[str, ...],
    wait: float,
    document: str | None,
    region: str | None,
    profile: str | None,
) -> int:
    """Open a shell in a job's container, or run a command there, by Session Manager alone.

    For a container without an SSH server, such as a training job with SageMaker's remote debugging (`smssh
    remote-debug`). Files and ports need SSH: `smssh connect`. If COMMAND is one word, it is a line for the
    shell; if it is several, each is taken literally. A line that begins with ~. ends the session.
    """
    from ..aws.session import AwsSession
    from ..client.lookup import resolve
    from ..session import shell as shells

    aws = AwsSession(region, profile)
    if document is not None:
        aws.documents["command" if command else "shell"] = document

    def find(anew: bool) -> str:
        return resolve(
            address, aws, wait=wait, on_wait=show_waiting, cached=not anew, without_server=True
        ).target

    line = command[0] if len(command) == 1 else shlex.join(command)
    return shells.run(aws, find, line or None)
