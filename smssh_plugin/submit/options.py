"""What a person can ask for when a step, a pipeline or a client gets SSH."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Mapping

from .. import settings
from ..aws.s3_address import split_owner
from ..errors import ExitStatus, SmsshError
from ..key_sources import is_source, key_lines
from ..terminal import block
from . import switch
from .option_fields import OptionFields
from .switch import switched_off

__all__ = [
    "AGENT_LATEST",
    "SSHOptions",
    "SmsshWarning",
    "own_owner",
    "public_keys",
    "switched_off",
]

AGENT_LATEST = "latest"

_PLACE = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s]*)?\Z")
_BUILT = re.compile(r"s3://[^/]+/(\S+/)?[0-9a-f]{64}/?\Z")
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_OURS = frozenset(
    {"PYTHONPATH", "SMSSH_BUNDLE", "SMSSH_ENABLE", "SMSSH_MAX_RUNTIME", "SMSSH_ROLE", "SMSSH_STEP"}
)
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
class SSHOptions(OptionFields):
    """See `OptionFields`."""

    __doc__ = OptionFields.__doc__  # what help() shows

    def __post_init__(self) -> None:
        """Bring lists and choices into one form, and refuse what no job could use."""
        for option in settings.OPTIONS.values():
            object.__setattr__(self, option.name, _normal(option, getattr(self, option.name)))
        for name in ("environment", "extra"):
            object.__setattr__(self, name, _mapping(name, getattr(self, name)))
        problem = switch.problem(self.enabled)
        if problem is not None:
            raise _refusal("enabled", problem)
        if not self.machines:
            raise _refusal("machines", "is empty")
        reserved = sorted(settings.OPTIONS.keys() & set(self.extra))
        if reserved:
            raise _refusal("extra", f"has {reserved[0]!r}, which is an option of its own")
        for entry in self.authorized_keys:
            if not is_source(entry):
                public_keys(entry)
        if isinstance(self.role, str) and not self.role.strip():
            raise _refusal("role", "is empty")
        if self.s3_encryption is not None and not self.s3_encryption:
            raise _refusal("s3_encryption", "is empty")
        self._check_environment()
        self._check_settings()
        self._check_bundle()

    def _check_environment(self) -> None:
        for name, value in self.environment.items():
            if not _NAME.match(name):
                raise _refusal("environment", f"has {name!r}, which is not the name of a variable")
            if name in _OURS:
                raise _refusal("environment", f"has {name}, which SSH sets itself")
            # Of a pipeline variable nothing but its type may be asked for.
            if issubclass(type(value), (bool, int, float, bytes, type(None))):
                raise _refusal("environment", f"has {name} = {value!r}, which is not text")
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
        """Let the container's own reader judge what it would read."""
        version = None if self.agent_version == AGENT_LATEST else self.agent_version
        said = {"agent": self.agent, "agent_version": version, "s3_encryption": self.s3_encryption}
        try:
            read = settings.load({}, {**self.document(()), **said})
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
                "use the address that `smssh bundle build` prints; bundle_prefix says where bundles are stored",
            )
        if self.bundle is not None and self.bundle_prefix is not None:
            raise _refusal(
                "bundle_prefix", f"has no meaning with bundle={self.bundle!r}, which is stored already"
            )
        if self.baked:
            self._check_baked()
        if self.offline:
            self._check_offline()

    def _check_baked(self) -> None:
        of_bundles = [each.name for each in settings.OPTIONS.values() if each.travels == settings.BUNDLE]
        asked = [name for name in ("bundle", *of_bundles) if getattr(self, name)]
        if self.agent == "bundle":
            asked.append("agent")
        if asked:
            raise _refusal(
                asked[0], "asks for a bundle, and an image with smssh-plugin (launcher='baked') gets none"
            )
        known = {each.field for each in settings.SETTINGS}
        for name in self.extra:
            if name not in known:
                raise _refusal(
                    "extra", f"has {name!r}, which only a bundle can carry", "put it into `environment`"
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
                    f"has nothing for {machine}, and offline=True brings all that a job needs",
                    f"name the Python of the image, such as '3.11{suffix}', or use ssh_server='sshd' if the image has "
                    "sshd",
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
        for name in changes:
            if name not in settings.OPTIONS:
                in_extra = any(each.field == name and each.extra for each in settings.SETTINGS)
                raise SmsshError(
                    f"there is no SSH option {name!r}",
                    hint=f"set it with SSHOptions(extra={{{name!r}: ...}})"
                    if in_extra
                    else f"use one of {', '.join(settings.OPTIONS)}",
                    reference="unknown-option",
                    status=ExitStatus.USAGE,
                )
        return replace(self, **changes) if changes else self

    def document(self, authorized_keys: tuple[str, ...]) -> dict[str, Any]:
        """What `options.json` of the bundle holds: only what was asked for; defaults stay the container's.

        Args:
            authorized_keys: the public keys that may log in, each one line, and sources of keys.
        """
        found = dict(self.extra)
        for option in settings.OPTIONS.values():
            if option.setting == option.name and option.travels == settings.OPTIONS_JSON:
                value = getattr(self, option.name)
                if option.kind.separator:
                    value = ",".join(value) if option.kind.joined else list(value)
                found[option.name] = value
        found["owner"] = self.owner or own_owner()
        found["plugins"] = list(self.plugins)
        # Nothing else that a container does puts objects into S3.
        found["s3_encryption"] = self.s3_encryption if self.transport == "native" else None
        found["agent"] = None if self.agent_source == "auto" else self.agent_source
        found["agent_version"] = None  # `agent_for` pins it, with its digests
        # At the end: without a bundle these are variables, whose order is part of a request's bytes.
        del found["authorized_keys"]
        found["authorized_keys"] = list(authorized_keys)
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
    path = Path(os.path.expanduser(entry))  # Path.expanduser raises where there is no such user, or no home
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
    """Refuse lines that are not public keys.

    Args:
        origin: the file or source that has them.
        lines: see `key_sources.key_lines`.

    Raises:
        SmsshError: one of them is not; the message does not repeat it.
    """
    for line in lines:
        if not _KEY.search(line):
            raise _refusal("authorized_keys", f"names {origin}, which has a line that is not a public key")


def _is_place(value: Any) -> bool:
    """Whether it is an S3 address; see `s3_address`."""
    return isinstance(value, str) and _PLACE.match(split_owner(value)[0]) is not None


def own_owner() -> str:
    """The owner that the submitting process names; "" for none."""
    return settings.load({"SMSSH_OWNER": os.environ.get("SMSSH_OWNER", "")}).owner


def _normal(option: settings.Option, value: Any) -> Any:
    """The value in its one form: lists as tuples, choices in lower case; what is not a setting is checked, too."""
    kind = option.kind
    if kind.separator:
        value = _tuple(option.name, value, kind.separator)
    elif kind.choice and value is None:
        return option.default
    if kind.choice or option.setting != option.name:
        return settings.parsed(kind, f"SSHOptions: {option.name}", value, option.limits, "bad-option")
    plain = bool(kind.separator) or isinstance(value, (str, int, float, type(None)))
    if option.travels == settings.OPTIONS_JSON and not plain:
        raise _refusal(option.name, f"is {value!r}, which is neither text nor a number")
    return value


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
            raise _refusal(name, f"has {each!r}, which is not text, as a name")
    return dict(value)


def _refusal(name: str, problem: str, hint: str | None = None) -> SmsshError:
    return SmsshError(
        f"SSHOptions: {name} {problem}", hint=hint, reference="bad-option", status=ExitStatus.USAGE
    )
