"""Every `SMSSH_*` variable: one table, one dataclass, and the only place that reads them.

A setting comes from the job's environment (`SMSSH_HOLD=failure`) or from the bundle's `options.json`
(`{"hold": "failure"}`: the name in lower case, without `SMSSH_`). The job's environment wins. The defaults
cost nobody money: no wait, no hold.

The one exception: `entrypoints/boot.py` reads `SMSSH_ENABLE` and `SMSSH_RUN_DIR` itself, because it
    decides, before
anything may be imported, whether anything is imported at all.

Runs on CPython 3.7 and later, standard library only.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, Callable, Mapping, NamedTuple

from .errors import ExitStatus, SmsshError

__all__ = ["POINTS", "SETTINGS", "Setting", "Settings", "load", "parse_seconds"]

POINTS = ("start", "failure", "end")
"""The points at which a container can be held."""

WAIT_READY_LIMIT = 300
"""Seconds that `SMSSH_WAIT=ready` waits at most: the job starts without a login rather than never."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smh]?)\Z")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def parse_seconds(text: str) -> int:
    """Whole seconds in a duration: `90`, `90s`, `30m`, `1.5h`.

    Raises:
        ValueError: it is not a duration.
    """
    match = _DURATION.match(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is not a duration such as 90, 90s, 30m or 1.5h")
    return int(float(match.group(1)) * _UNITS[match.group(2)])


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("", "0", "false", "no", "off"):
        return False
    raise ValueError(f"{value!r} is neither 1 nor 0")


def _items(value: Any, separator: str) -> tuple[str, ...]:
    parts = value if isinstance(value, (list, tuple)) else str(value).split(separator)
    return tuple(str(part).strip() for part in parts if str(part).strip())


def _points(value: Any) -> tuple[str, ...]:
    points = _items(value, ",")
    for point in points:
        if point not in POINTS:
            raise ValueError("{!r} is not one of {}".format(point, ", ".join(POINTS)))
    return points


def _names(value: Any) -> tuple[str, ...]:
    return _items(value, ",")


def _keys(value: Any) -> tuple[str, ...]:
    keys = _items(value, "\n")
    for key in keys:
        if "PRIVATE KEY" in key:
            raise ValueError("a private key was given where a public key belongs")
    return keys


def _seconds(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        seconds = parse_seconds(str(value))
        if not low <= seconds <= high:
            raise ValueError(f"{seconds} is outside {low} to {high} seconds")
        return seconds

    return parse


def _wait(value: Any) -> str:
    text = "" if value is None else str(value).strip().lower()
    if text in ("", "0", "ready"):
        return "" if text == "0" else text
    return str(_seconds(1, 14400)(text))


def _port(value: Any) -> int:
    port = int(value)
    if port != 0 and not 1024 <= port <= 65535:
        raise ValueError(f"{port} is neither 0 nor a port from 1024 to 65535")
    return port


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _choice(*choices: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        text = str(value).strip().lower()
        if text not in choices:
            raise ValueError("{!r} is not one of {}".format(value, ", ".join(choices)))
        return text

    return parse


class Setting(NamedTuple):
    """One row of the table."""

    variable: str
    """The environment variable."""
    field: str
    """The attribute of `Settings`, and the key in `options.json`."""
    default: Any
    """The value when nobody sets it, already parsed."""
    parse: Callable[[Any], Any]
    """Text (or a JSON value) to the value; raises ValueError."""
    limits: str
    """What is accepted, for people."""
    doc: str
    """What it does, in one sentence."""
    deprecated: tuple[str, ...] = ()
    """sagemaker-ssh-helper's names for the same thing, understood when the variable is unset."""


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "SMSSH_ENABLE", "enable", False, _flag, "1 or 0", "Turns the plugin on in this job.", ("START_SSH",)
    ),
    Setting(
        "SMSSH_HOLD",
        "hold",
        (),
        _points,
        "comma list of start, failure, end",
        "The points at which the container is held until it is released, retried or out of time.",
    ),
    Setting(
        "SMSSH_HOLD_SECONDS",
        "hold_seconds",
        600,
        _seconds(1, 86400),
        "duration, 1 s to 24 h",
        "How long a hold lasts while nobody is connected.",
    ),
    Setting(
        "SMSSH_HOLD_MAX_SECONDS",
        "hold_max_seconds",
        14400,
        _seconds(1, 432000),
        "duration, 1 s to 5 days",
        "How long a hold lasts at most, whoever is connected.",
    ),
    Setting(
        "SMSSH_WAIT",
        "wait",
        "",
        _wait,
        "empty, `ready`, or a duration up to 4 h",
        f"Delays the entry point until a login is possible (`ready`, at most {WAIT_READY_LIMIT} s), or "
        "until a person connects and releases it.",
        ("SSH_WAIT_TIME_SECONDS",),
    ),
    Setting(
        "SMSSH_STRICT",
        "strict",
        False,
        _flag,
        "1 or 0",
        "Fails the job when a login cannot be made possible, instead of running it without one.",
    ),
    Setting(
        "SMSSH_TRANSPORT",
        "transport",
        "ssm",
        _choice("ssm", "none", "native"),
        "ssm, none or native",
        "How a client reaches the container's SSH server.",
    ),
    Setting(
        "SMSSH_ROLE",
        "role",
        "",
        _text,
        "IAM role name or ARN",
        "The role that the hybrid activation gives to this container's managed node.",
        ("SSH_SSM_ROLE",),
    ),
    Setting(
        "SMSSH_OWNER",
        "owner",
        "",
        _text,
        "text, up to 256 characters",
        "The value of the node's SSHOwner tag, for IAM conditions.",
        ("SSH_OWNER_TAG",),
    ),
    Setting(
        "SMSSH_AUTHORIZED_KEYS",
        "authorized_keys",
        (),
        _keys,
        "public keys, one a line",
        "The public keys that may log in.",
    ),
    Setting(
        "SMSSH_STEP", "step", "", _text, "text", "The name of the pipeline step that this job belongs to."
    ),
    Setting(
        "SMSSH_SSH_SERVER",
        "ssh_server",
        "auto",
        _choice("auto", "sshd", "asyncssh"),
        "auto, sshd or asyncssh",
        "The SSH server: the image's own sshd, asyncssh, or the first of them that works.",
    ),
    Setting(
        "SMSSH_SSH_PORT",
        "ssh_port",
        0,
        _port,
        "0, or 1024 to 65535",
        "The loopback port of the SSH server; 0 takes a free one.",
    ),
    Setting(
        "SMSSH_DISABLE_HOOKS",
        "disable_hooks",
        (),
        _names,
        "comma list of plugin names",
        "Plugins that are not loaded, the built-in ones too.",
    ),
    Setting(
        "SMSSH_BUNDLE",
        "bundle",
        "",
        _text,
        "path",
        "The folder of the bundle in the container, where it cannot be told from the file that was started.",
    ),
    Setting(
        "SMSSH_RUN_DIR",
        "run_dir",
        "",
        _text,
        "path",
        "The private folder of lock, socket, keys and logs, instead of /run/smssh or one below TMPDIR.",
    ),
)


@dataclass(frozen=True)
class Settings:
    """The settings of one job, parsed and within their limits; see `SETTINGS` for what each means."""

    enable: bool = False
    hold: tuple[str, ...] = ()
    hold_seconds: int = 600
    hold_max_seconds: int = 14400
    wait: str = ""
    strict: bool = False
    transport: str = "ssm"
    role: str = ""
    owner: str = ""
    authorized_keys: tuple[str, ...] = ()
    step: str = ""
    ssh_server: str = "auto"
    ssh_port: int = 0
    disable_hooks: tuple[str, ...] = ()
    bundle: str = ""
    run_dir: str = ""

    @property
    def wait_seconds(self) -> int | None:
        """Seconds to wait for a person before the entry point starts; None when no person is waited for."""
        return int(self.wait) if self.wait.isdigit() else None


def load(environ: Mapping[str, str] | None = None, options: Mapping[str, Any] | None = None) -> Settings:
    """The settings of this job.

    Args:
        environ: the job's environment; `os.environ` when it is left out.
        options: what the bundle's `options.json` holds. Keys that this version doesn't know are left alone:
            the file may have been written by a newer one.

    Raises:
        SmsshError: a value is outside its limits; the message names the variable or the option.
    """
    environ = os.environ if environ is None else environ
    options = {} if options is None else options
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        name, value = _find(setting, environ, options)
        if name is None:
            continue
        try:
            values[setting.field] = setting.parse(value)
        except (ValueError, TypeError) as error:
            raise SmsshError(
                f"{name} is not usable: {error}.",
                hint=f"It takes {setting.limits}.",
                reference="bad-setting",
                status=ExitStatus.USAGE,
            ) from None
    return Settings(**values)


def _find(setting: Setting, environ: Mapping[str, str], options: Mapping[str, Any]) -> tuple[str | None, Any]:
    """Where the setting's value comes from, and the value; (None, None) when nobody set it."""
    if setting.variable in environ:
        return setting.variable, environ[setting.variable]
    if options.get(setting.field) is not None:
        return f"options.json: {setting.field}", options[setting.field]
    for alias in setting.deprecated:
        if alias in environ:
            return alias, environ[alias]
    return None, None
