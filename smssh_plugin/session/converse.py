"""A program's talk with the shell of a session: lines and files there, marked lines back."""

from __future__ import annotations

import os
import select
import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from ..errors import ExitStatus, SmsshError
from .lifetime import CONNECT_SECONDS, Document, started
from .signals import Signals, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..aws.session import AwsSession

__all__ = ["Shell", "converse"]

T = TypeVar("T")
_COLUMNS, _ROWS = 200, 50
_KEPT = 1 << 20


class Shell:
    """The other end, for a function in a thread of its own.

    Args:
        writing: a descriptor to write what is typed.
        reading: a descriptor to read what is shown.
    """

    def __init__(self, writing: int, reading: int) -> None:
        self._writing = writing
        self._reading = reading
        self._shown = b""

    def send(self, data: bytes) -> None:
        """Type something."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._writing, view) :]
            except BrokenPipeError:  # noqa: PERF203 - system calls are dearer
                raise _gone(self._shown) from None

    def expect(self, marker: bytes, seconds: float) -> bytes:
        """What is shown up to a marker, which is taken out.

        Raises:
            SmsshError: TIMEOUT, or the session ended first; with what was shown last.
        """
        deadline = time.monotonic() + seconds
        while marker not in self._shown:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._reading], [], [], left)[0]:
                raise SmsshError(
                    f"the shell does not answer: {_last_line(self._shown)}",
                    reference="shell-timeout",
                    status=ExitStatus.TIMEOUT,
                )
            data = os.read(self._reading, 65536)
            if not data:
                raise _gone(self._shown)
            self._shown = (self._shown + data)[-_KEPT:]
        before, _, self._shown = self._shown.partition(marker)
        return before


class _Talk(threading.Thread, Generic[T]):
    """Runs the talk, and keeps what comes of it."""

    def __init__(self, talk: Callable[[Shell], T], shell: Shell, close: Callable[[], None]) -> None:
        super().__init__(name="talk", daemon=True)
        self.result: T | None = None
        self.trouble: BaseException | None = None
        self._talk = talk
        self._shell = shell
        self._close = close

    def run(self) -> None:
        try:
            self.result = self._talk(self._shell)
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is waited for
            self.trouble = error
        finally:
            self._close()  # which ends the session


# Long: one conversation, from its pipes to their ends.
def converse(
    aws: AwsSession,
    find: Callable[[bool], str],
    talk: Callable[[Shell], T],
    *,
    wait: float = CONNECT_SECONDS,
) -> T:
    """Open a shell, have `talk` use it, and end it; only in the main thread.

    Args:
        aws: the AWS session.
        find: answers the target of the session; see `lifetime.started`.
        talk: runs in a thread.
        wait: seconds to try again while the target is not connected.

    Returns:
        What `talk` returned.

    Raises:
        SmsshError: what `talk` raised, or what went wrong with the session.
    """
    from .loop import nonblocking
    from .pump import Pump
    from .wire.channel import SHELL

    source, writing = os.pipe()
    reading, sink = os.pipe()
    thread = _Talk(talk, Shell(writing, reading), lambda: os.close(writing))
    sized = False

    def turn(now: float) -> None:
        nonlocal sized
        if not sized and channel.settled:
            sized = True
            channel.resize(_COLUMNS, _ROWS, now)
            thread.start()

    try:
        with Signals() as signals, started(aws, find, [Document("")], signals, wait=wait) as lifetime:
            channel = lifetime.channel((SHELL,))
            try:
                with nonblocking(source, sink):
                    Pump(channel, source, sink, wake=signals.wake, ending=signals.ending, turn=turn).run()
                channel.terminate(time.monotonic())
            finally:
                channel.close()
                os.close(sink)  # so that nobody waits for more
                os.close(source)
                if sized:
                    thread.join()
                else:
                    os.close(writing)
                os.close(reading)
    except Stopped:
        raise KeyboardInterrupt from None
    if thread.trouble is not None:
        raise thread.trouble
    if signals.number:
        raise KeyboardInterrupt
    if not sized:
        raise _gone(b"")
    return thread.result  # type: ignore[return-value]


def _gone(shown: bytes) -> SmsshError:
    return SmsshError(
        f"the shell ended: {_last_line(shown)}", reference="shell-ended", status=ExitStatus.UNREACHABLE
    )


def _last_line(shown: bytes) -> str:
    lines = [line for line in shown.decode("utf-8", "replace").split("\n") if line.strip()]
    return " ".join(lines[-1].split())[-200:] if lines else "it showed nothing"
