"""One table of every launcher in every kind of container, each cell run for real in Docker.

A **row** is a toolkit or a kind of job: an image, the command and the /opt/ml that SageMaker would give it, and
the user's code in each scenario. A **column** is a launcher. A **cell** runs every scenario of its row with that
launcher and compares how the job ended with how it ended without us (same image, not baked; no variable, no
bundle). It fails unless in each scenario:

* the container's exit status, the failure file, the success file, the model and what the user's code printed
  (every line with the word `user:`) are the same, and whatever `Row.observe` adds;
* the supervisor was started before the user's code (which prints `probe:` and whether the lock is there), and
  once;
* `hold` (user's code as in `exception`): the job is held, a login over real SSH works, code fixed there and
  `smssh-hook retry` let the job end well.

How to add a row: make a `Row` in one of the `rows_*.py` beside this file (or a new one, and name it in
`test_containers.py`) and put it into that file's `ROWS`. What is needed:

* `image`: an `images.Image`; put layers on those of `rows_training.py`, or your own on `DEBIAN`.
* `command`, `environment`: as in the container without us. `bundle`: where the channel `smssh` appears.
* `lay_out(folder, scenario, source)`: fill `folder`, which becomes /opt/ml. `source` is `sources[scenario]`.
* `sources`: the user's code by scenario. Put `PROBE_PYTHON` or `PROBE_SHELL` first (in `good` and `sigterm`
  `WAIT_PYTHON` or `WAIT_SHELL`), and begin what it prints
  with `user:`. In `sigterm` it prints `user: ready` or makes /opt/ml/input/ready,
  then waits; the harness stops the container then.
* `code`: path in the container of the file that `hold` fixes: its new contents are `sources["good"]`.
* `not_here`: why a launcher, a scenario, or one of both (`"chain/hold"`) cannot exist in this row. Every launcher
  and every scenario is run or named here; a cell that is not run shows `n/a` and the reason in the table.
* `during`: scenario -> function of a `Run` (see there: `exec`, `wait_for`, `stop`, `output`) that does something
  to the running container, such as asking a server for predictions, and returns what it saw; that is compared
  as well. Without one, the harness waits for the end (`sigterm`: stops the container after `user: ready`).
  A server never ends by itself: stop it in `during`.
* `held`: what brings a held job to its end where fixing and retrying is not the way.

Rows run one after another; the scenarios of a cell run `AT_ONCE` at a time. Nothing in a row may depend on how
fast anything is.
"""

import json
import re
import shlex
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.waiting import until

from .daemon import WORK, Docker, DockerError
from .images import Image

if TYPE_CHECKING:
    from typing_extensions import Self

LAUNCHERS = ("baked", "wrapped", "pythonpath", "chain", "bash_env", "all")
"""The columns. baked: the wheel is installed in the image. wrapped: run.sh before the command. pythonpath: the
bundle's sitecustomize. chain: SAGEMAKER_TRAINING_MODULE. bash_env: BASH_ENV. all: all that can be, at once."""
SCENARIOS = ("good", "exception", "exit7", "sigterm", "requirements", "hold")
OPTIONAL = frozenset(["requirements", "exception"])

PROBE_PYTHON = (
    "import os; os.write(1, b'probe: %s\\n' % str(os.path.exists('/run/smssh/lock') "
    "or os.path.exists('/tmp/smssh-%d/lock' % os.geteuid())).encode())\n"
)
PROBE_SHELL = (
    "if [ -e /run/smssh/lock ] || [ -e /tmp/smssh-$(id -u)/lock ]; then echo 'probe: True'; "
    "else echo 'probe: False'; fi\n"
)
WAIT_PYTHON = PROBE_PYTHON + (
    "import time; [time.sleep(0.05) for _ in range(1000) for run in ['/run/smssh', '/tmp/smssh-%d' % os.geteuid()] "
    "if os.path.exists(run) and "
    "not (os.path.exists(run + '/supervisor.log') and os.path.getsize(run + '/supervisor.log'))]\n"
)
"""The probe; then nothing before the supervisor has said something. For `good` and `sigterm`: other scenarios may be
over before the supervisor has even started, which is a case of its own."""
WAIT_SHELL = PROBE_SHELL + (
    "for run in /run/smssh /tmp/smssh-$(id -u); do while [ -d $run ] && ! [ -s $run/supervisor.log ]; "
    "do sleep 0.05; done; done\n"
)

AT_ONCE = 3
"""Containers at a time: most of a run is waiting for Docker."""
LIMIT = 180.0
"""Seconds that anything in a container may take on a busy machine."""
GRACE = 3
"""Seconds from SIGTERM to SIGKILL where the user's code does not hear of it."""
STOPPING_GRACE = 120
"""Seconds where it does: what SageMaker gives. How long an end takes on a busy machine is not what cells are about."""
USER_ERROR = "user bug"

Observation = Mapping[str, Any]

_laying_out = threading.Lock()
"""Rows import the SDK for it, which several threads must not do at once."""


@dataclass(frozen=True)
class Row:
    """A toolkit or a kind of job; see the module."""

    name: str
    image: Image
    command: Sequence[str]
    sources: Mapping[str, str]
    lay_out: Callable[[Path, str, str], None]
    code: str
    environment: Mapping[str, str] = field(default_factory=dict)
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Launcher -> the command with it, where the image's entry point is another then (`smssh-hook run`)."""
    prepare: "Callable[[Lab], Mapping[str, str]] | None" = None
    """Called before each run; starts what the row needs beside the container, and answers more variables."""
    bundle: str = "/opt/ml/input/data/smssh"
    not_here: Mapping[str, str] = field(default_factory=dict)
    during: Mapping[str, "Callable[[Run], Observation]"] = field(default_factory=dict)
    observe: "Callable[[Run], Observation] | None" = None
    held: "Callable[[Run], Observation] | None" = None
    arguments: Sequence[str] = ()
    """More of `docker run`: mounts, `--user`."""
    login: str = "root"
    """The user that logs in."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Variables for runs with us only, such as a setting."""
    started_by: Mapping[str, str] = field(default_factory=dict)
    """Launcher -> the name that it has in the supervisor's log, where it isn't STARTED_BY's."""
    quiet: frozenset[str] = frozenset()
    """Launchers that can start no supervisor here (no Python, or one too old): only the end is compared."""
    ends_well: frozenset[str] = frozenset()
    """Scenarios in which the job ends with status 0, without us too."""
    network: str = "none"
    needs: tuple[str, ...] = ()
    """What of this machine the image is made of; names of tests/needs.py."""
    extras: str = ""
    """Extras of the wheel in the baked image: `[server]` where it has no sshd."""

    def reason(self, launcher: str, scenario: str = "") -> str:
        """Why the cell, or a scenario of it, cannot exist; '' where it can."""
        keys = (launcher, scenario, f"{launcher}/{scenario}") if scenario else (launcher,)
        return next((self.not_here[key] for key in keys if key in self.not_here), "")

    def scenarios(self, launcher: str) -> list[str]:
        """The scenarios that a cell runs."""
        return [name for name in SCENARIOS if not self.reason(launcher, name)]

    def source(self, scenario: str) -> str:
        """The user's code."""
        return self.sources["exception" if scenario == "hold" else scenario]


STARTED_BY = {"baked": "pth", "wrapped": "run.sh", "pythonpath": "sitecustomize", "chain": "chain"}


@dataclass
class Outcome:
    """How a job ended: all of it is compared."""

    status: int
    failure: str | None
    succeeded: bool
    model: list[str]
    said: list[str]
    seen: Observation

    def differences(self, other: "Outcome") -> str:
        """What is not the same, a line each."""
        lines = []
        for name, mine in vars(self).items():
            theirs = getattr(other, name)
            if mine != theirs:
                lines.append(f"{name}: without us {mine!r}, with us {theirs!r}")
        return "\n".join(lines)


class Run:
    """One container.

    Args:
        lab: what all runs share.
        row: what runs.
        scenario: which of its codes.
        launcher: '' for the run without us.
    """

    def __init__(self, lab: "Lab", row: Row, scenario: str, launcher: str) -> None:
        self.lab, self.row, self.scenario, self.launcher = lab, row, scenario, launcher
        self.name = f"smssh-{uuid.uuid4().hex[:12]}"
        self.folder = lab.folder / self.name
        self.ml = self.folder / "ml"
        """The host's side of /opt/ml."""
        self._process: subprocess.Popen[bytes] | None = None

    # ------------------------------------------------------------------------------------------ life

    def __enter__(self) -> "Self":
        row, launcher = self.row, self.launcher
        self.ml.mkdir(parents=True)
        with _laying_out:
            row.lay_out(self.ml, self.scenario, row.source(self.scenario))
        image = row.image
        command = list(row.commands.get(launcher, row.command))
        environment = {"AWS_REGION": "us-east-1", "TRAINING_JOB_NAME": "job-1", **row.environment}
        if row.prepare is not None:
            with _laying_out:
                environment.update(row.prepare(self.lab))
        mounts: list[str] = []
        if launcher:
            environment.update(row.options, SMSSH_ENABLE="1")
            here = [name for name in LAUNCHERS if name != "all" and not row.reason(name)]
            launchers = here if launcher == "all" else [launcher]
            if "baked" in launchers:
                image = self.lab.baked(row)
                # No bundle, no options.json.
                environment.update(SMSSH_TRANSPORT="none", SMSSH_AUTHORIZED_KEYS=self.lab.public_key)
            if launchers != ["baked"]:
                mounts = ["--volume", f"{self.lab.bundle}:{row.bundle}:ro"]
            folders = []
            if "pythonpath" in launchers:
                folders.append(row.bundle)
            if "chain" in launchers:
                folders.append(f"{row.bundle}/chain")
                if environment.get("SAGEMAKER_TRAINING_MODULE"):
                    environment["SMSSH_TRAINING_MODULE"] = environment["SAGEMAKER_TRAINING_MODULE"]
                environment["SAGEMAKER_TRAINING_MODULE"] = "smssh_chain:main"
            if folders:
                theirs = [environment["PYTHONPATH"]] if environment.get("PYTHONPATH") else []
                environment["PYTHONPATH"] = ":".join(folders + theirs)
            if "bash_env" in launchers:
                environment["BASH_ENV"] = f"{row.bundle}/env.sh"
            if "wrapped" in launchers:
                command = ["/bin/sh", f"{row.bundle}/run.sh", *command]
            if self.scenario == "hold":
                environment["SMSSH_HOLD"] = "failure"
        arguments = ["run", "--name", self.name, "--network", row.network, "--hostname", "algo-1"]
        arguments += [
            "--add-host",
            "algo-1:127.0.0.1",
            "--volume",
            f"{self.ml}:/opt/ml",
            *mounts,
            *row.arguments,
        ]
        for path in image.mounts:
            arguments += ["--volume", f"{path}:{path}:ro"]
        for name, value in environment.items():
            arguments += ["--env", f"{name}={value}"]
        client = self.lab.docker.client(*arguments, image.tag(self.lab.docker), *command)
        with (self.folder / "output").open("wb") as out:
            self._process = subprocess.Popen(
                client, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.lab.docker.run("rm", "--force", "--volumes", self.name, check=False)
        if self._process is not None:
            self._process.wait(60)
        shutil.rmtree(self.folder, ignore_errors=True)

    def ended(self) -> bool:
        """Whether the container has ended."""
        assert self._process is not None
        return self._process.poll() is not None

    def wait(self) -> int:
        """The exit status, once the container has ended."""
        assert self._process is not None
        try:
            return self._process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the container does not end\n{self.evidence()}") from None

    def stop(self, grace: int = GRACE) -> None:
        """SIGTERM, and SIGKILL after `grace` seconds, as a stop of the job does.

        Where the user's code says that it stops, SIGKILL comes after `STOPPING_GRACE` seconds.
        """
        began = time.monotonic()
        self.lab.docker.run("kill", "--signal", "TERM", self.name, check=False)  # it may have ended
        while not self.ended():
            limit = max(grace, STOPPING_GRACE) if "user: stopped" in self.output() else grace
            if time.monotonic() - began > limit:
                self.lab.docker.run("kill", self.name, check=False)
                return
            time.sleep(0.05)

    def poll(self, condition: Callable[[], Any], what: str) -> Any:
        """The first true value of `condition()`; the container must not end before."""

        def look() -> Any:
            over = self.ended()
            value = condition()
            assert value or not over, f"the container ended before {what}\n{self.evidence()}"
            return value

        return until(look, lambda: f"{what}\n{self.evidence()}", seconds=LIMIT)

    def wait_for(self, text: str) -> None:
        """Wait until the container's log has this text."""
        self.poll(lambda: text in self.output(), f"{text!r} in the log")

    # ------------------------------------------------------------------------------------------ what is there

    def output(self) -> str:
        """The container's log until now."""
        return (self.folder / "output").read_text(errors="replace")

    def exec(self, *command: str, data: str | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a command in the container; not one of the job: the plugin's switch is off in it."""
        arguments = [
            "exec",
            "--interactive",
            "--env",
            "SMSSH_ENABLE=",
            "--env",
            "BASH_ENV=",
            self.name,
            *command,
        ]
        return self.lab.docker.run(*arguments, check=False, data=data, seconds=LIMIT)

    def run_dir(self) -> str:
        """The supervisor's folder in the container."""
        user = (
            self.row.arguments[self.row.arguments.index("--user") + 1]
            if "--user" in self.row.arguments
            else "0"
        )
        return "/run/smssh" if user == "0" else f"/tmp/smssh-{user.split(':')[0]}"

    def logs(self) -> str:
        """The logs of supervisor and boot, of a container that runs or has ended."""
        target = self.folder / "run"
        shutil.rmtree(target, ignore_errors=True)
        self.lab.docker.run("cp", f"{self.name}:{self.run_dir()}", target, check=False)
        found = sorted(target.rglob("*.log")) if target.exists() else []
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')}" for path in found)

    def evidence(self) -> str:
        """What a person wants to see of a run that went wrong."""
        return f"--- output\n{self.output()[-6000:]}\n{self.logs()[-6000:]}"

    def outcome(self, seen: Observation) -> Outcome:
        """How the job ended; waits for it."""
        status = self.wait()
        failure = self.ml / "output" / "failure"
        message = self.ml / "output" / "message"
        text = failure.read_text(errors="replace") if failure.exists() else None
        if message.exists():
            seen = {**seen, "message": message.read_text(errors="replace")}
        if self.row.observe is not None:
            seen = {**seen, **self.row.observe(self)}
        model = self.ml / "model"
        return Outcome(
            status=status,
            failure=None if text is None else normalise(text),
            succeeded=(self.ml / "output" / "success").exists(),
            model=sorted(str(path.relative_to(model)) for path in model.rglob("*")) if model.exists() else [],
            # How many ranks come to say it is chance where one of them ends all.
            said=sorted(
                {line[line.index("user:") :] for line in self.output().splitlines() if "user:" in line}
            ),
            seen=seen,
        )

    # ------------------------------------------------------------------------------------------ the plugin

    def hook(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run `smssh-hook` in the container."""
        return self.exec(f"{self.run_dir()}/bin/smssh-hook", *arguments)

    def status(self) -> dict[str, Any]:
        """What `smssh-hook status` says, once it does and the start is over."""

        def ask() -> dict[str, Any] | None:
            done = self.hook("status", "--json")
            status: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
            return status if status and (status["ssh"]["port"] or status["error"]) else None

        status = self.poll(ask, "an answer of smssh-hook status")
        assert not status["error"], f"{status['error']}\n{self.evidence()}"
        return dict(status)

    def ssh(
        self, status: Mapping[str, Any], command: str, data: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """Log in over real SSH and run a command; `docker exec` stands for the transport."""
        ssh = status["ssh"]
        known = self.folder / "known_hosts"
        known.write_text(f"container {ssh['host_key']}\n")
        client = self.lab.docker.client("exec", "--interactive", "--env", "SMSSH_ENABLE=", self.name)
        relay = [*client, self.lab.relay_python(self.row), "-I", "-S", "-c", RELAY, str(ssh["port"])]
        options = {
            "ProxyCommand": " ".join(shlex.quote(word.replace("%", "%%")) for word in relay),
            "IdentityFile": self.lab.key,
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "HostKeyAlias": "container",
            "UserKnownHostsFile": known,
            "GlobalKnownHostsFile": "none",
            "StrictHostKeyChecking": "yes",
            "LogLevel": "ERROR",
            "User": ssh["user"],
        }
        arguments = ["ssh", "-F", "none"]
        for name, value in options.items():
            arguments += ["-o", f"{name}={value}"]
        return subprocess.run(
            [*arguments, "container", command],
            input=data,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def assert_started(self) -> None:
        """The supervisor was started once, by the launcher, before the user's code."""
        logs = self.logs()
        started = re.findall(r"started by (\S+) for process", logs)
        least = 1 if self.scenario in ("good", "sigterm", "hold") else 0
        assert least <= len(started) <= 1, f"{len(started)} starts\n{self.evidence()}"
        if self.launcher != "all" and started:
            expected = self.row.started_by.get(self.launcher, STARTED_BY.get(self.launcher))
            assert expected is None or started == [expected], f"started by {started}\n{self.evidence()}"
        probes = re.findall(r"probe: (\w+)", self.output())
        assert set(probes) <= {"True"}, f"user code ran before the supervisor was started\n{self.evidence()}"
        if self.scenario not in ("requirements", "sigterm"):
            assert probes, f"user code did not say whether the supervisor was there\n{self.evidence()}"


RELAY = """
import os, select, socket, sys
server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
while True:
    ready = select.select([0, server], [], [])[0]
    if 0 in ready:
        data = os.read(0, 65536)
        if not data:
            break
        server.sendall(data)
    if server in ready:
        data = server.recv(65536)
        if not data:
            break
        while data:
            data = data[os.write(1, data):]
"""


def normalise(text: str) -> str:
    """A failure file without what differs from run to run: temporary folders, object addresses, times."""
    text = re.sub(r"/tmp/tmp\w+", "/tmp/TMP", text)
    text = re.sub(r"0x[0-9a-f]{6,}", "0xADDRESS", text)
    return re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.,]?\d*", "TIME", text)


class Lab:
    """What all cells share: the daemon, the bundle, the wheel, the key, and how each job ends without us.

    Args:
        docker: the daemon.
        bundle: the folder of the bundle, with a key in its options.json.
        wheel: the project's wheel.
        key: the private key that may log in.
    """

    def __init__(self, docker: Docker, bundle: Path, wheel: Path, key: Path) -> None:
        self.docker, self.bundle, self.wheel, self.key = docker, bundle, wheel, key
        self.folder = WORK / "runs"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.public_key = key.with_suffix(".pub").read_text().strip()
        self._outcomes: dict[tuple[str, str], Outcome] = {}
        self._lock = threading.Lock()

    def baked(self, row: Row) -> Image:
        """The row's image with the wheel installed in the interpreter that owns the job."""
        name = self.wheel.name
        files = ((name, self.wheel.read_bytes()),)
        return row.image.pip(f"{row.image.name}, baked", f"/files/{name}{row.extras}", files=files)

    def relay_python(self, row: Row) -> str:
        """An interpreter for the relay."""
        return row.image.python

    def without_us(self, row: Row, scenario: str) -> Outcome:
        """How the job ends without us; run once."""
        key = (row.name, "exception" if scenario == "hold" else scenario)
        with self._lock:
            known = self._outcomes.get(key)
        if known is None:
            with Run(self, row, key[1], "") as run:
                known = run.outcome(_during(row, key[1], run))
                assert "probe: True" not in run.output(), "the run without us had us"
                _is_what_it_should_be(row, key[1], known, run)
            with self._lock:
                self._outcomes[key] = known
        return known

    def cell(self, row: Row, launcher: str) -> list[str]:
        """Run every scenario of a cell; what went wrong.

        Raises:
            UnavailableError: what its image is made of cannot be had.
        """
        row.image.tag(self.docker)
        if launcher in ("baked", "all") and not row.reason("baked"):
            self.baked(row).tag(self.docker)
        scenarios = row.scenarios(launcher)
        if launcher in row.quiet:
            scenarios = [name for name in scenarios if name != "hold"]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return [
                text for text in pool.map(lambda name: self._scenario(row, launcher, name), scenarios) if text
            ]

    def _scenario(self, row: Row, launcher: str, scenario: str) -> str:
        try:
            expected = self.without_us(row, scenario)
            with Run(self, row, scenario, launcher) as run:
                if scenario == "hold":
                    hold(run)
                else:
                    outcome = run.outcome(_during(row, scenario, run))
                    different = expected.differences(outcome)
                    assert not different, f"{different}\n{run.evidence()}"
                    if launcher not in row.quiet:
                        run.assert_started()
        except (AssertionError, DockerError, subprocess.SubprocessError, OSError) as error:
            return f"{row.name} / {launcher} / {scenario}: {error}"
        return ""


def _during(row: Row, scenario: str, run: Run) -> Observation:
    if scenario in row.during:
        return row.during[scenario](run)
    if scenario == "sigterm":
        # Some toolkits print nothing of the script's before its end.
        marker = run.ml / "input" / "ready"
        run.poll(lambda: "user: ready" in run.output() or marker.exists(), "the script")
        run.stop()
    return {}


def _is_what_it_should_be(row: Row, scenario: str, outcome: Outcome, run: Run) -> None:
    """A run without us that fails for a reason of its own would make every comparison worthless."""
    if scenario in row.during or scenario == "sigterm":
        return
    if scenario == "good":
        assert outcome.status == 0, f"the good run fails without us\n{run.evidence()}"
        assert any(line.startswith("user:") for line in outcome.said), run.evidence()
    elif scenario not in row.ends_well:
        assert outcome.status != 0, f"{scenario} does not fail without us\n{run.evidence()}"
    if scenario == "exception":
        assert USER_ERROR in run.output(), run.evidence()


def hold(run: Run) -> None:
    """Held at its failure, entered over SSH, fixed there, retried: the job ends well."""
    run.wait_for("smssh: held (")
    status = run.status()
    assert status["state"] == "held", f"{status}\n{run.evidence()}"
    assert status["attempt"] == 1, f"{status}\n{run.evidence()}"
    if run.row.held is not None:
        run.row.held(run)
    else:
        code = shlex.quote(run.row.code)
        # Over the file, not instead of it: its mode stays.
        command = f"id -un; cat > {code} && smssh-hook retry --json"
        done = run.ssh(status, command, run.row.sources["good"])
        assert done.returncode == 0, f"ssh: {done.returncode} {done.stdout}{done.stderr}\n{run.evidence()}"
        assert done.stdout.startswith(run.row.login + "\n"), done.stdout
        assert json.loads(done.stdout.partition("\n")[2])["attempt"] == 2
    expected = run.lab.without_us(run.row, "good")
    outcome = run.outcome({})
    told = (outcome.status, outcome.failure, outcome.succeeded, outcome.model)
    assert told == (expected.status, expected.failure, expected.succeeded, expected.model), (
        f"after the retry: {told}\n{run.evidence()}"
    )
    run.assert_started()
