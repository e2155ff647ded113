"""Who is logged in to this container.

What counts is a person's login, whatever it carries: a shell, a file copy, an IDE, or port forwards alone. How many
bytes pass says nothing: keep-alives look like traffic, and a debugger at a breakpoint looks idle. A
connection that nobody has at its other end any more is ended by the SSH server (it asks every minute, three times),
and Session Manager ends a session in which no byte has passed for its idle time-out. One that is forgotten, with its
laptop open, counts: that is what SMSSH_HOLD_MAX_SECONDS and `placeholder --max` are for.

What does not count: a connection that has not logged in, and what comes by the SSH server's control port. By that one
`smssh status` and the like come, and the looks of `smssh debug`: a program that polls does not keep a hold open.

A session of Session Manager without SSH (`smssh shell`, `smssh forward`, the web console) counts too, once it lasts.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from .connections import Logins
from .workers import Workers

if TYPE_CHECKING:
    from ..hookspecs import Context, Server

__all__ = ["sessions"]

_lock = threading.Lock()
_workers = Workers()
_logins: dict[Server, Logins] = {}


def sessions(context: Context) -> int:
    """How many people are connected now, for the supervisor: over SSH, or by a session of its agent without it."""
    server = context.server
    if server is None:
        return 0
    # SageMaker's own agent is not below this process.
    below = None if context.settings.transport == "native" else os.getpid()
    with _lock:
        logins = _logins.setdefault(server, Logins(server.logins))
        return logins.count(server.port) + _workers.count((server.port, server.control_port), below)
