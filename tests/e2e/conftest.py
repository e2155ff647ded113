"""A stand-in of one's own, the churn example on it, and a look at what is left afterwards."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHURN = ROOT / "examples" / "pipelines" / "churn"
IMAGE = Path(os.environ.get("SMSSH_TEST_IMAGE_ENV", ROOT / ".venv-image"))
SMSSH = [sys.executable, "-m", "smssh_plugin.cli"]
PATIENCE = 180
"""Seconds that the longest single program of these tests may take on a slow machine."""


@dataclass
class Machine:
    """A home folder and environment in which nothing but what the test starts can be found."""

    home: Path
    environ: dict

    def run(self, *command, check=True, timeout=PATIENCE, **variables):
        done = subprocess.run(
            [str(part) for part in command],
            env={**self.environ, **variables},
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def smssh(self, *words, check=True, **variables):
        return self.run(*SMSSH, *words, check=check, **variables)

    def start(self, *command, **variables):
        """Start a program in a process group of its own, as a terminal does."""
        return subprocess.Popen(
            [str(part) for part in command],
            env={**self.environ, **variables},
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def processes(self):
        """Every living process that carries this machine's home in its environment."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                environ = (entry / "environ").read_bytes()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(self.home).encode() in environ and command:
                found[int(entry.name)] = command
        return found

    def assert_nothing_left(self):
        deadline = time.monotonic() + 20
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert left == {}
        mounts = Path("/proc/self/mountinfo").read_text()
        assert str(self.home) not in mounts


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


def node(machine, step):
    """What `smssh list` says of a step's host."""
    nodes = json.loads(machine.smssh("list", "--json").stdout)["hosts"]
    return next((one for one in nodes if one["step"] == step), {})


def wait_for(condition, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.5)
    return found
