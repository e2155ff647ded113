"""run.sh and init: the child's exit status, signals and zombies, and that nothing of ours can break it."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.waiting import LIMIT, until

from .container import STALLED, WORDY


def wait(process, seconds=LIMIT):
    return process.wait(seconds)


@pytest.mark.parametrize("hold", ["", "failure"])
@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_status_is_the_childs(container, code, hold) -> None:
    process = container.wrap(
        "python", "-c", f"import sys; sys.exit({code})", SMSSH_HOLD=hold, SMSSH_HOLD_SECONDS=1
    )
    assert wait(process) == code
    container.assert_quiet()


def test_a_signal_that_ends_the_child_is_128_and_its_number(container) -> None:
    process = container.wrap("sh", "-c", "kill -9 $$")
    assert wait(process) == 128 + 9


def test_output_arguments_and_environment_are_the_childs_own(container) -> None:
    script = container.script(
        "import os, sys; print(sys.argv[1:], os.environ['ODD'], 'LC_CTYPE' in os.environ)"
    )
    process = container.wrap(
        "python", "-E", script, "a b", "", "é", "--x=1", ODD="one\ntwo", PYTHONIOENCODING="utf-8"
    )
    assert wait(process) == 0
    plain = container.start("python", "-E", script, "a b", "", "é", "--x=1", on=False, ODD="one\ntwo")
    assert wait(plain) == 0
    assert container.output(0).splitlines()[:2] == container.output(1).splitlines()[:2]


def test_off_is_the_original_command(container) -> None:
    process = container.wrap("sh", "-c", "echo $$; exit 3", on=False)
    assert wait(process) == 3
    assert container.output().strip() == str(process.pid)
    assert not container.run_dir.exists()


def test_a_command_that_is_not_there_ends_with_127(container) -> None:
    assert wait(container.wrap("no-such-program")) == 127
    assert "no-such-program" in container.output()


def test_a_broken_bundle_runs_the_original(container, tmp_path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "run.sh").write_bytes((container.bundle / "run.sh").read_bytes())
    (broken / "smssh.zip").write_bytes(b"not a zip")
    process = container.start(
        "/bin/sh", broken / "run.sh", "sh", "-c", "trap : PIPE; echo still here; exit 4"
    )
    assert wait(process) == 4
    assert container.output() == (
        f"smssh: no login is possible in this job: the bundle in {broken} cannot be used: [Errno 2] "
        f"No such file or directory: '{broken}/smssh-manifest.json'\nstill here\n"
    )


def test_an_archive_of_another_bundle_is_not_run(container, tmp_path) -> None:
    """It would work; but nobody knows what it is."""
    mixed = tmp_path / "mixed"
    shutil.copytree(container.bundle, mixed)
    archive = mixed / "smssh.zip"
    archive.write_bytes(archive.read_bytes() + b" ")
    process = container.start("/bin/sh", mixed / "run.sh", "sh", "-c", "echo $$; exit 4")
    assert wait(process) == 4
    assert container.output() == (
        f"smssh: no login is possible in this job: the bundle in {mixed} cannot be used: "
        f"smssh.zip is not what smssh-manifest.json says\n{process.pid}\n"
    )
    assert not container.run_dir.exists()


@pytest.mark.parametrize(
    ("name", "launcher"),
    [("options.json", "run.sh"), ("smssh.zip", "sitecustomize"), ("smssh-manifest.json", "sitecustomize")],
)
def test_nobody_logs_in_where_the_bundle_is_damaged(container, tmp_path, name, launcher) -> None:
    """The supervisor checks every file, off the way of the job, and says so in the job's log."""
    damaged = tmp_path / "damaged"
    shutil.copytree(container.bundle, damaged)
    data = (damaged / name).read_bytes()
    (damaged / name).write_bytes(data + b"\n" if name != "smssh-manifest.json" else b"{}")
    script = container.script(
        "import os, time\nwhile not os.path.exists('go'): time.sleep(0.05)\nraise SystemExit(6)"
    )
    if launcher == "run.sh":
        process = container.start("/bin/sh", damaged / "run.sh", "python", script)
    else:
        process = container.start("python", script, PYTHONPATH=damaged)
    until(lambda: "no login is possible" in container.output(), what=lambda: "the reason: " + container.log())
    assert f"no login is possible in this job: the bundle is damaged: {name} " in container.output()
    assert not container.path("ssh")
    container.script("", name="go")
    assert wait(process) == 6
    container.assert_quiet()


def test_no_python_runs_the_original(container) -> None:
    process = container.wrap("/bin/sh", "-c", "exit 5", PATH="/nonexistent")
    assert wait(process) == 5


def test_a_run_folder_that_cannot_be_made_runs_the_original(container) -> None:
    process = container.wrap("sh", "-c", "exit 6", SMSSH_RUN_DIR="/proc/nowhere")
    assert wait(process) == 6


def test_bad_settings_do_not_fail_the_job(container) -> None:
    process = container.wrap(
        "sh", "-c", "while [ ! -e go ]; do sleep 0.05; done; exit 2", SMSSH_HOLD="sometimes"
    )
    until(lambda: container.path("socket"))
    container.script("", name="go")
    assert wait(process) == 2
    assert "SMSSH_HOLD" in container.log()


@pytest.mark.parametrize("hold", ["", "failure"])
def test_signals_are_forwarded(container, hold) -> None:
    script = container.script(
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\n"
        # Not print: the signal may come while the one below is under way, and a second one in it is an error.
        "signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b'usr1\\n'))\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(0.1)\n"
    )
    process = container.wrap("python", script, SMSSH_HOLD=hold)
    until(lambda: "up" in container.output())
    process.send_signal(signal.SIGUSR1)
    until(lambda: "usr1" in container.output())
    process.send_signal(signal.SIGTERM)
    # Stopped from outside: no hold, although it failed.
    assert wait(process) == 9
    container.assert_quiet()


RAISES = """\
import os, resource, signal, sys
from smssh_plugin.entrypoints import init
entry = init.EntryPoint(["sh", "-c", "while [ ! -e go ]; do sleep 0.05; done; exit 7"], dict(os.environ), False,
    init.Inherited())
entry._start()
try:
    if sys.argv[1] == "SIGPIPE":
        reader, writer = os.pipe()
        os.close(reader)
        os.write(writer, b".")
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        with open("big", "wb", 0) as file:
            file.write(b"..")
            file.write(b"..")
    sys.exit("nothing was raised")
except OSError:
    pass
entry._handle(1)
open("go", "w").close()
while entry.pid is not None:
    entry._handle(1)
sys.exit(entry._ended)
"""


@pytest.mark.parametrize("name", ["SIGPIPE", "SIGXFSZ"])
def test_signals_that_init_raises_itself_are_not_the_childs(tmp_path, name) -> None:
    """A supervisor that is killed leaves a socket that we write to, and a blocked signal waits though it is ignored."""
    done = subprocess.run(
        [sys.executable, "-c", RAISES, name], cwd=tmp_path, capture_output=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 7, done.stderr.decode()


def test_a_child_that_ignores_sigterm_is_left_to_its_killer(container) -> None:
    process = container.wrap("sh", "-c", "trap '' TERM; echo $$ up; while true; do sleep 0.1; done")
    until(lambda: "up" in container.output())
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # The supervisor sees that its job is gone. The child has a group of its own; a container would end with
    # us.
    until(lambda: not container.strays(), what="the end of the supervisor")
    os.kill(int(container.output().split()[0]), signal.SIGKILL)


def test_an_ordinary_child_ends_with_143(container) -> None:
    process = container.wrap("sh", "-c", "echo up; exec sleep 60")
    until(lambda: "up" in container.output())
    process.terminate()
    assert wait(process) == 128 + signal.SIGTERM


def test_zombies_are_reaped(container) -> None:
    script = container.script(
        "import os, sys, time\n"
        "for _ in range(20):\n"
        "    if os.fork() == 0:\n"
        "        if os.fork() == 0:\n"
        "            os._exit(0)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "print('forked', flush=True)\n"
        "time.sleep(3)\n"
    )
    # init takes orphans only as process 1, or where it is asked to.
    subreaper = (
        "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0); "
        "os.execv('/bin/sh', ['/bin/sh', *sys.argv[1:]])"
    )
    process = container.start("python", "-c", subreaper, container.bundle / "run.sh", "python", script)
    until(lambda: "forked" in container.output())

    def zombies():
        found = []
        for child in psutil.Process(process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just been reaped
                if child.status() == psutil.STATUS_ZOMBIE:
                    found.append(child)
        return found

    until(lambda: not zombies(), seconds=3, what="reaping")
    assert wait(process) == 0


def test_a_grandchild_that_keeps_the_output_does_not_keep_the_job(container) -> None:
    process = container.wrap("sh", "-c", "sleep 30 & echo started; exit 0", SMSSH_HOLD="failure")
    started = time.monotonic()
    assert wait(process) == 0
    assert time.monotonic() - started < 25
    assert "started" in container.output()


def test_all_output_arrives_with_the_tee(container) -> None:
    script = container.script("import sys\nfor n in range(200000): print('line', n)\nsys.exit(0)\n")
    assert wait(container.wrap("python", script, SMSSH_HOLD="failure")) == 0
    # A line of ours may stand anywhere: a pipe takes large pieces of output in parts.
    text = re.sub(r"smssh: .*\n", "", container.output())
    assert text.splitlines() == [f"line {n}" for n in range(200000)]


@pytest.mark.parametrize("command", ["python {script}", "smssh-hook run -- python {script}"])
def test_the_last_words_arrive_where_the_log_is_taken_late(container, command) -> None:
    """The script has ended, which it would not have yet without us: its output was not taken."""
    script = container.script(WORDY)
    reader = container.script(STALLED, "reader.py")
    ours = f"/bin/sh '{container.bundle}/run.sh' " if command.startswith("python") else ""
    hook = f"{sys.executable} -m smssh_plugin.entrypoints.smssh_hook"
    line = ours + command.format(script=f"'{script}'").replace("smssh-hook", hook)
    process = container.start(
        "bash",
        "-c",
        f"set -o pipefail; {line} 2>&1 | {sys.executable} '{reader}'",
        SMSSH_HOLD="failure",
    )
    assert wait(process) == 0
    # Lines of ours may stand between: both write to the same place.
    assert container.output().count("~") == 1000 * 100
    assert "last words" in container.output()


def test_a_stop_ends_the_wait_for_a_log_that_nobody_takes(container) -> None:
    script = container.script(WORDY)
    reading, writing = os.pipe()
    ours = f"/bin/sh '{container.bundle}/run.sh'"
    try:
        process = container.start(
            "bash", "-c", f"exec {ours} python '{script}' >/proc/{os.getpid()}/fd/{writing} 2>&1",
            SMSSH_HOLD="failure", SMSSH_HOLD_SECONDS=1,
        )  # fmt: skip
        pid = int(
            until(lambda: container.home.joinpath("pid").exists()) and (container.home / "pid").read_text()
        )
        until(lambda: not os.path.exists(f"/proc/{pid}"))
        until(lambda: not container.strays(), what="the supervisor's end")
        assert process.poll() is None
        process.terminate()
        assert wait(process) == 0
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("hold", ["", "failure"])
def test_a_failure_of_ours_runs_nothing_twice(container, hold) -> None:
    """It fails after a child that has ended already."""
    code = (
        "import sys\n"
        "from smssh_plugin.entrypoints import init\n"
        "def broken(*_): raise ImportError('no json in this Python')\n"
        "init.EntryPoint._prepare = broken\n"
        "sys.exit(init.run(['sh', '-c', 'echo RAN; exit 3'], 'test'))\n"
    )
    assert wait(container.start(sys.executable, "-c", code, SMSSH_HOLD=hold)) == 3
    assert container.output() == "RAN\n"


@pytest.mark.parametrize("hold", ["", "failure"])
def test_where_no_process_can_be_made_it_becomes_the_original(container, hold) -> None:
    """A limit of processes: the entry point would have needed none besides itself."""
    code = (
        "import errno, os, sys\n"
        "from smssh_plugin.entrypoints import init\n"
        "def full(): raise BlockingIOError(errno.EAGAIN, 'Resource temporarily unavailable')\n"
        "os.fork = full\n"
        "sys.exit(init.run(['sh', '-c', 'echo $$; exit 3'], 'test'))\n"
    )
    process = container.start(sys.executable, "-c", code, SMSSH_HOLD=hold)
    assert wait(process) == 3
    assert container.output() == f"{process.pid}\n"


def test_the_child_finds_the_signals_as_they_were(container) -> None:
    """An ignored SIGCHLD would also take the child's exit status from its parent."""
    show = "grep ^Sig[BIC] /proc/self/status; exit 3"
    ours = [sys.executable, "-m", "smssh_plugin.entrypoints.smssh_hook", "run", "--"]
    odd = (
        "import os, signal, sys\n"
        "for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGTTOU): signal.signal(number, signal.SIG_IGN)\n"
        "for number in (signal.SIGPIPE, signal.SIGXFSZ): signal.signal(number, signal.SIG_DFL)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
        "os.execvp(sys.argv[1], sys.argv[1:])\n"
    )
    for command in ([], ours):
        for on in (True, False):
            process = container.start(sys.executable, "-c", odd, *command, "bash", "-c", show, on=on)
            assert wait(process) == 3
    container.assert_quiet()
    without, *others = [container.output(number) for number in range(4)]
    assert len(without.splitlines()) == 3
    assert others == [without] * 3


def test_killed_supervisor_changes_nothing(container) -> None:
    process = container.wrap(
        "sh", "-c", "while [ ! -e go ]; do sleep 0.05; done; exit 8", SMSSH_HOLD="failure"
    )
    container.wait_for("running")
    for pid, command in container.strays():
        if "supervisor.main" in command:
            os.kill(pid, signal.SIGKILL)
    container.script("", name="go")
    assert wait(process) == 8
    container.assert_quiet()


def test_strict_without_a_login_fails_the_job(container) -> None:
    process = container.wrap("sh", "-c", "echo ran", SMSSH_STRICT=1, SMSSH_AUTHORIZED_KEYS="")
    assert wait(process) == 1
    assert "ran" not in container.output().split("\n")
    assert "SMSSH_STRICT" in container.output()


def test_strict_with_a_login_runs_it(container) -> None:
    assert wait(container.wrap("sh", "-c", "exit 3", SMSSH_STRICT=1)) == 3


def test_wait_ready_delays_until_a_login_is_possible(container) -> None:
    script = container.script(
        "import os, json, sys\n"
        "sys.exit(0 if os.path.exists(os.environ['SMSSH_RUN_DIR'] + '/bin/smssh-hook') else 1)\n"
    )
    assert wait(container.wrap("python", script, SMSSH_WAIT="ready")) == 0


def test_smssh_hook_run_is_an_init_too(container) -> None:
    import sys

    command = [sys.executable, "-m", "smssh_plugin.entrypoints.smssh_hook", "run", "--", "sh", "-c", "exit 7"]
    assert wait(container.start(*command)) == 7
    assert wait(container.start(*command, on=False)) == 7
    assert wait(container.start(*command[:4], on=False)) == 2
    container.assert_quiet()
