"""The account that a setup is applied to: who calls, and the calls."""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..aws.identity_calls import Caller, IdentityClient, caller
from ..aws.session import ServiceRefused
from ..errors import SmsshError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..aws.session import AwsSession

__all__ = ["ABSENT", "Account"]

ABSENT = frozenset({"NoSuchEntity", "InvalidDocument", "ParameterNotFound"})
"""What IAM and Systems Manager answer for what does not exist."""
ATTEMPTS = 6
"""Of each call of IAM. Its throttling rates are not published."""
_LOOKS, _SECONDS = 10, 1.5
"""How often, and after which pause, IAM is asked again for what was made a moment ago. Changes in IAM are eventually
consistent, and are mostly there within ten seconds."""


class Account:
    """The account of a session's credentials.

    Args:
        aws: the AWS session.
        sleep: waits some seconds.
    """

    def __init__(self, aws: AwsSession, sleep: Callable[[float], None] = time.sleep) -> None:
        self.aws = aws
        self._sleep = sleep
        self._iam = IdentityClient(aws, "iam", ATTEMPTS)

    @cached_property
    def caller(self) -> Caller:
        """Who calls.

        Raises:
            SmsshError: there are no credentials, they are not valid, or STS cannot be reached.
        """
        return caller(self.aws)

    @cached_property
    def alias(self) -> str:
        """The account's alias; "" if it has none, or nobody may tell.

        Raises:
            SmsshError: the call failed for another reason.
        """
        try:
            found = self.call("iam", "list_account_aliases")["AccountAliases"]
        except SmsshError as error:
            if error.reference != "access-denied":
                raise
            return ""
        return str(found[0]) if found else ""

    def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """Make one call of IAM or Systems Manager; its errors are those of `AwsSession.call`."""
        if service == "iam":
            return self._iam.call(operation, **arguments)
        return self.aws.call(service, operation, **arguments)

    def find(self, service: str, operation: str, **arguments: Any) -> dict[str, Any] | None:
        """Read one thing; None if it does not exist."""
        try:
            return self.call(service, operation, **arguments)
        except ServiceRefused as error:
            if error.code not in ABSENT:
                raise
            return None

    def pages(self, service: str, operation: str, member: str, **arguments: Any) -> list[dict[str, Any]]:
        """Everything that a listing of IAM has."""
        found: list[dict[str, Any]] = []
        while True:
            answer = self.call(service, operation, **arguments)
            found += answer.get(member) or ()
            if not answer.get("IsTruncated"):
                return found
            arguments["Marker"] = answer["Marker"]

    def patiently(self, code: str, service: str, operation: str, **arguments: Any) -> None:
        """Make a call that needs what was changed a moment ago: it is repeated while the answer is this error.

        Raises:
            SmsshError: as `call`; with the code, if it does not go away.
        """
        for look in range(_LOOKS):
            try:
                self.call(service, operation, **arguments)
            except ServiceRefused as error:  # noqa: PERF203 - each is waited for
                if error.code != code or look == _LOOKS - 1:
                    raise
                self._sleep(_SECONDS)
            else:
                return
