"""Puts the agent double into a folder under the name of the real program."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PACE", "install"]

PROGRAM = "amazon-ssm-agent"
PACE = 0.001
"""The real agent's: with messages of 1024 bytes, about 1 MB/s."""
_SHEBANG_MAX = 127
"""Bytes of a `#!` line that every Linux takes (127 before 5.1, 255 since)."""

_BODY = """\
import sys

from smssh_plugin.local.agent.cli import main

sys.exit(main(sys.argv, {pace!r}))
"""


def install(folder: Path, pace: float = PACE) -> Path:
    """Write an executable `amazon-ssm-agent` that runs under this interpreter, whatever its environment.

    Args:
        folder: where; made.
        pace: seconds from one message of a session's output to the next; 0 for as fast as it goes.

    Returns:
        The program. It may be copied elsewhere: the folder that it is started from is where its
        configuration is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / PROGRAM
    program.write_text(_head(sys.executable) + _BODY.format(pace=pace))
    program.chmod(0o755)
    return program


def _head(interpreter: str) -> str:
    # -I: neither PYTHONPATH nor the working folder of a job may change what is imported here.
    line = f"#!{interpreter} -I\n"
    if len(line.encode()) <= _SHEBANG_MAX and not any(character.isspace() for character in interpreter):
        return line
    # Valid as shell and as Python, the way pip's launchers do it.
    return f"#!/bin/sh\n'''exec' '{interpreter}' -I \"$0\" \"$@\"\n' '''\n"
