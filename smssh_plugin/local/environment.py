"""What a client of the stand-in has in its environment; the same program without it speaks to AWS.

This module imports the standard library only.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .credentials import Key

__all__ = ["client_environment", "exports", "removed_variables"]

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

TelemetryOptOut is the one switch that keeps it from calling home. For its default bucket's name it asks STS
for the account, at AWS's own endpoint whatever AWS_ENDPOINT_URL says; so it is told the name.
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


def client_environment(
    endpoint: str, key: Key, state_dir: Path, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The variables to set. Writes the file that one of them names.

    Args:
        endpoint: the stand-in's, http://127.0.0.1:PORT.
        key: the credentials to sign with.
        state_dir: the stand-in's folder; it exists.
        environ: the environment that they are to be added to, for the lists that are extended and not
            replaced.
    """
    config = state_dir / "client" / "sagemaker-config.yaml"
    config.parent.mkdir(exist_ok=True)
    if not config.exists() or config.read_text() != _SDK_CONFIG:
        config.write_text(_SDK_CONFIG)
    # botocore honours HTTP_PROXY, for loopback too.
    direct = [host for host in environ.get("NO_PROXY", environ.get("no_proxy", "")).split(",") if host]
    # "*" is every host, and only where it stands alone.
    ours = [] if direct == ["*"] else [host for host in ("127.0.0.1", "localhost") if host not in direct]
    no_proxy = ",".join([*direct, *ours])
    return {
        "AWS_ENDPOINT_URL": endpoint,
        **key.variables(),
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        # Nothing of a real profile may reach the stand-in, nor anything of this a real account.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        # moto has no iam:SimulatePrincipalPolicy, which SDK v3 calls otherwise.
        "SAGEMAKER_VALIDATE_ROLE": "false",
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(config),
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
    }


def removed_variables(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The variables of `environ` that lead elsewhere, or belong to other keys than the stand-in's."""
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
