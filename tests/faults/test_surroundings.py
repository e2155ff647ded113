"""Containers that lack something: a writable root, room on the disk, /run, a network, credentials, the right
time; and containers that were used before."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from smssh_plugin.entrypoints import boot, supervisor_client
from tests import needs
from tests.waiting import LIMIT, until

from .images import add_plugin, image
from .namespaces import prefix, rooted, small_disk

CODE = "import os, sys\nopen('written', 'w').write('x'); print('ran'); sys.exit(7)\n"


def ask(container, message):
    """One question to the supervisor, from outside of whatever namespace it is in."""
    connection = supervisor_client.Connection(supervisor_client.connect(str(container.run_dir)))
    try:
        return connection.ask(message, 20.0)
    finally:
        connection.close()


def same_end(container, front, *, code=7, words=(), **environ):
    """Run a failing script in the surroundings, without and with us; returns our process's output."""
    script = container.script(CODE)
    written = container.folder / "written"
    for on in (False, True):
        written.unlink(missing_ok=True)
        command = ["/bin/sh", container.bundle / "run.sh", "python", script]
        process = container.start(*front, *command, on=on, **environ)
        assert process.wait(LIMIT) == code, container.output()
        output = container.output().splitlines()
        assert [line for line in output if not line.startswith("smssh: ")] == ["ran"]
        assert written.exists()
    for word in words:
        assert word in container.output() + container.log()
    return container.output()


# ------------------------------------------------------------------------------------------------- file systems


def test_read_only_root_and_nowhere_to_write(container) -> None:
    """No folder for us at all: the job runs as if we were not there, and says that it is not held."""
    front = rooted(container, read_only=True, run=False, tmp=False)
    same_end(container, front, SMSSH_RUN_DIR="", TMPDIR="/tmp", SMSSH_HOLD="failure")
    assert not container.strays()
    said = [line for line in container.output().splitlines() if "smssh" in line]
    assert said == ["smssh: nothing is held here: no supervisor runs here"]


def test_read_only_root_with_a_writable_tmp(container) -> None:
    """A folder below TMPDIR is enough for a login and a hold."""
    temporary = container.folder / "tmp"
    temporary.mkdir()
    container.run_dir = temporary / "smssh-0"
    front = rooted(container, read_only=True, run=False, tmp=False)
    environ = {"SMSSH_RUN_DIR": "", "TMPDIR": str(temporary), "SMSSH_SSH_SERVER": "asyncssh"}
    command = ["/bin/sh", container.bundle / "run.sh", "sh", "-c", "touch /x 2>/dev/null && echo no; exit 7"]
    process = container.start(*front, *command, SMSSH_HOLD="failure", **environ)
    until(lambda: container.path("socket"), what=container.log)
    status = until(
        lambda: (s := ask(container, {"op": "status"}))["state"] == "held" and s["ssh"]["port"] and s
    )
    assert container.ssh(status, "echo in").stdout == "in\n"
    assert ask(container, {"op": "release", "exit_code": None})["ok"]
    assert process.wait(LIMIT) == 7
    assert "no\n" not in container.output()
    container.assert_quiet()


def test_no_run(container) -> None:
    """No /run in the image: the private folder is below TMPDIR, and nothing makes a /run."""
    temporary = container.folder / "tmp"
    temporary.mkdir()
    front = rooted(container, read_only=False, run=False, tmp=True)
    same_end(container, front, SMSSH_RUN_DIR="", TMPDIR=str(temporary))
    assert [path.name for path in temporary.iterdir()] == ["smssh-0"]


@pytest.mark.parametrize("launcher", ["init", "python"])
def test_a_job_that_changes_tmpdir_has_one_supervisor(container, launcher) -> None:
    """What a job starts looks for us where we are, and not where it would have put us."""
    temporary, other = container.folder / "tmp", container.folder / "other"
    for folder in (temporary, other, container.base / "code"):
        folder.mkdir(parents=True)
    container.run_dir = temporary / "smssh-0"
    # Of the scripts that a job may begin with, two: the second is started by the first.
    inner = container.script("print('inner')\n", name="ml/code/inner.py")
    outer = container.script(
        "import os, subprocess, sys\n"
        f"os.environ['TMPDIR'] = {str(other)!r}\n"
        f"sys.exit(subprocess.call([sys.executable, {str(inner)!r}]))\n",
        name="ml/code/outer.py",
    )
    front = rooted(container, read_only=False, run=False, tmp=True)
    command = ["/bin/sh", container.bundle / "run.sh"] if launcher == "init" else []
    environ = {} if command else {"PYTHONPATH": container.bundle}
    process = container.start(
        *front, *command, "python", outer, SMSSH_RUN_DIR="", TMPDIR=str(temporary), **environ
    )
    assert process.wait(LIMIT) == 0, container.output()
    assert "inner" in container.output()
    assert [path.name for path in temporary.iterdir()] == ["smssh-0"]
    assert list(other.iterdir()) == []


def test_a_run_where_nothing_may_be_executed(container) -> None:
    """`docker run --tmpfs /run` mounts it so: the private folder is below TMPDIR, for everybody who looks for it."""
    temporary = container.folder / "tmp"
    temporary.mkdir()
    container.run_dir = temporary / "smssh-0"
    front = rooted(
        container, read_only=False, run=True, tmp=True, more='mount -o remount,bind,noexec "$new/run"'
    )
    script = container.script("import sys; sys.exit(7)\n", name="program")
    process = container.start(
        *(*front, "python", script),
        PYTHONPATH=container.bundle,
        SMSSH_RUN_DIR="",
        TMPDIR=temporary,
        SMSSH_HOLD="failure",
        SMSSH_SSH_SERVER="asyncssh",
    )
    until(lambda: container.path("socket"), what=lambda: f"the supervisor; {container.output()}")
    status = until(
        lambda: (s := ask(container, {"op": "status"}))["state"] == "held" and s["ssh"]["port"] and s
    )
    assert container.ssh(status, "smssh-hook release").returncode == 0
    assert process.wait(LIMIT) == 7
    container.assert_quiet()


def test_the_usual_place_is_run(container) -> None:
    front = rooted(container, read_only=False, run=True, tmp=True)
    script = container.script(
        "import os; print(sorted(os.listdir('/run')), os.stat('/run/smssh').st_mode & 0o777)"
    )
    process = container.start(
        *front, "/bin/sh", container.bundle / "run.sh", "python", script, SMSSH_RUN_DIR="", TMPDIR="/tmp"
    )
    assert process.wait(LIMIT) == 0, container.output()
    assert "'smssh'" in container.output()
    assert f" {0o700}" in container.output()


@pytest.mark.parametrize(("kilobytes", "inodes"), [(4, 0), (16, 0), (64, 0), (64, 2), (64, 4), (64, 8)])
def test_full_disk(container, kilobytes, inodes) -> None:
    """Nothing, or only a little, can be written where we work; the job has its room elsewhere."""
    front = small_disk(container, container.run_dir, kilobytes=kilobytes, inodes=inodes)
    same_end(container, front, SMSSH_HOLD="failure", SMSSH_HOLD_SECONDS=1, SMSSH_HOLD_MAX_SECONDS=2)
    until(lambda: not container.strays(), what=lambda: f"the end of {container.strays()}")


def test_a_disk_that_fills_up_in_a_hold(container) -> None:
    """A report, logs and a host key are there already; from then on nothing more can be written."""
    # Room for asyncssh, which is unpacked where there is no sshd.
    front = small_disk(container, container.run_dir, kilobytes=65536, inodes=3000)
    front[-2] = front[-2].replace("exec", "rm -f $0filler; exec")  # room at first
    front[-2] = front[-2].replace("dd if", ": if")
    script = (
        "while [ ! -e ready ]; do sleep 0.05; done; "
        "dd if=/dev/zero of=$SMSSH_RUN_DIR/filler bs=1k 2>/dev/null; echo full; exit 7"
    )
    process = container.start(
        *front,
        "/bin/sh",
        container.bundle / "run.sh",
        "sh",
        "-c",
        script,
        SMSSH_HOLD="failure",
        SMSSH_HOLD_SECONDS=2,
    )
    until(lambda: "ready: " in container.output(), what=lambda: f"a login; {container.output()}")
    container.script("", name="ready")
    assert process.wait(LIMIT) == 7
    assert "full\n" in container.output()
    assert "smssh: held (" in container.output()
    until(lambda: not container.strays(), what=lambda: f"the end of {container.strays()}")


# ------------------------------------------------------------------------------------------ network, credentials


def ends_without_ssh(container, process) -> None:
    """Once the log says that no login is possible, the job ends as it would have."""
    until(
        lambda: "no login is possible" in container.output(), what=lambda: f"the message; {container.log()}"
    )
    container.script("", name="go")
    assert process.wait(LIMIT) == 7
    container.assert_quiet()


@pytest.mark.parametrize("loopback", [True, False])
def test_no_network(container, loopback) -> None:
    """Not even loopback, or nothing but it, as with `docker run --network none`."""
    up = "ip link set lo up; " if loopback else ""
    if loopback:
        needs.program("ip")
    front = [*prefix("--net"), "/bin/sh", "-c", f'PATH=$PATH:/usr/sbin:/sbin; {up}exec "$@"', "sh"]
    script = container.script(
        "import os, sys, time\n"
        "end = time.monotonic() + 40\n"
        "while not os.path.exists('go') and time.monotonic() < end: time.sleep(0.05)\n"
        "sys.exit(7)\n"
    )
    process = container.start(
        *front,
        "/bin/sh",
        container.bundle / "run.sh",
        "python",
        script,
        SMSSH_TRANSPORT="ssm",
        SMSSH_ROLE="Nodes",
        AWS_MAX_ATTEMPTS="2",
        AWS_METADATA_SERVICE_TIMEOUT="1",
    )
    ends_without_ssh(container, process)


def test_no_credentials(container) -> None:
    """The role is not there, the metadata service neither."""
    front = prefix("--net")
    process = container.start(
        *front,
        "/bin/sh",
        container.bundle / "run.sh",
        "sh",
        "-c",
        "while [ ! -e go ]; do sleep 0.05; done; exit 7",
        SMSSH_TRANSPORT="ssm",
        SMSSH_ROLE="Nodes",
        SMSSH_SSH_SERVER="asyncssh",
        AWS_CONTAINER_CREDENTIALS_RELATIVE_URI="/v2/credentials/none",
        AWS_MAX_ATTEMPTS="1",
    )
    ends_without_ssh(container, process)


class Skewed(http.server.BaseHTTPRequestHandler):
    """AWS as a container with a wrong clock sees it."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        message = "Signature expired: 20260101T000000Z is now earlier than 20260102T000000Z"
        body = json.dumps({"__type": "InvalidSignatureException", "message": message}).encode()
        self.send_response(400)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_a_clock_that_aws_does_not_believe(container) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Skewed)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    from smssh_plugin.local.agent.installed import install

    install(container.folder / "programs")
    try:
        process = container.wrap(
            "sh",
            "-c",
            "while [ ! -e go ]; do sleep 0.05; done; exit 7",
            PATH=f"{container.folder / 'programs'}:{container.environ['PATH']}",
            SMSSH_TRANSPORT="ssm",
            SMSSH_ROLE="Nodes",
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.server_port}",
            AWS_ACCESS_KEY_ID="AKIATEST",
            AWS_SECRET_ACCESS_KEY="test",
        )
        until(
            lambda: "no login is possible" in container.output(),
            what=lambda: f"the message; {container.log()}",
        )
        assert "InvalidSignatureException" in container.log()
        container.script("", name="go")
        assert process.wait(LIMIT) == 7
    finally:
        server.shutdown()
        server.server_close()
    container.assert_quiet()


CLOCK = """
import time
from smssh_plugin import hookimpl
real = time.time
@hookimpl
def smssh_notify(event):
    if event == "held":
        time.time = lambda: real() + {jump}
"""


@pytest.mark.parametrize("jump", [-86400, 86400])
def test_a_clock_that_is_set_in_a_hold(container, jump) -> None:
    """A hold lasts as long as it was to last: not a day more, and not a moment only."""
    made = image(container.folder)
    add_plugin(made, CLOCK.format(jump=jump))
    began = time.monotonic()
    process = container.wrap(
        "sh",
        "-c",
        "exit 7",
        PATH=f"{made}/bin:{container.environ['PATH']}",
        SMSSH_HOLD="failure",
        SMSSH_HOLD_SECONDS=6,
        SMSSH_HOLD_MAX_SECONDS=60,
    )
    assert process.wait(LIMIT + 20) == 7
    assert time.monotonic() - began >= 6
    assert "nobody was connected for 6 s" in container.output()


# --------------------------------------------------------------------------------------------- a container again


def test_a_container_that_was_used_before(container) -> None:
    """Everything of the first job was killed at once and lies about; the second is served all the same."""
    first = container.wrap("sh", "-c", "sleep 600")
    container.wait_for("running")
    before = [pid for pid, command in container.strays() if "supervisor.main" in command]
    for pid, _ in container.strays():
        os.kill(pid, signal.SIGKILL)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    subprocess.run(["pkill", "-KILL", "-P", str(first.pid)], check=False)
    until(lambda: not container.strays(), what="the end of the first")
    for name in ("lock", "socket"):
        assert (container.run_dir / name).exists()
    owner = (container.run_dir / "lock").read_text().split()
    assert int(owner[0]) in before
    # The process id is somebody else's by now, and the machine was started anew.
    (container.run_dir / "lock").write_text(f"{os.getpid()} {owner[1]} {boot.boot_id()}\n")
    second = container.wrap("sh", "-c", "exit 7", SMSSH_HOLD="failure")
    # The socket and the launcher of the first are there, so they do not tell that the second has a supervisor.
    until(lambda: container.log().count("started by run.sh") == 2, what=container.log)
    until(lambda: container.hook("status", check=False).returncode == 0, what="an answer of the second")
    status = container.wait_for("held")
    assert container.ssh(status, "echo in").stdout == "in\n"
    container.hook("release")
    assert second.wait(LIMIT) == 7
    container.assert_quiet()


def test_an_old_lock_without_a_guard_would_be_in_the_way(container) -> None:
    """The harm: a lock file that only says that it exists can never be had again."""
    container.run_dir.mkdir(mode=0o700)
    lock = container.run_dir / "lock"
    lock.write_text("1234567 99 some-other-boot\n")
    with pytest.raises(FileExistsError):
        os.open(lock, os.O_CREAT | os.O_EXCL)
    handle = boot.take_lock(str(container.run_dir))
    assert handle is not None
    os.close(handle)
    assert Path(lock).read_text().split()[0] == str(os.getpid())
