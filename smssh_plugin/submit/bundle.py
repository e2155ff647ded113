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
uncompressed (zlib and zlib-ng compress differently) with fixed times, sources are made smaller by `slim` instead,
and pluggy is the wheel beside this file rather than whatever is installed. That is pluggy 1.5.0 as it is on PyPI, the
newest that runs on Python 3.8 (1.6 needs 3.9, 1.7 needs 3.10).

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
import importlib.util
import io
import json
import threading
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping, Sequence

from .._version import __version__
from ..aws.s3_address import split_owner, with_owner
from ..errors import ExitStatus, SmsshError
from ..manifest import MANIFEST, PLUGINS, Manifest
from .agent import Agent, agent_for
from .authorized import authorized_keys
from .given import check_given
from .slim import slim, slim_shell
from .stored import OPTIONS, Destination, destination
from .upload import upload
from .wheels import platform_of, wheels_for

if TYPE_CHECKING:
    from .options import SSHOptions

__all__ = [
    "Bundle",
    "Destination",
    "announce_variable",
    "authorized_keys",
    "build",
    "bundle_for",
    "destination",
    "publish",
    "sealed",
    "upload",
]

PLUGGY = "pluggy-1.5.0-py3-none-any.whl"
PLUGGY_SHA256 = "44e1ad92c8ca002de6377e165f3e0f1be63266ab4d554740532335b9d75ea669"

# The package's own modules that containers import; hooks/ and entrypoints/ come with all but the doors.
MODULES = (
    "__init__.py",
    "_version.py",
    "agent_package.py",
    "aws/__init__.py",
    "aws/s3_address.py",
    "aws/s3_encryption.py",
    "aws/signing.py",
    "aws/tls_proxy.py",
    "aws/transport.py",
    "errors.py",
    "hookspecs.py",
    "key_sources.py",
    "manifest.py",
    "plugins.py",
    "settings.py",
    "terminal.py",
)
SUBPACKAGES = ("entrypoints", "hooks")
DOORS = {
    "run.sh": "run.sh",
    "sitecustomize.py": "sitecustomize.py",
    "env.sh": "env.sh",
    # Alone in its folder: who chooses it wants no sitecustomize of ours on PYTHONPATH.
    "chain/smssh_chain.py": "chain.py",
}
"""The carriers: name in the bundle -> file of entrypoints/."""


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory.

    Attributes:
        files: name relative to the prefix -> contents, the manifest included.
        digest: SHA-256 of the manifest, in hexadecimal: of everything in it, that is.
    """

    files: Mapping[str, bytes]
    digest: str

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(len(data) for data in self.files.values())

    def write(self, folder: Path) -> None:
        """Lay the files out in a folder, as the service does in a container (without x bits)."""
        for name, data in self.files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


# -------------------------------------------------------------------------------- build


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
        from .plugin_files import plugin_files

        files[PLUGINS] = _archive(plugin_files(options.plugins))
    files.update(agent.files)
    return sealed(files)


def sealed(files: Mapping[str, bytes]) -> Bundle:
    """The bundle of these files, with its manifest."""
    manifest = Manifest.of(__version__, files).text()
    return Bundle({**files, MANIFEST: manifest}, hashlib.sha256(manifest).hexdigest())


@functools.lru_cache(maxsize=1)
def _own_files() -> Mapping[str, bytes]:
    """What is in every bundle: the doors and the archive."""
    doors = _package_folder("entrypoints")
    files = {name: _source(doors / file) for name, file in DOORS.items()}
    return {**files, "smssh.zip": _archive(_modules())}


def _modules() -> dict[str, bytes]:
    """What `smssh.zip` holds: name -> contents."""
    package = _package_folder()
    found = {f"smssh_plugin/{name}": _source(package / name) for name in MODULES}
    for subpackage in SUBPACKAGES:
        for file in sorted(_package_folder(subpackage).glob("*.py")):
            if file.name not in DOORS.values():
                found[f"smssh_plugin/{subpackage}/{file.name}"] = _source(file)
    wheel = _read(Path(__file__).with_name(PLUGGY))
    if hashlib.sha256(wheel).hexdigest() != PLUGGY_SHA256:
        raise _incomplete(PLUGGY, "is not the one that was released")
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        for name in archive.namelist():
            if name.endswith(".py"):
                found[name] = slim(archive.read(name))
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


def _package_folder(subpackage: str | None = None) -> Path:
    """The folder of this package, or of one below it, which an editable installation keeps elsewhere."""
    if subpackage is None:
        return Path(__file__).resolve().parent.parent
    spec = importlib.util.find_spec(f"smssh_plugin.{subpackage}")
    if spec is None or spec.origin is None:
        raise _incomplete(f"smssh_plugin.{subpackage}", "is missing")
    return Path(spec.origin).resolve().parent


def _source(file: Path) -> bytes:
    """A source as it goes into a bundle; line ends do not depend on who checked it out."""
    source = _read(file).replace(b"\r\n", b"\n")
    return {".py": slim, ".sh": slim_shell}.get(file.suffix, bytes)(source)


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


# -------------------------------------------------------------------------------- upload

FRESH_SECONDS = 600.0
"""For so long, what was found at a prefix is not looked at again: all steps of a pipeline have the same bundle, and a
notebook that is open for weeks does not rely on what it saw on the first day."""

_published: dict[tuple[str, str, str], tuple[float, str]] = {}
_publishing = threading.Lock()


def publish(options: SSHOptions, session: Any) -> str:
    """The S3 prefix of the bundle for these options: built and stored where it is not stored yet, or given.

    Args:
        options: what was asked for.
        session: see `destination`.

    Returns:
        `s3://bucket/prefix/<digest>/`.

    Raises:
        SmsshError: see `build`, `destination`, `upload` and `check_given`.
    """
    if options.baked:
        raise SmsshError(
            "a job with bundle='baked' has no bundle that could be stored",
            reference="no-bundle",
            status=ExitStatus.USAGE,
        )
    with _publishing:
        place = destination(options, session)
        if options.given is not None:
            check_given(options, session, place)
            return options.given
        bundle = bundle_for(options, session, place.client, with_owner(place.address, options.bucket_owner))
        known = (place.client.meta.endpoint_url, place.bucket, place.key(bundle.digest))
        when, address = _published.get(known, (0.0, ""))
        if not address or time.monotonic() - when > FRESH_SECONDS:
            address = upload(bundle, place)
            _published[known] = (time.monotonic(), address)
        return address


def announce_variable(options: SSHOptions, session: Any, address: str) -> dict[str, str]:
    """The variable by which a job says where its hosts announce themselves, where its bundle's address does not.

    Clients look below the place of the bundle, and read no `options.json`: see `hooks/native.py`.

    Args:
        options: what was asked for.
        session: see `destination`.
        address: what `publish` answered for them.
    """
    if options.transport != "native":
        return {}
    beside = address.rstrip("/").rpartition("/")[0]
    if options.given is not None:
        said = check_given(options, session, destination(options, session)).announce
    else:
        said = str(options.document(()).get("announce", beside))
    said, owner = split_owner(said)
    place = said or beside
    # Neither the host nor a client can see in the bundle's address that its bucket is another account's.
    owner = owner or (options.bucket_owner if place.rstrip("/") == beside else "")
    return {} if said.rstrip("/") == beside and not owner else {"SMSSH_ANNOUNCE": with_owner(place, owner)}


def bundle_for(options: SSHOptions, session: Any, client: Any, announce: str = "") -> Bundle:
    """The bundle for these options, with the keys and the agent that they name.

    Args:
        options: what was asked for.
        session: see `destination`.
        client: a boto3 client of S3; its region has the agent.
        announce: see `build`.

    Raises:
        SmsshError: see `authorized_keys`, `agent_for` and `build`.
    """
    keys = authorized_keys(options, session)
    return build(
        options, keys, agent_for(options, client.meta.endpoint_url, client.meta.region_name), announce
    )
