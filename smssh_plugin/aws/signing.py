"""Signature Version 4, as botocore.auth and the SDKs make it; a test holds the two equal.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qsl, quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Keys", "host_of", "signed"]

_ALGORITHM = "AWS4-HMAC-SHA256"
_UNSIGNED = frozenset({"user-agent", "connection", "content-length"})
_DEFAULT_PORTS = {"https": "443", "wss": "443", "http": "80", "ws": "80"}


class Keys(Protocol):
    """Credentials of a moment; botocore's ReadOnlyCredentials are such."""

    @property
    def access_key(self) -> str | None:
        """The access key id."""

    @property
    def secret_key(self) -> str | None:
        """The secret access key."""

    @property
    def token(self) -> str | None:
        """The session token; None for a user's own keys."""


def host_of(url: str) -> str:
    """The Host header of an address: without user, and without a port that is its scheme's own."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].lower()
    own = ":" + _DEFAULT_PORTS.get(parts.scheme, "")
    return host[: -len(own)] if host.endswith(own) else host  # noqa: FURB188 - containers have Python 3.8


def signed(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    keys: Keys,
    region: str,
    service: str,
    *,
    now: float | None = None,
) -> dict[str, str]:
    """The headers with the signature and what it covers added.

    Args:
        method: GET, POST, ...
        url: the address, its path percent-encoded as it is sent. The query is signed in canonical form, whatever
            form it is sent in (a `cell-number` ends in `==`), as the SDK for Go does.
        headers: sent with the request; all are signed but those that proxies may change.
        body: the request's.
        keys: the credentials.
        region: in the credential scope.
        service: the signing name, `ssm`, `sagemaker`, `ssmmessages`, `s3`, ...
        now: seconds since the epoch, instead of the clock.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    digest = hashlib.sha256(body).hexdigest()
    sent = {**headers, "Host": host_of(url), "X-Amz-Date": stamp}
    if keys.token:
        sent["X-Amz-Security-Token"] = keys.token
    parts = urlsplit(url)
    path = parts.path or "/"
    if service == "s3":
        sent["X-Amz-Content-SHA256"] = digest
    else:
        path = quote(path, safe="/~")  # encoded a second time, which S3 alone does without
    covered = sorted((name.lower(), " ".join(value.split())) for name, value in sent.items())
    covered = [(name, value) for name, value in covered if name not in _UNSIGNED]
    names = ";".join(name for name, _ in covered)
    request = "\n".join(
        [
            method,
            path,
            _query(parts.query),
            *(f"{name}:{value}" for name, value in covered),
            "",
            names,
            digest,
        ]
    )
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    text = "\n".join([_ALGORITHM, stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{keys.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    sent["Authorization"] = (
        f"{_ALGORITHM} Credential={keys.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return sent


def _query(query: str) -> str:
    pairs = (
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in parse_qsl(query, keep_blank_values=True)
    )
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))
