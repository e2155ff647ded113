"""Nothing is skipped silently in CI: the rule, and that all tests keep to it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs
from tests.waiting import LIMIT

ROOT = Path(__file__).resolve().parents[1]
TESTS = sorted(path for path in (ROOT / "tests").rglob("*.py") if path.name != "needs.py")
SKIPS = {"skip", "skipif", "importorskip", "xfail", "SkipTest", "skipTest", "skipIf", "skipUnless", "exit"}
"""What ends a test without an answer, as attributes of pytest, of its marks, and of unittest."""

FISH = """
import pytest
from tests import needs
"""
WAYS = {
    "in a test": "def test_it():\n    needs.program('fish')\n",
    "less without it": "def test_it():\n    assert needs.find('fish') is None\n",
    "in a fixture": "@pytest.fixture\ndef fish():\n    return needs.program('fish')\ndef test_it(fish):\n    pass\n",
    "a mark": "@pytest.mark.needs('git', 'fish')\ndef test_it(no_such_fixture_is_made):\n    pass\n",
    "the mark of a module": "pytestmark = pytest.mark.needs('fish')\ndef test_it():\n    pass\n",
    "a module": "needs.program('fish')\ndef test_it():\n    pass\n",
    "found out by the test": "def test_it():\n    needs.missing('PyPI', 'connection refused')\n",
}
ELSEWHERE = {
    "pytest.skip": "def test_it():\n    pytest.skip('fish is not installed')\n",
    "skipif": "@pytest.mark.skipif(True, reason='fish')\ndef test_it():\n    pass\n",
    "importorskip": "def test_it():\n    pytest.importorskip('fish')\n",
    "unittest": "import unittest\ndef test_it():\n    raise unittest.SkipTest('fish')\n",
}
APPLIES = {
    "a call": "def test_it():\n    needs.does_not_apply('one core')\n",
    "a mark": "@pytest.mark.applies(False, 'one core')\n@pytest.mark.needs('fish')\ndef test_it():\n    pass\n",
}


def run(folder: Path, source: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a file of tests where there is git and nothing else."""
    (folder / "test_file.py").write_text(FISH + source)
    (folder / "bin").mkdir(exist_ok=True)
    git = folder / "bin" / "git"
    if not git.exists():
        git.symlink_to(needs.program("git"))
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers -ra -p no:cacheprovider\n")
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    code = (
        "import sys\nfrom tests import needs\n"
        "needs.SYSTEM_FOLDERS = ''\n"  # where a fish of this machine may be
        "import pytest\nsys.exit(pytest.main(sys.argv[1:], plugins=[needs]))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, "-p", "no:randomly", "-p", "no:xdist", str(folder / "test_file.py")],
        env={**kept, "PATH": str(folder / "bin"), "PYTHONPATH": str(ROOT), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


@pytest.mark.parametrize("way", [way for way in WAYS if way != "less without it"])
def test_what_is_missing_is_skipped_by_a_developer_and_said(tmp_path: Path, way: str) -> None:
    done = run(tmp_path, WAYS[way])
    assert done.returncode in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED), done.stdout
    assert "1 skipped" in done.stdout
    remedy = "(a package index that pip and uv reach): connection refused"
    named = (
        f"PyPI is missing {remedy}"
        if way.startswith("found out")
        else "fish is missing (apt-get install fish)"
    )
    assert named in done.stdout
    assert "what needs it is skipped: apt-get install" in done.stdout


@pytest.mark.parametrize("way", WAYS)
def test_what_is_missing_fails_ci(tmp_path: Path, way: str) -> None:
    done = run(tmp_path, WAYS[way], CI="true")
    assert done.returncode in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED), done.stdout
    assert "skipped" not in done.stdout.splitlines()[-1]
    assert f"{'PyPI' if way.startswith('found out') else 'fish'} is missing" in done.stdout
    assert "what needs it fails: apt-get install" in done.stdout


def test_a_developer_may_do_less_without_it(tmp_path: Path) -> None:
    assert "1 passed" in run(tmp_path, WAYS["less without it"]).stdout


@pytest.mark.parametrize("environment", [{"CI": "1"}, {"SMSSH_TEST_MISSING": "fail"}], ids=str)
def test_other_ways_to_ask_for_it(tmp_path: Path, environment: dict[str, str]) -> None:
    assert "1 failed" in run(tmp_path, WAYS["in a test"], **environment).stdout


@pytest.mark.parametrize("value", ["", "false"])
def test_ci_has_to_be_meant(tmp_path: Path, value: str) -> None:
    assert "1 skipped" in run(tmp_path, WAYS["in a test"], CI=value).stdout


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, WAYS["in a test"], SMSSH_TEST_MISSING="skip")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "invalid SMSSH_TEST_MISSING: 'skip'" in done.stdout + done.stderr


@pytest.mark.parametrize("name", needs.MAY_BE_MISSING)
def test_what_ci_goes_without_is_skipped_there_too(tmp_path: Path, name: str) -> None:
    done = run(tmp_path, f"def test_it():\n    needs.missing({name!r})\n", CI="true")
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout


@pytest.mark.parametrize("way", APPLIES)
def test_what_does_not_apply_is_skipped_everywhere(tmp_path: Path, way: str) -> None:
    done = run(tmp_path, APPLIES[way], CI="true")
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout
    assert "does not apply here: one core" in done.stdout


@pytest.mark.parametrize("way", ELSEWHERE)
def test_a_skip_of_another_kind_fails_ci(tmp_path: Path, way: str) -> None:
    assert "1 skipped" in run(tmp_path, ELSEWHERE[way]).stdout
    done = run(tmp_path, ELSEWHERE[way], CI="true")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert "was skipped, and not by tests/needs.py" in done.stdout


def test_a_name_that_is_not_in_the_table_is_a_mistake(tmp_path: Path) -> None:
    for source in ("needs.program('fsh')", "needs.missing('fsh')"):
        done = run(tmp_path, f"def test_it():\n    {source}\n")
        assert "KeyError: 'fsh'" in done.stdout


def test_the_lists_agree() -> None:
    assert set(needs.MAY_BE_MISSING) <= set(needs.NEEDS)
    assert all(reason.strip() for reason in needs.MAY_BE_MISSING.values())
    assert all(need.remedy for need in needs.NEEDS.values())


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_skip_is_made_in_one_place(path: Path) -> None:
    """And programs are looked for there: a test that does less without one would pass in CI."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Attribute):
            continue
        of = ast.unparse(node.value)
        if (of in ("pytest", "pytest.mark", "unittest", "self") and node.attr in SKIPS) or (
            of == "shutil" and node.attr == "which"
        ):
            found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {of}.{node.attr}")
    assert not found, "use tests/needs.py"


def test_debian_packages_of_what_is_missing_are_printed(tmp_path: Path) -> None:
    """For .ci/run, which installs them."""
    (tmp_path / "git").symlink_to(needs.program("git"))
    code = "from tests import needs\nneeds.SYSTEM_FOLDERS = ''\nprint(*needs.missing_packages())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    packages = done.stdout.split()
    assert {"openssh-server", "busybox", "zsh", "fish", "mmdebstrap"} <= set(packages)
    assert "git" not in packages
