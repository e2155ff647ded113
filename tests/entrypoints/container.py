"""A container's inside on this machine: a bundle, a run folder, a job, real SSH straight to its server."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

from tests import needs
from tests.waiting import LIMIT, until

ROOT = needs.ROOT
IMAGE = needs.IMAGE

STALLED = """\
import os, sys, time
os.chdir(os.environ["HOME"])
while not os.path.exists("pid"): time.sleep(0.02)
pid = open("pid").read()
while os.path.exists("/proc/" + pid): time.sleep(0.02)
time.sleep(6)
sys.stdout.buffer.write(sys.stdin.buffer.read())
"""
"""Takes its input once the script WORDY has ended, and late."""
# More than the log's own pipe holds, and no more than that and ours together: the script ends.
WORDY = """\
import os, sys
os.chdir(os.environ["HOME"])
with open("made", "w") as file: file.write(str(os.getpid()))
os.rename("made", "pid")
for n in range(1000): print(n, "~" * 100)
print("last words")
"""


def let_others_in(folder: Path) -> None:
    """Let other users reach a folder below pytest's, which is closed to all but us."""
    here = Path(tempfile.gettempdir()).resolve()
    for each in (folder, *folder.resolve().parents):
        if each == here or here not in each.parents:
            return
        each.chmod(0o755)


class Log:
    """A container's log: the pipe that a container's runtime gives to the first process, and what came through it."""

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self.name = os.readlink(f"/proc/self/fd/{self.writer}")
        """As the link of a descriptor below /proc has it."""
        self._taken = bytearray()
        self._lock = threading.Lock()
        threading.Thread(target=self._take_all, name="log", daemon=True).start()

    def text(self) -> str:
        """All that was written until now."""
        self._take()
        return self._taken.decode(errors="replace")

    def _take_all(self) -> None:
        while select.select([self._reader], [], []) and self._take():
            pass
        with self._lock:
            os.close(self._reader)
            self._reader = -1

    def _take(self) -> bool:
        """Read what is there; False once nobody can write any more."""
        with self._lock, contextlib.suppress(BlockingIOError):
            while self._reader >= 0 and (part := os.read(self._reader, 1 << 20)):
                self._taken += part
            return False
        return True


class Container:
    """One job's surroundings; every process that it starts is gone after `close`."""

    def __init__(self, folder: Path, bundle: Path, key: Path, python: str = "") -> None:
        self.folder = folder
        self.bundle = bundle
        self.key = key
        self.run_dir = folder / "run"
        self.base = folder / "ml"
        self.home = folder / "home"
        self.home.mkdir()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.logs: list[Log] = []
        path = [str(Path(python).parent)] if python else []
        path += [str(IMAGE / "bin"), "/usr/bin", "/bin", "/usr/sbin"]
        self.environ = {
            "PATH": os.pathsep.join(path),
            "HOME": str(self.home),
            "TMPDIR": str(folder),
            "SAGEMAKER_BASE_DIR": str(self.base),
            "AWS_REGION": "us-east-1",
            "TRAINING_JOB_NAME": "job-1",
            "SMSSH_RUN_DIR": str(self.run_dir),
        }
        self.on = {
            "SMSSH_ENABLE": "1",
            "SMSSH_TRANSPORT": "none",
            "SMSSH_AUTHORIZED_KEYS": key.with_suffix(".pub").read_text().strip(),
        }

    # ---------------------------------------------------------------------------------------- running things

    def start(self, *command, on=True, **environ):
        variables = {**self.environ, **(self.on if on else {}), **environ}
        variables = {name: str(value) for name, value in variables.items()}
        log = Log()
        try:
            process = subprocess.Popen(
                [str(part) for part in command],
                env=variables,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log.writer,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        finally:
            os.close(log.writer)
        self.processes.append(process)
        self.logs.append(log)
        return process

    def wrap(self, *command, on=True, **environ):
        """Start it as a wrapped ContainerEntrypoint."""
        return self.start("/bin/sh", self.bundle / "run.sh", *command, on=on, **environ)

    def output(self, number=-1):
        return self.logs[number].text()

    def script(self, text, name="job.py"):
        path = self.folder / name
        path.write_text(text)
        return path

    # ---------------------------------------------------------------------------------------- the supervisor

    def log(self):
        texts = [path.read_text(errors="replace") for path in self.run_dir.glob("*.log")]
        texts += [path.read_text(errors="replace") for path in self.run_dir.glob("ssh/*.log")]
        return "\n".join(texts)

    def hook(self, *arguments, check=True):
        """Run smssh-hook as a login would."""
        launcher = until(lambda: self.path("bin", "smssh-hook"), what="the launcher")
        done = subprocess.run(
            [str(launcher), *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr + self.log()
        return done

    def path(self, *parts):
        path = self.run_dir.joinpath(*parts)
        return path if path.exists() else None

    def status(self):
        return json.loads(self.hook("status", "--json").stdout)

    def wait_for(self, state):
        """The status, once the state is reached and the start is over."""

        def reached():
            assert self.processes[-1].poll() is None, self.output() + self.log()
            status = self.status()
            return status if status["state"] == state and (status["ssh"]["port"] or status["error"]) else None

        until(
            lambda: self.path("socket") and self.path("bin", "smssh-hook"),
            what=lambda: "the socket: " + self.log(),
        )
        return until(reached, what=lambda: f"state {state}: {self.log()}")

    # ------------------------------------------------------------------------------------------ SSH

    def ssh_options(self, status, key=None):
        ssh = status["ssh"]
        known = self.folder / "known_hosts"
        line = f"container {ssh['host_key']}\n"
        if not known.exists() or known.read_text() != line:  # another ssh may be reading it
            known.write_text(line)
        return [
            *("-F", "none", "-i", str(key or self.key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"),
            *(
                "-o",
                "HostKeyAlias=container",
                "-o",
                f"UserKnownHostsFile={known}",
                "-o",
                "StrictHostKeyChecking=yes",
            ),
            *("-o", "GlobalKnownHostsFile=none", "-o", "LogLevel=ERROR", "-o", f"User={ssh['user']}"),
            *("-o", f"Port={ssh['port']}", "-o", "ConnectTimeout=100"),
        ]

    def ssh(self, status, *command, options=(), data=None, key=None, text=True, terminal=False):
        arguments = ["ssh", *self.ssh_options(status, key), *options]
        arguments += ["-tt"] if terminal else []
        return subprocess.run(
            [*arguments, "127.0.0.1", *command],
            env={"PATH": os.environ["PATH"]},
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            text=text,
            timeout=LIMIT,
            check=False,
        )

    # ---------------------------------------------------------------------------------- the training toolkit

    def toolkit_job(self, source, **hyperparameters):
        """Lay out what SageMaker gives to `train`."""
        shutil.rmtree(self.base, ignore_errors=True)
        for name in ("input/config", "input/data", "output", "model", "source"):
            (self.base / name).mkdir(parents=True)
        (self.base / "source" / "train.py").write_text(source)
        given = {"sagemaker_program": "train.py", "sagemaker_submit_directory": str(self.base / "source")}
        given.update(hyperparameters)
        config = self.base / "input" / "config"
        config.joinpath("hyperparameters.json").write_text(
            json.dumps({name: json.dumps(value) for name, value in given.items()})
        )
        config.joinpath("resourceconfig.json").write_text(
            json.dumps({"current_host": "localhost", "hosts": ["localhost"], "network_interface_name": "lo"})
        )
        config.joinpath("inputdataconfig.json").write_text("{}")

    def train(self, on=True, **environ):
        """Start the real sagemaker-training toolkit, with the sitecustomize launcher."""
        if on:
            environ.setdefault("PYTHONPATH", self.bundle)
        return self.start(IMAGE / "bin" / "train", on=on, **environ)

    def failure_file(self):
        path = self.base / "output" / "failure"
        return path.read_bytes() if path.exists() else None

    def succeeded(self):
        return (self.base / "output" / "success").exists()

    # ------------------------------------------------------------------------------------------ afterwards

    def strays(self):
        """Processes that still work for this container: told by the run folder on their command line."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    command = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if os.fsencode(str(self.run_dir)) in command:
                    found.append((int(entry.name), command.replace(b"\0", b" ").decode(errors="replace")))
        return found

    def assert_quiet(self):
        """Nothing of ours is left."""
        until(lambda: not self.strays(), what=lambda: f"the end of {self.strays()}")

    def starts(self, launcher=""):
        """How often a supervisor was started (by one launcher); waits for the first, which may be late, and the end."""
        log = self.run_dir / "supervisor.log"
        until(lambda: log.exists() and " started by " in log.read_text(), what="the first line of its log")
        self.assert_quiet()
        return log.read_text().count(f" started by {launcher}")

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        until(
            lambda: not self.path("socket") or not self._supervisor(),
            what="the end of the supervisor",
        )
        for pid, _ in self.strays():
            os.kill(pid, signal.SIGKILL)
        self._end_scripts()

    def _end_scripts(self):
        """Where only the shell above it was stopped, a job's script goes on, as it would without us."""
        folder = os.fsencode(f"{self.folder}/")
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    told = (entry / "cmdline").read_bytes() + os.fsencode(os.readlink(entry / "cwd") + "/")
                    if folder in told:
                        os.kill(int(entry.name), signal.SIGKILL)
                except OSError:
                    continue

    def _supervisor(self):
        return [pid for pid, command in self.strays() if "supervisor.main" in command]
