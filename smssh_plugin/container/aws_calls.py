"""Calls of AWS with the job's own role: retried within bounds, and explained in one line when they fail."""

from __future__ import annotations

import json
import os
import random
import re
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Mapping

from .._version import __version__
from ..aws.json_client import DENIED, SKEW_SECONDS, SKEWED, STALE, THROTTLED, denied, skew
from ..errors import ExitStatus, SmsshError
from .ssm_calls import Refused, Ssm, suffices

if TYPE_CHECKING:
    from ..hookspecs import Context

__all__ = ["boto_session", "call", "client", "explain", "passing", "region", "throttled"]

THROTTLED_SECONDS = 600.0
"""How long a throttled call is tried again: hundreds of hosts may start in the same minute."""
NETWORK_SECONDS = 120.0
"""How long a call is tried again that nobody answered."""
PAUSE_LONGEST = 20.0
CONNECT_SECONDS = 5.0
READ_SECONDS = 20.0
GRACE_SECONDS = 0.5
"""For the answer to a call that is under way when the job ends."""

# As IAM words it, in the message of AccessDenied.
_BECAUSE = re.compile(r"because ([^\n]+)")
_POLICY = re.compile(
    r"(permissions boundary|service control policy|resource control policy|session policy|VPC endpoint policy"
    r"|resource-based policy|identity-based policy)"
)
NO_CREDENTIALS = (
    "leave AWS_CONTAINER_CREDENTIALS_RELATIVE_URI as SageMaker sets it, which the image or the entry point may not: "
    "the credentials of the job's execution role are at that address"
)


def region(context: Context) -> str:
    """The AWS region of this job: from its variables, its ARN, the toolkit's hyperparameters, or boto3's own.

    Raises:
        SmsshError: none of them says it.
    """
    environ = context.environment
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "SAGEMAKER_REGION"):
        if environ.get(name):
            return environ[name]
    # arn:aws:sagemaker:eu-west-1:123456789012:processing-job/name
    parts = context.job.arn.split(":")
    if len(parts) > 4 and parts[3]:
        return parts[3]
    base = Path(environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml")
    try:
        parameters = json.loads((base / "input/config/hyperparameters.json").read_text(encoding="utf-8"))
        # The toolkit's values are JSON in JSON.
        found = str(parameters.get("sagemaker_region") or "").strip('"')
    except (OSError, ValueError, AttributeError):
        found = ""
    if not found:
        found = _boto3().session.Session().region_name or ""
    if not found:
        raise SmsshError(
            "this job does not say its AWS region",
            hint="set AWS_REGION in the job's environment",
            reference="no-region",
        )
    return found


def _boto3() -> Any:
    try:
        import boto3
    except ImportError:
        raise SmsshError(
            "neither the image nor the bundle has boto3",
            hint="install boto3 in the image: `pip install smssh-plugin` brings it",
            reference="no-boto3",
        ) from None
    return boto3


def boto_session() -> Any:
    """A boto3 session, for several clients: its first one of a service costs the most.

    Raises:
        SmsshError: there is no boto3.
    """
    return _boto3().session.Session()


def client(service: str, region_name: str, of: Any = None) -> Any:
    """A client with the container's own credentials, one attempt a call: see `call`.

    It is boto3's, or for Systems Manager one of ours, where that suffices.

    Args:
        service: botocore's name of it.
        region_name: the region, for instance eu-west-1.
        of: the boto3 session; by default one of its own.

    Raises:
        SmsshError: there is no boto3.
    """
    if service == Ssm.service and suffices(region_name, os.environ):
        return Ssm(region_name, CONNECT_SECONDS, READ_SECONDS)
    made = of or boto_session()
    from botocore.config import Config

    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        user_agent_extra=f"smssh-plugin/{__version__}",
    )
    return made.client(service, region_name=region_name, config=config)


def call(
    operation: Callable[..., Any],
    ending: threading.Event,
    *,
    longest_pause: float = PAUSE_LONGEST,
    **parameters: Any,
) -> Any:
    """Call an operation; again with a growing random pause while it is throttled or nobody answers.

    AWS_MAX_ATTEMPTS, where it is set, bounds the attempts as it does for every AWS program.

    Args:
        operation: a bound method of a client.
        ending: set when the job is over; then nothing is tried again.
        longest_pause: between two attempts, in seconds.
        parameters: the operation's.

    Raises:
        SmsshError: it failed; see `explain`.
    """
    began = time.monotonic()
    limit = os.environ.get("AWS_MAX_ATTEMPTS", "")
    attempts = int(limit) if re.match("[0-9]{1,9}\\Z", limit) else 0
    attempt = 0
    while True:
        attempt += 1
        try:
            return _unless_over(operation, ending, parameters)
        except SmsshError:
            raise
        except Exception as error:
            if not _is_of_aws(error):
                raise
            seconds = _worth_seconds(error)
            over = time.monotonic() - began >= seconds or attempt == attempts or ending.is_set()
            # Full jitter: hosts that were throttled together do not come back together.
            pause = random.uniform(0.0, min(longest_pause, 0.5 * 2.0 ** min(attempt, 10)))  # noqa: S311 - no secret
            if over or ending.wait(pause):
                raise explain(error, operation.__self__) from None  # type: ignore[attr-defined]


def _unless_over(
    operation: Callable[..., Any], ending: threading.Event, parameters: Mapping[str, Any]
) -> Any:
    """Call it in a thread of its own, and leave it alone there GRACE_SECONDS after the job is over.

    Nothing can end a call that nobody answers, but no job waits for one. An answer that comes later is lost: an
    activation that it brings can be used by nobody, and ends by itself.
    """
    answers: list[Any] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            answers.append(operation(**parameters))
        except BaseException as error:  # noqa: BLE001 - raised again, in the thread that wants to know
            errors.append(error)
        done.set()

    threading.Thread(target=run, name="aws-call", daemon=True).start()
    while not done.wait(0.05):
        if ending.is_set() and not done.wait(GRACE_SECONDS):
            raise SmsshError("the job is over", reference="job-ended")
    if errors:
        raise errors[0]
    return answers[0]


def throttled(error: Exception) -> bool:
    """Whether the service has too much to do.

    Args:
        error: of a call.
    """
    refused = _refused(error)
    return refused is not None and (refused.code in THROTTLED or refused.status == 429)


def passing(error: Exception) -> bool:
    """Whether the same call may well work later: it was throttled, nobody answered, or credentials are being renewed.

    Args:
        error: of a call.
    """
    refused = _refused(error)
    return _worth_seconds(error) > 0.0 or (refused is not None and refused.code in STALE)


def _worth_seconds(error: Exception) -> float:
    """For how long it is worth trying again after this error."""
    refused = _refused(error)
    if refused is not None:
        if throttled(error):
            return THROTTLED_SECONDS
        return NETWORK_SECONDS if refused.status >= 500 else 0.0
    from ..aws.transport import SetupError  # takes long to import, and is by now

    return NETWORK_SECONDS if _is_of_the_network(error) and not isinstance(error, SetupError) else 0.0


def _botocore() -> Any:
    """The module of botocore's errors; None where it is not loaded, and no error can be one of them."""
    return sys.modules.get("botocore.exceptions")


def _is_of_aws(error: Exception) -> bool:
    known = _botocore()
    return (
        isinstance(error, Refused)
        or _is_of_the_network(error)
        or (known is not None and isinstance(error, (known.BotoCoreError, known.ClientError)))
    )


def _is_of_the_network(error: Exception) -> bool:
    known, http = _botocore(), sys.modules.get("http.client")
    return (
        isinstance(error, OSError)
        or (http is not None and isinstance(error, http.HTTPException))
        or (known is not None and isinstance(error, (known.ConnectionError, known.HTTPClientError)))
    )


def _refused(error: Exception) -> Refused | None:
    """What the service has answered; None for any other error."""
    known = _botocore()
    if known is not None and isinstance(error, known.ClientError):
        response: Any = error.response
        details, metadata = response.get("Error", {}), response.get("ResponseMetadata", {})
        return Refused(
            error.operation_name,
            str(details.get("Code", "")),
            str(details.get("Message", "")),
            metadata.get("HTTPStatusCode", 0),
            metadata.get("HTTPHeaders", {}).get("date", ""),
        )
    return error if isinstance(error, Refused) else None


def explain(error: Exception, of: Any) -> SmsshError:
    """What went wrong, and what to do about it, for one line of the job's log.

    Never the service's whole answer: that to a wrong signature has the session token in it.

    Args:
        error: of a call.
        of: the client whose call it was.
    """
    if isinstance(error, SmsshError):
        return error
    ours = isinstance(of, Ssm)
    service = of.service if ours else of.meta.service_model.service_name
    refused = _refused(error)
    if refused is not None:
        return _explain_answer(refused, service)
    if _is_of_the_network(error):
        from ..aws.transport import ConnectError

        endpoint = of.endpoint if ours else of.meta.endpoint_url
        said = isinstance(error, ConnectError)
        return SmsshError(
            f"there is no way to {endpoint}: {error}"
            if said
            else f"there is no answer from {endpoint} ({type(error).__name__})",
            hint=None
            if said
            else "give a VPC without internet the interface endpoints ssm and ssmmessages, and the gateway "
            "endpoint of S3; with network isolation nothing can be reached at all",
            reference="no-network",
            status=ExitStatus.UNREACHABLE,
        )
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"):
        return SmsshError(
            f"there are no AWS credentials in this container: {error}",
            hint=NO_CREDENTIALS,
            reference="no-credentials",
            status=ExitStatus.REFUSED,
        )
    return SmsshError(f"{service} cannot be called: {error}", reference="aws-error")


def _explain_answer(refused: Refused, service: str) -> SmsshError:
    code, operation, message = refused.code, refused.operation, refused.message
    if "trust policy" in message:
        return SmsshError(
            f"Systems Manager may not use the role of the managed node: {message[:300]}",
            hint="let the trust policy of the role in SMSSH_ROLE (by default the job's own) name the service "
            "ssm.amazonaws.com, too",
            reference="role-not-trusted",
            status=ExitStatus.REFUSED,
        )
    if code in DENIED:
        return _explain_denial(message, service, operation)
    ahead = skew(refused.date)
    if code in SKEWED and abs(ahead) >= SKEW_SECONDS:
        return SmsshError(
            "the clock of this container is {:.0f} s {} AWS's, so AWS refuses what it signs".format(
                abs(ahead), "ahead of" if ahead > 0 else "behind"
            ),
            hint="stop the job and start it again: the clock is the host's, and it gets another host",
            reference="clock-skew",
            status=ExitStatus.REFUSED,
        )
    if code in STALE or code in SKEWED:
        return SmsshError(
            f"AWS does not take the credentials of this container ({code} from {service}:{operation})",
            hint="take the AWS_* variables out of the job's environment: they win over the job's role"
            if "AWS_ACCESS_KEY_ID" in os.environ
            else "check that the job's execution role, whose they are, is still there",
            reference="bad-credentials",
            status=ExitStatus.REFUSED,
        )
    if code in THROTTLED:
        return SmsshError(
            f"{service}:{operation} was throttled for too long ({code})",
            hint="if many hosts start at once, let fewer of them register with SMSSH_HOSTS (SSHOptions(hosts=...)), "
            "or ask AWS for a higher rate",
            reference="throttled",
            status=ExitStatus.TIMEOUT,
        )
    return SmsshError(f"{service}:{operation} failed: {code}: {message[:300]}", reference="aws-error")


def _explain_denial(message: str, service: str, operation: str) -> SmsshError:
    action, resource = denied(message) or (f"{service}:{operation}", "")
    because = _BECAUSE.search(message)
    return SmsshError(
        "the job's role may not {}{}{}".format(
            action,
            f" on {resource}" if resource else "",
            " ({})".format(because.group(1).rstrip(". ")[:200]) if because else "",
        ),
        hint=_way_to_allow(action, message),
        reference="access-denied",
        status=ExitStatus.REFUSED,
    )


def _way_to_allow(action: str, message: str) -> str:
    """What to do about a denial: IAM says mostly in what kind of policy it is.

    Words: IAM user guide, "Troubleshoot access denied error messages".
    """
    kind = _POLICY.search(message)
    where = kind.group(1) if kind is not None else "identity-based policy"
    if "explicit deny" in message:
        return f"make an exception for this job's role in the policy that denies it explicitly ({where})"
    if where == "identity-based policy":
        return f"allow {action} in the policy of the job's execution role"
    return (
        f"allow {action} in the {where} as well: the policy of the job's execution role alone is not enough"
    )
