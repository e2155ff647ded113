"""API calls, and their errors in words a person can act on.

By hand, with botocore for the configuration only: a login pays for every import, and most of it would be botocore's
clients and their models.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import re
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from ..durations import format_duration
from ..errors import ExitStatus, SmsshError
from . import transport
from .credentials import CredentialChain
from .endpoints import SERVICES, endpoint, named_endpoint
from .json_client import (
    DENIED,
    SKEW_SECONDS,
    SKEWED,
    STALE,
    THROTTLED,
    denied,
    error_of,
    json_request,
    parsed,
    send,
    skew,
)
from .profile import Profile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .signing import Keys

__all__ = ["AwsSession", "ServiceRefused"]

CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
IDLE_SECONDS = 15.0
"""A connection that was kept longer is not used again: what is at its other end may be gone, without a word."""
ATTEMPTS = 4
"""Of each call, where neither AWS_MAX_ATTEMPTS nor the profile says another number."""
LONGEST_PAUSE = 20.0
_TRANSIENT = frozenset({"RequestTimeout", "RequestTimeoutException", "InternalServerError"})
_TRANSIENT_STATUS = frozenset({500, 502, 503, 504})
# These two are those of botocore's standard mode, as well (see `json_client.THROTTLED`).
_CHECKED = {
    "DescribeInstanceInformation": "permissions.find-hosts",
    "ListTagsForResource": "permissions.read-hosts",
    "StartSession": "permissions.start-session permissions.use-document",
    "TerminateSession": "permissions.end-session",
    "ResumeSession": "permissions.resume-session",
    "DescribeTrainingJob": "permissions.describe-training",
    "DescribeProcessingJob": "permissions.describe-processing",
    "DescribeTransformJob": "permissions.describe-transform",
    "ListPipelineExecutions": "permissions.list-executions",
}
"""The checks of the permission for an operation."""


class ServiceRefused(SmsshError):  # noqa: N818 - what the service said, not what went wrong here
    """AWS answered a call with an error that is neither a matter of access nor of the network.

    Attributes:
        code: the service's error code, for instance `ValidationException`.
    """

    reference = "aws-error"

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class AwsSession:
    """API calls in one region, with one profile's credentials; for any number of threads.

    Args:
        region: the AWS region; by default AWS_REGION, AWS_DEFAULT_REGION or the profile's.
        profile: the profile of the shared configuration; by default AWS_PROFILE.
    """

    def __init__(self, region: str | None = None, profile: str | None = None) -> None:
        self._named = (region, profile)
        self.documents: dict[str, str] = {}
        """Session documents that the caller names, by what they are for; see `document`."""
        self._lock = threading.RLock()
        self._loaded: Profile | None = None
        self._chain: CredentialChain | None = None
        self._idle: dict[str, list[tuple[float, http.client.HTTPConnection]]] = {}

    @property
    def profile(self) -> Profile:
        """The profile, read when it is first needed.

        Raises:
            SmsshError: there is no such profile, or its files cannot be read.
        """
        with self._lock:
            if self._loaded is None:
                self._loaded = Profile(self._named[1])
            return self._loaded

    @property
    def region(self) -> str:
        """The region all calls go to.

        Raises:
            SmsshError: none is configured.
        """
        found, _ = self._region()
        return found

    @property
    def region_origin(self) -> str:
        """Where the region is from, for messages: `--region`, the name of a variable, or `profile NAME`."""
        return self._region()[1]

    def _region(self) -> tuple[str, str]:
        # AWS_REGION is what containers and the newer SDKs set; botocore itself reads AWS_DEFAULT_REGION only.
        places = (
            (self._named[0], "--region"),
            (os.environ.get("AWS_REGION"), "AWS_REGION"),
            (os.environ.get("AWS_DEFAULT_REGION"), "AWS_DEFAULT_REGION"),
        )
        for found, origin in places:
            if found:
                return found, origin
        configured = self.profile.get("region")
        if configured:
            return configured, f"profile {self.profile.name}"
        raise SmsshError(
            "no AWS region is configured",
            hint="set AWS_REGION, run `aws configure set region REGION`, or pass --region",
            reference="no-region",
            status=ExitStatus.USAGE,
            check="laptop.region",
        )

    @property
    def ca_bundle(self) -> str | None:
        """The PEM file of the trusted certificate authorities, where one is configured."""
        return os.environ.get("AWS_CA_BUNDLE") or self.profile.get("ca_bundle")

    def endpoint(self, service: str) -> str:
        """The address of a service.

        Raises:
            SmsshError: no region, no such profile, or an endpoint variable that is not a URL.
        """
        return endpoint(service, self.region, self.profile)

    def document(self, use: str, public: str) -> str:
        """The session document for a use: named by the caller, by SMSSH_<USE>_DOCUMENT or by the profile.

        Args:
            use: ssh, port, remote_port, command or shell.
            public: Amazon's, which is used where none is named.
        """
        key = f"smssh_{use}_document"
        return self.documents.get(use) or os.environ.get(key.upper()) or self.profile.get(key) or public

    def stream_url(self, url: str) -> str:
        """The address of a session's stream, at the endpoint that is configured for ssmmessages, if any.

        Where a VPC endpoint has no private DNS, the name that the service answers does not lead to it. What is
        configured for all services is not meant.

        Raises:
            SmsshError: what is configured is not a URL.
        """
        found = named_endpoint("ssmmessages", self.profile)
        if found is None:
            return url
        parts = urlsplit(found)
        scheme = "ws" if parts.scheme == "http" else "wss"
        return urlsplit(url)._replace(scheme=scheme, netloc=parts.netloc).geturl()

    def credentials(self) -> Keys | None:
        """The current credentials, for signing what is not an API call; None if there are no credentials.

        Raises:
            SmsshError: there should be some, but they cannot be obtained.
        """
        with self._lock:
            if self._chain is None:
                self._chain = CredentialChain(self.profile, self.region)
            return self._chain.keys()

    def _read_again(self) -> bool:
        """Read the configuration files again, for what renews the keys in them; whether there are other keys now."""
        with self._lock:
            if self._chain is None or not self._chain.static:
                return False  # the others are asked for anew whenever they are needed
            profile = Profile(self._named[1])
            chain = CredentialChain(profile, self.region)
            if chain.keys() == self._chain.keys():
                return False
            self._loaded, self._chain = profile, chain
            return True

    def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """Make one API call; throttling, trouble of the service and cut connections are tried again.

        Args:
            service: ssm, sagemaker or logs.
            operation: the Python name, as `describe_training_job`.
            arguments: its parameters, as JSON has them.

        Returns:
            The answer as the service's JSON: times are seconds since the epoch.

        Raises:
            ServiceRefused: the service answered with an error of its own; `code` tells which.
            SmsshError: no credentials, access denied, or no way to the endpoint.
        """
        return self._call(service, operation, arguments, self._attempts())

    def call_once(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """Make one API call as `call` does, for callers that try again themselves, or cannot wait."""
        return self._call(service, operation, arguments, 1)

    def _call(self, service: str, operation: str, arguments: dict[str, Any], attempts: int) -> dict[str, Any]:
        name = "".join(part.capitalize() for part in operation.split("_"))
        headers, body = json_request(SERVICES[service].target, name, arguments)
        status, answer, date = self._request(service, "POST", "/", headers, body, name, attempts)
        found = parsed(answer)
        if status != 200:
            refused = self.refused(service, name, error_of(status, found), date)
            refused.passing = bool(_worth_another(status, answer))
            if refused.reference == "stale-credentials" and self._read_again():
                return self._call(service, operation, arguments, attempts)
            raise refused
        return found

    def pages(self, service: str, operation: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """The answers of a listing call, page by page, following NextToken."""
        while True:
            answer = self.call(service, operation, **arguments)
            yield answer
            token = answer.get("NextToken")
            if not token:
                return
            arguments["NextToken"] = token

    def get_object(self, bucket: str, key: str, owner: str = "") -> bytes | None:
        """The content of an object in S3; None if there is no object.

        Args:
            bucket: the bucket.
            key: the object's key.
            owner: the account id that the bucket must belong to: S3 denies access if it is another's; "" lets it be
                anybody's.

        Raises:
            ServiceRefused: the service answered with an error of its own.
            SmsshError: no credentials, access denied, or no way to the endpoint.
        """
        # With the bucket in the path, which works for names with dots as well.
        path = f"/{bucket}/{quote(key, safe='/-_.~')}"
        headers = {"x-amz-expected-bucket-owner": owner} if owner else {}
        status, answer, date = self._request("s3", "GET", path, headers, b"", "GetObject", self._attempts())
        if status == 200:
            return answer
        found = dict(re.findall(r"<(Code|Message)>([^<]*)</", answer.decode("utf-8", "replace")))
        code = found.get("Code") or {403: "AccessDenied", 404: "NoSuchKey"}.get(status, str(status))
        if code == "NoSuchKey":
            return None
        raise self.refused("s3", "GetObject", (code, found.get("Message", "")), date)

    # ------------------------------------------------------------------------------------------- one request

    def _request(
        self,
        service: str,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        name: str,
        attempts: int,
    ) -> tuple[int, bytes, str]:
        """Send it, again where that may help: the last status, body and Date header.

        Raises:
            SmsshError: no credentials, or no answer.
        """
        base = self.endpoint(service)
        for attempt in range(1, attempts + 1):
            request = (
                method,
                path,
                headers,
                body,
                self.required_keys(),
                self.region,
                SERVICES[service].signing,
            )
            try:
                status, answer, date = self._exchange(base, request)
            except (OSError, http.client.HTTPException) as error:
                if attempt == attempts or isinstance(error, transport.SetupError):
                    raise self.unreachable(base, error) from error
                scale = 0.05
            else:
                if attempt == attempts or not (scale := _worth_another(status, answer)):
                    return status, answer, date
            time.sleep(min(random.random() * scale * 2**attempt, LONGEST_PAUSE))  # noqa: S311 - no secret
        raise AssertionError(name)

    def _attempts(self) -> int:
        configured = os.environ.get("AWS_MAX_ATTEMPTS") or self.profile.get("max_attempts") or ""
        return max(1, int(configured)) if re.fullmatch("[0-9]{1,9}", configured) else ATTEMPTS

    def required_keys(self) -> Keys:
        """The credentials of now.

        Raises:
            SmsshError: there are no credentials, or they cannot be obtained.
        """
        keys = self.credentials()
        if keys is None:
            raise SmsshError(
                "no AWS credentials were found",
                hint="run `aws configure` or `aws sso login`, or set AWS_PROFILE",
                reference="no-credentials",
                status=ExitStatus.REFUSED,
                check="identity.credentials",
            )
        return keys

    def _exchange(self, base: str, request: tuple[Any, ...]) -> tuple[int, bytes, str]:
        """One request (see `send`) and its answer, over a connection that is kept for the next one."""
        idle = self._idle.setdefault(base, [])
        connection, fresh = None, False
        with contextlib.suppress(IndexError):
            since, connection = idle.pop()
            if time.monotonic() - since > IDLE_SECONDS:
                connection.close()
                connection = None
        if connection is None:
            connection, fresh = self._connect(base), True
        try:
            try:
                response = send(connection, base, *request)
            except (ConnectionError, http.client.RemoteDisconnected):
                if fresh:
                    raise
                # It had been closed for being idle.
                connection.close()
                connection = self._connect(base)
                response = send(connection, base, *request)
            answer = response.read()
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            idle.append((time.monotonic(), connection))
        return response.status, answer, response.getheader("Date") or ""

    def _connect(self, base: str) -> http.client.HTTPConnection:
        return transport.connect(base, CONNECT_SECONDS, READ_SECONDS, self.ca_bundle)

    # ------------------------------------------------------------------------------------------- errors

    def unreachable(self, base: str, error: Exception) -> SmsshError:
        """What to say where nobody answers at an address."""
        unreachable = SmsshError(
            f"AWS cannot be reached: {urlsplit(base).netloc}: {str(error) or type(error).__name__}",
            hint=f"check the network, the region ({self.region}, from {self.region_origin}), and HTTPS_PROXY and "
            "AWS_ENDPOINT_URL if they are set",
            reference="aws-unreachable",
            status=ExitStatus.UNREACHABLE,
            check="laptop",
        )
        unreachable.passing = True
        return unreachable

    def refused(self, service: str, name: str, error: tuple[str, str], date: str) -> SmsshError:
        """The error of a service as one of ours."""
        code, text = error[0], error[1] or error[0]
        if code in DENIED:
            return SmsshError(
                f"access denied: {name}: {text}",
                hint=_permission(service, name, text),
                reference="access-denied",
                status=ExitStatus.REFUSED,
                check=_CHECKED.get(name, ""),
            )
        if code in STALE or code in SKEWED:
            hint, check = "log in again (`aws sso login`), or set new credentials", "identity.credentials"
            ahead = skew(date)
            if abs(ahead) >= SKEW_SECONDS:
                way = "ahead" if ahead > 0 else "behind"
                hint = f"the clock of this machine is {format_duration(round(abs(ahead), -1))} {way}: set it"
                check = "laptop.clock"
            return SmsshError(
                f"the AWS credentials are not valid (any more): {name}: {text}",
                hint=hint,
                reference="stale-credentials",
                status=ExitStatus.REFUSED,
                check=check,
            )
        refused = ServiceRefused(f"{name}: {text} ({code})", code)
        if code in THROTTLED:
            refused.hint = (
                "the account makes too many calls: try again in a minute, or with AWS_MAX_ATTEMPTS=10"
            )
        elif code in _TRANSIENT:
            refused.hint = "the service fails: try again in some minutes"
        return refused


def _worth_another(status: int, answer: bytes) -> float:
    """The scale of the pause before another attempt, in seconds; 0.0 where none would help."""
    if status == 200:
        return 0.0
    code, _ = error_of(status, parsed(answer))
    if code in THROTTLED or status == 429:
        return 1.0
    return 0.05 if code in _TRANSIENT or status in _TRANSIENT_STATUS else 0.0


def _permission(service: str, name: str, text: str) -> str:
    """What to ask for: the service's message names action and resource, mostly."""
    action, resource = denied(text) or (f"{service}:{name}", "")
    where = f" on {resource}" if resource else ""
    if "explicit deny" in text:
        return f"a policy denies {action}{where} explicitly: ask for an exception (is it a condition on SSHOwner?)"
    return f"ask for the permission {action}{where}"
