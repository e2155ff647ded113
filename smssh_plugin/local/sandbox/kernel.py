"""The system calls that a container is made of, for the programs that run with no site and no packages.

Python's own library has none of them before 3.12. Facts: mount(2), pivot_root(2), setns(2), unshare(2), prctl(2).
"""

from __future__ import annotations

import ctypes
import os

__all__ = [
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWUSER",
    "CLONE_NEWUTS",
    "MS_BIND",
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_PRIVATE",
    "MS_RDONLY",
    "MS_REC",
    "MS_REMOUNT",
    "MS_UNBINDABLE",
    "SetupError",
    "describe",
    "die_with_parent",
    "mount",
    "pivot_root",
    "setns",
    "unmount",
    "unshare",
]

# <sched.h>, <sys/mount.h>, <sys/prctl.h> of Linux.
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
_MNT_DETACH = 0x2
_PR_SET_PDEATHSIG = 1
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217, "armv7l": 218}
"""The number of pivot_root(2), which the C library has no function for."""

_libc = ctypes.CDLL(None, use_errno=True)


class SetupError(Exception):
    """A stage of the set-up failed.

    Args:
        stage: `namespaces`, `network`, `mounts` or `exec`.
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


def _call(result: int, what: str) -> None:
    """Raise OSError for a failed call into the C library."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Mount something; see the manual for the arguments.

    Raises:
        OSError: with the call in its text.
    """
    arguments = [os.fsencode(source), os.fsencode(target), kind.encode() if kind else None]
    result = _libc.mount(*arguments, ctypes.c_ulong(flags), os.fsencode(options) if options else None)
    _call(result, f"mount {kind or source} on {target}")


def unmount(target: str) -> None:
    """Take a mount, and all below it, out of sight.

    Raises:
        OSError: with the call in its text.
    """
    _call(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root of this mount namespace; what was the root is at `old`, a folder in it.

    Raises:
        OSError: with the call in its text.
    """
    number = _PIVOT_ROOT[os.uname().machine]
    _call(_libc.syscall(ctypes.c_long(number), os.fsencode(new), os.fsencode(old)), f"pivot_root {new}")


def unshare(flags: int) -> None:
    """Leave namespaces for new ones.

    Raises:
        OSError: the kernel, or its configuration, says no.
    """
    _call(_libc.unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Enter a namespace.

    Raises:
        OSError: the kernel says no.
    """
    _call(_libc.setns(descriptor, kind), "setns")


def die_with_parent(number: int) -> None:
    """Ask the kernel for a signal when the parent (to be exact: the thread that forked us) ends.

    Raises:
        OSError: the kernel says no.
    """
    _call(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0), "prctl")
