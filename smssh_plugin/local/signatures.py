"""Signatures of AWS requests, verified as the services verify them.

Served: Signature Version 4 in the Authorization header and in the query (presigned addresses), with a payload that
is signed, unsigned, or signed chunk by chunk; and version 2 in the query, which botocore still makes for presigned
S3 addresses of endpoints such as ours. This is written against the documentation, not with the signers of botocore
or of this package: a mistake that both ends share is found by nobody.

Facts: IAM user guide, "Create a signed AWS API request"; Amazon S3 API reference, "Authenticating Requests (AWS
Signature Version 4)", "... Using Query Parameters", "Signature Calculations for the Authorization Header:
Transferring Payload in Multiple Chunks"; Amazon S3 user guide, "Signing and authenticating REST requests (AWS
signature version 2)".
"""

from __future__ import annotations

import base64
import binascii
import calendar
import email.utils
import hashlib
import hmac
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, unquote_plus

from .service_error import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .keyring import Key, Keyring

__all__ = [
    "ALGORITHM",
    "SKEW",
    "Chunks",
    "Claim",
    "Digest",
    "Request",
    "canonical",
    "check_time",
    "find_key",
    "payload_of",
    "verify",
]

SKEW = 900.0
"""Seconds that a client's clock may be off."""
_LONGEST = 7 * 86400
"""Seconds that a presigned address may be good for."""
ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
_UNSIGNED_CHUNKS = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_SIGNED_CHUNKS = ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER")
_EMPTY = hashlib.sha256(b"").hexdigest()
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256\s+Credential=([^,\s]+),\s*SignedHeaders=([^,\s]+),\s*Signature=(\S+)"
)
_SCOPE = re.compile(r"([^/]+)/([0-9]{8})/([^/]+)/([^/]+)/aws4_request")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_STAMP = "%Y%m%dT%H%M%SZ"
_CHUNK_HEADER_MAX = 1024
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,16});chunk-signature=([0-9a-f]{64})")
_V2_RESOURCES = re.compile(
    "accelerate|acl|analytics|cors|defaultObjectAcl|delete|inventory|lifecycle|location|logging|metrics|notification"
    "|object-lock|partNumber|policy|replication|requestPayment|response-cache-control|response-content-disposition"
    "|response-content-encoding|response-content-language|response-content-type|response-expires|restore|select"
    "|select-type|storageClass|tagging|torrent|uploadId|uploads|versionId|versioning|versions|website"
)
"""Parameters that version 2 covers; it covers no others."""


@dataclass(frozen=True)
class Request:
    """What a signature can cover.

    Args:
        method: GET, POST, ...
        target: path and query as they stand in the request line.
        headers: by name, in whatever case; a name may come several times.
    """

    method: str
    target: str
    headers: Mapping[str, str]

    @property
    def path(self) -> str:
        """The path as it was sent."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """The query as it was sent."""
        return self.target.partition("?")[2]

    def header(self, name: str) -> str | None:
        """A header's value in canonical form, several of one name joined; None if it is not there."""
        wanted = name.lower()
        found = [" ".join(value.split()) for key, value in self.headers.items() if key.lower() == wanted]
        return ",".join(found) if found else None

    def parameters(self) -> dict[str, str]:
        """The query's parameters, decoded; of several of one name, the first."""
        found: dict[str, str] = {}
        for name, value in parse_qsl(self.query, keep_blank_values=True):
            found.setdefault(name, value)
        return found


@dataclass(frozen=True)
class Claim:
    """What a request says of its signature. Nothing of it is verified.

    Args:
        access_key: the access key id.
        signature: the signature.
        token: the session token.
        service: the service in the scope.
        scope: `DATE/REGION/SERVICE/aws4_request`; empty for version 2.
        names: the headers that are covered, in lower case.
        stamp: the time of signing, `20261130T120000Z`; empty for version 2.
        expires: of a presigned address: seconds that it is good for, for version 2 the moment when it ends.
    """

    access_key: str
    signature: str
    token: str | None
    service: str
    scope: str = ""
    names: tuple[str, ...] = ()
    stamp: str = ""
    expires: int | None = None

    @classmethod
    def of(cls, request: Request) -> Claim | None:
        """Read it; None for a request without a signature.

        Raises:
            ServiceError: a signature that cannot be read, or of a kind that is not served.
        """
        header = request.header("Authorization")
        if header is not None:
            return cls._of_header(request, header)
        parameters = request.parameters()
        if "X-Amz-Signature" in parameters or "X-Amz-Algorithm" in parameters:
            return cls._of_query(parameters)
        if "AWSAccessKeyId" in parameters and "Signature" in parameters:
            token = parameters.get("x-amz-security-token") or request.header("x-amz-security-token")
            return cls(
                parameters["AWSAccessKeyId"],
                parameters["Signature"],
                token,
                "s3",
                expires=_number(parameters.get("Expires", "")),
            )
        return None

    @classmethod
    def _of_header(cls, request: Request, header: str) -> Claim:
        found = _AUTHORIZATION.fullmatch(header)
        if found is None:
            kind = header.partition(" ")[0][:40]
            raise _malformed(f"smssh local reads Authorization headers of {ALGORITHM} only, not of {kind!r}.")
        access_key, scope, service = _scope(found[1])
        stamp = request.header("x-amz-date")
        if stamp is None:
            # As RFC 9110 writes it, for clients that sign `Date`.
            moment = email.utils.parsedate_tz(request.header("Date") or "")
            if moment is None:
                raise _malformed("The request has neither X-Amz-Date nor Date.")
            stamp = time.strftime(_STAMP, time.gmtime(email.utils.mktime_tz(moment)))
        return cls(
            access_key,
            found[3],
            request.header("x-amz-security-token"),
            service,
            scope,
            tuple(found[2].lower().split(";")),
            stamp,
        )

    @classmethod
    def _of_query(cls, parameters: dict[str, str]) -> Claim:
        missing = [
            name
            for name in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")
            if f"X-Amz-{name}" not in parameters
        ]
        if missing:
            raise _malformed(f"The query has no X-Amz-{missing[0]}.")
        if parameters["X-Amz-Algorithm"] != ALGORITHM:
            raise _malformed(f"smssh local reads X-Amz-Algorithm={ALGORITHM} only.")
        access_key, scope, service = _scope(parameters["X-Amz-Credential"])
        return cls(
            access_key,
            parameters["X-Amz-Signature"],
            parameters.get("X-Amz-Security-Token"),
            service,
            scope,
            tuple(parameters["X-Amz-SignedHeaders"].lower().split(";")),
            parameters["X-Amz-Date"],
            _number(parameters["X-Amz-Expires"]),
        )


class Digest:
    """Checks a payload that is covered as a whole.

    Args:
        expected: its SHA-256, in hex; None for one that is not covered.
    """

    def __init__(self, expected: str | None) -> None:
        self._expected = expected
        self._seen = hashlib.sha256()

    def feed(self, data: bytes) -> None:
        """Take a part of the payload."""
        if self._expected is not None:
            self._seen.update(data)

    def finish(self) -> None:
        """Take its end.

        Raises:
            ServiceError: it is not the payload that was signed.
        """
        if self._expected is not None and self._seen.hexdigest() != self._expected:
            raise ServiceError(
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
            )


class Chunks(Digest):
    """Checks a payload whose chunks are signed one by one, each over the one before it.

    Args:
        claim: the request's signature, which the first chunk continues.
        secret_key: of its key.
    """

    def __init__(self, claim: Claim, secret_key: str) -> None:
        super().__init__(None)
        self._key = _signing_key(secret_key, claim.scope)
        self._head = f"{claim.stamp}\n{claim.scope}"
        self._before = claim.signature
        self._rest = b""
        self._chunk = hashlib.sha256()
        self._left = 0
        self._signature = ""
        self._state = "header"
        self._trailer = b""

    def feed(self, data: bytes) -> None:
        """Take a part of the payload.

        Raises:
            ServiceError: a chunk is not what was signed.
        """
        self._rest += data
        while self._rest and self._step():
            pass

    def _step(self) -> bool:
        """Take what can be taken; False where more has to come first."""
        if self._state == "data":
            part, self._rest = self._rest[: self._left], self._rest[self._left :]
            self._chunk.update(part)
            self._left -= len(part)
            if not self._left:
                self._verify_chunk()
                self._state = "end"
            return bool(self._rest)
        if self._state == "trailer":
            self._trailer += self._rest
            self._rest = b""
            if len(self._trailer) > 16 * _CHUNK_HEADER_MAX:
                raise _mismatch()
            return False
        if self._state == "end" and not self._rest.startswith(b"\r\n"[: len(self._rest)]):
            raise _mismatch()
        line, found, rest = self._rest.partition(b"\r\n")
        if not found:
            if len(line) > _CHUNK_HEADER_MAX:
                raise _mismatch()
            return False
        self._rest = rest
        if self._state == "end":
            self._state = "header"
            return True
        header = _CHUNK.fullmatch(line)
        if header is None:
            raise _mismatch()
        self._left, self._signature = int(header[1], 16), header[2].decode()
        self._chunk = hashlib.sha256()
        self._state = "data"
        if not self._left:
            self._verify_chunk()
            self._state = "trailer"
        return True

    def _verify_chunk(self) -> None:
        text = f"{ALGORITHM}-PAYLOAD\n{self._head}\n{self._before}\n{_EMPTY}\n{self._chunk.hexdigest()}"
        self._check(text, self._signature)

    def _check(self, text: str, signature: str) -> None:
        made = hmac.new(self._key, text.encode(), "sha256").hexdigest()
        if not hmac.compare_digest(made, signature):
            raise _mismatch()
        self._before = made

    def finish(self) -> None:
        """Take its end.

        Raises:
            ServiceError: it ends before its last chunk, or with a trailer that is not what was signed.
        """
        if self._state != "trailer":
            raise _mismatch()
        lines = [line for line in self._trailer.split(b"\r\n") if line]
        if not lines:
            return
        name, _, signature = lines[-1].partition(b":")
        if name != b"x-amz-trailer-signature":
            raise _mismatch()
        covered = hashlib.sha256(b"".join(line + b"\n" for line in lines[:-1])).hexdigest()
        text = f"{ALGORITHM}-TRAILER\n{self._head}\n{self._before}\n{covered}"
        self._check(text, signature.decode("ascii", "replace").strip())


def payload_of(request: Request, claim: Claim, key: Key) -> tuple[str | None, Digest]:
    """What a request says of its payload, in its signature, and what checks that.

    Returns:
        The words for the payload in the canonical request, None where they are the SHA-256 of the whole payload,
        which has to be read first; and what checks the payload as it comes.

    Raises:
        ServiceError: it says nothing, and has to; or something that is not served.
    """
    said = request.header("x-amz-content-sha256")
    if claim.expires is not None and said is None:
        return (UNSIGNED, Digest(None)) if claim.service == "s3" else (None, Digest(None))
    if said is None:
        if claim.service == "s3":
            raise ServiceError(
                "InvalidRequest", "Missing required header for this request: x-amz-content-sha256"
            )
        return None, Digest(None)
    if said in (UNSIGNED, _UNSIGNED_CHUNKS):
        return said, Digest(None)
    if said in _SIGNED_CHUNKS:
        return said, Chunks(claim, key.secret_key)
    if _DIGEST.fullmatch(said):
        return said, Digest(said)
    raise ServiceError("InvalidRequest", f"smssh local does not know x-amz-content-sha256: {said[:80]}")


def find_key(claim: Claim, keyring: Keyring) -> Key:
    """The key that a claim names, with its session token.

    Raises:
        ServiceError: there is no such key, its time is over, or the token is another.
    """
    key = keyring.find(claim.access_key)
    if key is None:
        raise ServiceError(
            _of(claim, "InvalidAccessKeyId", "UnrecognizedClientException"),
            "The security token included in the request is invalid: smssh local has other credentials at each start. "
            'Run eval "$(smssh local up)" again.',
            403,
        )
    if not hmac.compare_digest((key.token or "").encode(), (claim.token or "").encode()):
        raise ServiceError(
            _of(claim, "InvalidToken", "UnrecognizedClientException"),
            "The security token included in the request is invalid.",
            403,
        )
    if keyring.expired(key):
        raise ServiceError(
            _of(claim, "ExpiredToken", "ExpiredTokenException"),
            "The security token included in the request is expired",
            403,
        )
    return key


def check_time(claim: Claim, now: float) -> None:
    """See that a request was signed now, or that a presigned address is still good.

    Args:
        claim: the request's.
        now: seconds since the epoch.

    Raises:
        ServiceError: it is not.
    """
    if not claim.scope:
        if claim.expires is None or now > claim.expires:
            raise ServiceError("AccessDenied", "Request has expired", 403)
        return
    try:
        signed = calendar.timegm(time.strptime(claim.stamp, _STAMP))
    except ValueError:
        raise _malformed(f"{claim.stamp[:40]!r} is not a time as 20261130T120000Z.") from None
    if not claim.scope.startswith(claim.stamp[:8] + "/"):
        raise _malformed("The date in the credential scope is not that of the request.")
    if claim.expires is not None:
        if not 1 <= claim.expires <= _LONGEST:
            raise ServiceError("AuthorizationQueryParametersError", "X-Amz-Expires is 1 to 604800 seconds.")
        if not signed - SKEW <= now <= signed + claim.expires:
            raise ServiceError("AccessDenied", "Request has expired, or is not good yet", 403)
    elif abs(now - signed) > SKEW:
        raise ServiceError(
            _of(claim, "RequestTimeTooSkewed", "InvalidSignatureException"),
            "Signature expired: the difference between the request time and the current time is too large.",
            403,
        )


def verify(request: Request, claim: Claim, key: Key, payload: str) -> None:
    """See that a request was signed with a key.

    Args:
        request: the request.
        claim: what it says of its signature.
        key: the key that it names.
        payload: the words for the payload; see `payload_of`.

    Raises:
        ServiceError: it was not, or the signature leaves out what it has to cover.
    """
    if not claim.scope:
        _verify_old(request, claim, key)
        return
    _check_covered(request, claim)
    digest = hashlib.sha256(
        canonical(request, claim.names, payload, encode_again=claim.service != "s3").encode()
    ).hexdigest()
    text = f"{ALGORITHM}\n{claim.stamp}\n{claim.scope}\n{digest}"
    made = hmac.new(_signing_key(key.secret_key, claim.scope), text.encode(), "sha256").hexdigest()
    if not hmac.compare_digest(made, claim.signature):
        raise _wrong(claim)


def _check_covered(request: Request, claim: Claim) -> None:
    """See that Host and what AWS acts on is covered.

    Raises:
        ServiceError: it is not.
    """
    needed = {"host", *(name.lower() for name in request.headers if name.lower().startswith("x-amz-"))}
    if claim.expires is not None:
        needed.discard("x-amz-content-sha256")
    missing = sorted(needed - set(claim.names))
    if missing:
        text = f"There were headers present in the request which were not signed: {', '.join(missing)}"
        raise ServiceError(_of(claim, "AccessDenied", "InvalidSignatureException"), text, 403)


def canonical(request: Request, names: Iterable[str], payload: str, *, encode_again: bool) -> str:
    """The canonical request.

    Args:
        request: the request.
        names: the headers that are covered, in the order of the signature.
        payload: the words for the payload.
        encode_again: whether the path is normalised and encoded a second time, which all services but S3 want.
    """
    path = request.path or "/"
    if encode_again:
        path = quote(_normal(path), safe="/~")
    pairs = []
    for pair in filter(None, request.query.split("&")):
        name, _, value = pair.partition("=")
        if name != "X-Amz-Signature":
            pairs.append((quote(unquote(name), safe="-_.~"), quote(unquote(value), safe="-_.~")))
    return "\n".join(
        (
            request.method,
            path,
            "&".join(f"{name}={value}" for name, value in sorted(pairs)),
            *(f"{name}:{request.header(name) or ''}" for name in names),
            "",
            ";".join(names),
            payload,
        )
    )


def _normal(path: str) -> str:
    """A path without `.`, `..` and double slashes (RFC 3986, 5.2.4)."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    end = "/" if parts and path.endswith(("/", "/.", "/..")) else ""
    return "/" + "/".join(parts) + end


def _verify_old(request: Request, claim: Claim, key: Key) -> None:
    """Version 2, in a presigned address of S3.

    Raises:
        ServiceError: it was not made with this key.
    """
    parameters = request.parameters()

    def said(name: str) -> str:
        # botocore moves headers that were signed into the query.
        return parameters.get(name) or request.header(name) or ""

    amz = {name.lower() for name in (*parameters, *request.headers) if name.lower().startswith("x-amz-")}
    resources = []
    for pair in filter(None, request.query.split("&")):
        name, equals, value = pair.partition("=")
        if _V2_RESOURCES.fullmatch(name):
            resources.append((name, equals + unquote_plus(value)))
    host = (request.header("host") or "").lower()
    found = re.fullmatch(r"([a-z0-9.-]+)\.s3[.-][a-z0-9.-]*amazonaws\.com(?:\.cn)?(?::[0-9]+)?", host)
    resource = (f"/{found[1]}" if found else "") + request.path
    if resources:
        resource += "?" + "&".join(name + value for name, value in sorted(resources))
    lines = [
        request.method,
        said("content-md5"),
        said("content-type"),
        parameters["Expires"],
        *(f"{name}:{said(name)}" for name in sorted(amz)),
        resource,
    ]
    made = hmac.new(key.secret_key.encode(), "\n".join(lines).encode(), "sha1").digest()
    try:
        given = base64.b64decode(claim.signature, validate=True)
    except (ValueError, binascii.Error):
        given = b""
    if not hmac.compare_digest(made, given):
        raise _wrong(claim)


def _signing_key(secret_key: str, scope: str) -> bytes:
    key = f"AWS4{secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), "sha256").digest()
    return key


def _scope(credential: str) -> tuple[str, str, str]:
    """A credential's access key id, scope and service.

    Raises:
        ServiceError: it is not a credential.
    """
    found = _SCOPE.fullmatch(credential)
    if found is None:
        raise _malformed(f"{credential[:80]!r} is not a credential as KEY/DATE/REGION/SERVICE/aws4_request.")
    return found[1], credential.partition("/")[2], found[4]


def _number(text: str) -> int:
    """A number of seconds.

    Raises:
        ServiceError: it is not a number.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise ServiceError("AuthorizationQueryParametersError", f"{text[:40]!r} is not a number of seconds.")
    return int(text)


def _of(claim: Claim, s3: str, others: str) -> str:
    return s3 if claim.service == "s3" else others


def _malformed(why: str) -> ServiceError:
    return ServiceError("IncompleteSignature", why, 403)


def _mismatch() -> ServiceError:
    return ServiceError("SignatureDoesNotMatch", "A chunk of the payload does not match its signature.", 403)


def _wrong(claim: Claim) -> ServiceError:
    return ServiceError(
        _of(claim, "SignatureDoesNotMatch", "InvalidSignatureException"),
        "The request signature we calculated does not match the signature you provided.",
        403,
    )
