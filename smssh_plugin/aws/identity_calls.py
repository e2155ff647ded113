"""Calls of STS and IAM, which speak another protocol than the client's own calls do, by botocore's clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._version import __version__
from .endpoints import checked, no_region
from .session import ServiceRefused

if TYPE_CHECKING:
    from .session import AwsSession

__all__ = ["Caller", "IdentityClient", "call", "caller"]

CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
ATTEMPTS = 2


@dataclass(frozen=True)
class Caller:
    """Who the credentials belong to.

    Attributes:
        arn: as GetCallerIdentity has it.
        account: the account id.
        user_id: the caller's UserId, which a policy knows as `${aws:userid}`.
    """

    arn: str
    account: str
    user_id: str

    @property
    def partition(self) -> str:
        """aws, aws-cn, aws-us-gov, ..."""
        return self.arn.split(":")[1]

    @property
    def resource(self) -> list[str]:
        """What the ARN names, by its parts: `["assumed-role", "Name", "session"]`, `["user", "name"]`, `["root"]`."""
        return self.arn.split(":", 5)[5].split("/")


def caller(aws: AwsSession) -> Caller:
    """Who the credentials of a session belong to.

    Raises:
        SmsshError: no credentials are found, they are not valid, or STS cannot be reached.
    """
    answer = call(aws, "sts", "get_caller_identity")
    return Caller(str(answer["Arn"]), str(answer["Account"]), str(answer["UserId"]))


def call(aws: AwsSession, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
    """Make one call of STS or IAM, as `IdentityClient.call` does."""
    return IdentityClient(aws, service).call(operation, **arguments)


class IdentityClient:
    """A client of STS or IAM, for several calls.

    Args:
        aws: whose region, credentials and endpoints are used.
        service: sts or iam.
        attempts: of each call, where the service throttles or fails.
    """

    def __init__(self, aws: AwsSession, service: str, attempts: int = ATTEMPTS) -> None:
        self._aws = aws
        self._service = service
        self._attempts = attempts
        self._made: Any = None

    def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Make one call; its errors are those of `AwsSession.call`.

        Args:
            operation: the Python name, as `get_role`.
            arguments: its parameters.

        Raises:
            ServiceRefused: the service answered with an error of its own; `code` tells which.
            SmsshError: no credentials, access denied, or no way to the endpoint.
        """
        from botocore.exceptions import BotoCoreError, ClientError, InvalidRegionError

        aws, service = self._aws, self._service
        try:
            if self._made is None:
                self._made = _client(aws, service, self._attempts)
            answer: dict[str, Any] = getattr(self._made, operation)(**arguments)
        except ClientError as error:
            said = error.response.get("Error", {})
            date = str(error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", ""))
            name = "".join(part.capitalize() for part in operation.split("_"))
            code = str(said.get("Code", ""))
            if code in ("NotImplemented", "InternalFailure"):
                raise ServiceRefused(f"{name}: {said.get('Message')} ({code})", code) from None
            raise aws.refused(service, name, (code, str(said.get("Message", ""))), date) from None
        except InvalidRegionError as error:
            raise no_region(aws.region) from error
        except BotoCoreError as error:
            raise aws.unreachable(aws.profile.endpoint(service) or f"https://{service}", error) from error
        return answer


def _client(aws: AwsSession, service: str, attempts: int) -> Any:
    from botocore.config import Config
    from botocore.session import Session

    configured = aws.profile.endpoint(service)
    keys = aws.required_keys()
    made = Session(profile=aws.profile.name if aws.profile.explicit else None)
    return made.create_client(
        service,
        region_name=aws.region,
        endpoint_url=checked(configured) if configured else None,
        verify=aws.ca_bundle,
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        aws_session_token=keys.token,
        config=Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": attempts},
            user_agent_extra=f"smssh-plugin/{__version__}",
        ),
    )
