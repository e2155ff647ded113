"""What commands do with the standard streams that they were started with.

`smssh proxy` is started with ssh's stream as stdin and stdout, others in loops that read a file. Whatever asks there
for credentials (a `credential_process`, a prompt for an MFA code) must see neither. So every command runs with
/dev/null as stdin; the few that need what was there ask for it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from . import terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

__all__ = ["Lines", "give_back", "input_aside", "open_outputs", "output_aside", "own_stdin"]

LONGEST_LINE = 65536
"""Characters that are waited for a line's end for; see `Lines`."""

_own_stdin: int | None = None


@contextlib.contextmanager
def input_aside() -> Iterator[None]:
    """Within this block stdin is /dev/null; `own_stdin` is what it was."""
    global _own_stdin  # noqa: PLW0603 - descriptors belong to the process as well
    if _own_stdin is not None:  # a command that calls another one
        yield
        return
    with contextlib.suppress(OSError):  # closed: /dev/null takes its number then
        _own_stdin = os.dup(0)
    _null_at(0, os.O_RDONLY)
    try:
        yield
    finally:
        if _own_stdin is not None:
            os.dup2(_own_stdin, 0)
            os.close(_own_stdin)
            _own_stdin = None


def open_outputs() -> None:
    """Let what is written to a closed stdout or stderr go nowhere: nothing else takes its descriptor then."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            _null_at(descriptor, os.O_WRONLY)
            setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8", closefd=False))


@contextlib.contextmanager
def output_aside() -> Iterator[int]:
    """Within this block stdout is stderr; answers the descriptor of what stdout was."""
    aside = os.dup(1)
    try:
        os.dup2(2, 1)
    except OSError:  # closed
        _null_at(1, os.O_WRONLY)
    try:
        yield aside
    finally:
        os.dup2(aside, 1)
        os.close(aside)


def own_stdin() -> int:
    """The descriptor of the stdin that we were started with; programs that are started do not inherit it."""
    return 0 if _own_stdin is None else _own_stdin


def give_back() -> None:
    """Make it stdin again: for the program that this process becomes, and for commands that are not ours."""
    if _own_stdin is not None:
        os.dup2(_own_stdin, 0)


class Lines:
    """A stream of bytes, UTF-8, that is shown line by line as it comes.

    A line is shown when it has ended, or is longer than `LONGEST_LINE`: half of a sequence cannot be told from text.

    Args:
        out: where to.
        edit: what is made of a piece of text that is whole lines.
    """

    def __init__(self, out: TextIO, edit: Callable[[str], str] = str) -> None:
        import codecs

        self._out = out
        self._edit = edit
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._begun = ""

    def feed(self, data: bytes, *, end: bool = False) -> None:
        """Show what has become whole; at the end of the stream, all of it."""
        text = self._begun + self._decode(data, end)
        cut = text.rfind("\n") + 1
        shown, self._begun = text[:cut], text[cut:]
        if end or len(self._begun) > LONGEST_LINE:
            shown, self._begun = text if end else text + "\n", ""
        if shown:
            self._out.write(terminal.block(self._edit(shown)))
            self._out.flush()


def _null_at(descriptor: int, flags: int) -> None:
    null = os.open(os.devnull, flags)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
