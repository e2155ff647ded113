"""Random kills: jobs of several shapes, and a killer that may strike any process of ours at any moment.

Every choice comes from a seed and the number of the job, so that a job can be had again; what the machine
does meanwhile can't.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from smssh_plugin.entrypoints import supervisor_client
from tests.waiting import LIMIT, until

from .processes import SUPERVISOR, Ours

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.entrypoints.container import Container

INFINITY = float("inf")
ASK_SECONDS = 0.1
"""How often the supervisor is asked whether a login is possible."""
PATIENCE = 20.0
"""Seconds after which a job ends although no login was possible."""

USER = """\
import os, sys, time
def say(text):
    os.write(1, ("user: " + text + "\\n").encode())
say("started with " + " ".join(sys.argv[1:]))
end = time.monotonic() + float(os.environ["USER_SECONDS"])
for number in range(1, 4):
    time.sleep(max(0.0, end - time.monotonic()) / (4 - number))
    say("line %d" % number)
while not os.path.exists(os.environ["USER_GO"]):
    time.sleep(0.02)
with open(os.environ["USER_OUTPUT"], "w") as file:
    file.write("weights")
ENDING
"""
GOOD = USER.replace("ENDING", 'say("done")')
EXCEPTION = USER.replace("ENDING", 'raise ValueError("user bug")')
EXIT_7 = USER.replace("ENDING", "sys.exit(7)")
TERMINATED = USER.replace("ENDING", "os.kill(os.getpid(), 15); time.sleep(60)")


@dataclass(frozen=True)
class Cell:
    """One shape of job: how we get in, and how the user's code ends."""

    name: str
    source: str
    start: Callable[[Container, bool, dict[str, str]], subprocess.Popen[bytes]]


def _toolkit(container: Container, on: bool, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    return container.train(on=on, **environ)


def _wrapped(container: Container, on: bool, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    script = container.base / "source" / "train.py"
    if on:
        return container.wrap("python", script, "--lr", "1", **environ)
    return container.start("python", script, "--lr", "1", on=False, **environ)


def _sitecustomize(container: Container, on: bool, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    # A processing job's script: the process that the service starts is the user's interpreter itself.
    script = container.base / "processing" / "input" / "code" / "prepare.py"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text((container.base / "source" / "train.py").read_text())
    if on:
        environ = {**environ, "PYTHONPATH": str(container.bundle)}
    return container.start("python", script, on=on, **environ)


def _hook_run(container: Container, on: bool, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    script = container.base / "source" / "train.py"
    command = ["sh", "-c", f"python {script} --lr 1; exit $?"]
    if on:
        # As the console script does it; `python -m` would be taken for a person's call.
        main = "import sys; from smssh_plugin.entrypoints.smssh_hook import main; sys.exit(main())"
        command = [sys.executable, "-c", main, "run", "--", *command]
    return container.start(*command, on=on, **environ)


CELLS = {
    cell.name: cell
    for cell in (
        Cell("toolkit-good", GOOD, _toolkit),
        Cell("toolkit-exception", EXCEPTION, _toolkit),
        Cell("toolkit-exit-7", EXIT_7, _toolkit),
        Cell("wrapped-good", GOOD, _wrapped),
        Cell("wrapped-exit-7", EXIT_7, _wrapped),
        Cell("sitecustomize-exception", EXCEPTION, _sitecustomize),
        Cell("smssh-hook-good", GOOD, _hook_run),
        Cell("smssh-hook-terminated", TERMINATED, _hook_run),
    )
}


@dataclass(frozen=True)
class Outcome:
    """What SageMaker and the pipeline see of a job's end."""

    exit_code: int
    failure: bytes | None
    success: bool
    output: str | None
    lines: tuple[str, ...]
    """What the user's code printed."""


@dataclass
class Kill:
    """One kill: when it comes, and of which process."""

    phase: str
    """`start`: seconds after the start; `ready`: after a login is possible; `end`: after the user's code is done."""
    after: float
    role: str
    victim: str = ""
    """Who it was; empty when nobody of us was there."""


@dataclass
class Plan:
    """All that is random about one job."""

    cell: Cell
    late: bool
    """Whether the user's code goes on until a login has been possible for `seconds`, however busy the machine is."""
    seconds: float
    hold: bool
    transport: str
    session: bool
    server: str
    kills: list[Kill] = field(default_factory=list)

    @classmethod
    def draw(cls, cell: Cell, seed: str, number: int) -> Plan:
        """The plan of a job."""
        chance = random.Random(f"{seed}/{cell.name}/{number}")
        seconds = chance.choice([chance.uniform(0.1, 1.0), chance.uniform(1.0, 4.0)])
        late = chance.random() < 0.6
        plan = cls(
            cell,
            late,
            round(seconds, 3),
            hold=chance.random() < 0.5,
            transport="ssm" if chance.random() < 0.4 else "none",
            session=chance.random() < 0.5,
            server=chance.choice(["auto", "asyncssh"]),
        )
        roles = chance.choices(["server", "agent", "session", "child"], k=chance.randint(4, 8))
        roles += ["supervisor"] * (chance.random() < 0.4)
        for role in roles:
            running = ("ready" if late else "start", seconds + 0.2)
            phase, most = chance.choice([("start", seconds), running, running, ("end", 1.5)])
            plan.kills.append(Kill(phase, round(chance.uniform(0.0, most), 3), role))
        return plan


class Job:
    """One job under fire."""

    def __init__(self, container: Container, plan: Plan, stack_url: str, programs: Path) -> None:
        self.container = container
        self.plan = plan
        self.output = container.base / "model" / "weights"
        self.ours = Ours(container)
        self._go = container.folder / "go"
        self._asked = 0.0
        self._stack_url = stack_url
        self._programs = programs
        self._session: subprocess.Popen[bytes] | None = None

    def run_without_us(self) -> Outcome:
        """How it ends where there is no plugin."""
        self._lay_out()
        self._go.touch()
        process = self.plan.cell.start(self.container, False, self._variables())
        return self._outcome(process, LIMIT)

    def run(self) -> Outcome:
        """How it ends with us, while we are killed."""
        self._lay_out()
        began = time.monotonic()
        process = self.plan.cell.start(self.container, True, {**self._variables(), **self._switches()})
        pending = sorted(self.plan.kills, key=lambda kill: kill.after)
        times = {"start": began}
        try:
            while process.poll() is None and (pending or not self._go.exists()):
                self.ours.look()
                self._follow(times)
                for kill in [
                    kill
                    for kill in pending
                    if time.monotonic() - times.get(kill.phase, INFINITY) >= kill.after
                ]:
                    pending.remove(kill)
                    self._strike(kill)
                time.sleep(0.005)
            return self._outcome(process, 2 * LIMIT)
        finally:
            self._log_out()

    def _follow(self, times: dict[str, float]) -> None:
        """Note when each phase begins, log in, and let the user's code end when it is time."""
        now = time.monotonic()
        if "end" not in times and self.output.exists():
            times["end"] = now
        if "ready" not in times and now - self._asked >= ASK_SECONDS:
            self._asked = now
            status = self._status()
            if status is not None:
                times["ready"] = time.monotonic()
                if self.plan.session:
                    self._log_in(status)
        # A supervisor that was killed before is never ready.
        enough = times["start"] + PATIENCE if "ready" not in times else times["ready"] + self.plan.seconds
        gone = self.ours.seen and "supervisor" not in self.ours.look().values()
        if self.plan.late and not self._go.exists() and (now >= enough or gone):
            self._go.touch()

    def _lay_out(self) -> None:
        self.container.toolkit_job(self.plan.cell.source)
        self.output.unlink(missing_ok=True)
        self._go.unlink(missing_ok=True)
        if not self.plan.late:
            self._go.touch()

    def _variables(self) -> dict[str, str]:
        seconds = "0" if self.plan.late else str(self.plan.seconds)
        return {"USER_SECONDS": seconds, "USER_OUTPUT": str(self.output), "USER_GO": str(self._go)}

    def _switches(self) -> dict[str, str]:
        plan, path = self.plan, self.container.environ["PATH"]
        switches = {
            "PATH": f"{self._programs}:{path}",
            "SMSSH_SSH_SERVER": plan.server,
            "SMSSH_TRANSPORT": plan.transport,
            "SMSSH_ROLE": "Nodes",
            "AWS_ENDPOINT_URL": self._stack_url,
            "AWS_ACCESS_KEY_ID": "ASIAJOBJOBJOBJOBJOBJ",
            "AWS_SECRET_ACCESS_KEY": "the-jobs-secret",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        if plan.hold:
            switches.update(SMSSH_HOLD="failure", SMSSH_HOLD_SECONDS="1", SMSSH_HOLD_MAX_SECONDS="3")
        return switches

    def _strike(self, kill: Kill) -> None:
        """Kill one of the wanted role, else any of ours but the supervisor: its end is the end of the others."""
        now = self.ours.look()
        chance = random.Random(kill.after)
        others = sorted(set(now.values()) - {SUPERVISOR})
        role = kill.role if kill.role in now.values() or not others else chance.choice(others)
        found = sorted(process for process in now if now[process] == role)
        if not found:
            return
        victim = chance.choice(found)
        kill.victim = now[victim]
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)

    def _status(self) -> dict[str, Any] | None:
        """What the supervisor says, once a login is possible."""
        try:
            with contextlib.closing(
                supervisor_client.Connection(supervisor_client.connect(str(self.container.run_dir)))
            ) as connection:
                status = connection.ask({"op": "status"}, 2.0)
        except (OSError, ValueError):
            return None
        if not status or not status["ssh"]["port"]:
            return None
        return None if self.plan.transport == "ssm" and not status["transport"]["target"] else status

    def _log_in(self, status: dict[str, Any]) -> None:
        """Somebody is logged in meanwhile; their command ends with its input."""
        self._session = subprocess.Popen(
            ["ssh", *self.container.ssh_options(status), "127.0.0.1", "cat"],
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _log_out(self) -> None:
        if self._session is not None:
            self._session.kill()
            self._session.communicate()

    def _outcome(self, process: subprocess.Popen[bytes], seconds: float) -> Outcome:
        code = process.wait(seconds)
        lines = [line for line in self.container.output().splitlines() if line.startswith("user: ")]
        return Outcome(
            code,
            self.container.failure_file(),
            self.container.succeeded(),
            self.output.read_text() if self.output.exists() else None,
            tuple(lines),
        )

    def assert_quiet(self) -> None:
        """Nothing of ours runs any more, whatever was killed."""
        until(lambda: not self.ours.left(), what=lambda: f"the end of {self.ours.left()}")

    def describe(self) -> str:
        """For a failure's message: what was done, and our logs."""
        return f"{self.plan}\n{self.container.output()}\n{self.container.log()}"
