"""A stand-in of one's own, and the churn example on it."""

import os
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from .machine import CHURN, IMAGE, Machine, node, wait_for


@pytest.fixture
def machine():
    # Short: the sockets of ssh's ControlMaster have to fit into 108 bytes.
    home = Path(tempfile.mkdtemp(prefix="smssh-"))
    environ = {
        "HOME": str(home),
        "SMSSH_HOME": str(home / "smssh"),
        "PATH": os.environ["PATH"],
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
    }
    machine = Machine(home, environ)
    yield machine
    for pid in machine.processes():
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def stand_in(machine):
    """A running stand-in; the machine's environment leads to it."""
    exports = machine.smssh("local", "up", "--port", "0", "--image", IMAGE).stdout
    machine.environ.update(re.findall(r"^export (\w+)='(.*)'$", exports, flags=re.MULTILINE))
    yield machine
    machine.smssh("local", "down")


@pytest.fixture
def held(stand_in):
    """The churn pipeline, started, with its step Train held; yields the machine and the execution's ARN."""
    started = stand_in.run(sys.executable, CHURN / "pipeline.py", "--by-hand").stdout
    arn = re.search(r"started (\S+)", started).group(1)
    wait_for(lambda: node(stand_in, "Train").get("state") == "held")
    yield stand_in, arn
    stand_in.smssh("release", "Train.churn.pipeline.sagemaker", check=False)
