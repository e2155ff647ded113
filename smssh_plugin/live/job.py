"""The job of a run: a small processing job whose entry point fails at once, and which is held then.

It has the name of the run, and its bundle is in a bucket of that name: both are found again, whatever has ended the
run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..aws.session import ServiceRefused
from ..durations import format_duration
from ..errors import ExitStatus, SmsshError
from ..setup.marks import listed
from ..submit.inject import Attachment, inject
from ..submit.options import SSHOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .place import Place

__all__ = [
    "ENDED",
    "MAX_SECONDS",
    "MESSAGE",
    "address",
    "describe",
    "end",
    "log_lines",
    "remove_bucket",
    "start",
    "status",
]

MAX_SECONDS = 1800
"""The longest that SageMaker lets the job run, whatever becomes of smssh."""
HOLD_SECONDS = 1500
"""The same for the hold, which has to end before that."""
MESSAGE = "smssh-live"
"""What the entry point leaves for the description of the job (`ExitMessage`)."""
ENDED = frozenset({"Completed", "Failed", "Stopped"})
END_SECONDS = 600.0
"""How long a job may take to stop: SageMaker gives it two minutes, and takes its instance away."""
LOG_GROUP = "/aws/sagemaker/ProcessingJobs"
LOG_LINES = 200
_ENTRY_POINT = f"mkdir -p /opt/ml/output; echo {MESSAGE} >/opt/ml/output/message; exit 7"
_STORAGE_GB = 5
_OBJECTS = 1000


def address(place: Place) -> str:
    """The address of its host."""
    return f"{place.run.name}.processing.sagemaker"


def start(place: Place) -> dict[str, Any]:
    """Store the bundle and start the job; answers the request with SSH in it.

    Raises:
        SmsshError: the request cannot have SSH, the bundle cannot be stored, or SageMaker refuses the job.
    """
    assert place.wanted is not None  # `chosen` leaves the step out
    name, region = place.run.name, place.region
    # us-east-1 is the only region that takes no location.
    where: dict[str, Any] = {}
    if region != "us-east-1":
        where["CreateBucketConfiguration"] = {"LocationConstraint": region}
    place.call("s3", "create_bucket", Bucket=name, **where)
    options = SSHOptions(
        hold=("failure",),
        hold_seconds=HOLD_SECONDS,
        hold_max_seconds=HOLD_SECONDS,
        role=place.run.roles["node"],
        owner=name,
        bundle_prefix=f"{place.policies.bundles}?owner={place.account.caller.account}",
        wheels=place.wanted.wheels,
    )
    role = f"arn:{place.account.caller.partition}:iam::{place.account.caller.account}:role/{place.run.roles['job']}"
    request = {
        "ProcessingJobName": name,
        "RoleArn": role,
        "AppSpecification": {
            "ImageUri": place.wanted.image,
            "ContainerEntrypoint": ["/bin/sh", "-c", _ENTRY_POINT],
        },
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceCount": 1,
                "InstanceType": place.wanted.instance_type,
                "VolumeSizeInGB": _STORAGE_GB,
            }
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": MAX_SECONDS},
        "Tags": listed(place.run.tags),
    }
    attachment = Attachment("processing", None, options, alone=True)
    changed = dict(inject(attachment, request, lambda: _boto_session(place)))
    try:
        # A role that was made a moment ago may not be known yet.
        place.patiently(
            "ValidationException", lambda: place.make("sagemaker", "create_processing_job", **changed)
        )
    except ServiceRefused as error:
        if (
            error.code != "ResourceInUse"
        ):  # the answer to an earlier attempt was lost: nobody else has the name
            raise
    return changed


def describe(place: Place) -> dict[str, Any] | None:
    """The job as SageMaker describes it; None if there is no such job."""
    try:
        return place.call("sagemaker", "describe_processing_job", ProcessingJobName=place.run.name)
    except ServiceRefused as error:
        if error.code not in ("ValidationException", "ResourceNotFound"):
            raise
        return None


def status(place: Place) -> str:
    """The status of the job; "" if there is no such job."""
    return str((describe(place) or {}).get("ProcessingJobStatus", ""))


def end(place: Place) -> None:
    """Stop the job if it is there and runs, and wait until it has ended.

    Raises:
        SmsshError: it cannot be stopped, or has not ended in time.
    """
    found = status(place)
    if found == "InProgress":
        try:
            place.call("sagemaker", "stop_processing_job", ProcessingJobName=place.run.name)
        except ServiceRefused as error:
            if error.code != "ValidationException":  # it has ended meanwhile
                raise
    if found and not place.until(lambda: status(place) in ENDED, END_SECONDS):
        raise SmsshError(
            f"the job {place.run.name} has not stopped within {format_duration(END_SECONDS)}",
            hint="run it again with --yes, which removes what is left; SageMaker ends the job in any case",
            reference="live-job-runs",
            status=ExitStatus.TIMEOUT,
        )


def remove_bucket(place: Place) -> None:
    """Remove the bucket of the run with all that is in it; that it is not there is no error."""
    name = place.run.name
    try:
        # A bucket of that name that is another account's is not ours to remove.
        owner: dict[str, Any] = {"Bucket": name, "ExpectedBucketOwner": place.account.caller.account}
        while objects := place.call("s3", "list_objects_v2", MaxKeys=_OBJECTS, **owner).get("Contents"):
            keys = [{"Key": str(each["Key"])} for each in objects]
            done = place.call("s3", "delete_objects", Delete={"Objects": keys, "Quiet": True}, **owner)
            for each in done.get("Errors") or ():
                raise SmsshError(
                    f"s3://{name}/{each.get('Key')} cannot be deleted: {each.get('Message') or each.get('Code')}",
                    hint="ask for the permission s3:DeleteObject",
                    reference="access-denied",
                    status=ExitStatus.REFUSED,
                )
        place.call("s3", "delete_bucket", **owner)
    except ServiceRefused as error:
        if error.code != "NoSuchBucket":
            raise


def log_lines(place: Place, **call: Any) -> Iterator[str]:
    """The last lines of the job's log, oldest first.

    Args:
        place: the account and the run.
        call: further arguments of `Place.call`.
    """
    try:
        streams = place.call(
            "logs",
            "describe_log_streams",
            logGroupName=LOG_GROUP,
            logStreamNamePrefix=f"{place.run.name}/",
            **call,
        )
        for stream in streams.get("logStreams") or ():
            events = place.call(
                "logs",
                "get_log_events",
                logGroupName=LOG_GROUP,
                logStreamName=str(stream["logStreamName"]),
                limit=LOG_LINES,
                startFromHead=False,
                **call,
            )
            yield from (str(each.get("message", "")) for each in events.get("events") or ())
    except ServiceRefused as error:
        if error.code != "ResourceNotFoundException":  # it is made with the first line
            raise


def _boto_session(place: Place) -> Any:
    """A session of boto3 with the credentials of the caller."""
    import boto3

    aws = place.account.aws
    keys = aws.required_keys()
    return boto3.Session(
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        aws_session_token=keys.token,
        region_name=aws.region,
        profile_name=aws.profile.name if aws.profile.explicit else None,
    )
