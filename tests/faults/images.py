"""Environments that stand for images, made of links and path files: the test's own, gone with its folder."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pluggy

import smssh_plugin
import smssh_plugin.entrypoints
import smssh_plugin.hooks
from tests.entrypoints.container import IMAGE


def image(folder: Path) -> Path:
    """A virtual environment with all that the image environment has; returns its folder."""
    made = folder / "image"
    subprocess.run([IMAGE / "bin" / "python", "-m", "venv", "--without-pip", made], check=True)
    theirs = next(IMAGE.glob("lib/python*/site-packages"))
    (packages(made) / "image.pth").write_text(f"{theirs}\n")
    return made


def packages(made: Path) -> Path:
    """Its site-packages."""
    return next(made.glob("lib/python*/site-packages"))


def add_plugin(made: Path, source: str, name: str = "faulty") -> None:
    """Install a plugin of one module, as a third-party package."""
    site = packages(made)
    (site / f"{name}.py").write_text(source)
    info = site / f"{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[smssh]\n{name} = {name}\n")


def bake(made: Path, version: str) -> None:
    """Install this package, as a version of its own, with what starts it."""
    site = packages(made)
    skip = shutil.ignore_patterns(
        "__pycache__", "local", "cli", "debug", "client", "session", "hooks", "entrypoints"
    )
    for package in (smssh_plugin, smssh_plugin.hooks, smssh_plugin.entrypoints):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, site.joinpath(*package.__name__.split(".")), ignore=skip)
    shutil.copytree(Path(pluggy.__file__).parent, site / "pluggy", dirs_exist_ok=True)
    (site / "smssh_plugin" / "_version.py").write_text(f'__version__ = "{version}"\n')
    for name in ("smssh.pth", "smssh.start"):
        shutil.copy(site / "smssh_plugin" / "entrypoints" / name, site / name)
