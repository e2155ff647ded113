"""A virtual environment for each version of the SDK, and surroundings in which it reaches nothing but moto."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from tests import needs

ROOT = Path(__file__).resolve().parents[3]
WORK = ROOT / ".work"

REQUIREMENTS = {
    "2.257.7": ["sagemaker==2.257.7"],
    # It imports pytz, and counted on pandas to bring it.
    "2.232.3": ["sagemaker==2.232.3", "pytz"],
    "3.27.0": [
        *("sagemaker==3.27.0", "sagemaker-core==2.27.0", "sagemaker-train==1.27.0"),
        *("sagemaker-mlops==1.27.0", "sagemaker-serve==1.27.0"),
    ],
    "3.20.0": [
        *("sagemaker==3.20.0", "sagemaker-core==2.20.0", "sagemaker-train==1.20.0"),
        *("sagemaker-mlops==1.20.0", "sagemaker-serve==1.20.0"),
    ],
}
"""What makes each version: SDK v3 is several distributions."""
NEWEST = ("2.257.7", "3.27.0")
UNREACHABLE = re.compile(
    r"error sending request|dns error|connection (refused|reset|closed)|timed out|network is unreachable|offline",
    re.IGNORECASE,
)
"""What uv says where PyPI can't be reached."""
PATIENCE = 900


def python_of(version: str) -> Path:
    """A Python that has this version of the SDK, and us; its environment is made if it is missing.

    The test is skipped where that needs PyPI, and PyPI is out of reach.
    """
    if _is_here(version):
        return Path(sys.executable)
    folder = WORK / "sdks" / version
    folder.parent.mkdir(parents=True, exist_ok=True)
    wanted = ["-e", str(ROOT), *REQUIREMENTS[version]]
    made_for = hashlib.sha256("\n".join([sys.version, *wanted]).encode()).hexdigest()
    python, stamp = folder / "bin" / "python", folder / "made-for"
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != made_for:
            _run("venv", "--clear", "--python", sys.executable, folder)
            _run("pip", "install", "--compile-bytecode", "--python", python, *wanted)
            stamp.write_text(made_for)
    return python


def _is_here(version: str) -> bool:
    """Whether the environment of the tests has just this version, as it does where it was made lately."""
    pins = dict(each.split("==") for each in REQUIREMENTS[version] if "==" in each)
    try:
        return all(metadata.version(name) == pinned for name, pinned in pins.items())
    except metadata.PackageNotFoundError:
        return False


def _run(*arguments: object) -> None:
    uv = needs.program("uv")
    environment = {**os.environ, "UV_NO_PROGRESS": "1"}
    environment.pop("VIRTUAL_ENV", None)
    done = subprocess.run(
        [uv, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode and UNREACHABLE.search(done.stderr):
        needs.missing("PyPI", done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr


def offline_variables(folder: Path, endpoint: str) -> dict[str, str]:
    """The environment of a machine of its own, in which the SDK reaches nothing but moto.

    Args:
        folder: becomes the machine's: its home and temporary files are there.
        endpoint: moto's address.
    """
    for name in ("home", "tmp", "work"):
        (folder / name).mkdir(parents=True)
    configuration = folder / "sagemaker.yaml"
    # Without it, every call asks a bucket of AWS's whether it was counted.
    configuration.write_text(
        "SchemaVersion: '1.0'\nSageMaker:\n  PythonSDK:\n    Modules:\n      TelemetryOptOut: true\n"
    )
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "SMSSH_HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(configuration),
        "SAGEMAKER_ADMIN_CONFIG_OVERRIDE": str(configuration),
        "SAGEMAKER_SUPPRESS_V2_WARNING": "1",
        "SAGEMAKER_VALIDATE_ROLE": "false",
    }
