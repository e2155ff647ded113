"""A home folder of one's own to run programs in, and a look at what they leave behind."""

import json
import os
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import boto3
import pytest
import typing_extensions

from smssh_plugin.local.keyring import Key
from tests import needs
from tests.local.service_harness import signed
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
CHURN = ROOT / "examples" / "pipelines" / "churn"
IMAGE = needs.IMAGE
TRAIN = "Train.churn.pipeline.sagemaker"
SMSSH = [sys.executable, "-m", "smssh_plugin.cli"]
PATIENCE = 400
"""Seconds that the longest single program of these tests may take on a slow machine."""


def image_with_asyncssh(folder):
    """The image's environment, with an SSH server in it: a step that is just decorated asks for no wheels."""
    theirs = next((IMAGE / "lib").glob("python3.*")) / "site-packages"
    ours = folder / "lib" / theirs.parent.name / "site-packages"
    ours.mkdir(parents=True)
    (ours / "theirs.pth").write_text(f"{theirs}\n")
    (folder / "pyvenv.cfg").write_text((IMAGE / "pyvenv.cfg").read_text())
    (folder / "bin").mkdir()
    for name in ("python", "python3"):
        (folder / "bin" / name).symlink_to((IMAGE / "bin" / "python").resolve())
    (ours / "asyncssh").symlink_to(Path(asyncssh.__file__).parent)
    (ours / "typing_extensions.py").symlink_to(typing_extensions.__file__)
    return folder


@dataclass
class Machine:
    """A home folder and environment in which nothing but what the test starts can be found.

    Attributes:
        kept: the ARN of an execution that tests have left held for others.
    """

    home: Path
    environ: dict
    kept: str = ""

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
        until(lambda: not self.processes(), lambda: f"the end of {self.processes()}")
        mounts = Path("/proc/self/mountinfo").read_text()
        assert str(self.home) not in mounts


def client(machine, service):
    return boto3.client(
        service,
        endpoint_url=machine.environ["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id=machine.environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=machine.environ["AWS_SECRET_ACCESS_KEY"],
    )


def node(machine, execution, step):
    """What `smssh list` says of the host of an execution's step; {} where it is not there."""
    nodes = json.loads(machine.smssh("list", "--json").stdout)["hosts"]
    name = execution.rpartition("/")[2]
    return next((one for one in nodes if one["step"] == step and name in one["job"]), {})


def control(machine, method, path, said=None):
    """What the local emulator answers to a request about itself: its record of decisions, its faults."""
    key = Key(machine.environ["AWS_ACCESS_KEY_ID"], machine.environ["AWS_SECRET_ACCESS_KEY"])
    url = f"{machine.environ['AWS_ENDPOINT_URL']}/_smssh/{path}"
    body = b"" if said is None else json.dumps(said).encode()
    headers = signed(method, url, body, {"Content-Type": "application/json"}, service="smssh", key=key)
    asked = urllib.request.Request(url, body or None, headers, method=method)
    with urllib.request.urlopen(asked) as answer:
        return json.load(answer)
