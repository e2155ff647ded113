"""What tests need besides Python packages, and the only place that skips a test.

A skip says one of two things. Either the test does not apply here (`does_not_apply`: another user, another Python, a
case that cannot exist), or something is missing on this machine, which has a name in `NEEDS`. A developer may go
without it; CI may not, because a cell that is promised and never run looks like one that passed. So with CI=true, or
with SMSSH_TEST_MISSING=fail, whatever is missing fails the test that wants it, unless `MAY_BE_MISSING` says why CI goes
without. A skip that was made in any other way fails there too.

    path = needs.program("zsh")                      # in a test or a fixture
    @pytest.mark.needs("git", "busybox")             # before the fixtures of a test
    @pytest.mark.applies(os.geteuid() == 0, "only root can become another user")
    templates = needs.module("sagemaker.train.templates")
    needs.missing("namespaces", why)                 # the test found out by itself

`python -m tests.needs` prints the Debian packages that are missing, for `apt-get install`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
IMAGE = Path(os.environ.get("SMSSH_TEST_IMAGE_ENV", ROOT / ".venv-image"))
"""The environment that stands for the image of a job."""
ROOTS = Path(os.environ.get("SMSSH_TEST_ROOTS", ROOT / ".work" / "roots"))
"""Where dev/roots.sh puts the Debian roots."""
SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"
"""Programs of the system, which an ordinary user's PATH leaves out."""


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_FOLDERS}")


@dataclass(frozen=True)
class Need:
    """Something that tests need.

    Attributes:
        look: returns where it is, None where it is missing; None for what only the test itself can find out.
        remedy: how to get it.
        package: the Debian package that has it, "" for what apt-get does not install.
    """

    look: Callable[[], str | None] | None
    remedy: str
    package: str = ""


def _debian(package: str, *programs: str) -> dict[str, Need]:
    remedy = f"apt-get install {package}"
    return {name: Need(lambda name=name: _which(name), remedy, package) for name in programs}  # type: ignore[misc]


def _python(version: str) -> str | None:
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == version:
        return sys.executable
    found = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python"))
    return str(found[-1]) if found else shutil.which(f"python{version}")


def _uv() -> str | None:
    return shutil.which("uv", path=os.pathsep.join([os.environ.get("PATH", ""), str(ROOT / ".work/uv/bin")]))


def _pip() -> str | None:
    """Of this Python, else the one on PATH; but where uv is, that would be taken, and it goes to the index."""
    own = subprocess.run([sys.executable, "-m", "pip", "--version"], check=False, capture_output=True)
    return sys.executable if own.returncode == 0 else None if _uv() else shutil.which("pip")


def _aws() -> str | None:
    """The AWS CLI itself: a shim of pyenv's does not work in another home folder."""
    found = sorted(Path("~/.pyenv/versions").expanduser().glob("*/bin/aws"))
    return str(found[-1]) if found else _which("aws")


def _file(path: Path) -> str | None:
    return str(path) if os.path.exists(path) else None  # False where this user may not look


def _variable(name: str) -> Callable[[], str | None]:
    return lambda: os.environ.get(name) or None


def _sdk() -> str | None:
    """SageMaker's SDK v3; an SDK v2 has no such package."""
    if importlib.util.find_spec("sagemaker") is None:
        return None
    found = importlib.util.find_spec("sagemaker.mlops")
    return "sagemaker.mlops" if found else None


def _ipv6() -> str | None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return None
    return "::1"


@functools.cache
def _sudo() -> str | None:
    """What becomes root, which root is; one that asks for a password does not."""
    if os.geteuid() == 0:
        return "root"
    sudo = _which("sudo")
    asked = [] if sudo is None else [sudo, "-n", "true"]
    return sudo if asked and subprocess.run(asked, check=False, capture_output=True).returncode == 0 else None


@functools.cache
def _namespaces() -> str | None:
    """Those in which the local emulator runs jobs."""
    from smssh_plugin.errors import SmsshError
    from smssh_plugin.local.sandbox import container

    try:
        container.check_support()
    except SmsshError:
        return None
    return "namespaces"


@functools.cache
def _network_namespaces() -> str | None:
    from smssh_plugin.local.sandbox import container

    return "network namespaces" if _namespaces() and container.shared_network() is None else None


NEEDS: dict[str, Need] = {
    **_debian("openssh-client", "ssh", "scp", "ssh-agent", "ssh-keygen"),
    **_debian("openssh-server", "sshd"),
    **_debian("rsync", "rsync"),
    **_debian("busybox", "busybox"),
    **_debian("bash", "bash"),
    **_debian("dash", "dash", "sh"),
    **_debian("zsh", "zsh"),
    **_debian("fish", "fish"),
    **_debian("git", "git"),
    **_debian("openssl", "openssl"),
    **_debian("graphviz", "dot"),
    **_debian(
        "coreutils", "sha256sum", "sleep", "cat", "ls", "env", "id", "touch", "mkdir", "readlink", "rm"
    ),
    **_debian("coreutils", "chmod", "uname", "sync"),
    **_debian("dpkg", "dpkg-deb"),
    "aws": Need(_aws, "apt-get install awscli", "awscli"),
    "sudo": Need(_sudo, "apt-get install sudo, and a rule that asks this user no password", "sudo"),
    **_debian("iproute2", "ip"),
    **_debian("util-linux", "unshare", "setpriv"),
    **_debian("default-jre-headless", "java"),
    **_debian("mmdebstrap", "mmdebstrap"),
    "dockerd": Need(lambda: _which("dockerd"), "apt-get install docker.io"),
    "docker": Need(lambda: _which("docker"), "apt-get install docker.io"),
    **{
        f"python3.{minor}": Need(
            lambda minor=minor: _python(f"3.{minor}"),  # type: ignore[misc]
            f"pyenv install 3.{minor}, or a python3.{minor} on PATH",
        )
        for minor in range(6, 15)
    },
    "uv": Need(_uv, "make environments"),
    "pip": Need(_pip, "make environments"),
    "image environment": Need(lambda: _file(IMAGE / "bin" / "python"), "make environments"),
    "SageMaker SDK v3": Need(_sdk, "make environments"),
    "asyncssh": Need(
        lambda: "asyncssh" if importlib.util.find_spec("asyncssh") else None, "make environments"
    ),
    **{
        f"root {name}": Need(lambda name=name: _file(ROOTS / name), f"dev/roots.sh {name}")  # type: ignore[misc]
        for name in ("plain", "bullseye", "bookworm", "trixie")
    },
    "PyPI": Need(None, "a package index that pip and uv reach"),
    "torch without CUDA": Need(None, "a package index that has it, in pip's settings"),
    "TorchServe": Need(_variable("SMSSH_TEST_TORCHSERVE"), "SMSSH_TEST_TORCHSERVE=1 fetches and runs it"),
    "amazon-ssm-agent": Need(
        _variable("SMSSH_TEST_SSM_AGENT"),
        "SMSSH_TEST_SSM_AGENT names a folder with amazon-ssm-agent, ssm-agent-worker and ssm-session-worker",
    ),
    "session-manager-plugin": Need(
        _variable("SMSSH_TEST_SESSION_MANAGER_PLUGIN"),
        "SMSSH_TEST_SESSION_MANAGER_PLUGIN names Amazon's plugin",
    ),
    "terraform": Need(lambda: _which("terraform"), "a terraform on PATH"),
    "aws-cdk-lib": Need(
        _variable("SMSSH_TEST_CDK"), "SMSSH_TEST_CDK names a Python that has aws-cdk-lib; node is on PATH"
    ),
    "iam-simulate": Need(
        _variable("SMSSH_TEST_IAM_SIMULATE"),
        "SMSSH_TEST_IAM_SIMULATE names a node_modules that has @cloud-copilot/iam-simulate; node is on PATH",
    ),
    "namespaces": Need(_namespaces, "root, or a kernel that lets users make namespaces"),
    "network namespaces": Need(_network_namespaces, "root, or a kernel that lets users make them"),
    "/dev/net/tun": Need(lambda: _file(Path("/dev/net/tun")), "modprobe tun"),
    "IPv6": Need(_ipv6, "a loopback with ::1"),
}
"""By the names that tests use."""

MAY_BE_MISSING: dict[str, str] = {
    "amazon-ssm-agent": "no registry has it: it is built from its source, outside of this repository",
    "session-manager-plugin": "no registry has it: it is built from its source, outside of this repository",
    "terraform": "neither PyPI nor Debian has it",
    "aws-cdk-lib": "460 MB of packages, and node, for one test",
    "iam-simulate": "a package of npm, and node, for one test",
    "TorchServe": "1.2 GB of packages for three tests, and PyPI has no torch without CUDA",
    "torch without CUDA": "PyPI does not have it",
    "python3.14": "newer than the Python of any SageMaker image, and than many machines",
    "IPv6": "the network of a CI runner is what it is, and no package brings a loopback",
}
"""What CI goes without, and why. Everything else that is missing fails the test that needs it."""

_ON = ("1", "true", "yes", "on")


def strict() -> bool:
    """Whether something that is missing fails the test: CI=true, or SMSSH_TEST_MISSING=fail.

    Raises:
        pytest.UsageError: SMSSH_TEST_MISSING has another value.
    """
    asked = os.environ.get("SMSSH_TEST_MISSING", "")
    if asked not in ("", "fail"):
        raise pytest.UsageError(f"invalid SMSSH_TEST_MISSING: {asked!r}; use fail, or leave it out")
    return asked == "fail" or os.environ.get("CI", "").lower() in _ON


class Skipped(pytest.skip.Exception):
    """A skip that was made here."""

    __module__ = "builtins"  # as pytest's own has it: its summary leaves the class's name out


def missing(name: str, why: str = "") -> NoReturn:
    """Skip the test, or fail it in CI: something that it needs is missing.

    Args:
        name: one of `NEEDS`.
        why: how the test found out, where the machine said it.
    """
    text = f"{name} is missing ({NEEDS[name].remedy}){f': {why}' if why else ''}"
    if strict() and name not in MAY_BE_MISSING:
        pytest.fail(f"{text}; CI skips no test for that, unless tests/needs.py lists it in MAY_BE_MISSING")
    raise Skipped(text, allow_module_level=True, _use_item_location=True)


def does_not_apply(reason: str) -> NoReturn:
    """Skip the test: what it is about cannot be here, whatever is installed."""
    raise Skipped(f"does not apply here: {reason}", allow_module_level=True, _use_item_location=True)


def look(name: str) -> str | None:
    """Where something is; None where it is missing, in CI as well: for a test that says so itself."""
    looking = NEEDS[name].look
    assert looking is not None, f"only a test itself can find out whether there is {name}"
    return looking()


def find(name: str) -> str | None:
    """Where something is, for a test that does less without it; None where it is missing.

    In CI, what may not be missing fails the test: else it would pass, and have done less.
    """
    found = look(name)
    if found is None and strict() and name not in MAY_BE_MISSING:
        missing(name)
    return found


def program(name: str) -> str:
    """Where something is; the test is skipped where it is missing."""
    return find(name) or missing(name)


def python(version: str) -> str:
    """An interpreter of a version, such as "3.8"; the test is skipped where it is missing."""
    return program(f"python{version}")


def module(name: str) -> ModuleType:
    """A module of SageMaker's SDK v3; the test is skipped where that is missing.

    Raises:
        ImportError: the SDK is here, and has no such module.
    """
    program("SageMaker SDK v3")
    return importlib.import_module(name)


def pytest_configure(config: pytest.Config) -> None:
    """Add the two marks, and look at the setting before any test does."""
    strict()
    config.addinivalue_line("markers", "needs(name, ...): what must be here; names of tests/needs.py")
    config.addinivalue_line(
        "markers", "applies(condition, reason): the test is skipped where it does not apply"
    )


def pytest_report_header() -> list[str]:
    """One line about the programs that are missing, before the run and not after it."""
    packages = missing_packages()
    what = "fails" if strict() else "is skipped"
    return [f"missing, and what needs it {what}: apt-get install {' '.join(packages)}"] if packages else []


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Obey the marks before any fixture is made; what does not apply is not missing."""
    for mark in item.iter_markers("applies"):
        condition, reason = mark.args
        if not condition:
            does_not_apply(reason)
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            program(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI, a skip that says neither of the two things is a failure."""
    report = yield
    if report.skipped and strict() and not (call.excinfo and isinstance(call.excinfo.value, Skipped)):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and not by tests/needs.py: {report.longrepr}"
    return report


def missing_packages() -> list[str]:
    """The Debian packages of what is missing."""
    needs = [need for need in NEEDS.values() if need.package and need.look]
    return sorted({need.package for need in needs if need.look and need.look() is None})


if __name__ == "__main__":
    print(*missing_packages())
