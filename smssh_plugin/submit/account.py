"""The AWS account that submits: buckets must belong to it, unless an address names another."""

from __future__ import annotations

from typing import Any

from ..errors import ExitStatus, SmsshError
from .sessions import SdkSession, boto_session_of

__all__ = ["account_of", "user_id_of"]

CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0

_known: dict[tuple[str, str], dict[str, str]] = {}


def account_of(session: SdkSession, bucket: str = "") -> str:
    """The account id of a session's credentials: what they say themselves, else one call of STS in a process.

    Args:
        session: of the SageMaker SDK or of boto3; None for boto3's default one.
        bucket: the bucket that must belong to the account, or an address in it, for the error.

    Raises:
        SmsshError: there are no credentials, or STS does not answer.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    boto_session = boto_session_of(session)
    try:
        credentials = boto_session.get_credentials()
        said = getattr(credentials, "account_id", None)  # botocore 1.35 and later
        if isinstance(said, str) and said:
            return said
        return _identity(boto_session, credentials)["Account"]
    except (BotoCoreError, ClientError) as error:
        where = (bucket if "://" in bucket else f"s3://{bucket}") if bucket else "the bucket"
        raise SmsshError(
            f"cannot find out your AWS account, which must own {where}: {error}",
            hint="check your AWS credentials and that STS can be reached, or name the owner in the address: "
            "s3://bucket/prefix?owner=ACCOUNT",
            reference="no-account",
            status=ExitStatus.REFUSED,
        ) from None


def user_id_of(session: SdkSession) -> str:
    """The UserId of a session's credentials, which a policy knows as `${aws:userid}`: one call of STS in a process.

    Args:
        session: see `account_of`.

    Raises:
        SmsshError: there are no credentials, or STS does not answer.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    boto_session = boto_session_of(session)
    try:
        return _identity(boto_session, boto_session.get_credentials())["UserId"]
    except (BotoCoreError, ClientError) as error:
        raise SmsshError(
            f"cannot find out who submits, which owns the job by the owner scheme 'caller': {error}",
            hint="check your AWS credentials and that STS can be reached, or set SMSSH_OWNER",
            reference="no-caller",
            status=ExitStatus.REFUSED,
        ) from None


def _identity(boto_session: Any, credentials: Any) -> dict[str, str]:
    """Who a session's credentials belong to, asked once in a process."""
    from botocore.config import Config

    limits = Config(
        connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries={"total_max_attempts": 2}
    )
    client = boto_session.client("sts", config=limits)
    known = (str(getattr(credentials, "access_key", None)), str(client.meta.endpoint_url))
    if known not in _known:
        _known[known] = {name: str(value) for name, value in client.get_caller_identity().items()}
    return _known[known]
