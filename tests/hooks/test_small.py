"""The hooks that need no server: keys, hold, log_events, report."""

import json
import logging
import os
import stat
import sys

import pytest

from smssh_plugin.container import authorized_keys
from smssh_plugin.container.child import Child
from smssh_plugin.entrypoints.connections import connections
from smssh_plugin.hooks import hold, keys, log_events, report
from smssh_plugin.hookspecs import Context, Failure, Job
from smssh_plugin.settings import load
from smssh_plugin.supervisor import job
from tests.waiting import until

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPmghorh9zx1v9BThkn2f25Zqh3y0mVMUvTzLDbHrAB0"


@pytest.fixture
def context(tmp_path):
    def make(**environ):
        return Context(load(environ), Job("job", "training", "algo-1"), tmp_path, {"A": "secret"}, "/", "")

    return make


def test_keys(context, caplog) -> None:
    lines = [
        KEY,
        f"{KEY} me@example.com",
        f'restrict,from="10.0.0.1" {KEY}',
        "nonsense",
        "ssh-ed25519",
        "# note",
    ]
    found = keys.smssh_authorized_keys(context(SMSSH_AUTHORIZED_KEYS="\n".join(lines)))
    assert found == lines[:3]
    assert caplog.text.count("it is not a public key") == 3
    assert "nonsense" not in caplog.text


def test_a_line_is_read_as_sshd_reads_it() -> None:
    r"""`\"` is a quote and goes on, `\\"` too: a parser that sees an end there takes the rest for options."""
    entry = authorized_keys.parse(rf'No-PTY,command="a\b \\"c,\" d",from="x y" {KEY}')
    assert entry.options == [("no-pty", None), ("command", r'a\b \"c," d'), ("from", "x y")]
    assert entry.key == KEY
    shown = authorized_keys.for_sshd(entry, lambda forced: f"session '{forced}'")
    assert shown == rf"""no-pty,from="x y",command="session 'a\b \\"c,\" d'" {KEY}"""
    assert authorized_keys.parse(f"{KEY} me, command=x").options == []


@pytest.mark.parametrize(
    "options",
    [
        'command="a\\",from="10.0.0.1"',
        'command="a",command="b"',
        "command=a",
        "command",
        'from="a',
        "a,,b",
        "a,",
        ",a",
    ],
)
def test_a_line_that_sshd_would_not_take_is_left_out(options) -> None:
    with pytest.raises(ValueError, match="it "):
        authorized_keys.parse(f"{options} {KEY}")


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ("restrict", "no-agent-forwarding,no-port-forwarding,no-pty,no-x11-forwarding,no-unix-forwarding "),
        (
            "pty,RESTRICT,port-forwarding,no-PORT-forwarding",
            "no-agent-forwarding,no-port-forwarding,no-pty,no-x11-forwarding,no-unix-forwarding ",
        ),
        ("no-user-rc,pty", ""),
        ('expiry-time="20300101",from="a,b"', 'from="a,b" '),
        ('expiry-time="202401010000Z"', None),
        ('command="a\\b \\"c\\""', 'command="a\\\\b \\"c\\"",no-unix-forwarding '),
    ],
)
def test_a_line_in_asyncsshs_words(options, shown) -> None:
    found = authorized_keys.for_asyncssh(authorized_keys.parse(f"{options} {KEY}"), 1750000000.0)
    assert found == (None if shown is None else shown + KEY)


@pytest.mark.parametrize(
    "options", ["verify-required", "new", 'expiry-time="soon"', 'expiry-time="20300199"']
)
def test_what_asyncssh_would_not_keep_is_refused(options) -> None:
    with pytest.raises(ValueError, match=r"its expiry-time|does not know|unconverted"):
        authorized_keys.for_asyncssh(authorized_keys.parse(f"{options} {KEY}"), 0.0)


@pytest.mark.parametrize(
    ("environ", "points"),
    [
        ({}, []),
        ({"SMSSH_HOLD": "failure"}, ["failure"]),
        ({"SMSSH_HOLD": "start,end"}, ["start", "end"]),
        ({"SMSSH_WAIT": "60"}, ["start"]),
        ({"SMSSH_WAIT": "ready"}, []),
    ],
)
def test_hold(context, environ, points) -> None:
    made = context(**environ)
    assert [point for point in ("start", "failure", "end") if hold.smssh_hold(made, point, None)] == points


def test_log_events(context) -> None:
    made = context()
    said = []
    made.say = said.append
    made.log = logging.getLogger("test")
    log_events.smssh_notify(made, "held", "held: x")
    log_events.smssh_notify(made, "running", "attempt 1 runs")
    assert said == ["smssh: held: x"]


def test_report(context, tmp_path) -> None:
    def record(pid, **values):
        told = {
            "pid": pid,
            "began": 101.0,
            "lineage": [f"{pid}:1"],
            "command": ["python", "x"],
            "program": "x",
        }
        (tmp_path / f"traceback-{pid}.json").write_text(json.dumps({**told, **values}))

    record(1, time=50.0, began=40.0, error="old", traceback="of the attempt before")
    record(2, time=120.0, error="ValueError: x", traceback="of the script")
    record(3, time=119.0, began=40.0, error="OSError", traceback="of an orphan of the attempt before")
    (tmp_path / "traceback-4.json").write_text("{")
    made = report.smssh_collect_report(context(), Failure(2, ("x",), 1, "toolkit's", ["last"], started=100.0))
    assert (made["error"], made["traceback"]) == ("ValueError: x", "of the script")
    assert made["other_errors"] == []
    assert made["environment_names"] == ["A"]
    assert "secret" not in json.dumps(made["environment_names"])
    assert made["log_tail"] == ["last"]
    assert {entry["pid"] for entry in made["processes"]} >= {os.getpid()}
    assert made["disk"][0]["path"] == "/"
    without = report.smssh_collect_report(context(), Failure(3, ("x",), 1, "toolkit's", started=200.0))
    assert (without["error"], without["traceback"], without["log_tail"]) == ("toolkit's", None, None)


def test_the_report_counts_what_the_attempt_itself_cost(context, monkeypatch) -> None:
    counted = {"oom_kills": 3, "peak_bytes": 10}
    monkeypatch.setattr(report.memory, "read", lambda: dict(counted))
    report.smssh_before_entry_point()
    counted["oom_kills"] = 4
    assert report.smssh_collect_report(context(), Failure(2, (), 137))["memory"] == {
        "oom_kills": 1,
        "peak_bytes": 10,
    }


def test_report_asks_nvidia_smi(context, tmp_path, monkeypatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'a GPU'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert report.smssh_collect_report(context(), Failure(1, (), 1))["gpu"] == "a GPU\n"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(report, "GPU_LIMIT", 0.3)
    assert "timed out" in report.smssh_collect_report(context(), Failure(1, (), 1))["gpu"]


def test_child_restarts_with_a_pause_and_stops(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("smssh_plugin.container.child.BACK_OFF", (0.01,))
    command = [sys.executable, "-c", "import os; open('/dev/stdout', 'w').write('run\\n')"]
    child = Child("x", ["/bin/sh", "-c", "echo run"], {"PATH": os.defpath}, tmp_path / "log", restart=True)
    child.start()
    until(lambda: (tmp_path / "log").read_text().count("run") >= 3)
    child.stop(5)
    assert not child.running()
    assert command
    with pytest.raises(FileNotFoundError):
        Child("y", [str(tmp_path / "none")], {}, tmp_path / "log").start()


def test_child_that_ignores_sigterm_is_killed(tmp_path) -> None:
    child = Child(
        "x", ["/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"], {}, tmp_path / "log"
    )
    child.start()
    until(lambda: "up" in (tmp_path / "log").read_text())
    child.stop(0.3)
    assert not child.running()


def test_identity(tmp_path) -> None:
    def write(path, **content):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(content))

    base = {"SAGEMAKER_BASE_DIR": str(tmp_path)}
    training = job.identify(
        {**base, "TRAINING_JOB_NAME": "t", "TRAINING_JOB_ARN": "arn:x:training-job/t"}, "Step"
    )
    assert training == Job("t", "training", "algo-1", "arn:x:training-job/t", "Step")
    assert training.address == "algo-1.t.training.sagemaker"
    assert job.identify({**base, "TRAINING_JOB_ARN": "arn:x:training-job/from-arn"}).name == "from-arn"
    assert job.identify({**base, "TRANSFORM_JOB_ARN": "arn:x:transform-job/tr"}) == Job(
        "tr", "transform", "algo-1", "arn:x:transform-job/tr"
    )
    write("input/config/resourceconfig.json", current_host="algo-2")
    assert job.identify(base).host == "algo-2"
    write("config/processingjobconfig.json", ProcessingJobName="p", ProcessingJobArn="arn")
    write("config/resourceconfig.json", current_host="algo-3")
    assert job.identify(base) == Job("p", "processing", "algo-3", "arn")


def test_code_dir(tmp_path) -> None:
    base = {"SAGEMAKER_BASE_DIR": str(tmp_path)}
    assert job.code_dir(base, "training", (), "/somewhere") == "/somewhere"
    code = tmp_path / "input" / "data" / "code"
    code.mkdir(parents=True)
    driver = ("/bin/bash", "-c", "chmod +x /opt/ml/input/data/sm_drivers/sm_train.sh && x")
    assert job.code_dir(base, "training", driver) == str(code)
    script = tmp_path / "x" / "job.py"
    script.parent.mkdir()
    script.write_text("")
    assert job.code_dir(base, "processing", ("python3", str(script))) == str(script.parent)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("")
    assert job.code_dir(base, "training", ("train",)) == str(tmp_path / "code")


def test_connections_are_counted() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert connections(port) == 0
        with socket.create_connection(("127.0.0.1", port)), listener.accept()[0]:
            assert connections(port) == 1
