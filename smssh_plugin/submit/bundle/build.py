"""The bundle: what an unmodified image needs to be entered, at an S3 prefix named after its contents.

    run.sh  sitecustomize.py    what starts it (wrapped entry point, PYTHONPATH)
    env.sh  chain/              what starts it where that was chosen (BASH_ENV, SAGEMAKER_TRAINING_MODULE)
    smssh.zip                   the container's part of this package, and pluggy; importable as it is
    options.json                the options, see `SSHOptions`
    plugins.zip                 plugins of others, where they were asked for
    wheels/3.11-x86_64/*.whl    asyncssh, where it was asked for, by Python and machine
    agent/x86_64/*.deb          Amazon's agent, where it was asked for, by machine
    smssh-manifest.json         {"version", "files": {name: SHA-256}}; its own SHA-256 names the prefix

The same options, keys and version of this package give the same bytes, on every machine: archives are stored
uncompressed (zlib and zlib-ng compress differently) with fixed times, and pluggy is the wheel beside this file rather
than whatever is installed. That is pluggy 1.5.0 as it is on PyPI, the newest that runs on Python 3.8 (1.6 needs 3.9,
1.7 needs 3.10).

In the container, the words in front of a wrapped entry point (`wrapper`) compare the manifest with the digest in the
request, and run.sh with the manifest, before run.sh is run; run.sh compares smssh.zip before it imports anything of
it, and the supervisor all other files before it lets anybody in (beside the entry point's start); the agent and the
wheels are compared before they are unpacked. A person who may write to the prefix, and not to the request, can run
nothing there.

Where Python itself starts us (PYTHONPATH) nothing can run before the bundle: sitecustomize.py compares nothing, and a
person who may write to the prefix can run code in such jobs. The supervisor still finds damage.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Mapping, Sequence

from ...errors import ExitStatus, SmsshError
from ...manifest import PLUGINS
from .agent import Agent
from .model import sealed
from .store import OPTIONS
from .wheels import platform_of, wheels_for

if TYPE_CHECKING:
    from ..options import SSHOptions
    from .model import Bundle

__all__ = ["build"]

PLUGGY = "pluggy-1.5.0-py3-none-any.whl"
PLUGGY_SHA256 = "44e1ad92c8ca002de6377e165f3e0f1be63266ab4d554740532335b9d75ea669"

# The package's own modules that containers import; hooks/ and entrypoints/ come with all but the launchers.
MODULES = (
    "__init__.py",
    "_version.py",
    "agent_package.py",
    "aws/__init__.py",
    "aws/json_client.py",
    "aws/s3_address.py",
    "aws/s3_encryption.py",
    "aws/signing.py",
    "aws/tls_proxy.py",
    "aws/transport.py",
    "durations.py",
    "errors.py",
    "files.py",
    "hookspecs.py",
    "key_sources.py",
    "manifest.py",
    "plugins.py",
    "processes.py",
    "setting_values.py",
    "settings.py",
    "terminal.py",
)
SUBPACKAGES = ("container", "entrypoints", "hooks", "supervisor")
LAUNCHER_FILES = {
    "run.sh": "run.sh",
    "sitecustomize.py": "sitecustomize.py",
    "env.sh": "env.sh",
    # Alone in its folder: who chooses it wants no sitecustomize of ours on PYTHONPATH.
    "chain/smssh_chain.py": "chain.py",
}
"""The launchers: name in the bundle -> file of entrypoints/."""


def build(options: SSHOptions, keys: Sequence[str], agent: Agent | None = None, announce: str = "") -> Bundle:
    """Build the bundle for these options: the same bytes for the same arguments, everywhere.

    Args:
        options: what was asked for.
        keys: the public keys that may log in, one line each; see `authorized_keys`.
        agent: Amazon's agent; see `agent_for`.
        announce: the S3 address below which hosts with the native transport announce themselves.

    Raises:
        SmsshError: the installation is not complete, or wheels were asked for and can't be downloaded.
    """
    agent = Agent() if agent is None else agent
    document = {**options.document(tuple(keys)), **agent.options}
    if announce and options.transport == "native":
        document.setdefault("announce", announce)
    try:
        described = json.dumps(document, indent=1, sort_keys=True).encode()
    except (TypeError, ValueError) as error:
        raise SmsshError(
            f"SSHOptions: extra can't be written as JSON: {error}",
            reference="bad-option",
            status=ExitStatus.USAGE,
        ) from error
    files = {**_own_files()}
    files[OPTIONS] = described + b"\n"
    for version in options.wheels:
        folder = f"wheels/{platform_of(version)}"
        files.update({f"{folder}/{name}": data for name, data in wheels_for(version).items()})
    if options.plugins:
        from .plugins import plugin_files

        files[PLUGINS] = _archive(plugin_files(options.plugins))
    files.update(agent.files)
    return sealed(files)


@functools.lru_cache(maxsize=1)
def _own_files() -> Mapping[str, bytes]:
    """What is in every bundle: the launchers and the archive."""
    folder = _package_folder("entrypoints")
    files = {name: _source(folder / file) for name, file in LAUNCHER_FILES.items()}
    return {**files, "smssh.zip": _archive(_modules())}


def _modules() -> dict[str, bytes]:
    """What `smssh.zip` holds: name -> contents."""
    package = _package_folder()
    found = {f"smssh_plugin/{name}": _source(package / name) for name in MODULES}
    for subpackage in SUBPACKAGES:
        for file in sorted(_package_folder(subpackage).glob("*.py")):
            if file.name not in LAUNCHER_FILES.values():
                found[f"smssh_plugin/{subpackage}/{file.name}"] = _source(file)
    wheel = _read(Path(__file__).with_name(PLUGGY))
    if hashlib.sha256(wheel).hexdigest() != PLUGGY_SHA256:
        raise _incomplete(PLUGGY, "is not the one that was released")
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        for name in archive.namelist():
            if name.endswith(".py"):
                found[name] = archive.read(name)
            elif name.endswith("/LICENSE"):
                # Not in its .dist-info: one without METADATA breaks importlib.metadata for everybody who sees
                # it.
                found["pluggy/LICENSE"] = archive.read(name)
    return found


def _archive(files: Mapping[str, bytes]) -> bytes:
    """A zip archive whose bytes depend on names and contents alone."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, wherever it is made
            entry.external_attr = (0o040755 if name.endswith("/") else 0o100644) << 16
            archive.writestr(entry, files[name])
    return out.getvalue()


def _package_folder(subpackage: str = "") -> Path:
    """The folder of this package, or of one below it."""
    return Path(__file__).resolve().parents[2] / subpackage


def _source(file: Path) -> bytes:
    """A source as it goes into a bundle; line ends do not depend on who checked it out."""
    return _read(file).replace(b"\r\n", b"\n")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise _incomplete(str(file), error.strerror or "cannot be read") from error


def _incomplete(name: str, problem: str) -> SmsshError:
    return SmsshError(
        f"this installation of smssh-plugin is not complete: {name} {problem}",
        hint="reinstall it: pip install --force-reinstall smssh-plugin",
        reference="installation-incomplete",
    )
