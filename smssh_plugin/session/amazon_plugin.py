"""`smssh proxy --via plugin`: Amazon's session-manager-plugin moves the bytes, and we clean up after it.

What it does not do by itself: keep the session's token out of the process list (argv shows it unless it is passed
in a variable), survive the SIGHUP by which ssh ends its ProxyCommand long enough to end the session, and call
TerminateSession. It exits with 0 whatever happened, and writes a line about the session to stdout before the SSH
server's greeting, which ssh skips.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

from ..errors import ExitStatus, SmsshError

if TYPE_CHECKING:
    from .lifetime import Lifetime

__all__ = ["PROGRAM", "talk"]

PROGRAM = "session-manager-plugin"
VARIABLE = "AWS_SSM_START_SESSION_RESPONSE"
"""The variable that carries the session; versions above 1.2.497 read it (aws-cli's `sessionmanager.py`)."""
_LINGER = 2.0
"""Seconds that the plugin has to end by itself once it is to."""


def talk(lifetime: Lifetime, source: int, sink: int) -> None:
    """Run the plugin on a session that was started, until it ends or a signal comes.

    Raises:
        SmsshError: it is not installed, or does not run.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise SmsshError(
            f"{PROGRAM} is not installed (looked for it on PATH)",
            hint="leave `--via plugin` out, or install the program: see AWS's documentation of Session Manager",
            reference="plugin-missing",
            status=ExitStatus.USAGE,
        )
    opening, aws = lifetime.opening, lifetime.aws
    answer = {"SessionId": opening.session_id, "TokenValue": opening.token, "StreamUrl": opening.url}
    request = json.dumps(lifetime.document.request(aws, lifetime.target))
    profile = aws.profile.name if aws.profile.explicit else ""
    command = [program, VARIABLE, aws.region, "StartSession", profile, request, aws.endpoint("ssm")]
    process = subprocess.Popen(
        command,
        stdin=source,
        stdout=sink,
        env={**os.environ, VARIABLE: json.dumps(answer)},
        # ssh sends SIGHUP, a terminal SIGINT, to the whole group: the plugin would be gone before the agent hears
        # of the end.
        start_new_session=True,
    )
    try:
        _wait(process, lifetime)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)  # on which it tells the agent
            try:
                process.wait(_LINGER)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    if process.returncode and not lifetime.signals.number:
        raise SmsshError(
            f"{PROGRAM} ended with status {process.returncode}",
            hint="see its own message above, or leave `--via plugin` out",
            reference="plugin-failed",
            status=ExitStatus.UNREACHABLE,
        )


def _wait(process: subprocess.Popen[bytes], lifetime: Lifetime) -> None:
    """Wait for the plugin's end or a signal, without polling."""
    signals = lifetime.signals
    ended = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else None
    try:
        while process.poll() is None:
            watched = [signals.wake] if ended is None else [signals.wake, ended]
            ready, _, _ = select.select(watched, [], [], 0.5 if ended is None else None)
            if signals.wake in ready and signals.ending():
                break
    finally:
        if ended is not None:
            os.close(ended)
    if process.poll() is None:
        try:
            process.wait(_LINGER)  # its input has ended with ssh
        except subprocess.TimeoutExpired:
            return
