"""Plugins of others in a bundle: whatever way they are installed here, the same files; nothing that cannot run."""

from __future__ import annotations

import importlib
import io
import json
import subprocess
import sys
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin import SmsshError, SSHOptions
from smssh_plugin.errors import ExitStatus
from smssh_plugin.submit.bundle import plugins
from smssh_plugin.submit.bundle.build import build
from smssh_plugin.submit.bundle.plugins import plugin_files
from smssh_plugin.submit.options import SmsshWarning
from tests.submit.conftest import KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOOK = "from smssh_plugin import hookimpl\n\n\n@hookimpl\ndef smssh_hold():\n    return None\n"
PROJECT = '[tool.setuptools.package-data]\nacme = ["*.txt", "data/*.json"]\n'


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Lays a distribution out as installers do, in a folder that is on sys.path."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def made(
        name: str = "Acme.SMSSH",
        files: dict[str, str] | None = None,
        requires: tuple[str, ...] = ("smssh-plugin",),
        points: str = "[smssh]\nacme = acme.hooks\n\n[console_scripts]\nacme = acme:main\n",
        editable: bool = False,
        declared: tuple[str, ...] = (),
    ) -> Path:
        files = (
            {"acme/__init__.py": "", "acme/hooks.py": HOOK, "acme/words.txt": "words"}
            if files is None
            else files
        )
        place = tmp_path / "source" if editable else site
        for inner, text in files.items():
            (place / inner).parent.mkdir(parents=True, exist_ok=True)
            (place / inner).write_text(text)
        info = site / f"{name.replace('.', '_')}-1.0.dist-info"
        info.mkdir()
        lines = "".join(f"Requires-Dist: {each}\n" for each in requires)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{lines}")
        (info / "entry_points.txt").write_text(points)
        (info / "INSTALLER").write_text("pip\n")
        recorded = [f"{info.name}/METADATA", f"{info.name}/INSTALLER", "../../bin/acme"]
        if editable:
            (site / "__editable__.acme-1.0.pth").write_text(str(place))
            recorded += ["__editable__.acme-1.0.pth"]
            monkeypatch.syspath_prepend(place)
            (place / "pyproject.toml").write_text(PROJECT)
        else:
            recorded += [*(declared or files), "acme/__pycache__/hooks.cpython-311.pyc"]
        (info / "RECORD").write_text("".join(f"{each},,\n" for each in recorded))
        importlib.invalidate_caches()
        return site

    yield made
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme"]:
        del sys.modules[name]  # a dotted name imports what is above it


EXPECTED = {
    "acme/__init__.py": b"",
    "acme/hooks.py": HOOK.encode(),
    "acme/words.txt": b"words",
    "acme_smssh-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: Acme.SMSSH\nVersion: 1.0\n",
    "acme_smssh-1.0.dist-info/entry_points.txt": b"[smssh]\nacme = acme.hooks\n",
}


@pytest.mark.parametrize("editable", [False, True])
@pytest.mark.parametrize("name", ["Acme.SMSSH", "acme-smssh"])
def test_a_distribution_however_it_is_installed(install: Any, editable: bool, name: str) -> None:
    install(editable=editable)
    assert plugin_files([name]) == EXPECTED


def test_a_module(install: Any) -> None:
    install()
    files = plugin_files(["acme.hooks"])
    assert {name: files[name] for name in files if name.startswith("acme/")} == {
        name: data for name, data in EXPECTED.items() if name.startswith("acme/")
    }
    assert (
        files["smssh_bundled_acme_hooks-0.dist-info/entry_points.txt"]
        == b"[smssh]\nacme.hooks = acme.hooks\n"
    )


def test_a_module_of_one_file(install: Any) -> None:
    install(files={"single.py": HOOK})
    assert plugin_files(["single"])["single.py"] == HOOK.encode()


def test_it_is_found_in_the_archive_as_if_it_were_installed(install: Any, tmp_path: Path) -> None:
    install()
    bundle = build(SSHOptions(plugins=("acme-smssh",)), [KEY])
    assert json.loads(bundle.files["options.json"])["plugins"] == ["acme-smssh"]
    assert bundle.digest == build(SSHOptions(plugins="acme-smssh"), [KEY]).digest  # type: ignore[arg-type]
    archive = zipfile.ZipFile(io.BytesIO(bundle.files["plugins.zip"]))
    assert {name: archive.read(name) for name in archive.namelist()} == EXPECTED
    bundle.write(tmp_path / "bundle")
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]; from smssh_plugin.plugins import Plugins;"
        "print(Plugins().names)"
    )
    place = tmp_path / "bundle"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(place / "plugins.zip"), str(place / "smssh.zip")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "['acme']\n", done.stderr


def test_without_plugins_there_is_no_archive() -> None:
    assert "plugins.zip" not in build(SSHOptions(), [KEY]).files


def test_what_a_plugin_requires(install: Any) -> None:
    install(requires=("smssh_plugin>=0.1", "boto3", "Tabulate>=0.9", "rich; extra == 'cli'"))
    with pytest.warns(SmsshWarning) as caught:
        plugin_files(["acme-smssh"])
    (said,) = [str(each.message) for each in caught]
    assert said.startswith(
        "the plugin acme-smssh requires Tabulate, which is not in the bundle: name it in `plugins`"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SmsshError, match="'tabulate', and there is no such distribution or module"):
            plugin_files(["acme-smssh", "tabulate"])


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("no-such-plugin", "has 'no-such-plugin', and there is no such distribution or module"),
        ("no.such.module", "has 'no.such.module', and there is no such distribution or module"),
        ("acme.nothing", "has 'acme.nothing', and there is no such distribution or module"),
        ("_json", "has '_json', and there is no such distribution or module"),
        ("smssh_plugin", "has 'smssh_plugin', which every bundle brings"),
        ("smssh_plugin.hooks.notify", "which every bundle brings"),
    ],
)
def test_what_cannot_be_taken_along(install: Any, name: str, problem: str) -> None:
    install()
    with pytest.raises(
        SmsshError, match=f"SSHOptions: plugins {problem}" if "has" in problem else problem
    ) as caught:
        build(SSHOptions(plugins=(name,)), [KEY])
    assert caught.value.reference == "bad-plugin"
    assert caught.value.status is ExitStatus.USAGE


def test_what_is_compiled_or_too_large(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install(files={"acme/__init__.py": "", "acme/fast.cpython-311-x86_64-linux-gnu.so": ""})
    with pytest.raises(SmsshError, match=r"which has compiled parts \(acme/fast\.cpython"):
        plugin_files(["acme-smssh"])
    with pytest.raises(SmsshError, match="which has compiled parts"):
        plugin_files(["acme"])
    monkeypatch.setattr(plugins, "COMPILED", ())
    monkeypatch.setattr(plugins, "SIZE_LIMIT", 50)
    with pytest.raises(SmsshError, match="bytes of files, more than 50"):
        plugin_files(["acme-smssh"])


def test_one_that_does_not_say_what_its_modules_are(install: Any) -> None:
    install(editable=True, points="[console_scripts]\nacme = acme:main\n")
    with pytest.raises(SmsshError, match="does not say what its modules are"):
        plugin_files(["acme-smssh"])


# -------------------------------------------------------------------------------- nothing that was not meant

SECRETS = {
    "acme/.env": "TOKEN=secret",
    "acme/.git/config": "secret",
    "acme/service-account.json": "secret",
    "acme/deep/.npmrc": "secret",
    "acme/deep/__init__.py": "",
}
WHOLE = {"acme/__init__.py": "", "acme/hooks.py": HOOK, "acme/words.txt": "words", "acme/data/x.json": "{}"}
SENT = {"acme/__init__.py", "acme/hooks.py", "acme/words.txt", "acme/data/x.json", "acme/deep/__init__.py"}


def sent(name: str, top: str = "acme/") -> set[str]:
    return {each for each in plugin_files([name]) if each.startswith(top)}


@pytest.mark.parametrize("name", ["acme-smssh", "acme.hooks"])
def test_of_what_is_installed_the_recorded_files_are_sent(install: Any, name: str) -> None:
    install(files={**WHOLE, **SECRETS}, declared=(*WHOLE, "acme/deep/__init__.py"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sent(name) == SENT


@pytest.mark.parametrize("name", ["acme-smssh", "acme.hooks"])
def test_of_what_is_editable_code_and_declared_data_are_sent(install: Any, name: str) -> None:
    install(files={**WHOLE, **SECRETS}, editable=True)
    with pytest.warns(
        SmsshWarning, match=r"acme/service-account\.json is not sent: it is neither code nor"
    ) as said:
        assert sent(name) == SENT
    assert "secret" not in str(said[0].message)
    assert ".env" not in str(said[0].message)


def test_data_that_setup_cfg_declares(install: Any, tmp_path: Path) -> None:
    install(files={**WHOLE, "acme/deep/__init__.py": "", "acme/deep/more.csv": ""}, editable=True)
    (tmp_path / "source" / "pyproject.toml").unlink()
    (tmp_path / "source" / "setup.cfg").write_text(
        "[options.package_data]\nacme = *.txt, data/*.json\nacme.deep =\n    *.csv\n    ../../*\n"
    )
    assert sent("acme-smssh") == {*WHOLE, "acme/deep/__init__.py", "acme/deep/more.csv"}


@pytest.mark.parametrize("editable", [False, True])
def test_a_symlink_out_of_the_package_is_refused(install: Any, tmp_path: Path, editable: bool) -> None:
    site = install(files={**WHOLE, "acme/other.py": ""}, editable=editable)
    place = tmp_path / "source" if editable else site
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "key.py").write_text("secret")
    (place / "acme" / "other.py").unlink()
    (place / "acme" / "other.py").symlink_to(tmp_path / "elsewhere" / "key.py")
    with pytest.raises(SmsshError, match=r"whose acme/other\.py is a symlink that leads out") as caught:
        plugin_files(["acme-smssh"])
    assert caught.value.reference == "bad-plugin"
    (place / "acme" / "other.py").unlink()
    (place / "acme" / "other.py").symlink_to("hooks.py")  # within
    assert plugin_files(["acme-smssh"])["acme/other.py"] == HOOK.encode()
    if editable:
        (place / "acme" / "folder").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(SmsshError, match=r"whose acme/folder/key\.py is a symlink that leads out"):
            plugin_files(["acme-smssh"])
        (place / "acme" / "folder").unlink()
        (place / "acme" / "loop").symlink_to(".")
        assert "acme/loop/hooks.py" not in plugin_files(["acme-smssh"])


@pytest.mark.parametrize("editable", [False, True])
@pytest.mark.parametrize("name", ["Acme.SMSSH", "acme.team.hooks"])
def test_of_a_namespace_only_its_own_part_is_sent(
    install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, editable: bool, name: str
) -> None:
    files = {"acme/team/__init__.py": "", "acme/team/hooks.py": HOOK}
    install(files=files, points="[smssh]\nacme = acme.team.hooks\n", editable=editable)
    other = tmp_path / "other" / "acme" / "secret"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("secret")
    (other.parent / "loose.py").write_text("secret")
    monkeypatch.syspath_prepend(other.parent.parent)
    importlib.invalidate_caches()
    found = plugin_files([name])
    assert {each for each in found if each.startswith("acme/")} == {"acme/", *files}
    bundle = build(SSHOptions(plugins=(name,)), [KEY])
    bundle.write(tmp_path / "bundle")
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]; import acme.team.hooks; print(acme.team.hooks.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program]
        + [str(tmp_path / "bundle" / each) for each in ("plugins.zip", "smssh.zip")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip().endswith("plugins.zip/acme/team/hooks.py"), done.stderr
