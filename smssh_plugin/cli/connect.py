"""`smssh connect`."""

from __future__ import annotations

import os
import shlex

import click

from .. import streams
from .app import aws_options
from .parameters import show_waiting, wait_option

__all__ = ["connect"]


@click.command("connect", context_settings={"ignore_unknown_options": False})
@click.argument("address")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@wait_option
@click.option(
    "-L", "local", multiple=True, metavar="PORT:HOST:PORT", help="Forward a port of this machine, as ssh -L."
)
@click.option(
    "-R",
    "remote",
    multiple=True,
    metavar="PORT:HOST:PORT",
    help="Forward a port of the container, as ssh -R.",
)
@click.option("-A", "agent", is_flag=True, help="Forward your SSH agent, as ssh -A.")
@click.option("-o", "option", multiple=True, metavar="NAME=VALUE", help="Any option of ssh_config.")
@click.option("-v", "--verbose", is_flag=True, help="Show what ssh does.")
@aws_options
def connect(
    address: str,
    command: tuple[str, ...],
    wait: float,
    local: tuple[str, ...],
    remote: tuple[str, ...],
    agent: bool,
    option: tuple[str, ...],
    verbose: bool,
    region: str | None,
    profile: str | None,
) -> int:
    """Log in to a job's container, or run a command there.

    If COMMAND is one word, it is a line for the container's shell; if it is several, each is taken literally.
    Your ~/.ssh/config applies, except for the options that smssh sets itself. The exit status is that of ssh:
    the command's, or 255.
    """
    from ..aws.session import AwsSession
    from ..client import identities, known_hosts, ssh
    from ..client.endpoint import reach

    program = ssh.program("ssh")
    endpoint = reach(address, AwsSession(region, profile), wait=wait, on_wait=show_waiting)
    known = known_hosts.remember(endpoint.address, endpoint.host_key)
    assert known is not None  # reach() has checked the key
    words = [program]
    # The first value of an option holds: these are out of the reach of any configuration file, and of -o.
    for name, value in {
        **ssh.options(endpoint, known),
        "ControlPath": "none",
        "RemoteCommand": "none",
    }.items():
        words += ["-o", f"{name}={value}"]
    for key in identities.offered(endpoint.key):
        words += ["-o", f"IdentityFile={ssh.quoted(key)}"]
    for flag, values in (("-L", local), ("-R", remote), ("-o", option)):
        for value in values:
            words += [flag, value]
    words += ["-A"] * agent + ["-v"] * verbose + [endpoint.address]
    if command:
        words += ["--", command[0] if len(command) == 1 else shlex.join(command)]
    streams.give_back()
    identities.watch_refusal(endpoint)
    os.execv(program, words)  # noqa: S606 - a shell is what must not be in between
