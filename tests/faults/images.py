"""Environments that stand for images, made of links and path files: the test's own, gone with its folder."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.entrypoints.container import IMAGE

if TYPE_CHECKING:
    from pathlib import Path


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
