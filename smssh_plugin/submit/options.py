"""What a person can ask for when a step, a pipeline or a client is given SSH."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Mapping, NamedTuple

from .. import settings
from ..agent_package import MACHINES
from ..aws.s3_address import split_owner
from ..errors import ExitStatus, SmsshError
from ..key_sources import is_source, key_lines
from ..terminal import block
from . import switch
from .switch import switched_off

__all__ = [
    "CACHES",
    "LAUNCHERS",
    "LISTS",
    "WAYS",
    "SSHOptions",
    "SmsshWarning",
    "Way",
    "public_keys",
    "switched_off",
]

LAUNCHERS = ("auto", "wrap", "sitecustomize", "chain", "bash_env", "baked")
CACHES = ("warn", "keep", "drop")
AGENT_LATEST = "latest"

_PLACE = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s]*)?\Z")
_BUILT = re.compile(r"s3://[^/]+/(\S+/)?[0-9a-f]{64}/?\Z")
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_OURS = frozenset(
    {"PYTHONPATH", "SMSSH_BUNDLE", "SMSSH_ENABLE", "SMSSH_MAX_RUNTIME", "SMSSH_ROLE", "SMSSH_STEP"}
)
_PYTHON = re.compile(r"3\.\d{1,2}(-(x86_64|aarch64))?\Z")
# The types of the OpenSSH manual (sshd, AUTHORIZED_KEYS FILE FORMAT); a line may start with options instead.
_KEY = re.compile(
    r"(^|\s)(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)"
    r"(-cert-v01@openssh\.com)?\s+AAAA[A-Za-z0-9+/]+={0,3}(\s|$)"
)


class SmsshWarning(UserWarning):
    """Something about SSH that a person should know, and that the request was sent in spite of."""

    def __str__(self) -> str:
        """The text, safe for a terminal: it names what other people named."""
        return block(super().__str__())


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
            SMSSH_ENABLE of the jobs is, while the rest of the request stays, for `with_ssh` only (SMSSH_ENABLE; on).
        hold: points at which the container is held until it is released, retried or out of time: any of
            `start`, `failure`, `end`; a comma list will do (SMSSH_HOLD, `hold`).
        hold_seconds: how long a hold lasts while nobody is connected: seconds, or a duration such as "30m"
            (SMSSH_HOLD_SECONDS, `hold_seconds`; 600).
        hold_max_seconds: how long a hold lasts at most, whoever is connected (SMSSH_HOLD_MAX_SECONDS,
            `hold_max_seconds`; 14400).
        idle_seconds: how long a hold goes on after the last person has left (SMSSH_IDLE_SECONDS,
            `idle_seconds`; as long as hold_seconds).
        hold_hosts: which hosts of a job with several are held: `own`, the one that failed, or `all`
            (SMSSH_HOLD_HOSTS, `hold_hosts`; own).
        price_per_hour: what one instance costs an hour, such as 1.21 or "1.21 USD", so that a hold can say what
            waiting costs (SMSSH_PRICE_PER_HOUR, `price_per_hour`; nothing is said).
        notify: who is told of events: SNS topics' ARNs, webhooks' https addresses. They are in the bundle, where
            whoever may read that can read them (SMSSH_NOTIFY, `notify`; nobody).
        notify_events: which events they are told of (SMSSH_NOTIFY_EVENTS, `notify_events`; ready, failed, held,
            expiring, released).
        notify_template: what they are told, with $names (SMSSH_NOTIFY_TEMPLATE, `notify_template`;
            "$address: $message").
        wait: delays the entry point: "ready" until a login is possible, or a duration: until a person connects, for so
            long at most, and from then on until it is released (SMSSH_WAIT, `wait`; no wait).
        owner: the SSHOwner tag of the job's managed nodes, for IAM conditions (SMSSH_OWNER, `owner`; by
            default SMSSH_OWNER of the submitting process, else none).
        authorized_keys: public keys that may log in beside your own smssh key: lines as in an authorized_keys
            file, paths of files of such lines, or sources of them: `s3://bucket/key`, `ssm:PARAMETER`,
            `github:USER`, `https://...`. They are read when the request is made, and the bundle holds what was
            read: who may log in is fixed then, what cannot be read is an error then, and the job needs no right
            and no way to read it. Sources that change later need a new request; so a job without a bundle
            (`launcher="baked"`) is given the sources, and reads them with its own role
            (SMSSH_AUTHORIZED_KEYS, `authorized_keys`).
        role: the IAM role, name or ARN, that the hybrid activation gives to the job's managed node; it may be
            a pipeline variable (SMSSH_ROLE; by default the job's own role).
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
            makes new bundles, and so runs cached steps again, whenever AWS releases one (SMSSH_AGENT_VERSION,
            `agent_version`; the version that this release of smssh-plugin names).
        machines: the machines of the jobs' instances whose agent is pinned: "x86_64", "aarch64" (Graviton)
            (SMSSH_AGENT_SHA256, `agent_sha256`; x86_64).
        wheels: Python versions of images without sshd, such as "3.11" or "3.11-aarch64", whose asyncssh
            wheels go into the bundle, about 5 MB each (no variable).
        offline: True makes bundles that bring all that a job needs but S3 and Session Manager: the agent for the stated
            `machines`, and asyncssh's wheels for the stated `wheels` (no variable; False).
        bundle: `s3://bucket/prefix/DIGEST/`, a bundle that was built before (`smssh bundle build`). It is used as it
            is, once it was found to be complete and made for these options (no variable; one is built for these
            options).
        bundle_prefix: `s3://bucket/prefix` under which bundles are stored. The job's role must be able to read it.
            The bucket must belong to your own account, or to the one that the address names at its end:
            `s3://bucket/prefix?owner=123456789012` (no variable; `smssh/bundles` in the SageMaker SDK's default
            bucket).
        s3_encryption: how what is stored here is encrypted, for buckets whose policy demands it of each PUT: `AES256`,
            `aws:kms`, or a key of KMS by its id, ARN or alias, which the job's role may use to decrypt. With the native
            transport, what a job announces in S3 as well (SMSSH_S3_ENCRYPTION, `s3_encryption`; as the bucket has it).
        plugins: plugins that go into the bundle, by the name of their distribution or module: pure Python, installed
            where the request is made. Code and declared package data are sent, nothing else of a package's folder.
            What they require is not taken along unless it is named, too. In images that have them, they are found
            without (no variable).
        launcher: what starts SSH in the container. `auto` wraps the entry point that the request names (`wrap`), and
            where it names none puts a `sitecustomize` of ours on PYTHONPATH; `chain` goes through the training
            toolkits' SAGEMAKER_TRAINING_MODULE, and `bash_env` through BASH_ENV, for images that neither of the
            former suits. `baked` is for images that have smssh-plugin installed, which starts by itself: they get
            variables and no bundle.
        cache: what becomes of step caching, because a cache hit starts no container: `warn` says so, `keep` says
            nothing, `drop` takes the step's CacheConfig away while SSH is on.
        hosts: how many hosts of a job, from the first on, can be entered; None and 0 are all of them (SMSSH_HOSTS,
            `hosts`; 0).
        endpoints: True gives SSH to every model that is chosen, those of several containers too, and lets endpoints be
            entered that are made from them; without it, models only carry what transform jobs need, and only those
            that a chosen transform step uses or that were named.
        repack: whether models bring the bundle to transform jobs in the `code/` folder of their artefact. None: those
            that the SDK repacks in the pipeline; others bring it as one of their AdditionalModelDataSources, which AWS
            does not document for batch transform, if a person named the transform step or the model, and go without
            otherwise. True: in the `code/` folder or not at all; for other models of a pipeline, a step is added that
            repacks them, a training job of some minutes. False: artefacts stay as they are.
        environment: further variables of the jobs, by name: texts, or pipeline variables. What a request has already
            stays, and endpoints get them with `endpoints`.
        extra: further keys of `options.json`, for settings that have no field here (`strict`, `ssh_port`,
            `log_to_stdout`, `agent_url`, `announce`, `disable_hooks`) and for hooks of your own; values that JSON
            can hold (`SMSSH_` and the key in capitals).

    Raises:
        SmsshError: an option is outside its limits.
    """

    # May be a pipeline variable, and of those not all have a hash.
    enabled: Any = field(default=None, hash=False)
    hold: tuple[str, ...] = ()
    hold_seconds: int | str | None = None
    hold_max_seconds: int | str | None = None
    idle_seconds: int | str | None = None
    hold_hosts: str | None = None
    price_per_hour: float | str | None = None
    notify: tuple[str, ...] = field(default=(), repr=False)  # a webhook's address is a secret
    notify_events: tuple[str, ...] = ()
    notify_template: str | None = None
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
    offline: bool = False
    bundle: str | None = None
    bundle_prefix: str | None = None
    s3_encryption: str | None = None
    plugins: tuple[str, ...] = ()
    launcher: str = "auto"
    cache: str = "warn"
    hosts: int | None = None
    endpoints: bool = False
    repack: bool | None = None
    # Neither compared: see `role`.
    environment: Mapping[str, Any] = field(default_factory=dict, compare=False)
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Bring lists and comma lists into one form, and refuse what no job could use."""
        for name, separator in LISTS.items():
            object.__setattr__(self, name, _tuple(name, getattr(self, name), separator))
        for name in ("environment", "extra"):
            object.__setattr__(self, name, _mapping(name, getattr(self, name)))
        problem = switch.problem(self.enabled)
        if problem is not None:
            raise _refusal("enabled", problem)
        for name, choices in (("launcher", LAUNCHERS), ("cache", CACHES)):
            if getattr(self, name) not in choices:
                raise _refusal(name, f"is {getattr(self, name)!r}, not one of {', '.join(choices)}")
        for name in ("endpoints", "offline"):
            # A text such as "no" would be true.
            if not isinstance(getattr(self, name), bool):
                raise _refusal(name, f"is {getattr(self, name)!r}, not True or False")
        if not (self.repack is None or isinstance(self.repack, bool)):
            raise _refusal("repack", f"is {self.repack!r}, not True, False or None")
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
        reserved = sorted({each.name for each in fields(self)} & set(self.extra))
        if reserved:
            raise _refusal("extra", f"has {reserved[0]!r}, which is an option of its own")
        for entry in self.authorized_keys:
            if not is_source(entry):
                public_keys(entry)
        if isinstance(self.role, str) and not self.role.strip():
            raise _refusal("role", "is empty")
        self._check_environment()
        self._check_settings()
        self._check_bundle()

    def _check_environment(self) -> None:
        for name, value in self.environment.items():
            if not _NAME.match(name):
                raise _refusal("environment", f"has {name!r}, which is no name of a variable")
            if name in _OURS:
                raise _refusal("environment", f"has {name}, which SSH sets itself")
            # Of a pipeline variable nothing but its type may be asked for.
            if issubclass(type(value), (bool, int, float, bytes, type(None))):
                raise _refusal("environment", f"has {name} = {value!r}, which is no text")
        texts = {name: value for name, value in self.environment.items() if issubclass(type(value), str)}
        try:
            settings.load(texts, {})
        except SmsshError as error:
            raise SmsshError(
                f"SSHOptions: environment: {error.message}",
                hint=error.hint,
                reference=error.reference,
                status=error.status,
            ) from None

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
        # The reader takes "SSM" for "ssm"; what makes the request compares with the latter.
        for name in ("transport", "agent", "ssh_server", "hold_hosts"):
            if getattr(self, name) != getattr(SSHOptions, name):
                object.__setattr__(self, name, getattr(read, name))
        if read.hold_max_seconds < read.hold_seconds:
            raise _refusal(
                "hold_max_seconds",
                f"is {read.hold_max_seconds}, less than hold_seconds ({read.hold_seconds})",
            )
        if read.hold_hosts == "all" and read.transport != "ssm":
            raise _refusal("hold_hosts", "is 'all', and hosts find each other over the ssm transport only")

    def _check_bundle(self) -> None:
        """Refuse places that cannot be used, and options that contradict the way our files get into the container."""
        for name in ("bundle", "bundle_prefix"):
            if not getattr(self, name):
                object.__setattr__(self, name, None)
            elif not _is_place(getattr(self, name)):
                raise _refusal(name, f"is {getattr(self, name)!r}, not an s3://bucket/prefix address")
        if self.bundle is not None and not _BUILT.match(split_owner(self.bundle)[0]):
            raise _refusal(
                "bundle",
                f"is {self.bundle!r}, which does not end in the digest of a bundle",
                "`smssh bundle build` prints the address of one; bundle_prefix says where bundles are stored",
            )
        if self.bundle is not None and self.bundle_prefix is not None:
            raise _refusal(
                "bundle_prefix", f"has no meaning with bundle={self.bundle!r}, which is stored already"
            )
        if self.s3_encryption is not None:
            try:
                known = settings.encryption(self.s3_encryption)
            except ValueError:
                known = ""
            if not known:
                raise _refusal(
                    "s3_encryption",
                    f"is {self.s3_encryption!r}, not AES256, aws:kms or a key of KMS: id, ARN or alias",
                )
        if self.baked:
            self._check_baked()
        if self.offline:
            self._check_offline()

    def _check_baked(self) -> None:
        for name, value in (
            ("bundle", self.bundle),
            ("offline", self.offline),
            ("wheels", self.wheels),
            ("agent", self.agent == "bundle"),
            ("plugins", self.plugins),
        ):
            if value:
                raise _refusal(
                    name, "asks for a bundle, and an image with smssh-plugin (launcher='baked') gets none"
                )
        known = {each.field for each in settings.SETTINGS}
        for name in self.extra:
            if name not in known:
                raise _refusal(
                    "extra", f"has {name!r}, which only a bundle can carry; put it into `environment`"
                )

    def _check_offline(self) -> None:
        if self.transport == "ssm" and self.agent == "download":
            raise _refusal("agent", "is 'download', and a job with offline=True downloads nothing")
        if self.ssh_server == "apt":
            raise _refusal("ssh_server", "is 'apt', and a job with offline=True downloads nothing")
        if self.ssh_server == "sshd":
            return
        have = {version.partition("-")[2] or "x86_64" for version in self.wheels}
        for machine in self.machines:
            if machine not in have:
                suffix = "" if machine == "x86_64" else f"-{machine}"
                raise _refusal(
                    "wheels",
                    f"has none for {machine}, and offline=True brings all that a job needs: name the Python of "
                    f"its image, such as '3.11{suffix}', or say ssh_server='sshd' where the image has one",
                )

    @property
    def active(self) -> bool:
        """Whether requests are changed, in this process and now."""
        return switch.is_on(self.enabled)

    @property
    def baked(self) -> bool:
        """Whether the image has the package, so that variables are all that a job gets: see `settings.variables`."""
        return self.launcher == "baked"

    @property
    def agent_source(self) -> str:
        """Where the jobs' agent comes from: `agent`, and where that leaves it open, what an offline bundle needs."""
        needed = self.offline and self.transport == "ssm"
        return "bundle" if needed and self.agent == "auto" else self.agent

    @property
    def bundle_uri(self) -> str | None:
        """The S3 prefix of the bundle that is used as it is, ending in a slash; None where one is built."""
        return None if self.bundle is None else split_owner(self.bundle)[0].rstrip("/") + "/"

    @property
    def place(self) -> str | None:
        """The S3 prefix under which bundles are stored, the named one too; None for the default one."""
        if self.bundle_uri is not None:
            return self.bundle_uri.rstrip("/").rpartition("/")[0]
        return None if self.bundle_prefix is None else split_owner(self.bundle_prefix)[0]

    @property
    def bucket_owner(self) -> str:
        """The account that owns the bucket of `place`, if the address names it; "" for one's own account."""
        return split_owner(self.bundle or self.bundle_prefix or "")[1]

    def merged(self, changes: Mapping[str, Any]) -> SSHOptions:
        """These options with some of them replaced.

        Raises:
            SmsshError: there is no such option, or its value is outside its limits.
        """
        known = [each.name for each in fields(self)]
        for name in changes:
            if name not in known:
                setting = "SMSSH_" + name.upper() in WAYS["extra"].variables
                raise SmsshError(
                    f"there is no SSH option {name!r}",
                    hint=f"it is a setting without an option of its own: SSHOptions(extra={{{name!r}: ...}})"
                    if setting
                    else f"the options are {', '.join(known)}",
                    reference="unknown-option",
                    status=ExitStatus.USAGE,
                )
        return replace(self, **changes) if changes else self

    def document(self, authorized_keys: tuple[str, ...]) -> dict[str, Any]:
        """What `options.json` of the bundle holds: only what was asked for; defaults stay the container's.

        Args:
            authorized_keys: the public keys that may log in, each one line, and sources of keys.
        """
        found = {
            **self.extra,
            "hold": ",".join(self.hold),
            "hold_seconds": self.hold_seconds,
            "hold_max_seconds": self.hold_max_seconds,
            "idle_seconds": self.idle_seconds,
            "hold_hosts": self.hold_hosts,
            "price_per_hour": self.price_per_hour,
            "notify": list(self.notify),
            "notify_events": ",".join(self.notify_events),
            "notify_template": self.notify_template,
            "wait": self.wait,
            "owner": self.owner or _own_owner(),
            "transport": self.transport,
            "ssh_server": self.ssh_server,
            "plugins": list(self.plugins),
            "hosts": self.hosts,
            # Nothing else that a container does puts objects into S3.
            "s3_encryption": self.s3_encryption if self.transport == "native" else None,
            "agent": None if self.agent_source == "auto" else self.agent_source,
            "authorized_keys": list(authorized_keys),
        }
        return {name: value for name, value in found.items() if value not in (None, "", [])}


class Way(NamedTuple):
    """How an option reaches the job."""

    variables: tuple[str, ...]
    """The variables that say the same on a job; none for what is no setting of the container's. Of `extra`, those
    that have no option of their own."""
    place: str
    """Where it travels: `request`, `options.json`, `bundle` (files of it), or `nowhere` (it decides what is sent)."""


WAYS: Mapping[str, Way] = {
    "enabled": Way(("SMSSH_ENABLE",), "request"),
    "hold": Way(("SMSSH_HOLD",), "options.json"),
    "hold_seconds": Way(("SMSSH_HOLD_SECONDS",), "options.json"),
    "hold_max_seconds": Way(("SMSSH_HOLD_MAX_SECONDS",), "options.json"),
    "idle_seconds": Way(("SMSSH_IDLE_SECONDS",), "options.json"),
    "hold_hosts": Way(("SMSSH_HOLD_HOSTS",), "options.json"),
    "price_per_hour": Way(("SMSSH_PRICE_PER_HOUR",), "options.json"),
    "notify": Way(("SMSSH_NOTIFY",), "options.json"),
    "notify_events": Way(("SMSSH_NOTIFY_EVENTS",), "options.json"),
    "notify_template": Way(("SMSSH_NOTIFY_TEMPLATE",), "options.json"),
    "wait": Way(("SMSSH_WAIT",), "options.json"),
    "owner": Way(("SMSSH_OWNER",), "options.json"),
    "authorized_keys": Way(("SMSSH_AUTHORIZED_KEYS",), "options.json"),
    "role": Way(("SMSSH_ROLE",), "request"),
    "transport": Way(("SMSSH_TRANSPORT",), "options.json"),
    "ssh_server": Way(("SMSSH_SSH_SERVER",), "options.json"),
    "agent": Way(("SMSSH_AGENT",), "options.json"),
    "agent_version": Way(("SMSSH_AGENT_VERSION",), "options.json"),
    "machines": Way(("SMSSH_AGENT_SHA256",), "options.json"),
    "wheels": Way((), "bundle"),
    "offline": Way((), "bundle"),
    "bundle": Way((), "request"),
    "bundle_prefix": Way((), "nowhere"),
    "s3_encryption": Way(("SMSSH_S3_ENCRYPTION",), "options.json"),
    "plugins": Way((), "bundle"),
    "launcher": Way((), "request"),
    "cache": Way((), "nowhere"),
    "hosts": Way(("SMSSH_HOSTS",), "options.json"),
    "endpoints": Way((), "request"),
    "repack": Way((), "request"),
    "environment": Way((), "request"),
    "extra": Way(
        (
            "SMSSH_STRICT",
            "SMSSH_LOG_TO_STDOUT",
            "SMSSH_SSH_PORT",
            "SMSSH_AGENT_URL",
            "SMSSH_ANNOUNCE",
            "SMSSH_DISABLE_HOOKS",
        ),
        "options.json",
    ),
}
"""Every option, in the order of `SSHOptions`."""

LISTS = {
    "hold": ",",
    "notify": ",",
    "notify_events": ",",
    "authorized_keys": "\n",
    "machines": ",",
    "wheels": ",",
    "plugins": ",",
}
"""The options that are tuples of texts -> what separates them in one text."""


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
    keys = key_lines(text)
    check_public_keys(str(path), keys)
    if not keys:
        raise _refusal("authorized_keys", f"names {path}, which has no public key in it")
    return keys


def check_public_keys(origin: str, lines: list[str]) -> None:
    """Refuse lines that are no public keys.

    Args:
        origin: the file or source that has them.
        lines: see `key_sources.key_lines`.

    Raises:
        SmsshError: one of them is none; it is not repeated.
    """
    for line in lines:
        if not _KEY.search(line):
            raise _refusal("authorized_keys", f"names {origin}, which has a line that is no public key")


def _is_place(value: Any) -> bool:
    """Whether it is an S3 address; see `s3_address`."""
    return isinstance(value, str) and _PLACE.match(split_owner(value)[0]) is not None


def _own_owner() -> str:
    """The owner that the submitting process names; "" for none."""
    return settings.load({"SMSSH_OWNER": os.environ.get("SMSSH_OWNER", "")}).owner


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


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _refusal(name, "is not a mapping of names to values")
    for each in value:
        if not isinstance(each, str):
            raise _refusal(name, f"has {each!r}, which is no text, as a name")
    return dict(value)


def _refusal(name: str, problem: str, hint: str | None = None) -> SmsshError:
    return SmsshError(
        f"SSHOptions: {name} {problem}", hint=hint, reference="bad-option", status=ExitStatus.USAGE
    )
