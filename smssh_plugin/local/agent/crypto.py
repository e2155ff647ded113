"""The encryption of a shell session with a KMS key, from the agent's side.

The client has KMS make a data key of 64 bytes for the session and hands over its ciphertext; the agent has it
decrypted with the node's own role. Half of it is for each direction: AES-256-GCM, the nonce of 12 bytes in
front (agent/session/crypto/blockcipher.go of the real agent).
"""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import TYPE_CHECKING, Any

from ...errors import SmsshError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["BlockCipher"]

_KEY_BYTES = 64
_NONCE_BYTES = 12


class BlockCipher:
    """The cipher of one session.

    Args:
        key_id: the KMS key.
        decrypt: calls kms:Decrypt with a ciphertext, an encryption context and a key id.
    """

    def __init__(self, key_id: str, decrypt: Callable[[bytes, dict[str, str], str], bytes]) -> None:
        self.key_id = key_id
        self.challenge = base64.b64encode(secrets.token_bytes(16)).decode()
        """Goes into the encryption context, where the client understands it."""
        self._decrypt = decrypt
        self._sealing: AESGCM | None = None
        self._opening: AESGCM | None = None
        # Counted up from a random start: a nonce must not come twice.
        self._nonce = secrets.randbits(8 * _NONCE_BYTES)

    def finish(self, result: Any, session_id: str, target: str) -> None:
        """Take the key that the client answered with.

        Args:
            result: the ActionResult of its KMSEncryption action.
            session_id: the session's id.
            target: the node's.

        Raises:
            SmsshError: there is no key, or KMS does not decrypt it for this session and node.
        """
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            blob = base64.b64decode(result["KMSCipherTextKey"], validate=True)
            acknowledged = bool(result.get("ChallengeAcknowledgement"))
        except (KeyError, TypeError, AttributeError, ValueError, binascii.Error) as error:
            raise SmsshError(f"the client sent no data key: {error!r}") from error
        context = {"aws:ssm:SessionId": session_id, "aws:ssm:TargetId": target}
        if acknowledged:
            context["aws:ssm:RandomChallenge"] = self.challenge
        key = self._decrypt(blob, context, self.key_id)
        if len(key) != _KEY_BYTES:
            raise SmsshError(f"Fetching data key failed: it has {len(key)} bytes, not {_KEY_BYTES}")
        self._sealing = AESGCM(key[: _KEY_BYTES // 2])
        self._opening = AESGCM(key[_KEY_BYTES // 2 :])

    def seal(self, plain: bytes) -> bytes:
        """Encrypt what goes to the client."""
        assert self._sealing is not None
        self._nonce = (self._nonce + 1) % (1 << 8 * _NONCE_BYTES)
        nonce = self._nonce.to_bytes(_NONCE_BYTES, "big")
        return nonce + self._sealing.encrypt(nonce, plain, None)

    def open(self, sealed: bytes) -> bytes:
        """Decrypt what came from the client.

        Raises:
            SmsshError: it was not sealed with this session's key.
        """
        from cryptography.exceptions import InvalidTag

        assert self._opening is not None
        try:
            return self._opening.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
        except (InvalidTag, ValueError) as error:
            raise SmsshError(f"Error decrypting encrypted text, {error!r}") from error
