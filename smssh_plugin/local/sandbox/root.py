"""A container's view of the file system: a root of its own over the folders of this machine.

What the job writes stays in it. `/` itself is new, so that a job's working directory is its own; `/tmp`, `/var/tmp`,
`/run` and `/dev/shm` begin empty; the other folders hold what they hold on this machine. As root every
one of them is copy on write, in memory. An ordinary user may write to few of them, and a user namespace knows no
owner of the others: there `/etc` is a copy, `/opt` and `/var` take new entries, and the rest is as it is outside.

A job whose image is a root folder sees that instead: copy on write as a whole, for an ordinary user too.

Runs in the mount namespace that is to look so; standard library only. Facts: mount(2), pivot_root(2),
user_namespaces(7), overlayfs ("Overlay Filesystem" in the kernel's documentation).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from typing import Any

from . import kernel

__all__ = ["HOME", "MACHINE", "OWN", "build", "escape", "is_own"]

HOME = "/run/job/home"
MACHINE = "/run/job/machine"
"""Where a container with a root of another system sees what it is given of this machine."""
OWN = ("/tmp", "/var/tmp", "/run")  # noqa: S108 - mount points
"""Folders of which a container sees nothing but what was asked for."""

_MACHINE = "/.machine"
"""Where this machine's root is while the container's is made."""
_APART = ("proc", "sys", "dev", "run", "tmp", "lost+found")
"""The entries of `/` that are made in a way of their own."""
_NEW_ENTRIES = {"/opt": (), "/var": ("tmp",), "/var/lib": ("amazon",), "/var/log": ("amazon",)}
"""For an ordinary user: folders that take new entries, and the entries that are left out."""
_AGENT = ("/var/lib/amazon", "/var/log/amazon")
"""What several jobs' agents would fight for; a container begins without them."""


def is_own(path: str) -> bool:
    """Whether a path of this machine is one that a container does not see unless it is asked for."""
    return any(path == folder or path.startswith(folder + "/") for folder in OWN)


def escape(path: str) -> str:
    r"""A path as overlayfs' options want it: `\`, `:` and `,` are special."""
    return re.sub(r"([\\:,])", r"\\\1", path)


def build(spec: dict[str, Any]) -> list[str]:
    """Build the view, and make it this process' root.

    Args:
        spec: see `sandbox.py`.

    Returns:
        Notes on what had to be left out, or is shared.

    Raises:
        SetupError: something that a job cannot do without could not be mounted.
    """
    try:
        return _build(spec)
    except OSError as error:
        raise kernel.SetupError("mounts", error.errno or 0, kernel.describe(error)) from None


def _build(spec: dict[str, Any]) -> list[str]:
    notes: list[str] = []
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    below = _mount_points()
    new, changes = spec["stage"], spec["changes"]
    if not spec["user"]:
        kernel.mount("tmpfs", changes, "tmpfs", 0, "mode=755")
        for name in ("upper", "work"):
            os.mkdir(os.path.join(changes, name))
    if spec["root"] is not None:
        _image(new, spec["root"], below, spec["user"])
    else:
        kernel.mount("tmpfs", new, "tmpfs", 0, "mode=755")
        # Or it would be in what is bound below, if that is a folder above it.
        kernel.mount("none", new, None, kernel.MS_UNBINDABLE)
        _top(new, changes, below, spec["user"], notes)
    for name in ("proc", "sys", "dev", "run", "tmp"):
        _mount_point(os.path.join(new, name), folder=True)
    kernel.mount("/dev", os.path.join(new, "dev"), None, kernel.MS_BIND | kernel.MS_REC)
    os.mkdir(new + _MACHINE)
    kernel.pivot_root(new, new + _MACHINE)
    os.chdir("/")
    kernel.mount("none", "/", None, kernel.MS_PRIVATE)
    _own_folders(spec)
    for source, target in spec["visible"]:
        _show(source, target)
    for source, target in spec["machine"]:
        _bind(source, target)
        _read_only(target, notes)
    for source, target in spec["binds"]:
        _bind(source, target)
    _optional(spec, below, notes)
    kernel.unmount(_MACHINE)
    os.rmdir(_MACHINE)
    return notes


def _mount_points() -> list[str]:
    """Where something is mounted, sorted: what is above comes first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        fields = [line.split(" ")[4] for line in file]
    return sorted({re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field) for field in fields})


def _top(new: str, changes: str, below: list[str], user: bool, notes: list[str]) -> None:
    """Give the new root the entries of `/`."""
    with os.scandir("/") as entries:
        found = [entry for entry in entries if entry.name not in _APART]
    for entry in found:
        target = os.path.join(new, entry.name)
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), target)
        elif entry.is_file():
            with contextlib.suppress(OSError):
                _copy(entry.path, target)
        elif entry.is_dir() and _top_folder(entry.path, target, changes, user, notes):
            _bind_below(entry.path, new, below)


def _top_folder(folder: str, target: str, changes: str, user: bool, notes: list[str]) -> bool:
    """Give the new root a folder of `/`; answers whether what is written to it is kept in memory."""
    if user:
        _as_it_is(folder, target, notes)
        return False
    os.mkdir(target)
    try:
        _copy_on_write(folder, target, changes)
    except OSError as error:
        notes.append(f"the container shares {folder} with this machine: {os.strerror(error.errno or 0)}")
        kernel.mount(folder, target, None, kernel.MS_BIND | kernel.MS_REC)
        return False
    return True


def _image(new: str, root: dict[str, str], below: list[str], user: bool) -> None:
    """Make a root folder of this machine the new root, so that what is written to it stays in the container."""
    lower, upper, work = root["lower"], root["upper"], root["work"]
    # Whatever the folder itself is like: a root that is closed to others is of no use to a job's other users.
    os.chmod(upper, 0o755)  # noqa: S103 - as everywhere
    options = f"lowerdir={escape(lower)},upperdir={escape(upper)},workdir={escape(work)}"
    kernel.mount("overlay", new, "overlay", 0, options + (",userxattr" if user else ""))
    kernel.mount("none", new, None, kernel.MS_UNBINDABLE)
    _bind_below(lower, new, below, lower)


def _copy_on_write(folder: str, target: str, changes: str) -> None:
    """Mount a folder of this machine so that what is written to it is kept in memory."""
    upper, work = (os.path.join(changes, name, os.path.basename(folder)) for name in ("upper", "work"))
    for made in (upper, work):
        os.mkdir(made, 0o755)
    # The root of what is seen is the upper folder: it has to look like the lower one.
    _look_alike(folder, upper)
    for hidden in _AGENT:
        if os.path.dirname(os.path.dirname(hidden)) == folder and os.path.isdir(hidden):
            parent = os.path.join(upper, os.path.relpath(os.path.dirname(hidden), folder))
            os.makedirs(parent, exist_ok=True)
            _look_alike(os.path.dirname(hidden), parent)
            # overlayfs' whiteout: the entry is not there.
            os.mknod(os.path.join(parent, os.path.basename(hidden)), stat.S_IFCHR, os.makedev(0, 0))
    options = f"lowerdir={escape(folder)},upperdir={escape(upper)},workdir={escape(work)}"
    kernel.mount("overlay", target, "overlay", 0, options)


def _look_alike(folder: str, made: str) -> None:
    found = os.stat(folder)
    os.chown(made, found.st_uid, found.st_gid)
    os.chmod(made, stat.S_IMODE(found.st_mode))


def _bind_below(folder: str, new: str, below: list[str], root: str = "") -> None:
    """Bind what is mounted below a folder, which overlayfs does not look at.

    Args:
        folder: the folder.
        new: the new root.
        below: where something is mounted.
        root: what the new root shows; `""` for this machine's.
    """
    last = None
    for point in below:
        inside = point[len(root) :]
        if not point.startswith(folder + "/") or is_own(inside) or (last and point.startswith(last + "/")):
            continue
        last = point
        # A folder that is not ours to see, or a file system that has gone: the container has it empty.
        with contextlib.suppress(OSError):
            kernel.mount(point, new + inside, None, kernel.MS_BIND | kernel.MS_REC)


def _as_it_is(folder: str, target: str, notes: list[str]) -> None:
    """Give the new root a folder of this machine, for an ordinary user."""
    os.mkdir(target, 0o755)
    if folder != "/etc" and folder not in _NEW_ENTRIES:
        _bind_or_note(folder, target, notes)
        return
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if entry.name not in _NEW_ENTRIES.get(folder, ())]
    for entry in found:
        inside = os.path.join(target, entry.name)
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), inside)
        elif entry.is_dir():
            _as_it_is(entry.path, inside, notes)
        elif folder == "/etc" and os.access(entry.path, os.R_OK):
            # A copy can be written to and replaced, as root can in a container on AWS.
            _copy(entry.path, inside)
        else:
            os.close(os.open(inside, os.O_CREAT | os.O_WRONLY, 0o600))
            _bind_or_note(entry.path, inside, notes)


def _copy(source: str, target: str) -> None:
    with open(source, "rb") as file, open(target, "wb") as out:
        out.write(file.read())
        os.fchmod(out.fileno(), stat.S_IMODE(os.fstat(file.fileno()).st_mode))


def _bind_or_note(source: str, target: str, notes: list[str]) -> None:
    try:
        kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)
    except OSError as error:
        notes.append(f"left out of the container: {kernel.describe(error)}")


def _own_folders(spec: dict[str, Any]) -> None:
    """Make /tmp, /var/tmp and /run."""
    os.makedirs("/var/tmp", exist_ok=True)  # noqa: S108
    for source, target in (("tmp", "/tmp"), ("var-tmp", "/var/tmp")):  # noqa: S108
        _bind(os.path.join(spec["folder"], source), target)
        os.chmod(target, 0o1777)  # noqa: S103 - as everywhere
    for name in ("job", "lock"):
        os.makedirs("/run/" + name, 0o755, exist_ok=True)
    os.chmod("/run/lock", 0o1777)  # noqa: S103 - as everywhere
    if spec["root"] is None and os.path.isdir(_MACHINE + "/run/sshd"):
        # Of the package openssh-server, which the image brings and does not start.
        os.mkdir("/run/sshd", 0o755)
    _bind(os.path.join(spec["folder"], "home"), HOME)


def _bind(source: str, target: str) -> None:
    """Bind a file or folder of this machine, making what it is bound on.

    Raises:
        OSError: it is not there, or cannot be bound.
    """
    _mount_point(target, os.path.isdir(_MACHINE + source))
    kernel.mount(_MACHINE + source, target, None, kernel.MS_BIND | kernel.MS_REC)


def _read_only(target: str, notes: list[str]) -> None:
    """Make a mount read-only; what it has of other restrictions has to stay for an ordinary user: mount(2)."""
    kept = os.statvfs(target).f_flag & (kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    try:
        kernel.mount("none", target, None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kept)
    except OSError as error:
        notes.append(f"the container can write to {target}: {kernel.describe(error)}")


def _show(source: str, target: str) -> None:
    """Bind a file or folder of this machine that may have gone, where it is not seen already."""
    if os.path.exists(_MACHINE + source) and not os.path.exists(target):
        _bind(source, target)


def _mount_point(target: str, folder: bool) -> None:
    if os.path.islink(target):
        # It would lead to where the link does on this machine.
        os.unlink(target)
    if folder:
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))


def _optional(spec: dict[str, Any], below: list[str], notes: list[str]) -> None:
    """Mount what a job can do without."""
    mounts = [
        # A procfs of our own, or `ps` and /proc/1 in the container would show the machine's processes.
        ("/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, ""),
        ("/dev/shm", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777"),  # noqa: S108 - a mount point
        # Terminals of our own. Group 5 is `tty` on every distribution; a user namespace does not know it.
        ("/dev/pts", "devpts", kernel.MS_NOSUID | kernel.MS_NOEXEC, spec["devpts"]),
    ]
    if spec["network"]:
        # What is in /sys/class/net belongs to the network namespace of who mounted it.
        mounts.append(("/sys", "sysfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, ""))
    for target, kind, flags, options in mounts:
        try:
            kernel.mount(kind, target, kind, flags, options)
        except OSError as error:  # noqa: PERF203 - each of them may fail
            notes.append(f"the container shares {target} with this machine: {kernel.describe(error)}")
            if target in ("/proc", "/sys"):
                kernel.mount(_MACHINE + target, target, None, kernel.MS_BIND | kernel.MS_REC)
        else:
            if target == "/sys":
                _bind_sys(below)
    if not spec["network"]:
        kernel.mount(_MACHINE + "/sys", "/sys", None, kernel.MS_BIND | kernel.MS_REC)
    for folder, upper, work in spec["overlays"]:
        options = "lowerdir={},upperdir={},workdir={}".format(
            *(escape(_MACHINE + path) for path in (folder, upper, work))
        )
        try:
            os.makedirs(folder, exist_ok=True)
            kernel.mount("overlay", folder, "overlay", 0, options + (",userxattr" if spec["user"] else ""))
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise
            notes.append(f"the container shares {folder} with this machine: {kernel.describe(error)}")
            _show(folder, folder)


def _bind_sys(below: list[str]) -> None:
    """Bind what is mounted in /sys, as cgroups are."""
    last = None
    for point in below:
        if point.startswith("/sys/") and not (last and point.startswith(last + "/")):
            last = point
            with contextlib.suppress(OSError):
                kernel.mount(_MACHINE + point, point, None, kernel.MS_BIND | kernel.MS_REC)
