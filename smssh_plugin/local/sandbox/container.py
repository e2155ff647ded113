"""A container without Docker: processes in namespaces of their own, one set for each host of a job.

What the container sees is this machine, or the system in another root folder, with these differences: the root folder
is its own, and as root all folders are copy on write (see root.py for what an ordinary user's container has);
`/tmp`, `/var/tmp`, `/dev/shm` and the home folder begin empty, of this machine's `/run` nothing is seen; `/opt/ml` is
the job's folder; `/etc/hosts` names the hosts of the job; `/proc`, terminals and System V's shared memory are its own;
a virtual environment is copy on write, so that a `pip install` of one job is not seen by the next. Its network has a
loopback, where ports 22 and 8080 are its own, the other hosts of its job, and the endpoints of the local emulator at
the addresses that they have outside; nothing else can be reached.

It keeps jobs from treading on each other; it is not a security boundary. A job has the rights of the person who
runs the local emulator, and can read what that person can.

Facts: unshare(2), user_namespaces(7), pid_namespaces(7), network_namespaces(7), mount(2), prctl(2).
"""

from __future__ import annotations

import asyncio
import errno
import functools
import json
import logging
import os
import resource
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...errors import ExitStatus, SmsshError
from . import start
from .network import INTERFACE, address_of
from .relay import Relay, SocketSource
from .root import HOME, MACHINE, OWN, is_own

if TYPE_CHECKING:
    import signal

__all__ = [
    "HOME",
    "MACHINE",
    "Hub",
    "Program",
    "Sandbox",
    "SandboxSpec",
    "SandboxStartError",
    "check_root",
    "check_support",
    "hosts_file",
    "interface",
    "mode",
    "raise_descriptor_limit",
    "shared_network",
    "visible_folders",
]

_log = logging.getLogger(__name__)

_SERVER_PORTS = "22 and 8080"
_NO_NAME_SERVER = "# A job of smssh local reaches no name server.\n"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

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
        hosts: the names of the job's hosts.
        index: which of them this is.
        hub: what connects them; None for a job of one host, or where jobs share this machine's network.
        endpoints: (host, port) on this machine's loopback that the container reaches at 127.0.0.1:port.
        root: the root folder of the container's system; None for this machine's.
        copy_on_write: folders whose changes stay in the container.
        visible: files and folders that the container is to see though they lie in a folder that is its own.
        machine: folders of this machine that a container with another root is to see, read-only, below MACHINE.
        cwd: the working directory, as the container sees it.
    """

    argv: list[str]
    environment: dict[str, str]
    folder: Path
    ml: Path
    hosts: list[str] = field(default_factory=lambda: ["algo-1"])
    index: int = 0
    hub: Hub | None = None
    endpoints: tuple[tuple[str, int], ...] = ()
    root: Path | None = None
    copy_on_write: tuple[Path, ...] = ()
    visible: tuple[Path, ...] = ()
    machine: tuple[Path, ...] = ()
    cwd: str = "/"


class SandboxStartError(SmsshError):
    """A container's command did not start.

    Args:
        stage: `namespaces`, `network`, `mounts` or `exec`.
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
        self._signal(start.FORWARDED)

    def kill(self) -> None:
        """Send it SIGKILL; with a container's PID 1, every process of the container ends at once."""
        self._signal(start.KILL)

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


class Hub(Program):
    """The network that connects the hosts of one job. Made by `start`."""

    def __init__(self, process: asyncio.subprocess.Process, pid: int, bridge: int) -> None:
        super().__init__(process, pid)
        self.bridge = bridge
        """The index of its bridge's interface."""

    @classmethod
    async def start(cls, name: str) -> Hub:
        """Start it; it lives at most as long as the calling thread.

        Args:
            name: of the job, for the log.

        Raises:
            SandboxStartError: it cannot be made.
        """
        document = {"parent": os.getpid(), "user": mode() == "user", "hub": "job"}
        process, started = await _launch(document, subprocess.DEVNULL, name)
        return cls(process, started["pid"], started["bridge"])

    async def close(self) -> None:
        """End it; the hosts' interfaces go with it."""
        self.kill()
        await self.wait()


class Sandbox(Program):
    """A running container, and its command. Made by `start`."""

    def __init__(
        self, process: asyncio.subprocess.Process, pid: int, sockets: SocketSource, own_network: bool
    ) -> None:
        super().__init__(process, pid)
        assert process.stdout is not None
        self._sockets = sockets
        self._relays: list[Relay] = []
        self._own_network = own_network
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
        document = await asyncio.to_thread(_document, spec)
        ours, theirs = socket.socketpair()
        sockets = SocketSource(ours)
        try:
            with theirs:
                process, started = await _launch(
                    document, subprocess.PIPE, spec.folder.parent.name, theirs.fileno()
                )
        except BaseException:
            sockets.close()
            raise
        container = cls(process, started["pid"], sockets, document["network"] is not None)
        try:
            await container._serve(spec.endpoints)
        except BaseException:
            container._cut()
            await asyncio.shield(_abandon(process))
            raise
        return container

    async def connect(self, port: int) -> socket.socket:
        """Connect to a port of the container's loopback.

        Raises:
            OSError: nobody listens there, or the container has ended.
        """
        if self._own_network:
            return await self._sockets.connect(port)
        made = socket.socket()
        made.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
        except BaseException:
            made.close()
            raise
        return made

    async def wait(self) -> int:
        """Wait for its end; every process of the container is gone then, and no way leads to it any more.

        Returns:
            The exit status; 128 + N after signal N.
        """
        try:
            return await super().wait()
        finally:
            if not self.running:
                self._cut()

    async def _serve(self, endpoints: tuple[tuple[str, int], ...]) -> None:
        """Serve the listening sockets that the container has sent."""
        if not self._own_network or not endpoints:
            return
        listeners = self._sockets.listeners()
        self._relays = [Relay(item, *way) for item, way in zip(listeners, endpoints, strict=True)]
        for relay in self._relays:
            await relay.start()

    def _cut(self) -> None:
        """Close every way to it."""
        for relay in self._relays:
            relay.close()
        self._sockets.close()

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
            "own_network": self._own_network,
            "argv": argv,
            "environment": environment,
            "cwd": "/",
        }
        with log.open("ab") as out:
            process, started = await _launch(document, out.fileno(), log.stem)
        return Program(process, started["pid"])


_DESCRIPTORS = 65536
_limits: list[int] = []
"""The soft limit of open files before it was raised here, if it was."""


def raise_descriptor_limit() -> None:
    """Let this process open as many files as it may: each container takes a dozen. Containers keep what was before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        _limits.append(soft)


@functools.lru_cache(maxsize=1)
def mode() -> Literal["root", "user"]:
    """How containers are made here: with the rights of root, or in a user namespace. Tried out once.

    Raises:
        SmsshError: in neither way.
    """
    if not sys.platform.startswith("linux"):
        raise SmsshError(
            "the local emulator runs jobs on Linux only",
            hint="run it in a Linux virtual machine or container",
            reference="no-namespaces",
            status=ExitStatus.FAILED,
        )
    failures = []
    for how in ("root", "user") if os.geteuid() == 0 else ("user",):
        with tempfile.TemporaryDirectory(prefix="smssh-probe-") as name:
            failure = _probe(how, Path(os.path.realpath(name)))
        if failure is None:
            return how
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


@functools.lru_cache(maxsize=1)
def shared_network() -> str | None:
    """Why jobs share this machine's network, in one line; None where each has its own. Tried out once."""
    failure = _failure({"parent": os.getpid(), "user": mode() == "user", "hub": "probe"})
    if failure is None:
        return None
    return (
        f"jobs share this machine's network (no network of their own: {failure}): ports {_SERVER_PORTS} are one"
        " for all of them, and they reach what this machine reaches"
    )


def interface() -> str:
    """The network interface by which the hosts of a job reach each other."""
    return INTERFACE if shared_network() is None else "lo"


def visible_folders(programs: list[Path], folders: list[Path]) -> tuple[Path, ...]:
    """What a container must be shown so that some programs run in it.

    Args:
        programs: Python interpreters: of virtual environments, or others.
        folders: more files and folders.

    Returns:
        Of their folders, and those of the interpreters behind them, the ones that a container has of its own.
    """
    found = list(folders)
    for program in programs:
        path = program
        for _ in range(32):
            found.append(path.parent.parent)
            try:
                path = Path(os.path.normpath(path.parent / os.readlink(path)))
            except OSError:
                break
        found.append(Path(os.path.realpath(program)).parent.parent)
    names = {os.path.abspath(path) for path in found} | {os.path.realpath(path) for path in found}
    # `/tmp` itself is nobody's environment.
    return tuple(Path(name) for name in sorted(names) if is_own(name) and name not in OWN)


def hosts_file(addresses: dict[str, str]) -> str:
    """The text of a container's /etc/hosts: the loopback, and hosts by name.

    Args:
        addresses: by host name; hosts of one address stand in one line.
    """
    lines: dict[str, list[str]] = {"127.0.0.1": ["localhost"]}
    for name, address in addresses.items():
        lines.setdefault(address, []).append(name)
    text = "".join("{}\t{}\n".format(address, " ".join(names)) for address, names in lines.items())
    return text + "::1\tlocalhost ip6-localhost ip6-loopback\n"


def _host_name(index: int) -> str:
    """The name that a host of a job has for itself, as one on AWS has: of its address."""
    return "ip-{}.ec2.internal".format(address_of(index).replace(".", "-"))


def _addresses(spec: SandboxSpec, own_network: bool) -> dict[str, str]:
    """The hosts that a container knows by name."""
    if not own_network:
        return dict.fromkeys([*spec.hosts, os.uname().nodename], "127.0.0.1")
    known: dict[str, str] = {}
    for index, host in enumerate(spec.hosts):
        known |= {host: address_of(index), _host_name(index): address_of(index)}
    return known


def _program(status: int, control: int) -> list[str]:
    """The command line of `start.py`: no site, no environment, no bytecode written."""
    code = "import sys; sys.path.append(sys.argv[1]); from smssh_plugin.local.sandbox.start import main; main({}, {})"
    # The package's folder is the fourth above: smssh_plugin/local/sandbox/start.py.
    folder = Path(start.__file__).parents[3]
    return [sys.executable, "-I", "-S", "-B", "-c", code.format(status, control), str(folder)]


def _devpts() -> str:
    """The options of devpts(5). Group 5 is `tty` on every distribution; a user namespace does not know it."""
    return "newinstance,ptmxmode=0666,mode=620" + (",gid=5" if mode() == "root" else "")


async def _launch(
    document: dict[str, Any], output: int, name: str, control: int | None = None
) -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
    """Run `start.py`; return it and what it says of what it started, once that runs.

    Args:
        document: what it reads.
        output: subprocess.PIPE, or a descriptor.
        name: whose notes are logged.
        control: its end of the control socket; None for one that nobody uses.

    Raises:
        SandboxStartError: it does not run.
    """
    if control is None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            return await _launch(document, output, name, theirs.fileno())
    status_read, status_write = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *_program(status_write, control),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[status_write, control],
            env={},
            cwd="/",
            # Ctrl-C on the local emulator's terminal is for the local emulator, which then ends its jobs in order.
            start_new_session=True,
        )
    except BaseException:
        os.close(status_read)
        raise
    finally:
        os.close(status_write)
    try:
        assert process.stdin is not None
        document = {**document, "descriptors": _limits[0] if _limits else None}
        process.stdin.write(json.dumps(document).encode())
        process.stdin.close()
        messages = await _read_status(status_read)
    except BaseException:
        await asyncio.shield(_abandon(process))
        raise
    started: dict[str, Any] = {}
    failure = None
    for message in messages:
        if "pid" in message:
            started = message
        elif "note" in message:
            _say_once(name, message["note"])
        elif failure is None:
            failure = message["error"]
    if failure is not None:
        await _abandon(process)
        raise SandboxStartError(failure["stage"], failure["errno"], failure["text"])
    return process, started


@functools.lru_cache(maxsize=64)
def _once(note: str) -> None:
    """Remember a note: it is true of every container of this machine."""
    _log.warning("%s", note)


def _say_once(name: str, note: str) -> None:
    _log.debug("%s: %s", name, note)
    _once(note)


async def _abandon(process: asyncio.subprocess.Process) -> None:
    """Kill it, read its output away, wait."""
    Program(process, 0).kill()
    if process.stdout is not None:
        await process.stdout.read()
    await process.wait()


def _document(spec: SandboxSpec) -> dict[str, Any]:
    """Write what belongs to the container into its folder; return what `start.py` reads."""
    folder = Path(os.path.realpath(spec.folder))
    for name in ("stage", "changes", "home", "tmp", "var-tmp", "native"):
        (folder / name).mkdir(exist_ok=True)
    network = None
    binds = [(os.path.realpath(spec.ml), "/opt/ml"), (str(folder / "native"), str(spec.folder / "native"))]
    own_network = shared_network() is None
    files = {"hosts": hosts_file(_addresses(spec, own_network))}
    if own_network:
        files["resolv.conf"] = _NO_NAME_SERVER
        network = {
            "address": address_of(spec.index),
            "name": spec.hosts[spec.index],
            "hostname": _host_name(spec.index),
            "hub": spec.hub.pid if spec.hub is not None else None,
            "bridge": spec.hub.bridge if spec.hub is not None else 0,
            "ports": [port for _, port in spec.endpoints],
        }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
        binds.append((str(folder / name), f"/etc/{name}"))
    overlays = []
    for number, lower in enumerate(spec.copy_on_write):
        layer = folder / "layers" / str(number)
        for name in ("upper", "work"):
            (layer / name).mkdir(parents=True, exist_ok=True)
        overlays.append((os.path.realpath(lower), str(layer / "upper"), str(layer / "work")))
    return {
        "parent": os.getpid(),
        "user": mode() == "user",
        "argv": spec.argv,
        "environment": spec.environment,
        "cwd": spec.cwd,
        "folder": str(folder),
        "stage": str(folder / "stage"),
        "changes": str(folder / "changes"),
        "root": _root(spec.root, folder),
        "machine": [(os.path.realpath(path), f"{MACHINE}{path}") for path in spec.machine],
        "binds": binds,
        "visible": [(os.path.realpath(path), str(path)) for path in spec.visible],
        "overlays": overlays,
        "devpts": _devpts(),
        "network": network,
    }


def _root(root: Path | None, folder: Path) -> dict[str, str] | None:
    """What `root.py` is told of a root folder; makes the folders for what the container changes in it.

    An ordinary user's changes are on the disk: overlayfs takes them in memory since Linux 6.6 only.
    """
    if root is None:
        return None
    found = {"lower": os.path.realpath(root)}
    for name in ("upper", "work"):
        layer = folder / ("layers/root" if mode() == "user" else "changes") / name
        found[name] = str(layer)
        if mode() == "user":
            layer.mkdir(parents=True, exist_ok=True)
    return found


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


def check_root(root: Path, scratch: Path) -> None:
    """See early whether a container can have a root folder.

    Args:
        root: the folder.
        scratch: a folder on the file system that the containers' own folders will be on.

    Raises:
        SmsshError: it cannot.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="probe-", dir=scratch) as name:
        folder = Path(os.path.realpath(name))
        try:
            failure = _probe(mode(), folder, _root(root, folder))
        finally:
            # overlayfs closes its work folder to its owner.
            for path in folder.glob("layers/root/work/*"):
                path.chmod(0o700)
    if failure is not None:
        raise SmsshError(
            f"no job can have the root folder {root}: {failure}",
            hint="an ordinary user needs Linux 5.11, and the folder and SMSSH_HOME on a file system with user"
            " attributes (ext4, xfs, btrfs); or run smssh local as root",
            reference="no-image",
        )


def _probe(how: Literal["root", "user"], folder: Path, root: dict[str, str] | None = None) -> str | None:
    """Make a container that does nothing.

    Args:
        how: as which user.
        folder: an empty folder for it.
        root: what `_root` gives.

    Returns:
        Why that does not work; None if it does.
    """
    for made in ("stage", "changes", "home", "tmp", "var-tmp"):
        (folder / made).mkdir()
    return _failure(
        {
            "parent": os.getpid(),
            "user": how == "user",
            # What a root folder has of programs is not ours to know: nothing is run in it.
            "argv": [] if root else ["/bin/true"],
            "environment": {},
            "cwd": "/",
            "folder": str(folder),
            "stage": str(folder / "stage"),
            "changes": str(folder / "changes"),
            "root": root,
            "machine": [],
            "binds": [],
            "visible": [],
            "overlays": [],
            "devpts": "newinstance",
            "network": None,
        }
    )


def _failure(document: dict[str, Any]) -> str | None:
    """Run `start.py` to its end; return why that does not work, None if it does."""
    status_read, status_write = os.pipe()
    ours, theirs = socket.socketpair()
    try:
        done = subprocess.run(
            _program(status_write, theirs.fileno()),
            input=json.dumps({**document, "descriptors": None}).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[status_write, theirs.fileno()],
            env={},
            cwd="/",
            timeout=30,
            check=False,
        )
    finally:
        ours.close()
        theirs.close()
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
        return "allow user namespaces: {}; or run the local emulator as root".format(" && ".join(wrong))
    return (
        "run the local emulator as root, or allow user namespaces (kernel.unprivileged_userns_clone=1,"
        " kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces > 0); in a container of"
        " Docker's, start that with --privileged or with --security-opt seccomp=unconfined"
    )
