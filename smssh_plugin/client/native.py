"""SageMaker's own remote debugging of training jobs: targets without a managed node.

https://docs.aws.amazon.com/sagemaker/latest/dg/train-remote-debugging.html. Where the job carries smssh, its host says
in S3 where its SSH server is; `hooks/native.py` describes the announcement.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from ..aws.s3_address import account_of_arn, split_owner
from ..aws.session import AwsSession, ServiceRefused
from ..errors import ExitStatus, SmsshError
from ..files import write_atomically
from ..home import forget_old, home, own_text, private_folder
from .job_state import STARTING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "announced",
    "carries_smssh",
    "enable",
    "enabled",
    "installed",
    "remember_installed",
    "target",
    "young",
]

INSTALLED = "installed"
"""Our folder of what `smssh remote-debug --install` has started, one file a host."""
KEPT_SECONDS = 28 * 24 * 3600.0
"""SageMaker's longest training jobs take so long."""

_BUNDLE = re.compile(r"(s3://.+)/[0-9a-f]{64}/?\Z")
"""The place of the bundles, and the digest of one."""
_VERSION = 1
_YOUNG = STARTING - {"Downloading"}
"""What comes before Downloading or Training among a training job's secondary states, also where it starts again."""


def target(job: str, host: str) -> str:
    """The target of StartSession for a host of a training job."""
    return f"sagemaker-training-job:{job}_{host}"


def enabled(job: dict[str, Any]) -> bool:
    """Whether a training job, as DescribeTrainingJob has it, can be entered this way at all."""
    return bool((job.get("RemoteDebugConfig") or {}).get("EnableRemoteDebug"))


def young(job: dict[str, Any]) -> bool:
    """Whether it is too early in a training job's life to switch remote debugging on."""
    return job.get("SecondaryStatus") in _YOUNG


def carries_smssh(job: dict[str, Any]) -> bool:
    """Whether a training job was submitted with smssh, so that it announces an SSH server or will."""
    switched_on = (job.get("Environment") or {}).get("SMSSH_ENABLE") == "1"
    return switched_on or any(_BUNDLE.match(uri) for uri in _channels(job))


def announced(aws: AwsSession, job: dict[str, Any], host: str) -> dict[str, Any] | None:
    """What the host announced in S3, as text fields and its ports; None where it has not, or where that is not known.

    Raises:
        SmsshError: it may not be read, or is not an announcement of this host.
    """
    place = _place(job)
    if place is None:
        return None
    place, owner = split_owner(place)
    bucket, _, prefix = place[len("s3://") :].partition("/")
    # Nobody but the job's account, or the one that the request names, says which host key to trust.
    owner = owner or account_of_arn(str(job.get("TrainingJobArn") or ""))
    name = str(job["TrainingJobName"])
    key = "/".join(part for part in (prefix.strip("/"), "hosts", name, f"{host}.json") if part)
    try:
        content = aws.get_object(bucket, key, owner)
    except SmsshError as error:
        if error.reference == "access-denied":
            # Without s3:ListBucket, S3 says so of an object that is not there, too.
            error.hint = f"the host key is announced at s3://{bucket}/{key}: {error.hint}"
            if owner:
                error.hint += f"; and the bucket must belong to the account {owner}"
        raise
    if content is None:
        return None
    try:
        found = json.loads(content)
        same = (found["version"], found["job"], found["host"]) == (_VERSION, name, host)
        port, control = int(found["port"]), int(found.get("control_port") or 0)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        same, port, control, found = False, 0, 0, {}
    if not same or not 0 < port < 65536 or not 0 <= control < 65536:
        raise SmsshError(
            f"s3://{bucket}/{key} is not an announcement of {host} of {name}: refusing to log in",
            hint="check who may write there: only the job's role should",
            reference="bad-announcement",
            status=ExitStatus.REFUSED,
        )
    return {**found, "port": port, "control_port": control}


def enable(aws: AwsSession, name: str) -> None:
    """Switch remote debugging on in a training job that runs.

    Raises:
        SmsshError: NOT_FOUND: no such job; FAILED: SageMaker does not want to, with its reason.
    """
    try:
        aws.call(
            "sagemaker",
            "update_training_job",
            TrainingJobName=name,
            RemoteDebugConfig={"EnableRemoteDebug": True},
        )
    except ServiceRefused as error:
        missing = error.code == "ResourceNotFound" or "not found" in error.message.lower()
        raise SmsshError(
            f"cannot switch on remote debugging of training job {name!r}: {error.message}",
            hint=f"check the name, and the region ({aws.region}, from {aws.region_origin})"
            if missing
            else "switch it on while the job is Downloading or Training; built-in algorithms and network isolation "
            "do not allow it",
            reference="no-job" if missing else "not-enabled",
            status=ExitStatus.NOT_FOUND if missing else ExitStatus.FAILED,
        ) from error


def remember_installed(aws: AwsSession, job: str, host: str, server: dict[str, Any]) -> None:
    """Keep where the SSH server is that was started in a host through a shell: its ports, `user` and `host_key`.

    Raises:
        SmsshError: the client's folder cannot be used.
    """
    private_folder(home())
    folder = private_folder(home() / INSTALLED)
    write_atomically(_record(aws, job, host), json.dumps(server))
    forget_old(folder, KEPT_SECONDS)


def installed(aws: AwsSession, job: str, host: str) -> dict[str, Any] | None:
    """What `remember_installed` was given from this machine; None where it was not."""
    try:
        found = json.loads(own_text(_record(aws, job, host)))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _record(aws: AwsSession, job: str, host: str) -> Path:
    parts = (aws.endpoint("ssm"), aws.region, job, host)
    return home() / INSTALLED / hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _place(job: dict[str, Any]) -> str | None:
    """The S3 address below which the job's hosts announce themselves."""
    named = (job.get("Environment") or {}).get("SMSSH_ANNOUNCE")
    if isinstance(named, str) and named.startswith("s3://"):
        return named
    return next((found.group(1) for uri in _channels(job) if (found := _BUNDLE.match(uri))), None)


def _channels(job: dict[str, Any]) -> Iterator[str]:
    for channel in job.get("InputDataConfig") or ():
        yield str(((channel.get("DataSource") or {}).get("S3DataSource") or {}).get("S3Uri") or "")
