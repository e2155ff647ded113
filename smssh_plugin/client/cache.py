"""What an address led to a moment ago: for the several logins in a row that scp, rsync and IDEs make.

A file an address, for its owner only. What is remembered is short-lived and only a first guess: who finds that its
target is not connected looks the address up anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

from ..errors import SmsshError
from ..files import write_atomically
from ..home import forget_old, home, own_text, private_folder

if TYPE_CHECKING:
    from pathlib import Path

    from ..aws.session import AwsSession

__all__ = ["recall", "remember"]

FOLDER = "nodes"
FRESH_SECONDS = 60.0
"""For an address that means one job."""
LATEST_SECONDS = 15.0
"""For one that means the newest execution of a pipeline, which may be another one soon."""
KEPT_SECONDS = 3600.0


def recall(aws: AwsSession, address: str, *, latest: bool) -> dict[str, Any] | None:
    """The fields of the node that was found lately; None where that is too long ago."""
    path = _path(aws, address)
    try:
        age = time.time() - path.stat().st_mtime
        found = json.loads(own_text(path))
    except (OSError, ValueError):
        return None
    if not 0 <= age <= (LATEST_SECONDS if latest else FRESH_SECONDS) or not isinstance(found, dict):
        return None
    return found


def remember(aws: AwsSession, address: str, node: Any) -> None:
    """Keep a node for a while. That it cannot be kept is not a reason to fail."""
    try:
        private_folder(home())
        folder = private_folder(home() / FOLDER)
        write_atomically(_path(aws, address), json.dumps(dataclasses.asdict(node)))
        forget_old(folder, KEPT_SECONDS)
    except (OSError, SmsshError):
        return


def _path(aws: AwsSession, address: str) -> Path:
    """The file of an address, for these credentials, this region and this endpoint."""
    keys = aws.credentials()
    who = aws.profile.name if keys is None or keys.token else keys.access_key
    parts = (address, aws.region, aws.endpoint("ssm"), aws.profile.name, who or "")
    return home() / FOLDER / hashlib.sha256("\0".join(parts).encode()).hexdigest()
