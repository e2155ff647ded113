"""What people change in a job's code, from a real container to a patch that git takes."""

import io
import os
import subprocess
import sys
import threading

import pytest

from smssh_plugin.debug import changes
from smssh_plugin.errors import SmsshError
from smssh_plugin.supervisor import code_changes
from smssh_plugin.supervisor.code_answer import send
from tests.supervisor.simulated import Simulated
from tests.waiting import LIMIT, until

FAIL = "import sys\nopen('made.txt', 'a').write('x')\nsys.exit(3)\n"


class Job:
    """A container whose code is in a folder of its own."""

    def __init__(self, container, server="sshd"):
        self.container = container
        self.server = server
        self.code = container.folder / "code"
        self.code.mkdir()
        (self.code / "train.py").write_text(FAIL)

    def start(self, *, script="train.py", **environ):
        environ = {"SMSSH_HOLD": "failure", "SMSSH_SSH_SERVER": self.server, **environ}
        self.container.wrap(sys.executable, self.code / script, **environ)

    def ssh(self, *command, status=None, **options):
        status = status or self.container.status()
        done = self.container.ssh(status, *command, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def changes(self):
        done = subprocess.run(
            [str(self.container.path("bin", "smssh-hook")), "changes"],
            env=self.container.environ,
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return changes.parse(io.BytesIO(done.stdout))

    def names(self):
        return sorted(change.name for change in self.changes().changes)

    @property
    def kept(self):
        return self.container.path("code", "state.json") is not None


@pytest.fixture
def job(container):
    return Job(container)


def test_a_job_that_nobody_enters_keeps_nothing(job) -> None:
    process = job.container.wrap(sys.executable, job.code / "train.py")
    process.wait(LIMIT)
    assert process.returncode == 3
    job.container.assert_quiet()
    assert not job.kept


def test_looks_keep_nothing_and_a_login_does(job, server) -> None:
    job.server = server
    (job.code / "train.py").write_text("import time\ntime.sleep(600)\n")
    job.start()
    status = job.container.wait_for("running")
    control = {**status, "ssh": {**status["ssh"], "port": status["ssh"]["control_port"]}}
    job.ssh("smssh-hook status --json", status=control)
    assert job.changes().taken is None
    assert not job.kept
    job.ssh(f"echo '# more' >> {job.code}/train.py", status=status)
    assert job.kept
    found = job.changes()
    assert [change.name for change in found.changes] == ["train.py"]
    assert found.changes[0].before.data == b"import time\ntime.sleep(600)\n"


def test_a_copy_keeps_the_code_too(job, server) -> None:
    job.server = server
    (job.code / "train.py").write_text("import time\ntime.sleep(600)\n")
    job.start()
    status = job.container.wait_for("running")
    fresh = job.container.folder / "fresh.py"
    fresh.write_text("print('fresh')\n")
    options = job.container.ssh_options(status)
    done = subprocess.run(
        ["sftp", "-b", "-", *options, "127.0.0.1"],
        input=f"put {fresh} {job.code}/train.py\n",
        text=True,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (change,) = job.changes().changes
    assert (change.name, change.after.data) == ("train.py", b"print('fresh')\n")
    assert change.before.data == b"import time\ntime.sleep(600)\n"


def test_what_the_script_writes_is_not_a_persons(job) -> None:
    os.utime(job.code / "train.py", (1e9, 1e9))
    (job.code / "train.py").write_text(
        "import os, sys\n"
        "os.chdir(os.path.dirname(os.path.abspath(__file__)))\n"
        "open('log.txt', 'a').write('run\\n')\n"
        "number = len(open('log.txt').readlines())\n"
        "open(f'run-{number}.txt', 'w').write('made')\n"
        "sys.exit(0 if os.path.exists('fixed') else 3)\n"
    )
    os.utime(job.code / "train.py", (1e9, 1e9))
    job.start(SMSSH_HOLD="failure,end")
    job.container.wait_for("held")
    assert job.names() == []
    (job.code / "helper.py").write_text("x = 1\n")
    job.container.hook("retry", check=False)
    status = job.container.wait_for("held")
    assert status["attempt"] == 2
    assert job.names() == ["helper.py"]
    (job.code / "fixed").write_text("")
    job.container.hook("retry")
    assert job.container.wait_for("held")["attempt"] == 3
    found = job.changes()
    assert sorted(change.name for change in found.changes) == ["fixed", "helper.py"]
    assert [change.name for change in found.attempts[2]] == ["helper.py"]
    assert [change.name for change in found.attempts[3]] == ["fixed", "helper.py"]
    assert found.unsure == []
    job.container.hook("release")


SLOW = """\
import os, time
os.chdir(os.path.dirname(os.path.abspath(__file__)))
open("early.txt", "w").write("before anybody came")
while not os.path.exists("go"):
    time.sleep(0.05)
os.unlink("go")
open("early.txt", "w").write("again")
open("late.txt", "w").write("made")
raise SystemExit(3)
"""


def test_edits_while_the_job_runs_are_found_and_the_scripts_are_not(job) -> None:
    (job.code / "train.py").write_text(SLOW)
    (job.code / "settings.ini").write_text("[a]\n")
    for name in ("train.py", "settings.ini"):
        os.utime(job.code / name, (1e9, 1e9))
    job.start()
    status = job.container.wait_for("running")
    until((job.code / "early.txt").exists)
    job.ssh(f"printf '[b]\\n' > {job.code}/settings.ini; touch {job.code}/go", status=status)
    job.container.wait_for("held")
    found = job.changes()
    assert [change.name for change in found.changes] == ["settings.ini"]
    # They may be a person's, so they are named.
    assert [change.name for change in found.unsure] == ["early.txt", "late.txt"]
    assert found.unsure[0].before.data == b"before anybody came"


def test_edits_before_the_first_attempt(job) -> None:
    job.start(SMSSH_WAIT="10m")
    status = job.container.wait_for("held")
    job.ssh(f"echo 'x = 1' > {job.code}/helper.py", status=status)
    job.container.hook("release")
    until(lambda: job.container.status()["point"] == "failure")
    assert job.names() == ["helper.py"]


def test_odd_files_are_bounded_and_never_followed(job) -> None:
    outside = job.container.folder / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (job.code / "link").symlink_to(outside)
    (job.code / "inside").symlink_to("train.py")
    os.mkfifo(job.code / "pipe")
    (job.code / "locked.py").write_text("locked")
    job.start()
    job.container.wait_for("held")
    for folder in ("__pycache__", "mypkg.egg-info", ".ipynb_checkpoints", ".git"):
        (job.code / folder).mkdir()
        (job.code / folder / "file").write_text("cache")
    (job.code / "setup.py").write_text("")
    (job.code / "build").mkdir()
    (job.code / "build" / "lib.py").write_text("built")
    for name in ("train.pyc", ".train.py.swp", "train.py~", "core.123"):
        (job.code / name).write_text("left")
    (job.code / "sub" / "build").mkdir(parents=True)
    (job.code / "sub" / "build" / "mine.py").write_text("mine")
    os.mkfifo(job.code / "another")
    (job.code / "inside").unlink()
    (job.code / "inside").symlink_to("setup.py")
    (job.code / os.fsdecode(b"caf\xe9\n 'x\".txt")).write_bytes(b"\x00\xff")
    found = job.changes()
    changed = {change.path: change for change in found.changes}
    assert sorted(changed) == [b"caf\xe9\n 'x\".txt", b"inside", b"setup.py", b"sub/build/mine.py"]
    assert changed[b"inside"].after.data == b"setup.py"
    assert found.notes == []


def test_a_tree_that_is_too_large_is_compared_by_digest(job) -> None:
    with (job.code / "weights.bin").open("wb") as file:
        file.truncate(60 << 20)
    job.start()
    job.container.wait_for("held")
    with (job.code / "weights.bin").open("r+b") as file:
        file.write(b"x")
    (job.code / "train.py").write_text("print('fixed')\n")
    found = {change.name: change for change in job.changes().changes}
    assert found["train.py"].is_known
    assert not found["weights.bin"].is_known
    kept = sum(each.stat().st_size for each in (job.container.run_dir / "code" / "objects").iterdir())
    assert kept < 1 << 20


def test_more_files_than_are_looked_at(job) -> None:
    for number in range(51):
        (job.code / f"{number}").mkdir()
        for each in range(1000):
            os.link(job.code / "train.py", job.code / f"{number}" / f"{each}.py")
    job.start()
    job.container.wait_for("held")
    done = job.container.hook("changes")
    assert '"error": "' in done.stdout
    assert "has more than 50000 files" in done.stdout


def test_the_folder_is_private_and_an_old_one_is_forgotten(job) -> None:
    job.container.run_dir.mkdir(mode=0o700)
    (job.container.run_dir / "code").mkdir()
    (job.container.run_dir / "code" / "kept").write_text("")
    job.start()
    job.container.wait_for("held")
    (job.code / "train.py").write_text("print('fixed')\n")
    assert job.names() == ["train.py"]
    folder = job.container.run_dir / "code"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {each.stat().st_mode & 0o777 for each in (folder / "objects").iterdir()} == {0o600}


def test_a_folder_that_does_not_answer_delays_a_hold_no_longer_than_said(tmp_path, monkeypatch) -> None:
    """As a network file system whose server is gone: the look goes on, and nothing waits for it."""
    simulated = Simulated(tmp_path)
    simulated.context.code_dir = str(tmp_path)
    let_go = threading.Event()
    monkeypatch.setattr(code_changes, "SECONDS_LIMIT", 0.1)
    monkeypatch.setattr(code_changes, "scan", lambda *_, **__: let_go.wait(LIMIT))
    simulated.at(1.0, lambda: simulated.ask(op="release"))
    try:
        assert simulated.fail() == {"action": "release", "exit_code": None}
        assert not let_go.is_set()
    finally:
        let_go.set()


def test_a_host_that_only_stays_for_others_copies_nothing(tmp_path) -> None:
    """It ends when they do, and nobody has asked for anything."""
    simulated = Simulated(tmp_path)
    code = tmp_path / "code-of-job"
    code.mkdir()
    simulated.context.code_dir = str(code)
    simulated.at(1.0, lambda: simulated.ask(op="release"))
    simulated.operations._keep("end", "others run", simulated, with_others=True)
    assert not (tmp_path / "code").exists()


def test_a_folder_that_cannot_be_one_of_code_costs_no_hold(tmp_path) -> None:
    simulated = Simulated(tmp_path)
    simulated.context.code_dir = "/"
    simulated.at(1.0, lambda: simulated.ask(op="release"))
    assert simulated.fail() == {"action": "release", "exit_code": None}
    out = io.BytesIO()
    send(tmp_path, "/", out)
    with pytest.raises(SmsshError, match="is not known"):
        changes.parse(io.BytesIO(out.getvalue()))
