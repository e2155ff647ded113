"""Completion in the real shells, and the other ways to the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import smssh_plugin
from smssh_plugin.cli.bundle import bundle
from smssh_plugin.cli.commands import COMMANDS
from tests import needs
from tests.waiting import LIMIT

from .test_app import HEAVY, imported, smssh

if TYPE_CHECKING:
    from pathlib import Path

BASH = """
eval "$(_SMSSH_COMPLETE=bash_source smssh)"
complete -p smssh >/dev/null || exit 9
try() {
    COMP_WORDS=(smssh "$@"); COMP_CWORD=$#; COMPREPLY=()
    _smssh_completion smssh; printf '%s ' "${COMPREPLY[@]}"; echo
}
try re; try list --a; try bundle ""
"""
ZSH = """
autoload -Uz compinit; compinit -u -d "$ZDOTDIR/dump"
eval "$(_SMSSH_COMPLETE=zsh_source smssh)"
[[ ${_comps[smssh]} = _smssh_completion ]] || exit 9
_describe() { local -a shown; shown=("${(@P)3}"); print -r -- "${shown[@]%%:*}" }
compadd() { shift $(( ${@[(i)-a]} )); print -r -- "${(@P)1}" }
try() { words=(smssh "$@"); CURRENT=$(( $# + 1 )); _smssh_completion }
try re; try list --a; try bundle ""
"""
FISH = """
_SMSSH_COMPLETE=fish_source smssh | source
for typed in "smssh re" "smssh list --a" "smssh bundle "
    complete -C $typed | string replace -r '\\t.*' '' | string join " "
end
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`smssh` on PATH, as an installer makes it."""
    program = tmp_path / "bin" / "smssh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m smssh_plugin.cli "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("ZDOTDIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(
    ("words", "script"),
    [(["bash", "--norc", "-c"], BASH), (["zsh", "-f", "-c"], ZSH), (["fish", "--no-config", "-c"], FISH)],
)
def test_each_shell_completes(words: list[str], script: str) -> None:
    needs.program(words[0])
    done = subprocess.run([*words, script], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    commands, options, below = (line.split() for line in done.stdout.splitlines() if line.strip())
    assert sorted(commands) == sorted(name for name in COMMANDS if name.startswith("re"))
    assert options == ["--all"]
    assert sorted(below) == sorted(bundle.commands)


def test_nothing_is_imported_for_the_names_of_commands() -> None:
    code = (
        "import sys\nfrom smssh_plugin.cli import main\n"
        "try:\n  main()\nfinally:\n  sys.stderr.write('MODULES ' + ' '.join(sys.modules))"
    )
    environment = {"_SMSSH_COMPLETE": "bash_complete", "COMP_WORDS": "smssh ", "COMP_CWORD": "1"}
    done = smssh(code=code, **environment)
    assert {line.split(",")[1] for line in done.stdout.splitlines()} >= set(COMMANDS)
    modules = set(done.stderr.partition("MODULES ")[2].split())
    assert not modules & (HEAVY - {"click"})
    assert "smssh_plugin.cli.debug" not in modules
    assert not imported("--help") & HEAVY


def test_python_m() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "smssh_plugin", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"smssh {smssh_plugin.__version__}\n"


def test_dir_has_the_public_names() -> None:
    code = "import smssh_plugin; print(*dir(smssh_plugin))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(smssh_plugin.__all__) <= set(done.stdout.split())
