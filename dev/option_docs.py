"""docs/options.md: every option of SSHOptions with its variable, its default, its values and what it is for."""

from __future__ import annotations

import option_fields

from smssh_plugin import settings

OPTIONS = """\
# Options

<!-- Written by dev/docs.py from smssh_plugin/settings.py. -->

The options of `SSHOptions`, `with_ssh` and `enable`. The variable does the same on a job, and wins over the option.
[Changes to requests](requests.md#variables-and-optionsjson) says how each option travels, [settings](settings.md) lists
the variables.

A list is a tuple of texts, or one text with commas (`authorized_keys`: with line ends). A duration is a number of
seconds, or a text such as `"30m"`. A value outside of its limits is refused where the request is made.

| option | variable | default | values | meaning |
| --- | --- | --- | --- | --- |
"""


def page() -> str:
    """docs/options.md."""
    meanings = option_fields.documented()
    rows = []
    for option in settings.OPTIONS.values():
        cells = [
            f"`{option.name}`",
            ", ".join(f"`{each}`" for each in option_fields.variables(option)) or "-",
            option_fields.default(option),
            option.limits,
            " ".join(meanings[option.name]),
        ]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return OPTIONS + "\n".join(rows) + "\n"
