"""docs/options.md: every option of SSHOptions with its variable, its default, its values and what it is for.

What it is for is what the docstring of SSHOptions says; values are the limits of the setting that the option is, or
stand here. An option of which nothing says what it takes is an error.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

from smssh_plugin import settings
from smssh_plugin.agent_package import MACHINES
from smssh_plugin.submit.options import CACHES, LAUNCHERS, WAYS, SSHOptions

OPTIONS = """\
# Options

<!-- Written by dev/docs.py from smssh_plugin/submit/options.py and smssh_plugin/settings.py. -->

The options of `SSHOptions`, `with_ssh` and `enable`. The variable does the same on a job, and wins over the option.
[Changes to requests](requests.md#variables-and-optionsjson) says how each option travels, [settings](settings.md) lists
the variables.

A list is a tuple of texts, or one text with commas (`authorized_keys`: with line ends). A duration is a number of
seconds, or a text such as `"30m"`. A value outside of its limits is refused where the request is made.

| option | variable | default | values | meaning |
| --- | --- | --- | --- | --- |
"""
VALUES = {
    "enabled": "True, False, None, the name of an environment variable, or a pipeline parameter",
    "authorized_keys": "public keys, paths of files of them, or sources of keys",
    "role": "IAM role name or ARN, or a pipeline variable",
    "agent_version": 'a version such as 3.3.987.0, or "latest"',
    "machines": "list of " + ", ".join(MACHINES),
    "wheels": "list of versions of Python such as 3.11 or 3.11-aarch64",
    "offline": "True or False",
    "bundle": "s3://bucket/prefix/DIGEST/",
    "bundle_prefix": "s3://bucket/prefix",
    "s3_encryption": "AES256, aws:kms, or a key of KMS",
    "plugins": "list of names of distributions or modules",
    "launcher": ", ".join(LAUNCHERS),
    "cache": ", ".join(CACHES),
    "endpoints": "True or False",
    "repack": "None, True or False",
    "environment": "texts or pipeline variables by name",
    "extra": "values that JSON can hold, by key",
}
"""What options take that is not, or not only, what their setting takes."""
_ASIDE = re.compile(
    r" \((?:SMSSH_[A-Z0-9_]+|no variable)\b(?:, `\w+`)?(?P<use>[^;()]*)(?:; (?P<default>[^()]*))?\)"
)
"""How the docstring gives the variable, its key, what it says on a job if not the same, and the default."""


def page() -> str:
    """docs/options.md."""
    limits = {setting.field: setting for setting in settings.SETTINGS}
    texts = meanings()
    rows = []
    for field in dataclasses.fields(SSHOptions):
        name, setting = field.name, limits.get(field.name)
        if name not in VALUES and setting is None:
            raise ValueError(f"{name} is no setting: say in VALUES what it takes")
        aside = _ASIDE.search(texts[name])
        use, words = (aside["use"], aside["default"] or "") if aside else ("", "")
        cells = [
            f"`{name}`",
            (", ".join(f"`{each}`" for each in WAYS[name].variables) or "-") + use,
            default(field, setting, words.replace("by default ", "")),
            VALUES.get(name) or (setting.limits if setting else ""),
            capital(_ASIDE.sub("", texts[name])),
        ]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return OPTIONS + "\n".join(rows) + "\n"


def meanings() -> dict[str, str]:
    """What the docstring of SSHOptions says of each option, on one line."""
    section = (inspect.getdoc(SSHOptions) or "").partition("Attributes:\n")[2].partition("\nRaises:")[0]
    pairs = (entry.strip().partition(":") for entry in re.split(r"\n(?=    \w)", section.rstrip()))
    return {name: " ".join(text.split()) for name, _, text in pairs}


def default(field: dataclasses.Field[Any], setting: settings.Setting | None, words: str) -> str:
    """The default: the option's, else the setting's, with what the docstring says of it if that is not the same."""
    for value in (field.default, setting.default if setting else None):
        if value not in (None, "", (), dataclasses.MISSING):
            shown = ", ".join(value) if isinstance(value, tuple) else str(value)
            return f"`{shown}`" if words.strip('"') in ("", shown) else f"`{shown}`: {words}"
    return words or "none"


def capital(text: str) -> str:
    """The text with a capital letter at its beginning."""
    return text[:1].upper() + text[1:]
