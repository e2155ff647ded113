"""Every `SMSSH_*` variable: one table, one dataclass, and the only place that reads them.

A setting comes from the job's environment (`SMSSH_HOLD=failure`) or from the bundle's `options.json`
(`{"hold": "failure"}`: the name in lower case, without `SMSSH_`). The job's environment wins. The defaults
cost nobody money: no wait, no hold.

The exceptions (EARLY), which the job's environment alone can say: `entrypoints/boot.py` reads `SMSSH_ENABLE`,
`SMSSH_RUN_DIR` and `SMSSH_BUNDLE` itself, because it decides, before anything may be imported, whether anything is
imported at all, and from where, and `entrypoints/chain.py` reads `SMSSH_TRAINING_MODULE`, which a job needs even where
nothing else of us works.

Runs on CPython 3.7 and later, standard library only.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, Callable, Mapping, NamedTuple

from .durations import parse_duration
from .errors import ExitStatus, SmsshError

__all__ = [
    "EARLY",
    "EVENTS",
    "POINTS",
    "RUNTIME_LIMIT",
    "SETTINGS",
    "TAG_LIMIT",
    "TEMPLATE_NAMES",
    "Setting",
    "Settings",
    "deprecated",
    "end_seconds",
    "load",
    "no_tag_holds",
    "variables",
]

POINTS = ("start", "failure", "end")
"""The points at which a container can be held."""

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

EARLY = ("SMSSH_ENABLE", "SMSSH_BUNDLE", "SMSSH_TRAINING_MODULE", "SMSSH_RUN_DIR")
"""Are read before `options.json`, and nothing that it says of them counts."""

WAIT_READY_LIMIT = 300
"""Seconds that `SMSSH_WAIT=ready` waits at most: the job starts without a login rather than never."""

RUNTIME_LIMIT = 2_419_200
"""Seconds that a job's own limit can be: 28 days, the service's quota for training jobs."""

TAG_LIMIT = 256
"""Characters of a tag's value."""
_TAG_MARKS = "_.:/=+-@"

_PRICE = re.compile(r"\d{1,6}(?:\.\d{1,6})?(?: ?[A-Za-z]{1,8}| ?[$€£¥])?\Z")
_TOPIC = re.compile(r"arn:[a-z-]+:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]{1,256}\Z")
_WEBHOOK = re.compile(r"(https://[^\s/]+|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?)(/\S*)?\Z")


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


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        number = int(str(value).strip())
        if not low <= number <= high:
            raise ValueError(f"{number} is outside {low} to {high}")
        return number

    return parse


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


def _events(value: Any) -> tuple[str, ...]:
    events = _items(value, ",")
    for event in events:
        if event not in EVENTS:
            raise ValueError("{!r} is not one of {}".format(event, ", ".join(EVENTS)))
    return events


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


_VERSION = re.compile(r"\d+(\.\d+){2,3}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def _version(value: Any) -> str:
    text = _text(value).strip()
    if text and not _VERSION.match(text):
        raise ValueError(f"{text!r} is not a version such as 3.3.987.0")
    return text


def _digests(value: Any) -> tuple[tuple[str, str], ...]:
    """`x86_64=<64 hex digits>,aarch64=...`, or the same as an object."""
    pairs = value.items() if isinstance(value, dict) else [part.split("=", 1) for part in _items(value, ",")]
    digests = []
    for pair in pairs:
        machine, digest = (str(part).strip().lower() for part in (*pair, "")[:2])
        if not machine or not _SHA256.match(digest):
            raise ValueError(f"{'='.join(map(str, pair))!r} is not MACHINE=SHA-256 in hexadecimal")
        digests.append((machine, digest))
    return tuple(digests)


def _url(*schemes: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        text = _text(value).strip().rstrip("/")
        if text and not text.startswith(schemes):
            raise ValueError("{!r} does not begin with {}".format(text, " or ".join(schemes)))
        return text

    return parse


_KEY_OF_KMS = r"(alias/[A-Za-z0-9/_-]+|(key/)?[0-9a-f-]{36}|(key/)?mrk-[0-9a-f]{32})"
_ENCRYPTION = re.compile(
    rf"(AES256|aws:kms|(arn:[a-z-]+:kms:[a-z0-9-]+:\d{{12}}:)?{_KEY_OF_KMS})\Z", re.ASCII
)


def encryption(value: Any) -> str:
    """How objects in S3 are encrypted; "" leaves it to the bucket.

    Raises:
        ValueError: it is neither a kind of encryption nor a key.
    """
    if value and not (isinstance(value, str) and _ENCRYPTION.match(value)):
        raise ValueError(f"{value!r} is not AES256, aws:kms or a key of KMS: id, ARN or alias")
    return value or ""


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
        "a duration, 1s to 24h",
        "How long a hold lasts while nobody is connected.",
    ),
    Setting(
        "SMSSH_HOLD_MAX_SECONDS",
        "hold_max_seconds",
        14400,
        _seconds(1, 432000),
        "a duration, 1s to 120h (5 days)",
        "How long a hold lasts at most, whoever is connected.",
    ),
    Setting(
        "SMSSH_IDLE_SECONDS",
        "idle_seconds",
        0,
        _seconds(0, 86400),
        "a duration, 0 to 24h",
        "How long a hold goes on after the last person has left; 0 is as long as SMSSH_HOLD_SECONDS.",
    ),
    Setting(
        "SMSSH_HOLD_HOSTS",
        "hold_hosts",
        "own",
        _choice("own", "all"),
        "own or all",
        "Which hosts of a job with several are held: the one that failed, or with it all the others, which then "
        "end, wait and retry together (over the ssm transport only).",
    ),
    Setting(
        "SMSSH_PRICE_PER_HOUR",
        "price_per_hour",
        "",
        _price,
        "number, and a currency if you like: 1.21 or 1.21 USD",
        "What one of the job's instances costs an hour, so that a hold can say what waiting costs.",
    ),
    Setting(
        "SMSSH_WAIT",
        "wait",
        "",
        _wait,
        "empty, `ready`, or a duration up to 4h",
        f"Delays the entry point: `ready` until a login is possible, {WAIT_READY_LIMIT} s at most; a duration until a "
        "person connects, for so long at most, and from then on until `smssh-hook release`, or until nobody was "
        "connected for so long (SMSSH_IDLE_SECONDS, where that is set), SMSSH_HOLD_MAX_SECONDS at most.",
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
        _tag,
        f"up to {TAG_LIMIT} letters, numbers, spaces and `{_TAG_MARKS}`",
        "The value of the node's SSHOwner tag, for IAM conditions.",
        ("SSH_OWNER_TAG",),
    ),
    Setting(
        "SMSSH_AUTHORIZED_KEYS",
        "authorized_keys",
        (),
        _keys,
        "public keys or sources of keys, one a line",
        "The public keys that may log in, or where the job reads them with its own role: `s3://bucket/key`, "
        "`ssm:PARAMETER`, `github:USER`, `https://...`.",
    ),
    Setting(
        "SMSSH_HOSTS",
        "hosts",
        0,
        _whole(0, 1000),
        "0 to 1000",
        "How many hosts of the job, from the first on, people can log in to; 0 is every host.",
        ("SSH_INSTANCE_COUNT",),
    ),
    Setting(
        "SMSSH_NOTIFY",
        "notify",
        (),
        _targets,
        "comma list of SNS topic ARNs and https addresses",
        "Who is told of events: SNS topics and webhooks, Slack's among them.",
    ),
    Setting(
        "SMSSH_NOTIFY_EVENTS",
        "notify_events",
        ("ready", "failed", "held", "expiring", "released"),
        _events,
        "comma list of " + ", ".join(EVENTS),
        "Which events SMSSH_NOTIFY is told of.",
    ),
    Setting(
        "SMSSH_NOTIFY_TEMPLATE",
        "notify_template",
        "$address: $message",
        _template,
        "text with $names: " + ", ".join(TEMPLATE_NAMES),
        "What SMSSH_NOTIFY is told.",
    ),
    Setting(
        "SMSSH_LOG_TO_STDOUT",
        "log_to_stdout",
        False,
        _flag,
        "1 or 0",
        "Repeats the supervisor's log in the job's log.",
        ("SSH_LOG_TO_STDOUT",),
    ),
    Setting(
        "SMSSH_STEP", "step", "", _text, "text", "The name of the pipeline step that this job belongs to."
    ),
    Setting(
        "SMSSH_MAX_RUNTIME",
        "max_runtime",
        0,
        _whole(0, RUNTIME_LIMIT),
        f"0 to {RUNTIME_LIMIT}",
        "The job's own limit in seconds (StoppingCondition.MaxRuntimeInSeconds), before which every hold ends; 0 where "
        "it is not known.",
    ),
    Setting(
        "SMSSH_SSH_SERVER",
        "ssh_server",
        "auto",
        _choice("auto", "sshd", "asyncssh", "apt"),
        "auto, sshd, asyncssh or apt",
        "The SSH server: the image's own sshd, asyncssh, or the first of them that works; `apt` installs "
        "openssh-server where there is no sshd, which takes half a minute and apt's lock.",
    ),
    Setting(
        "SMSSH_SSH_PORT",
        "ssh_port",
        0,
        _port,
        "0, or 1024 to 65535",
        "The loopback port of the SSH server; 0 takes a free one. For smssh's own commands it has another free one.",
    ),
    Setting(
        "SMSSH_AGENT",
        "agent",
        "auto",
        _choice("auto", "found", "bundle", "download"),
        "auto, found, bundle or download",
        "Where Amazon's agent comes from: the image, the bundle, a download, or the first of them that has it.",
    ),
    Setting(
        "SMSSH_AGENT_VERSION",
        "agent_version",
        "",
        _version,
        "a version such as 3.3.987.0",
        "The version of the agent that is downloaded.",
    ),
    Setting(
        "SMSSH_AGENT_SHA256",
        "agent_sha256",
        (),
        _digests,
        "MACHINE=SHA-256, comma list; machines as `uname -m` says them",
        "The digests that the agent's package must have: nothing is unpacked without one.",
    ),
    Setting(
        "SMSSH_AGENT_URL",
        "agent_url",
        "",
        _url("https://", "http://"),
        "http(s) address of a mirror",
        "Where the agent is downloaded from instead of the region's own bucket: what stands before "
        "`/VERSION/debian_amd64/amazon-ssm-agent.deb`.",
    ),
    Setting(
        "SMSSH_ANNOUNCE",
        "announce",
        "",
        _url("s3://"),
        "s3://bucket/prefix",
        "Where a host with the native transport announces its host key and state; the job's role writes there.",
    ),
    Setting(
        "SMSSH_S3_ENCRYPTION",
        "s3_encryption",
        "",
        encryption,
        "AES256, aws:kms, or a key of KMS",
        "How a host with the native transport encrypts its announcement in S3, for buckets whose policy demands it of "
        "each PUT; nothing leaves it to the bucket.",
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
        "SMSSH_TRAINING_MODULE",
        "training_module",
        "",
        _text,
        "module:function",
        "The image's own SAGEMAKER_TRAINING_MODULE, where the job's names our launcher and it is none of AWS's images.",
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
    idle_seconds: int = 0
    hold_hosts: str = "own"
    price_per_hour: str = ""
    wait: str = ""
    strict: bool = False
    transport: str = "ssm"
    role: str = ""
    owner: str = ""
    authorized_keys: tuple[str, ...] = ()
    hosts: int = 0
    notify: tuple[str, ...] = ()
    notify_events: tuple[str, ...] = ("ready", "failed", "held", "expiring", "released")
    notify_template: str = "$address: $message"
    log_to_stdout: bool = False
    step: str = ""
    max_runtime: int = 0
    ssh_server: str = "auto"
    ssh_port: int = 0
    agent: str = "auto"
    agent_version: str = ""
    agent_sha256: tuple[tuple[str, str], ...] = ()
    agent_url: str = ""
    announce: str = ""
    s3_encryption: str = ""
    disable_hooks: tuple[str, ...] = ()
    bundle: str = ""
    training_module: str = ""
    run_dir: str = ""

    @property
    def wait_seconds(self) -> int | None:
        """Seconds to wait for a person before the entry point starts; None when no person is waited for."""
        return int(self.wait) if self.wait.isdigit() else None


def end_seconds(max_runtime: int) -> int:
    """How long before the job's own limit a hold ends, in seconds: a job that is stopped there has not ended in order.

    It is enough to deregister, to write the failure file and to be late: SageMaker's clock starts first.
    """
    return min(300, max_runtime // 10)


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


def variables(options: Mapping[str, Any]) -> dict[str, str]:
    """The environment variables that say the same as an `options.json`, for a job that gets none.

    Args:
        options: what `options.json` would hold.

    Raises:
        SmsshError: a key is no setting of a job; it could only travel in the file.
    """
    known = {setting.field: setting for setting in SETTINGS}
    found = {}
    for field, value in options.items():
        if field not in known:
            raise SmsshError(
                f"{field!r} is no setting that a variable of the job could carry.",
                reference="bad-setting",
                status=ExitStatus.USAGE,
            )
        if isinstance(value, bool):
            text = "1" if value else "0"
        elif isinstance(value, dict):
            text = ",".join(f"{name}={each}" for name, each in sorted(value.items()))
        elif isinstance(value, (list, tuple)):
            text = ("\n" if field == "authorized_keys" else ",").join(map(str, value))
        else:
            text = str(value)
        found[known[field].variable] = text
    return found


def deprecated(environ: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, str]:
    """The names of sagemaker-ssh-helper that decide something in this job, and what each is called here.

    Args:
        environ: the job's environment.
        options: what the bundle's `options.json` holds.
    """
    found = {}
    for setting in SETTINGS:
        name = _find(setting, environ, options)[0]
        if name in setting.deprecated:
            found[str(name)] = setting.variable
    return found


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
