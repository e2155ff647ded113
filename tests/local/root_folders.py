"""Root folders to run jobs in, made of this machine's own programs: a shell, some tools, and a Python if asked for.

They hold the libraries that these need and no others, so that what runs there and needs more has brought it along.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests import needs

TOOLS = (
    "sh",
    "cat",
    "ls",
    "env",
    "id",
    "touch",
    "mkdir",
    "sleep",
    "readlink",
    "rm",
    "chmod",
    "uname",
    "sync",
)
_LEFT_OUT = (
    "site-packages",
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "__pycache__",
    "config-*",
    "ensurepip",
)


def make_root(folder: Path, name: str, *, python: bool = False) -> Path:
    """Make one.

    Args:
        folder: where; made.
        name: what its file /etc/image says.
        python: whether it has /usr/local/bin/python3, as this machine has it, without packages.
    """
    for path in ("etc", "bin", "usr/local/bin", "var", "root"):
        (folder / path).mkdir(parents=True)
    (folder / "etc" / "image").write_text(f"{name}\n")
    (folder / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
    (folder / "etc" / "group").write_text("root:x:0:\n")
    for tool in TOOLS:
        found = needs.program(tool)
        shutil.copy2(found, folder / "bin" / tool)
        _bring_libraries(Path(found), folder)
    if python:
        _bring_python(folder)
    return folder


def _bring_python(folder: Path) -> None:
    program = Path(os.path.realpath(sys.executable))
    home = program.parent.parent
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = folder / "usr" / "local" / "lib" / version
    shutil.copytree(home / "lib" / version, library, ignore=shutil.ignore_patterns(*_LEFT_OUT), symlinks=True)
    (library / "site-packages").mkdir()
    shutil.copy2(program, folder / "usr" / "local" / "bin" / version)
    (folder / "usr" / "local" / "bin" / "python3").symlink_to(version)
    _bring_libraries(program, folder)
    for module in library.rglob("*.so"):
        _bring_libraries(module, folder)


def _bring_libraries(program: Path, folder: Path) -> None:
    """Bring the libraries of a program, and the loader, to where it looks for them."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for path in re.findall(r"(/\S+) \(0x", listed):
        target = Path(f"{folder}{path}")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
