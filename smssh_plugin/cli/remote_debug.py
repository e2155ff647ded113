"""`smssh remote-debug`."""

from __future__ import annotations

import io
import tarfile
import time
from typing import TYPE_CHECKING

import click

from ..terminal import put
from .app import aws_options
from .parameters import Seconds, show_waiting

if TYPE_CHECKING:
    from ..session.remote_install import Container

__all__ = ["remote_debug"]

INSTALL_SECONDS = 600.0
"""How long `--install` waits for the job to be training, unless --wait says otherwise."""


@click.command("remote-debug")
@click.argument("job")
@click.option(
    "--wait",
    type=Seconds(),
    default="0",
    help="How long to wait until a session is possible, for instance 2m.",
)
@click.option("--install", is_flag=True, help="Start an SSH server in its container, through a shell.")
@click.option(
    "--idle", default="30m", show_default=True, help="How long the server stays while nobody is logged in."
)
@aws_options
def remote_debug(
    job: str, wait: float, install: bool, idle: str, region: str | None, profile: str | None
) -> int:
    """Switch SageMaker's remote debugging on in a training JOB that runs.

    JOB is its name, or an address. `smssh shell` then opens a shell in its container, in which nothing has to
    be installed. `smssh connect` and ssh work as well if the job has smssh. If it does not, --install starts
    an SSH server for this machine's key, which can be reached from this machine.
    """
    from ..aws.session import AwsSession
    from ..client import native
    from ..client.addresses import DEFAULT_HOST, JobAddress, parse
    from ..client.lookup import resolve, switch_on

    aws = AwsSession(region, profile)
    address = parse(job) if "." in job else JobAddress(None, job, "training")
    patience = wait or (INSTALL_SECONDS if install else 0.0)
    deadline = time.monotonic() + patience
    name = switch_on(address, aws, wait=patience, on_wait=show_waiting)
    host = address.host or DEFAULT_HOST
    where = str(JobAddress(host, name, "training"))
    node = None
    if patience:
        left = max(0.0, deadline - time.monotonic())
        node = resolve(where, aws, wait=left, on_wait=show_waiting, without_server=True)
    # A server that was started from here ends by itself, and nobody tells us; a living one is found by the start.
    if node is not None and install and (not node.port or native.installed(aws, name, host)):
        from ..session.lifetime import say
        from ..session.remote_install import install as install_there

        target = node.target
        server = install_there(aws, lambda _anew: target, _archive, idle=idle, progress=say)
        native.remember_installed(aws, name, host, server)
        node = resolve(where, aws)
    enters = "connect" if node is not None and node.port else "shell"
    put(f"remote debugging is on: smssh {enters} {where}")
    return 0


def _archive(container: Container) -> bytes:
    """The bundle for a container, as it is sent there."""
    from ..submit.authorized import authorized_keys
    from ..submit.bundle.build import build
    from ..submit.options import SSHOptions

    version = container.python + ("" if container.machine == "x86_64" else f"-{container.machine}")
    options = SSHOptions(transport="none", wheels=() if container.sshd else (version,))
    files = build(options, authorized_keys(options)).files
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()
