"""A container's file system, as far as the tests need one: a root of links in a mount namespace of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import TYPE_CHECKING

from tests import needs
from tests.entrypoints.container import IMAGE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.entrypoints.container import Container

LEFT_OUT = frozenset(["run", "tmp", "opt", "lost+found", "boot"])
"""What an image's root has no need of, or what a test lays down itself."""

ROOT = """
set -eu
new={new}
mount -t tmpfs -o size=1m smssh-test "$new"
for path in {entries}; do
    if [ -L "/$path" ]; then cp -P "/$path" "$new/$path"
    elif [ -d "/$path" ]; then mkdir "$new/$path"; mount --rbind "/$path" "$new/$path"
    fi
done
mkdir -p "$new/tmp" "$new/opt"
{binds}
{more}
{lock}
cd {folder}
exec chroot "$new" /usr/bin/env -C {folder} "$@"
"""


def prefix(*options: str) -> list[str]:
    """The `unshare` command for new namespaces; skips the test if this user can make no namespaces."""
    command = ["unshare", "--mount", "--propagation", "private", *options]
    if os.geteuid() != 0:
        command = ["unshare", "--user", "--map-root-user", *command[1:]]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        needs.missing("namespaces", tried.stderr.strip())
    return command


def rooted(
    container: Container,
    *,
    read_only: bool,
    run: bool,
    tmp: bool,
    more: str = "",
    options: tuple[str, ...] = (),
) -> list[str]:
    """What to put before a command so that it sees an image's root.

    Args:
        container: its folder stays where it is, and writable: it stands for /opt/ml.
        read_only: whether nothing else can be written.
        run: whether there is a /run, an empty one of its own.
        tmp: whether /tmp can be written.
        more: shell commands that change the root (`$new`) before it is closed.
        options: further namespaces, for `unshare`.
    """
    command = prefix(*options)
    new = container.folder / "root"
    new.mkdir()
    binds = []
    folders = [container.folder, container.bundle]
    if IMAGE.parts[1] in LEFT_OUT:  # the checkout is below /tmp, say
        folders.append(IMAGE)
    for folder in dict.fromkeys(folders):
        target = f"{new}{folder}"
        quoted = shlex.quote(target)
        binds.append(f"mkdir -p {quoted}; mount --bind {shlex.quote(str(folder))} {quoted}")
    if run:
        binds.append('mkdir "$new/run"; mount -t tmpfs -o mode=755,size=8m smssh-test "$new/run"')
    lock = 'mount -o remount,bind,ro "$new"' if read_only else ""
    if read_only and tmp:
        raise ValueError("/tmp is a folder of the root; have it below the container's own folder")
    entries = " ".join(sorted(name for name in os.listdir("/") if name not in LEFT_OUT))
    script = ROOT.format(
        new=shlex.quote(str(new)),
        entries=entries,
        binds="\n".join(binds),
        more=more,
        lock=lock,
        folder=shlex.quote(str(container.folder)),
    )
    return [*command, "/bin/sh", "-c", script, "sh"]


def small_disk(container: Container, where: Path, *, kilobytes: int = 64, inodes: int = 0) -> list[str]:
    """What to put before a command so that a folder is a full disk: no room, or no inode, is left."""
    command = prefix()
    limits = f"size={kilobytes}k" + (f",nr_inodes={inodes}" if inodes else "")
    fill = (
        "" if inodes else f"dd if=/dev/zero of={where}/filler bs=1k count={2 * kilobytes} 2>/dev/null || true"
    )
    script = f'set -e\nmount -t tmpfs -o {limits},mode=700 smssh-test {where}\n{fill}\nexec "$@"\n'
    where.mkdir(mode=0o700, exist_ok=True)
    return [*command, "/bin/sh", "-c", script, "sh"]
