"""Messages of the supervisor's socket are bounded by their bytes: nothing large costs a hold."""

import json
import os
import random
import socket
import sys
from pathlib import Path

import pytest

from smssh_plugin.entrypoints import supervisor_client
from smssh_plugin.hooks import hold
from smssh_plugin.hookspecs import Context, Job, hookimpl
from smssh_plugin.plugins import Plugins
from smssh_plugin.settings import Settings, load
from smssh_plugin.supervisor import protocol
from smssh_plugin.supervisor.operations import Operations
from smssh_plugin.supervisor.socket import Service
from smssh_plugin.supervisor.status import REPORT_LIMIT
from tests.waiting import LIMIT, until

WORDY = """\
import sys
from pathlib import Path
for n in range(300):
    sys.stdout.write(chr(0x1F600) * 1990 + f" line {n}\\n")
sys.stdout.flush()
sys.exit(9)
"""
CONTROLS = """\
import sys
from pathlib import Path
for n in range(300):
    sys.stdout.write("\\x01" * 1990 + f" line {n}\\n")
sys.stdout.flush()
sys.exit(9)
"""
TOOLKIT = """\
import os, sys
for n in range(300):
    print(chr(0x1F600) * 1990, flush=True)
sys.exit(9)
"""
# As the kernel has it: 128 KiB for one string, 2 MiB for all of them.
LARGE = {f"LARGE_{n}": "\x01" * (120 << 10) for n in range(9)}


@pytest.mark.parametrize("script", [WORDY, CONTROLS], ids=["four bytes", "control characters"])
def test_a_hold_with_wide_lines(container, script) -> None:
    container.wrap("python", container.script(script), SMSSH_HOLD="failure")
    assert container.wait_for("held")["exit_code"] == 9
    tail = json.loads(container.hook("report", "--json").stdout)["log_tail"]
    assert len(tail) == 200
    container.hook("release")
    assert container.processes[-1].wait(LIMIT) == 9


def test_a_hold_with_a_large_environment_and_command_line(container) -> None:
    words = ["\x02" * (120 << 10)] * 5
    container.wrap("sh", "-c", "exit 9", *words, SMSSH_HOLD="failure", SMALL="yes", **LARGE)
    status = container.wait_for("held")
    assert status["attempt"] == 1
    assert "logins go without these variables, which are too large: LARGE_" in container.log()
    shown = container.ssh(status, 'echo "$SMALL"; smssh-hook report --json')
    small, _, report = shown.stdout.partition("\n")
    assert small == "yes"
    assert json.loads(report)["command"][:3] == ["sh", "-c", "exit 9"]
    assert json.loads(report)["command"][-1] == "..."
    container.hook("release")
    assert container.processes[-1].wait(LIMIT) == 9


def test_a_hold_in_the_toolkit_with_wide_lines(container) -> None:
    container.toolkit_job(TOOLKIT)
    container.train(SMSSH_HOLD="failure", **LARGE)
    container.wait_for("held")
    container.hook("release")
    assert container.processes[-1].wait(LIMIT) == 1
    assert b"ExitCode 9" in container.failure_file()


def test_the_job_says_that_it_is_not_held(container, monkeypatch) -> None:
    """Not the supervisor that was asked for a hold: one that knows nothing of holds."""
    container.run_dir.mkdir(mode=0o700)
    listener = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(container.run_dir)
    listener.bind("socket")
    listener.listen()
    Path("token").write_bytes(b"secret")
    lock = os.open(str(container.run_dir / "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    import fcntl

    fcntl.flock(lock, fcntl.LOCK_EX)
    code = (
        f"import sys; sys.path.insert(0, {str(Path(supervisor_client.__file__).parents[2])!r})\n"
        "from smssh_plugin.entrypoints import job_log, supervisor_client\n"
        "from smssh_plugin.settings import load\n"
        "import os\n"
        "reporter = supervisor_client.Reporter('init', ['x'], load(os.environ, {}), job_log.say)\n"
        "print(reporter.failed(3))\n"
    )
    process = container.start(sys.executable, "-c", code, SMSSH_HOLD="failure")
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as lines:
        assert lines.readline() == b"secret\n"
        assert json.loads(lines.readline())["op"] == "attach"
        connection.sendall(b'{"ok": true}\n')
        assert json.loads(lines.readline())["op"] == "failed"
        connection.sendall(b'{"error": {"message": "no such operation: failed"}}\n')
        assert process.wait(LIMIT) == 0
    os.close(lock)
    assert (
        "smssh: nothing is held here: an answer without an action: no such operation: failed\n"
        in container.output()
    )
    assert "no decision: an answer without an action" in container.log()


# ------------------------------------------------------------------------------------------- both ends, in this process


class Wild:
    """A plugin whose sections of the report are too large, or no JSON."""

    def __init__(self):
        self.sections = {}

    @hookimpl
    def smssh_collect_report(self):
        return self.sections


@pytest.fixture
def connected(tmp_path, monkeypatch):
    """Operations that are served, and connections to them."""
    plugins = Plugins([("hold", hold)], entry_points=False)
    wild = Wild()
    plugins.register(wild, "wild")
    context = Context(
        load({"SMSSH_HOLD": "failure"}), Job("job", "training", "algo-1"), tmp_path, {}, "/", ""
    )
    operations = Operations(context, plugins, lambda line: None)
    service = Service(tmp_path, operations)
    service.start()
    made = []

    def connect():
        made.append(supervisor_client.Connection(supervisor_client.connect(str(tmp_path))))
        return made[-1]

    connect.operations, connect.wild, connect.path = operations, wild, tmp_path
    yield connect
    operations.finish(5)
    for each in made:
        each.close()
    service.close()


def test_a_message_that_is_too_large_is_one_message(connected) -> None:
    """What follows it is understood, and answered once."""
    connection = connected()
    raw = connection._socket
    raw.settimeout(LIMIT)
    raw.sendall(b'{"op": "status", "x": "' + b"x" * (protocol.LIMIT * 2) + b'"}\n{"op": "status"}\n')
    assert "bytes" in connection.receive(30)["error"]["message"]
    assert connection.receive(30)["state"] == "starting"
    # Exactly at the limit, and one beyond it.
    for extra, fits in ((0, True), (1, False)):
        line = b'{"op": "status", "x": "'
        line += b"x" * (protocol.LIMIT - len(line) - 3 + extra) + b'"}\n'
        raw.sendall(line)
        assert ("state" in connection.receive(30)) is fits


@pytest.mark.parametrize(
    "line",
    [
        b"[]\n",
        b"nonsense\n",
        b"\xff\xfe\n",
        b'{"op": "extend", "seconds": "soon"}\n',
        b'{"op": "failed", "exit_code": 1e999}\n',
        b'{"op": "release", "exit_code": 1e999}\n',
        b'{"op": "before", "started": [], "environment": 7}\n',
        b'{"op": "attach", "command": 7}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_what_is_not_understood_is_answered(connected, line) -> None:
    connection = connected()
    connection._socket.sendall(line)
    assert connection.receive(30)["error"]["reference"] in ("bad-message", "not-held")
    assert connection.ask({"op": "status"}, 30)["state"]


def test_a_failure_of_the_supervisor_is_told(connected, monkeypatch) -> None:
    monkeypatch.setattr(connected.operations.attempts, "fail", lambda *_: 1 / 0)
    monkeypatch.setenv("SMSSH_RUN_DIR", str(connected.path))
    monkeypatch.setattr(supervisor_client, "supervisor_alive", lambda run: True)
    said = []
    reporter = supervisor_client.Reporter("init", ["x"], Settings(hold=("failure",)), said.append)
    assert reporter.failed(3) == supervisor_client.RELEASE
    assert "ZeroDivisionError" in said[0]


def test_a_report_is_bounded(connected) -> None:
    connected.wild.sections = {
        "huge": [{"name": "é" * 1000}] * 3000,
        "text": "\U0001f600" * 400_000,
        "object": {"x": "y" * (3 << 20)},
        "not JSON": {1, 2},
        "not a number": float("nan"),
        "small": "kept",
    }
    report = connected().ask({"op": "report"}, 60)
    assert len(json.dumps(report)) <= REPORT_LIMIT + 1000
    assert report["small"] == "kept"
    assert report["object"] is None
    assert set(report["shortened"]) <= {"huge", "text", "object"}
    assert report["huge"][0] == {"name": "é" * 1000}
    assert not {"not JSON", "not a number"} & set(report)


@pytest.mark.parametrize("sections", [["a list"], {"circle": None}, {"object": object()}])
def test_no_report_of_a_plugin_costs_the_hold(connected, sections) -> None:
    if "circle" in sections:
        sections["circle"] = circle = []
        circle.append(circle)
    connected.operations.started()
    connected.wild.sections = sections
    waiting, person = connected(), connected()
    waiting.send({"op": "failed", "exit_code": 3})
    until(lambda: person.ask({"op": "status"}, 30)["state"] == "held")
    assert person.ask({"op": "report"}, 60)["exit_code"] == 3
    assert person.ask({"op": "release", "exit_code": 7}, 30)["ok"]
    decision = waiting.receive(30)
    while "say" in decision:
        decision = waiting.receive(30)
    assert decision == {"action": "release", "exit_code": 7}


def test_an_answer_that_is_too_large_is_an_error(connected, monkeypatch) -> None:
    monkeypatch.setattr(connected.operations, "answer", lambda *_: {"x": "y" * protocol.LIMIT})
    connection = connected()
    assert "cannot be sent" in connection.ask({"op": "status"}, 30)["error"]["message"]
    monkeypatch.setattr(connected.operations, "answer", lambda *_: {"x": object()})
    assert "cannot be sent" in connection.ask({"op": "status"}, 30)["error"]["message"]


def test_a_connection_takes_no_more_than_the_limit() -> None:
    one, other = socket.socketpair()
    connection = supervisor_client.Connection(one)
    import threading

    def talk():
        try:
            while True:
                other.sendall(b"x" * 65536)
        except OSError:
            pass

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    with pytest.raises(ConnectionError, match="more than"):
        connection.receive(30)
    connection.close()
    other.close()
    thread.join(LIMIT)


ALPHABETS = ("a", "é\U0001f600", "\x00\x1f", "\ud800\udcff", 'a"\\\n\U0001f600')


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_texts_are_cut_by_what_they_take(alphabet) -> None:
    choose = random.Random(repr(alphabet))
    for _ in range(50):
        whole = "".join(choose.choices(alphabet, k=choose.randrange(3000)))
        limit = choose.randrange(2, 9000)
        for last in (False, True):
            cut = protocol.text(whole, limit, last=last)
            assert protocol.size(cut) <= limit
            assert whole.endswith(cut) if last else whole.startswith(cut)
            if protocol.size(whole) <= limit:
                assert cut == whole
            elif limit > 30:
                assert protocol.size(cut) > limit - 13 - limit // 2


def test_commands_and_environments_are_cut() -> None:
    words = ["python", "\U0001f600" * 9000, *["x" * 1000] * 400]
    kept = protocol.command(words)
    assert protocol.size(kept) <= protocol.COMMAND_LIMIT + 1000
    assert (kept[0], kept[2], kept[-1]) == ("python", "x" * 1000, "...")
    assert protocol.command(["a", "b"]) == ["a", "b"]
    variables = {"SMALL": "1", **{f"L{n}": "\U0001f600" * 30000 * (n + 1) for n in range(6)}}
    kept, left_out = protocol.environment(variables)
    assert protocol.size(kept) <= protocol.ENVIRONMENT_LIMIT
    assert "SMALL" in kept
    assert left_out[0] == "L5"
    assert set(kept) | set(left_out) == set(variables)
