"""The click application: lazy commands, and one place where errors become text and exit statuses."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from .. import streams
from .._version import __version__
from ..errors import ExitStatus, SmsshError
from . import extensions
from .commands import COMMANDS, COMPLETION
from .fast_path import say, system_error
from .help import text as help_page

__all__ = ["aws_options", "group", "json_option", "run"]

Function = TypeVar("Function", bound=Callable[..., Any])


class LazyGroup(click.Group):
    """A group that knows its commands by name and line of help, and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is click's
        """The names, sorted."""
        return sorted([*COMMANDS, *extensions.commands()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - the signature is click's
        """Import the command, one of ours or a plugin's."""
        home = COMMANDS.get(cmd_name)
        if home is None:
            streams.give_back()  # what a plugin's command reads is its own affair
            return extensions.load(cmd_name)
        command: click.Command = getattr(import_module(f".{home[0]}", __package__), home[1])
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The names of commands, from the table: no command is imported while somebody types."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        lines = {**dict.fromkeys(extensions.commands(), ""), **{name: COMMANDS[name][2] for name in COMMANDS}}
        return [
            CompletionItem(name, help=line)
            for name, line in sorted(lines.items())
            if name.startswith(incomplete)
        ]

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - the signature is click's
        """The one page there is, however it is asked for."""
        formatter.write(help_page())


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="smssh %(version)s")
def group() -> None:
    """All commands."""


def run(words: list[str]) -> int:
    """Run a command line; answers the exit status, prints errors once."""
    streams.open_outputs()
    try:
        with streams.input_aside():
            status = group.main(words, prog_name="smssh", standalone_mode=False)
        sys.stdout.flush()
    except SmsshError as error:
        say(error)
        return int(error.status)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "smssh"
        say(SmsshError(error.format_message(), hint=f"see `{where} --help`"))
        return int(ExitStatus.USAGE)
    except click.ClickException as error:
        say(SmsshError(error.format_message()))
        return int(ExitStatus.FAILED)
    except (click.Abort, KeyboardInterrupt):
        return int(ExitStatus.INTERRUPTED)
    except BrokenPipeError:
        # `smssh list | head`: nobody reads any more. Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except OSError as error:
        say(system_error(error))
        return int(ExitStatus.FAILED)
    return int(status) if isinstance(status, int) else 0


def complete() -> int:
    """What a shell asked for in `COMPLETION`: its script, or the words that go on; answers the exit status."""
    from click.shell_completion import shell_complete

    shown = sys.stdout
    try:
        return shell_complete(group, {}, "smssh", COMPLETION, os.environ[COMPLETION])
    except SmsshError:
        return int(ExitStatus.FAILED)  # a line of ours would stand in the middle of what is typed
    finally:
        shown.flush()


def aws_options(function: Function) -> Function:
    """The options of every command that calls AWS."""
    function = click.option("--profile", help="Profile of the AWS configuration. [env var: AWS_PROFILE]")(
        function
    )
    return click.option("--region", help="AWS region. [env var: AWS_REGION, AWS_DEFAULT_REGION]")(function)


def json_option(function: Function) -> Function:
    """The option of every command that reads."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(function)
