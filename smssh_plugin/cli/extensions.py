"""Commands that installed packages add to `smssh`, through the hook `smssh_register_commands`."""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING

from ..terminal import put
from .commands import COMMANDS

if TYPE_CHECKING:
    import click

__all__ = ["any_plugin", "commands", "load"]

_SECTION = b"[smssh]"
"""The group's heading in entry_points.txt (https://packaging.python.org/en/latest/specifications/entry-points/)."""


def any_plugin() -> bool:
    """Whether any installed package names a plugin: a look at files, where importlib.metadata takes 40 ms."""
    for folder in sys.path:
        try:
            names = [
                each.path
                for each in os.scandir(folder or ".")
                if each.name.endswith((".dist-info", ".egg-info"))
            ]
        except OSError:  # a zip, or nothing
            continue
        if any(map(_names_plugins, names)):
            return True
    return False


def _names_plugins(metadata: str) -> bool:
    try:
        with open(os.path.join(metadata, "entry_points.txt"), "rb") as file:
            return _SECTION in file.read()
    except OSError:
        return False


@functools.cache
def commands() -> dict[str, str]:
    """Name of each added command, and where it is (`module:attribute`); our own names cannot be taken."""
    if not any_plugin():
        return {}
    from ..plugins import Plugins

    added = Plugins().register_commands({})
    for name in sorted(COMMANDS.keys() & added.keys()):
        put(f"smssh: a plugin's command {name} is left out: smssh has one", error=True)
    return {name: where for name, where in added.items() if name not in COMMANDS}


def load(name: str) -> click.Command | None:
    """The command of that name; None where no plugin has it.

    Raises:
        SmsshError: it cannot be imported, or is not a click command.
    """
    where = commands().get(name)
    if where is None:
        return None
    import importlib

    import click

    from ..errors import SmsshError

    module, _, attribute = str(where).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        raise SmsshError(
            f"the command {name} cannot be loaded from {where}: {problem}",
            hint="update or uninstall the package of the plugin",
            reference="broken-plugin-command",
        ) from error
    if not isinstance(found, click.Command):
        raise SmsshError(
            f"the command {name} of a plugin, {where}, is a {type(found).__qualname__}, not a click command",
            hint="update or uninstall the package of the plugin",
            reference="broken-plugin-command",
        )
    return found
