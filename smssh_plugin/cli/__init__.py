"""`smssh`: the command line.

The way in is kept short: `smssh proxy` and `smssh known-hosts` run inside every `ssh`, and `--help` should
feel instant, so nothing is imported before it is known to be needed. Commands are found through the table
below; a command's module is imported when it is called.
"""

from __future__ import annotations

import os
import sys

__all__ = ["COMMANDS", "COMPLETION", "main"]

COMMANDS: dict[str, tuple[str, str, str]] = {
    "bundle": ("bundle", "bundle", "Build, show and verify what goes into a job's container."),
    "certify": ("certify", "certify", "Make a short-lived SSH certificate for a key."),
    "connect": ("connect", "connect", "Log in to a job's container, or run a command there."),
    "debug": ("debug", "debug", "Watch a pipeline, fix the step that fails while it is held, and report."),
    "enable": ("enable", "enable", "Switch SageMaker's remote debugging on in a training job that runs."),
    "extend": ("remote", "extend", "Give a held job more time."),
    "forward": ("forward", "forward", "Forward a port by Session Manager alone, without SSH."),
    "hold": ("remote", "hold", "Ask a running job to hold at its next failure or its end."),
    "known-hosts": (
        "known_hosts",
        "known_hosts",
        "Print an announced host key, for ssh's KnownHostsCommand.",
    ),
    "list": ("list", "list_", "List the hosts that can be reached."),
    "local": ("local", "local", "Run SageMaker jobs and pipelines on this machine: the stand-in."),
    "proxy": ("proxy", "proxy", "Connect stdin and stdout with a job's SSH server, for ssh's ProxyCommand."),
    "release": ("remote", "release", "Let a held job end."),
    "retry": ("remote", "retry", "Run a held job's entry point again."),
    "shell": ("shell", "shell", "Open a shell by Session Manager alone, where no SSH server runs."),
    "ssh-config": ("ssh_config", "ssh_config", "Make `ssh ADDRESS`, scp, rsync and VS Code work."),
    "status": ("remote", "status", "Show what a job's container is doing."),
}
"""Name of a command: its module in this package, its name there, and its line in `smssh --help`."""


COMPLETION = "_SMSSH_COMPLETE"
"""The variable by which a shell asks for completions, as click has it: `bash_source`, `zsh_complete`, ..."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; answers the exit status (`ExitStatus`, or that of a remote command)."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if words[:1] in (["proxy"], ["known-hosts"]):
            from .door import enter

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
    except KeyboardInterrupt:  # also in the middle of an import
        return 130
