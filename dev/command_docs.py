"""docs/commands.md: every command of `smssh` and `smssh-hook`, from what each says with `--help`."""

from __future__ import annotations

import argparse
import ast
import inspect
from typing import Iterator

import click

from smssh_plugin.cli.app import group
from smssh_plugin.cli.commands import COMMANDS
from smssh_plugin.entrypoints.smssh_hook import parser
from smssh_plugin.errors import ExitStatus

HEAD = """\
# Commands

<!-- Written by dev/docs.py from smssh_plugin/cli/ and entrypoints/smssh_hook.py. -->

`smssh` is for the laptop and for CI. `smssh-hook` is for use inside a job's container.

An address is `[HOST.]JOB.KIND.sagemaker`, where KIND is `training`, `processing` or `transform`, or
`[HOST.]STEP[.EXECUTION].PIPELINE.pipeline.sagemaker`. Without an execution it means the newest one. `smssh list` shows
the addresses of endpoints. Every command has `--help`.

| command | purpose |
| --- | --- |
{commands}

Both end with one of these statuses:

| status | meaning |
| --- | --- |
{statuses}
"""


def page() -> str:
    """docs/commands.md."""
    commands = [f"| [`smssh {name}`](#smssh-{name}) | {COMMANDS[name][2]} |" for name in sorted(COMMANDS)]
    hooks = hook_commands()
    commands += [
        f"| [`smssh-hook {name}`](#smssh-hook-{name}) | {sentence(line)} |" for name, line, _ in hooks
    ]
    statuses = [f"| {status.value} | {text} |" for status, text in status_texts()]
    parts = [HEAD.format(commands="\n".join(commands), statuses="\n".join(statuses))]
    for name in sorted(COMMANDS):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        parts += click_texts(command, click.Context(command, info_name=f"smssh {name}"), "##")
    parts += [hook_text(name, line, command) for name, line, command in hooks]
    return "\n".join(parts)


def click_texts(command: click.Command, context: click.Context, heading: str) -> Iterator[str]:
    """A command of `smssh`, and those below it: usage, purpose, options."""
    usage = " ".join([context.info_name or "", *command.collect_usage_pieces(context)])
    yield f"{heading} smssh {(context.info_name or '').removeprefix('smssh ')}\n"
    yield f"```console\n$ {usage}\n```\n"
    yield paragraphs(command.help or "")
    # Not by its whole name: a command that has run in this process keeps the help option of that run, `-h, --help`.
    options = [each for each in command.get_params(context) if "--help" not in each.opts]
    shown = [each.get_help_record(context) for each in options]
    rows = [record for record in shown if record and record[0].startswith("-")]
    if rows:
        yield table(rows)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            inner = click.Context(below, info_name=f"{context.info_name} {name}")
            yield from click_texts(below, inner, heading + "#")


def hook_commands() -> list[tuple[str, str, argparse.ArgumentParser]]:
    """The commands of `smssh-hook`: name, line of help, parser."""
    (below,) = (each for each in parser()._actions if isinstance(each, argparse._SubParsersAction))  # noqa: SLF001 - argparse shows its commands in no other way
    return [(each.dest, each.help or "", below.choices[each.dest]) for each in below._choices_actions]  # noqa: SLF001


def hook_text(name: str, line: str, command: argparse.ArgumentParser) -> str:
    """A command of `smssh-hook`: usage, purpose, options."""
    usage = " ".join(command.format_usage().removeprefix("usage: ").split())
    usage = "smssh-hook run [--] COMMAND [ARGUMENT...]" if name == "run" else usage
    rows = [
        (" ".join(action.option_strings) or str(action.dest).upper(), action.help or "")
        for action in command._actions  # noqa: SLF001 - as above
        if action.dest != "help"
    ]
    text = f"## smssh-hook {name}\n\n```console\n$ {usage}\n```\n\n{paragraphs(command.description or sentence(line))}"
    return text + ("\n" + table(rows) if rows else "")


def table(rows: list[tuple[str, str]]) -> str:
    """Options as a table."""
    cells = [f"| `{escaped(name)}` | {sentence(escaped(' '.join(text.split())))} |" for name, text in rows]
    return "\n".join(["| option | meaning |", "| --- | --- |", *cells]) + "\n"


def escaped(text: str) -> str:
    """Text in a cell of a table, in which `<` begins no element."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def paragraphs(text: str) -> str:
    """Help as Markdown; what click shows as it stands (after a backspace) is a block of code."""
    shown = []
    for part in inspect.cleandoc(text).split("\n\n"):
        lines = part.splitlines()
        if lines[0] == "\b":
            shown.append("\n".join(["```text", *lines[1:], "```"]))
        else:
            shown.append(" ".join(lines).replace("<", "&lt;"))
    return "\n\n".join(shown) + "\n"


def sentence(text: str) -> str:
    """Text that begins with a capital letter, unless it begins with an address, and ends with a point."""
    text = text if ":" in text.split()[0] else text[:1].upper() + text[1:]
    return text if text.endswith((".", "]", ")")) else text + "."


def status_texts() -> Iterator[tuple[ExitStatus, str]]:
    """The exit statuses, each with the string below it in errors.py."""
    (tree,) = ast.parse(inspect.getsource(ExitStatus)).body
    assert isinstance(tree, ast.ClassDef)
    for node, below in zip(tree.body, [*tree.body[1:], ast.Pass()]):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            documented = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            text = str(below.value.value) if documented else "Success."  # type: ignore[attr-defined]
            yield ExitStatus[node.targets[0].id], " ".join(text.split())
