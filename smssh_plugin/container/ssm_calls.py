"""Calls of Systems Manager without boto3, whose import and models take longer than all else up to a login.

Only where the environment says all, which is so in SageMaker's containers: credentials in variables or from the
container's endpoint, a region of the commercial partition or a configured endpoint, and no configuration files.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from pathlib import Path
from typing import Any, Mapping
from urllib.parse import urlsplit

from ..aws.json_client import (
    COMMERCIAL,
    FRESH_SECONDS,
    StaticKeys,
    error_of,
    json_request,
    keys_of,
    parsed,
    send,
    time_of,
)
from ..errors import ExitStatus, SmsshError

__all__ = ["Refused", "Ssm", "prepare", "suffices"]

CONTAINER_HOST = "http://169.254.170.2"
"""Where AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is (botocore.utils.ContainerMetadataFetcher)."""
CREDENTIALS_SECONDS = 2.0
CREDENTIALS_ATTEMPTS = 3
_LOCAL = ("localhost", "127.0.0.1", "::1", "169.254.170.2", "169.254.170.23", "fd00:ec2::23")
_NEEDS_MORE = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
)
_FILES = (
    ("AWS_CONFIG_FILE", "~/.aws/config"),
    ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    ("BOTO_CONFIG", "~/.boto"),
)


class Refused(Exception):  # noqa: N818 - what the service said, not what went wrong here
    """The service answered with an error.

    Args:
        operation: for instance CreateActivation.
        code: the service's, for instance ThrottlingException.
        message: the service's.
        status: of HTTP.
        date: the answer's Date header, "" without one.
    """

    def __init__(self, operation: str, code: str, message: str, status: int, date: str) -> None:
        super().__init__(f"{operation}: {code}")
        self.operation = operation
        self.code = code
        self.message = message
        self.status = status
        self.date = date


def suffices(region: str, environ: Mapping[str, str]) -> bool:
    """Whether no configuration file and none of boto3's other ways has a say."""
    if any(environ.get(name) for name in _NEEDS_MORE):
        return False
    if any(os.path.isfile(os.path.expanduser(environ.get(name) or path)) for name, path in _FILES):
        return False
    if _configured(environ):
        if _endpoint(environ) is None:
            return False  # boto3 says what is wrong with it
    elif not COMMERCIAL.fullmatch(region):
        return False
    return keys_of(environ) is not None or _container_url(environ) is not None


def prepare() -> None:
    """Import what a call needs, which takes as long as the rest of this package, in a thread beside other work."""
    from http.client import HTTPConnection  # noqa: F401

    from ..aws import signing, transport  # noqa: F401


class Ssm:
    """One attempt a call, as a boto3 client of SSM that retries nothing: for any number of threads.

    Its methods take and give what the API does, as JSON has it: times are seconds since the epoch. They raise
    Refused for an error of the service, OSError or http.client.HTTPException where nobody answers.

    Args:
        region: the AWS region.
        connect_seconds: for a connection.
        read_seconds: for an answer.
    """

    service = "ssm"

    def __init__(self, region: str, connect_seconds: float, read_seconds: float) -> None:
        self._region = region
        self._seconds = (connect_seconds, read_seconds)
        self._lock = threading.Lock()
        self._fetched: tuple[StaticKeys, float] | None = None
        self.endpoint = _endpoint(os.environ) or f"https://ssm.{region}.amazonaws.com"

    def add_tags_to_resource(self, **parameters: Any) -> dict[str, Any]:
        """API_AddTagsToResource."""
        return self._call("AddTagsToResource", parameters)

    def create_activation(self, **parameters: Any) -> dict[str, Any]:
        """API_CreateActivation."""
        return self._call("CreateActivation", parameters)

    def delete_activation(self, **parameters: Any) -> dict[str, Any]:
        """API_DeleteActivation."""
        return self._call("DeleteActivation", parameters)

    def deregister_managed_instance(self, **parameters: Any) -> dict[str, Any]:
        """API_DeregisterManagedInstance."""
        return self._call("DeregisterManagedInstance", parameters)

    def describe_instance_information(self, **parameters: Any) -> dict[str, Any]:
        """API_DescribeInstanceInformation."""
        return self._call("DescribeInstanceInformation", parameters)

    def list_tags_for_resource(self, **parameters: Any) -> dict[str, Any]:
        """API_ListTagsForResource."""
        return self._call("ListTagsForResource", parameters)

    def _call(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        from ..aws import transport

        headers, body = json_request("AmazonSSM", operation, parameters)
        keys = self._keys()
        connection = transport.connect(self.endpoint, *self._seconds, ca_bundle=None)
        try:
            answer = send(connection, self.endpoint, "POST", "/", headers, body, keys, self._region, "ssm")
            data, date = answer.read(), answer.getheader("Date") or ""
        finally:
            connection.close()
        found = parsed(data)
        if answer.status == 200:
            return found
        raise Refused(operation, *error_of(answer.status, found), answer.status, date)

    def _keys(self) -> StaticKeys:
        found = keys_of(os.environ)
        if found is not None:
            return found
        with self._lock:
            left = 0.0 if self._fetched is None else self._fetched[1] - time.time()
            if self._fetched is None or left < FRESH_SECONDS:
                try:
                    self._fetched = _fetch(os.environ)
                except SmsshError:
                    if self._fetched is None or left <= 0:
                        raise
            return self._fetched[0]


def _configured(environ: Mapping[str, str]) -> str:
    return environ.get("AWS_ENDPOINT_URL_SSM") or environ.get("AWS_ENDPOINT_URL") or ""


def _endpoint(environ: Mapping[str, str]) -> str | None:
    found = _configured(environ)
    return found.rstrip("/") if re.match(r"https?://[^/]", found) else None


# ------------------------------------------------------------------------------------------------- credentials


def _container_url(environ: Mapping[str, str]) -> str | None:
    relative = environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    if relative:
        return CONTAINER_HOST + relative
    full = environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI") or ""
    parts = urlsplit(full)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOCAL):
        return full
    return None


def _fetch(environ: Mapping[str, str]) -> tuple[StaticKeys, float]:
    """The credentials of the container's endpoint, and when they end.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
    """
    from http.client import HTTPException

    url = _container_url(environ)
    assert url is not None
    headers = {"Accept": "application/json"}
    trouble: Exception | None = None
    for _ in range(CREDENTIALS_ATTEMPTS):
        try:
            token = environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
            path = environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
            if path:
                token = Path(path).read_text(encoding="utf-8")
            if token:
                headers["Authorization"] = token.strip()
            return _parse(_get(url, headers))
        except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:  # noqa: PERF203
            trouble = error
    raise SmsshError(
        f"there are no AWS credentials in this container: {urlsplit(url).netloc} does not give them "
        f"({type(trouble).__name__})",
        hint="check that the job's execution role, whose they are, is still there",
        reference="no-credentials",
        status=ExitStatus.REFUSED,
    )


def _get(url: str, headers: Mapping[str, str]) -> bytes:
    """Without a proxy, which could not reach what is in the container's host."""
    import http.client

    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=CREDENTIALS_SECONDS)
    try:
        connection.request(
            "GET", parts.path + (f"?{parts.query}" if parts.query else ""), headers=dict(headers)
        )
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(answer.status)
    return data


def _parse(data: bytes) -> tuple[StaticKeys, float]:
    found = json.loads(data)
    keys = StaticKeys(found["AccessKeyId"], found["SecretAccessKey"], found.get("Token"))
    text = str(found.get("Expiration") or "")
    return keys, time_of(text) if text else float("inf")
