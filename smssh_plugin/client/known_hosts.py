"""The host keys that containers announced, where `ssh` finds them: one known_hosts file an address.

Who resolves an address remembers its key; `KnownHostsCommand` (run by ssh after the proxy has resolved) only
reads it. So no login asks a question, none trusts what the other end merely shows, and the user's own
known_hosts stays as it is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
import tempfile
import time
from pathlib import Path

from ..errors import ExitStatus, SmsshError
from .home import home, private_folder

__all__ = ["alias", "checked", "file_for", "recall", "remember"]

FOLDER = "known"
FRESH_SECONDS = 120.0
KEPT_SECONDS = 7 * 24 * 3600.0
_TYPE = re.compile(r"[a-z0-9@.-]{1,64}\Z")


def alias(address: str) -> str:
    """The name under which ssh looks a host key up: it takes host names in lower case."""
    return address.lower()


def checked(host_key: str, address: str) -> str:
    """The host key as `TYPE BASE64`, for certain one key and nothing else (a tag is other people's text).

    Raises:
        SmsshError: it is absent or no SSH public key; a login without it would trust anybody.
    """
    words = host_key.split()
    try:
        kind, blob = words[0], base64.b64decode(words[1], validate=True)
        (length,) = struct.unpack(">I", blob[:4])
        if _TYPE.match(kind) and blob[4 : 4 + length] == kind.encode():
            return f"{kind} {words[1]}"
    except (IndexError, struct.error, binascii.Error):
        pass
    what = "announced no host key" if not words else "announced something that is no SSH host key"
    raise SmsshError(
        f"{address} {what}: refusing to log in",
        hint="may the job's role tag its managed node (ssm:AddTagsToResource)? See its log",
        reference="no-host-key",
        status=ExitStatus.REFUSED,
    )


def file_for(address: str) -> Path:
    """The known_hosts file of an address, by a digest: addresses can be longer than file names may be."""
    return home() / FOLDER / hashlib.sha256(alias(address).encode()).hexdigest()[:32]


def remember(address: str, host_key: str) -> Path | None:
    """Write the known_hosts file of an address; None where its host announced no usable key.

    Raises:
        SmsshError: the client's folder cannot be used.
    """
    try:
        line = f"{alias(address)} {checked(host_key, address)}\n"
    except SmsshError:
        return None
    private_folder(home())
    path = file_for(address)
    folder = private_folder(path.parent)
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".new-", delete=False) as out:
        out.write(line)
    Path(out.name).replace(path)
    _forget_old(folder)
    return path


def recall(address: str) -> str | None:
    """The host key of an address that was resolved within the last two minutes; None where it was not."""
    path = file_for(address)
    try:
        if time.time() - path.stat().st_mtime > FRESH_SECONDS:
            return None
        return path.read_text(encoding="ascii").strip().partition(" ")[2] or None
    except (OSError, UnicodeDecodeError):
        return None


def _forget_old(folder: Path) -> None:
    """Remove files of jobs long gone, so that the folder stays small."""
    limit = time.time() - KEPT_SECONDS
    for path in folder.iterdir():
        try:
            if path.stat().st_mtime < limit:
                path.unlink()
        except OSError:  # noqa: PERF203 - another process was quicker
            continue
