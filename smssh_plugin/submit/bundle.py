"""The bundle: what an unmodified image needs to be entered, at an S3 prefix named after its contents.

    run.sh  sitecustomize.py    what starts it (wrapped entry point, PYTHONPATH)
    env.sh  chain/              what starts it where that was chosen (BASH_ENV, SAGEMAKER_TRAINING_MODULE)
    smssh.zip                   the container's part of this package, and pluggy; importable as it is
    options.json                the options, see `SSHOptions`
    wheels/3.11-x86_64/*.whl    asyncssh, where it was asked for, by Python and machine
    agent/x86_64/*.deb          Amazon's agent, where it was asked for, by machine
    smssh-manifest.json         {"version", "files": {name: SHA-256}}; its own SHA-256 names the prefix

The same options, keys and version of this package give the same bytes, on every machine: archives are stored
uncompressed (zlib and zlib-ng compress differently) with fixed times, sources are made smaller by `slim` instead,
and pluggy is the wheel beside this file rather than whatever is installed. That is pluggy 1.5.0 as it is on PyPI, the
newest that runs on Python 3.8 (1.6 needs 3.9, 1.7 needs 3.10).

In the container, run.sh compares smssh.zip with the manifest before it imports anything of it (1.5 ms, once a job),
and the supervisor all other files before it lets anybody in (beside the entry point's start); the agent and the
wheels are compared before they are unpacked. sitecustomize.py compares nothing: it runs in every interpreter of a
job, and 1.5 ms in each would be a tenth of what it costs. That finds damage. Against whoever may write to the prefix
there is no check: whoever may do that may run code in the jobs.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import json
import sys
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Sequence

from .._version import __version__
from ..errors import ExitStatus, SmsshError
from ..manifest import MANIFEST, Manifest
from .agent import Agent, agent_for
from .options import SSHOptions, public_keys
from .slim import slim
from .wheels import wheels_for

__all__ = ["Bundle", "Destination", "authorized_keys", "build", "destination", "publish", "sealed", "upload"]

PREFIX = "smssh/bundles"
PLUGGY = "pluggy-1.5.0-py3-none-any.whl"
PLUGGY_SHA256 = "44e1ad92c8ca002de6377e165f3e0f1be63266ab4d554740532335b9d75ea669"

# The package's own modules that containers import; hooks/ and entrypoints/ come with all but the doors.
MODULES = (
    "__init__.py",
    "_version.py",
    "agent_package.py",
    "errors.py",
    "hookspecs.py",
    "manifest.py",
    "plugins.py",
    "settings.py",
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
LARGE = 1_000_000
"""Bytes from which an upload is worth a line of progress."""


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


@dataclass(frozen=True)
class Destination:
    """Where bundles are stored.

    Attributes:
        client: a boto3 client of S3.
        bucket: the bucket.
        prefix: the prefix, without slashes at its ends; may be empty.
    """

    client: Any
    bucket: str
    prefix: str

    def key(self, digest: str, name: str = "") -> str:
        """The key of a file of the bundle with that digest."""
        return "/".join(part for part in (self.prefix, digest) if part) + "/" + name


# -------------------------------------------------------------------------------- build


def authorized_keys(options: SSHOptions) -> tuple[str, ...]:
    """The public keys that may log in: your own smssh key (made where there is none), then the options' keys.

    Raises:
        SmsshError: there is no key at all and none can be made.
    """
    from ..keys import ensure_key

    named = [key for entry in options.authorized_keys for key in public_keys(entry)]
    try:
        own = [ensure_key().public]
    except SmsshError as error:
        # A build machine without ssh-keygen submits for others.
        if not named:
            raise
        print(f"smssh: only the keys in SSHOptions can log in: {error.message}", file=sys.stderr)
        own = []
    return tuple(dict.fromkeys(own + named))


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
    files["options.json"] = described + b"\n"
    for version in options.wheels:
        platform = version if "-" in version else f"{version}-x86_64"
        files.update({f"wheels/{platform}/{name}": data for name, data in wheels_for(version).items()})
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
            entry.external_attr = 0o100644 << 16
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
    return slim(source) if file.suffix == ".py" else source


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

_published: dict[tuple[str, str, str], str] = {}
_publishing = threading.Lock()


def publish(options: SSHOptions, session: Any) -> str:
    """Build the bundle for these options, store it where it is not stored yet, and answer its S3 prefix.

    Args:
        options: what was asked for.
        session: see `destination`.

    Returns:
        `s3://bucket/prefix/<digest>/`.

    Raises:
        SmsshError: see `build`, `destination` and `upload`.
    """
    with _publishing:
        keys = authorized_keys(options)
        place = destination(options, session)
        agent = agent_for(options, place.client.meta.endpoint_url, place.client.meta.region_name)
        bundle = build(options, keys, agent, "s3://" + "/".join(filter(None, (place.bucket, place.prefix))))
        known = (place.client.meta.endpoint_url, place.bucket, place.key(bundle.digest))
        if known not in _published:
            _published[known] = upload(bundle, place)
        return _published[known]


def destination(options: SSHOptions, session: Any) -> Destination:
    """Where bundles go: the options' place, else the default bucket of the SageMaker session.

    Args:
        options: what was asked for.
        session: a SageMaker SDK session (anything with a `boto_session`), a boto3 session, or None for
            boto3's default.

    Raises:
        SmsshError: there is no region, or the account can't be found out.
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    boto_session = getattr(session, "boto_session", session) or boto3.Session()
    try:
        client = boto_session.client("s3")
        if options.bundle is not None:
            bucket, _, prefix = options.bundle[len("s3://") :].partition("/")
            return Destination(client, bucket, prefix.strip("/"))
        if callable(getattr(session, "default_bucket", None)):
            # The SDK's own way: honours its configuration, and makes the bucket where there is none.
            bucket = session.default_bucket()
            above = getattr(session, "default_bucket_prefix", None)
            return Destination(client, bucket, "/".join(part for part in (above, PREFIX) if part))
        if not boto_session.region_name:
            raise SmsshError(
                "there is no AWS region to store the bundle in",
                hint="set AWS_DEFAULT_REGION, or name a place in SSHOptions(bundle='s3://bucket/prefix')",
                reference="no-region",
                status=ExitStatus.USAGE,
            )
        account = boto_session.client("sts").get_caller_identity()["Account"]
    except (BotoCoreError, ClientError) as error:
        raise SmsshError(
            f"cannot find out where to store the bundle: {error}",
            hint="check your AWS credentials, or name a place in SSHOptions(bundle='s3://bucket/prefix')",
            reference="no-bundle-place",
            status=ExitStatus.REFUSED,
        ) from error
    return Destination(client, f"sagemaker-{boto_session.region_name}-{account}", PREFIX)


def upload(bundle: Bundle, place: Destination) -> str:
    """Store the bundle, unless it is there already, and answer its S3 prefix.

    The manifest goes last: where it is, the rest is.

    Raises:
        SmsshError: the prefix is not writable.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    prefix = f"s3://{place.bucket}/{place.key(bundle.digest)}"
    try:
        place.client.head_object(Bucket=place.bucket, Key=place.key(bundle.digest, MANIFEST))
        return prefix
    except ClientError as error:
        # Without s3:ListBucket, a key that does not exist is a 403.
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") not in (403, 404):
            raise _not_writable(place, error) from error
    except BotoCoreError as error:
        raise _not_writable(place, error) from error
    if bundle.size >= LARGE:
        print(f"smssh: uploading {bundle.size / 1e6:.1f} MB to {prefix}", file=sys.stderr, flush=True)
    try:
        for name in [*sorted(set(bundle.files) - {MANIFEST}), MANIFEST]:
            place.client.put_object(
                Bucket=place.bucket, Key=place.key(bundle.digest, name), Body=bundle.files[name]
            )
    except (BotoCoreError, ClientError) as error:
        raise _not_writable(place, error) from error
    return prefix


def _not_writable(place: Destination, error: Exception) -> SmsshError:
    where = f"{place.bucket}/{place.prefix}" if place.prefix else place.bucket
    return SmsshError(
        f"cannot write the bundle to s3://{where}: {error}",
        hint=f"allow s3:PutObject and s3:GetObject on {where}/* (the job's role needs s3:GetObject and "
        "s3:ListBucket), or name another place in SSHOptions(bundle='s3://bucket/prefix')",
        reference="bundle-not-writable",
        status=ExitStatus.REFUSED,
    )
