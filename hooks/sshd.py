"""The image's own sshd, where it has one that works."""

from __future__ import annotations

from typing import Sequence

from ..container import openssh
from ..hookspecs import Context, Failure, Server, hookimpl


@hookimpl
def smssh_start_server(context: Context) -> Server | None:
    """Start sshd if the settings allow it and it can work here."""
    if context.settings.ssh_server == "asyncssh":
        return None
    program = openssh.find()
    reason = "the image has none" if program is None else openssh.unusable(context, program)
    if program is None or reason is not None:
        context.log.info("sshd is not used: %s", reason)
        return None
    return openssh.start(context, program)


@hookimpl
def smssh_before_entry_point(context: Context, command: Sequence[str]) -> None:
    """The job's environment may have grown: the toolkits add the SM_* variables."""
    openssh.refresh(context, command)


@hookimpl
def smssh_entry_point_failed(context: Context, failure: Failure) -> None:
    """See `smssh_before_entry_point`: a hold follows, and people log in."""
    openssh.refresh(context, failure.command)


@hookimpl
def smssh_stop() -> None:
    """Stop the server; logins that are open end with the container."""
    openssh.stop()
