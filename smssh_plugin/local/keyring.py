"""The credentials of the local emulator: random for each start, and nobody else's.

Who has some: the person who started it (and the commands that `smssh local` runs, or whose environment it prints),
each job while it runs, each managed node's agent, and the IAM users and roles that moto gave some to. This module
imports the standard library only.
"""

from __future__ import annotations

import secrets
import string
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CALLER", "Key", "Keyring"]

CALLER = "caller"
"""Owner of the key that belongs to the person who started the emulator."""

_ALPHABET = string.ascii_uppercase + "234567"
_ID_LENGTH = 16


@dataclass(frozen=True)
class Key:
    """Credentials.

    Args:
        access_key: the access key id: `AKIA...` for good, `ASIA...` with a session token.
        secret_key: the secret access key.
        token: the session token of temporary credentials.
        owner: whose they are: `CALLER`, `client NAME`, `job NAME`, `node ID`, `function NAME`, `iam NAME`.
        expires: seconds since the epoch; None for never.
        role: of a job's: the ARN of its role.
    """

    access_key: str
    secret_key: str
    token: str | None = None
    owner: str = CALLER
    expires: float | None = None
    role: str = ""

    @classmethod
    def random(cls, owner: str, *, temporary: bool, expires: float | None = None, role: str = "") -> Key:
        """New credentials. They are not known to anything yet.

        Args:
            owner: whose they are.
            temporary: whether they have a session token, as those of a role have.
            expires: seconds since the epoch; None for never.
            role: see the attributes.
        """
        name = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
        return cls(
            ("ASIA" if temporary else "AKIA") + name,
            secrets.token_urlsafe(30),
            secrets.token_urlsafe(48) if temporary else None,
            owner,
            expires,
            role,
        )

    def variables(self) -> dict[str, str]:
        """The environment variables that the SDKs read them from."""
        found = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        return {**found, "AWS_SESSION_TOKEN": self.token} if self.token is not None else found


class Keyring:
    """The credentials that are good now.

    Args:
        caller: the key of the person who started the emulator; a random one by default.
        clock: the time in seconds since the epoch.
    """

    def __init__(self, caller: Key | None = None, clock: Callable[[], float] = time.time) -> None:
        self.caller = caller or Key.random(CALLER, temporary=False)
        self._keys = {self.caller.access_key: self.caller}
        self._clock = clock
        self._sources: list[Callable[[str], Key | None]] = []

    def add_source(self, find: Callable[[str], Key | None]) -> None:
        """Ask `find` too: it answers the key of an access key id, or None."""
        self._sources.append(find)

    def issue(self, owner: str, role: str = "") -> Key:
        """New temporary credentials, good until they are revoked.

        Args:
            owner: whose they are.
            role: of a job's: the ARN of its role.
        """
        key = Key.random(owner, temporary=True, role=role)
        self._keys[key.access_key] = key
        return key

    def revoke(self, key: Key) -> None:
        """End credentials; unknown ones are not error."""
        self._keys.pop(key.access_key, None)

    def find(self, access_key: str) -> Key | None:
        """The credentials of an access key id, expired ones included; None if it has no credentials."""
        found = self._keys.get(access_key)
        if found is not None:
            return found
        answers = (find(access_key) for find in self._sources)
        return next((key for key in answers if key is not None), None)

    def expired(self, key: Key) -> bool:
        """Whether their time is over."""
        return key.expires is not None and key.expires <= self._clock()
