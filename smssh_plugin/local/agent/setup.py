"""The agent double's configuration and registration, in the files that the real agent has."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...errors import SmsshError

__all__ = ["Configuration", "Registration", "folder_of", "state_folder"]

AGENT_VERSION = "3.3.987.0"
"""The version that the double reports: that of the real agent which it was written after."""
_FILE = "amazon-ssm-agent.json"
_SYSTEM_CONFIGURATION = Path("/etc/amazon/ssm") / _FILE
_SYSTEM_STATE = Path("/var/lib/amazon/ssm")


def folder_of(program: str) -> Path:
    """The folder that the program was started from."""
    return Path(program).absolute().parent


def state_folder(folder: Path) -> Path:
    """Where the registration is kept.

    The real agent has one place a machine. The double keeps its state beside itself when it runs relocated,
    so that several containers of the stand-in can share a file system.
    """
    relocated = (folder / "configuration" / _FILE).is_file()
    system = _SYSTEM_STATE if _SYSTEM_STATE.exists() else _SYSTEM_STATE.parent.parent
    return folder / "state" if relocated or not os.access(system, os.W_OK) else _SYSTEM_STATE


@dataclass(frozen=True)
class Configuration:
    """What the double takes from amazon-ssm-agent.json."""

    ssm: str
    """The endpoint of the SSM API."""
    mgs: str
    """The endpoint of the channels (ssmmessages): `http` or `https`."""
    share_credentials: bool
    """Whether the role's credentials are written to the shared credentials file, under `share_profile`."""
    share_profile: str

    @classmethod
    def load(cls, folder: Path) -> Configuration:
        """Read the configuration beside the program, else the system's.

        Raises:
            SmsshError: there is none, or it names no endpoint: the double must never reach AWS.
        """
        beside = folder / "configuration" / _FILE
        path = beside if beside.is_file() else _SYSTEM_CONFIGURATION
        try:
            body = json.loads(path.read_text())
            ssm, mgs = _endpoint(body, "Ssm"), _endpoint(body, "Mgs")
            profile = body.get("Profile") or {}
        except (OSError, ValueError, AttributeError) as error:
            raise SmsshError(f"cannot read the agent's configuration {path}: {error}") from error
        if not ssm or not mgs:
            raise SmsshError(
                f"{path} names no {'Ssm' if not ssm else 'Mgs'}.Endpoint with a scheme",
                hint="the agent double serves the stand-in alone; on AWS use Amazon's agent",
                reference="agent-endpoint",
            )
        return cls(
            ssm, mgs, bool(profile.get("ShareCreds", True)), str(profile.get("ShareProfile") or "default")
        )


@dataclass(frozen=True)
class Registration:
    """What `-register` leaves behind."""

    node: str
    region: str
    fingerprint: str
    private_key: str
    """RSA, PEM."""

    @staticmethod
    def _files(state: Path) -> tuple[Path, Path]:
        return state / "registration", state / "Vault" / "Store" / "RegistrationKey"

    @classmethod
    def load(cls, state: Path) -> Registration | None:
        """The registration in `state`; None if there is none."""
        public, private = cls._files(state)
        try:
            shown, secret = json.loads(public.read_text()), json.loads(private.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise SmsshError(f"cannot read the registration in {state}: {error}") from error
        return cls(shown["ManagedInstanceID"], shown["Region"], secret["fingerprint"], secret["privateKey"])

    def save(self, state: Path) -> None:
        """Write the two files; the private key is for the owner alone."""
        public, private = self._files(state)
        private.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        public.write_text(json.dumps({"ManagedInstanceID": self.node, "Region": self.region}))
        with open(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({"fingerprint": self.fingerprint, "privateKey": self.private_key}, file)

    @classmethod
    def clear(cls, state: Path) -> None:
        """Remove the registration, if there is one."""
        for path in cls._files(state):
            path.unlink(missing_ok=True)


def _endpoint(body: dict[str, Any], section: str) -> str:
    found = str((body.get(section) or {}).get("Endpoint") or "").rstrip("/")
    # The real agent passes over an endpoint without a scheme, in silence, and calls AWS.
    return found if urlsplit(found).scheme in ("http", "https") else ""
