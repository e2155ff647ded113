"""The report names the exception that ended the attempt: real processes, in the ways in which jobs start them."""

import json
import os
import signal

import pytest

from smssh_plugin.container import tracebacks
from smssh_plugin.entrypoints import boot
from tests.waiting import LIMIT, until

HELPER = "raise OSError('the cache is cold')"
TRAIN = "raise KeyError('label')"
LAUNCHER = """\
import subprocess, sys, time
class ChildFailedError(Exception): pass
ranks = [subprocess.Popen([sys.executable, "rank.py", str(rank)]) for rank in range(3)]
while all(rank.poll() is None for rank in ranks): time.sleep(0.01)
failed = next(rank for rank in ranks if rank.poll() is not None)
for rank in ranks: rank.wait()
raise ChildFailedError(f"Root Cause: exitcode  : {failed.returncode} (pid: {failed.pid})")
"""
RANK = """\
import os, sys, time
if sys.argv[1] == "1":
    time.sleep(0.3)
    try: raise KeyError("label")
    finally: os.close(os.open("failed", os.O_CREAT))
while not os.path.exists("failed"): time.sleep(0.01)
time.sleep(0.2)
raise RuntimeError("connection closed by peer")
"""


@pytest.mark.parametrize("number", ["9" * 5000, "\u00b2", "\u0661"])
def test_a_number_in_an_error_that_is_none_of_a_process_is_no_error_here(number) -> None:
    """Anybody can raise an exception with that text; Python converts no more than 4,300 digits."""
    error = f"ChildFailedError: Root Cause: exitcode  : {number} (pid: {number})"
    record = tracebacks.Record(2, 1.0, ("2",), 1.0, ("python",), "train.py", error, "")
    assert tracebacks.fatal([record], 1, 2.0) is record


def failed_job(container, *command, **files):
    """The report of a held job that failed."""
    for name, text in files.items():
        container.script(text, name=name.replace("__", "."))
    container.wrap(*command, SMSSH_HOLD="failure", SMSSH_HOLD_SECONDS="600", PYTHONPATH=container.bundle)
    container.wait_for("held")
    report = json.loads(container.hook("report", "--json").stdout)
    container.hook("release")
    container.processes[-1].wait(LIMIT)
    return report


RUN_HELPER = "import subprocess, sys\nsubprocess.run([sys.executable, 'helper.py'])\n"


@pytest.mark.parametrize(
    ("command", "files"),
    [
        (["python", "train.py"], {"train__py": RUN_HELPER + TRAIN}),
        (["sh", "-c", "python helper.py; python train.py"], {"train__py": TRAIN}),
        (["sh", "-c", "python helper.py & wait; exec python train.py"], {"train__py": TRAIN}),
        (
            ["bash", "-ec", "python helper.py || python launch.py"],
            {
                "launch__py": "import subprocess, sys\nsubprocess.run([sys.executable, 'train.py'], check=True)",
                "train__py": TRAIN,
            },
        ),
        (
            ["python", "launch.py"],
            {
                "launch__py": RUN_HELPER + "subprocess.run(['bash', 'train.sh'], check=True)",
                "train__sh": "python train.py",
                "train__py": TRAIN,
            },
        ),
        # The helper fails later, while the script that has failed waits for it.
        (
            ["python", "train.py"],
            {
                "helper__py": "import sys; sys.stdin.read(); raise OSError('the cache is cold')",
                "train__py": "import atexit, subprocess, sys\n"
                "helper = subprocess.Popen([sys.executable, 'helper.py'], stdin=subprocess.PIPE)\n"
                "def end(): helper.stdin.close(); helper.wait()\n"
                "atexit.register(end)\n" + TRAIN,
            },
        ),
        (["python", "launch.py"], {"launch__py": LAUNCHER, "rank__py": RANK}),
        (
            ["sh", "-c", "python rank.py 0 & python rank.py 2 & python rank.py 1; s=$?; wait; exit $s"],
            {"rank__py": RANK},
        ),
    ],
    ids=["child", "before", "beside", "chain", "wrapped", "after", "launcher", "ranks"],
)
def test_the_error_that_ended_the_attempt(container, command, files) -> None:
    report = failed_job(container, *command, **{"helper__py": HELPER, **files})
    assert report["error"] == "KeyError: 'label'"
    assert report["traceback"].rstrip().endswith("KeyError: 'label'")
    others = [other["error"] for other in report["other_errors"]]
    assert "KeyError: 'label'" not in others
    assert others


FEEDER = """\
import threading, os, sys
def feed(): raise KeyError('label')
thread = threading.Thread(target=feed, name='feeder')
thread.start(); thread.join()
"""


@pytest.mark.parametrize(
    ("end", "error", "thread"),
    [
        ("os._exit(4)", "KeyError: 'label'", "feeder"),
        ("sys.exit(4)", "KeyError: 'label'", "feeder"),
        ("raise ValueError('no data')", "ValueError: no data", None),
        ("raise TimeoutError('no answer')", "KeyError: 'label'", "feeder"),
        ("raise RuntimeError('closed by peer')", "KeyError: 'label'", "feeder"),
    ],
)
def test_what_ended_a_thread_counts_where_nothing_ended_its_process(container, end, error, thread) -> None:
    report = failed_job(container, "python", "train.py", train__py=FEEDER + end)
    assert (report["error"], report["error_thread"]) == (error, thread)
    assert len(report["other_errors"]) == (0 if end.endswith("(4)") else 1)


@pytest.mark.parametrize(
    ("command", "ended_by"),
    [
        (["sh", "-c", "python helper.py; kill -9 $$"], "SIGKILL"),
        (["python", "train.py"], "SIGKILL"),
        (["sh", "-c", "python helper.py; sleep 6; kill -ABRT $$"], "SIGABRT"),
    ],
)
def test_a_signal_is_no_exception(container, command, ended_by) -> None:
    train = RUN_HELPER + "import os\nos.kill(os.getpid(), 9)"
    report = failed_job(container, *command, helper__py=HELPER, train__py=train)
    number = signal.Signals[ended_by].value
    assert (report["error"], report["traceback"]) == (
        f"ended by {ended_by} (exit status {128 + number})",
        None,
    )
    assert [other["error"] for other in report["other_errors"]] == ["OSError: the cache is cold"]


def test_a_command_that_failed_is_not_the_helpers_failure(container) -> None:
    """The script's own CalledProcessError, of a program that is not Python, after a helper that was handled."""
    train = RUN_HELPER + "subprocess.run(['sh', '-c', 'exit 4'], check=True)"
    report = failed_job(container, "python", "train.py", helper__py=HELPER, train__py=train)
    assert "returned non-zero exit status 4" in report["error"]
    assert [other["error"] for other in report["other_errors"]] == ["OSError: the cache is cold"]


def test_what_has_not_ended_has_no_error(container) -> None:
    text = RUN_HELPER + "import os, time\nwhile not os.path.exists('go'): time.sleep(0.05)\n"
    container.script(HELPER, name="helper.py")
    container.script(text, name="train.py")
    process = container.wrap("python", "train.py", PYTHONPATH=container.bundle)
    container.wait_for("running")

    def report():
        return json.loads(container.hook("report", "--json").stdout)

    until(lambda: report()["other_errors"], what="the helper's end")
    assert (report()["error"], report()["traceback"]) == (None, None)
    container.script("", name="go")
    assert process.wait(LIMIT) == 0


def test_records_belong_to_an_attempt(container) -> None:
    container.script("raise KeyError('label')", name="train.py")
    container.wrap(
        "python", "train.py", SMSSH_HOLD="failure", SMSSH_HOLD_SECONDS="600", PYTHONPATH=container.bundle
    )
    container.wait_for("held")
    container.script("import sys; sys.exit(4)", name="train.py")
    container.hook("retry", check=False)
    container.wait_for("held")
    report = json.loads(container.hook("report", "--json").stdout)
    assert (report["attempt"], report["exit_code"]) == (2, 4)
    assert (report["error"], report["traceback"], report["other_errors"]) == (None, None, [])
    container.hook("release")
    container.processes[-1].wait(LIMIT)


def test_thousands_of_failures_leave_a_bounded_number_of_small_files(container) -> None:
    """The first and the last ones are kept; a message of megabytes is cut."""
    text = (
        "import os, sys\n"
        "for number in range(150):\n"
        "    if not os.fork(): raise ValueError(f'child {number} ' + '\\N{FIRE}' * 300_000)\n"
        "    os.wait()\n"
        "raise KeyError('label')\n"
    )
    report = failed_job(container, "sh", "-c", "python train.py 2>/dev/null", train__py=text)
    assert report["error"] == "KeyError: 'label'"
    files = list(container.run_dir.glob("traceback-*.json"))
    assert len(files) <= boot.RECORDS_LIMIT
    assert all(file.stat().st_size < tracebacks.FILE_LIMIT for file in files)
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)
    assert (container.run_dir / "report.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "told",
    [
        "{",
        "[]",
        '"x"',
        '{"time": 1e999}',
        '{"time": "soon"}',
        '{"lineage": 5}',
        json.dumps({"time": 1, "pid": "x"}),
    ],
)
def test_what_is_not_a_record(tmp_path, told) -> None:
    (tmp_path / "traceback-1.json").write_text(told)
    os.mkfifo(tmp_path / "not-a-record")
    assert tracebacks.read(tmp_path, 0.0) == []
