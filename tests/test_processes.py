"""What /proc says of a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from smssh_plugin.processes import Process, process, process_ids, processes


def test_this_process_is_as_the_kernel_says() -> None:
    own = process(os.getpid())
    assert own is not None
    assert (own.pid, own.parent, own.group, own.session) == (
        os.getpid(),
        os.getppid(),
        os.getpgrp(),
        os.getsid(0),
    )
    assert own.name == Path("/proc/self/comm").read_bytes().rstrip(b"\n")
    assert own.alive
    assert own.resident > 0
    assert os.getpid() in process_ids()
    assert own.started in {each.started for each in processes() if each.pid == own.pid}


def test_a_zombie_is_there_and_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    try:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        found = process(child.pid)
        assert found is not None
        assert not found.alive
    finally:
        child.wait()
    assert process(child.pid) is None


@pytest.mark.parametrize("name", ["a) R 1 (b", "", " 1 2 3", "x\n)"])
def test_a_name_may_be_anything(name: str) -> None:
    """proc(5): the name stands in brackets, and nothing in it is escaped."""
    fields = ["S", "7", "8", "9", *["0"] * 15, "4242", "0", "11", *["0"] * 28]
    found = Process(5, f"5 ({name}) {' '.join(fields)}\n".encode())
    assert (found.name, found.parent, found.group, found.session) == (name.encode(), 7, 8, 9)
    assert (found.started, found.resident, found.alive) == (4242, 11, True)
