"""The values that settings and options can have: how each kind is read, and its limits.

Runs on CPython 3.7 and later, standard library only.
"""

from __future__ import annotations

import re
from typing import Any, Callable, NamedTuple

from .durations import parse_duration

__all__ = [
    "AGENT_VERSION",
    "ANYTHING",
    "BOOLEAN",
    "DIGESTS",
    "ENCRYPTION",
    "EVENTS",
    "FLAG",
    "KEYS",
    "OPTIONAL_BOOLEAN",
    "OWNER",
    "OWNER_SCHEMES",
    "POINTS",
    "PORT",
    "PRICE",
    "PYTHONS",
    "SWITCH",
    "TAG_LIMIT",
    "TARGETS",
    "TEMPLATE",
    "TEMPLATE_NAMES",
    "WAIT",
    "Kind",
    "address",
    "choice",
    "choices",
    "duration",
    "names",
    "no_tag_holds",
    "text",
    "whole",
]

POINTS = ("start", "failure", "end")
"""The points at which a container can be held."""

OWNER_SCHEMES = ("team", "caller", "session-tag", "source-identity")
"""Ways to say who owns a job's nodes; `smssh setup` has the policies."""

EVENTS = (
    "ready",
    "running",
    "failed",
    "held",
    "reminder",
    "expiring",
    "extended",
    "retried",
    "released",
    "ended",
)
"""What people can be told of; see the hook `smssh_notify`."""

TEMPLATE_NAMES = (
    "event",
    "message",
    "job",
    "kind",
    "host",
    "step",
    "address",
    "connect",
    "attempt",
    "exit_code",
    "seconds_left",
    "cost",
)
"""What `SMSSH_NOTIFY_TEMPLATE` can name; each is text, empty where there is nothing to say."""

TAG_LIMIT = 256
"""Characters of a tag's value."""
_TAG_MARKS = "_.:/=+-@"

_PRICE = re.compile(r"\d{1,6}(?:\.\d{1,6})?(?: ?[A-Za-z]{1,8}| ?[$€£¥])?\Z", re.ASCII)
_TOPIC = re.compile(r"arn:[a-z-]+:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]{1,256}\Z", re.ASCII)
_WEBHOOK = re.compile(r"(https://[^\s/]+|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?)(/\S*)?\Z")
_VERSION = re.compile(r"\d+(\.\d+){2,3}\Z", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_PYTHON = re.compile(r"3\.\d{1,2}(-(x86_64|aarch64))?\Z", re.ASCII)
_KEY_OF_KMS = r"(alias/[A-Za-z0-9/_-]+|(key/)?[0-9a-f-]{36}|(key/)?mrk-[0-9a-f]{32})"
_ENCRYPTION = re.compile(
    rf"(AES256|aws:kms|(arn:[a-z-]+:kms:[a-z0-9-]+:\d{{12}}:)?{_KEY_OF_KMS})\Z", re.ASCII
)


class Kind(NamedTuple):
    """How the values of some settings and options are read."""

    parse: Callable[[Any], Any]
    """Text (or a JSON value) to the value; raises ValueError or TypeError."""
    limits: str
    """What is accepted, for people."""
    option: str = "str | None"
    """The type of an option of this kind."""
    separator: str = ""
    """Of lists: what separates their items in one text."""
    choice: bool = False
    """Whether it is one of some words, in any case of letters."""
    joined: bool = False
    """Whether a list is one text in `options.json`, too: its items have no separator in them."""


def no_tag_holds(text: str) -> set[str]:
    """The characters of a text that the value of a tag cannot have.

    It has letters, numbers and spaces of any language, and `_.:/=+-@` (the pattern of TagValue in botocore's model of
    the service).
    """
    import unicodedata  # not on the way of a job that has no owner

    return {each for each in text if each not in _TAG_MARKS and unicodedata.category(each)[0] not in "LNZ"}


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


def _keys(value: Any) -> tuple[str, ...]:
    keys = _items(value, "\n")
    for key in keys:
        if "PRIVATE KEY" in key:
            raise ValueError("it has a private key in place of a public one")
    return keys


def _seconds(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        seconds = int(parse_duration(str(value)))
        if not low <= seconds <= high:
            raise ValueError(f"{seconds} is outside {low} to {high} seconds")
        return seconds

    return parse


def _wait(value: Any) -> str:
    text = "" if value is None else str(value).strip().lower()
    if text in ("", "ready"):
        return text
    seconds = _seconds(0, 14400)(text)  # sagemaker-ssh-helper writes "0.0" for no wait
    return str(seconds) if seconds else ""


def _port(value: Any) -> int:
    port = int(value)
    if port != 0 and not 1024 <= port <= 65535:
        raise ValueError(f"{port} is neither 0 nor a port from 1024 to 65535")
    return port


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _tag(value: Any) -> str:
    text = _text(value).strip()
    unfit = no_tag_holds(text)
    if unfit:
        raise ValueError("no tag can hold {}".format(" ".join(map(repr, sorted(unfit)))))
    if len(text) > TAG_LIMIT:
        raise ValueError(f"it has {len(text)} characters, and a tag holds {TAG_LIMIT}")
    return text


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):  # a text such as "no" would be true
        raise ValueError(f"{value!r} is not True or False")
    return value


def _price(value: Any) -> str:
    text = str(value).strip()
    if text and not _PRICE.match(text):
        raise ValueError(f"{value!r} is not a price such as 1.21 or 1.21 USD")
    return text


def _targets(value: Any) -> tuple[str, ...]:
    targets = _items(value, ",")
    for target in targets:
        # Not repeated in the message: the address of a webhook is a secret by itself.
        if not _TOPIC.match(target) and not _WEBHOOK.match(target):
            raise ValueError(
                f"a target of {len(target)} characters is neither an SNS topic's ARN nor an https address"
            )
    return targets


def _template(value: Any) -> str:
    text = _text(value)
    if "$" in text:
        from string import Template  # not on the way of a job that sends nothing

        try:
            Template(text).substitute(dict.fromkeys(TEMPLATE_NAMES, ""))
        except KeyError as error:
            raise ValueError(
                "it names {}, which is not one of {}".format(error, ", ".join(TEMPLATE_NAMES))
            ) from None
    return text


def _version(value: Any) -> str:
    text = _text(value).strip()
    if text and not _VERSION.match(text):
        raise ValueError(f"{text!r} is not a version such as 3.3.987.0")
    return text


def _digests(value: Any) -> tuple[tuple[str, str], ...]:
    """`x86_64=<64 hex digits>,aarch64=...`, or the same as an object."""
    if isinstance(value, dict):
        pairs: Any = value.items()
    elif isinstance(value, (list, tuple)) and all(isinstance(pair, (list, tuple)) for pair in value):
        pairs = value  # parsed already
    else:
        pairs = [part.split("=", 1) for part in _items(value, ",")]
    digests = []
    for pair in pairs:
        machine, digest = (str(part).strip().lower() for part in (*pair, "")[:2])
        if not machine or not _SHA256.match(digest):
            raise ValueError(f"{'='.join(map(str, pair))!r} is not MACHINE=SHA-256 in hexadecimal")
        digests.append((machine, digest))
    return tuple(digests)


def _pythons(value: Any) -> tuple[str, ...]:
    versions = _items(value, ",")
    for version in versions:
        if not _PYTHON.match(version):
            raise ValueError(f"{version!r} is not a Python version such as '3.11' or '3.11-aarch64'")
    return versions


def _encryption(value: Any) -> str:
    if value and not (isinstance(value, str) and _ENCRYPTION.match(value)):
        raise ValueError(f"{value!r} is not AES256, aws:kms or a key of KMS: id, ARN or alias")
    return value or ""


def _either(words: tuple[str, ...]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


ANYTHING = Kind(lambda value: value, "anything")
SWITCH = Kind(
    lambda value: value,
    "True, False, None, the name of an environment variable, or a pipeline parameter",
    "Any",
)
FLAG = Kind(_flag, "1 or 0", "bool")
BOOLEAN = Kind(_boolean, "True or False", "bool")
OPTIONAL_BOOLEAN = Kind(lambda value: None if value is None else _boolean(value), "None, True or False")
KEYS = Kind(_keys, "public keys or sources of keys, one a line", "tuple[str, ...]", "\n")
WAIT = Kind(_wait, "empty, `ready`, or a duration up to 4h", "int | str | None")
PORT = Kind(_port, "0, or 1024 to 65535")
OWNER = Kind(_tag, f"up to {TAG_LIMIT} letters, numbers, spaces and `{_TAG_MARKS}`")
PRICE = Kind(_price, "a number, and a currency if you like: 1.21 or 1.21 USD", "float | str | None")
TARGETS = Kind(_targets, "a comma list of SNS topic ARNs and https addresses", "tuple[str, ...]", ",")
TEMPLATE = Kind(_template, "text with $names: " + ", ".join(TEMPLATE_NAMES))
AGENT_VERSION = Kind(_version, "a version such as 3.3.987.0")
DIGESTS = Kind(_digests, "MACHINE=SHA-256, comma list; machines as `uname -m` says them")
PYTHONS = Kind(
    _pythons,
    "a comma list of Python versions such as 3.11 or 3.11-aarch64",
    "tuple[str, ...]",
    ",",
    joined=True,
)
ENCRYPTION = Kind(_encryption, "AES256, aws:kms, or a key of KMS: id, ARN or alias")


def text(limits: str = "text") -> Kind:
    """Any text."""
    return Kind(_text, limits)


def names(limits: str) -> Kind:
    """A comma list of anything."""
    return Kind(lambda value: _items(value, ","), limits, "tuple[str, ...]", ",")


def choice(*words: str) -> Kind:
    """One of some words, in any case of letters."""

    def parse(value: Any) -> str:
        word = str(value).strip().lower()
        if word not in words:
            raise ValueError(f"{value!r} is not one of {', '.join(words)}")
        return word

    return Kind(parse, _either(words), choice=True)


def choices(*words: str) -> Kind:
    """A comma list of some words."""

    def parse(value: Any) -> tuple[str, ...]:
        found = _items(value, ",")
        for word in found:
            if word not in words:
                raise ValueError(f"{word!r} is not one of {', '.join(words)}")
        return found

    return Kind(parse, "a comma list of " + ", ".join(words), "tuple[str, ...]", ",", joined=True)


def duration(low: int, high: int) -> Kind:
    """Whole seconds.

    Args:
        low: the shortest, in seconds.
        high: the longest, in seconds: whole hours.
    """
    return Kind(
        _seconds(low, high), f"a duration, {f'{low}s' if low else 0} to {high // 3600}h", "int | str | None"
    )


def whole(low: int, high: int) -> Kind:
    """A whole number between limits."""

    def parse(value: Any) -> int:
        number = int(str(value).strip())
        if not low <= number <= high:
            raise ValueError(f"{number} is outside {low} to {high}")
        return number

    return Kind(parse, f"{low} to {high}", "int | None")


def address(limits: str, *schemes: str) -> Kind:
    """An address, without the slash at its end.

    Args:
        limits: what is accepted, for people.
        schemes: what it begins with, one of these.
    """

    def parse(value: Any) -> str:
        found = _text(value).strip().rstrip("/")
        if found and not found.startswith(schemes):
            raise ValueError(f"{found!r} does not begin with {' or '.join(schemes)}")
        return found

    return Kind(parse, limits)
