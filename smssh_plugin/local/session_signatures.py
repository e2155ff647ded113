"""The signature by which a managed node proves who it is: SigV4 that ends in RSA.

A registered node has no secret key but an RSA key, whose public half the service knows. Instead of an HMAC in
hex, the signature is RSASSA-PSS over SHA-256 of the string to sign, in base64 (agent/ssm/rsaauth of the real
agent). The rest is AWS's Signature Version 4 (IAM user guide, "Create a signed AWS API request").
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SignedRequest", "signed_by"]

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/,\s]+)/([^,\s]+),\s*SignedHeaders=([^,\s]+),\s*Signature=(\S+)"
)


class SignedRequest(NamedTuple):
    """What a signature covers. The query is as it stands in the request line."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


def signed_by(request: SignedRequest, public_key: str) -> bool:
    """Whether a request is signed with the private half of a key.

    Args:
        request: the request.
        public_key: RSA, DER, in base64, as RegisterManagedInstance has it.
    """
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    found = _AUTHORIZATION.match(request.headers.get("Authorization", ""))
    if found is None:
        return False
    _, scope, names, signature = found.groups()
    try:
        key = load_der_public_key(base64.b64decode(public_key, validate=True))
        proof = base64.b64decode(signature, validate=True)
        if not isinstance(key, RSAPublicKey):
            return False
        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)
        key.verify(proof, _string_to_sign(request, scope, names), scheme, hashes.SHA256())
    except (ValueError, binascii.Error, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _string_to_sign(request: SignedRequest, scope: str, names: str) -> bytes:
    lines = [
        f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in names.lower().split(";")
    ]
    canonical = "\n".join(
        (
            request.method,
            request.path or "/",
            "&".join(sorted(filter(None, request.query.split("&")))),
            "".join(lines),
            names.lower(),
            hashlib.sha256(request.body).hexdigest(),
        )
    )
    date = request.headers.get("X-Amz-Date", "")
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    return f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{digest}".encode()
