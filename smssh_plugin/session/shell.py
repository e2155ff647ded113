"""A shell, or one command, in a terminal that the agent makes: for containers in which no SSH server runs.

What is typed goes through as it is, Ctrl-C too. A line that begins with `~.` ends the session, as in ssh: a network
that is gone must not keep the terminal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
import time
import tty
from typing import TYPE_CHECKING, Any

from ..errors import ExitStatus, SmsshError
from ..streams import input_aside, own_stdin
from .command_status import CommandStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..aws.session import AwsSession
    from .lifetime import Lifetime
    from .loop import Ending
    from .signals import Signals

__all__ = ["Escape", "run"]

END_OF_TRANSMISSION = b"\x04"
"""What Ctrl-D types: how the end of a file is told to a program that reads a terminal."""
AHEAD = 64 * 1024
"""Bytes that may be typed while nothing can be sent: the way out must be seen behind them."""
NO_TERMINAL = (80, 24)
"""Columns and rows where stdout is not a terminal."""


class Escape:
    """Looks for `~.` at the beginning of a line; `~~` there is one `~`."""

    def __init__(self) -> None:
        self._begins = True
        self._tilde = False

    def __call__(self, data: bytes) -> bytes | None:
        """What of `data` is to be sent; None if the session is to end."""
        sent = bytearray()
        for byte in data:
            if self._tilde:
                self._tilde = False
                if byte == ord("."):
                    return None
                if byte != ord("~"):
                    sent += b"~"
            elif self._begins and byte == ord("~"):
                self._tilde = True
                self._begins = False
                continue
            sent.append(byte)
            self._begins = byte in b"\r\n"
        return bytes(sent)


def run(
    aws: AwsSession,
    find: Callable[[bool], str],
    command: str | None = None,
    *,
    wait: float = 30.0,
    source: int | None = None,
    sink: int = 1,
) -> int:
    """Run it until it ends; only in the main thread.

    Args:
        aws: the AWS session.
        find: answers the target of the session; see `lifetime.started`.
        command: a line for the shell; None: a shell.
        wait: seconds to try again while the target is not connected.
        source: the descriptor to read, instead of stdin. Whatever is started or asked here, stdin is /dev/null to it.
        sink: the descriptor to write, instead of stdout.

    Returns:
        0, the command's status, 128 + the signal, or 130 where the session was left by `~.` before the command's end.

    Raises:
        SmsshError: what went wrong; UNREACHABLE too where a command ended without telling its status.
    """
    from . import lifetime
    from .signals import Signals, Stopped

    status = CommandStatus() if command else None
    parameters = {"command": status.wrap(command)} if command and status else {}
    document = lifetime.Document(lifetime.COMMAND_DOCUMENT if command else "", parameters)
    with input_aside(), Signals(resize=True) as signals:
        source = own_stdin() if source is None else source
        try:
            with lifetime.started(aws, find, [document], signals, wait=wait) as session:
                return _talk(session, signals, source, sink, status)
        except Stopped:
            return 128 + signals.number


def _talk(session: Lifetime, signals: Signals, source: int, sink: int, status: CommandStatus | None) -> int:
    from .lifetime import say
    from .loop import Ending, nonblocking
    from .pump import Pump
    from .wire.channel import COMMANDS, SHELL

    channel = session.channel((SHELL, COMMANDS))
    channel.on_error = lambda data: _write_all(2, data)
    escape = Escape()
    terminal = os.isatty(source)

    def turn(now: float) -> None:
        if not restoring.entered:
            # Not before: until the other side is there, Ctrl-C is for us.
            restoring.enter()
            if channel.customer_message:
                say(channel.customer_message)
        if signals.resized and channel.settled:
            signals.resized = False
            channel.resize(*_size(sink), now)

    try:
        with _Raw(source if terminal else None) as restoring, nonblocking(source, sink):
            pump = Pump(
                channel,
                source,
                sink,
                wake=signals.wake,
                ending=signals.ending,
                turn=turn,
                edit=escape if terminal else lambda data: data,
                ahead=AHEAD if terminal else 0,
                show=status.take if status else lambda data: data,
                farewell=None if terminal else END_OF_TRANSMISSION,
            )
            ending = pump.run()
        if status is not None:
            _write_all(sink, status.rest())
        if ending is Ending.CLOSED and channel.closed:
            raise SmsshError(
                f"the session ended: {channel.closed}",
                reference="session-closed",
                status=ExitStatus.UNREACHABLE,
            )
        channel.terminate(time.monotonic())
    finally:
        channel.close()
    if signals.number:
        return 128 + signals.number
    if status is None:
        return 0
    return _status(status.status if status.status is not None else channel.exit_code, ending)


def _status(told: int | None, ending: Ending) -> int:
    from .loop import Ending

    if told is not None:
        return told
    if ending is Ending.STOPPED:  # `~.`
        return ExitStatus.INTERRUPTED
    if ending is Ending.SINK:
        return 128 + signal.SIGPIPE
    raise SmsshError(
        "the command ended without telling its exit status: it was killed, or its container ended",
        hint="see the state of the job: `smssh status`",
        reference="command-status-unknown",
        status=ExitStatus.UNREACHABLE,
    )


def _size(fd: int) -> tuple[int, int]:
    try:
        size = os.get_terminal_size(fd)
    except OSError:
        return NO_TERMINAL
    return (size.columns, size.lines) if size.columns and size.lines else NO_TERMINAL


class _Raw:
    """Restores a terminal at the end of its block; from `enter` on it passes everything on as it is.

    Args:
        fd: the terminal; None if there is no terminal.
    """

    def __init__(self, fd: int | None) -> None:
        self.entered = False
        self._fd = fd
        self._before: list[Any] = []

    def __enter__(self) -> _Raw:  # noqa: PYI034 - Self is of 3.11
        return self

    def enter(self) -> None:
        self.entered = True
        if self._fd is not None:
            self._before = termios.tcgetattr(self._fd)
            tty.setraw(self._fd)

    def __exit__(self, *_: object) -> None:
        if self._before and self._fd is not None:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)


def _write_all(fd: int, data: bytes) -> None:
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        while data:
            data = data[os.write(fd, data) :]
