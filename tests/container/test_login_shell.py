"""What the files of a login hold, and apt where it cannot work."""

import os
import stat
import subprocess
import time

import pytest

from smssh_plugin.container import login_shell, openssh
from smssh_plugin.entrypoints import boot
from smssh_plugin.errors import SmsshError
from smssh_plugin.hooks import apt, sshd
from smssh_plugin.hookspecs import Context, Failure, Job
from smssh_plugin.settings import load
from tests import needs
from tests.waiting import until


@pytest.fixture
def context(tmp_path):
    def make(environ=None, **settings):
        run = tmp_path / "run"
        run.mkdir(exist_ok=True)
        return Context(load(settings), Job("job", "training", "algo-1"), run, environ or {}, "/code", "")

    return make


@pytest.fixture
def program(tmp_path):
    """Makes an executable file."""

    def make(path, text="#!/bin/sh\n"):
        path = tmp_path / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    return make


def test_the_right_python(program, tmp_path) -> None:
    own, usual = program("venv/bin/python3.11"), program("usual/python")
    path = str(usual.parent)
    script = program("usual/train", f"#!{own}\nimport x\n")
    env = program("usual/other", "#!/usr/bin/env python\n")
    assert login_shell.interpreter_dir([str(own), "train.py"], path) == str(own.parent)
    assert login_shell.interpreter_dir([str(usual), "train.py"], path) is None
    assert login_shell.interpreter_dir(["python", "train.py"], path) is None
    # A console script on the PATH, as the training toolkit's `train`.
    assert login_shell.interpreter_dir(["train"], path) == str(own.parent)
    assert login_shell.interpreter_dir([str(script)], path) == str(own.parent)
    for other in ([str(env)], ["/bin/sh", "-c", "x"], ["none"], [], [""], [str(tmp_path / "python3")]):
        assert login_shell.interpreter_dir(other, path) is None


def test_environment(context, tmp_path, program) -> None:
    own = program("venv/bin/python")
    given = {
        "PATH": "/usr/bin:/bin",
        "A": "1",
        "LINES": "5",
        "SHELL": "/bin/x",
        "SSH_AUTH_SOCK": "/old",
        "HOME": "/",
    }
    made = context(given)
    variables = login_shell.environment(made, [str(own), "x.py"])
    assert variables["PATH"] == f"{made.run_dir}/bin:{own.parent}:/usr/bin:/bin"
    assert variables["A"] == "1"
    assert not {"LINES", "SHELL", "SSH_AUTH_SOCK"} & set(variables)
    given["PATH"] = variables["PATH"]
    assert login_shell.environment(made, [str(own), "x.py"])["PATH"] == variables["PATH"]  # not twice
    assert variables["HOME"] != "/"
    given["HOME"] = str(tmp_path)
    assert login_shell.environment(made)["HOME"] == str(tmp_path)


@pytest.mark.parametrize("shell", ["sh", "bash", "busybox"])
def test_any_value_survives(context, shell, tmp_path) -> None:
    """Through the session script, in whatever /bin/sh is."""
    path = needs.program(shell)
    command = [path, *{"busybox": ["sh"], "bash": ["--posix"]}.get(shell, [])]
    odd = {
        "QUOTES": "'a' \"b\" `c` $D \\ !e",
        "LINES_OF": "a\n\nb\n",
        "BYTES": os.fsdecode(b"\xff\xfe"),
        "EMPTY": "",
        "UID": "7",
        "PPID": "7",
        "BASHOPTS": "x",
        "not-a-name": "x",
        "BASH_FUNC_x%%": "() { :; }",
        "path": "kept",
        "SENT": "the job's",
        "HOME": str(tmp_path),
    }
    made = context({"PATH": os.environ["PATH"], **odd})
    login_shell.write_files(made, [])
    done = subprocess.run(
        [*command, str(login_shell.ssh_dir(made) / "session")],
        env={
            "SSH_ORIGINAL_COMMAND": "env -0",
            "SHELL": "/bin/sh",
            "SENT": "the client's",
            "HOME": "/x",
            "PATH": "/x",
        },
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    found = dict(os.fsdecode(line).split("=", 1) for line in done.stdout.split(b"\0") if line)
    for name in ("QUOTES", "LINES_OF", "BYTES", "EMPTY", "path", "HOME"):
        assert found[name] == odd[name]
    assert found["SENT"] == "the client's"
    assert found["PATH"].endswith(os.environ["PATH"])
    assert "SSH_ORIGINAL_COMMAND" not in found


def test_files_are_private(context) -> None:
    made = context({"A": "secret"})
    login_shell.write_files(made, [])
    for path in login_shell.ssh_dir(made).iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_later_logins_get_what_the_job_has_by_then(context, monkeypatch) -> None:
    """The toolkits add the SM_* variables right before the entry point."""
    made = context({"PATH": "/usr/bin"})
    sshd.smssh_before_entry_point(made, ["x"])  # no server yet: nothing to write to
    assert not (made.run_dir / "ssh").exists()
    monkeypatch.setattr(openssh._State, "child", object())
    sshd.smssh_before_entry_point(made, ["x"])
    made.environment["SM_MODEL_DIR"] = "/opt/ml/model"
    sshd.smssh_entry_point_failed(made, Failure(1, ("x",), 1))
    assert "SM_MODEL_DIR '/opt/ml/model'" in (made.run_dir / "ssh" / "environment").read_text()


# ------------------------------------------------------------------------------------------- apt


@pytest.fixture
def archive(program, monkeypatch, tmp_path):
    """Makes an apt-get of a few lines of shell, and has it used."""

    def make(text):
        path = program("bin/apt-get", "#!/bin/sh\n" + text)
        monkeypatch.setattr(apt, "PATH", f"{path.parent}:{os.environ['PATH']}")
        monkeypatch.setattr(apt, "POLICY", str(tmp_path / "policy"))
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        apt._State.stopping.clear()
        apt._State.process = None

    return make


def test_apt_asks_for_nothing_and_starts_nothing(context, archive, tmp_path) -> None:
    archive(
        f'echo "$DEBIAN_FRONTEND $* $https_proxy $(umask)" >> {tmp_path}/said; cat {tmp_path}/policy; cat'
    )
    apt.install(context({"https_proxy": "http://proxy", "DEBIAN_FRONTEND": "dialog", "SECRET": "x"}))
    updated, installed = (tmp_path / "said").read_text().splitlines()
    assert updated.startswith("noninteractive ")
    assert updated.endswith(" update http://proxy 0022")
    assert installed.endswith(" install -y --no-install-recommends openssh-server http://proxy 0022")
    assert not (tmp_path / "policy").exists()
    assert "exit 101" in (tmp_path / "run" / "ssh" / "apt.log").read_text()


def test_a_policy_of_the_image_stays(context, archive, tmp_path) -> None:
    (tmp_path / "policy").write_text("the image's")
    archive(":")
    apt.install(context())
    assert (tmp_path / "policy").read_text() == "the image's"


def test_what_apt_says_is_one_line(context, archive, tmp_path) -> None:
    archive(
        'echo "E: of $8"; for word; do [ $word != install ] || { echo noise; echo "E: No route"; exit 100; }; done'
    )
    with pytest.raises(SmsshError) as caught:
        apt.install(context())
    assert str(caught.value).startswith("openssh-server is not installed: apt-get install: ")
    assert str(caught.value).endswith("No route")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "policy").exists()


def test_apt_is_bounded(context, archive, monkeypatch, tmp_path) -> None:
    archive(f"sleep 1000 & echo $! >> {tmp_path}/pids; wait")
    monkeypatch.setattr(apt, "STEP_LIMITS", {"update": 0.3, "install": 0.3})
    began = time.monotonic()
    with pytest.raises(SmsshError, match="apt-get install took longer than"):
        apt.install(context())
    assert time.monotonic() - began < 30
    for pid in (tmp_path / "pids").read_text().split():
        until(lambda pid=pid: boot.start_time(pid) is None, what="the end of what apt-get started")


def test_apt_where_it_cannot_be(context, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SmsshError, match="user id 1000"):
        apt.install(context())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(apt, "PATH", str(tmp_path))
    with pytest.raises(SmsshError, match="the image has no apt-get"):
        apt.install(context())
