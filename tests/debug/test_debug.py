"""The debugger against the local emulator's service and a real SSH server; only the container is fake."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from smssh_plugin.client.connection import Connection
from smssh_plugin.debug import probes, repair, report, run
from smssh_plugin.debug.report_html import page
from smssh_plugin.errors import ExitStatus, SmsshError
from tests.client.nodes import add_node, set_state, set_tag, use
from tests.local.service_harness import Service, definition, processing, step, training
from tests.waiting import until

from .container import GOOD_PATCH, REPORT, Container

if TYPE_CHECKING:
    from pathlib import Path

    from smssh_plugin.aws.session import AwsSession
    from smssh_plugin.debug.incidents import Event, Report
    from tests.client.conftest import SshServer


class Recorder:
    """A view that keeps what it is shown."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.on_event: Any = None

    def show(self, event: Event) -> None:
        self.events.append(event)
        if self.on_event:
            self.on_event(event)

    def update(self, report: Report) -> None:
        pass

    @property
    def text(self) -> str:
        return "\n".join(event.text for event in self.events)


class World:
    """A pipeline with one held step, and the debugger for it."""

    def __init__(self, service: Service, container: Container, session: AwsSession) -> None:
        self.service = service
        self.container = container
        self.session = session
        self.view = Recorder()
        self.node = ""

    def start(self, *, tagged: bool = True) -> str:
        """Start the pipeline and bring its training step to a hold."""
        first = step("Prepare", "Processing", processing())
        then = step("Train", "Training", training(Environment={"OUTCOME": "hold"}), DependsOn=["Prepare"])
        jobs = self.service.runner.jobs
        before = len(jobs)
        if not before:
            self.service.pipeline(definition(first, then))
        arn = self.service.start_pipeline()
        until(lambda: self.service.runner.running and len(jobs) == before + 2, "Train runs")
        self.job = self.service.runner.jobs[-1].name
        state = {"State": "held"} if tagged else {}
        self.node = add_node(self.service, self.job, Step="Train", **state)
        return arn

    def follow(self) -> None:
        """End the job when its container ends: what SageMaker does."""

        def watch() -> None:
            until(lambda: self.container.state["state"] == "ended")
            if self.container.state.get("exit_code", 1) == 0:
                self.service.release(self.job)
            else:
                self.service.do(self.service.runner.stop(self.job))

        threading.Thread(target=watch, daemon=True).start()

    def debug(self, **options: Any) -> Report:
        return run.debug(run.Options("pipe", poll=0.1, **options), self.session, self.view)


@pytest.fixture
def world(service: Service, any_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    session = use(service, monkeypatch)
    monkeypatch.setattr(repair, "login", lambda _session, _node: Connection(any_server.endpoint))
    return World(service, Container(tmp_path / "container", any_server.folder / "bin"), session)


class Look:
    """A probe; `answer` may be an exception."""

    def __init__(self, name: str, answer: Any) -> None:
        self.name = name
        self._answer = answer

    def run(self, host: Connection) -> Any:
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer(host) if callable(self._answer) else self._answer


def test_probes_of_plugins_look_before_the_fix(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = world.container.code / "train.py"
    given = [
        Look("code", lambda host: host.run(["cat", str(code)]).text),
        Look("broken", ValueError("no such queue")),
        Look("sets", {1, 2}),
        Look("slow", lambda host: time.sleep(600)),
        Look("table", {"rows": 3}),
    ]
    monkeypatch.setattr(run.Plugins, "probes", lambda self: given)
    monkeypatch.setattr(probes, "LIMIT", 5.0)
    world.start()
    world.follow()
    found = world.debug(fixes=world.container.fixes(Train_patch=GOOD_PATCH))
    assert found.status == "Succeeded"
    (incident,) = found.incidents
    assert incident.probes == {"code": "import sys\nsys.exit(1)\n", "table": {"rows": 3}}
    assert incident.resolution == "fixed"
    for complaint in (
        "the probe broken failed: ValueError: no such queue",
        "the probe sets failed: TypeError",
        "the probe slow failed: TimeoutError: no answer within 5 s",
    ):
        assert complaint in world.view.text


def test_a_held_step_is_fixed_and_the_pipeline_goes_on(world: World, tmp_path: Path) -> None:
    world.start()
    world.follow()
    found = world.debug(fixes=world.container.fixes(Train_patch=GOOD_PATCH))
    assert found.status == "Succeeded"
    assert run.exit_status(found) is ExitStatus.OK
    (incident,) = found.incidents
    assert incident.resolution == "fixed"
    assert [(action.what, action.ok) for action in incident.actions] == [("patch", True), ("retry", True)]
    assert incident.report["python"] == "3.11.7"
    assert incident.log_tail == ["read 600 customers"]
    assert "Train: failed and is held: ValueError: could not convert" in world.view.text
    assert world.view.events[-1].text == "pipeline Succeeded"
    assert [call.partition(" ")[0] for call in world.container.calls] == [
        *("status", "report", "changes", "note", "note", "changes", "retry")
    ]
    json_path, html_path = report.write(found, tmp_path / "report")
    written = json.loads(json_path.read_text())
    assert written["version"] == 1
    assert [step["name"] for step in written["steps"]] == ["Prepare", "Train"]
    assert written["incidents"][0]["error"] == "ValueError: could not convert string to float: ' '"
    assert "could not convert &lt;b&gt;" in html_path.read_text()


def _log(world: World, group: str, job: str, hosts: dict[str, str]) -> None:
    """Put the logs of a job into CloudWatch Logs."""
    client = world.service.client("logs")
    client.create_log_group(logGroupName=f"/aws/sagemaker/{group}")
    for number, (host, text) in enumerate(hosts.items()):
        where = {
            "logGroupName": f"/aws/sagemaker/{group}",
            "logStreamName": f"{job}/{host}-170000000{number}",
        }
        client.create_log_stream(**where)
        now = int(time.time() * 1000)
        events = [{"timestamp": now, "message": line} for line in text.splitlines() if line]
        client.put_log_events(**where, logEvents=events)


LOST = """\
Traceback (most recent call last):
  File "/opt/ml/code/fit.py", line 30, in <module>
    dist.barrier()
RuntimeError: Connection closed by peer
"""
OWN = """\
Traceback (most recent call last):
  File "/opt/ml/code/fit.py", line 7, in <module>
    import polars
ModuleNotFoundError: No module named 'polars'
"""


def test_the_cause_of_a_failure_is_found_without_a_container(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the logs of all hosts, when the step has failed and nothing of it is left."""
    one = step("Train", "Training", training(Environment={"OUTCOME": "hold,fail"}))
    world.service.pipeline(definition(one))
    world.service.start_pipeline()
    until(lambda: world.service.runner.running, "Train runs")
    job = world.service.runner.jobs[-1].name
    _log(world, "TrainingJobs", job, {"algo-1": LOST, "algo-2": OWN})
    world.service.do(world.service.runner.stop(job))
    step_of = next(iter(world.service.runner.jobs))
    assert step_of.name == job
    call = world.session.call

    def failed(service: str, operation: str, **parameters: Any) -> Any:
        answer = call(service, operation, **parameters)
        for each in answer.get("PipelineExecutionSteps", ()) if isinstance(answer, dict) else ():
            if each["StepStatus"] == "Stopped":
                each.update(StepStatus="Failed", FailureReason="ClientError: AlgorithmError: , exit code: 1")
        return answer

    monkeypatch.setattr(world.session, "call", failed)
    found = world.debug(timeout=60)
    cause = found.steps[0].cause
    assert cause is not None
    assert (cause.id, cause.certain, cause.sure) == ("package-missing", True, "parsed")
    assert (cause.error, cause.place, cause.where) == (
        "ModuleNotFoundError: No module named 'polars'",
        "fit.py:7",
        "algo-2",
    )
    assert cause.others == ["RuntimeError: Connection closed by peer"]
    assert "Train: ModuleNotFoundError: No module named 'polars'" in world.view.text
    assert (
        world.view.text.count("Train: cause: Python finds no module polars (read from the log; at fit.py:7)")
        == 1
    )
    json_path, html_path = report.write(found, tmp_path / "report")
    written = json.loads(json_path.read_text())["steps"][0]["cause"]
    assert (written["id"], written["advice"], written["hold"]) == ("package-missing", cause.advice, "y")
    shown = html_path.read_text()
    assert "Python finds no module polars" in shown
    assert "Read from the log".lower() in shown.lower()


@pytest.mark.parametrize(
    ("outcome", "cause", "said"),
    [
        ("capacity", "capacity", "cause: AWS had no machine of this type free (said by SageMaker)"),
        (
            "internal",
            "service-fault",
            "cause: probably: SageMaker reports a fault of its own (said by SageMaker)",
        ),
        ("fail", "unknown", "cause: not known"),
    ],
)
def test_what_sagemaker_says_is_enough_or_the_cause_is_unknown(
    world: World, outcome: str, cause: str, said: str
) -> None:
    world.service.pipeline(definition(step("Train", "Training", training(Environment={"OUTCOME": outcome}))))
    world.service.start_pipeline()
    found = world.debug(timeout=60)
    assert found.status == "Failed"
    assert found.steps[0].cause is not None
    assert found.steps[0].cause.id == cause
    assert f"Train: {said}" in world.view.text


def test_the_cause_of_a_held_failure_is_in_the_report(world: World, tmp_path: Path) -> None:
    told = {
        "traceback": OWN,
        "error": "ModuleNotFoundError: No module named 'polars'",
        "code_dir": "/opt/ml/code",
    }
    (world.container.folder / "report.json").write_text(json.dumps({**REPORT, **told}))
    world.start()
    found = world.debug(timeout=3)
    cause = found.incidents[0].cause
    assert cause is not None
    assert (cause.id, cause.sure, cause.place) == ("package-missing", "recorded", "fit.py:7")
    assert (
        "Train: cause: Python finds no module polars (recorded in the container; at fit.py:7)"
        in world.view.text
    )
    written = json.loads(report.write(found, tmp_path / "report")[0].read_text())
    assert written["incidents"][0]["cause"]["certain"] is True


def test_memory_that_the_kernel_counted_makes_it_certain(world: World) -> None:
    told = {"traceback": None, "error": "ended by SIGKILL (exit status 137)", "exit_code": 137}
    told["memory"] = {"oom_kills": 1, "peak_bytes": 1 << 34, "limit_bytes": 1 << 34}
    (world.container.folder / "report.json").write_text(json.dumps({**REPORT, **told}))
    world.start()
    found = world.debug(timeout=3)
    assert (
        "Train: cause: out of memory: the kernel ended a process (recorded in the container)"
        in world.view.text
    )
    assert found.incidents[0].cause is not None
    assert found.incidents[0].cause.evidence[-1].startswith("at most 16.0 of 16.0 GiB")


@pytest.mark.parametrize("fixed", [True, False])
def test_only_work_counts_as_a_persons_login(
    world: World, monkeypatch: pytest.MonkeyPatch, fixed: bool
) -> None:
    """A step that is left held is looked at again and again; a script may take longer than a hold waits."""
    monkeypatch.setattr(run, "ASK_SECONDS", 0.2)
    logged_in = repair.login
    ports: list[int] = []

    def login(session: Any, node: Any) -> Connection:
        ports.append(node.control_port)
        return logged_in(session, node)

    monkeypatch.setattr(repair, "login", login)
    world.start()
    set_tag(world.service, world.node, "SMSSHControlPort", "2223")
    if fixed:
        world.follow()
        found = world.debug(fixes=world.container.fixes(Train_sh="echo 'print(1)' > train.py\n"))
        assert found.incidents[0].resolution == "fixed"
        assert ports[:2] == [2223, 0]
        assert ports.count(0) == 1
    else:
        found = world.debug(timeout=5)
        assert found.incidents[0].resolution == "held"
        assert len(ports) > 1
        assert set(ports) == {2223}


def test_without_state_tags_the_container_is_asked(world: World) -> None:
    world.start(tagged=False)
    world.follow()
    found = world.debug(fixes=world.container.fixes(Train_patch=GOOD_PATCH))
    assert found.status == "Succeeded"
    assert found.incidents[0].resolution == "fixed"


def test_a_script_is_a_fix_too(world: World) -> None:
    world.start()
    world.follow()
    found = world.debug(fixes=world.container.fixes(Train_sh="echo 'print(1)' > train.py\n"))
    assert found.status == "Succeeded"
    assert [action.what for action in found.incidents[0].actions] == ["script", "retry"]


def test_a_step_inside_of_a_loop_and_a_condition_has_its_fix(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The local emulator runs no loops, so the definition says that there is one."""
    call = world.session.call

    def looped(service: str, operation: str, **parameters: Any) -> Any:
        answer = call(service, operation, **parameters)
        if operation != "describe_pipeline":
            return answer
        inner = json.loads(answer["PipelineDefinition"])["Steps"]
        either = {"Name": "Either", "Type": "Condition", "Arguments": {"IfSteps": [], "ElseSteps": inner}}
        loop = {"Name": "Each", "Type": "ForEach", "Arguments": {"ForEachBody": [either]}}
        return {**answer, "PipelineDefinition": json.dumps({"Steps": [loop]})}

    monkeypatch.setattr(world.session, "call", looped)
    world.start()
    world.follow()
    found = world.debug(fixes=world.container.fixes(Train_patch=GOOD_PATCH))
    assert [one.resolution for one in found.incidents] == ["fixed"]
    with pytest.raises(SmsshError, match="'Trian', which the pipeline does not have") as caught:
        world.debug(fixes=world.container.fixes(Trian_patch=""))
    assert (
        caught.value.hint == "name it after a step of the pipeline ('Train'?): Each, Either, Prepare, Train"
    )


def test_a_fix_that_does_not_help_is_tried_once(world: World) -> None:
    world.start()
    world.follow()
    patch = GOOD_PATCH.replace('print("trained")', "sys.exit(2)")
    found = world.debug(fixes=world.container.fixes(Train_patch=patch), release=True)
    assert found.status == "Failed"
    assert run.exit_status(found) is ExitStatus.PIPELINE_FAILED
    assert [one.resolution for one in found.incidents] == ["failed", "released"]
    assert [one.attempt for one in found.incidents] == [1, 2]
    assert world.container.calls.count("retry --json") == 1
    assert "it fails with its fix, too: released it" in world.view.text


def test_a_patch_that_does_not_apply(world: World) -> None:
    world.start()
    world.follow()
    patch = GOOD_PATCH.replace("sys.exit(1)", "sys.exit(9)")
    found = world.debug(fixes=world.container.fixes(Train_patch=patch), release=True)
    (incident,) = found.incidents
    assert incident.resolution == "released"
    assert not incident.actions[0].ok
    assert "Train.patch does not apply to train.py" in incident.actions[0].summary
    assert "retry --json" not in world.container.calls


def _until_left(world: World) -> None:
    """Have the job end, in failure, when the debugger leaves it to a person."""
    world.follow()

    def end(event: Event) -> None:
        if "left held" in event.text:
            world.container.set(state="ended", exit_code=1)

    world.view.on_event = end


def _cut_before(monkeypatch: pytest.MonkeyPatch, what: str, times: int) -> None:
    """Have the login of the debugger end just before it puts in a patch or script, this often."""
    original = getattr(repair.fixes, what)
    left = [None] * times

    def cut(connection: Connection, code_dir: str, path: Path) -> Any:
        if left:
            left.pop()
            connection._login.master.kill()
            connection._login.master.wait()
        return original(connection, code_dir, path)

    monkeypatch.setattr(repair.fixes, what, cut)


def test_a_lost_login_is_had_again_and_the_fix_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    _cut_before(monkeypatch, "apply_patch", 2)
    world.start()
    world.follow()
    found = world.debug(fixes=world.container.fixes(Train_patch=GOOD_PATCH), release=True, timeout=60)
    assert found.status == "Succeeded"
    (incident,) = found.incidents
    assert incident.resolution == "fixed"
    assert [one.what for one in incident.actions] == ["lost", "lost", "patch", "retry"]
    assert world.container.calls.count("report --json") == 1


def test_logins_that_are_lost_again_and_again_leave_it_to_a_person(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cut_before(monkeypatch, "apply_patch", 100)
    world.start()
    _until_left(world)
    found = world.debug(fixes=world.container.fixes(Train_patch=GOOD_PATCH), release=True, timeout=60)
    (incident,) = found.incidents
    assert incident.resolution == "over"  # the job was stopped then
    assert [one.what for one in incident.actions] == ["lost"] * repair.TRIES + ["leave"]
    assert f"lost it {repair.TRIES} times: left held" in world.view.text


def test_a_script_that_was_cut_off_is_not_run_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have done half of its work, and may still run."""
    _cut_before(monkeypatch, "run_script", 1)
    world.start()
    world.follow()
    files = {"Train_patch": GOOD_PATCH, "Train_sh": "true\n"}
    found = world.debug(fixes=world.container.fixes(**files), release=True, timeout=60)
    assert found.status == "Failed"
    (incident,) = found.incidents
    assert [one.what for one in incident.actions] == ["patch", "lost", "release"]
    assert "the connection was lost while Train.sh ran: released it" in world.view.text


def test_a_step_that_cannot_be_released_is_still_held(world: World) -> None:
    world.start()
    _until_left(world)
    world.container.set(no_release=True)
    found = world.debug(release=True, timeout=60)
    (incident,) = found.incidents
    assert incident.resolution == "over"  # the job was stopped then
    assert (
        "could not release it: error: nothing is released here: left held; smssh connect"
        in incident.actions[-1].summary
    )


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (None, "the first line of Train.sh cannot be understood: No closing quotation (begin it with"),
        (PermissionError(13, "Permission denied"), "Train.sh cannot be used: [Errno 13] Permission denied"),
        (RuntimeError("a fault of ours"), "the debugger failed: RuntimeError: a fault of ours"),
    ],
)
def test_whatever_goes_wrong_with_a_fix_the_step_is_left_to_a_person(
    world: World, monkeypatch: pytest.MonkeyPatch, trouble: Exception | None, said: str
) -> None:
    def fails(*_: object) -> None:
        raise trouble or AssertionError

    if trouble is not None:
        monkeypatch.setattr(repair.fixes, "run_script", fails)
    world.start()
    _until_left(world)
    found = world.debug(fixes=world.container.fixes(Train_sh='#!/bin/sh -c "x\n'), timeout=60)
    (incident,) = found.incidents
    assert incident.resolution == "over"  # the job was stopped then
    assert said in world.view.text
    assert world.view.text.count("left held") == 1


def test_without_a_fix_it_is_left_held_for_a_person(world: World) -> None:
    arn = world.start()
    found = world.debug(timeout=3)
    assert found.stopped_because == "timeout"
    assert run.exit_status(found) is ExitStatus.TIMEOUT
    (incident,) = found.incidents
    assert incident.resolution == "held"
    execution = arn.rpartition("/")[2]
    assert f"smssh connect Train.{execution}.pipe.pipeline.sagemaker" in world.view.text
    assert world.container.calls == ["status --json", "report --json", "changes"]
    assert world.container.state["state"] == "held"


def test_a_person_fixes_it_while_the_debugger_watches(world: World) -> None:
    world.start()
    world.follow()

    def by_hand(event: Event) -> None:
        if "left held" in event.text:
            world.container.set(state="ended", exit_code=0)
            set_state(world.service, world.node, "released")

    world.view.on_event = by_hand
    found = world.debug(timeout=60)
    assert found.status == "Succeeded"
    (incident,) = found.incidents
    assert incident.resolution == "by hand"
    assert [(one.attempt, one.exit_code, one.by) for one in found.attempts][-1] == (2, 0, "somebody")
    assert "still held" not in world.view.text
    shown = page(found)
    assert "Somebody worked on Train meanwhile: Train succeeded on attempt 2." in shown
    assert "not fixed" not in shown
    assert "left held" not in shown.partition("<h2>Event log")[0].partition("What was done")[0]


def test_each_attempt_of_a_person_is_in_the_report(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that fails, another one between two looks, and the one that the pipeline goes on with."""
    monkeypatch.setattr(run, "ASK_SECONDS", 0.1)
    world.start()
    world.follow()
    world.container.set(attempts=[{"attempt": 1, "exit_code": 1, "seconds": 5.0}])

    def by_hand(event: Event) -> None:
        if "left held" not in event.text:
            return
        if world.container.state["attempt"] == 1:
            ends = [{"attempt": number, "exit_code": number, "seconds": 2.0} for number in (1, 2, 3)]
            world.container.set(attempt=3, attempts=ends)
        else:
            world.container.set(state="ended", exit_code=0)
            set_state(world.service, world.node, "released")

    world.view.on_event = by_hand
    found = world.debug(timeout=60)
    assert found.status == "Succeeded"
    assert [incident.resolution for incident in found.incidents] == ["failed", "by hand"]
    assert [incident.attempt for incident in found.incidents] == [1, 3]
    assert [(one.attempt, one.exit_code, one.seconds, one.by) for one in found.attempts] == [
        (1, 1, 5.0, "job"),
        (2, 2, 2.0, "somebody"),
        (3, 3, 2.0, "somebody"),
        (4, 0, None, "somebody"),
    ]
    assert "Train succeeded on attempt 4" in page(found)


def test_what_was_changed_is_in_the_report_and_fixes_a_fresh_run(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a person, who fixes one half by hand and retries, and by the debugger, whose fix is the other."""
    (world.container.code / "train.py").write_text("import sys\nimport helper\nsys.exit(1)\n")
    (world.container.folder / "base" / "train.py").write_text("import sys\nimport helper\nsys.exit(1)\n")
    (world.container.code / "helper.py").write_text("x = 1\n")
    patch = "--- a/train.py\n+++ b/train.py\n@@ -1,3 +1,3 @@\n import sys\n import helper\n-sys.exit(1)\n+print(1)\n"
    world.start()
    world.follow()
    found = world.debug(fixes=world.container.fixes(Train_patch=patch))
    assert found.status == "Succeeded"
    (host,) = found.changes
    assert (host.files, host.patch_file, host.notes) == (["helper.py", "train.py"], "Train.patch", [])
    assert [(one.attempt, one.by) for one in found.attempts if one.diff] == [(2, "debugger")]
    assert "+x = 1\n" in found.attempts[-1].diff
    assert "+print(1)\n" in found.attempts[-1].diff
    reports = tmp_path / "report"
    report.write(found, reports)
    html = (reports / "report.html").read_text()
    assert "Before attempt 2" in html
    assert '<span class="add">+x = 1</span>' in html
    assert json.loads((reports / "report.json").read_text())["attempts"][-1]["diff"] == host.diff
    assert "patches" not in json.loads((reports / "report.json").read_text())
    assert (reports / "Train.patch").stat().st_mode & 0o777 == 0o600
    # A fresh run of the same code, with what is beside the report.
    fresh = Container(tmp_path / "fresh", world.container.hook.parent)
    (fresh.code / "train.py").write_text("import sys\nimport helper\nsys.exit(1)\n")
    world.container = fresh
    world.start()
    world.follow()
    again = world.debug(fixes=reports)
    assert again.status == "Succeeded"
    assert (fresh.code / "helper.py").read_text() == "x = 1\n"


def test_a_persons_retry_between_two_looks_has_its_diff(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.start()
    world.follow()

    def by_hand(event: Event) -> None:
        if "left held" in event.text:
            (world.container.code / "train.py").write_text("print('by hand')\n")
            subprocess.run([str(world.container.hook), "begin"], check=True, capture_output=True)
            set_state(world.service, world.node, "running")
        elif "pipeline Succeeded" not in event.text:
            return

    looked = threading.Event()
    take = repair.Captured.take

    def taken(*arguments: Any) -> None:
        take(*arguments)
        if world.container.state["attempt"] == 2 and not looked.is_set():
            looked.set()
            world.container.set(state="ended", exit_code=0)

    monkeypatch.setattr(repair.Captured, "take", taken)
    world.view.on_event = by_hand
    found = world.debug(timeout=60)
    assert found.status == "Succeeded"
    assert looked.is_set()
    (attempt,) = [one for one in found.attempts if one.attempt == 2]
    assert attempt.by == "somebody"
    assert "+print('by hand')\n" in attempt.diff


def test_a_container_that_cannot_tell_what_was_changed_is_fixed_all_the_same(world: World) -> None:
    hook = world.container.hook
    hook.write_text(hook.read_text().replace('"changes":\n    tell_changes()', '"changes":\n    sys.exit(2)'))
    world.start()
    world.follow()
    found = world.debug(fixes=world.container.fixes(Train_patch=GOOD_PATCH))
    assert found.status == "Succeeded"
    assert found.changes == []
    assert world.view.text.count("the container cannot tell what was changed") == 1


ODD: dict[str, list[Any]] = {
    "report": [
        {"error": " \n"},
        {"error": 5, "traceback": ["x"]},
        {"command": 5},
        {"command": [1, None, "python"]},
        {"processes": [{"pid": "x", "rss_bytes": 10**400}, 5], "disk": {"a": 1}},
        {"disk": [{"path": 5, "total_bytes": -1, "free_bytes": float("nan")}]},
        {"time": "soon", "exit_code": 10**400, "attempt": -1},
        {"log_tail": "one line", "environment_names": [[]], "gpu": {}},
        {"more": {"deep": [[[[[[[[[[[[1]]]]]]]]]]]]}, "nan": float("inf"), "big": "x" * 1_000_000},
        {"other_errors": [None, {"pid": []}]},
        {"first_failed": [1], "job": None, "\ud800": "\udfff"},
    ],
    "state": [
        {"hold": {"since": "soon", "deadline": float("inf")}},
        {"hold": {"since": -1e300, "deadline": 10**400}},
        {"hold": 5, "attempt": "second", "attempts": {"1": 1}},
        {
            "hold": [1],
            "attempt": 10**30,
            "attempts": [5, {"attempt": "x"}, {"attempt": 1, "exit_code": 10**9}],
        },
        {"point": "failure", "code_dir": {"a": 1}},
    ],
}


@pytest.mark.parametrize(("what", "odd"), [(what, odd) for what, many in ODD.items() for odd in many])
def test_odd_answers_of_a_container_do_not_destroy_the_report(
    world: World, tmp_path: Path, what: str, odd: dict[str, Any]
) -> None:
    """A container may answer anything: what is not as it should be is left out, and all else is there."""
    world.start()
    world.follow()
    if what == "report":
        path = world.container.folder / "report.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **odd}))
    else:
        world.container.set(**odd)

    def end(event: Event) -> None:
        if "left held" in event.text:
            world.container.set(state="ended", exit_code=1)

    world.view.on_event = end
    found = world.debug(timeout=60)
    assert [incident.step for incident in found.incidents] == ["Train"]
    json_path, html_path = report.write(found, tmp_path / "report")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    told = json.loads(json_path.read_text(), parse_constant=refuse)
    assert told["incidents"][0]["error"]
    assert "Train" in html_path.read_text()
    assert json_path.stat().st_size < 2_000_000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_leaves_the_job_held_and_nothing_running(world: World, number: signal.Signals) -> None:
    """In the middle of a retry that would take minutes."""
    # Where the tests run in the background, a shell has SIGINT ignored.
    before_test = signal.signal(signal.SIGINT, signal.default_int_handler)
    world.start()
    patch = GOOD_PATCH.replace('print("trained")', "import time; time.sleep(300)")

    def interrupt(event: Event) -> None:
        if "runs its entry point again" in event.text:
            threading.Timer(0.5, os.kill, (os.getpid(), number)).start()

    world.view.on_event = interrupt
    before = {one.pid for one in psutil.Process().children(recursive=True)}
    began = time.monotonic()
    try:
        found = world.debug(fixes=world.container.fixes(Train_patch=patch), timeout=60)
    finally:
        signal.signal(signal.SIGINT, before_test)
    assert time.monotonic() - began < 30
    assert found.stopped_because == "interrupted"
    assert run.exit_status(found) is ExitStatus.INTERRUPTED
    left = [one for one in psutil.Process().children(recursive=True) if one.pid not in before]
    assert [one for one in left if one.name() in ("ssh", "sftp")] == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("repair-")]
    assert found.incidents[0].actions[-1].what == "retry"
    assert found.incidents[0].resolution == "running"
    assert "still held" not in world.view.text
    assert "Train: its retry still runs; see how it ends with: smssh status" in world.view.text
    # The "container" is on this machine, and its server may have ended before what it started.
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if one.cwd() == str(world.container.code):
                one.kill()


def test_a_step_that_fails_without_a_hold(world: World) -> None:
    world.service.pipeline(definition(step("Train", "Training", training(Environment={"OUTCOME": "fail"}))))
    world.service.start_pipeline()
    found = world.debug()
    assert found.status == "Failed"
    assert found.incidents == []
    assert found.steps[0].failure_reason.startswith("AlgorithmError")
    assert "Train: failed" in world.view.text


def test_a_login_that_fails_is_said_and_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.start()
    tries: list[int] = []

    def login(_session: AwsSession, _node: object) -> Connection:
        tries.append(1)
        raise SmsshError("no way in")

    monkeypatch.setattr(repair, "login", login)
    found = world.debug(timeout=1.5)
    assert found.incidents == []
    assert len(tries) == 1
    assert "Train: cannot look at it: no way in" in world.view.text


class _Away:
    """AWS, which cannot be asked for `looks` looks after the first."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch, looks: int) -> None:
        self._call = world.session.call
        self._looks = looks
        self._seen = 0
        monkeypatch.setattr(world.session, "call", self)

    def __call__(self, service: str, operation: str, **arguments: Any) -> Any:
        if operation == "describe_pipeline_execution":
            self._seen += 1
            if 1 < self._seen <= 1 + self._looks:
                raise SmsshError("AWS is away")
        return self._call(service, operation, **arguments)


def test_it_goes_on_when_aws_is_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "LONGEST_PAUSE", 0.1)
    _Away(world, monkeypatch, 40)
    world.start()
    world.follow()
    found = world.debug(fixes=world.container.fixes(Train_patch=GOOD_PATCH))
    assert found.status == "Succeeded"
    assert world.view.text.count("cannot look: AWS is away; trying again") == 1
    assert world.view.text.count("can look again after ") == 1


def test_an_execution_that_cannot_be_watched_any_longer_has_not_failed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(run, "TROUBLE_SECONDS", 1.0)
    _Away(world, monkeypatch, 1000)
    world.start()
    found = world.debug()
    assert found.stopped_because == "error"
    assert run.exit_status(found) is ExitStatus.FAILED
    assert "stopped watching: AWS is away" in world.view.text
    assert world.container.state["state"] == "held"


def test_what_is_wrong_from_the_start(world: World, tmp_path: Path) -> None:
    with pytest.raises(SmsshError, match="no pipeline 'pipe'"):
        world.debug()
    world.service.pipeline(definition(step("Train", "Training", training())))
    with pytest.raises(SmsshError, match="never been started"):
        world.debug()
    with pytest.raises(SmsshError, match="'Trian', which the pipeline does not have"):
        world.debug(fixes=world.container.fixes(Trian_patch=""))
    world.service.start_pipeline()
    with pytest.raises(SmsshError, match=r"no (pipeline )?execution 'nonesuch'"):
        world.debug(execution="nonesuch")


def test_start_runs_a_new_execution(world: World) -> None:
    world.service.pipeline(definition(step("Train", "Training", training())))
    found = world.debug(start=True)
    assert found.status == "Succeeded"
    assert found.arn.endswith(f":pipeline/pipe/execution/{found.execution}")
    assert world.view.events[0].text == f"started {found.arn}"
    assert found.events == world.view.events
