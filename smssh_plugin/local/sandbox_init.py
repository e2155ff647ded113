"""What runs between the stand-in and a container's command: namespaces, mounts, then exec.

Run as a program of its own, `python -I -S -B sandbox_init.py STATUS_FD`, with a JSON document on standard
input (see `sandbox.py`, the only caller). The standard library only; nothing is imported from the package.

Two processes come of it. The first (*outer*) stays in the PID namespace of the stand-in: it forwards
signals, waits and ends with the container's exit status (128 + N after signal N, as Docker has it). The
second (*inner*) is PID 1 of the container: it builds the container's view of the file system and becomes the
container's command by exec. Nothing is ever mounted in the mount namespace of the stand-in, so there is
nothing to clean up, however this ends.

Signals that the outer process obeys: SIGTERM is handed to the container's PID 1 (which ignores it unless it
has a handler, as in a container on AWS); SIGUSR2 kills the container. The kernel sends SIGUSR2 too when the
stand-in dies.

A program that is started in a container beside its command comes the same way: the document names the
container's PID 1 as `enter`, and both processes do the same but for making namespaces and mounting.

STATUS_FD gets one JSON object a line: `{"pid": N}` (the second process, as the stand-in sees it),
`{"note": text}` (something was skipped) and `{"error": {"stage", "errno", "text"}}`. It is closed by the
exec: end of file without an error means that the container's command runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import signal
import stat
import sys
from typing import Any, NoReturn

# <sched.h>, <sys/mount.h>, <sys/prctl.h> of Linux.
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
PR_SET_PDEATHSIG = 1

FORWARDED = signal.SIGTERM
KILL = signal.SIGUSR2

_libc = ctypes.CDLL(None, use_errno=True)


class SetupError(Exception):
    """A stage of the set-up failed.

    Args:
        stage: `namespaces`, `mounts` or `exec`.
        number: the errno.
        text: what was tried and what came of it.
    """

    def __init__(self, stage: str, number: int, text: str) -> None:
        super().__init__(text)
        self.stage = stage
        self.number = number
        self.text = text


def describe(error: OSError) -> str:
    """An error without its number, which travels beside it."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)


class Status:
    """The writing end of the status pipe."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor

    def send(self, message: dict[str, Any]) -> None:
        """Write one message; a reader that went away is no error here."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._descriptor, json.dumps(message).encode() + b"\n")

    def error(self, failure: SetupError) -> None:
        """Report why the container does not start."""
        self.send({"error": {"stage": failure.stage, "errno": failure.number, "text": failure.text}})

    def close(self) -> None:
        """Leave the pipe to the other process."""
        os.close(self._descriptor)


def _call(result: int, what: str) -> None:
    """Raise OSError for a failed call into the C library."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Call mount of the C library.

    Raises:
        OSError: with the call in its text.
    """
    arguments = [os.fsencode(source), os.fsencode(target), kind.encode() if kind else None]
    result = _libc.mount(*arguments, ctypes.c_ulong(flags), os.fsencode(options) if options else None)
    _call(result, f"mount {kind or source} on {target}")


def die_with_parent(number: int) -> None:
    """Ask the kernel for a signal when the parent (to be exact: the thread that forked us) ends."""
    _call(_libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0), "prctl")


def enter_namespaces(user: bool) -> None:
    """Give this process a mount namespace, and its children a PID namespace.

    Args:
        user: with a user namespace, in which an ordinary user may do so and is root.

    Raises:
        SetupError: the kernel, or its configuration, says no.
    """
    uid, gid = os.geteuid(), os.getegid()
    flags = CLONE_NEWNS | CLONE_NEWPID | (CLONE_NEWUSER if user else 0)
    try:
        _call(_libc.unshare(flags), "unshare")
        if user:
            # An unprivileged process may map its own ids only, and its group only once setgroups is given
            # up: user_namespaces(7).
            for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
                with open("/proc/self/" + name, "w", encoding="ascii") as file:
                    file.write(text)
    except OSError as error:
        raise SetupError("namespaces", error.errno or 0, describe(error)) from None


def enter_container(pid: int, user: bool) -> None:
    """Enter the namespaces of a container that runs; its PID namespace is that of our children: setns(2).

    Args:
        pid: its PID 1, as the stand-in numbers it.
        user: whether it has a user namespace.

    Raises:
        SetupError: it is gone, or the kernel says no.
    """
    kinds = [("mnt", CLONE_NEWNS), ("pid", CLONE_NEWPID)]
    if user:
        kinds.insert(0, ("user", CLONE_NEWUSER))
    try:
        # All are opened first: behind the first of them, PIDs are others.
        opened = [(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY), kind) for name, kind in kinds]
        if os.path.samestat(os.fstat(opened[-1][0]), os.stat("/proc/self/ns/pid")):
            raise SetupError("namespaces", errno.ESRCH, "the container has ended, and its PID is another's")
        for descriptor, kind in opened:
            _call(_libc.setns(descriptor, kind), "setns")
            os.close(descriptor)
    except OSError as error:
        raise SetupError("namespaces", error.errno or 0, describe(error)) from None


def rebuild(folder: str, stage: str, hidden: list[str], notes: list[str]) -> None:
    """Make a folder a tmpfs that holds its old entries, bound, but for some that the container is not to see.

    Entries that appear in the folder later, inside, stay in the tmpfs; entries that cannot be bound are left
    out and noted.

    Args:
        folder: the folder to rebuild; one that does not exist, or is a symbolic link, is left alone.
        stage: an empty folder to build in.
        hidden: names to leave out.
        notes: gets a line for every entry left out.

    Raises:
        OSError: the tmpfs itself cannot be mounted.
    """
    if os.path.islink(folder) or not os.path.isdir(folder):
        return
    mount("tmpfs", stage, "tmpfs", MS_NODEV, "mode=755")
    with os.scandir(folder) as entries:
        for entry in entries:
            target = os.path.join(stage, entry.name)
            if entry.name in hidden:
                continue
            try:
                if entry.is_symlink():
                    os.symlink(os.readlink(entry.path), target)
                    continue
                if entry.is_dir():
                    os.mkdir(target, 0o755)
                else:
                    os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
                mount(entry.path, target, None, MS_BIND | MS_REC)
            except OSError as error:
                notes.append(f"left out of the container: {describe(error)}")
    mount(stage, folder, None, MS_MOVE)


def build(spec: dict[str, Any]) -> list[str]:
    """Build the container's view of the file system, in this process' mount namespace.

    Returns:
        Notes on what had to be left out.

    Raises:
        SetupError: something that a job cannot do without could not be mounted.
    """
    notes: list[str] = []
    try:
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        for folder, hidden in spec["rebuild"].items():
            rebuild(folder, spec["stage"], hidden, notes)
        for source, target in spec["binds"]:
            if stat.S_ISDIR(os.stat(source).st_mode):
                os.makedirs(target, exist_ok=True)
            mount(source, target, None, MS_BIND)
    except OSError as error:
        raise SetupError("mounts", error.errno or 0, describe(error)) from None

    optional = [
        # A procfs of our own, or `ps` and /proc/1 in the container would show the machine's processes.
        ("/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, ""),
        ("/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"),  # noqa: S108 - a mount point
        # Terminals of our own. Group 5 is `tty` on every distribution; a user namespace does not know it.
        ("/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, spec["devpts"]),
        *((folder, "overlay", 0, options) for folder, options in spec["overlays"]),
    ]
    for target, kind, flags, options in optional:
        try:
            mount(kind, target, kind, flags, options)
        except OSError as error:  # noqa: PERF203 - each of them may fail
            notes.append(f"the container shares {target} with this machine: {describe(error)}")
    return notes


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
    command = spec["argv"]
    try:
        os.execvpe(command[0], command, spec["environment"])  # noqa: S606 - a shell is not wanted
    except OSError as error:
        raise SetupError("exec", error.errno or 0, f"{command[0]}: {error.strerror}") from None


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
        become(spec)
    except SetupError as failure:
        status.error(failure)
    except OSError as error:
        status.error(SetupError("mounts", error.errno or 0, describe(error)))
    # As a shell has it: 127 not found, 126 found and not runnable.
    os._exit(127)


def outer(child: int, status: Status) -> NoReturn:
    """Forward signals, wait for the container, end as it did."""
    status.send({"pid": child})
    status.close()
    while True:
        number = signal.sigwait([FORWARDED, KILL, signal.SIGCHLD])
        if number == FORWARDED:
            os.kill(child, signal.SIGTERM)
        elif number == KILL:
            os.kill(child, signal.SIGKILL)
        else:
            # PID 1 is reaped when the kernel has ended every other process of its namespace, not before:
            # pid_namespaces(7).
            pid, result = os.waitpid(child, os.WNOHANG)
            if pid == child:
                code = os.waitstatus_to_exitcode(result)
                os._exit(code if code >= 0 else 128 - code)


def main() -> NoReturn:
    """Read the document, fork the container."""
    status = Status(int(sys.argv[1]))
    signal.pthread_sigmask(signal.SIG_BLOCK, [FORWARDED, KILL, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP])
    spec = json.load(sys.stdin.buffer)
    try:
        die_with_parent(KILL)
        if os.getppid() != spec["parent"]:
            os._exit(1)
        if "enter" in spec:
            enter_container(spec["enter"], spec["user"])
        else:
            enter_namespaces(spec["user"])
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
    outer(child, status)


if __name__ == "__main__":
    main()
