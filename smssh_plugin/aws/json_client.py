"""What calls of AWS have in common on a laptop and in a container: keys, requests in JSON 1.1, and what answers mean.

How often a call is tried again is not: a person waits for the one, hundreds of hosts start at once with the other.
`http.client` and the rest of the network are imported by who calls. CPython 3.8 and later, standard library only.
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from .._version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http.client import HTTPConnection, HTTPResponse

    from .signing import Keys

__all__ = [
    "COMMERCIAL",
    "DENIED",
    "FRESH_SECONDS",
    "SKEWED",
    "SKEW_SECONDS",
    "STALE",
    "THROTTLED",
    "StaticKeys",
    "denied",
    "error_of",
    "json_request",
    "keys_of",
    "parsed",
    "send",
    "skew",
    "time_of",
]

COMMERCIAL = re.compile(r"(us|eu|ap|sa|ca|me|af|il|mx)-[a-z]+-\d+")
"""The regions of the commercial partition, whose addresses end in amazonaws.com."""
FRESH_SECONDS = 900.0
"""Credentials with less life left are fetched again, as botocore does."""

# Those of botocore's standard mode (botocore/retries/standard.py), and API_AddTagsToResource's.
THROTTLED = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TooManyUpdates",
        "TransactionInProgressException",
    }
)
DENIED = frozenset(
    {"403", "AccessDenied", "AccessDeniedException", "HTTP 403", "NotAuthorized", "UnauthorizedOperation"}
)
STALE = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
    }
)
"""The credentials are not valid, or not any more."""
SKEWED = frozenset(
    {
        "InvalidSignatureException",
        "RequestExpired",
        "RequestInTheFuture",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
"""The same, or the clock is wrong: see `skew`."""
SKEW_SECONDS = 240.0
"""From this difference on, the clock is to blame: AWS takes signatures that are up to 5 minutes off."""

# As IAM words it: IAM user guide, "Troubleshoot access denied error messages".
_ACTION = re.compile(r"not authorized to perform:? ([\w-]+:\w+)(?: on resource: \"?([^\s\"]+))?")
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:Z|UTC|\+00:?00)")


class StaticKeys(NamedTuple):
    """Credentials as they were read."""

    access_key: str
    secret_key: str
    token: str | None


def keys_of(environ: Mapping[str, str]) -> StaticKeys | None:
    """The credentials in variables, as botocore reads them; None if there are no credentials."""
    access, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if not access or not secret:
        return None
    token = environ.get("AWS_SESSION_TOKEN") or environ.get("AWS_SECURITY_TOKEN")
    return StaticKeys(access, secret, token or None)


def time_of(text: str) -> float:
    """Seconds since the epoch at `2026-01-02T03:04:05Z`, also with a fraction, and `+00:00` or `UTC` at its end.

    Raises:
        ValueError: another form.
    """
    import calendar

    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return float(calendar.timegm((*map(int, found.groups()), 0, 0, 0)))


def json_request(target: str, operation: str, parameters: Mapping[str, Any]) -> tuple[dict[str, str], bytes]:
    """The headers and the body of a call.

    Args:
        target: the service's prefix in X-Amz-Target, for instance AmazonSSM.
        operation: for instance CreateActivation.
        parameters: its parameters.
    """
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"{target}.{operation}"}
    return headers, json.dumps(parameters, separators=(",", ":")).encode()


def send(
    connection: HTTPConnection,
    base: str,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    keys: Keys,
    region: str,
    signing: str,
) -> HTTPResponse:
    """Sign a request and send it; the answer's body has not been read.

    Args:
        connection: to the host of `base`.
        base: the endpoint, without a slash at its end.
        method: of HTTP.
        path: behind the endpoint's own, percent-encoded.
        headers: all but those that signing adds.
        body: the request's.
        keys: the credentials.
        region: for the signature.
        signing: the service's name in signatures.

    Raises:
        OSError, http.client.HTTPException: nobody answered.
    """
    from .signing import signed

    sent = signed(method, base + path, headers, body, keys, region, signing)
    sent["User-Agent"] = f"smssh-plugin/{__version__}"
    connection.request(method, urlsplit(base).path + path, body or None, sent)
    return connection.getresponse()


def parsed(data: bytes) -> dict[str, Any]:
    """The JSON object of an answer; empty if the answer has no object."""
    try:
        found = json.loads(data or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def error_of(status: int, answer: Mapping[str, Any]) -> tuple[str, str]:
    """The code and the message of an answer that is an error."""
    code = str(answer.get("__type") or answer.get("code") or f"HTTP {status}")
    return code.rpartition("#")[2].partition(":")[0], str(
        answer.get("message") or answer.get("Message") or ""
    )


def denied(message: str) -> tuple[str, str] | None:
    """The action and the resource ("" where it names none) that a message of AccessDenied is about."""
    found = _ACTION.search(message)
    return (found.group(1), (found.group(2) or "").rstrip(".,")) if found else None


def skew(date: str) -> float:
    """Seconds that this machine's clock is ahead of the service's, by the Date header of an answer; 0 without one."""
    import calendar
    from email.utils import parsedate

    found = parsedate(date)
    return time.time() - calendar.timegm(found) if found else 0.0
