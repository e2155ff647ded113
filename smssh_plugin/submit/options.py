"""What a person can ask for when a step, a pipeline or a client is given SSH."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Mapping

from .. import settings
from ..agent_package import MACHINES
from ..errors import ExitStatus, SmsshError
from . import switch
from .switch import switched_off

__all__ = ["CACHES", "CARRIERS", "SSHOptions", "SmsshWarning", "switched_off"]

CARRIERS = ("auto", "wrap", "sitecustomize", "chain", "bash_env", "baked")
CACHES = ("warn", "keep", "drop")
AGENT_LATEST = "latest"

_BUNDLE = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s]*)?\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}\Z")
_PYTHON = re.compile(r"3\.\d{1,2}(-(x86_64|aarch64))?\Z")
# The types of the OpenSSH manual (sshd, AUTHORIZED_KEYS FILE FORMAT); a line may start with options instead.
_KEY = re.compile(
    r"(^|\s)(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)"
    r"(-cert-v01@openssh\.com)?\s+AAAA[A-Za-z0-9+/]+={0,3}(\s|$)"
)


class SmsshWarning(UserWarning):
    """Something about SSH that a person should know, and that the request was sent in spite of."""


@dataclass(frozen=True)
class SSHOptions:
    """How a job is entered. Every default costs nobody money: no wait, no hold.

    The name in parentheses is the variable that does the same on a job, and wins over the option; most
    options travel as the key of that name in the bundle's `options.json`, because a job's environment is
    scarce.

    Attributes:
        enabled: False leaves the request as it is, byte for byte; None and True turn SSH on, unless
            `SMSSH_ENABLE=0` stands in the environment of the submitting process, which turns every `with_ssh`
            off. The name of an environment variable of the submitting process, in capitals, is a switch from
            outside: on where it is 1, off where it is 0, empty or not set. A pipeline parameter (a
            ParameterString or ParameterInteger that is 1 or 0) is a switch for each execution: it is what
            SMSSH_ENABLE of the jobs is, while the rest of the request stays (`with_ssh` only).
        hold: points at which the container is held until it is released, retried or out of time: any of
            `start`, `failure`, `end`; a comma list will do (SMSSH_HOLD, `hold`).
        hold_seconds: how long a hold lasts while nobody is connected: seconds, or a duration such as "30m"
            (SMSSH_HOLD_SECONDS, `hold_seconds`; 600).
        hold_max_seconds: how long a hold lasts at most, whoever is connected (SMSSH_HOLD_MAX_SECONDS,
            `hold_max_seconds`; 14400).
        wait: delays the entry point: "ready" until a login is possible, or a duration in which a person can
            connect and release it (SMSSH_WAIT, `wait`; no wait).
        owner: the SSHOwner tag of the job's managed nodes, for IAM conditions (SMSSH_OWNER, `owner`; by
            default SMSSH_OWNER of the submitting process, else none).
        authorized_keys: public keys that may log in beside your own smssh key: lines as in an authorized_keys
            file, or paths of files of such lines (SMSSH_AUTHORIZED_KEYS, `authorized_keys`).
        role: the IAM role, name or ARN, that the hybrid activation gives to the job's managed node; it may be
            a pipeline variable (SMSSH_ROLE, in the request; by default the job's own role).
        transport: `ssm`, `none`, or `native` (SageMaker remote debugging, training only)
            (SMSSH_TRANSPORT, `transport`; ssm).
        ssh_server: `auto`, `sshd` (the image's own), `asyncssh`, or `apt`, which installs openssh-server where there is
            no sshd (SMSSH_SSH_SERVER, `ssh_server`; auto).
        agent: where Amazon's agent comes from, which the ssm transport needs: `auto` (the image's own, else the
            package that was pinned here, downloaded by the job), `found` (the image's own and nothing else),
            `download` (the pinned package, whatever the image has), or `bundle` (the pinned package travels in the
            bundle, about 30 MB, for jobs that reach S3 through an endpoint of their own only). What is pinned is
            a version and its SHA-256 (SMSSH_AGENT, `agent`; auto).
        agent_version: the version that is pinned, or "latest" for the newest at the time of the submission, which
            makes new bundles, and so runs cached steps again, whenever AWS releases one (`agent_version`).
        machines: the machines of the jobs' instances whose agent is pinned: "x86_64", "aarch64" (Graviton)
            (x86_64).
        wheels: Python versions of images without sshd, such as "3.11" or "3.11-aarch64", whose asyncssh
            wheels go into the bundle (about 5 MB each).
        bundle: `s3://bucket/prefix` under which bundles are stored; by default `smssh/bundles` in the
            SageMaker SDK's default bucket. The job's role must be able to read it.
        carrier: what starts SSH in the container. `auto` wraps the entry point that the request names (`wrap`), and
            where it names none puts a `sitecustomize` of ours on PYTHONPATH; `chain` goes through the training
            toolkits' SAGEMAKER_TRAINING_MODULE, and `bash_env` through BASH_ENV, for images that neither of the
            former suits. `baked` is for images that have smssh-plugin installed: they get variables and no bundle.
        cache: what becomes of step caching, because a cache hit starts no container: `warn` says so, `keep` says
            nothing, `drop` takes the step's CacheConfig away while SSH is on.
        hosts: how many hosts of a job, from the first on, can be entered; None and 0 are all of them (SMSSH_HOSTS,
            `hosts`; 0).
        endpoints: True lets endpoints be entered that are made from the model, and models of several containers;
            without it, models only carry what transform jobs need.
        repack: True brings the bundle in the `code/` folder of a model that the SDK repacks in the pipeline, instead
            of the model's AdditionalModelDataSources.
        environment: further variables of the jobs, by name: texts, or pipeline variables. What a request has already
            stays, and endpoints get them with `endpoints`.
        extra: further keys of `options.json`, for settings that have no field here (`strict`, `ssh_port`,
            `disable_hooks`) and for hooks of your own; values that JSON can hold.

    Raises:
        SmsshError: an option is outside its limits.
    """

    # May be a pipeline variable, and of those not all have a hash.
    enabled: Any = field(default=None, hash=False)
    hold: tuple[str, ...] = ()
    hold_seconds: int | str | None = None
    hold_max_seconds: int | str | None = None
    wait: int | str | None = None
    owner: str | None = None
    authorized_keys: tuple[str, ...] = ()
    # Never compared: a pipeline variable answers == with nonsense or an exception.
    role: Any = field(default=None, compare=False)
    transport: str = "ssm"
    ssh_server: str | None = None
    agent: str = "auto"
    agent_version: str | None = None
    machines: tuple[str, ...] = ("x86_64",)
    wheels: tuple[str, ...] = ()
    bundle: str | None = None
    carrier: str = "auto"
    cache: str = "warn"
    hosts: int | None = None
    endpoints: bool = False
    repack: bool = False
    environment: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Bring lists and comma lists into one form, and refuse what no job could use."""
        for name, separator in (
            ("hold", ","),
            ("authorized_keys", "\n"),
            ("machines", ","),
            ("wheels", ","),
        ):
            object.__setattr__(self, name, _tuple(name, getattr(self, name), separator))
        object.__setattr__(self, "extra", dict(self.extra))
        object.__setattr__(self, "environment", dict(self.environment))
        for name, value in self.environment.items():
            if not isinstance(name, str) or not _VARIABLE.match(name):
                raise _refusal("environment", f"has {name!r}, which is no name of a variable")
            if not isinstance(value, str) and not switch.is_variable(value):
                raise _refusal(
                    "environment", f"has {name} as {value!r}, which is no text and no pipeline variable"
                )
        problem = switch.problem(self.enabled)
        if problem is not None:
            raise _refusal("enabled", problem)
        for name, choices in (("carrier", CARRIERS), ("cache", CACHES)):
            if getattr(self, name) not in choices:
                raise _refusal(name, f"is {getattr(self, name)!r}, not one of {', '.join(choices)}")
        if self.baked and (self.wheels or self.agent == "bundle"):
            raise _refusal("carrier", "is 'baked', without a bundle that could bring wheels or the agent")
        for version in self.wheels:
            if not _PYTHON.match(version):
                raise _refusal(
                    "wheels", f"has {version!r}, not a Python version such as '3.11' or '3.11-aarch64'"
                )
        for machine in self.machines:
            if machine not in MACHINES:
                raise _refusal("machines", f"has {machine!r}, not {' or '.join(map(repr, MACHINES))}")
        if not self.machines:
            raise _refusal("machines", "is empty")
        if self.bundle is not None and not (isinstance(self.bundle, str) and _BUNDLE.match(self.bundle)):
            raise _refusal("bundle", f"is {self.bundle!r}, not an s3://bucket/prefix address")
        reserved = sorted({each.name for each in fields(self)} & set(self.extra))
        if reserved:
            raise _refusal("extra", f"has {reserved[0]!r}, which is an option of its own")
        for entry in self.authorized_keys:
            public_keys(entry)
        if isinstance(self.role, str) and not self.role.strip():
            raise _refusal("role", "is empty")
        self._check_settings()

    def _check_settings(self) -> None:
        """Let the container's own reader judge what it will be given."""
        try:
            version = None if self.agent_version == AGENT_LATEST else self.agent_version
            document = {**self.document(()), "agent": str(self.agent), "agent_version": version}
            read = settings.load({}, document)
        except SmsshError as error:
            message = error.message.replace("options.json: ", "SSHOptions: ", 1)
            raise SmsshError(
                message, hint=error.hint, reference=error.reference, status=error.status
            ) from None
        if read.hold_max_seconds < read.hold_seconds:
            raise _refusal(
                "hold_max_seconds",
                f"is {read.hold_max_seconds}, less than hold_seconds ({read.hold_seconds})",
            )

    @property
    def active(self) -> bool:
        """Whether requests are changed, in this process and now."""
        return switch.is_on(self.enabled)

    @property
    def baked(self) -> bool:
        """Whether the image has the package, so that variables are all that a job gets: see `settings.variables`."""
        return self.carrier == "baked"

    def merged(self, changes: Mapping[str, Any]) -> SSHOptions:
        """These options with some of them replaced.

        Raises:
            SmsshError: there is no such option, or its value is outside its limits.
        """
        known = [each.name for each in fields(self)]
        for name in changes:
            if name not in known:
                raise SmsshError(
                    f"there is no SSH option {name!r}",
                    hint=f"the options are {', '.join(known)}",
                    reference="unknown-option",
                    status=ExitStatus.USAGE,
                )
        return replace(self, **changes) if changes else self

    def document(self, authorized_keys: tuple[str, ...]) -> dict[str, Any]:
        """What `options.json` of the bundle holds: only what was asked for; defaults stay the container's.

        Args:
            authorized_keys: the public keys that may log in, each one line.
        """
        found = {
            **self.extra,
            "hold": ",".join(self.hold),
            "hold_seconds": self.hold_seconds,
            "hold_max_seconds": self.hold_max_seconds,
            "wait": self.wait,
            "owner": self.owner or os.environ.get("SMSSH_OWNER"),
            "transport": self.transport,
            "ssh_server": self.ssh_server,
            "hosts": self.hosts,
            "agent": None if self.agent == "auto" else self.agent,
            "authorized_keys": list(authorized_keys),
        }
        return {name: value for name, value in found.items() if value not in (None, "", [])}


def public_keys(entry: str) -> list[str]:
    """The public keys of one entry of `authorized_keys`: the line itself, or the lines of the file it names.

    Raises:
        SmsshError: it is neither, or a private key.
    """
    if "PRIVATE KEY" in entry:
        raise _refusal("authorized_keys", "has a private key where a public one belongs")
    if _KEY.search(entry):
        return [entry.strip()]
    path = Path(entry).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise _refusal(
            "authorized_keys", f"has {entry!r}, which is neither a public key nor a readable file"
        ) from None
    if "PRIVATE KEY" in text:
        raise _refusal("authorized_keys", f"names {path}, a private key; name {path.name}.pub instead")
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    for line in keys:
        if not _KEY.search(line):
            raise _refusal("authorized_keys", f"names {path}, which has a line that is no public key")
    if not keys:
        raise _refusal("authorized_keys", f"names {path}, which has no public key in it")
    return keys


def _tuple(name: str, value: Any, separator: str) -> tuple[str, ...]:
    """A text with separators, or any iterable of texts, as a tuple."""
    parts = value.split(separator) if isinstance(value, str) else value
    try:
        parts = tuple(parts or ())
    except TypeError:
        raise _refusal(name, f"is {value!r}, not a tuple of texts") from None
    if not all(isinstance(part, str) for part in parts):
        raise _refusal(name, f"is {value!r}, not a tuple of texts")
    return tuple(part.strip() for part in parts if part.strip())


def _refusal(name: str, problem: str) -> SmsshError:
    return SmsshError(f"SSHOptions: {name} {problem}", reference="bad-option", status=ExitStatus.USAGE)
