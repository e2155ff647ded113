"""Virtual environments with real packages of SageMaker's images, made once by uv and kept in `.work/`."""

import fcntl
import hashlib
import shutil
import subprocess
import sys

from tests import needs

from .container import ROOT

FOLDER = ROOT / ".work" / "venvs"
LIMIT = 600
"""Seconds that the making of one may take."""


def venv(name, *requirements, installer="uv", base=sys.executable, missing="PyPI"):
    """The folder of an environment with these packages, skips the test where it can't be.

    Args:
        name: for people.
        requirements: what pip calls requirements.
        base: the interpreter that it is made of.
        installer: `uv`, or `pip` for what only this machine's settings of pip find.
        missing: what is missing where they cannot be had, as tests/needs.py names it.
    """
    uv = needs.program("uv")
    digest = hashlib.sha256(repr((sys.version, requirements, base)).encode()).hexdigest()[:12]
    FOLDER.mkdir(parents=True, exist_ok=True)
    folder = FOLDER / f"{name}-{digest}"
    python = folder / "bin" / "python"
    with (FOLDER / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "made").exists():
            return folder
        install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python)]
        if installer == "pip":
            install = [str(python), "-m", "pip", "install", "--quiet"]
        commands = [[uv, "venv", "--quiet", "--seed", "--clear", "--python", base, str(folder)]]
        commands.append([*install, *requirements])
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
            if done.returncode != 0:
                shutil.rmtree(folder, ignore_errors=True)
                needs.missing(missing, f"{name} could not be made: {done.stderr.strip()[-300:]}")
        (folder / "made").touch()
    return folder
