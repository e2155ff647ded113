"""Lines of authorized_keys, read as sshd does, and what each server needs them to be: no restriction gets lost.

A forced command, of a key or of a certificate, is not left to a server's configuration: sshd's ForceCommand wins
over both without a word. Each line gets the session script as its command instead, which is told what the key's
own was; and sshd refuses a certificate whose command is another than its line's.
"""

from __future__ import annotations

import calendar
import contextlib
import re
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Callable, List, Optional, Tuple

    from ..hookspecs import Context

    Options = List[Tuple[str, Optional[str]]]

__all__ = ["UNIX_FORWARDING", "Entry", "entries", "for_asyncssh", "for_sshd", "parse"]

_KEY = re.compile(
    r"(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[\w@.\-]+[ \t]+"  # type
    r"[A-Za-z0-9+/]{32,}={0,3}(?:\s.*)?\Z"  # key and comment
)
_OPTION = re.compile(r'([A-Za-z0-9-]+)(?:="((?:[^"\\]|\\"|\\(?!"))*)")?(?:,(?=[^ \t])|[ \t]+)')
_TIME = re.compile(r"(\d{8})(\d{4})?(\d\d)?(Z?)\Z")

# asyncssh's names (2.21 to 2.24 looked at), which it takes in this spelling alone; what it does not know, it ignores.
_SAME = (
    *("cert-authority", "command", "environment", "from"),
    *("no-touch-required", "permitlisten", "permitopen", "principals"),
)
_PERMISSIONS = ("agent-forwarding", "port-forwarding", "pty", "x11-forwarding")
_RESTRICTING = ("command", "no-port-forwarding", "permitlisten", "permitopen", "restrict")
"""Options of a key that is to get less than the account."""
UNIX_FORWARDING = "unix-forwarding"
"""Our own permission, for which no server has a name: to connect to the container's Unix sockets, and to make some."""
_NOTHING = ("tunnel", "user-rc", "no-user-rc")
"""What our server of asyncssh has not at all, as X11 (whose name asyncssh spells otherwise)."""


class Entry(NamedTuple):
    """One line.

    Attributes:
        options: names in lower case, and their values; None if there is no value.
        key: the rest: type, key and comment.
    """

    options: Options
    key: str

    @property
    def forced(self) -> str | None:
        """The command that the key is restricted to."""
        return next((value for name, value in self.options if name == "command"), None)

    @property
    def restricted(self) -> bool:
        """Whether the key gets less than the account: then it must reach no Unix socket by forwarding either.

        `permitopen` and `permitlisten` say nothing about those, and OpenSSH has no option that does.
        """
        return any(name in _RESTRICTING for name, _ in self.options)


def parse(line: str) -> Entry:
    r"""Read a line; in a value, `\"` is a quote, and every other backslash is one.

    Raises:
        ValueError: it is not a key's line, or its command is not clear.
    """
    options: Options = []
    end = 0
    while not _KEY.match(line, end):
        found = _OPTION.match(line, end)
        if found is None:
            raise ValueError("it is not a public key")
        value = found.group(2)
        options.append((found.group(1).lower(), None if value is None else value.replace('\\"', '"')))
        end = found.end()
    commands = [value for name, value in options if name == "command"]
    if len(commands) > 1 or None in commands:
        raise ValueError("it has to have one command, in quotes")
    return Entry(options, line[end:])


def entries(context: Context) -> list[Entry]:
    """The authorized keys, as far as they can be read: a plugin may have brought others."""
    found = []
    for line in context.authorized_keys:
        with contextlib.suppress(ValueError):
            found.append(parse(line))
    return found


def for_sshd(entry: Entry, session_command: Callable[[str | None], str]) -> str:
    """The line, with the session script as its command.

    Args:
        entry: the line.
        session_command: see `login_shell.session_command`.
    """
    forced = entry.forced
    # By this name sshd knows its own.
    command = forced if forced and forced.split(" ")[0] == "internal-sftp" else session_command(forced)
    options = [each for each in entry.options if each[0] != "command"]
    # The restrictions first: an sshd that does not know one must refuse the line for it.
    return _line([*options, ("command", command)], entry.key)


def for_asyncssh(entry: Entry, now: float) -> str | None:
    """The line in asyncssh's words; None for a key that has expired.

    Args:
        entry: the line.
        now: seconds since the epoch.

    Raises:
        ValueError: it has a restriction that asyncssh cannot keep.
    """
    options: Options = []
    allowed: dict[str, bool] = {}
    for name, value in entry.options:
        permission = name[3:] if name.startswith("no-") else name
        if name == "expiry-time" and _seconds(value or "") <= now:
            return None
        if permission not in _PERMISSIONS and name not in (*_SAME, *_NOTHING, "expiry-time", "restrict"):
            raise ValueError(f"asyncssh does not know its option {name}")
        if name == "restrict":
            allowed = dict.fromkeys(_PERMISSIONS, False)
        elif permission in _PERMISSIONS:
            allowed[permission] = permission == name  # the last one counts
        elif name in _SAME:
            options.append((name, value and value.replace("\\", "\\\\")))
    options += [("no-" + name, None) for name, permitted in allowed.items() if not permitted]
    if entry.restricted:
        options.append(("no-" + UNIX_FORWARDING, None))
    return _line(options, entry.key)


def _line(options: Options, key: str) -> str:
    texts = [
        name if value is None else '{}="{}"'.format(name, value.replace('"', '\\"'))
        for name, value in options
    ]
    return f"{','.join(texts)} {key}".lstrip()


def _seconds(text: str) -> float:
    """An expiry-time, YYYYMMDD[HHMM[SS]][Z], in seconds since the epoch.

    Raises:
        ValueError: it is not a time.
    """
    found = _TIME.match(text)
    if found is None or (found.group(3) and not found.group(2)):
        raise ValueError(f"its expiry-time {text!r} is not a time")
    day, minutes, seconds, zone = found.groups()
    parsed = time.strptime(day + (minutes or "0000") + (seconds or "00"), "%Y%m%d%H%M%S")
    # -1: whether it is summer is for the C library to say.
    return float(calendar.timegm(parsed)) if zone else time.mktime((*parsed[:8], -1))
