"""The host of a job that has no managed node: by SageMaker's own remote debugging, or an error that says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ExitStatus, SmsshError
from . import native
from .job_names import StepJob, known, listed_name
from .job_state import DESCRIBE, ENDED, ENDING, check_host, described_job, ended, submitted_with_smssh
from .managed_nodes import Node, moment_of, port_of
from .patience import NotYet

if TYPE_CHECKING:
    from ..aws.session import AwsSession

__all__ = [
    "own_name",
    "without_node",
]

RESTART_SECONDS = 60.0
"""How long a job is waited for whose container has ended: on spot instances another one may start."""


def without_node(aws: AwsSession, job: StepJob, host: str, *, without_server: bool, over: bool) -> Node:
    """The host of a job that has no managed node: native, or an error that says why.

    Args:
        aws: the AWS session.
        job: the job.
        host: its host.
        without_server: whether a container without an SSH server will do.
        over: whether it had a node, whose container has ended.

    Raises:
        SmsshError: there is no node, and there will be none.
        NotYet: there may be one soon.
    """
    if job.kind not in DESCRIBE:
        # Nothing that could be asked knows whether there will be one: its name is known by its node alone.
        raise SmsshError(
            f"no host {host} of {job.kind} {job.names[-1]!r} is online in {aws.region}",
            hint="run `smssh list` to see the hosts",
            reference="no-node",
            status=ExitStatus.UNREACHABLE,
        )
    name, described = own_name(aws, job, host)
    _check_container(job.kind, name, described)
    check_host(described, job.kind, name, host)
    if job.kind == "training" and native.enabled(described):
        return _native(aws, described, host, without_server=without_server)
    if not submitted_with_smssh(aws, job.kind, described):
        raise SmsshError(
            f"{job.kind} job {name!r} was submitted without smssh: it has no host to enter",
            hint=f"run `smssh remote-debug {name}`, which lets you in without it"
            if job.kind == "training"
            else "submit it with with_ssh, or with SMSSH_ENABLE=1 and an image that has smssh-plugin; where the image "
            "itself sets that, try again once its host is online",
            reference="no-smssh",
            status=ExitStatus.UNREACHABLE,
            check=f"--job {host}.{name}.{job.kind}.sagemaker",
        )
    raise _not_online(job.kind, name, host, str(described[DESCRIBE[job.kind][2]]), over=over)


def own_name(aws: AwsSession, job: StepJob, host: str) -> tuple[str, dict[str, Any]]:
    """The job as the service describes it, and its own name.

    Raises:
        SmsshError: there is no such job.
        NotYet: its own name is not known.
    """
    name = job.names[-1]
    described = next((found for one in job.names if (found := described_job(aws, job.kind, one))), None)
    if described is None and (listed := listed_name(aws, job)):
        name, described = listed, described_job(aws, job.kind, listed)
    if described is not None:
        return name, described
    if not known(job):
        raise NotYet(
            SmsshError(
                f"host {host} of step {job.step!r} is not online yet",
                hint="if it stays so, check that the step was submitted with smssh and that its role may register a "
                "managed node, and see the job's log",
                reference="no-node",
                status=ExitStatus.UNREACHABLE,
            )
        )
    raise SmsshError(
        f"there is no {job.kind} job {name!r} in {aws.region}",
        hint=f"check the name, the kind, and the region (from {aws.region_origin}; --region names "
        "another), or run `smssh list`",
        reference="no-job",
        status=ExitStatus.NOT_FOUND,
    )


def _check_container(kind: str, name: str, described: dict[str, Any]) -> None:
    """Refuse a job whose container has ended for good."""
    status = str(described[DESCRIBE[kind][2]])
    if status in ENDED:
        raise ended(
            f"{kind} job {name!r}",
            status,
            str(described.get("FailureReason", "")),
            hold="with_ssh(step, hold='failure') or SMSSH_HOLD=failure",
            reference="job-ended",
        )
    phase = status if status == "Stopping" else described.get("SecondaryStatus")
    if phase in ENDING:
        raise SmsshError(
            f"{kind} job {name!r} is ending ({phase}), and its container is gone",
            hint="run `smssh list` to see the hosts that are online",
            reference="job-ended",
            status=ExitStatus.NOT_FOUND,
        )


def _not_online(kind: str, name: str, host: str, status: str, *, over: bool) -> NotYet:
    """A host that may come online yet."""
    if over:
        return NotYet(
            SmsshError(
                f"the container of host {host} of {kind} job {name!r} has ended, and the job is {status}",
                hint="wait: it is about to end, or to start again on another instance",
                reference="no-node",
                status=ExitStatus.UNREACHABLE,
            ),
            RESTART_SECONDS,
        )
    native_way = f"; `smssh remote-debug {name}` lets you in without all that" if kind == "training" else ""
    return NotYet(
        SmsshError(
            f"{kind} job {name!r} is {status}, and its host {host} is not online yet",
            hint="if it stays so, check that its role may register a managed node, and see the job's log"
            + native_way,
            reference="no-node",
            status=ExitStatus.UNREACHABLE,
            check=f"--job {host}.{name}.{kind}.sagemaker",
        )
    )


def _native(aws: AwsSession, described: dict[str, Any], host: str, *, without_server: bool) -> Node:
    """The host of a training job with SageMaker's own remote debugging.

    Raises:
        SmsshError: it has no SSH server, and will have none.
        NotYet: it cannot be entered yet.
    """
    name = str(described["TrainingJobName"])
    phase = str(described.get("SecondaryStatus") or "")
    if phase not in ("", "Training"):
        raise NotYet(
            SmsshError(
                f"training job {name!r} is {phase}; SageMaker's remote debugging lets in while it is Training",
                hint="wait for it, for instance with --wait 30m",
                reference="no-node",
                status=ExitStatus.UNREACHABLE,
            )
        )
    found = native.announced(aws, described, host)
    if found is None or found.get("state") == "ended":
        own = native.installed(aws, name, host)
        if own is not None:
            found = own
        elif without_server:
            found = {}
        elif native.carries_smssh(described):
            raise NotYet(
                SmsshError(
                    f"host {host} of training job {name!r} has not announced its SSH server yet",
                    hint="check that the job's role may write it (s3:PutObject), and see the job's log",
                    reference="no-node",
                    status=ExitStatus.UNREACHABLE,
                    check=f"--job {host}.{name}.training.sagemaker",
                )
            )
        else:
            raise SmsshError(
                f"training job {name!r} runs no SSH server",
                hint=f"use `smssh shell {host}.{name}.training.sagemaker`, which needs none, or start one: "
                f"`smssh remote-debug {name} --install`",
                reference="no-ssh-server",
                status=ExitStatus.UNREACHABLE,
            )
    return Node(
        target=native.target(name, host),
        job=name,
        kind="training",
        host=host,
        step=str(found.get("step") or "") or None,
        state=str(found.get("state") or "") or None,
        port=port_of(found.get("port")),
        user=str(found.get("user") or "root"),
        host_key=str(found.get("host_key") or "").strip(),
        ping_status="Online",
        created=moment_of(found.get("created")),
        owner=str(found.get("owner") or ""),
        control_port=port_of(found.get("control_port")),
    )
