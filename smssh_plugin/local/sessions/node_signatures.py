"""The signature by which a managed node proves who it is: SigV4 that ends in RSA.

A registered node has no secret key but an RSA key, whose public half the service knows. Instead of an HMAC in
hex, the signature is RSASSA-PSS over SHA-256 of the string to sign, in base64 (agent/ssm/rsaauth of the real
agent). The rest is AWS's Signature Version 4.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from typing import NamedTuple

from ..service_error import ServiceError
from ..signatures import ALGORITHM, Claim, Request, canonical, check_time

__all__ = ["SignedRequest", "signed_by"]


class SignedRequest(NamedTuple):
    """A request with its whole body."""

    request: Request
    body: bytes


def signed_by(signed: SignedRequest, public_key: str) -> bool:
    """Whether a request is signed, now, with the private half of a key.

    Args:
        signed: the request.
        public_key: RSA, DER, in base64, as RegisterManagedInstance has it.
    """
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        claim = Claim.of(signed.request)
        if claim is None:
            return False
        check_time(claim, time.time())
        key = load_der_public_key(base64.b64decode(public_key, validate=True))
        proof = base64.b64decode(claim.signature, validate=True)
        if not isinstance(key, RSAPublicKey):
            return False
        digest = hashlib.sha256(signed.body).hexdigest()
        text = canonical(signed.request, claim.names, digest, encode_again=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)
        words = f"{ALGORITHM}\n{claim.stamp}\n{claim.scope}\n{digest}".encode()
        key.verify(proof, words, scheme, hashes.SHA256())
    except (ServiceError, ValueError, binascii.Error, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
