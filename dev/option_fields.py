"""Write smssh_plugin/submit/option_fields.py: the fields of SSHOptions, from the table in smssh_plugin/settings.py.

    .venv/bin/python dev/option_fields.py [--check]

An option is written down once, in the table. Editors and type checkers do not run programs, so what they are to know
of an option stands in a module of its own, which this writes. It comes before dev/docs.py, which imports SSHOptions.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
import textwrap
from pathlib import Path

from smssh_plugin import settings

MODULE = Path(settings.__file__).parent / "submit" / "option_fields.py"
HEAD = """\
# Written by dev/option_fields.py from smssh_plugin/settings.py: change the table there, and run `make docs`.
\"\"\"The fields of `SSHOptions`.\"\"\"

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping

__all__ = ["OptionFields"]


@dataclass(frozen=True)
class OptionFields:
    \"\"\"How a job is entered. Every default costs nobody money: no wait, no hold.

    The variable in parentheses says the same on a job, and wins over the option; most options travel in the bundle's
    `options.json`, because a job's environment is scarce. A list is a tuple of texts, or one text with commas
    (`authorized_keys`: with line ends). A duration is a number of seconds, or a text such as "30m".

    Attributes:
"""
RAISES = """
    Raises:
        SmsshError: an option is outside its limits.
    \"\"\"

"""
WIDTH = 120


def module() -> str:
    """The module."""
    text = [HEAD]
    meanings = documented()
    for option in settings.OPTIONS.values():
        aside = "; ".join(filter(None, [", ".join(variables(option)), default(option)]))
        entry = f"{option.name}: {' '.join(meanings[option.name])} Takes {option.limits} ({aside})."
        text.append(
            textwrap.fill(
                entry,
                WIDTH,
                initial_indent=" " * 8,
                subsequent_indent=" " * 12,
                break_long_words=False,
                break_on_hyphens=False,
            )
            + "\n"
        )
    text.append(RAISES)
    for option in settings.OPTIONS.values():
        shown = literal(option.default)
        if "default_factory" in option.field:
            shown = f"field({option.field})"
        elif option.field:
            shown = f"field(default={shown}, {option.field})"
        text.append(f"    {option.name}: {option.type} = {shown}\n")
    return "".join(text)


def documented() -> dict[str, list[str]]:
    """What the table says of each option, by paragraphs: what the setting does, then what only the option does."""
    of_settings, of_options = meanings(settings.Settings), meanings(settings.Submission)
    return {
        option.name: of_settings[option.setting] if option.setting else of_options[option.name]
        for option in settings.OPTIONS.values()
    }


def meanings(table: type) -> dict[str, list[str]]:
    """The paragraphs of the strings below the rows of a table, each on one line."""
    found, name = {}, ""
    for node in ast.parse(inspect.getsource(table)).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            paragraphs = str(node.value.value).split("\n\n")
            found[name] = [" ".join(each.split()) for each in paragraphs]
            name = ""
    return found


def variables(option: settings.Option) -> list[str]:
    """The variables that say the same on a job; of `extra`, those that have no option of their own."""
    names = [each.variable for each in settings.SETTINGS if each.field == option.setting]
    return [each.variable for each in settings.SETTINGS if each.extra] if option.name == "extra" else names


def default(option: settings.Option) -> str:
    """The default for people: the option's, else the setting's, or what it means."""
    of_setting = [each.default for each in settings.SETTINGS if each.field == option.setting]
    for value in () if option.unset else (option.default, *of_setting):
        if value not in (None, "", ()):
            return "`{}`".format(", ".join(value) if isinstance(value, tuple) else value)
    return option.unset or "none"


def literal(value: object) -> str:
    """A default as ruff would format it."""
    return f'"{value}"' if isinstance(value, str) else repr(value).replace("'", '"')


def main() -> int:
    """Write the module, or check it; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it is out of date")
    check = parser.parse_args().check
    stale = MODULE.read_text(encoding="utf-8") != module()
    if stale:
        if not check:
            MODULE.write_text(module(), encoding="utf-8")
        print(f"{MODULE.name} {'is out of date: run make docs' if check else 'is written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
