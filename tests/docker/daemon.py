"""A dockerd of our own: nothing of it is left behind but the images below `.work/docker`."""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".work" / "docker"
STORAGE_DRIVERS = ("overlay2", "vfs")
"""Best first; vfs works everywhere and copies every layer."""
START_LIMIT = 60.0
"""Seconds for a daemon that opens its storage on a busy disk."""
PROGRAMS = ("dockerd", "docker", "mmdebstrap", "setpriv")


class DockerError(Exception):
    """A docker command failed."""


class Docker:
    """The daemon and its client; a context manager."""

    def __init__(self) -> None:
        WORK.mkdir(parents=True, exist_ok=True)
        # Two daemons on one data folder destroy it.
        self._lock = (WORK / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # A socket's path is limited to 107 bytes, a checkout's is not.
        self._runtime = Path(tempfile.mkdtemp(prefix="smssh-docker-"))
        self._socket = self._runtime / "docker.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.driver = ""

    def __enter__(self) -> "Self":
        try:
            for driver in STORAGE_DRIVERS:
                if self._start(driver):
                    self.driver = driver
                    self("container", "prune", "--force")
                    return self
        except BaseException:
            self.close()
            raise
        log = (WORK / "dockerd.log").read_text(errors="replace")[-2000:]
        self.close()
        raise DockerError(f"dockerd does not start:\n{log}")

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, driver: str) -> bool:
        # It must not outlive this process, however that ends: a second one on the same folder would destroy it.
        command = [
            "setpriv",
            "--pdeathsig",
            "TERM",
            "dockerd",
            "--data-root",
            str(WORK / driver),
            "--exec-root",
            str(self._runtime / "exec"),
        ]
        command += ["--pidfile", str(self._runtime / "dockerd.pid"), "--host", f"unix://{self._socket}"]
        command += ["--storage-driver", driver, "--bridge=none", "--iptables=false", "--ip6tables=false"]
        with (WORK / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._socket.exists() and self.run("version", check=False).returncode == 0:
                return True
            time.sleep(0.1)
        self._stop()
        return False

    def _stop(self) -> None:
        if self._process is None:
            return
        for number, seconds in ((signal.SIGTERM, 40), (signal.SIGKILL, 10)):
            if self._process.poll() is None:
                # The group: with SIGKILL, its containerd must go too.
                os.killpg(self._process.pid, number)
                try:
                    self._process.wait(seconds)
                except subprocess.TimeoutExpired:
                    continue
        self._process = None

    def close(self) -> None:
        """Stop the daemon; no process and no mount of it is left."""
        self._stop()
        for point in sorted(self._mounts(), reverse=True):
            subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
        shutil.rmtree(self._runtime, ignore_errors=True)
        self._lock.close()

    def _mounts(self) -> list[str]:
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            points = [line.split()[4] for line in file]
        return [point for point in points if point.startswith((f"{WORK}/", f"{self._runtime}/"))]

    def client(self, *arguments: object) -> list[str]:
        """The command line of a docker command."""
        return ["docker", "--host", f"unix://{self._socket}", *map(str, arguments)]

    def run(
        self, *arguments: object, check: bool = True, data: str | None = None, seconds: float = 900
    ) -> "subprocess.CompletedProcess[str]":
        """Run a docker command.

        Raises:
            DockerError: it failed, and `check` is set.
        """
        done = subprocess.run(
            self.client(*arguments),
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
        if check and done.returncode != 0:
            shown = " ".join(map(str, arguments))[:300]
            raise DockerError(f"docker {shown}: {done.stdout[-1500:]}{done.stderr[-3000:]}")
        return done

    def __call__(self, *arguments: object) -> str:
        """The output of a docker command that must work."""
        return self.run(*arguments).stdout.strip()
