"""From a container's folder to a patch that git takes in the user's repository, and answers of a hostile container."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import threading
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.debug import branch, captured, changes, diff, git_patch
from smssh_plugin.errors import SmsshError
from smssh_plugin.hookspecs import Context, Job
from smssh_plugin.settings import Settings
from smssh_plugin.supervisor import code_changes, code_tree
from smssh_plugin.supervisor.code_answer import send
from smssh_plugin.supervisor.code_changes import CodeChanges
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.needs("git")

BINARY = bytes(range(256)) * 20
ODD = os.fsdecode(b"caf\xc3\xa9 \"x\" 'y'\n\xff\\.py")


def git(folder: Path, *words: str, data: bytes | None = None, **environ: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words],
        cwd=folder,
        input=data,
        capture_output=True,
        env={**os.environ, **environ},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("utf-8", "surrogateescape")


class World:
    """A container's folder of code, and a repository that has the same below `src/train`."""

    def __init__(self, folder: Path) -> None:
        self.code = folder / "code"
        self.code.mkdir()
        self.run = folder / "run"
        self.run.mkdir(mode=0o700)
        job = Job("job-1", "training", "algo-1")
        self.context = Context(Settings(), job, self.run, {}, str(self.code), "")
        self.kept = CodeChanges(self.context, lambda: 1e9, lambda: 0)
        self.repository = folder / "repository"
        self.source = self.repository / "src" / "train"

    def write(self, **files: bytes) -> None:
        for name, data in files.items():
            path = self.code / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def submit(self) -> None:
        """What is there now is what the user has committed, and what the job was held with."""
        subprocess.run(["cp", "-a", str(self.code), str(self.source)], check=True)
        git(self.repository, "init", "-q")
        git(self.repository, "add", "-A")
        git(self.repository, "commit", "-q", "-m", "one")
        self.kept.held(0.0)

    def answer(self) -> bytes:
        out = io.BytesIO()
        send(self.run, str(self.code), out)
        return out.getvalue()

    def found(self) -> changes.Changes:
        return changes.parse(io.BytesIO(b"Welcome!\n" + self.answer()))

    def is_reproduced(self) -> bool:
        done = subprocess.run(
            ["diff", "-r", "--no-dereference", str(self.code), str(self.source)], check=False
        )
        return done.returncode == 0


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.source.parent.mkdir(parents=True)
    return made


def edit(world: World) -> None:
    world.write(
        **{
            "train.py": b"import sys\nprint('one')\nprint('two')\n",
            "crlf.py": b"a\r\nb\r\nc\r\n",
            "no_end.py": b"a\nb",
            "weights.bin": BINARY,
            "latin.txt": b"caf\xe9\n",
            "gone.py": b"gone\n",
            "empty_goes": b"",
            "becomes_folder": b"file\n",
            "folder__inner.py": b"inner\n",
            ODD: b"odd\n",
            "same.py": b"same\n",
        }
    )
    (world.code / "link").symlink_to("train.py")
    world.submit()
    world.write(
        **{
            "train.py": b"import sys\nprint('1')\nprint('two')\n\t \nx\n",
            "crlf.py": b"a\r\nB\r\nc\r\n",
            "no_end.py": b"a\nb\nc",
            "weights.bin": BINARY[::-1] + b"\0",
            "latin.txt": b"th\xe9\n",
            "new__deep__file.py": b"x = 1\n",
            "empty": b"",
            "new.bin": b"\0\1\2",
            ODD: b"odder\n",
            "-o x.py": b"dash\n",
        }
    )
    for name in ("gone.py", "empty_goes", "becomes_folder", "folder/inner.py"):
        (world.code / name).unlink()
    (world.code / "folder").rmdir()
    world.write(becomes_folder__inner=b"x\n", folder=b"now a file\n")
    (world.code / "link").unlink()
    (world.code / "link").symlink_to("same.py")
    (world.code / "fresh").symlink_to("new/deep")
    (world.code / "train.py").chmod(0o755)


HOSTILE_CONFIGURATION = """\
[core]
    autocrlf = true
    whitespace = trailing-space,cr-at-eol
    fileMode = true
    attributesFile = {folder}/attributes
    hooksPath = {folder}/hooks
    pager = touch {folder}/ran
    fsmonitor = touch {folder}/ran
[diff]
    noprefix = true
    mnemonicPrefix = true
    external = touch {folder}/ran
    renames = copies
    algorithm = patience
    context = 0
[diff "run"]
    textconv = touch {folder}/ran; cat
    command = touch {folder}/ran
[filter "run"]
    clean = touch {folder}/ran; cat
    smudge = touch {folder}/ran; cat
[color]
    ui = always
    diff = always
[init]
    templateDir = {folder}/template
"""


def test_git_apply_reproduces_every_change(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(world)
    found = diff.of_changes(world.found(), world.found().changes)
    assert found.notes == []
    git(world.repository, "apply", "--directory=src/train", "-", data=found.patch)
    assert world.is_reproduced()
    assert b"old mode" not in found.patch
    assert "train.py" in found.stat
    # The same, byte for byte, wherever the user's git is told to do otherwise, or what came along tells it.
    hostile = tmp_path / "hostile"
    for name in ("hooks", "template"):
        (hostile / name).mkdir(parents=True)
    (hostile / "attributes").write_text("* text eol=crlf diff=run filter=run\n")
    (hostile / "gitconfig").write_text(HOSTILE_CONFIGURATION.format(folder=hostile))
    (hostile / ".gitconfig").write_text(HOSTILE_CONFIGURATION.format(folder=hostile))
    monkeypatch.setenv("HOME", str(hostile))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(hostile / "gitconfig"))
    monkeypatch.setenv("GIT_DIR", str(hostile))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", f"touch {hostile}/ran")
    monkeypatch.setenv("GIT_TRACE", str(hostile / "ran"))
    world.write(**{".gitattributes": b"* text eol=crlf diff=run filter=run\n"})
    again = {change.path: change for change in world.found().changes}
    del again[b".gitattributes"]
    assert git_patch.patch(list(again.values())) == found.patch
    with_attributes = git_patch.patch(world.found().changes)
    assert b"+* text eol=crlf diff=run filter=run" in with_attributes
    assert not (hostile / "ran").exists()


def test_the_paths_are_those_of_the_repository(world: World) -> None:
    edit(world)
    repository = branch.Repository.of(world.source)
    assert repository is not None
    assert repository.prefix == b"src/train/"
    found = diff.of_changes(world.found(), world.found().changes, world.source, repository.prefix)
    assert found.differing == []
    git(world.repository, "apply", "-", data=found.patch)
    assert world.is_reproduced()


def test_random_changes_are_reproduced(world: World) -> None:
    chance = random.Random(13)

    def content() -> bytes:
        lines = [
            chance.choice([b"a", b"bb ", b"\tc", b"", b"\r", b"caf\xe9", b"\0"])
            for _ in range(chance.randrange(12))
        ]
        return b"\n".join(lines) + chance.choice([b"", b"\n", b"\r\n"])

    names = [f"{chance.choice('abc')}/{chance.choice('xyz')} {number}" for number in range(60)]
    world.write(**{name: content() for name in names[:40]})
    world.submit()
    for name in chance.sample(names[:40], 12):
        (world.code / name).unlink()
    world.write(**{name: content() for name in chance.sample(names, 25)})
    patch = git_patch.patch(world.found().changes)
    git(world.repository, "apply", "--directory=src/train", "-", data=patch)
    for folder in sorted(world.code.rglob("*")):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    assert world.is_reproduced()


def test_files_that_differ_here_are_named(world: World) -> None:
    world.write(
        **{"train.py": b"one\n", "other.py": b"one\n", "only_there.py": b"", "made.txt": b"by the script"}
    )
    world.submit()
    world.write(**{"train.py": b"two\n", "only_there.py": b"x"})
    (world.source / "other.py").write_bytes(b"edited since\n")
    for name in ("only_there.py", "made.txt"):
        (world.source / name).unlink()
    found = world.found()
    assert diff.of_changes(found, found.changes, world.source).differing == [
        "only_there.py (not there)",
        "other.py",
    ]


def test_a_large_base_is_taken_from_the_source(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smssh_plugin.supervisor.code_changes.BYTES_LIMIT", 100)
    world.write(**{"weights.bin": BINARY, "train.py": b"one\n"})
    world.submit()
    world.write(**{"weights.bin": BINARY + b"x", "train.py": b"two\n"})
    found = world.found()
    without = diff.of_changes(found, found.changes)
    assert [change.name for change in without.changes] == ["train.py"]
    assert without.notes == [
        "weights.bin is left out: what it was before, or is now, was too large to be kept"
    ]
    filled = changes.with_base_of(found, world.source)
    git(world.repository, "apply", "--directory=src/train", "-", data=git_patch.patch(filled.changes))
    assert world.is_reproduced()


def test_what_is_too_large_to_be_sent_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smssh_plugin.supervisor.code_answer.SENT_LIMIT", 1000)
    world.write(**{"train.py": b"one\n"})
    world.submit()
    world.write(**{"train.py": b"two\n", "model.bin": BINARY})
    found = world.found()
    made = diff.of_changes(found, found.changes)
    assert [change.name for change in made.changes] == ["train.py"]
    assert made.notes == ["model.bin is too large, and is left out"]


def test_a_folder_that_becomes_a_link_while_it_is_looked_at(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write(**{"train.py": b"one\n", "sub__secret": b"plain\n", "sub__deep__secret": b"plain\n"})
    outside = world.run.parent / "outside"
    (outside / "deep").mkdir(parents=True)
    for secret in (outside / "secret", outside / "deep" / "secret"):
        secret.write_bytes(b"of root\n")
    real = code_changes.scan

    def scan(*args: Any, **options: Any) -> Any:
        found = real(*args, **options)
        (world.code / "sub").rename(world.code / "was")
        (world.code / "sub").symlink_to(outside)
        return found

    monkeypatch.setattr(code_changes, "scan", scan)
    world.kept.held(0.0)
    kept = {path.read_bytes() for path in (world.run / "code" / "objects").iterdir()}
    assert kept == {b"one\n"}


def test_folders_and_pipes_are_counted_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_tree, "ENTRIES_LIMIT", 10)
    for number in range(6):
        (world.code / f"folder-{number}").mkdir()
        os.mkfifo(world.code / f"pipe-{number}")
    with pytest.raises(code_tree.TooLargeError, match="more than 10 files"):
        code_tree.scan(str(world.code), world.run, {})


def test_a_disk_that_is_nearly_full_is_left_to_the_job(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(world.run)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=20_000))
    world.write(**{"train.py": b"one\n", "weights.bin": BINARY})
    world.kept.held(0.0)
    kept = [path.read_bytes() for path in (world.run / "code" / "objects").iterdir()]
    assert kept == [b"one\n"]


def test_a_disk_that_becomes_full_gets_back_what_was_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = code_changes.read

    def read(folder: str, path: str, *rest: Any) -> Any:
        if path == "weights.bin":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(folder, path, *rest)

    monkeypatch.setattr(code_changes, "read", read)
    world.write(**{"train.py": b"one\n", "weights.bin": BINARY})
    world.kept.held(0.0)
    assert not (world.run / "code" / "objects").exists()
    world.write(**{"train.py": b"two\n"})
    assert [change.name for change in world.found().changes] == ["train.py"]


@pytest.mark.parametrize("slow", ["held", "begins"])
def test_what_an_attempt_writes_is_no_persons_change_where_a_look_was_late(
    world: World, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    """As on a network file system: the look at the end of attempt 1, or at the start of attempt 2, takes too long."""
    world.write(**{"train.py": b"one\n"})
    os.utime(world.code / "train.py", (0, 0))
    world.kept.held(2.0)
    world.kept.begins(1)
    real, waits, let_go, done = code_changes.scan, threading.Event(), threading.Event(), threading.Event()

    def scan(*arguments: Any, **options: Any) -> Any:
        waits.set()
        let_go.wait(60)
        try:
            return real(*arguments, **options)
        finally:
            done.set()

    def late(call: Callable[..., None], *arguments: Any) -> None:
        monkeypatch.setattr(code_changes, "SECONDS_LIMIT", 0.05)
        monkeypatch.setattr(code_changes, "scan", scan)
        call(*arguments)
        monkeypatch.undo()
        assert waits.is_set()

    if slow == "held":
        late(world.kept.held, 2.0)
        world.write(**{"train.py": b"fixed\n"})
        world.kept.begins(2)
    else:
        world.kept.held(2.0)
        world.write(**{"train.py": b"fixed\n"})
        late(world.kept.begins, 2)
    world.write(**{"scores.csv": b"1,2\n"})
    let_go.set()
    assert done.wait(60)
    until(lambda: not any(one.name == "code-changes" for one in threading.enumerate()), what="the late look")
    world.kept.held(2.0)
    found = world.found()
    assert [change.name for change in found.changes] == ["train.py"]
    assert [change.name for change in found.unsure] == ["scores.csv"]


def test_links_that_lead_out_are_left_out(world: World) -> None:
    world.write(**{"train.py": b"one\n"})
    world.submit()
    (world.code / "sub").mkdir()
    for name, target in {
        "absolute": "/etc/passwd",
        "up": "../outside",
        "sub/far": "../../outside",
        "sub/near": "../train.py",
        "sub/around": "../sub/../../code",
    }.items():
        (world.code / name).symlink_to(target)
    found = world.found()
    assert [change.name for change in found.changes] == ["sub/near"]
    assert len(found.notes) == 4


def told(**fields: Any) -> io.BytesIO:
    blobs = fields.pop("contents", [])
    head = {"version": 1, "code_dir": "/opt/ml/code", "base": True, "error": "", "taken": 1.0}
    head["blobs"] = [[hashlib.sha256(data).hexdigest(), len(data)] for data in blobs]
    return io.BytesIO(json.dumps({**head, **fields}).encode() + b"\n" + b"".join(blobs))


def added(path: Any, kind: Any = "file", digest: Any = None) -> dict[str, Any]:
    if digest is None:
        digest = hashlib.sha256(b"x").hexdigest()
    return {"path": path, "before": None, "after": {"kind": kind, "digest": digest, "size": 1}}


@pytest.mark.parametrize(
    "path",
    [
        "../x", "/etc/passwd", "a/../../x", "a//b", "", ".", "./x", "a/.", "x\0y", "x" * 5000, 7, None, ["x"],
        "\ud800",
    ],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_refused(path: object) -> None:
    with pytest.raises(SmsshError, match="cannot be used"):
        changes.parse(told(changes=[added(path)], contents=[b"x"]))


@pytest.mark.parametrize(
    "path",
    [
        ".git/config", ".GIT/hooks/post-checkout", "a/.git/config", "git~1/config", ".g\u200cit/config", ".git ./x",
        ".git::$INDEX_ALLOCATION/x",
    ],
)  # fmt: skip
def test_gits_own_files_are_left_out(path: str) -> None:
    found = changes.parse(told(changes=[added(path), added("x.py")], contents=[b"x"]))
    assert [change.name for change in found.changes] == ["x.py"]
    assert len(found.notes) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"changes": [added("a"), added("a")]},
        {"changes": [added("a"), added("a/b")]},
        {"changes": [added("a", "link", "b"), added("a/b")]},
        {"changes": [added("a", "device")]},
        {"changes": [added("a", "file", "../../etc/passwd")]},
        {"changes": [added("a", "link", "")]},
        {"changes": ["a"]},
        {"changes": [{"path": "a", "before": 1}]},
        {"changes": [added(f"{number}") for number in range(200_001)]},
        {"blobs": [["x", 1]]},
        {"blobs": [[hashlib.sha256(b"x").hexdigest(), 1 << 40]]},
        {"blobs": [[hashlib.sha256(b"x").hexdigest(), -1]]},
        {"blobs": [[hashlib.sha256(b"x").hexdigest(), 10]]},
        {"attempts": {"x": []}},
        {"code_dir": None},
        {"version": "x"},
    ],
    ids=range(16),
)
def test_an_answer_that_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(SmsshError, match="cannot be used"):
        changes.parse(told(**fields))


@pytest.mark.parametrize(
    "answer", [b"", b"no\n", b'{"version": 1\n', b'{"version": 1, "x": ' + b"[" * 100000 + b"\n"]
)
def test_what_is_no_answer_is_refused(answer: bytes) -> None:
    with pytest.raises(SmsshError, match="cannot be used"):
        changes.parse(io.BytesIO(answer))


def test_a_content_that_is_not_its_digest_is_not_used() -> None:
    answer = told(changes=[added("a.py")], contents=[b"x"]).getvalue()[:-1] + b"y"
    (change,) = changes.parse(io.BytesIO(answer)).changes
    assert not change.is_known


def test_a_large_file_here_is_not_read_into_memory(tmp_path: Path) -> None:
    size = 400 << 20
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(size)
    found = changes.parse(told(changes=[], files={"weights.bin": "0" * 64}))
    tracemalloc.start()
    try:
        assert changes.differing(found, tmp_path, []) == ["weights.bin"]
        assert tracemalloc.get_traced_memory()[1] < size // 10
    finally:
        tracemalloc.stop()


def test_a_flood_of_files_that_are_left_out_is_counted() -> None:
    flood = [f"file-{number}" for number in range(1000)]
    found = changes.parse(told(changes=[], unread=flood, too_large=flood))
    assert len(found.notes) == 51
    assert found.notes[-1] == "1950 more files are left out, or were not read"
    lost = [added(name, digest="0" * 64) for name in flood]
    found = changes.parse(told(changes=lost))
    notes = diff.of_changes(found, found.changes).notes
    assert len(notes) == 51
    assert notes[-1] == "950 more files are left out for the same reason"


def test_many_looks_keep_the_diffs_of_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter(range(1000))

    def fetch(*_: object) -> changes.Changes:
        number = next(looks)
        data = b"%d" % number
        now = [added("x.py", digest=hashlib.sha256(data).hexdigest())]
        return changes.parse(told(changes=now, attempts={str(number): now}, contents=[data]))

    monkeypatch.setattr(captured, "fetch", fetch)
    monkeypatch.setattr(captured, "ATTEMPTS_KEPT", 3)
    taken = captured.Captured()
    for _ in range(6):
        taken.take(None, "Train", "algo-1.Train", "algo-1", 0)  # type: ignore[arg-type]
    (host,) = taken._hosts.values()
    assert len(host.made) == 1
    assert sorted(host.attempts) == [3, 4, 5]
    assert host.current is not None
    assert b"+5" in host.current.patch


def test_a_hostile_name_is_nothing_but_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of fast-import's commands nor of a terminal's, and nothing is written outside of the scratch folder."""
    names = [
        "a\nM 100644 inline evil", 'x"\ndone\n', "\x1b]0;title\x07", "--git-dir=x",
        "x\\", "$(touch ran)", "\u202e",
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    found = changes.parse(told(changes=[added(name) for name in names], contents=[b"x"]))
    made = diff.of_changes(found, found.changes)
    (tmp_path / "user").mkdir()
    git(tmp_path / "user", "init", "-q")
    git(tmp_path / "user", "apply", "-", data=made.patch)
    user = tmp_path / "user"
    there = [
        str(each.relative_to(user)) for each in user.rglob("*") if each.is_file() and ".git" not in each.parts
    ]
    assert sorted(there) == sorted(names)
    assert [each.name for each in tmp_path.iterdir()] == ["user"]
    assert all(change.name.isprintable() for change in found.changes)


@pytest.fixture
def committed(world: World) -> Callable[[str], str]:
    edit(world)
    repository = branch.Repository.of(world.source)
    assert repository is not None

    def commit(name: str) -> str:
        branch.check_name(repository, name)
        found = world.found()
        made = diff.of_changes(found, found.changes, world.source, repository.prefix)
        return branch.commit(repository, name, made.patch, "Change it", {"Smssh-Job": "job-1\nEvil: x"})

    git(world.repository, "config", "user.name", "A Person")
    git(world.repository, "config", "user.email", "a@example.com")
    return commit


def state(world: World) -> list[str]:
    """What is checked out and staged."""
    asked = (("status", "--porcelain"), ("rev-parse", "HEAD"), ("symbolic-ref", "HEAD"))
    return [git(world.repository, *words) for words in asked]


def test_a_branch_beside_what_is_checked_out(world: World, committed: Callable[[str], str]) -> None:
    (world.source / "same.py").write_text("work in progress\n")
    (world.repository / "staged").write_text("staged\n")
    git(world.repository, "add", "staged")
    hook = world.repository / ".git" / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {world.repository}/ran\n")
    hook.chmod(0o755)
    before = state(world)
    made = committed("fix/train")
    assert not (world.repository / "ran").exists()
    hook.unlink()
    after = state(world)
    assert before == after
    assert git(world.repository, "rev-parse", "fix/train", "fix/train^").split() == [made, before[1].strip()]
    message = git(world.repository, "show", "-s", "--format=%B|%an", "fix/train")
    assert message == "Change it\n\nSmssh-Job: job-1 Evil: x\n|A Person\n"
    subprocess.run(["rm", "-r", str(world.source)], check=True)
    git(world.repository, "stash", "-q")
    git(world.repository, "checkout", "-q", "fix/train")
    assert world.is_reproduced()


def test_a_branch_that_is_there_is_not_touched(world: World, committed: Callable[[str], str]) -> None:
    git(world.repository, "branch", "mine")
    before = git(world.repository, "rev-parse", "mine")
    with pytest.raises(SmsshError, match="a branch 'mine' already"):
        committed("mine")
    assert git(world.repository, "rev-parse", "mine") == before
    for name in ("", "-f", "a b", "a..b", "@{-1}", "x.lock"):
        with pytest.raises(SmsshError, match="is not a name for a branch"):
            committed(name)


def test_a_patch_that_head_does_not_take(world: World, committed: Callable[[str], str]) -> None:
    (world.source / "train.py").write_text("something else\n")
    git(world.repository, "commit", "-qam", "two")
    with pytest.raises(SmsshError, match="does not apply to HEAD"):
        committed("fix")
    assert "fix" not in git(world.repository, "branch")


def test_a_repository_of_sha256(world: World) -> None:
    edit(world)
    world.repository.joinpath(".git").rename(world.run.parent / "sha1")
    git(world.repository, "init", "-q", "--object-format=sha256")
    git(world.repository, "config", "user.name", "A Person")
    git(world.repository, "config", "user.email", "a@example.com")
    git(world.repository, "add", "-A")
    git(world.repository, "commit", "-q", "-m", "one")
    repository = branch.Repository.of(world.source)
    assert repository is not None
    found = world.found()
    made = diff.of_changes(
        found, found.changes, world.source, repository.prefix, object_format=repository.object_format
    )
    branch.commit(repository, "fix", made.patch, "Change it", {})
    subprocess.run(["rm", "-r", str(world.source)], check=True)
    git(world.repository, "checkout", "-q", "-f", "fix")
    assert world.is_reproduced()


def test_what_keeps_git_from_a_repository_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(world)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(SmsshError, match=r"(?s)git rev-parse failed in .*dubious ownership"):
        branch.Repository.of(world.source)
    monkeypatch.delenv("GIT_TEST_ASSUME_DIFFERENT_OWNER")
    git(world.repository, "init", "-q", "--bare", "bare.git")
    with pytest.raises(SmsshError, match="work tree"):
        branch.Repository.of(world.repository / "bare.git")
    assert branch.Repository.of(world.run) is None


def test_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = changes.parse(told(changes=[added("x.py")], contents=[b"x"]))
    with pytest.raises(SmsshError, match="no git on this machine"):
        diff.of_changes(found, found.changes)
