"""`smssh enable`."""

from __future__ import annotations

import click

from .app import aws_options
from .words import Seconds, show_waiting

__all__ = ["enable"]


@click.command("enable")
@click.argument("job")
@click.option(
    "--wait", type=Seconds(), default="0", help="How long to wait until it can be entered, for instance 2m."
)
@aws_options
def enable(job: str, wait: float, region: str | None, profile: str | None) -> int:
    """Switch SageMaker's remote debugging on in a training JOB that runs.

    JOB is its name, or an address. Nothing has to be installed in its container: `smssh shell` enters it. If the
    job carries smssh, `smssh connect` and ssh do as well.
    """
    from ..aws import AwsSession
    from ..client import native
    from ..client.addresses import DEFAULT_HOST, JobAddress, parse
    from ..client.lookup import job_of, resolve
    from ..errors import ExitStatus, SmsshError

    session = AwsSession(region, profile)
    address = parse(job) if "." in job else JobAddress(None, job, "training")
    found = job_of(address, session)
    if found.kind != "training":
        raise SmsshError(
            f"{job} is a {found.kind} job: SageMaker's remote debugging is for training jobs",
            hint="submit it with with_ssh or SMSSH_ENABLE=1",
            reference="native-is-training-only",
            status=ExitStatus.USAGE,
        )
    name = found.names[-1]
    native.enable(session, name)
    where = str(JobAddress(address.host or DEFAULT_HOST, name, "training"))
    if wait:
        resolve(where, session, wait=wait, on_wait=show_waiting, bare=True)
    click.echo(f"remote debugging is on: smssh shell {where}")
    return 0
