"""Signals as a readable descriptor, and as an exception where that is allowed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["Signals", "Stopped"]

_ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):  # noqa: N818 - not an error
    """A signal came, and nothing has to be undone."""


class Signals:
    """A context manager, for the main thread.

    Args:
        resize: whether SIGWINCH is to be noticed, too.
        ignored: whether to handle signals that the parent process had set to be ignored, too, as nohup does.
    """

    def __init__(self, *, resize: bool = False, ignored: bool = False) -> None:
        self.number = 0
        """The first signal that came to end us; 0 for none."""
        self.resized = resize
        """Whether the terminal may have another size than it had."""
        self.raising = False
        """Whether a signal may interrupt what runs now."""
        ending = [number for number in _ENDING if ignored or signal.getsignal(number) is not signal.SIG_IGN]
        self._handled = (*ending, signal.SIGWINCH) if resize else (*ending,)
        self.wake, self._written = os.pipe()
        for fd in (self.wake, self._written):
            os.set_blocking(fd, False)

    def __enter__(self) -> Signals:  # noqa: PYI034 - Self is of 3.11
        self._before: list[Any] = [signal.signal(number, self._note) for number in self._handled]
        self._wakeup = signal.set_wakeup_fd(self._written, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in zip(self._handled, self._before, strict=True):
            signal.signal(number, handler)
        os.close(self.wake)
        os.close(self._written)

    def ending(self) -> bool:
        """To be called when `wake` is readable: whether it is to end, or only looked up for something else."""
        if not self.number:
            with contextlib.suppress(BlockingIOError):
                os.read(self.wake, 512)
        return bool(self.number)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within this block a signal raises `Stopped`; one that came before does so at once."""
        self.raising = True
        try:
            if self.number:
                raise Stopped
            yield
        finally:
            self.raising = False

    def pause(self, seconds: float) -> None:
        """Sleep, but not over a signal.

        Raises:
            Stopped: a signal came, now or before.
        """
        if self.number or (select.select([self.wake], [], [], seconds)[0] and self.ending()):
            raise Stopped

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGWINCH:
            self.resized = True
            return
        self.number = self.number or number
        if self.raising:
            self.raising = False
            raise Stopped
