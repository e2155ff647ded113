"""Patches by git: of changes in memory, in a repository of its own that has no files but git's.

Contents and names come from a container. They reach git as objects of its database alone: no work tree is written, so
no name leads anywhere; and no configuration, attribute, hook, filter or external program is read or run, neither the
user's nor one that came along.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SmsshError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .changes import Change

__all__ = ["Git", "Trees", "patch", "run_git", "scratch"]

GIT_SECONDS = 300.0
_QUIET = (
    *("-c", "core.autocrlf=false", "-c", "core.fileMode=false", "-c", "core.quotePath=true"),
    *("-c", "core.attributesFile=/dev/null", "-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0"),
    *("-c", "core.fsmonitor=false", "-c", "core.pager=cat", "-c", "protocol.allow=never"),
)


def program() -> str:
    """The path of git.

    Raises:
        SmsshError: there is no git here.
    """
    found = shutil.which("git")
    if found is None:
        raise SmsshError(
            "there is no git on this machine, and patches are made by it",
            hint="install git; `smssh connect` and scp reach the files without it",
            reference="no-git",
        )
    return found


def run_git(
    folder: Path, options: Sequence[str], words: Sequence[str], environ: Mapping[str, str], data: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run git to its end, whatever its status is.

    Args:
        folder: where.
        options: git's own, before the command.
        words: its command and arguments.
        environ: the whole environment.
        data: its input.

    Raises:
        SmsshError: there is no git here, or it takes longer than GIT_SECONDS.
    """
    try:
        return subprocess.run(
            [program(), *options, *words],
            input=data,
            capture_output=True,
            env=environ,
            cwd=folder,
            timeout=GIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SmsshError(
            f"git {words[0]} took longer than {GIT_SECONDS:g} s", reference="git-failed"
        ) from error


class Git:
    """A bare repository in a scratch folder.

    Args:
        folder: an empty folder.
        object_format: sha1 or sha256; a repository of the other takes no patch of binary files.

    Raises:
        SmsshError: there is no git here, or it failed.
    """

    def __init__(self, folder: Path, object_format: str = "sha1") -> None:
        self._folder = folder / "repository"
        # Nothing of the user's: no configuration, no repository that GIT_DIR names, no tracing into a file.
        self._environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "LC_ALL": "C",
        }
        # An older git has no word for what it makes anyway.
        of = [] if object_format == "sha1" else [f"--object-format={object_format}"]
        self.run(["init", "--quiet", "--bare", "--template=", *of, str(self._folder)], repository=False)

    def run(self, words: Sequence[str], data: bytes = b"", *, repository: bool = True) -> bytes:
        """What a git command writes.

        Args:
            words: its command and arguments.
            data: its input.
            repository: whether it works on the repository.

        Raises:
            SmsshError: it failed.
        """
        where = [f"--git-dir={self._folder}"] if repository else []
        done = run_git(self._folder.parent, [*_QUIET, *where], words, self._environ, data)
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()
            raise SmsshError(f"git {words[0]} failed: {said}", reference="git-failed")
        return done.stdout

    def tree(self, changes: Iterable[Change], which: str, prefix: bytes = b"") -> str:
        """The id of a tree with one side of changes.

        Args:
            changes: the changes; the contents of that side are known.
            which: before or after.
            prefix: put in front of each path.
        """
        entries = [
            (prefix + one.path, content) for one in changes if (content := getattr(one, which)) is not None
        ]
        # One process for all contents: `blob` commands with marks, and a tree that refers to them.
        stream = bytearray()
        for number, (_, content) in enumerate(entries, 1):
            assert content.data is not None
            stream += b"blob\nmark :%d\ndata %d\n%s\n" % (number, len(content.data), content.data)
        stream += b"commit refs/heads/%s\ncommitter smssh <smssh> 0 +0000\ndata 0\n" % which.encode()
        for number, (path, content) in enumerate(entries, 1):
            mode = b"120000" if content.kind == "link" else b"100644"
            stream += b"M %s :%d %s\n" % (mode, number, _quoted(path))
        self.run(["fast-import", "--quiet", "--force", "--done"], bytes(stream) + b"\ndone\n")
        return self.run(["rev-parse", f"refs/heads/{which}^{{tree}}"]).decode().strip()


def _quoted(path: bytes) -> bytes:
    """A path as fast-import takes any: in quotes, as C has them."""
    plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789./_-"
    return b'"' + b"".join(bytes((each,)) if each in plain else b"\\%03o" % each for each in path) + b'"'


@contextlib.contextmanager
def scratch(object_format: str = "sha1") -> Iterator[Git]:
    """A repository that is gone afterwards.

    Args:
        object_format: see `Git`.

    Raises:
        SmsshError: there is no git here.
    """
    with tempfile.TemporaryDirectory(prefix="smssh-diff-") as name:
        yield Git(Path(name), object_format)


@dataclass(frozen=True)
class Trees:
    """Both sides of changes whose contents are known, in a scratch repository.

    Attributes:
        git: the repository.
        before: the id of a tree.
        after: of another.
    """

    git: Git
    before: str
    after: str

    @classmethod
    def of(cls, git: Git, changes: Sequence[Change], prefix: bytes = b"") -> Trees:
        """Put changes into a repository.

        Args:
            git: a scratch repository.
            changes: the changes.
            prefix: the folder of the code in the user's repository, with a `/` at its end, or nothing.

        Raises:
            SmsshError: git failed.
        """
        return cls(git, git.tree(changes, "before", prefix), git.tree(changes, "after", prefix))

    def patch(self) -> bytes:
        """The patch, which `git apply` takes from the top of a repository."""
        return self._compared("--patch", "--binary", "--full-index")

    def stat(self) -> str:
        """What `git diff --stat` shows."""
        return self._compared("--stat=100").decode("utf-8", "replace")

    def _compared(self, *words: str) -> bytes:
        fixed = (
            "--no-renames",
            "--no-ext-diff",
            "--no-textconv",
            "--no-color",
            "--src-prefix=a/",
            "--dst-prefix=b/",
        )
        return self.git.run(["diff-tree", "-r", *fixed, *words, self.before, self.after])


def patch(changes: Sequence[Change]) -> bytes:
    """The patch of changes whose contents are known, relative to the folder of the code.

    Raises:
        SmsshError: there is no git here, or it failed.
    """
    with scratch() as git:
        return Trees.of(git, changes).patch()
