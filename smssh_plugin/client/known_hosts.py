"""The host keys that containers announced, where `ssh` finds them: one known_hosts file an address.

Who resolves an address remembers its key, before ssh hears the host: ssh reads the file while it verifies
(`UserKnownHostsFile` with `%h`), at no cost; `smssh known-hosts` is there for `KnownHostsCommand`. So no
login asks a question, none trusts what the other end merely shows, and the user's own file stays as it is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
import time
from typing import TYPE_CHECKING

from ..errors import ExitStatus, SmsshError
from ..files import write_atomically
from ..home import forget_old, home, own_text, private_folder

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "alias",
    "checked",
    "file_for",
    "folder",
    "gather",
    "gathered",
    "note",
    "noted",
    "recall",
    "remember",
]

FOLDER = "known"
NAMES = "names"
LONGEST_NAME = 240
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
    what = "announced no host key" if not words else "announced something that is not an SSH host key"
    raise SmsshError(
        f"{address} {what}: refusing to log in",
        hint="see in the job's log whether smssh registered it; or use `smssh shell`, which needs no host key",
        reference="no-host-key",
        status=ExitStatus.REFUSED,
        check=f"--job {address}",
    )


def folder() -> Path:
    """The folder of the files; the file of an address is called by its alias (for ssh: `%h`)."""
    return home() / FOLDER


def gathered() -> Path:
    """The file that `gather` writes."""
    return home() / "known_hosts"


def gather() -> None:
    """Write all that is known into one file, for an ssh older than 8.5: it cannot find the file of an address.

    Raises:
        SmsshError: it cannot be written.
    """
    lines = [path.read_text(encoding="ascii") for path in sorted(folder().glob("[!.]*"))]
    _write(gathered(), "".join(lines))


def note(name: str) -> None:
    """Keep the name of a host as it was typed: an ssh older than 8.5 tells its proxy the name in lower case.

    Raises:
        SmsshError: it is not an address, or cannot be written.
    """
    from .addresses import parse

    address = str(parse(name))
    private_folder(home())
    names = private_folder(home() / NAMES)
    forget_old(names, KEPT_SECONDS)
    _write(names / file_for(address).name, address)


def noted(name: str) -> str:
    """The name that was typed for what ssh has in lower case."""
    try:
        return (home() / NAMES / file_for(name).name).read_text(encoding="ascii")
    except OSError:
        return name


def file_for(address: str) -> Path:
    """The known_hosts file of an address; one that is not a file name goes by a digest."""
    name = alias(address)
    if len(name) > LONGEST_NAME or "/" in name or name.startswith("."):
        name = hashlib.sha256(name.encode()).hexdigest()
    return folder() / name


def remember(address: str, host_key: str) -> Path | None:
    """Write the known_hosts file of an address.

    Where its host announced no usable key the answer is None, and what was known is forgotten: it was
    another host's.

    Raises:
        SmsshError: the client's folder cannot be used, or nothing written there.
    """
    path = file_for(address)
    try:
        line = f"{alias(address)} {checked(host_key, address)}\n"
    except SmsshError:
        path.unlink(missing_ok=True)
        return None
    private_folder(home())
    private_folder(path.parent)
    forget_old(path.parent, KEPT_SECONDS)
    _write(path, line)
    return path


def recall(address: str) -> str | None:
    """The host key of an address that was resolved within the last two minutes; None where it was not."""
    path = file_for(address)
    try:
        if time.time() - path.stat().st_mtime > FRESH_SECONDS:
            return None
        return own_text(path).strip().partition(" ")[2] or None
    except (OSError, UnicodeDecodeError):
        return None


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        SmsshError: it cannot be written.
    """
    try:
        write_atomically(path, text)
    except OSError as error:
        raise SmsshError(
            f"cannot write {path}: {error.strerror}",
            hint="make room there, or name another folder in SMSSH_HOME",
            reference="home-not-writable",
        ) from error
