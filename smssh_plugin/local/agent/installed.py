"""Puts the fake agent into a folder under the name of the real program."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PACE", "Interpreter", "install"]

PROGRAM = "amazon-ssm-agent"
PACE = 0.001
"""The real agent's: with messages of 1024 bytes, about 1 MB/s."""
_SHEBANG_MAX = 127
"""Bytes of a `#!` line that every Linux takes (127 before 5.1, 255 since)."""

_BODY = """\
import sys

sys.path[:0] = {modules!r}
from smssh_plugin.local.agent.cli import main

sys.exit(main(sys.argv, {pace!r}))
"""


@dataclass(frozen=True)
class Interpreter:
    """What runs it.

    Args:
        command: the words before the program's name; the first is the path of a program.
        modules: the folders that it imports from, beside its own standard library.
    """

    command: tuple[str, ...]
    modules: tuple[str, ...] = ()

    @classmethod
    def ours(cls) -> Interpreter:
        """The one that this runs in."""
        # -I: neither PYTHONPATH nor the working folder of a job may change what is imported here.
        return cls((sys.executable, "-I"))


def install(folder: Path, pace: float = PACE, interpreter: Interpreter | None = None) -> Path:
    """Write an executable `amazon-ssm-agent` that runs whatever its environment is.

    Args:
        folder: where; made.
        pace: seconds from one message of a session's output to the next; 0 for as fast as it goes.
        interpreter: what it runs in, as the container sees it; by default the one that this runs in.

    Returns:
        The program. It may be copied elsewhere: the folder that it is started from is where its
        configuration is.
    """
    interpreter = interpreter or Interpreter.ours()
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / PROGRAM
    program.write_text(
        _head(interpreter.command) + _BODY.format(pace=pace, modules=list(interpreter.modules))
    )
    program.chmod(0o755)
    return program


def _head(command: tuple[str, ...]) -> str:
    line = "#!{}\n".format(" ".join(command))
    blank = any(character.isspace() for word in command for character in word)
    if len(command) <= 2 and len(line.encode()) <= _SHEBANG_MAX and not blank:
        return line
    # Valid as shell and as Python, the way pip's launchers do it.
    return f"#!/bin/sh\n'''exec' {shlex.join(command)} \"$0\" \"$@\"\n' '''\n"
