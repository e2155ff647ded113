"""Ranks of an attempt that failed are gone before the next one starts, whatever sessions they have made."""

import os
import signal
import subprocess
import sys

import pytest

from smssh_plugin.entrypoints import boot, orphans
from tests.waiting import LIMIT, until

from .container import IMAGE

RANKS = """\
import os, subprocess, sys, time
here = {folder!r}
if os.path.exists(here + "/second"):
    running = [pid for pid in open(here + "/ranks").read().split() if os.path.exists(f"/proc/{{pid}}/environ")]
    states = [open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()[0] for pid in running]
    open(here + "/seen", "w").write(str([state for state in states if state != "Z"]))
    sys.exit(0)
open(here + "/second", "w").close()
pid = "import os; print(os.getpid(), flush=True); "
# As torchrun starts its ranks; one of them is deaf.
ranks = [
    subprocess.Popen([sys.executable, "-c", pid + code + "import time; time.sleep(600)"], start_new_session=True,
                     stdout=subprocess.PIPE, text=True)
    for code in ("", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); ")
]
# Nobody's child, in a session of its own; and a child of that with an environment of its own.
daemon = '''
import os, subprocess, sys
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
child = subprocess.Popen(["/bin/sleep", "600"], env={{}}, start_new_session=True)
print(os.getpid(), child.pid, flush=True)
child.wait()
'''
ranks.append(subprocess.Popen([sys.executable, "-c", daemon], stdout=subprocess.PIPE, text=True))
time.sleep(0.1)
lines = [rank.stdout.readline() for rank in ranks]
open(here + "/ranks", "w").write(" ".join(lines))
print("attempt", flush=True)
sys.exit(5)
"""


@pytest.mark.parametrize("launcher", ["wrapped", "toolkit", "both"])
def test_all_ranks_are_gone_before_a_retry(container, launcher) -> None:
    source = RANKS.format(folder=str(container.folder))
    if launcher == "wrapped":
        process = container.wrap(IMAGE / "bin" / "python", container.script(source), SMSSH_HOLD="failure")
    else:
        container.toolkit_job(source)
        process = (
            container.train(SMSSH_HOLD="failure")
            if launcher == "toolkit"
            else container.wrap("train", SMSSH_HOLD="failure")
        )
    status = container.wait_for("held")
    ranks = (container.folder / "ranks").read_text().split()
    assert len(ranks) == 4
    assert all(boot.start_time(pid) for pid in ranks)
    # What a person has started is theirs.
    theirs = container.ssh(status, "setsid sleep 600 >/dev/null 2>&1 & echo $!").stdout.strip()
    assert container.hook("retry").returncode == 0, container.output()
    assert (container.folder / "seen").read_text() == "[]"
    assert boot.start_time(theirs)
    os.kill(int(theirs), signal.SIGKILL)
    assert process.wait(LIMIT) == 0
    container.assert_quiet()


ORPHANS = """\
import os, subprocess, sys
here = {folder!r}
if os.path.exists(here + "/orphan"):
    pid = open(here + "/orphan").read()
    open(here + "/seen", "w").write(str(os.path.exists("/proc/" + pid + "/exe")))
    sys.exit(0)
orphan = subprocess.Popen(["/bin/sleep", "600"], env={{}}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
open(here + "/orphan", "w").write(str(orphan.pid))
sys.exit(5)
"""
"""One with an environment of its own, which process 1 is given when the script ends, and never reaps."""


def test_process_1_knows_the_scripts_orphans_from_peoples(container, first) -> None:
    """`train` is the first process in many images, and the parent of whatever people leave running."""
    container.toolkit_job(ORPHANS.format(folder=str(container.folder)))
    environ = {"PYTHONPATH": container.bundle, "SMSSH_HOLD": "failure,end"}
    process = container.start(*first, IMAGE / "bin" / "train", **environ)
    status = container.wait_for("held")
    theirs = container.ssh(status, "setsid sleep 600 >/dev/null 2>&1 & echo $!").stdout.strip()
    parent = container.ssh(status, f"cut -d ' ' -f 4 /proc/{theirs}/stat")
    assert parent.stdout == "1\n", parent
    assert container.hook("retry").returncode == 0, container.output()
    until(lambda: container.status()["point"] == "end", what="the hold at the end")
    assert (container.folder / "seen").read_text() == "False"
    assert container.ssh(status, f"test -e /proc/{theirs}/exe && kill {theirs}").returncode == 0
    assert container.hook("release").returncode == 0
    assert process.wait(LIMIT) == 0
    container.assert_quiet()


def test_two_containers_on_one_machine_are_kept_apart() -> None:
    """Their entry points have different names."""
    environ = {orphans.ENTRY: "1.1"}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=environ) as other:
        try:
            until(lambda: orphans.find("1.1") == [other.pid])
            assert orphans.find(orphans.entry()) == []
            assert orphans.find("1.1", keep=orphans.running()) == []
            assert other.pid in orphans.find("2.2", children=True)
        finally:
            other.kill()
    assert orphans.find("1.1") == []


def test_what_cannot_be_ended_is_named(monkeypatch) -> None:
    monkeypatch.setattr(orphans, "GRACE", 0.1)
    monkeypatch.setattr(orphans, "KILL_LIMIT", 0.1)
    sent = []
    monkeypatch.setattr(orphans.os, "kill", lambda pid, number: sent.append((pid, number)))
    assert orphans.end(lambda: [4_000_000]) == [4_000_000]
    assert sent[0] == (4_000_000, signal.SIGTERM)
    assert sent.count(sent[0]) == 1
    assert sent[-1] == (4_000_000, signal.SIGKILL)
