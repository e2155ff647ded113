"""The commands of `smssh`: found by this table, imported when one is called."""

from __future__ import annotations

__all__ = ["COMMANDS", "COMPLETION", "PACKAGES"]


COMMANDS: dict[str, tuple[str, str, str]] = {
    "bundle": ("bundle", "bundle", "Build, show and verify what goes into a job's container."),
    "certify": ("certify", "certify", "Make a short-lived SSH certificate for a key."),
    "cleanup": ("cleanup", "cleanup", "Remove the managed nodes and activations of jobs that have ended."),
    "connect": ("connect", "connect", "Log in to a job's container, or run a command there."),
    "costs": ("costs", "costs", "Show what SSH in jobs took and cost: node hours, hold minutes, money."),
    "debug": ("debug", "debug", "Watch a pipeline, fix the step that fails while it is held, and report."),
    "diff": ("diff", "diff", "Show what people have changed in a job's code, as a patch."),
    "doctor": ("doctor", "doctor", "Find out what keeps you from logging in, and who has to do what."),
    "extend": ("remote", "extend", "Give a held job more time."),
    "forward": ("forward", "forward", "Forward a port by Session Manager alone, without SSH."),
    "hold": ("remote", "hold", "Ask a running job to hold at its next failure or its end."),
    "known-hosts": (
        "known_hosts",
        "known_hosts",
        "Print an announced host key, for ssh's KnownHostsCommand.",
    ),
    "list": ("list", "list_", "List the hosts that can be reached."),
    "local": ("local", "local", "Run SageMaker jobs and pipelines on this machine: the local emulator."),
    "proxy": ("proxy", "proxy", "Connect stdin and stdout with a job's SSH server, for ssh's ProxyCommand."),
    "release": ("remote", "release", "Let a held job end."),
    "remote-debug": (
        "remote_debug",
        "remote_debug",
        "Switch SageMaker's remote debugging on in a training job that runs.",
    ),
    "retry": ("remote", "retry", "Run a held job's entry point again."),
    "setup": ("setup", "setup", "Print or write the IAM policies and settings that an AWS account needs."),
    "shell": ("shell", "shell", "Open a shell by Session Manager alone, where no SSH server runs."),
    "ssh-config": ("ssh_config", "ssh_config", "Make `ssh ADDRESS`, scp, rsync and VS Code work."),
    "status": ("remote", "status", "Show what a job's container is doing."),
}
"""Name of a command: its module in this package, its name there, and its line in `smssh --help`."""


COMPLETION = "_SMSSH_COMPLETE"
"""The variable by which a shell asks for completions, as click has it: `bash_source`, `zsh_complete`, ..."""
PACKAGES = ("click", "jinja2", "paramiko", "rich", "sshtunnel", "unidiff", "websockets")
"""What commands import of the extra `cli`, each when it is needed; an image has smssh-plugin without it."""
