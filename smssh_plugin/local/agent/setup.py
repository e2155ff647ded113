"""The fake agent's configuration and registration, in the files that the real agent has."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...errors import SmsshError
from ...files import write_atomically

__all__ = [
    "AGENT_VERSION",
    "Configuration",
    "CustomIdentity",
    "Registration",
    "certificate_of",
    "folder_of",
    "state_folder",
    "write_private",
]

AGENT_VERSION = "3.3.987.0"
"""The version that the fake agent reports: that of the real agent which it was written after."""
SESSION_WORKERS = 1000
"""Sessions at the same time (`DefaultSessionWorkersLimit` in agent/appconfig/constants.go)."""
SESSION_WORKER_BUFFER = 1
"""Sessions that may wait for a worker (`DefaultSessionWorkerBufferLimit`)."""
DENIED = (
    "169.254.169.254",
    "fd00:ec2::254",
    "169.254.169.253",
    "fd00:ec2::253",
    "169.254.169.123",
    "fd00:ec2::123",
    "169.254.169.250",
    "169.254.169.251",
    "fd00:ec2::240",
)
"""Addresses that are forwarded to nobody (`DefaultDeniedPortForwardingRemoteIPs`): metadata, DNS, time."""

_FILE = "amazon-ssm-agent.json"
_SYSTEM_CONFIGURATION = Path("/etc/amazon/ssm") / _FILE
_SYSTEM_STATE = Path("/var/lib/amazon/ssm")
_DAY = 86400.0


def folder_of(program: str) -> Path:
    """The folder that the program was started from."""
    return Path(program).absolute().parent


def certificate_of(folder: Path) -> Path:
    """The file of an authority that is trusted in container mode, for a program that was started from `folder`."""
    return folder / "certs" / "amazon-ssm-agent.crt"


def state_folder(folder: Path) -> Path:
    """Where the registration is kept.

    The real agent has one place a machine. The fake agent keeps its state beside itself when it runs relocated,
    so that several containers of the local emulator can share a file system.
    """
    relocated = (folder / "configuration" / _FILE).is_file()
    system = _SYSTEM_STATE if _SYSTEM_STATE.exists() else _SYSTEM_STATE.parent.parent
    return folder / "state" if relocated or not os.access(system, os.W_OK) else _SYSTEM_STATE


def write_private(path: Path, text: str) -> None:
    """Write a file that is its owner's alone, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(path, text)


@dataclass(frozen=True)
class CustomIdentity:
    """An identity that is not registered: SageMaker's own remote debugging has one, as far as can be seen."""

    id: str
    region: str


@dataclass(frozen=True)
class Configuration:
    """What the fake agent takes from amazon-ssm-agent.json."""

    ssm: str
    """The endpoint of the SSM API."""
    mgs: str
    """The endpoint of the channels (ssmmessages): `http` or `https`."""
    kms: str = ""
    """The endpoint of KMS, for encrypted shells; "" for none: the fake agent never calls AWS."""
    share_credentials: bool = True
    """Whether the role's credentials are written to the shared credentials file, under `share_profile`."""
    share_profile: str = "default"
    rotate_days: int = 0
    """The age in days at which the node's key is replaced; 0 for never, unless the service asks for it."""
    container: bool = False
    """Container mode: no pings, no other user, commands without a shell."""
    authority: str | None = None
    """A PEM file that is trusted instead of the system's, in container mode (the real agent adds it to those)."""
    workers: int = SESSION_WORKERS
    worker_buffer: int = SESSION_WORKER_BUFFER
    denied: tuple[str, ...] = DENIED
    handshake_window: float = 0.0
    """Seconds after HandshakeComplete for which input is still thrown away, as the real agent does for a moment that
    a busy machine makes long (`PerformHandshake` in its datachannel.go). `Faults.HandshakeWindowSeconds`."""
    custom: CustomIdentity | None = None
    """The identity, where the order of identities has a custom one before OnPrem."""

    @classmethod
    def load(cls, folder: Path) -> Configuration:
        """Read the configuration beside the program, else the system's.

        Raises:
            SmsshError: there is no configuration, or it names no endpoint: the fake agent must never reach AWS.
        """
        beside = folder / "configuration" / _FILE
        path = beside if beside.is_file() else _SYSTEM_CONFIGURATION
        try:
            body = json.loads(path.read_text())
            section = {
                name: body.get(name) or {} for name in ("Agent", "Faults", "Identity", "Mgs", "Profile")
            }
            endpoints = {name: _endpoint(body, name) for name in ("Ssm", "Mgs", "Kms")}
            custom = _custom(section["Identity"])
            window = float(section["Faults"].get("HandshakeWindowSeconds", 0.0))
        except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
            raise SmsshError(f"cannot read the agent's configuration {path}: {error!r}") from error
        for name in ("Ssm", "Mgs"):
            if not endpoints[name]:
                raise SmsshError(
                    f"{path} names no {name}.Endpoint with a scheme",
                    hint="the fake agent serves the local emulator alone; on AWS use Amazon's agent",
                    reference="agent-endpoint",
                )
        profile, mgs = section["Profile"], section["Mgs"]
        container, certificate = bool(section["Agent"].get("ContainerMode")), certificate_of(folder)
        return cls(
            ssm=endpoints["Ssm"],
            mgs=endpoints["Mgs"],
            kms=endpoints["Kms"],
            share_credentials=bool(profile.get("ShareCreds", True)),
            share_profile=str(profile.get("ShareProfile") or "default"),
            rotate_days=_number(profile, "KeyAutoRotateDays", 0, 365, 0),
            container=container,
            authority=str(certificate) if container and certificate.is_file() else None,
            workers=_number(mgs, "SessionWorkersLimit", 1, None, SESSION_WORKERS),
            worker_buffer=_number(mgs, "SessionWorkerBufferLimit", 1, None, SESSION_WORKER_BUFFER),
            denied=tuple(mgs.get("DeniedPortForwardingRemoteIPs") or DENIED),
            handshake_window=window,
            custom=custom,
        )


@dataclass(frozen=True)
class Registration:
    """What `-register` leaves behind."""

    node: str
    region: str
    fingerprint: str
    private_key: str
    """RSA, PEM."""
    key_created: float = 0.0
    """Seconds since the epoch."""

    @staticmethod
    def _files(state: Path) -> tuple[Path, Path]:
        return state / "registration", state / "Vault" / "Store" / "RegistrationKey"

    @classmethod
    def load(cls, state: Path) -> Registration | None:
        """The registration in `state`; None if it is not registered."""
        public, private = cls._files(state)
        try:
            shown, secret = json.loads(public.read_text()), json.loads(private.read_text())
            return cls(
                shown["ManagedInstanceID"],
                shown["Region"],
                secret["fingerprint"],
                secret["privateKey"],
                float(secret["privateKeyCreatedDate"]),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SmsshError(f"cannot read the registration in {state}: {error!r}") from error

    def save(self, state: Path) -> None:
        """Write the two files; the private key is for the owner alone."""
        public, private = self._files(state)
        secret = {
            "fingerprint": self.fingerprint,
            "privateKey": self.private_key,
            "privateKeyCreatedDate": self.key_created,
        }
        write_private(private, json.dumps(secret))
        public.write_text(json.dumps({"ManagedInstanceID": self.node, "Region": self.region}))

    @property
    def key_age_days(self) -> int:
        """Whole days since the key was made."""
        return int((time.time() - self.key_created) / _DAY)

    @classmethod
    def clear(cls, state: Path) -> None:
        """Remove the registration, if there is one."""
        for path in cls._files(state):
            path.unlink(missing_ok=True)


def _endpoint(body: dict[str, Any], section: str) -> str:
    found = str((body.get(section) or {}).get("Endpoint") or "").rstrip("/")
    # The real agent passes over an endpoint without a scheme, in silence, and calls AWS.
    return found if urlsplit(found).scheme in ("http", "https") else ""


def _number(section: dict[str, Any], name: str, least: int, most: int | None, default: int) -> int:
    """A number; the default if it is missing or out of range, as the real agent's parser has it."""
    value = section.get(name, default)
    if not isinstance(value, int) or value < least or (most is not None and value > most):
        return default
    return value


def _custom(identity: dict[str, Any]) -> CustomIdentity | None:
    """The custom identity that comes before a registered one; None for none."""
    for name in identity.get("ConsumptionOrder") or ("OnPrem",):
        if name == "OnPrem":
            return None
        if name == "CustomIdentity" and identity.get("CustomIdentities"):
            first = identity["CustomIdentities"][0]
            return CustomIdentity(str(first["InstanceID"]), str(first["Region"]))
    return None
