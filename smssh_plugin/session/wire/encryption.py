"""Encryption of a session with a data key of KMS, where the account's preferences ask for it.

As session-manager-plugin does it (`src/encryption/encrypter.go`): a key of 64 bytes, the first half for what the
agent sends and the second for what we send; AES-256-GCM with a nonce of 12 bytes in front of each message.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from ...errors import ExitStatus, SmsshError
from .frames import FrameError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["KEY_BYTES", "DataKey", "Encryption"]

KEY_BYTES = 64
_NONCE = 12


class DataKey(NamedTuple):
    """What KMS's GenerateDataKey answers: the key, and the same encrypted, which goes to the agent."""

    plain: bytes
    encrypted: bytes


class Encryption:
    """Both directions of one session.

    Args:
        key: `KEY_BYTES` long.

    Raises:
        SmsshError: the library for it is not installed, or the key is of another length.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise SmsshError(
                f"KMS gave a data key of {len(key)} bytes instead of {KEY_BYTES}",
                reference="session-encryption",
                status=ExitStatus.UNREACHABLE,
            )
        self._theirs = _cipher(key[: KEY_BYTES // 2])
        self._ours = _cipher(key[KEY_BYTES // 2 :])

    def encrypt(self, data: bytes) -> bytes:
        """What we send."""
        nonce = os.urandom(_NONCE)
        return nonce + self._ours.encrypt(nonce, data, None)

    def decrypt(self, data: bytes) -> bytes:
        """What the agent sent.

        Raises:
            FrameError: it was not encrypted with this session's key.
        """
        from cryptography.exceptions import InvalidTag

        try:
            return self._theirs.decrypt(data[:_NONCE], data[_NONCE:], None)
        except (InvalidTag, ValueError):
            raise FrameError("a message is not encrypted with the session's key") from None


def _cipher(key: bytes) -> AESGCM:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise SmsshError(
            "this account encrypts sessions with a KMS key, for which the package cryptography is needed",
            hint='install it: pip install "smssh-plugin[cli]"',
            reference="session-encryption",
            status=ExitStatus.UNREACHABLE,
        ) from error
    return AESGCM(key)
