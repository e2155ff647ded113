"""Virtual environments with real packages of SageMaker's images, made once by uv and kept in `.work/`."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys

import pytest

from .container import ROOT

FOLDER = ROOT / ".work" / "venvs"
LIMIT = 600
"""Seconds that the making of one may take."""


def venv(name, *requirements, installer="uv", base=sys.executable):
    """The folder of an environment with these packages, skips where it can't be.

    Args:
        name: for people.
        requirements: what pip calls requirements.
        base: the interpreter that it is made of.
        installer: `uv`, or `pip` for what only this machine's settings of pip find.
    """
    uv = shutil.which("uv", path=os.pathsep.join([os.environ.get("PATH", ""), str(ROOT / ".work/uv/bin")]))
    if uv is None:
        pytest.skip("uv is not installed")
    digest = hashlib.sha256(repr((sys.version, requirements, base)).encode()).hexdigest()[:12]
    FOLDER.mkdir(parents=True, exist_ok=True)
    folder = FOLDER / f"{name}-{digest}"
    python = folder / "bin" / "python"
    with (FOLDER / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "made").exists():
            return folder
        install = [uv, "pip", "install", "--quiet", "--python", str(python)]
        if installer == "pip":
            install = [str(python), "-m", "pip", "install", "--quiet"]
        commands = [[uv, "venv", "--quiet", "--seed", "--clear", "--python", base, str(folder)]]
        commands.append([*install, *requirements])
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
            if done.returncode != 0:
                shutil.rmtree(folder, ignore_errors=True)
                pytest.skip(f"{name} could not be made: {done.stderr.strip()[-300:]}")
        (folder / "made").touch()
    return folder
