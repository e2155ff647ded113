"""AWS calls of the client: botocore clients, and their errors in words a person can act on.

botocore alone, without boto3: this is on the way of every `ssh`, and boto3 adds its import to it for nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .errors import ExitStatus, SmsshError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from botocore.client import BaseClient
    from botocore.credentials import ReadOnlyCredentials
    from botocore.exceptions import ClientError

__all__ = ["AwsSession", "ServiceRefused"]

CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "UnauthorizedOperation",
        "NotAuthorized",
        "InvalidClientTokenId",
    }
)
_STALE = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "UnrecognizedClientException", "InvalidSignatureException"}
)


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
    """botocore clients of one region and profile, made when first used.

    Args:
        region: the AWS region; by default AWS_REGION, AWS_DEFAULT_REGION or the profile's.
        profile: the profile of the shared configuration; by default AWS_PROFILE.
    """

    def __init__(self, region: str | None = None, profile: str | None = None) -> None:
        from botocore.session import Session

        self._session = Session(profile=profile)
        self._named_region = region
        self._clients: dict[str, BaseClient] = {}

    @property
    def region(self) -> str:
        """The region all calls go to.

        Raises:
            SmsshError: none is configured.
        """
        from botocore.exceptions import ProfileNotFound

        if self._named_region is None:
            try:
                # AWS_REGION is what containers and the newer SDKs set; botocore itself reads
                # AWS_DEFAULT_REGION only.
                found = os.environ.get("AWS_REGION") or self._session.get_config_variable("region")
            except ProfileNotFound as error:
                raise SmsshError(str(error), reference="no-profile", status=ExitStatus.USAGE) from error
            if not found:
                raise SmsshError(
                    "no AWS region is configured",
                    hint="set AWS_REGION, run `aws configure set region REGION`, or pass --region",
                    reference="no-region",
                    status=ExitStatus.USAGE,
                )
            self._named_region = str(found)
        return self._named_region

    def credentials(self) -> ReadOnlyCredentials | None:
        """The credentials of now, for signing what is no API call; None where there are none."""
        found = self._session.get_credentials()
        return None if found is None else found.get_frozen_credentials()

    def client(self, service: str) -> BaseClient:
        """The botocore client of `service`, made once.

        Raises:
            SmsshError: no region, no such profile, or an endpoint variable that is no URL.
        """
        made = self._clients.get(service)
        if made is None:
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError

            config = Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                retries={"mode": "standard", "max_attempts": 4},
                user_agent_extra=f"smssh/{__version__}",
            )
            try:
                made = self._session.create_client(service, region_name=self.region, config=config)
            except (BotoCoreError, ValueError) as error:
                raise SmsshError(
                    f"cannot use AWS here: {error}", reference="aws-unusable", status=ExitStatus.USAGE
                ) from error
            self._clients[service] = made
        return made

    def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """Make one API call; `operation` is the Python name, as `describe_training_job`.

        Raises:
            ServiceRefused: the service answered with an error of its own; `code` tells which.
            SmsshError: no credentials, access denied, or no way to the endpoint.
        """
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            HTTPClientError,
            NoCredentialsError,
        )
        from botocore.exceptions import (
            ConnectionError as NoConnection,
        )

        client = self.client(service)
        try:
            answer: dict[str, Any] = getattr(client, operation)(**arguments)
        except ClientError as error:
            raise _explained(error) from error
        except NoCredentialsError as error:
            raise SmsshError(
                "no AWS credentials were found",
                hint="run `aws configure` or `aws sso login`, or set AWS_PROFILE",
                reference="no-credentials",
                status=ExitStatus.REFUSED,
            ) from error
        except (NoConnection, HTTPClientError) as error:
            raise SmsshError(
                f"AWS cannot be reached: {error}",
                hint=f"check the network, the region ({self.region}) and AWS_ENDPOINT_URL if it is set",
                reference="aws-unreachable",
                status=ExitStatus.UNREACHABLE,
            ) from error
        except BotoCoreError as error:
            raise SmsshError(f"AWS call {operation} failed: {error}", reference="aws-call-failed") from error
        return answer

    def pages(self, service: str, operation: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """The answers of a listing call, page by page, following NextToken."""
        while True:
            answer = self.call(service, operation, **arguments)
            yield answer
            token = answer.get("NextToken")
            if not token:
                return
            arguments["NextToken"] = token


def _explained(error: ClientError) -> SmsshError:
    """The error of a service as one of ours."""
    detail = error.response.get("Error", {})
    code = str(detail.get("Code", "unknown"))
    text = str(detail.get("Message") or code)
    if code in _DENIED:
        return SmsshError(
            f"access denied: {error.operation_name}: {text}",
            hint="ask for that permission; the policies smssh needs are in its documentation",
            reference="access-denied",
            status=ExitStatus.REFUSED,
        )
    if code in _STALE:
        return SmsshError(
            f"the AWS credentials are not valid (any more): {error.operation_name}: {text}",
            hint="log in again (`aws sso login`), and check the clock of this machine",
            reference="stale-credentials",
            status=ExitStatus.REFUSED,
        )
    return ServiceRefused(f"{error.operation_name}: {text} ({code})", code)
