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
    """Runs the talk at its ends of two pipes, and keeps the result; the session has `source` and `sink`."""

    def __init__(self, talk: Callable[[Shell], T]) -> None:
        super().__init__(name="talk", daemon=True)
        self.source, self._writing = os.pipe()
        self._reading, self.sink = os.pipe()
        self.result: T | None = None
        self.trouble: BaseException | None = None
        self._talk = talk

    def run(self) -> None:
        try:
            self.result = self._talk(Shell(self._writing, self._reading))
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is waited for
            self.trouble = error
        finally:
            os.close(self._writing)  # which ends the session

    def end(self) -> None:
        """Wait for the talk, if it was started; there is no session any more."""
        os.close(self.sink)  # so that nobody waits for more
        os.close(self.source)
        if self.ident is not None:
            self.join()
        else:
            os.close(self._writing)
        os.close(self._reading)


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

    def turn(now: float) -> None:
        if thread.ident is None and channel.settled:
            channel.resize(_COLUMNS, _ROWS, now)
            thread.start()

    try:
        with Signals() as signals, started(aws, find, [Document("")], signals, wait=wait) as lifetime:
            channel = lifetime.channel((SHELL,))
            thread = _Talk(talk)
            try:
                with nonblocking(thread.source, thread.sink):
                    Pump(
                        channel,
                        thread.source,
                        thread.sink,
                        wake=signals.wake,
                        ending=signals.ending,
                        turn=turn,
                    ).run()
                channel.terminate(time.monotonic())
            finally:
                channel.close()
                thread.end()
    except Stopped:
        raise KeyboardInterrupt from None
    if thread.trouble is not None:
        raise thread.trouble
    if signals.number:
        raise KeyboardInterrupt
    if thread.ident is None:
        raise _gone(b"")
    return thread.result  # type: ignore[return-value]


def _gone(shown: bytes) -> SmsshError:
    return SmsshError(
        f"the shell ended: {_last_line(shown)}", reference="shell-ended", status=ExitStatus.UNREACHABLE
    )


def _last_line(shown: bytes) -> str:
    lines = [line for line in shown.decode("utf-8", "replace").split("\n") if line.strip()]
    return " ".join(lines[-1].split())[-200:] if lines else "it showed nothing"
