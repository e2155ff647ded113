"""`smssh forward`: a loopback port of this machine, through a session, to a port that the container reaches."""

from __future__ import annotations

import contextlib
import errno
import resource
import socket
import sys
import time
from typing import TYPE_CHECKING

from ..errors import ExitStatus, SmsshError
from .lifetime import CONNECT_SECONDS, FORWARD_DOCUMENT, REMOTE_DOCUMENT, Document, Lifetime, say, started
from .signals import Signals, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..aws.session import AwsSession

__all__ = ["run"]

_BACKLOG = 512
_DESCRIPTORS = 8192


def run(
    aws: AwsSession,
    find: Callable[[bool], str],
    port: int,
    *,
    host: str = "",
    local_port: int = 0,
    wait: float = CONNECT_SECONDS,
    ready: Callable[[int], None] | None = None,
) -> int:
    """Forward until a signal comes; only in the main thread.

    Args:
        aws: the AWS session.
        find: answers the target of the session; see `lifetime.started`.
        port: the port there.
        host: the host, as the container names it; "": the container itself.
        local_port: the port on 127.0.0.1; 0: a free one.
        wait: seconds to try again while the target is not connected.
        ready: is told the local port when connections can be made; by default it is printed.

    Returns:
        0 where the user ended it (Ctrl-C), else 128 + the signal.

    Raises:
        SmsshError: the port here is taken, or the session ended by itself.
    """
    with contextlib.closing(_listener(local_port)) as listener, Signals() as signals:
        document = _document(port, host)
        try:
            with started(aws, find, [document], signals, wait=wait) as lifetime:
                _forward(lifetime, listener, f"{host or 'the container'}, port {port}", ready or _announce)
        except Stopped:
            pass
        return 0 if signals.number == 2 else 128 + signals.number


def _document(port: int, host: str) -> Document:
    parameters = {"portNumber": str(port), "localPortNumber": "0"}
    if host:
        return Document(REMOTE_DOCUMENT, {**parameters, "host": host})
    return Document(FORWARD_DOCUMENT, parameters)


def _listener(port: int) -> socket.socket:
    try:
        made = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise SmsshError(
            f"port {port} of this machine is taken"
            if taken
            else f"cannot listen on port {port}: {error.strerror}",
            hint="choose another local port, or 0 for a free one: 0:PORT",
            reference="port-taken",
        ) from error
    made.setblocking(False)
    return made


def _allow_descriptors() -> None:
    """As many descriptors as this process may have: each connection takes one."""
    with contextlib.suppress(ValueError, OSError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _announce(port: int) -> None:
    print(f"127.0.0.1:{port}", flush=True)
    say("connections are forwarded; press Ctrl-C to end")


def _forward(lifetime: Lifetime, listener: socket.socket, where: str, ready: Callable[[int], None]) -> None:
    from .forward_loop import Forwarder
    from .loop import Ending
    from .wire.channel import PORT

    signals = lifetime.signals
    full: list[bool] = []

    def on_full() -> None:
        if not full:
            full.append(True)
            say("no more connections can be opened at once (ulimit -n); the next ones wait for others to end")

    _allow_descriptors()
    channel = lifetime.channel((PORT,))
    try:
        forwarder = Forwarder(
            channel,
            listener,
            wake=signals.wake,
            ending=signals.ending,
            on_ready=lambda: ready(listener.getsockname()[1]),
            on_unreachable=lambda: say(f"a connection was refused: the agent cannot connect to {where}"),
            on_full=on_full,
        )
        ending = forwarder.run()
        if ending is Ending.CLOSED:
            raise SmsshError(
                f"the session ended{f': {channel.closed}' if channel.closed else ''}",
                hint="see whether the job has ended: `smssh list`",
                reference="session-closed",
                status=ExitStatus.UNREACHABLE,
            )
        channel.terminate(time.monotonic())
    finally:
        channel.close()
        sys.stdout.flush()
