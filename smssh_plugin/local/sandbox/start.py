"""What runs between the local emulator and a container's command: namespaces, network, mounts, then exec.

Run as a program of its own, by `sandbox.py` only, with a JSON document on standard input. The standard library
and the other `sandbox_*` programs' modules only.

Two processes come of it. The first (*outer*) stays in the PID namespace of the local emulator: it forwards
signals, waits and ends with the container's exit status (128 + N after signal N, as Docker has it). The
second (*inner*) is PID 1 of the container: it builds the container's view of the file system and becomes the
container's command by exec. Nothing is ever mounted in the mount namespace of the local emulator, and no interface
is made in its network namespace, so there is nothing to clean up, however this ends.

Signals that the outer process obeys: SIGTERM is handed to the container's PID 1 (which ignores it unless it
has a handler, as in a container on AWS); SIGUSR2 kills the container. The kernel sends SIGUSR2 too when the
local emulator dies.

A program that is started in a container beside its command comes the same way: the document names the
container's PID 1 as `enter`, and both processes do the same except for making namespaces and mounting. A
document with `hub` makes neither: its process is the network that the hosts of one job are connected by.

The status pipe gets one JSON object a line: `{"pid": N}` (the second process, as the local emulator sees it),
`{"note": text}` (something was skipped) and `{"error": {"stage", "errno", "text"}}`. It is closed by the
exec: end of file without an error means that the container's command runs.

The control socket is for what the local emulator cannot do itself, because it is in another network: it gets the
listening sockets of the container's loopback that it is to serve, and then, for every byte that it
writes, a socket to connect with to one of the container's ports.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import select
import signal
import socket
import sys
from typing import Any, NoReturn

from . import network
from .kernel import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    SetupError,
    describe,
    die_with_parent,
    setns,
    unshare,
)
from .root import build

FORWARDED = signal.SIGTERM
KILL = signal.SIGUSR2
_OBEYED = (FORWARDED, KILL, signal.SIGCHLD)


class Status:
    """The writing end of the status pipe."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor

    def send(self, message: dict[str, Any]) -> None:
        """Write one message; a reader that went away is not an error here."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._descriptor, json.dumps(message).encode() + b"\n")

    def error(self, failure: SetupError) -> None:
        """Report why the container does not start."""
        self.send({"error": {"stage": failure.stage, "errno": failure.number, "text": failure.text}})

    def close(self) -> None:
        """Leave the pipe to the other process."""
        os.close(self._descriptor)


def enter_namespaces(spec: dict[str, Any], control: socket.socket) -> None:
    """Give this process namespaces of its own, and its children a PID namespace.

    As an ordinary user, they belong to a user namespace, in which that user is root: one for all hosts of a job.

    Raises:
        SetupError: the kernel, or its configuration, says no.
    """
    wanted = spec["network"]
    flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC
    if wanted is None:
        _unshare(flags, spec["user"])
        return
    hub = None
    user = spec["user"]
    if wanted["hub"] is not None:
        hub = _enter_hub(wanted["hub"], user)
        user = False
    _unshare(flags | CLONE_NEWNET | CLONE_NEWUTS, user)
    try:
        network.connect(wanted, hub)
        made = network.listeners(wanted["ports"])
        if made:
            socket.send_fds(control, [b"."], [item.fileno() for item in made])
    except OSError as error:
        raise SetupError("network", error.errno or 0, describe(error)) from None


def _unshare(flags: int, user: bool) -> None:
    """Leave namespaces for new ones; with a user namespace of one's own for an ordinary user.

    Raises:
        SetupError: the kernel, or its configuration, says no.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        unshare(flags | (CLONE_NEWUSER if user else 0))
        if user:
            # An unprivileged process may map its own ids only, and its group only once setgroups is given
            # up: user_namespaces(7).
            for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
                with open("/proc/self/" + name, "w", encoding="ascii") as file:
                    file.write(text)
    except OSError as error:
        raise SetupError("namespaces", error.errno or 0, describe(error)) from None


def _enter_hub(pid: int, user: bool) -> tuple[network.Interfaces, int]:
    """Be in the hub's network for as long as it takes to get hold of it.

    Returns:
        Its interfaces, and a descriptor of its network namespace.

    Raises:
        SetupError: it is gone, or the kernel says no.
    """
    try:
        kinds = [("user", CLONE_NEWUSER)] if user else []
        opened = [(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY), kind) for name, kind in kinds]
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        for descriptor, kind in opened:
            setns(descriptor, kind)
            os.close(descriptor)
        setns(namespace, CLONE_NEWNET)
        return network.Interfaces(), namespace
    except OSError as error:
        raise SetupError("network", error.errno or 0, describe(error)) from None


def be_hub(spec: dict[str, Any], status: Status) -> NoReturn:
    """Make the network of a job's hosts and keep it until a signal comes.

    Raises:
        SetupError: it cannot be made here.
    """
    _unshare(CLONE_NEWNET, spec["user"])
    die_with_parent(KILL)
    try:
        links = network.Interfaces()
        links.up("lo")
        bridge = links.bridge(network.BRIDGE)
        if spec["hub"] == "probe":
            links.pair(network.INTERFACE, "probe")
        links.close()
    except OSError as error:
        raise SetupError("network", error.errno or 0, describe(error)) from None
    status.send({"pid": os.getpid(), "bridge": bridge})
    status.close()
    if spec["hub"] != "probe" and os.getppid() == spec["parent"]:
        signal.sigwait([FORWARDED, KILL])
    os._exit(0)


def enter_container(pid: int, user: bool, own_network: bool) -> None:
    """Enter the namespaces of a container that runs; its PID namespace is that of our children: setns(2).

    Args:
        pid: its PID 1, as the local emulator numbers it.
        user: whether it has a user namespace.
        own_network: whether it has a network of its own.

    Raises:
        SetupError: it is gone, or the kernel says no.
    """
    kinds = [("ipc", CLONE_NEWIPC), ("mnt", CLONE_NEWNS), ("pid", CLONE_NEWPID)]
    if own_network:
        kinds[:0] = [("net", CLONE_NEWNET), ("uts", CLONE_NEWUTS)]
    if user:
        kinds.insert(0, ("user", CLONE_NEWUSER))
    try:
        # All are opened first: behind the first of them, PIDs are others.
        opened = [(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY), kind) for name, kind in kinds]
        if os.path.samestat(os.fstat(opened[-1][0]), os.stat("/proc/self/ns/pid")):
            raise SetupError("namespaces", errno.ESRCH, "the container has ended, and its PID is another's")
        for descriptor, kind in opened:
            setns(descriptor, kind)
            os.close(descriptor)
    except OSError as error:
        raise SetupError("namespaces", error.errno or 0, describe(error)) from None


def become(spec: dict[str, Any]) -> NoReturn:
    """Exec the container's command, found on the container's PATH.

    Raises:
        SetupError: there is no such program, or it cannot be run.
    """
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.umask(0o022)
    os.chdir(spec["cwd"])
    # An ignored signal stays ignored over an exec: Python ignores two, and a shell that starts us in the
    # background two more.
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    if spec["descriptors"] is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spec["descriptors"], hard))
    command = spec["argv"]
    try:
        os.execvpe(command[0], command, spec["environment"])  # noqa: S606 - a shell is not wanted
    except OSError as error:
        raise SetupError("exec", error.errno or 0, f"{command[0]}: {error.strerror}") from None
    except ValueError as error:
        # A byte of zero in an argument or a variable, which no program can be given.
        raise SetupError("exec", errno.EINVAL, f"{command[0]}: {error}") from None


def inner(spec: dict[str, Any], status: Status, ready: int, go: int) -> NoReturn:
    """The process in the container (PID 1, unless it was there before), until it becomes the command."""
    try:
        os.setsid()
        die_with_parent(signal.SIGKILL)
        # Had the parent died before the line above, nobody would ever kill us: the read ends with nothing
        # then.
        os.write(ready, b".")
        os.close(ready)
        if os.read(go, 1) != b".":
            os._exit(1)
        if "enter" not in spec:
            for note in build(spec):
                status.send({"note": note})
        if not spec["argv"]:
            os._exit(0)  # asked for no more than whether it can be built
        become(spec)
    except SetupError as failure:
        status.error(failure)
    except OSError as error:
        status.error(SetupError("mounts", error.errno or 0, describe(error)))
    # As a shell has it: 127 not found, 126 found and not runnable.
    os._exit(127)


def outer(child: int, status: Status, control: socket.socket | None) -> NoReturn:
    """Forward signals, give out sockets, wait for the container, end as it did."""
    status.send({"pid": child})
    status.close()
    # No thread for the sockets: a process whose children are in another PID namespace can have none.
    signals, wake = os.pipe()
    for descriptor in (signals, wake):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(wake)
    for number in _OBEYED:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OBEYED)
    watched: list[Any] = [signals, *([control] if control is not None else [])]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if control in ready and control is not None and not network.give_socket(control):
            watched.remove(control)
        for received in os.read(signals, 64) if signals in ready else b"":
            if received in (FORWARDED, KILL):
                os.kill(child, signal.SIGTERM if received == FORWARDED else signal.SIGKILL)
                continue
            # PID 1 is reaped when the kernel has ended every other process of its namespace, not before:
            # pid_namespaces(7).
            pid, result = os.waitpid(child, os.WNOHANG)
            if pid == child:
                code = os.waitstatus_to_exitcode(result)
                os._exit(code if code >= 0 else 128 - code)


def main(status_descriptor: int, control_descriptor: int) -> NoReturn:
    """Read the document, fork the container.

    Args:
        status_descriptor: the writing end of the status pipe.
        control_descriptor: the control socket.
    """
    status = Status(status_descriptor)
    control = socket.socket(fileno=control_descriptor)
    control.set_inheritable(False)
    signal.pthread_sigmask(signal.SIG_BLOCK, [*_OBEYED, signal.SIGINT, signal.SIGHUP])
    spec = json.load(sys.stdin.buffer)
    try:
        die_with_parent(KILL)
        if os.getppid() != spec["parent"]:
            os._exit(1)
        if "hub" in spec:
            be_hub(spec, status)
        if "enter" in spec:
            enter_container(spec["enter"], spec["user"], spec["own_network"])
        else:
            enter_namespaces(spec, control)
        # Taking new credentials clears the request: prctl(2).
        die_with_parent(KILL)
        if os.getppid() != spec["parent"]:
            os._exit(1)
        ready, ready_write = os.pipe()
        go, go_write = os.pipe()
        child = os.fork()
    except SetupError as failure:
        status.error(failure)
        os._exit(126)
    except OSError as error:
        status.error(SetupError("namespaces", error.errno or errno.EIO, describe(error)))
        os._exit(126)
    if child == 0:
        os.close(ready)
        os.close(go_write)
        inner(spec, status, ready_write, go)
    os.close(ready_write)
    os.close(go)
    os.read(ready, 1)
    with contextlib.suppress(BrokenPipeError):
        os.write(go_write, b".")
    own_network = "enter" not in spec and spec["network"] is not None
    outer(child, status, control if own_network else None)
