"""Holds: entered over real SSH, retried, released, out of time, stopped from outside."""

import json
import signal
import time

import pytest

from smssh_plugin.entrypoints import boot
from tests.waiting import LIMIT, until

FAILING = """\
import os, sys
print("attempt", flush=True)
if not os.path.exists("fixed"):
    raise ValueError("the bug")
print("it works now")
"""


@pytest.fixture
def held(container, server):
    """A job that is held after its first failure, and its status."""
    container.wrap(
        "python", container.script(FAILING), SMSSH_HOLD="failure", SMSSH_SSH_SERVER=server, SECRET="s3cret"
    )
    return container, container.wait_for("held")


def test_enter_fix_retry(held) -> None:
    container, status = held
    assert (status["point"], status["attempt"], status["exit_code"]) == ("failure", 1, 1)
    assert status["code_dir"] == str(container.folder)
    shown = container.ssh(
        status, 'smssh-hook report; echo "$SMSSH_CODE_DIR" "$SECRET"; which python; echo "$SMSSH_ENABLE"'
    )
    assert "ValueError: the bug" in shown.stdout
    assert f"{container.folder} s3cret\n" in shown.stdout
    assert ".venv-image/bin/python\n\n" in shown.stdout
    again = container.ssh(status, "smssh-hook retry --json")
    assert again.returncode == 1
    assert json.loads(again.stdout)["attempt"] == 2
    assert json.loads(again.stdout)["state"] == "held"
    fixed = container.ssh(status, 'cd "$SMSSH_CODE_DIR" && touch fixed && smssh-hook retry --json')
    assert fixed.returncode == 0, fixed.stderr
    result = json.loads(fixed.stdout)
    assert (result["attempt"], result["exit_code"]) == (3, 0)
    assert result["seconds"] > 0
    assert container.processes[-1].wait(LIMIT) == 0
    assert container.output().count("attempt\n") == 3
    assert "it works now" in container.output()
    container.assert_quiet()


HOSTILE = """\
import sys
print("##[error]forged \\x1b[2K", flush=True)
raise ValueError("\\x1b]52;c;cm0=\\x07\\r\\x9b forged \\u202e")
"""


def test_what_the_job_says_is_not_a_command_to_a_terminal(container, server) -> None:
    job = container.script(HOSTILE)
    container.wrap("python", job, SMSSH_HOLD="failure", SMSSH_SSH_SERVER=server, SMSSH_LOG_TO_STDOUT="1")
    status = container.wait_for("held")
    for words in ("status", "report", "report --json"):
        shown = container.ssh(status, f"smssh-hook {words}").stdout
        for each in ("\x1b", "\x07", "\x9b", "\u202e"):
            assert each not in shown
    shown = container.ssh(status, "smssh-hook report").stdout
    assert "forged" in shown
    assert "##[" not in shown
    for line in (container.run_dir / "supervisor.log").read_text().splitlines():
        assert line.isprintable()
    for line in container.output().splitlines():
        assert line.isprintable() or not line.startswith("smssh")
    container.ssh(status, "smssh-hook release")


def test_report(held) -> None:
    container, status = held
    report = json.loads(container.ssh(status, "smssh-hook report --json").stdout)
    assert report["error"] == "ValueError: the bug"
    assert report["traceback"].startswith("Traceback (most recent call last):\n")
    assert report["command"][0] == "python"
    assert "SECRET" in report["environment_names"]
    assert "s3cret" not in json.dumps(report)
    assert report["log_tail"][0] == "attempt"
    assert report["log_tail"][-1] == "ValueError: the bug"
    assert {"pid", "ppid", "command", "rss_bytes"} == set(report["processes"][0])
    assert all(disk["total_bytes"] >= disk["free_bytes"] for disk in report["disk"])
    assert json.loads((container.run_dir / "report.json").read_text())["attempt"] == 1


def test_release_ends_with_the_original_status(held) -> None:
    container, status = held
    assert "exit status 1" in container.ssh(status, "smssh-hook release").stdout
    assert container.processes[-1].wait(LIMIT) == 1
    container.assert_quiet()


def test_release_with_a_chosen_status(held) -> None:
    container, status = held
    container.ssh(status, "smssh-hook release --exit 42")
    assert container.processes[-1].wait(LIMIT) == 42


def test_other_keys_and_users_are_refused(held, tmp_path) -> None:
    container, status = held
    import subprocess

    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    assert container.ssh(status, "true", key=other).returncode == 255
    wrong = dict(status, ssh=dict(status["ssh"], user="nobody"))
    assert container.ssh(wrong, "true").returncode == 255
    assert container.ssh(status, "true").returncode == 0


def test_sigterm_in_a_hold_ends_with_the_original_status(container) -> None:
    process = container.wrap("python", container.script(FAILING), SMSSH_HOLD="failure")
    container.wait_for("held")
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 1
    assert time.monotonic() - started < 15
    container.assert_quiet()


def test_nobody_comes(container) -> None:
    process = container.wrap("sh", "-c", "exit 3", SMSSH_HOLD="failure", SMSSH_HOLD_SECONDS=2)
    assert process.wait(LIMIT) == 3
    assert "nobody was connected for 2 s" in container.output()


def test_nobody_can_come(container) -> None:
    """A hold that nobody can enter would only cost money."""
    process = container.wrap("sh", "-c", "exit 3", SMSSH_HOLD="failure", SMSSH_AUTHORIZED_KEYS="")
    assert process.wait(LIMIT) == 3
    assert "released: no login is possible" in container.output()


def test_a_login_keeps_the_hold_until_the_cap(container) -> None:
    process = container.wrap(
        "sh", "-c", "exit 3", SMSSH_HOLD="failure", SMSSH_HOLD_SECONDS=8, SMSSH_HOLD_MAX_SECONDS=14
    )
    status = container.wait_for("held")
    began = status["hold"]["since"]
    container.start(
        "ssh", *container.ssh_options(status), "127.0.0.1", "sleep 60", on=False, PATH="/usr/bin:/bin"
    )
    assert process.wait(LIMIT) == 3
    assert time.time() - began >= 14
    assert "14 s are over" in container.output(0)


def test_extend(container) -> None:
    process = container.wrap(
        "sh", "-c", "exit 3", SMSSH_HOLD="failure", SMSSH_HOLD_SECONDS=20, SMSSH_HOLD_MAX_SECONDS=120
    )
    before = container.wait_for("held")["hold"]
    assert "1 min 40 s left" in container.hook("extend", "100s").stdout
    after = container.status()["hold"]
    assert after["deadline"] > before["deadline"] + 50
    capped = json.loads(container.hook("extend", "5h", "--json").stdout)
    assert capped["deadline"] == pytest.approx(before["max_deadline"])
    refused = container.hook("extend", "5h", check=False)
    assert refused.returncode == 1
    assert "maximum" in refused.stderr
    assert container.hook("extend", "soon", check=False).returncode == 2
    container.hook("release")
    assert process.wait(LIMIT) == 3


def test_a_note_outlives_who_wrote_it_and_a_retry(container) -> None:
    process = container.wrap("sh", "-c", "exit 3", SMSSH_HOLD="failure")
    assert container.wait_for("held")["note"] == ""
    container.hook("note", '{"attempt": 1}')
    assert container.status()["note"] == '{"attempt": 1}'
    refused = container.hook("note", "x" * 4001, check=False)
    assert refused.returncode == 2
    assert "at most 4000 characters" in refused.stderr
    container.hook("retry", check=False)
    status = container.wait_for("held")
    assert (status["attempt"], status["note"]) == (2, '{"attempt": 1}')
    container.hook("release")
    assert process.wait(LIMIT) == 3


def test_hold_at_the_end_and_at_the_start(container) -> None:
    process = container.wrap("sh", "-c", "echo ran", SMSSH_HOLD="start,end")
    assert container.wait_for("held")["point"] == "start"
    assert "ran" not in container.output().splitlines()
    refused = container.hook("retry", check=False)
    assert refused.returncode == 1
    assert "smssh-hook release" in refused.stderr
    container.hook("release")
    until(lambda: "ran" in container.output().splitlines())
    status = until(lambda: (found := container.status())["point"] == "end" and found)
    assert status["exit_code"] == 0
    assert json.loads(container.hook("retry", "--json").stdout)["exit_code"] == 0
    until(lambda: container.status()["point"] == "end")
    assert container.output().splitlines().count("ran") == 2
    container.hook("release", "--exit", "9")
    assert process.wait(LIMIT) == 9


def test_ask_a_running_job_to_hold(container) -> None:
    process = container.wrap("sh", "-c", "while [ ! -e go ]; do sleep 0.05; done; exit 3")
    container.wait_for("running")
    assert container.hook("release", check=False).returncode == 1
    container.hook("hold")
    container.script("", name="go")
    status = container.wait_for("held")
    assert status["exit_code"] == 3
    container.hook("release")
    assert process.wait(LIMIT) == 3


def test_a_job_that_nobody_of_us_started_says_that_it_cannot_be_held(container) -> None:
    """A launcher came in with the program's own interpreter, and nobody had asked for a hold by then."""
    waiting = "import os, sys, time\nwhile not os.path.exists('go'): time.sleep(0.05)\nsys.exit(3)\n"
    process = container.start("python", container.script(waiting), PYTHONPATH=container.bundle)
    refused = container.hook("hold", check=False)
    assert refused.returncode == 1
    assert "cannot be held any more" in refused.stderr
    assert "smssh-hook run" in refused.stderr
    container.script("", name="go")
    assert process.wait(LIMIT) == 3


def test_a_toolkit_can_be_asked_before_it_runs_the_script(container) -> None:
    """Its interpreter is entered before it looks around, and long before it comes to the entry point."""
    container.toolkit_job("raise ValueError('the bug')")
    slow = container.folder / "slow" / "nvidia-smi"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nwhile [ ! -e go ]; do sleep 0.05; done\nexit 1\n")
    slow.chmod(0o755)
    process = container.train(PATH=f"{slow.parent}:{container.environ['PATH']}")
    assert container.hook("hold").returncode == 0
    assert container.status()["attempt"] == 0
    container.script("", name="go")
    assert container.wait_for("held")["attempt"] == 1
    container.hook("release")
    assert process.wait(LIMIT) == 1


def test_what_an_attempt_left_behind_is_ended_before_the_next(container) -> None:
    script = container.script(
        "import os, subprocess, sys, time\n"
        "if os.path.exists('second'): sys.exit(0)\n"
        "open('second', 'w').close()\n"
        "left = subprocess.Popen(['sleep', '987'])\n"
        "open('left', 'w').write(str(left.pid))\n"
        "sys.exit(1)\n"
    )
    process = container.wrap("python", script, SMSSH_HOLD="failure")
    container.wait_for("held")
    left = int((container.folder / "left").read_text())
    assert boot.start_time(left)
    assert container.hook("retry").returncode == 0
    assert process.wait(LIMIT) == 0
    assert boot.start_time(left) is None


def test_status_without_a_supervisor(container) -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "smssh_plugin.entrypoints.smssh_hook", "status"],
        env=container.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "no supervisor runs" in done.stderr


def test_people_are_told(container) -> None:
    """A webhook of this machine, from a job that fails, is held and released."""
    import http.server
    import threading

    told = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        process = container.wrap(
            "sh",
            "-c",
            "exit 3",
            SMSSH_HOLD="failure",
            SMSSH_WAIT="ready",
            SMSSH_NOTIFY=f"http://127.0.0.1:{server.server_port}/T0-secret",
            SMSSH_NOTIFY_TEMPLATE="$event $exit_code",
            SECRET="s3cret",
        )
        status = container.wait_for("held")
        assert "T0-secret" not in container.ssh(status, "env").stdout
        container.hook("release")
        assert process.wait(LIMIT) == 3
        assert [each["text"].strip() for each in told] == ["ready", "failed 3", "held 3", "released 3"]
        server.shutdown()
    assert "s3cret" not in json.dumps(told)
    assert "T0-secret" not in container.log() + container.output()


def test_a_webhook_that_hangs_delays_the_end_by_its_bound_only(container) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        process = container.wrap("sh", "-c", "exit 3", SMSSH_HOLD="failure", SMSSH_NOTIFY=address)
        container.wait_for("held")
        began = time.monotonic()
        container.hook("release")
        assert process.wait(LIMIT) == 3
        # 2 s for it, beside what the end takes anyway.
        assert time.monotonic() - began < 12
    container.assert_quiet()
