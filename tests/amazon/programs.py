"""Amazon's programs, and a place where they reach nothing but this machine.

SMSSH_TEST_SSM_AGENT names a folder with the agent's programs (amazon-ssm-agent, ssm-agent-worker, ssm-session-worker),
SMSSH_TEST_SESSION_MANAGER_PLUGIN the plugin itself. A wrong endpoint must not lead to AWS, so that everything runs in a
network namespace that has a loopback and nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import re
import signal
import socket
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import needs
from tests.local.jobs_support import processes
from tests.local.service_harness import Service
from tests.session.support import KEYS
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

AGENT = os.environ.get("SMSSH_TEST_SSM_AGENT", "")
PLUGIN = os.environ.get("SMSSH_TEST_SESSION_MANAGER_PLUGIN", "")
PROGRAMS = ("amazon-ssm-agent", "ssm-agent-worker", "ssm-session-worker")
REGION = "us-east-1"
NEWEST_PLUGIN = (1, 2, 835, 0)
"""The last version that connects to loopback."""

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_HIDING = """\
set -e
for each in /var/lib /var/log /home; do mount -t tmpfs tmpfs $each; done
mkdir "$1/etc"; cp -a /etc/. "$1/etc"; mount --bind "$1/etc" /etc
shift
register=$1; shift
test -z "$register" || "$1" -register -region us-east-1 -y $register
exec "$1"
"""
"""The agent has one place a machine for what it knows; for a shell it makes a user that may do everything by sudo."""


def needs_agent() -> None:
    """Skip where the agent cannot run."""
    needs.program("amazon-ssm-agent")
    _needs_root()


def needs_plugin() -> None:
    """Skip where the plugin cannot run."""
    needs.program("session-manager-plugin")
    _needs_root()
    said = subprocess.run(
        [PLUGIN, "--version"], capture_output=True, text=True, timeout=30, check=False
    ).stdout
    problem = plugin_problem(said.strip())
    if problem:
        pytest.fail(f"SMSSH_TEST_SESSION_MANAGER_PLUGIN: {problem}")


def plugin_problem(version: str) -> str:
    """What is wrong with the version that a plugin reports; "" if nothing is."""
    if not re.fullmatch(r"\d+(\.\d+){3}", version):
        return f"it reports no version: {version!r}"
    numbers = tuple(int(part) for part in version.split("."))
    if numbers[2] == 0:
        return f"it was built without its version, and reports {version}: agents go by that"
    if numbers > NEWEST_PLUGIN:
        return f"{version} is too new: from 1.2.889 on it takes no address of a stream that is not AWS's"
    return ""


def _needs_root() -> None:
    if os.geteuid() != 0:
        needs.does_not_apply("Amazon's agent, and a network namespace, need root")
    needs.program("unshare")


@contextlib.contextmanager
def loopback_only() -> Iterator[None]:
    """Put this thread, and what it starts, into a network namespace of its own until the end of the block."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(_CLONE_NEWNET):
            needs.missing("namespaces", f"no network of its own: {os.strerror(ctypes.get_errno())}")
        with socket.socket() as any_socket:
            name = struct.pack("16sH14x", b"lo", 0)
            (flags,) = struct.unpack_from("16xH", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, name))
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))
        try:
            yield
        finally:
            assert libc.setns(before, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(before)


class Emulator(Service):
    """The local emulator without jobs: its gateway, Session Manager with TLS for agents, and moto."""

    def start(self) -> None:
        """Start it; clients need not sign, since the plugin does only from 1.2.764 on."""
        super().start()
        self.sessions.channels.signed_clients = False

    @property
    def url(self) -> str:
        return self.endpoint

    @property
    def service(self) -> Any:
        return self.sessions

    @property
    def environment(self) -> dict[str, str]:
        """What a client's process needs, and nothing of the test's own AWS environment."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {
            **kept,
            **KEYS,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def call(self, operation: str, **body: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.do(self.sessions.handle(operation, body, "AKIATEST"))
        return answer

    def events(self, kind: str) -> list[str]:
        return [event.subject for event in self.sessions.events if event.kind == kind]


class AmazonAgent:
    """Amazon's agent in a folder and a mount namespace of its own.

    Args:
        emulator: what it connects to.
        folder: for its files; made.
        native: the target that it is, as SageMaker's own; it is registered as a managed node otherwise.
        environment: more variables.
    """

    def __init__(self, emulator: Emulator, folder: Path, native: str = "", **environment: str) -> None:
        self.emulator = emulator
        self._environment = environment
        self.folder = folder
        self.node = native
        self.native = bool(native)
        self.log = folder / "agent.log"
        (folder / "configuration").mkdir(parents=True)
        for name in PROGRAMS:
            (folder / name).symlink_to(Path(AGENT, name).resolve())
        identity: dict[str, Any] = {"ConsumptionOrder": ["OnPrem"]}
        if native:
            custom = {"InstanceID": native, "Region": REGION, "CredentialsProvider": "DEFAULT"}
            identity = {"ConsumptionOrder": ["CustomIdentity"], "CustomIdentities": [custom]}
        configuration = {
            "Ssm": {"Endpoint": emulator.url},
            "Mds": {"Endpoint": emulator.url},
            "Kms": {"Endpoint": emulator.url},
            "S3": {"Endpoint": emulator.url},
            "Mgs": {"Region": REGION, "Endpoint": emulator.channels, "SessionWorkerBufferLimit": 100},
            "Agent": {"Region": REGION, "ContainerMode": self.native, "SelfUpdate": False},
            "Identity": identity,
            "Profile": {"ShareCreds": not self.native},
        }
        (folder / "configuration" / "amazon-ssm-agent.json").write_text(json.dumps(configuration))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Register it, unless it is native, start it, and wait until sessions are possible."""
        register = ""
        if not self.native:
            made = self.emulator.call("CreateActivation", IamRole="role/SSM")
            register = f"-id {made['ActivationId']} -code {made['ActivationCode']}"
        before = len(self.emulator.events("control-open"))
        # HOME and the credentials file: it writes the node's credentials where they are everybody's, by default.
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "SSL_CERT_FILE": str(self.emulator.authority),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.folder / "credentials"),
            **(KEYS if self.native else {}),
            **self._environment,
        }
        hidden = ("unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", _HIDING, "sh")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*hidden, self.folder, register, self.folder / PROGRAMS[0]],
                cwd="/",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(lambda: len(self.emulator.events("control-open")) > before, seconds=60, what=f"{self.log}")
        if not self.native:
            found = re.search(r"Managed instance-id: (mi-[0-9a-f]{17})", self.log.read_text())
            assert found, self.log.read_text()
            self.node = found.group(1)

    def workers(self) -> list[int]:
        """The processes of its sessions."""
        return processes(f"{self.folder}/{PROGRAMS[2]}")

    def kill(self) -> None:
        """Kill it and its sessions, which outlive an agent that only stops."""
        if self.process is not None:
            # The core starts its worker anew: it goes first.
            self.process.kill()
            self.process.wait()
        while left := processes(f"{self.folder}/"):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            until(lambda left=left: not any(_alive(pid) for pid in left), what="their end")


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False
