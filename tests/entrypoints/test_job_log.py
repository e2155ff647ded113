"""Lines of ours stand in the job's log, and never in a file or a pipe that the job writes its results to."""

import gzip
import os
import subprocess
import sys

import pytest

from smssh_plugin.entrypoints import boot
from smssh_plugin.entrypoints.job_log import JobLog, is_log
from tests.waiting import LIMIT, until

RESULTS = "id,prediction\n1,0.5\n"
PYTHON = """\
import os, sys, time
{redirect}
print("id,prediction"); sys.stdout.flush()
while not os.path.exists("go"): time.sleep(0.02)
print("1,0.5"); sys.stdout.flush()
"""
WRITES = "echo id,prediction; while [ ! -e go ]; do sleep 0.02; done; echo 1,0.5"
LOUD = {"SMSSH_LOG_TO_STDOUT": "1"}
"""The supervisor writes everything into the job's log."""


def run(container, command, *, launcher, **environ):
    """Run a job, and let it end once the supervisor had much to say; answers what it wrote into its log."""
    if launcher == "PYTHONPATH":
        process = container.start(*command, PYTHONPATH=container.bundle, **LOUD, **environ)
    else:
        process = container.wrap(*command, **LOUD, **environ)
    until(lambda: "SSH server" in container.log(), what="the SSH server")
    container.script("", name="go")
    assert process.wait(LIMIT) == 0, container.output()
    container.assert_quiet()
    return container.output()


@pytest.mark.parametrize("launcher", ["PYTHONPATH", "run.sh"])
@pytest.mark.parametrize(
    "redirect",
    [
        "sys.stdout = open('predictions.csv', 'w')",
        "os.dup2(os.open('predictions.csv', os.O_WRONLY | os.O_CREAT), 1)",
    ],
)
def test_a_script_that_sends_its_output_into_a_file(container, launcher, redirect) -> None:
    script = container.script(PYTHON.format(redirect=redirect), name="train")
    run(container, ["python", script], launcher=launcher)
    assert (container.folder / "predictions.csv").read_text() == RESULTS


@pytest.mark.parametrize("launcher", ["PYTHONPATH", "run.sh"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("redirect", "read"),
    [
        ("exec > predictions.csv", None),
        ("exec >> predictions.csv 2>&1", None),
        ("exec > >(gzip > predictions.gz)", "predictions.gz"),
        ("exec > >(cat | gzip > predictions.gz)", "predictions.gz"),
        ("mkfifo p; gzip < p > predictions.gz & exec > p", "predictions.gz"),
    ],
)
def test_an_entry_script_that_sends_its_output_elsewhere(container, launcher, when, redirect, read) -> None:
    """The supervisor starts with the first Python, before or after the shell has changed its output."""
    python = f"python {container.script('', name='train')}"
    first, second = (python, redirect) if when == "after" else (redirect, python)
    text = f"set -e\n{first}\n{second}\n{WRITES}\nexec >&- 2>&-\nwait\n"
    log = run(container, ["bash", container.script(text, name="job.sh")], launcher=launcher)
    if read is None:
        assert (container.folder / "predictions.csv").read_text() == RESULTS
    else:
        path = container.folder / read

        def written():
            try:
                return gzip.decompress(path.read_bytes()).decode()
            except EOFError:
                return None

        assert until(written, what=read) == RESULTS
    if launcher == "run.sh":  # whose own output stays what the container's runtime gave to it
        assert "SSH server" in log


@pytest.mark.parametrize("hold", [{"SMSSH_HOLD": "failure"}, {"SMSSH_WAIT": "1s"}, {"SMSSH_HOLD": "start"}])
@pytest.mark.parametrize(
    "into", ["> predictions.csv", "| gzip > predictions.gz", "> predictions.csv 2> errors.csv"]
)
def test_a_hold_of_a_program_whose_output_is_a_result(container, hold, into) -> None:
    """What holds it, in its place, has that output too."""
    script = container.script(
        "import os, sys\nprint('id,prediction')\nprint('1,0.5')\nsys.exit(3)\n", name="train"
    )
    text = f"set -o pipefail\npython {script} {into}\n"
    process = container.start(
        *("bash", container.script(text, name="job.sh")),
        PYTHONPATH=container.bundle,
        SMSSH_HOLD_SECONDS="2",
        **hold,
        **LOUD,
    )
    assert process.wait(LIMIT) == 3, container.output()
    if "gzip" in into:
        assert gzip.decompress((container.folder / "predictions.gz").read_bytes()).decode() == RESULTS
    else:
        assert (container.folder / "predictions.csv").read_text() == RESULTS
    if "errors" in into:
        assert (container.folder / "errors.csv").read_text() == ""


def test_the_log_is_written_to_where_nobody_has_changed_it(container) -> None:
    script = container.script(PYTHON.format(redirect=""), name="train")
    assert "SSH server" in run(container, ["python", script], launcher="PYTHONPATH")


def test_an_output_that_was_changed_and_changed_back(tmp_path) -> None:
    """Not the number of the descriptor counts, but the open file."""
    log, writer = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", CHANGING], cwd=tmp_path, stdin=subprocess.PIPE, stdout=writer, text=True
    )
    began_with = boot.output_identity(f"/proc/{child.pid}/fd/1")
    job_log = JobLog(child.pid, began_with)

    def told(word):
        child.stdin.write(word + "\n")
        child.stdin.flush()
        until(lambda: (tmp_path / "done").exists() and (tmp_path / "done").read_text() == word, what=word)

    try:
        assert job_log.say("one")
        told("file")
        assert not job_log.say("two")
        told("back")
        assert job_log.say("three")
        assert os.read(log, 4096) == b"one\nthree\n"
        assert (tmp_path / "out").read_text() == ""
    finally:
        child.stdin.close()
        child.wait(LIMIT)
        os.close(log)
        os.close(writer)


CHANGING = """\
import os, sys
old = os.dup(1)
for word in sys.stdin:
    word = word.strip()
    if word == "file": os.dup2(os.open("out", os.O_WRONLY | os.O_CREAT), 1)
    else: os.dup2(old, 1)
    with open("new", "w") as file: file.write(word)
    os.rename("new", "done")
"""


def test_what_is_no_log(tmp_path) -> None:
    path = tmp_path / "file"
    path.touch()
    assert not is_log(str(path), os.getpid())
    assert not is_log(str(tmp_path), os.getpid())
    assert not is_log("/proc/self/fd/12345", os.getpid())
    assert is_log("/dev/null", os.getpid())
    assert not JobLog(os.getpid(), "").say("x")
