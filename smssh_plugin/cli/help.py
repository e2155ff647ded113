"""`smssh --help`: plain text, without click, whose import alone takes longer than this page may."""

from __future__ import annotations

from ..terminal import line
from .commands import COMMANDS
from .extensions import commands

__all__ = ["text"]

_PAGE = """\
Usage: smssh [OPTIONS] COMMAND [ARGS]...

  SSH into any SageMaker job, and fix a failed pipeline step while it is still running.

  An ADDRESS is [HOST.]JOB.KIND.sagemaker, KIND being training, processing or transform,
  or [HOST.]STEP[.EXECUTION].PIPELINE.pipeline.sagemaker.

Options:
  --version   Show the version and exit.
  -h, --help  Show this page and exit; after a COMMAND: how that is used.

Commands:
"""


def text() -> str:
    """The page."""
    added = commands()
    width = max(map(len, [*COMMANDS, *added]))
    page = _PAGE + "".join(f"  {name.ljust(width)}  {COMMANDS[name][2]}\n" for name in sorted(COMMANDS))
    if added:
        page += "\nCommands of plugins:\n"
        page += "".join(
            f"  {line(name.ljust(width))}  from {line(added[name].partition(':')[0])}\n"
            for name in sorted(added)
        )
    return page
