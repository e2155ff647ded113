"""A commit of changes on a branch of its own in the user's repository.

It is made beside the work tree and the index, which stay as they are, whatever is changed or staged there: the patch is
applied to a copy of HEAD's tree in an index of its own, as in a worktree that nobody has to check out. So no hook and
no filter of the repository runs on what came from a container, and a branch is there whole or not at all. Nothing is
pushed.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ExitStatus, SmsshError
from ..terminal import line
from .git_patch import run_git

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence

__all__ = ["Repository", "check_name", "commit"]

_OURS = (
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "gc.auto=0",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.quotePath=true",
)

_ELSEWHERE = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
)
"""Variables with which git works on another repository: those of a hook that smssh is run by."""


@dataclass(frozen=True)
class Repository:
    """The user's repository, and where in it the code lies.

    Attributes:
        top: its top folder.
        prefix: the path of the code's folder in it, with a `/` at its end; empty for the top itself.
        object_format: sha1 or sha256, of which the ids of its objects are.
    """

    top: Path
    prefix: bytes
    object_format: str = "sha1"

    @classmethod
    def of(cls, folder: Path) -> Repository | None:
        """The repository that a folder is in; None if it is in none.

        Raises:
            SmsshError: there is no git here, or it does not work in that repository.
        """
        done = _git(folder, ["rev-parse", "--show-toplevel", "--show-prefix"])
        lines = done.stdout.split(b"\n")
        if b"not a git repository" in done.stderr:
            return None
        if done.returncode or len(lines) < 2:
            said = line(done.stderr.decode("utf-8", "replace").strip())
            raise SmsshError(f"git rev-parse failed in {folder}: {said}", reference="git-failed")
        # git before 2.29 does not know the question, and no other format; before 2.19, it repeats the question.
        told = _git(folder, ["rev-parse", "--show-object-format"])
        is_sha256 = not told.returncode and told.stdout.strip() == b"sha256"
        return cls(Path(os.fsdecode(lines[0])), lines[1], "sha256" if is_sha256 else "sha1")


def check_name(repository: Repository, name: str) -> None:
    """See that a branch of this name can be made.

    Raises:
        SmsshError: it is not a name, or there is such a branch.
    """
    if name.startswith("-") or _git(repository.top, ["check-ref-format", f"refs/heads/{name}"]).returncode:
        raise SmsshError(
            f"{name!r} is not a name for a branch", reference="bad-branch", status=ExitStatus.USAGE
        )
    if _git(repository.top, ["show-ref", "--verify", "--quiet", f"refs/heads/{name}"]).returncode == 0:
        raise _exists(name)


def commit(repository: Repository, name: str, patch: bytes, subject: str, trailers: Mapping[str, str]) -> str:
    """Commit a patch on a new branch that begins at HEAD; the id of the commit.

    Args:
        repository: the user's repository.
        name: the name of the branch.
        patch: the patch, from the top of the repository.
        subject: the first line of the message.
        trailers: the lines at its end, by their names.

    Raises:
        SmsshError: the patch does not apply to HEAD, there is such a branch, or git failed.
    """
    head = _said(
        repository, ["rev-parse", "--verify", "--quiet", "HEAD^{commit}"], why="there is no commit yet"
    )
    with tempfile.TemporaryDirectory(prefix="smssh-branch-") as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _said(repository, ["read-tree", head], index)
        # Not the user's whitespace rules: the code is as it ran.
        words = ["apply", "--cached", "--whitespace=nowarn", "--no-ignore-whitespace", "-"]
        done = _git(repository.top, words, index, patch)
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().partition("\n")[0].removeprefix("error: ")
            raise SmsshError(
                f"the patch does not apply to HEAD: {line(said)}",
                hint="check out the commit that was submitted, or write the patch with -o and use `git apply --3way`",
                reference="patch-does-not-apply",
            )
        tree = _said(repository, ["write-tree"], index)
    text = f"{line(subject)}\n\n" + "".join(f"{key}: {line(value)}\n" for key, value in trailers.items())
    made = _said(repository, ["commit-tree", tree, "-p", head, "-F", "-"], data=text.encode())
    # With an empty old value: a branch that somebody has made meanwhile stays theirs.
    if _git(repository.top, ["update-ref", f"refs/heads/{name}", made, ""]).returncode:
        raise _exists(name)
    return made


def _exists(name: str) -> SmsshError:
    return SmsshError(
        f"there is a branch {name!r} already, or it cannot be made",
        hint="choose another name, or remove the branch",
        reference="branch-exists",
    )


def _said(
    repository: Repository,
    words: Sequence[str],
    environ: Mapping[str, str] | None = None,
    data: bytes = b"",
    why: str = "",
) -> str:
    """What a git command writes.

    Raises:
        SmsshError: it failed.
    """
    done = _git(repository.top, words, environ, data)
    if done.returncode:
        said = why or line(done.stderr.decode("utf-8", "replace").strip())
        raise SmsshError(f"git {words[0]} failed in {repository.top}: {said}", reference="git-failed")
    return done.stdout.decode("utf-8", "replace").strip()


def _git(
    folder: Path, words: Sequence[str], environ: Mapping[str, str] | None = None, data: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run git in a folder, with the user's configuration, and without variables that name another repository."""
    own = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    environ = {**own, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", **(environ or {})}
    return run_git(folder, _OURS, words, environ, data)
