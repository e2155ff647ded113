"""Steps about a job that runs: its request, its host, sessions and logins there, its log and its end."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ..aws.session import ServiceRefused
from ..client import ssh
from ..client.endpoint import own_command
from ..errors import ExitStatus, SmsshError
from ..session.wire.channel import Opening, open_websocket, signed_headers
from ..session.wire.client_version import CLIENT_VERSION
from ..session.wire.websocket import WebSocketRefusedError
from ..setup import policies
from ..setup.owners import TAG
from . import job
from .step import Step
from .trials import STRANGER, judged, no, patient, refused, tried, untried, yes

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..aws.session import AwsSession
    from .place import Place
    from .trials import Answer

__all__ = ["STEPS"]

ONLINE_SECONDS = 900.0
"""How long SageMaker may take for an instance and the image; mostly it is some minutes."""
HELD_SECONDS = 180.0
"""The same for the job to fail, and to say so."""
LOG_SECONDS = 120.0
"""The same for CloudWatch to have a line."""
GONE_SECONDS = 300.0
"""The same for a released job to end."""
LOGIN_SECONDS = 180.0
IDENTITY = ("SMSSH", "SMSSHJob", "SMSSHKind", "SMSSHHost", TAG, "SMSSHHostKey", "SMSSHPort", "SMSSHUser")
"""Tags without which nobody finds a host, or is let in."""
_SHOWN = 5
"""Lines of a program or a log in an answer."""
_PERSON = ("Nodes", "Documents", "Channel", "OwnSessions", "Find", "HostKeys")
"""The statements of the policy for people that a login needs."""


# --------------------------------------------------------------------------------------------------- the job


def _job(place: Place) -> Answer:
    place.create_role("job", place.policies.job_trust, place.policies.job_policy)
    try:
        request = job.start(place)
    except ServiceRefused as error:
        if error.code != "ValidationException":
            raise
        return no("SageMaker does not accept the request", error.message)
    inputs = [str(each["InputName"]) for each in request.get("ProcessingInputs") or ()]
    evidence = (
        f"variables: {', '.join(sorted(request.get('Environment') or ()))}",
        f"inputs: {', '.join(inputs)}",
    )
    return yes("SageMaker accepts a processing job with what smssh adds to its request", *evidence)


def _online(place: Place) -> Answer:
    began = time.monotonic()
    registered = False

    def over() -> bool:
        """Whether the host is online, or never will be."""
        nonlocal registered
        for each in place.found("tag:SMSSHJob", [place.run.name]):
            node = str(each["InstanceId"])
            if node in place.nodes:
                continue
            registered = True
            if each.get("PingStatus") == "Online":
                place.host = node
        return bool(place.host) or job.status(place) in {*job.ENDED, ""}

    place.until(over, ONLINE_SECONDS)
    seconds = time.monotonic() - began
    if place.host:
        return yes(
            "the host is online, with the policy for jobs and the five actions of the node role",
            f"online {seconds:.0f} s after the job was made",
        )
    found = job.describe(place) or {}
    reason = str(found.get("FailureReason") or found.get("ProcessingJobStatus") or "there is no such job")
    evidence = [f"the job: {reason}", *_said(place)]
    if not registered and not found.get("ProcessingStartTime"):
        return untried(f"the container did not start: {reason}", *evidence)
    what = "registered, and not online" if registered else "not registered"
    return no(f"the container runs, and its host is {what} after {seconds:.0f} s", *evidence)


def _said(place: Place) -> list[str]:
    """The last lines of smssh in the job's log, if they can be read."""
    with suppress(SmsshError):
        return [each for each in job.log_lines(place) if "smssh" in each][-_SHOWN:]
    return []


def _host(place: Place) -> str:
    """The host of the job.

    Raises:
        SmsshError: the job has no host that is online.
    """
    if not place.host:
        raise SmsshError("there is no host to try it with", reference="no-node")
    return place.host


def _host_tags(place: Place) -> Answer:
    host = _host(place)
    tags: dict[str, str] = {}

    def held() -> bool:
        tags.update(place.tags_of(host))
        return tags.get("SMSSHState") == "held"

    in_time = place.until(held, HELD_SECONDS)
    evidence = (f"its tags: {', '.join(sorted(tags))}", f"SMSSHState: {tags.get('SMSSHState', 'not set')}")
    wanted = {
        "SMSSHJob": place.run.name,
        "SMSSHKind": "processing",
        "SMSSHHost": "algo-1",
        TAG: place.run.name,
    }
    wrong = [key for key in IDENTITY if not tags.get(key) or tags[key] != wanted.get(key, tags[key])]
    if wrong:
        return no(f"the host lacks the tags {', '.join(wrong)} of its activation", *evidence)
    if not in_time:
        return no("the job's failure does not show in the tag SMSSHState", *evidence, *_said(place))
    return yes(
        "the host has the tags of its activation, and the job has changed its state to held", *evidence
    )


# --------------------------------------------------------------------------------------------------- sessions


def _start(place: Place, aws: AwsSession) -> Opening:
    """Start a session with the host; one that cannot take sessions yet is asked again."""
    named = {"DocumentName": policies.SSH_DOCUMENT, "Parameters": {"portNumber": ["22"]}}
    answer = place.patiently(
        "TargetNotConnected",
        lambda: place.call("ssm", "start_session", aws=aws, Target=_host(place), **named),
    )
    url = aws.stream_url(str(answer["StreamUrl"]))
    return Opening(str(answer["SessionId"]), str(answer["TokenValue"]), url)


def _terminate(place: Place, opening: Opening, aws: AwsSession | None = None) -> None:
    place.call("ssm", "terminate_session", aws=aws, SessionId=opening.session_id)


def _starting(place: Place, statements: list[dict[str, Any]]) -> Callable[[], object]:
    """Starts a session with the host, and ends it."""
    aws = place.assumed(*statements)

    def call() -> None:
        opening = _start(place, aws)
        with suppress(SmsshError):  # what the trial has shown stands; it ends by itself
            _terminate(place, opening)

    return call


def _host_owner(place: Place) -> Answer:
    own, other = (
        _starting(place, place.policies.people("Nodes", "Documents", owner=owner)) for owner in ("", STRANGER)
    )
    trials = [
        tried("a session with a host of one's owner", patient(place, own)),
        refused("ssm:StartSession", "a session with a host of another owner", other),
    ]
    return judged(trials, "the owner of a host starts a session, and nobody else does")


def _opening(place: Place, *sids: str, signs: bool = True) -> Callable[[], object]:
    """Opens the data channel of a session with the host, and ends the session."""
    aws = place.assumed(*place.policies.people("Nodes", "Documents", *sids))

    def call() -> None:
        opening = _start(place, aws)
        headers = signed_headers(opening.url, aws.credentials(), aws.region) if signs else {}
        hello = {"ClientId": place.run.id, "ClientVersion": CLIENT_VERSION}
        try:
            with closing(
                open_websocket(opening.url, opening.token, hello, headers=headers, ca_bundle=aws.ca_bundle)
            ):
                pass
        except WebSocketRefusedError as error:
            # Which status a denial has is not documented.
            refusal = error.status in (401, 403) or "AccessDenied" in str(error)
            reference = "access-denied" if refusal else "no-data-channel"
            raise SmsshError(str(error), reference=reference, status=ExitStatus.REFUSED) from error
        finally:
            with suppress(SmsshError):  # as above
                _terminate(place, opening)

    return call


def _data_channel(place: Place) -> Answer:
    action = "ssmmessages:OpenDataChannel"
    trials = [
        tried(f"a data channel, with {action}", patient(place, _opening(place, "Channel"))),
        refused(action, f"a data channel, without {action}", _opening(place)),
    ]
    found = judged(trials, f"{action} opens the data channel of a session, and without it none opens")
    plain = refused(action, "a data channel without a signature", _opening(place, "Channel", signs=False))
    return type(found)(found.verdict, found.message, (*found.evidence, plain.line))


def _own_sessions(place: Place) -> Answer:
    statements = place.policies.people("Nodes", "Documents", "OwnSessions")
    me, somebody = place.assumed(*statements), place.assumed(*statements, who="-2")
    opening: Opening = place.patiently("access-denied", lambda: _start(place, me))
    what = "ending a session of somebody else"
    try:
        trials = [refused("ssm:TerminateSession", what, partial(_terminate, place, opening, somebody))]
        if trials[0].allowed is not True:
            end = patient(place, partial(_terminate, place, opening, me))
            trials.append(tried("ending one's own session", end))
    finally:
        with suppress(SmsshError):  # it may have ended
            _terminate(place, opening)
    return judged(trials, "who started a session ends it, and nobody else does")


# --------------------------------------------------------------------------------------------------- logins


def _smssh(place: Place, *words: str) -> subprocess.CompletedProcess[str]:
    """Run smssh as a person who may log in and nothing else.

    Raises:
        SmsshError: there is no ssh, or it takes too long.
    """
    ssh.program("ssh")
    aws = place.assumed(*place.policies.people(*_PERSON))
    keys = aws.required_keys()
    hidden = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
    variables = {name: value for name, value in os.environ.items() if name not in hidden}
    variables |= {
        "AWS_ACCESS_KEY_ID": str(keys.access_key),
        "AWS_SECRET_ACCESS_KEY": str(keys.secret_key),
        "AWS_SESSION_TOKEN": keys.token or "",
        "AWS_REGION": aws.region,
        "AWS_DEFAULT_REGION": aws.region,
        # What a profile says of them, which is not read without it.
        **{f"AWS_ENDPOINT_URL_{name}": aws.endpoint(name.lower()) for name in ("SSM", "SAGEMAKER")},
        **({"AWS_CA_BUNDLE": aws.ca_bundle} if aws.ca_bundle else {}),
    }
    try:
        return subprocess.run(
            [*own_command(), *words],
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LOGIN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SmsshError(
            f"smssh {words[0]} took longer than {LOGIN_SECONDS:.0f} s",
            reference="login-timeout",
            status=ExitStatus.TIMEOUT,
        ) from None


def _login(place: Place) -> Answer:
    _host(place)
    began = time.monotonic()
    word = "smssh-live-in"
    done = _smssh(place, "connect", job.address(place), "--", f"echo {word}")
    seconds = time.monotonic() - began
    if done.returncode or done.stdout.strip() != word:
        return no(f"ssh ended with {done.returncode}", *done.stderr.splitlines()[-_SHOWN:])
    return yes("ssh logs in with the policy for people and nothing else", f"a login took {seconds:.1f} s")


def _log(place: Place) -> Answer:
    _host(place)
    aws = place.assumed(*place.policies.people("JobLogs"))
    lines: list[str] = []

    def come() -> bool:
        lines[:] = [each for each in job.log_lines(place, aws=aws) if each.startswith("smssh")]
        return bool(lines)

    place.patiently("access-denied", come)
    if not place.until(come, LOG_SECONDS):
        return no(f"no line of smssh is in the log group {job.LOG_GROUP}")
    return yes("the job's log has the lines of smssh, for who has the policy for people", *lines[:_SHOWN])


def _nodes(place: Place) -> list[str]:
    """The nodes with the tag of the job."""
    return [str(each["InstanceId"]) for each in place.found("tag:SMSSHJob", [place.run.name])]


def _job_end(place: Place) -> Answer:
    host = _host(place)
    done = _smssh(place, "release", job.address(place))
    if done.returncode:
        return untried(f"smssh release ended with {done.returncode}", *done.stderr.splitlines()[-_SHOWN:])
    if not place.until(lambda: job.status(place) in job.ENDED, GONE_SECONDS):
        return no(f"the job has not ended {GONE_SECONDS:.0f} s after it was released", *_said(place))
    found = job.describe(place) or {}
    status, message = str(found.get("ProcessingJobStatus")), str(found.get("ExitMessage", "")).strip()
    evidence = [f"the job: {status}, ExitMessage {message!r}", f"FailureReason: {found.get('FailureReason')}"]
    if (status, message) != ("Failed", job.MESSAGE):
        return no("the job has not ended as its entry point did", *evidence)
    if not place.until(lambda: host not in _nodes(place)):
        return no("the job has ended, and its node is still there", *evidence, *_said(place))
    place.host = ""
    if place.activations_of([place.run.roles["node"]]):
        return no("the job has ended, and its activation is still there", *evidence)
    return yes(
        "a released job ends as its entry point did, and its node and its activation are gone", *evidence
    )


_SESSION = ("ssm:TerminateSession",)
_NEEDS_HOST = ("live.job-online",)

STEPS = (
    Step(
        "live.job",
        "Does SageMaker accept a processing job with what smssh adds to its request?",
        "a role for the job, a bucket with its bundle, a processing job",
        (
            "iam:CreateRole",
            "iam:TagRole",
            "iam:PutRolePolicy",
            "iam:PassRole",
            "s3:CreateBucket",
            "s3:DeleteBucket",
            "s3:ListBucket",
            "s3:GetObject",
            "s3:PutObject",
            "s3:DeleteObject",
            "sagemaker:CreateProcessingJob",
            "sagemaker:AddTags",
            "sagemaker:DescribeProcessingJob",
            "sagemaker:StopProcessingJob",
        ),
        30,
        _job,
        ("live.node-role", "live.test-role"),
        needs_job=True,
    ),
    Step(
        "live.job-online",
        "Does a container come online with the policy for jobs and the five actions of the node role?",
        "an activation and a managed node, made by the job",
        ("ssm:DescribeInstanceInformation", "logs:DescribeLogStreams", "logs:GetLogEvents"),
        360,
        _online,
        ("live.job",),
        needs_job=True,
    ),
    Step(
        "live.host-tags",
        "Does a host have its tags, and can its job change the state tag?",
        "",
        ("ssm:ListTagsForResource",),
        20,
        _host_tags,
        _NEEDS_HOST,
        needs_job=True,
    ),
    Step(
        "live.host-owner",
        "Does the owner of a host that is online start a session with it, and nobody else?",
        "",
        _SESSION,
        10,
        _host_owner,
        _NEEDS_HOST,
        needs_job=True,
    ),
    Step(
        "live.data-channel",
        "Does `ssmmessages:OpenDataChannel` decide whether the data channel of a session opens?",
        "",
        _SESSION,
        15,
        _data_channel,
        ("live.host-owner",),
        needs_job=True,
    ),
    Step(
        "live.own-sessions",
        "Can the person who started a session end it, and nobody else?",
        "",
        _SESSION,
        15,
        _own_sessions,
        ("live.host-owner",),
        needs_job=True,
    ),
    Step(
        "live.login",
        "Does ssh log in with the policy for people and nothing else?",
        "",
        (),
        20,
        _login,
        _NEEDS_HOST,
        needs_job=True,
    ),
    Step(
        "live.job-log",
        "Does the job's log have smssh's lines, and can it be read with the policy for people?",
        "",
        (),
        20,
        _log,
        _NEEDS_HOST,
        needs_job=True,
    ),
    Step(
        "live.job-end",
        "Does a released job end as its entry point did, and remove its node and its activation?",
        "",
        ("ssm:DescribeActivations",),
        90,
        _job_end,
        ("live.host-tags", "live.login"),
        needs_job=True,
    ),
)
