"""Entry points that have to be process 1: init systems, and scripts that check their own process id.

They are started by exec, as the process that they would be without us, with the supervisor beside them: a person can
log in, but they are not held or retried, because init is not their parent.

CPython 3.7 and later, standard library only.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing itself would cost the start of the job
if TYPE_CHECKING:
    from typing import Sequence

NAMES = frozenset(["init", "systemd", "s6-svscan", "s6-overlay-suexec", "runit", "runit-init", "openrc-init"])
"""Programs that end, or are something else, as any other process: of s6, systemd, runit, OpenRC, BusyBox."""
ID = r'(\$\$|\$BASHPID|\bgetpid\(\))["\']?'
COMPARED = r"\s*(-eq|-ne|-gt|[!=]?={1,2}|>)\s*"
LIMIT = 65536
"""Bytes that are read of a script."""


def is_required(command: Sequence[str]) -> bool:
    """Whether an entry point has to be the container's first process.

    Args:
        command: its command line.
    """
    return is_required_by_words(command) or any(_asks(_script(word)) for word in command[:3])


def is_required_by_words(command: Sequence[str]) -> bool:
    """Whether its words alone show that: all that is known where the job is submitted.

    Args:
        command: the command line, or as much of it as is known.
    """
    # The program, and what an interpreter is given: a script, or the text after -c.
    return os.path.basename(command[0]) in NAMES or any(_asks(word) for word in command[:3])


def _asks(text: str) -> bool:
    """Whether a program compares its process id with 1."""
    if "$$" not in text and "$BASHPID" not in text and "getpid()" not in text:
        return False
    import re

    one = r'["\']?1["\']?(?![\w.])'
    return bool(re.search(f"{ID}{COMPARED}{one}|(?<![\\w.$]){one}{COMPARED}[\"']?{ID}", text))


def _script(path: str) -> str:
    """The text of a script; '' for anything else."""
    if "/" not in path or len(path) > 1024:
        return ""
    try:
        if not os.path.isfile(path):
            return ""
        with open(path, "rb") as file:
            start = file.read(LIMIT)
    except (OSError, ValueError):
        return ""
    return "" if b"\0" in start else start.decode("utf-8", "replace")
