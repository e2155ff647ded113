"""What a client of the local emulator has in its environment; the same program without it speaks to AWS.

This module imports the standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..files import write_atomically
from .proxying import proxy_variables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .keyring import Key

__all__ = ["Access", "client_environment", "exports", "network", "removed_variables"]

REGION = "us-east-1"

_SDK_CONFIG = """\
SchemaVersion: '1.0'
SageMaker:
  PythonSDK:
    Modules:
      TelemetryOptOut: true
      Session:
        DefaultS3Bucket: sagemaker-us-east-1-123456789012
"""
"""For the SageMaker Python SDK.

TelemetryOptOut is the one switch that keeps it from calling home. The name of its default bucket would cost it
a call of STS.
"""
_REMOVED = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    # Of the caller's keys; botocore takes what stands here for a part of ours.
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_ACCOUNT_ID",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
)


@dataclass(frozen=True)
class Access:
    """What leads to a running emulator.

    Args:
        endpoint: http://127.0.0.1:PORT.
        key: the credentials to sign with.
        authority: the PEM file of the authority that its certificates are signed by.
        proxy: the password of its proxy; "" for no proxy.
    """

    endpoint: str
    key: Key
    authority: Path | None = None
    proxy: str = ""


def client_environment(
    access: Access, state_dir: Path, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The variables to set. Writes the files that some of them name.

    Args:
        access: what leads there.
        state_dir: the emulator's folder; it exists.
        environ: the environment that they are to be added to, for what is extended and not replaced.
    """
    config = state_dir / "client" / "sagemaker-config.yaml"
    config.parent.mkdir(exist_ok=True)
    if not config.exists() or config.read_text() != _SDK_CONFIG:
        config.write_text(_SDK_CONFIG)
    return {
        "AWS_ENDPOINT_URL": access.endpoint,
        **access.key.variables(),
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        # Nothing of a real profile may reach the local emulator, nor anything of this a real account.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        # moto has no iam:SimulatePrincipalPolicy, which SDK v3 calls otherwise.
        "SAGEMAKER_VALIDATE_ROLE": "false",
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(config),
        **network(access, state_dir, environ),
    }


def network(access: Access, state_dir: Path, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables by which nothing for AWS leaves this machine; see outgoing.py. Writes the file that one names.

    Args:
        access: what leads there.
        state_dir: the emulator's folder; it exists.
        environ: the environment that they are to be added to.
    """
    if not access.proxy or access.authority is None:
        return {}
    port = urlsplit(access.endpoint).port
    assert port is not None
    bundle = _authorities(access.authority, state_dir / "client", environ.get("AWS_CA_BUNDLE"))
    return {**proxy_variables(port, access.proxy, environ), "AWS_CA_BUNDLE": str(bundle)}


def _authorities(ours: Path, folder: Path, theirs: str | None) -> Path:
    """A PEM file of all authorities that a client is to trust: the emulator's, and those that it trusts without it.

    Args:
        ours: the emulator's authority.
        folder: where the file is written; made.
        theirs: the file that the environment named; None for botocore's list.
    """
    folder.mkdir(exist_ok=True)
    if theirs is not None and Path(theirs).parent == folder:
        theirs = None  # ours, of another start
    trusted = Path(theirs) if theirs is not None else _botocore_authorities()
    named = "" if theirs is None else f"-{hashlib.sha256(theirs.encode()).hexdigest()[:8]}"
    path = folder / f"authorities{named}.pem"
    text = ours.read_bytes()
    if trusted is not None:
        with contextlib.suppress(OSError):
            text += b"\n" + trusted.read_bytes()
    if not path.exists() or path.read_bytes() != text:
        write_atomically(path, text, mode=0o644)  # other clients read it
    return path


def _botocore_authorities() -> Path | None:
    """The file of authorities that botocore trusts; not imported for it."""
    found = importlib.util.find_spec("botocore")
    return Path(found.origin).with_name("cacert.pem") if found is not None and found.origin else None


def removed_variables(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The variables of `environ` that lead elsewhere, or belong to other keys than the local emulator's."""
    return sorted(
        name
        for name in environ
        if name in _REMOVED or (name.startswith("AWS_ENDPOINT_URL_") and environ[name])
    )


def exports(variables: Mapping[str, str], removed: list[str]) -> str:
    """Lines of POSIX shell that set and unset them."""
    lines = [f"unset {' '.join(removed)}"] if removed else []
    quoted = {name: "'" + value.replace("'", "'\\''") + "'" for name, value in variables.items()}
    return "\n".join([*lines, *(f"export {name}={value}" for name, value in quoted.items())])
