"""Children of the supervisor: restarted with a growing delay, short logs, first to go when memory runs out."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from smssh_plugin.container import child as _child
from smssh_plugin.container.child import Child, tail, trim
from smssh_plugin.processes import process_ids
from tests.waiting import LIMIT, until


@pytest.fixture
def child_of(tmp_path):
    made = []

    def start(code, **options):
        log = options.pop("log", tmp_path / "log")
        made.append(Child("test", [sys.executable, "-c", code], {}, log, **options))
        made[-1].start()
        return made[-1]

    yield start
    for child in made:
        child.stop(0.5)


def test_it_comes_back_with_a_growing_delay(tmp_path, child_of, monkeypatch) -> None:
    monkeypatch.setattr(_child, "BACK_OFF", (0.01, 0.02, 0.03))
    waited = []
    wait = _child.threading.Event.wait

    def watched(event, timeout=None):
        if timeout in _child.BACK_OFF:
            waited.append(timeout)
        return wait(event, timeout)

    monkeypatch.setattr(_child.threading.Event, "wait", watched)
    child = child_of("print('x', flush=True)", restart=True)
    until(lambda: len(waited) >= 5, what="five restarts")
    child.stop(1.0)
    assert waited[:5] == [0.01, 0.02, 0.03, 0.03, 0.03]


def test_a_steady_one_comes_back_at_once(child_of, monkeypatch) -> None:
    monkeypatch.setattr(_child, "STEADY_SECONDS", 0.0)
    monkeypatch.setattr(_child, "BACK_OFF", (0.0, 1000.0))
    child = child_of("import time; time.sleep(1000)", restart=True)
    for _ in range(3):
        before = child.pid
        os.kill(before, signal.SIGKILL)
        until(lambda: child.running() and child.pid != before, what="the restart")  # noqa: B023 - called at once


def test_a_program_that_vanishes_and_comes_back(tmp_path, child_of, monkeypatch) -> None:
    """An image's package manager may replace it while it runs."""
    monkeypatch.setattr(_child, "BACK_OFF", (0.02,))
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    child = Child("test", [str(program)], {"PATH": "/usr/bin:/bin"}, tmp_path / "log", restart=True)
    child.start()
    try:
        program.rename(tmp_path / "away")
        before = child.pid
        os.kill(before, signal.SIGKILL)
        until(lambda: child._error is not None, what="a start that fails")
        (tmp_path / "away").rename(program)
        until(lambda: child.running() and child.pid != before, what="the restart")
    finally:
        child.stop(0.5)


def test_nothing_is_started_after_the_stop(child_of, monkeypatch) -> None:
    monkeypatch.setattr(_child, "BACK_OFF", (0.0,))
    child = child_of("pass", restart=True)
    child.stop(5.0)
    assert not child.running()
    assert not child._thread.is_alive()


def test_a_program_that_is_not_there(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        Child("test", ["/no/such/program"], {}, tmp_path / "log", restart=True).start()


def test_a_log_that_cannot_be_written_is_no_reason_not_to_start(tmp_path, child_of) -> None:
    child = child_of("import time; time.sleep(1000)", log=tmp_path / "no" / "such" / "folder")
    assert child.running()


def test_logs_stay_short(tmp_path, child_of, monkeypatch) -> None:
    monkeypatch.setattr(_child, "LOG_LIMIT", 10_000)
    monkeypatch.setattr(_child, "TRIM_SECONDS", 0.02)
    monkeypatch.setattr(_child, "trim", lambda path: trim(path, 10_000))
    child_of(
        "import time\nfor number in range(3000):\n print(number, 'x' * 90, flush=True)\n"
        " number % 20 or time.sleep(0.01)\ntime.sleep(1000)"
    )
    log, old = tmp_path / "log", tmp_path / "log.old"
    # The last line may have been moved as well.
    until(lambda: old.exists() and "2999" in log.read_text() + old.read_text(), what="the end")
    sizes = [path.stat().st_size for path in (log, old)]
    assert sum(sizes) < 300_000 / 2  # 3000 lines of 95 bytes were written
    # What it goes on with stands where it should: no hole before it.
    assert b"\0" not in log.read_bytes()


def test_trim_keeps_the_end(tmp_path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"{number}\n" for number in range(1000)))
    trim(log, 1 << 20)
    assert log.stat().st_size
    trim(log, 1000)
    assert log.stat().st_size == 0
    assert (tmp_path / "log.old").read_text().endswith("998\n999\n")
    assert (tmp_path / "log.old").stat().st_size == 500
    trim(tmp_path / "none", 1)


def test_tail(tmp_path) -> None:
    (tmp_path / "log").write_text("a\nb \n c\nd\n")
    assert tail(tmp_path / "log") == "b | c | d"
    assert tail(tmp_path / "none") == ""


@pytest.mark.parametrize("expendable", [True, False])
def test_the_kernel_takes_the_expendable_first(child_of, expendable) -> None:
    child = child_of("import time; time.sleep(1000)", expendable=expendable)
    expected = "1000" if expendable else Path("/proc/self/oom_score_adj").read_text().strip()
    assert Path(f"/proc/{child.pid}/oom_score_adj").read_text().strip() == expected


def test_it_dies_with_its_thread(tmp_path, child_of) -> None:
    """The supervisor may be killed: nothing of ours stays behind."""
    code = (
        "import sys, time; from pathlib import Path; from smssh_plugin.container.child import Child\n"
        "child = Child('x', ['/bin/sleep', '1000'], {}, Path(sys.argv[1])); child.start()\n"
        "print(child.pid, flush=True); time.sleep(1000)"
    )
    import subprocess

    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "l"], stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()

    def gone():
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    until(gone, what="its end")


MARK = "SMSSH_TEST_STARTED_BY"
DIES_EARLY = """
import os, signal, sys, threading, time
from pathlib import Path
from smssh_plugin.container import child as _child
signal.signal(signal.SIGTERM, lambda *_: None)  # as the supervisor does
known, libc = sys.argv[1], _child._libc
class Slow:
    def prctl(self, *words):
        if known == "not known": time.sleep(1)
        libc.prctl(*words)
        if known == "known": time.sleep(1)
_child._libc = Slow()
command = ["sleep", sys.argv[2]]
threading.Thread(target=_child.Child("test", command, dict(os.environ), Path("log")).start, daemon=True).start()
time.sleep(0.5)
os._exit(0)
"""


@pytest.mark.parametrize("known", ["not known", "known"])
def test_it_does_not_outlive_a_parent_that_ends_while_it_starts(tmp_path, known) -> None:
    """That the kernel has to end it with its parent is not said yet, or the program does not run yet."""
    mark = f"{os.getpid()}-{known}"
    environ = {**os.environ, MARK: mark}
    command = [sys.executable, "-c", DIES_EARLY, known, "987"]
    subprocess.run(command, cwd=tmp_path, env=environ, timeout=LIMIT, check=True)
    try:
        until(lambda: not marked(mark), what="the end of what it was starting")
    finally:
        for pid in marked(mark):
            os.kill(pid, signal.SIGKILL)


def marked(mark):
    """The processes that have the mark in their environment, as each has that this test starts, from the beginning."""
    found = []
    for pid in process_ids():
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
    return found
