"""A container without Docker: processes in their own PID and mount namespace, one for each host of a job.

What the container sees is this machine, with these differences: `/opt/ml` is the job's folder; `/opt`,
`/run`, `/var/lib` and `/var/log` hold what they hold outside, but what is new in them stays inside (and
`/run/smssh`, `/var/lib/amazon` and `/var/log/amazon`, which several jobs would fight for, are not there at
first); `/etc/hosts` names the hosts of the job; `/proc`, terminals, shared memory, home and temporary folder
are its own; a virtual environment is copy on write, so that a `pip install` of one job is not seen by the
next. The network is shared: every host of every job is on the loopback of this machine.

It keeps jobs from treading on each other; it is no security boundary. A job has the rights of the person who
runs the stand-in, and can read and write what that person can.

Facts: unshare(2), user_namespaces(7), pid_namespaces(7), mount(2), prctl(2).
"""

from __future__ import annotations

import asyncio
import errno
import functools
import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ExitStatus, SmsshError
from . import sandbox_init

if TYPE_CHECKING:
    import signal

__all__ = ["Program", "Sandbox", "SandboxSpec", "SandboxStartError", "check_support", "hosts_file", "mode"]

_log = logging.getLogger(__name__)

HOME = "/run/job/home"
TEMPORARY = "/run/job/tmp"
"""Short on purpose: a Unix socket's path holds 107 bytes, and the real folder has the job's name in it."""

_REBUILD: dict[str, list[str]] = {
    "/opt": ["ml"],
    "/run": ["job", "smssh"],
    "/var/lib": ["amazon"],
    "/var/log": ["amazon"],
}

_SYSCTLS = {
    "kernel.unprivileged_userns_clone": "0",
    "kernel.apparmor_restrict_unprivileged_userns": "1",
    "user.max_user_namespaces": "0",
}
"""The value with which each of them refuses an ordinary user: Debian's, Ubuntu's and the kernel's switch."""


@dataclass(frozen=True)
class SandboxSpec:
    """One container.

    Args:
        argv: the command; its program is looked for on the container's PATH. It runs as PID 1.
        environment: the whole environment; nothing of this process' is added.
        folder: an existing folder for what belongs to this container.
        ml: the folder that is `/opt/ml` in the container.
        hosts: the names that resolve to the loopback in it.
        copy_on_write: folders whose changes stay in the container.
        cwd: the working directory, as the container sees it.
    """

    argv: list[str]
    environment: dict[str, str]
    folder: Path
    ml: Path
    hosts: list[str] = field(default_factory=lambda: ["algo-1"])
    copy_on_write: tuple[Path, ...] = ()
    cwd: str = "/"


class SandboxStartError(SmsshError):
    """A container's command did not start.

    Args:
        stage: `namespaces`, `mounts` or `exec`.
        number: the errno.
        text: what was tried and what came of it.
    """

    reference = "container-not-started"

    def __init__(self, stage: str, number: int, text: str) -> None:
        super().__init__(f"the container did not start ({stage}): {text}")
        self.stage = stage
        self.number = number


class Program:
    """A program in a container, by the process that stands for it outside. Made by `Sandbox`."""

    def __init__(self, process: asyncio.subprocess.Process, pid: int) -> None:
        self._process = process
        self.pid = pid
        """The program itself, as this machine numbers it."""

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    def terminate(self) -> None:
        """Send it SIGTERM, which a container's PID 1 ignores if it has no handler for it."""
        self._signal(sandbox_init.FORWARDED)

    def kill(self) -> None:
        """Send it SIGKILL; with a container's PID 1, every process of the container ends at once."""
        self._signal(sandbox_init.KILL)

    async def wait(self) -> int:
        """Wait for its end; with a container's PID 1, every process of the container is gone then.

        Returns:
            The exit status; 128 + N after signal N.
        """
        return await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            try:
                # Not by send_signal: its look at the process takes the exit status away from asyncio.
                os.kill(self._process.pid, number)
            except ProcessLookupError:
                return


class Sandbox(Program):
    """A running container, and its command. Made by `start`."""

    def __init__(self, process: asyncio.subprocess.Process, pid: int) -> None:
        super().__init__(process, pid)
        assert process.stdout is not None
        self.output: asyncio.StreamReader = process.stdout
        """Standard output and standard error of the container, as they come; to be read to its end."""

    @classmethod
    async def start(cls, spec: SandboxSpec) -> Sandbox:
        """Start a container; return when its command runs.

        The container lives at most as long as the calling thread: call this in the thread of an event loop
        that lasts.

        Raises:
            SandboxStartError: no namespaces, no mounts, or no such command (`stage` says which).
        """
        process, pid = await _launch(_document(spec), subprocess.PIPE, spec.folder.parent.name)
        return cls(process, pid)

    async def run(self, argv: list[str], environment: dict[str, str], log: Path) -> Program:
        """Start another program in the container, as `docker exec` does; return when it runs.

        It ends with the container, and with the calling thread. What it starts itself ends with the container.

        Args:
            argv: the command; its program is looked for on the PATH of `environment`.
            environment: the whole environment.
            log: a file of this machine that its output is added to.

        Raises:
            SandboxStartError: the container has ended, or there is no such command.
            OSError: the log cannot be written.
        """
        document = {
            "parent": os.getpid(),
            "user": mode() == "user",
            "enter": self.pid,
            "argv": argv,
            "environment": environment,
            "cwd": "/",
        }
        with log.open("ab") as out:
            return Program(*await _launch(document, out.fileno(), log.stem))


@functools.lru_cache(maxsize=1)
def mode() -> Literal["root", "user"]:
    """How containers are made here: with the rights of root, or in a user namespace. Tried out once.

    Raises:
        SmsshError: in neither way.
    """
    if not sys.platform.startswith("linux"):
        raise SmsshError(
            "the stand-in runs jobs on Linux only",
            hint="run it in a Linux virtual machine or container",
            reference="no-namespaces",
            status=ExitStatus.FAILED,
        )
    failures = []
    if os.geteuid() == 0:
        failure = _probe("root")
        if failure is None:
            return "root"
        failures.append(failure)
    failure = _probe("user")
    if failure is None:
        return "user"
    failures.append(failure)
    who = "root may not make namespaces here" if os.geteuid() == 0 else "no user namespaces and not root"
    raise SmsshError(
        "{}: {}".format(who, "; ".join(failures)),
        hint=_advice(),
        reference="no-namespaces",
        status=ExitStatus.FAILED,
    )


def check_support() -> None:
    """See early whether this machine can run a container at all.

    Raises:
        SmsshError: neither as root nor in a user namespace; the hint names the kernel setting.
    """
    mode()
    if not os.path.isdir("/opt") or os.path.islink("/opt"):
        raise SmsshError(
            "this machine has no /opt folder to put /opt/ml in",
            hint="create it: sudo mkdir /opt",
            reference="no-opt",
        )
    if not os.path.isfile("/etc/hosts"):
        raise SmsshError(
            "this machine has no /etc/hosts, where a job finds the names of its hosts",
            hint="create it: echo '127.0.0.1 localhost' | sudo tee /etc/hosts",
            reference="no-hosts-file",
        )


def hosts_file(hosts: list[str]) -> str:
    """The text of a container's /etc/hosts: the loopback, this machine, and the hosts of the job."""
    names = ["localhost", *hosts]
    if os.uname().nodename not in names:
        names.append(os.uname().nodename)
    return "127.0.0.1\t{}\n::1\tlocalhost ip6-localhost ip6-loopback\n".format(" ".join(names))


def _program(status: int) -> list[str]:
    """The command line of `sandbox_init.py`: no site, no environment, no bytecode written."""
    return [sys.executable, "-I", "-S", "-B", sandbox_init.__file__, str(status)]


def _devpts() -> str:
    """The options of devpts(5). Group 5 is `tty` on every distribution; a user namespace does not know it."""
    return "newinstance,ptmxmode=0666,mode=620" + (",gid=5" if mode() == "root" else "")


async def _launch(document: dict[str, Any], output: int, name: str) -> tuple[asyncio.subprocess.Process, int]:
    """Run `sandbox_init.py`; return it and the PID of what it started, once that runs.

    Args:
        document: what it reads.
        output: subprocess.PIPE, or a descriptor.
        name: whose notes are logged.

    Raises:
        SandboxStartError: it does not run.
    """
    status_read, status_write = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *_program(status_write),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[status_write],
            env={},
            cwd="/",
            # Ctrl-C on the stand-in's terminal is for the stand-in, which then ends its jobs in order.
            start_new_session=True,
        )
    except BaseException:
        os.close(status_read)
        raise
    finally:
        os.close(status_write)
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(document).encode())
        process.stdin.close()
        messages = await _read_status(status_read)
    except BaseException:
        await asyncio.shield(_abandon(process))
        raise
    pid = 0
    failure = None
    for message in messages:
        if "pid" in message:
            pid = message["pid"]
        elif "note" in message:
            _log.warning("%s: %s", name, message["note"])
        elif failure is None:
            failure = message["error"]
    if failure is not None:
        await _abandon(process)
        raise SandboxStartError(failure["stage"], failure["errno"], failure["text"])
    return process, pid


async def _abandon(process: asyncio.subprocess.Process) -> None:
    """Kill it, read its output away, wait."""
    Program(process, 0).kill()
    if process.stdout is not None:
        await process.stdout.read()
    await process.wait()


def _document(spec: SandboxSpec) -> dict[str, Any]:
    """Write what belongs to the container into its folder; return what `sandbox_init.py` reads."""
    for name in ("stage", "home", "tmp"):
        (spec.folder / name).mkdir(exist_ok=True)
    hosts = spec.folder / "hosts"
    hosts.write_text(hosts_file(spec.hosts), encoding="utf-8")
    binds = [
        (str(spec.ml), "/opt/ml"),
        (str(spec.folder / "home"), HOME),
        (str(spec.folder / "tmp"), TEMPORARY),
    ]
    binds.append((str(hosts), "/etc/hosts"))
    overlays = []
    for number, folder in enumerate(spec.copy_on_write):
        layer = spec.folder / "layers" / str(number)
        for name in ("upper", "work"):
            (layer / name).mkdir(parents=True, exist_ok=True)
        options = "lowerdir={},upperdir={},workdir={}".format(
            *(_escape(path) for path in (folder, layer / "upper", layer / "work"))
        )
        overlays.append((str(folder), options + (",userxattr" if mode() == "user" else "")))
    return {
        "parent": os.getpid(),
        "user": mode() == "user",
        "argv": spec.argv,
        "environment": spec.environment,
        "cwd": spec.cwd,
        "stage": str(spec.folder / "stage"),
        "rebuild": _REBUILD,
        "binds": binds,
        "overlays": overlays,
        "devpts": _devpts(),
    }


def _escape(path: Path) -> str:
    r"""A path as overlayfs' options want it: `\`, `:` and `,` are special."""
    text = str(path)
    for character in "\\:,":
        text = text.replace(character, "\\" + character)
    return text


async def _read_status(descriptor: int) -> list[dict[str, Any]]:
    """Read the status pipe to its end, without blocking the loop."""
    reader = asyncio.StreamReader()
    file = os.fdopen(descriptor, "rb", 0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), file
    )
    try:
        text = await reader.read()
    finally:
        transport.close()
    return [json.loads(line) for line in text.splitlines()]


def _probe(how: Literal["root", "user"]) -> str | None:
    """Make a container that does nothing.

    Returns:
        Why that does not work; None if it does.
    """
    status_read, status_write = os.pipe()
    document: dict[str, Any] = {
        "parent": os.getpid(),
        "user": how == "user",
        "argv": ["/bin/true"],
        "environment": {},
        "cwd": "/",
        # A tmpfs over a folder that is surely there, in a namespace that is gone a moment later.
        "stage": "/proc",
        "rebuild": {},
        "binds": [("/proc", "/proc")],
        "overlays": [],
        "devpts": "newinstance",
    }
    try:
        done = subprocess.run(
            _program(status_write),
            input=json.dumps(document).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[status_write],
            env={},
            timeout=30,
            check=False,
        )
    finally:
        os.close(status_write)
        with os.fdopen(status_read, "rb") as file:
            os.set_blocking(status_read, False)
            text = file.read() or b""
    for line in text.splitlines():
        message = json.loads(line)
        if "error" in message:
            number = message["error"]["errno"]
            return "{} ({})".format(message["error"]["text"], errno.errorcode.get(number, number))
    return None if done.returncode == 0 else done.stdout.decode(errors="replace").strip()[-300:]


def _advice() -> str:
    """What to change, from the kernel settings that are in the way."""
    wrong = []
    for name, refuses in _SYSCTLS.items():
        try:
            value = Path("/proc/sys", *name.split(".")).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if value == refuses:
            wrong.append("sudo sysctl -w {}={}".format(name, {"0": "1", "1": "0"}[refuses]))
    wrong = [text.replace("user.max_user_namespaces=1", "user.max_user_namespaces=15000") for text in wrong]
    if wrong:
        return "allow user namespaces: {}; or run the stand-in as root".format(" && ".join(wrong))
    return (
        "run the stand-in as root, or allow user namespaces (kernel.unprivileged_userns_clone=1,"
        " kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces > 0); in a container of"
        " Docker's, start that with --privileged or with --security-opt seccomp=unconfined"
    )
