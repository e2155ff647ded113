"""Make the checkout's virtual environments: `.venv` (client, emulator, tests) and `.venv-image` (the jobs' image).

    python3 dev/environments.py [--group GROUP ...]

Needs Python 3.10 or newer and a C compiler (one package of the image has an extension), nothing else: uv comes
from PyPI, and where Debian's python3 lacks pip or its headers, those are unpacked from Debian's packages into
`.work/`. Nothing outside the checkout is changed. A second run finds everything in place and ends at once.

Standard library only: it runs before anything is installed.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".work"
# What a SageMaker scikit-learn image has in it, as far as the examples and tests use it. No smssh: jobs get that
# through the bundle, as they do on AWS.
IMAGE = ["boto3", "sagemaker-inference>=1.10", "sagemaker-training>=5.1", "scikit-learn", "setuptools<81"]


def fail(problem: str, remedy: str) -> "None":
    """End with the problem and what to do about it."""
    sys.exit(f"error: {problem}\n  hint: {remedy}")


def say(text: str) -> None:
    """One line of progress."""
    print(f"[environments] {text}", file=sys.stderr, flush=True)


def unpack_debian(package: str, remedy: str) -> Path:
    """Unpack a Debian package into `.work/` (needs no root) and return where."""
    target = WORK / "debian" / package
    if target.exists():
        return target
    downloads = WORK / "downloads"
    shutil.rmtree(downloads, ignore_errors=True)
    downloads.mkdir(parents=True)
    if not shutil.which("apt-get"):
        fail(f"{package} is needed and this is not Debian or Ubuntu", remedy)
    # Lists and cache of our own: apt's may be empty, and only root may fill them.
    lists, cache = WORK / "apt" / "lists", WORK / "apt" / "cache"
    for folder in (lists / "partial", cache / "archives" / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    apt = ["apt-get", "-qq", "-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache}"]
    apt += [
        "-o",
        "APT::Sandbox::User=root",
    ]  # root's downloads go to a folder that apt's own user can't write
    if not any(lists.glob("*Packages*")):
        subprocess.run([*apt, "update"], check=False, stdout=sys.stderr)
    got = subprocess.run([*apt, "download", package], cwd=downloads, check=False, stdout=sys.stderr)
    archives = list(downloads.glob("*.deb"))
    if got.returncode or not archives:
        fail(f"{package} is needed and could not be downloaded", remedy)
    unpacked = WORK / "unpacking"
    shutil.rmtree(unpacked, ignore_errors=True)
    subprocess.run(["dpkg-deb", "-x", str(archives[0]), str(unpacked)], check=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    unpacked.rename(target)
    return target


def find_uv() -> str:
    """The uv on PATH, else one installed from PyPI into `.work/`."""
    found = shutil.which("uv")
    own = WORK / "uv" / "bin" / "uv"
    if found or own.exists():
        return found or str(own)
    say("fetching uv")
    remedy = "apt-get install python3-pip, or install uv"
    pip = [sys.executable, "-m", "pip"]
    environment = dict(os.environ)
    if subprocess.run([*pip, "--version"], check=False, capture_output=True).returncode:
        folder = unpack_debian("python3-pip-whl", remedy) / "usr/share/python-wheels"
        environment["PYTHONPATH"] = str(next(folder.glob("pip-*.whl")))
    command = [*pip, "install", "--quiet", "--disable-pip-version-check", "--target", str(WORK / "uv"), "uv"]
    if (
        subprocess.run(command, check=False, env=environment, stdout=sys.stderr).returncode
        or not own.exists()
    ):
        fail("uv could not be installed from PyPI", remedy)
    return str(own)


def headers() -> "dict[str, str]":
    """Environment variables that let an extension compile: empty where Python's headers are in their place."""
    if not shutil.which(os.environ.get("CC", "cc")) and not shutil.which("gcc"):
        fail("no C compiler (sagemaker-training has a C extension)", "apt-get install gcc libc6-dev")
    place = Path(sysconfig.get_path("include"))
    if (place / "Python.h").exists():
        return {}
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    say(f"fetching the headers of Python {version}")
    unpacked = unpack_debian(f"libpython{version}-dev", f"apt-get install python{version}-dev")
    include = unpacked / "usr/include"
    return {"CPATH": f"{include / f'python{version}'}:{include}"}


def make(uv: str, name: str, arguments: "list[str]", *, compiles: bool = False) -> None:
    """Make the environment anew unless it was made for exactly this."""
    folder = ROOT / name
    identity = [sys.version, *arguments, (ROOT / "pyproject.toml").read_text()]
    digest = hashlib.sha256("\n".join(identity).encode()).hexdigest()
    stamp = folder / "made-for"
    if stamp.exists() and stamp.read_text() == digest:
        return
    started = time.monotonic()
    say(f"making {name} (a minute or so the first time)")
    # Jobs and commands are new processes in nearly every test, and most may not write byte code themselves.
    environment = {**os.environ, "UV_NO_PROGRESS": "1", "UV_COMPILE_BYTECODE": "1"}
    environment.update(headers() if compiles else {})
    environment.pop("VIRTUAL_ENV", None)
    commands = [[uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *arguments]]
    if not stamp.exists():
        commands.insert(0, [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
    for command in commands:
        if subprocess.run(command, check=False, cwd=ROOT, env=environment, stdout=sys.stderr).returncode:
            fail(f"{name} could not be made", "see the lines above; run again once it is fixed")
    stamp.write_text(digest)
    say(f"made {name} in {time.monotonic() - started:.0f} s")


def main() -> None:
    """Make both environments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--group", action="append", default=[], help="a dependency group of pyproject.toml as well"
    )
    args = parser.parse_args()
    if sys.version_info < (3, 10):
        fail(f"this is Python {sys.version.split()[0]}", "run it with Python 3.10 or newer")
    uv = find_uv()
    groups = [argument for group in args.group for argument in ("--group", group)]
    make(uv, ".venv", ["-e", ".[local]", *groups])
    make(uv, ".venv-image", IMAGE, compiles=True)


if __name__ == "__main__":
    main()
