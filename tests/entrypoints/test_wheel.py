"""The wheel: the launchers of baked images lie where Python looks for them, and start the supervisor."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests import needs
from tests.waiting import LIMIT, until

from .container import ROOT

SOURCES = ("smssh_plugin", "hooks", "entrypoints", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    uv = needs.program("uv")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    built = subprocess.run(
        [uv, "build", "--quiet", "--wheel", "--out-dir", str(folder), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode != 0 and "network" in built.stderr.lower() + built.stdout.lower():
        needs.missing("PyPI", built.stderr.strip()[-300:])
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.whl"))


def test_what_is_in_it(wheel) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"smssh.pth", "smssh.start"} <= names
    assert {"smssh_plugin/hooks/sshd.py", "smssh_plugin/entrypoints/run.sh"} <= names
    assert {
        f"smssh_plugin/debug/templates/{name}" for name in ("report.html", "parts.html", "report.css")
    } <= names
    assert not [name for name in names if name.startswith(("hooks/", "entrypoints/", "tests/"))]


def test_a_baked_image(wheel, container) -> None:
    """Installed in the interpreter that owns the job: nothing in the request but SMSSH_ENABLE=1."""
    image = container.folder / "image"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", str(image)], check=True
    )
    packages = next(image.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # What pip would install with it.
    import pluggy

    (packages / "dependencies.pth").write_text(str(Path(pluggy.__file__).parents[1]))
    code = "import sys; print([name for name in sys.modules if 'smssh' in name])\n"
    script = container.script(
        code + "import os, time\nwhile not os.path.exists('go'): time.sleep(0.05)\n", name="train"
    )
    container.script("", name="go")
    assert container.start(image / "bin" / "python", script, on=False).wait(LIMIT) == 0
    assert container.output() == "[]\n"
    (container.folder / "go").unlink()
    process = container.start(image / "bin" / "python", script)
    status = container.wait_for("ready")
    assert status["ssh"]["port"]
    assert container.log().count("started by pth") == 1
    container.script("", name="go")
    assert process.wait(LIMIT) == 0
    until(lambda: not container.strays(), what="the end")
