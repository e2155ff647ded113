"""A local emulator of one's own, and the churn example on it."""

import os
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from tests.waiting import until

from .machine import CHURN, IMAGE, PATIENCE, TRAIN, Machine, client, node


def make():
    # Short: the sockets of ssh's ControlMaster have to fit into 108 bytes.
    home = Path(tempfile.mkdtemp(prefix="smssh-"))
    environ = {
        "HOME": str(home),
        "SMSSH_HOME": str(home / "smssh"),
        "PATH": os.environ["PATH"],
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
    }
    return Machine(home, environ)


def unmake(machine):
    for pid in machine.processes():
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(machine.home, ignore_errors=True)


@pytest.fixture
def machine():
    machine = make()
    yield machine
    unmake(machine)


@pytest.fixture(scope="module")
def emulator():
    """A running local emulator that knows the churn pipeline; the machine's environment leads to it."""
    machine = make()
    exports = machine.smssh("local", "up", "--port", "0", "--image", IMAGE).stdout
    machine.environ.update(re.findall(r"^export (\w+)='(.*)'$", exports, flags=re.MULTILINE))
    machine.run(sys.executable, CHURN / "pipeline.py", "--by-hand")
    yield machine
    if machine.kept:
        machine.smssh("release", TRAIN, check=False)
    machine.smssh("local", "down")
    machine.assert_nothing_left()
    unmake(machine)


def hold(emulator):
    """Start an execution of the churn pipeline, and wait until its step Train is held; its ARN."""
    started = client(emulator, "sagemaker").start_pipeline_execution(PipelineName="churn")
    arn = started["PipelineExecutionArn"]
    until(lambda: node(emulator, arn, "Train").get("state") == "held", seconds=PATIENCE)
    return arn


@pytest.fixture
def held(emulator):
    """An execution of the test's own with its step Train held; the machine and the execution's ARN."""
    emulator.smssh("release", TRAIN, check=False)  # what `kept` may have left
    yield emulator, hold(emulator)
    emulator.smssh("release", TRAIN, check=False)


@pytest.fixture
def kept(emulator):
    """The same for tests that leave the step held: the next of them gets the same execution."""
    if not emulator.kept or node(emulator, emulator.kept, "Train").get("state") != "held":
        emulator.kept = hold(emulator)
    emulator.smssh("extend", TRAIN, "1h")
    return emulator, emulator.kept
