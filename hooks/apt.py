"""openssh-server from the image's own package archive: for images with apt and no sshd, when `SMSSH_SSH_SERVER=apt`.

Never unasked: it takes half a minute, needs root and the archive, changes the container, and holds the package
manager's lock, which makes an `apt-get` of the job's own wait or fail meanwhile. No service is started, and
the configuration of the image's SSH stays as the package and the image have it: the hook `sshd` starts a
server of our own.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Iterator, Mapping, Sequence

from ..container import login_shell, openssh
from ..container.child import die_with
from ..errors import SmsshError
from ..hookspecs import Context, Server, hookimpl

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 270.0
"""Seconds for all of it, less than `SMSSH_WAIT=ready` waits; 32 s were measured for a small Debian image."""
STEP_LIMITS = {"update": 120.0, "install": LIMIT}
"""Seconds for each command, within LIMIT. An archive that cannot be reached must leave time for the other."""
POLICY = "/usr/sbin/policy-rc.d"
"""What Debian's packages ask whether they may start their services (invoke-rc.d(8)); 101 is no."""
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OPTIONS = (
    "-q",
    *("-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=15", "-o", "Acquire::https::Timeout=15"),
    *("-o", "DPkg::Lock::Timeout=60", "-o", "Dpkg::Use-Pty=0"),
    *("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"),
)


class _State:
    """The command that runs; there is one supervisor in a process."""

    process: subprocess.Popen[bytes] | None = None
    stopping = threading.Event()


@hookimpl
def smssh_start_server(context: Context) -> Server | None:
    """Install openssh-server if that is asked for, and start sshd."""
    if context.settings.ssh_server != "apt":
        return None
    if openssh.find() is not None:  # it was looked at, and cannot be used; another would be no better
        return None
    try:
        install(context)
    except SmsshError as error:
        context.log.error("%s", error)
        context.say(f"smssh: {error}")
        return None
    program = openssh.find()
    reason = "it is not where it should be" if program is None else openssh.unusable(context, program)
    if program is None or reason is not None:
        context.log.error("sshd was installed and is not used: %s", reason)
        return None
    return openssh.start(context, program)


@hookimpl
def smssh_stop() -> None:
    """Do not keep the end of the job waiting for an archive."""
    _State.stopping.set()
    if _State.process is not None:
        _kill(_State.process)


def install(context: Context) -> None:
    """Install openssh-server, and nothing that it only recommends.

    Raises:
        SmsshError: it cannot be installed here, or was not; one line.
    """
    if os.geteuid() != 0:
        raise _not_installed(f"the job runs as user id {os.geteuid()}, and only root can")
    program = shutil.which("apt-get", path=PATH)
    if program is None:
        raise _not_installed("the image has no apt-get")
    environ = {name: context.environment[name] for name in PROXIES if name in context.environment}
    environ.update(PATH=PATH, LC_ALL="C", DEBIAN_FRONTEND="noninteractive", HOME="/root")
    log = login_shell.ssh_dir(context) / "apt.log"
    deadline = time.monotonic() + LIMIT
    with no_services():
        # One archive of several that is gone makes this fail, and the rest may do; so may lists that are there.
        updated = _run([program, *OPTIONS, "update"], environ, log, deadline)
        command = [program, *OPTIONS, "install", "-y", "--no-install-recommends", "openssh-server"]
        problem = _run(command, environ, log, deadline)
    if problem is not None:
        raise _not_installed(problem if updated is None else f"{problem}; {updated}")


def _run(command: Sequence[str], environ: Mapping[str, str], log: Path, deadline: float) -> str | None:
    """What went wrong, in one line; None when nothing did."""
    verb = command[len(OPTIONS) + 1]
    seconds = min(STEP_LIMITS[verb], deadline - time.monotonic())
    with log.open("ab") as out:
        start = out.tell()
        # Its own process group: what it starts is ended with it.
        process = _State.process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=dict(environ),
            cwd="/",
            start_new_session=True,
            preexec_fn=functools.partial(_prepare, os.getpid()),  # noqa: PLW1509 - calls into what is loaded already
        )
        if _State.stopping.is_set():
            _kill(process)
        try:
            status = process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            _kill(process)
            process.wait()
            return f"apt-get {verb} took longer than {seconds:.0f} s"
    if status == 0:
        return None
    if _State.stopping.is_set():
        return "the job is over"
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode("utf-8", "replace").splitlines()
    errors = [line[2:].strip() for line in lines if line.startswith("E:")] or [f"exit status {status}"]
    return "apt-get {}: {}".format(verb, " | ".join(errors)[:500])


@contextlib.contextmanager
def no_services() -> Iterator[None]:
    """Have packages not start their services, with a policy that is there only meanwhile.

    An image that has a policy (those of Docker say no) keeps it.
    """
    try:
        handle = os.open(POLICY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
    except OSError:  # it is there, or cannot be made: then apt cannot install either, and says why
        yield
        return
    try:
        with open(handle, "w", encoding="ascii") as file:
            file.write("#!/bin/sh\nexit 101\n")
        os.chmod(POLICY, 0o755)  # noqa: S103 - a program for everybody, as Debian's
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(POLICY)


def _prepare(parent: int) -> None:
    die_with(parent)
    os.umask(0o022)  # ours is private, and a package's files are not


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _not_installed(reason: str) -> SmsshError:
    return SmsshError(f"openssh-server is not installed: {reason}", reference="apt-failed")
