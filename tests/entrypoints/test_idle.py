"""Who counts as logged in, and the placeholder that ends when nobody is."""

import math
import signal
import socket
import subprocess
import sys
from datetime import timedelta

import psutil
import pytest

from smssh_plugin.entrypoints import idle, supervisor_client
from tests.waiting import LIMIT, until

PLACEHOLDER = ("smssh-hook", "placeholder", "--idle")


def forward_only(container, status):
    """A connection that carries a port forward and nothing else."""
    forward = ("-N", "-o", "ExitOnForwardFailure=yes", "-L", f"{container.folder}/forward:127.0.0.1:1")
    process = container.start(
        "ssh", *container.ssh_options(status), *forward, "127.0.0.1", on=False, PATH="/usr/bin:/bin"
    )
    until(lambda: container.status()["connected"], what="the connection")
    return process


def test_a_placeholder_that_nobody_enters_ends_with_0(container) -> None:
    """The image has no smssh-hook on its PATH: the bundle's own is run."""
    process = container.wrap(*PLACEHOLDER, "1s")
    assert process.wait(LIMIT) == 0, container.output() + container.log()
    assert "0 connected, ends in" in container.output()
    assert "smssh connect algo-1.job-1.training.sagemaker" in container.output()
    assert "nobody is logged in any more" in container.output()
    container.assert_quiet()


def entered(container, *words, **environ):
    """A placeholder, stopped while its first connection is made, which may take long; and that, a port forward."""
    process = container.wrap(*PLACEHOLDER, *words, **environ)
    status = container.wait_for("running")
    family = psutil.Process(process.pid).children(recursive=True)
    placeholders = [each for each in family if "placeholder" in each.cmdline()]
    for each in placeholders:
        each.suspend()
    client = forward_only(container, status)
    for each in placeholders:
        each.resume()
    return process, client


def test_port_forwards_alone_keep_a_placeholder(container, server) -> None:
    process, client = entered(container, "4s", SMSSH_SSH_SERVER=server)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(5)
    client.terminate()
    assert process.wait(LIMIT) == 0
    assert "1 connected" in container.output(0)


def test_a_placeholder_has_a_maximum(container) -> None:
    process, _ = entered(container, "2m", "--max", "4s")
    assert process.wait(LIMIT) == 0
    assert "time is up (--max)" in container.output(0)


def test_a_placeholder_is_stopped_like_any_entry_point(container) -> None:
    process = container.wrap(*PLACEHOLDER, "5m")
    until(lambda: "0 connected" in container.output())
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 128 + signal.SIGTERM
    container.assert_quiet()


def test_a_placeholder_that_nobody_could_enter_says_so(container) -> None:
    assert container.wrap(*PLACEHOLDER, "5m", SMSSH_AUTHORIZED_KEYS="").wait(LIMIT) == 4
    assert "nobody can log in" in container.output()
    command = [sys.executable, "-m", "smssh_plugin.entrypoints.smssh_hook", *PLACEHOLDER[1:]]
    assert container.start(*command, "5m", on=False).wait(LIMIT) == 2
    assert "SMSSH_ENABLE" in container.output()
    assert container.start(*command, "soon").wait(LIMIT) == 2


def test_a_placeholder_needs_no_other_launcher(container) -> None:
    command = [sys.executable, "-m", "smssh_plugin.entrypoints.smssh_hook", *PLACEHOLDER[1:], "1s"]
    assert container.start(*command).wait(LIMIT) == 0, container.output() + container.log()
    assert "nobody is logged in any more" in container.output()
    container.assert_quiet()


def test_is_last_session_timeout(container) -> None:
    """sagemaker-ssh-helper's placeholder loop, with the import changed."""
    script = container.script(
        "import os, time\n"
        "from datetime import timedelta\n"
        "from smssh_plugin import is_last_session_timeout\n"
        "while not os.path.exists('entered'):\n"
        "    time.sleep(0.1)\n"
        "while not is_last_session_timeout(timedelta(seconds=2)):\n"
        "    time.sleep(0.2)\n"
    )
    process = container.wrap(sys.executable, script)
    client = forward_only(container, container.wait_for("running"))
    container.script("", name="entered")
    until(lambda: container.output(0).count("1 connected") > 12, what="being connected for longer than 2 s")
    assert process.poll() is None
    client.terminate()
    assert process.wait(LIMIT) == 0
    assert " s left\n" in container.output(0)


def test_a_supervisor_that_is_slow_to_answer_is_not_one_without_people(monkeypatch) -> None:
    class Slow(supervisor_client.Connection):
        def ask(self, message, seconds=supervisor_client.REPLY_LIMIT):
            status = {"state": "running", "connected": 1, "ssh": {"port": None, "control_port": None}}
            return status if seconds >= 20.0 else None

    ours, _ = socket.socketpair()
    monkeypatch.setattr(supervisor_client.Connection, "open", lambda: Slow(ours))
    monkeypatch.setattr(idle, "_imported", -math.inf)
    assert not idle.is_last_session_timeout(timedelta(seconds=1))


@pytest.mark.parametrize("connected", [0, 2])
def test_watch(monkeypatch, connected) -> None:
    now = 1000.0
    monkeypatch.setattr(idle.time, "monotonic", lambda: now)
    watch = idle.Watch(10)
    now += 9
    assert not watch.over(connected)
    now += 2
    assert watch.over(0) == (not connected)
    assert watch.left == (8 if connected else 0)
