"""An option is written down once, in smssh_plugin/settings.py: everything else that knows of it comes from there."""

import dataclasses
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from smssh_plugin import SSHOptions, settings
from smssh_plugin.agent_package import MACHINES
from smssh_plugin.submit.option_fields import OptionFields

ROOT = Path(__file__).resolve().parents[1]
SETTING = '''\
    night_mode: str = _setting("off", values.choice("off", "dim", "dark"), Option())
    """Dims the lights of the machine room.

    Only at night."""

'''
OPTION = '''\
    colours: tuple[str, ...] = _option((), values.choices("red", "blue"), travels=DECIDES)
    """The colours of the machine room."""

'''
USE = """
import json, sys
from smssh_plugin import SSHOptions, SmsshError, settings
from smssh_plugin.submit.bundle.build import build

def refusal(call, *arguments, **more):
    try:
        call(*arguments, **more)
    except SmsshError as error:
        return [error.message, error.hint]

options = SSHOptions(night_mode="Dim", colours="red, blue")
print(json.dumps({
    "container": [
        settings.load({"SMSSH_NIGHT_MODE": "dark"}).night_mode,
        settings.load({}, {"night_mode": "dim"}).night_mode,
        settings.load({}).night_mode,
    ],
    "asked": [options.night_mode, options.colours, SSHOptions().night_mode, SSHOptions().colours],
    "document": options.document(()),
    "variables": settings.variables(options.document(())),
    "in the bundle": json.loads(build(options, ()).files["options.json"]),
    "refused": [
        refusal(settings.load, {"SMSSH_NIGHT_MODE": "bright"}),
        refusal(SSHOptions, night_mode="bright"),
        refusal(SSHOptions, colours="green"),
        refusal(SSHOptions, extra={"night_mode": "dim"}),
    ],
    "help": SSHOptions.__doc__,
}))
"""


@pytest.fixture(scope="module")
def fields():
    """dev/option_fields.py."""
    spec = importlib.util.spec_from_file_location("option_fields", ROOT / "dev" / "option_fields.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_fields_are_up_to_date(fields) -> None:
    assert fields.MODULE.read_text(encoding="utf-8") == fields.module(), "run make docs"


def test_no_option_is_written_twice() -> None:
    assert not inspect.get_annotations(SSHOptions), "an option of SSHOptions is a row of settings.py"
    names = [each.name for each in dataclasses.fields(SSHOptions)]
    assert names == list(settings.OPTIONS) == list(inspect.signature(SSHOptions).parameters)
    rows = [each.metadata["option"] for each in dataclasses.fields(settings.Settings)]
    assert len(names) == len([each for each in rows if each]) + len(settings.Submission.__annotations__)


def test_every_row_is_documented(fields) -> None:
    of_settings, of_options = fields.meanings(settings.Settings), fields.meanings(settings.Submission)
    assert list(of_settings) == [each.field for each in settings.SETTINGS]
    assert list(of_options) == list(settings.Submission.__annotations__)
    for paragraphs in (*of_settings.values(), *of_options.values()):
        assert all(text[0].isupper() or text[0] in '`"' for text in paragraphs)
        assert all(text.endswith(".") for text in paragraphs)
    assert f"{settings.WAIT_READY_LIMIT} s at most" in of_settings["wait"][0]


def test_help_has_every_option() -> None:
    assert SSHOptions.__doc__ == OptionFields.__doc__
    for option in settings.OPTIONS.values():
        assert re.search(rf"^        {option.name}: [A-Z]", SSHOptions.__doc__, re.MULTILINE)


def test_the_machines_are_those_that_the_agent_is_built_for() -> None:
    option = settings.OPTIONS["machines"]
    assert SSHOptions(machines=tuple(MACHINES)).machines == tuple(MACHINES)
    assert option.limits == "a comma list of " + ", ".join(MACHINES)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The repository with one more setting and one more option: a row each."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("smssh_plugin", "hooks", "entrypoints", "dev", "docs", "examples"):
        ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignore)
    table = copy / "smssh_plugin" / "settings.py"
    text = table.read_text(encoding="utf-8")
    for row, before in ((SETTING, "    step: str = _setting("), (OPTION, "    cache: str = _option(")):
        assert text.count(before) == 1
        text = text.replace(before, row + before)
    table.write_text(text, encoding="utf-8")
    assert run(copy, "dev/option_fields.py", "--check", status=1).startswith(
        "option_fields.py is out of date"
    )
    run(copy, "dev/option_fields.py")
    run(copy, "dev/docs.py")
    return copy


def run(folder, *words, status=0):
    """The output of a program in a copy."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "SMSSH_HOME": str(folder / "home"),
        "AWS_DEFAULT_REGION": "eu-west-1",
    }
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    return done.stdout


def test_a_new_option_is_one_row(copy) -> None:
    found = json.loads(run(copy, "-c", USE))
    assert found["container"] == ["dark", "dim", "off"]
    assert found["asked"] == ["dim", ["red", "blue"], None, []]
    assert found["document"] == {"night_mode": "dim", "transport": "ssm"}
    assert found["variables"] == {"SMSSH_NIGHT_MODE": "dim", "SMSSH_TRANSPORT": "ssm"}
    assert found["in the bundle"]["night_mode"] == "dim"
    assert found["refused"] == [
        ["SMSSH_NIGHT_MODE is not usable: 'bright' is not one of off, dim, dark", "use off, dim or dark"],
        [
            "SSHOptions: night_mode is not usable: 'bright' is not one of off, dim, dark",
            "use off, dim or dark",
        ],
        [
            "SSHOptions: colours is not usable: 'green' is not one of red, blue",
            "use a comma list of red, blue",
        ],
        ["SSHOptions: extra has 'night_mode', which is an option of its own", None],
    ]
    assert "Dims the lights of the machine room. Only at night." in " ".join(found["help"].split())


def test_a_new_option_is_on_the_pages_and_known_to_editors(copy) -> None:
    written = (copy / "smssh_plugin" / "submit" / "option_fields.py").read_text(encoding="utf-8")
    assert "    night_mode: str | None = None\n" in written
    assert "    colours: tuple[str, ...] = ()\n" in written
    pages = {name: (copy / "docs" / f"{name}.md").read_text() for name in ("options", "settings", "requests")}
    assert (
        "| `night_mode` | `SMSSH_NIGHT_MODE` | `off` | off, dim or dark | Dims the lights of the machine room. "
        "Only at night. |" in pages["options"]
    )
    assert "| `colours` | - | none | a comma list of red, blue |" in pages["options"]
    assert (
        "| `SMSSH_NIGHT_MODE` | `night_mode` | `off` | off, dim or dark | Dims the lights of the machine room. |"
        in pages["settings"]
    )
    assert "| `night_mode` | `SMSSH_NIGHT_MODE` | `options.json` |" in pages["requests"]
    assert "| `colours` | - | nothing: it decides what is sent |" in pages["requests"]


def test_a_new_option_is_known_to_the_command_line(copy) -> None:
    smssh = ("-m", "smssh_plugin", "bundle")
    made = run(copy, *smssh, "build", "-o", "transport=none", "-o", "night_mode=DARK", "--to", "made").strip()
    assert json.loads(run(copy, *smssh, "show", "--json", made))["options"]["night_mode"] == "dark"
    run(copy, *smssh, "build", "-o", "colours=red", "--to", "made", status=2)
