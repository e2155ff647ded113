"""Write the generated pages of docs/ from the code; `--check` only says whether they are up to date.

    .venv/bin/python dev/docs.py [--check]

The hooks and what they are given come from smssh_plugin/hookspecs.py, an example of each from
examples/plugins/every_hook.py, settings and options from smssh_plugin/settings.py (option_docs.py), the additions to
requests from what with_ssh adds (request_docs.py), causes of failures from their table (cause_docs.py), the commands
from their own help (command_docs.py), the checks of `smssh doctor` from themselves (doctor_docs.py), what `smssh
doctor --live` tries and the table of what is tested (a part of docs/aws.md) from smssh_plugin/live/ (live_docs.py),
policies from smssh_plugin/setup/ (iam_docs.py). What is missing there is an error here: every hook, argument, field
and addition is documented.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import re
import sys
from pathlib import Path
from typing import Iterable

from smssh_plugin import hookspecs, settings

sys.path.insert(0, str(Path(__file__).parent))  # a test loads this file by its path
import cause_docs
import command_docs
import doctor_docs
import iam_docs
import live_docs
import option_docs
import option_fields
import request_docs

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples" / "plugins" / "every_hook.py"
TYPES = (
    "Context",
    "Job",
    "Server",
    "Transport",
    "Failure",
    "Hold",
    "HostState",
    "HostQuestion",
    "HostAnswer",
)
"""The classes of hookspecs.py that hooks see."""
SECTIONS = (
    ("When the supervisor starts, once each and in this order", "smssh_configure"),
    ("At each attempt of the entry point, and until the end", "smssh_before_entry_point"),
    ("Where requests are made", "smssh_transform_request"),
    ("In the `smssh` command", "smssh_register_commands"),
)
"""Headings, each with the first hook below it, in the order of hookspecs.py."""

HOOKS = """\
# Hooks

<!-- Written by dev/docs.py from smssh_plugin/hookspecs.py and examples/plugins/every_hook.py. -->

Who may log in, the SSH server, the transport, the failure report, the decision to hold and notifications are
[pluggy](https://pluggy.readthedocs.io) hooks; the built-in plugins are in the folder `hooks/`. What starts, waits for
and retries the entry point is not a hook (see [architecture](architecture.md#container-from-the-launcher-to-a-login)).

A plugin is a package with an entry point in the group `smssh`:

```toml
# pyproject.toml
[project.entry-points.smssh]
mine = "my_package.smssh"
```

```python
# my_package/smssh.py
from smssh_plugin import hookimpl


@hookimpl
def smssh_ready(context):
    context.say(f"log in with: {context.connect_command}")
```

- **Arguments.** An implementation names only the arguments that it uses. A plugin with a hook or an argument that does
  not exist is refused, and named in the log.
- **Order.** Plugins of other packages are asked before the built-in ones. `@hookimpl(tryfirst=True)` and `trylast=True`
  change the order of implementations ([pluggy](https://pluggy.readthedocs.io) has the details). In a hook whose first
  result counts, return None to leave the answer to the next plugin.
- **Failures.** A hook cannot fail a job. One that raises, exits, or answers with another type is named in the
  supervisor's log and skipped. One that takes longer than its limit is skipped as well, and goes on in its thread. A
  child process that returns from a hook after a fork is ended. A hook that ends the process ends the supervisor and
  every login; the job goes on.
- **Process.** Container-side hooks run in the supervisor, a process of its own, and never in the interpreter of the
  user's script. Start a program that outlives the hook with `start_new_session=True`, and end it in `smssh_stop`.
- **Switching off.** `SMSSH_DISABLE_HOOKS=mine` leaves a plugin out of a job. It works for built-in plugins, too.
- **Secrets.** Put none into messages, logs and reports: they leave the container. `context.environment`, the job's
  environment, may hold some.

## Where a plugin must be installed

A container-side plugin must be installed in the Python that runs the supervisor:

| launcher | Python |
| --- | --- |
| baked image (`.pth`, `smssh-hook run`), `sitecustomize` with CPython 3.8 or later | the one that starts the job |
| wrapped entry point | the first `python3` on the PATH that works |

`smssh-hook status --json` lists the loaded plugins in `hooks`.

For an unmodified image, name the plugin in `SSHOptions(plugins=("my-package",))`, by its distribution or module. It
travels in the bundle as it is installed where the request is made. It must be pure Python, and its requirements travel
only if they are named, too. The supervisor prefers it to one in the image; the job's own interpreters do not see it.

A submit-side or client-side plugin must be installed where the pipeline is made, or where `smssh` runs.

`examples/plugins/smssh-triage` is a complete package with tests.
[Its hooks](../examples/plugins/smssh-triage/smssh_triage.py) decide by the exit status whether a job is held, and add
the installed packages to the report.
"""

SETTINGS = """\
# Settings

<!-- Written by dev/docs.py from smssh_plugin/settings.py. -->

Each setting is an environment variable of the job. Most are also keys of the bundle's `options.json`, which
`SSHOptions` fills in. The exceptions are {early},
which are read before it. Settings without an option of their own go through `SSHOptions(extra={{...}})`:
{extra}. The job's environment wins.
The defaults cost no money: no wait, no hold.

A duration is a number of seconds, minutes, hours or days: `90`, `90s`, `30m`, `1.5h`, `2d`.

A value outside its limits is an error when the request is made. In a container, the log names it, and the job runs with
the defaults and without a login.

| variable | key | default | values | meaning |
| --- | --- | --- | --- | --- |
"""

MACHINE = """
## Variables of your machine

They are read in the submitting process and by `smssh`, beside AWS's own (`AWS_PROFILE`, `AWS_REGION`, ...).

| variable | default | meaning |
| --- | --- | --- |
"""
OF_MACHINE = {
    "SMSSH_HOME": (
        "`~/.smssh`",
        "The folder of your key pair, of host keys, sockets and the packages of Amazon's agent.",
    ),
    "SMSSH_ENABLE": (
        "empty",
        "0 switches every `with_ssh` and `enable` of the process off. `enable()` without an argument needs 1.",
    ),
    "SMSSH_OWNER": (
        "empty",
        "The owner, if `SSHOptions(owner=...)` names none; hosts of another owner are refused.",
    ),
    "SMSSH_OWNER_SCHEME": (
        "empty",
        "Who owns a job if nobody names an owner: see `owner_scheme` in [options](options.md).",
    ),
    "SMSSH_ROLE": ("empty", "The IAM role, name or ARN, that the node of a host must have."),
    "SMSSH_NODE": ("empty", "The id of the node to log in to, if several claim one host."),
    "SMSSH_AGENT_URL": (
        "empty",
        "The mirror from which the pinned agent is read, if `extra` has no `agent_url`; jobs do not use it.",
    ),
}
"""Variable -> its default, and what it does."""


def main() -> int:
    """Write the pages, or check them; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is out of date")
    check = parser.parse_args().check
    stale = []
    for name, text in pages().items():
        path = DOCS / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                DOCS.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    for name in stale:
        print(f"docs/{name} {'is out of date: run dev/docs.py' if check else 'is written'}")
    return 1 if check and stale else 0


def pages() -> dict[str, str]:
    """The pages by file name."""
    return {
        "aws.md": live_docs.aws_page(),
        "causes.md": cause_docs.page(),
        "commands.md": command_docs.page(),
        "doctor.md": doctor_docs.page(),
        "hooks.md": hooks_page(),
        "iam.md": iam_docs.page(),
        "options.md": option_docs.page(),
        "requests.md": request_docs.page(),
        "settings.md": settings_page(),
    }


# ------------------------------------------------------------------------------------------------------- hooks


def hooks_page() -> str:
    """docs/hooks.md."""
    functions = {name: function for name, function in vars(hookspecs).items() if name.startswith("smssh_")}
    examples = example_sources()
    lost = sorted(set(examples) - set(functions))
    if lost:
        raise ValueError(f"{EXAMPLES.name} has examples of hooks that do not exist: {', '.join(lost)}")
    headings = {first: heading for heading, first in SECTIONS}
    parts = [HOOKS]
    for name, function in functions.items():
        if name in headings:
            parts.append(f"\n## {headings[name]}\n")
        if name not in examples:
            raise ValueError(f"{name} has no example: write one in {EXAMPLES.relative_to(ROOT)}")
        parts.append(hook_text(name, function, examples[name]))
    parts.append("\n## Types of arguments and answers\n")
    parts += [class_text(getattr(hookspecs, name)) for name in TYPES]
    return "".join(parts)


def hook_text(name: str, function: object, example: str) -> str:
    """One hook: when it is called, arguments, answer, limits, an example."""
    summary, body, arguments, returns = docstring(function)
    signature = inspect.signature(function)  # type: ignore[arg-type]
    missing = set(signature.parameters) ^ set(arguments)
    if missing:
        raise ValueError(f"{name}: these arguments are not documented, or not there: {sorted(missing)}")
    shown = ", ".join(signature.parameters)
    lines = [f"\n### `{name}({shown})`\n", summary]
    if body:
        lines.append(f"\n{body}")
    if arguments:
        lines.append("")
    for argument, text in arguments.items():
        kind = str(signature.parameters[argument].annotation)
        lines.append(f"- `{argument}` (`{kind}`): {text}")
    if returns:
        lines.append(f"\nReturns: {returns}")
    if function.smssh_spec["firstresult"]:  # type: ignore[attr-defined]
        lines.append("\nThe first result counts: plugins after it are not asked.")
    limit, since = function.smssh_limit, function.smssh_since  # type: ignore[attr-defined]
    lines.append(
        "\n" + ("" if limit is None else f"Limit: {limit:g} s for each plugin. ") + f"Since version {since}."
    )
    if not is_called(name):
        lines.append("\n*Declared, and not called by anything yet.*")
    lines.append(f"\n```python\n{example}\n```\n")
    return "\n".join(lines)


def docstring(function: object) -> tuple[str, str, dict[str, str], str]:
    """Summary, further paragraphs, arguments and returns of a Google-style docstring."""
    text = inspect.getdoc(function) or ""
    parts = re.split(r"^(Args|Returns|Raises):\n", text, flags=re.MULTILINE)
    summary, _, body = parts[0].strip().partition("\n")
    sections = dict(zip(parts[1::2], parts[2::2]))
    arguments: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \w)", sections.get("Args", "").rstrip("\n")):
        if entry.strip():
            argument, _, meaning = entry.strip().partition(":")
            arguments[argument] = joined(meaning)
    return summary, joined(body), arguments, joined(sections.get("Returns", ""))


def joined(text: str) -> str:
    """A wrapped paragraph on one line."""
    return " ".join(text.split())


def is_called(name: str) -> bool:
    """Whether anything in the package calls the hook, through its method of `Plugins`."""
    call = re.compile(rf"(?:plugins|Plugins\(.*\)|_plugins\(\))\.{name.removeprefix('smssh_')}\b")
    folders = [ROOT / "smssh_plugin", ROOT / "entrypoints", ROOT / "hooks"]
    files = [path for folder in folders for path in folder.rglob("*.py") if path.name != "plugins.py"]
    return any(call.search(path.read_text(encoding="utf-8")) for path in files)


def example_sources() -> dict[str, str]:
    """The implementations in every_hook.py by name, as they stand there."""
    text = EXAMPLES.read_text(encoding="utf-8")
    lines = text.splitlines()
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("smssh_"):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[node.name] = "\n".join(lines[first - 1 : node.end_lineno])
    return found


def class_text(kind: type) -> str:
    """One class: its fields and properties."""
    lines = [f"\n### `{kind.__name__}`\n", joined(inspect.getdoc(kind) or ""), ""]
    meanings = field_meanings(kind)
    for field in dataclasses.fields(kind):
        meaning = meanings.get(field.name, "")
        lines.append(f"- `{field.name}` (`{field.type}`){': ' + meaning if meaning else ''}")
    for name, value in vars(kind).items():
        if isinstance(value, property):
            lines.append(f"- `{name}` (property): {joined(inspect.getdoc(value) or '')}")
    return "\n".join(lines) + "\n"


def field_meanings(kind: type) -> dict[str, str]:
    """The strings below the fields of a class."""
    tree = ast.parse(inspect.getsource(kind)).body[0]
    meanings, name = {}, ""
    for node in tree.body if isinstance(tree, ast.ClassDef) else []:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            meanings[name] = joined(str(node.value.value))
            name = ""
        else:
            name = ""
    return meanings


# ---------------------------------------------------------------------------------------------------- settings


def settings_page() -> str:
    """docs/settings.md."""
    rows = []
    meanings = option_fields.meanings(settings.Settings)
    for setting in settings.SETTINGS:
        meaning = meanings[setting.field][0]
        if setting.deprecated:
            names = ", ".join(f"`{name}`" for name in setting.deprecated)
            meaning += f" sagemaker-ssh-helper's {names} is understood too."
        cells = [
            f"`{setting.variable}`",
            "-" if setting.variable in settings.EARLY else f"`{setting.field}`",
            default(setting.default),
            setting.limits,
            meaning,
        ]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    head = SETTINGS.format(
        early=listed(settings.EARLY),
        extra=listed(each.field for each in settings.SETTINGS if each.extra),
    )
    machine = [f"| `{name}` | {default} | {meaning} |" for name, (default, meaning) in OF_MACHINE.items()]
    return "\n".join([head + "\n".join(rows), MACHINE + "\n".join(machine)]) + "\n"


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    *most, last = (f"`{name}`" for name in names)
    return f"{', '.join(most)} and {last}"


def default(value: object) -> str:
    """A default as it would be written into the variable."""
    if value in ("", ()):
        return "empty"
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, tuple):
        return "`{}`".format(",".join(str(part) for part in value))
    return f"`{value}`"


if __name__ == "__main__":
    sys.exit(main())
