"""The example third-party plugin: its own tests, and in an image where it is installed next to us."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pluggy
import pytest

from smssh_plugin.manifest import MANIFEST, PLUGINS
from smssh_plugin.submit.bundle.build import build
from smssh_plugin.submit.bundle.model import sealed
from smssh_plugin.submit.options import SSHOptions
from tests import needs
from tests.entrypoints.conftest import bundle, container, key
from tests.entrypoints.container import IMAGE
from tests.entrypoints.test_wheel import SOURCES
from tests.faults.images import image, packages
from tests.waiting import LIMIT, until

__all__ = ["bundle", "container", "key"]

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "examples" / "plugins" / "smssh-triage"


def test_its_own_tests(tmp_path) -> None:
    shutil.copytree(PLUGIN, tmp_path / "plugin")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-c",
            os.devnull,
            "--rootdir",
            ".",
            "-p",
            "no:cacheprovider",
            "tests",
        ],
        cwd=tmp_path / "plugin",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "plugin")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def install(made: Path, folder: Path, *names: str) -> None:
    """Build and install packages of the checkout; nothing is fetched, nothing is written into it."""
    uv = needs.program("uv")
    if not list(IMAGE.glob("lib/python*/site-packages/setuptools")):
        needs.missing("image environment", "it has no setuptools to build with")
    sources = []
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "tests")
    if "smssh-plugin" in names:
        source = folder / "smssh-plugin"
        source.mkdir()
        for name in SOURCES:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / name, ignore=ignore)
            else:
                shutil.copy(ROOT / name, source / name)
        sources.append(source)
    if "smssh-triage" in names:
        sources.append(Path(shutil.copytree(PLUGIN, folder / "smssh-triage", ignore=ignore)))
    options = ["--quiet", "--offline", "--no-deps", "--no-build-isolation", "--cache-dir", folder / "cache"]
    done = subprocess.run(
        [uv, "pip", "install", *options, "--python", made / "bin" / "python", *sources],
        env={name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if "smssh-plugin" in names:  # its own requirement, which pip would install with it
        shutil.copytree(Path(pluggy.__file__).parent, packages(made) / "pluggy", dirs_exist_ok=True)


FAIL = "import os, sys, time\nwhile not os.path.exists('go'): time.sleep(0.05)\nsys.exit(int(open('go').read()))\n"


def job(container, made, launcher, **environ):
    """A failing job in the image, with one of the launchers."""
    script = container.script(FAIL)
    command = [made / "bin" / "python", script]
    if launcher == "baked":  # what an image with `ENTRYPOINT ["smssh-hook", "run", "--", ...]` does
        command = [made / "bin" / "smssh-hook", "run", "--", *command]
    else:
        command = ["/bin/sh", container.bundle / "run.sh", *command]
    path = f"{made}/bin:{container.environ['PATH']}"
    return container.start(*command, PATH=path, SMSSH_HOLD="failure", **environ)


@pytest.mark.parametrize("launcher", [pytest.param("baked", marks=pytest.mark.needs("sshd")), "run.sh"])
def test_it_works_in_a_container(container, launcher) -> None:
    """Installed in the Python that runs the supervisor, it is found, whatever the launcher is."""
    made = image(container.folder)
    names = ["smssh-plugin", "smssh-triage"] if launcher == "baked" else ["smssh-triage"]
    install(made, container.folder, *names)
    process = job(container, made, launcher, TRIAGE_NO_HOLD="9")
    status = container.wait_for("running")
    assert "triage" in status["hooks"]
    container.script("7", name="go")
    container.wait_for("held")
    report = json.loads(container.hook("report", "--json").stdout)
    assert report["packages"]["smssh-triage"] == "1.0"
    assert "sagemaker_training" in report["packages"] or "sagemaker-training" in report["packages"]
    container.script("9", name="go")
    container.hook("retry", "--no-wait")
    assert process.wait(LIMIT) == 9
    assert "triage: exit status 9 is not held" in container.output()
    container.assert_quiet()


def with_plugin(container, named):
    """The container's bundle, which somebody can log in with, and the plugin in it."""
    files = {
        file.relative_to(container.bundle).as_posix(): file.read_bytes()
        for file in container.bundle.rglob("*")
        if file.is_file() and file.name != MANIFEST and file.suffix != ".pyc"
    }
    built = build(SSHOptions(transport="none", plugins=(named,)), []).files
    container.bundle = container.folder / "with-plugins"
    sealed({**files, PLUGINS: built[PLUGINS], "options.json": built["options.json"]}).write(container.bundle)
    return container.bundle


@pytest.mark.parametrize("launcher", ["run.sh", "sitecustomize"])
@pytest.mark.parametrize("named", ["smssh-triage", "smssh_triage"])
def test_it_travels_in_the_bundle(container, monkeypatch, launcher, named) -> None:
    """By its distribution and by its module; the image has neither it nor us."""
    if named == "smssh_triage":
        monkeypatch.syspath_prepend(PLUGIN)
    else:
        submitting = image(container.folder)
        install(submitting, container.folder, "smssh-triage")
        monkeypatch.syspath_prepend(packages(submitting))
    bundle = with_plugin(container, named)
    script = container.script(
        "import importlib.util\nprint('seen by the job:', importlib.util.find_spec('smssh_triage'))\n" + FAIL
    )
    command = ["python", script]
    environ = {"SMSSH_HOLD": "failure", "TRIAGE_NO_HOLD": "9"}
    if launcher == "run.sh":
        command = ["/bin/sh", bundle / "run.sh", *command]
    else:
        environ["PYTHONPATH"] = bundle
    process = container.start(*command, **environ)
    assert ("triage" if named == "smssh-triage" else named) in container.wait_for("running")["hooks"]
    container.script("7", name="go")
    container.wait_for("held")
    assert json.loads(container.hook("report", "--json").stdout)["packages"]
    container.script("9", name="go")
    container.hook("retry", "--no-wait")
    assert process.wait(LIMIT) == 9
    assert "triage: exit status 9 is not held" in container.output()
    assert "seen by the job: None" in container.output()
    container.assert_quiet()


def test_a_plugin_that_was_changed_on_the_way_is_not_run(container, monkeypatch) -> None:
    monkeypatch.syspath_prepend(PLUGIN)
    bundle = with_plugin(container, "smssh_triage")
    archive = bundle / "plugins.zip"
    archive.write_bytes(archive.read_bytes() + b" ")
    process = container.start(
        "/bin/sh", bundle / "run.sh", "python", container.script(FAIL), SMSSH_HOLD="failure"
    )
    until(lambda: "no login is possible" in container.output(), what=container.log)
    assert "the bundle is damaged: plugins.zip is not what" in container.output()
    assert "plugins of the bundle are skipped" in container.log()
    container.script("9", name="go")
    assert process.wait(LIMIT) == 9
    container.assert_quiet()


def test_an_image_without_it_has_no_triage(container) -> None:
    """Unless it was asked for, what the bundle brings is ours alone."""
    made = image(container.folder)
    process = job(container, made, "run.sh", TRIAGE_NO_HOLD="9")
    assert "triage" not in container.wait_for("running")["hooks"]
    container.script("9", name="go")
    container.wait_for("held")
    container.hook("release")
    assert process.wait(LIMIT) == 9
    container.assert_quiet()
