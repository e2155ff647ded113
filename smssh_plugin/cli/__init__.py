"""`smssh`: the command line.

The way in is kept short: `smssh proxy` runs inside every `ssh`, and `--help` should feel
instant, so nothing is imported before it is known to be needed. `commands` has the table
of commands; a command's module is imported when it is called.
"""

from __future__ import annotations

import os
import sys

from .commands import COMPLETION, PACKAGES

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; answers the exit status (`ExitStatus`, or that of a remote command)."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if words[:1] in (["proxy"], ["known-hosts"]):
            from .fast_path import enter

            status = enter(words)
            if status is not None:
                return status
        if COMPLETION in os.environ:
            from .app import complete

            return complete()
        if words == ["--version"]:
            from .._version import __version__

            print(f"smssh {__version__}")
            return 0
        if words in ([], ["--help"], ["-h"]):
            from .help import text

            sys.stdout.write(text())
            return 0 if words else 2
        from .app import run

        return run(words)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package not in PACKAGES:
            raise
        print(f"error: smssh needs the package {package}, which is not installed", file=sys.stderr)
        print('hint: install the commands: pip install "smssh-plugin[cli]"', file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # also in the middle of an import
        return 130
