"""The commands that ssh may run at each login, without click: `proxy`, and `known-hosts` for configs of one's own.

What they take is parsed here by hand; `cli/proxy.py` and `cli/known_hosts.py` say the same to click, for `--help`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .. import streams
from ..errors import ExitStatus, SmsshError
from ..terminal import block, line

if TYPE_CHECKING:
    from typing import Any

__all__ = ["VIAS", "enter", "known_hosts", "say", "system_error"]

VIAS = ("session", "plugin")
"""By what a proxy moves the bytes."""

_OPTIONS = ("--region", "--profile", "--port", "--target", "--user", "--via", "--document")


def enter(words: list[str]) -> int | None:
    """Run a plain `proxy` or `known-hosts` command line; None: (`--help`, a mistake) ask click."""
    command, *rest = words
    if command == "proxy" and rest[:1] == ["--note"] and len(rest) == 2:
        return _note(rest[1])
    noted = command == "proxy" and "--noted" in rest
    rest = [word for word in rest if word != "--noted"] if noted else rest
    named: dict[str, str] = {}
    plain: list[str] = []
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name in _OPTIONS and (equals or rest):
            named[name[2:]] = value if equals else rest.pop(0)
        elif word.startswith("-"):
            return None
        else:
            plain.append(word)
    if command == "known-hosts":
        if not 1 <= len(plain) <= 2 or named.keys() - {"region", "profile"}:
            return None
        with streams.input_aside():
            return known_hosts(plain[0], plain[-1], named.get("region"), named.get("profile"))
    port = named.get("port", "1")
    whole = port.isascii() and port.isdigit() and len(port) < 10
    if len(plain) != 1 or not whole or named.get("via", "session") not in VIAS:
        return None
    from ..aws.session import AwsSession
    from ..client.lookup import resolve
    from ..session.proxy import Route, run

    aws = AwsSession(named.get("region"), named.get("profile"))
    if "document" in named:
        aws.documents["ssh"] = named["document"]
    route = Route(
        aws,
        plain[0],
        _resolve_noted if noted else resolve,
        target=named.get("target"),
        port=int(port) if "port" in named else None,
        user=named.get("user"),
        via=named.get("via", "session"),
    )
    return run(route)


def _note(name: str) -> int:
    """For an ssh older than 8.5, before its proxy: see `client.known_hosts.note`."""
    from ..client import known_hosts as keys

    try:
        keys.note(name)
    except (SmsshError, OSError):
        return int(ExitStatus.FAILED)  # the proxy says what is wrong
    return int(ExitStatus.OK)


def _resolve_noted(address: str, *arguments: Any, **named: Any) -> Any:
    """`lookup.resolve` for such an ssh's proxy."""
    from ..client import known_hosts as keys
    from ..client.lookup import resolve

    found = resolve(keys.noted(address), *arguments, **named)
    keys.gather()
    return found


def known_hosts(address: str, name: str, region: str | None, profile: str | None) -> int:
    """Print the known_hosts line of `address` under `name`; if nothing is printed, ssh refuses."""
    from ..client import known_hosts as keys

    try:
        key = keys.recall(address)
        if key is None:
            # Not resolved lately, so not behind our proxy: ask.
            from ..aws.session import AwsSession
            from ..client.lookup import resolve

            key = keys.checked(resolve(address, AwsSession(region, profile)).host_key, address)
    except SmsshError as error:
        say(error)
        return int(error.status)
    except OSError as error:
        say(system_error(error))
        return int(ExitStatus.FAILED)
    print(line(f"{name} {key}"))
    return int(ExitStatus.OK)


def system_error(error: OSError) -> SmsshError:
    """What the system would not do, as an error for a person: no room, no descriptor left, a folder that is closed."""
    where = f"{error.filename}: " if error.filename else ""
    return SmsshError(f"{where}{error.strerror or error}", reference="system-error")


def say(error: SmsshError) -> None:
    """Print an error, once: what is wrong, what to do, and which check looks for the cause."""
    print(f"error: {block(error.message, '  ')}", file=sys.stderr)
    if error.hint is not None:
        print(f"hint: {block(error.hint, '  ')}", file=sys.stderr)
    if error.check:
        print(f"see: {block(error.further, '  ')}", file=sys.stderr)
