"""A job that is stopped: SIGTERM, 120 seconds, SIGKILL. At whatever moment, it ends in time and leaves no node."""

import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from smssh_plugin.entrypoints import boot
from smssh_plugin.local.agent.installed import install
from tests.waiting import until

GRACE = 30.0
"""A quarter of the service's 120 seconds; on an idle machine each of these takes less than 5."""
WAITS = "while [ ! -e go ]; do sleep 0.05; done; exit 3"


@pytest.fixture
def job(container, stack):
    """Starts a wrapped job with a managed node."""
    programs = container.folder / "programs"
    install(programs)

    def start(*command, **environ):
        return container.wrap(
            *command,
            **{
                "PATH": f"{programs}:{container.environ['PATH']}",
                "SMSSH_TRANSPORT": "ssm",
                "SMSSH_ROLE": "Nodes",
                "AWS_ENDPOINT_URL": stack.url,
                "AWS_ACCESS_KEY_ID": "ASIAJOBJOBJOBJOBJOBJ",
                "AWS_SECRET_ACCESS_KEY": "the-jobs-secret",
                **environ,
            },
        )

    return start


def nodes(stack):
    return stack.call("DescribeInstanceInformation")["InstanceInformationList"]


def stop(process):
    """SIGTERM, and the exit status; fails when that takes too long."""
    process.send_signal(signal.SIGTERM)
    return process.wait(GRACE)


def test_in_a_hold(container, stack, job) -> None:
    process = job("sh", "-c", "exit 3", SMSSH_HOLD="failure")
    container.wait_for("held")
    until(lambda: nodes(stack), what="the node")
    assert stop(process) == 3
    assert nodes(stack) == []
    container.assert_quiet()


@pytest.mark.parametrize("wait", ["10m", "ready"])
def test_while_it_waits_for_its_start(container, stack, job, wait) -> None:
    """`ready` with an agent that hangs when it registers."""
    if wait == "ready":
        agent = container.folder / "programs" / "amazon-ssm-agent"
        agent.write_text("#!/bin/sh\nexec sleep 600\n")
    process = job("sh", "-c", "echo ran", SMSSH_WAIT=wait)
    if wait == "10m":
        container.wait_for("held")
    else:
        until(lambda: container.path("socket"))
    assert stop(process) == 128 + signal.SIGTERM
    assert "ran" not in container.output().split("\n")
    assert nodes(stack) == []
    container.assert_quiet()


def test_while_the_report_is_made(container, stack, job) -> None:
    process = job("sh", "-c", WAITS, SMSSH_HOLD="failure")
    container.wait_for("running")
    asked = container.folder / "asked"
    program = container.folder / "programs" / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ntouch {asked}\nexec sleep 60\n")
    program.chmod(0o755)
    container.script("", name="go")
    until(asked.exists, what="the report")
    assert stop(process) == 3
    assert nodes(stack) == []
    container.assert_quiet()


def test_between_two_attempts(container, stack, job) -> None:
    """What the first left behind takes its time to end."""
    process = job(
        "sh",
        "-c",
        "echo attempt; (trap 'touch asked' TERM; while :; do sleep 0.1; done) >/dev/null 2>&1 & echo $! > left; exit 3",
        SMSSH_HOLD="failure",
    )
    container.wait_for("held")
    container.hook("retry", "--no-wait")
    until((container.folder / "asked").exists, what="the end of what was left")
    assert stop(process) == 3
    assert container.output().split("\n").count("attempt") == 1
    assert nodes(stack) == []
    assert boot.start_time((container.folder / "left").read_text().strip()) is None
    container.assert_quiet()


def test_a_second_signal_is_forwarded_like_the_first(container) -> None:
    script = container.script(
        "import os, signal, sys, time\n"
        "def on(*_):\n"
        "    os.write(1, b'signal\\n')\n"
        "    on.count += 1\n"
        "    if on.count == 2: sys.exit(9)\n"
        "on.count = 0\n"
        "signal.signal(signal.SIGTERM, on)\n"
        "os.write(1, b'up\\n')\n"
        "while True: time.sleep(0.1)\n"
    )
    process = container.wrap("python", script, SMSSH_HOLD="failure,end")
    until(lambda: "up" in container.output())
    process.send_signal(signal.SIGTERM)
    until(lambda: container.output().count("signal") == 1)
    assert process.poll() is None
    assert stop(process) == 9
    container.assert_quiet()


def test_a_second_signal_does_not_cut_the_end_short(container, stack, job) -> None:
    process = job("sh", "-c", "exit 3", SMSSH_HOLD="failure")
    container.wait_for("held")
    until(lambda: nodes(stack), what="the node")
    for _ in range(20):
        process.send_signal(signal.SIGTERM)
        if process.poll() is not None:
            break
        time.sleep(0.02)
    assert process.wait(GRACE) == 3
    assert nodes(stack) == []


def test_sigkill_of_init_leaves_no_node(container, stack, job) -> None:
    """As the kernel does it when memory runs out; in a container of its own, that is the end of all."""
    process = job("sh", "-c", "echo $$ > pid; exec sleep 600")
    until(lambda: container.wait_for("running")["transport"]["target"], what="the node")
    process.kill()
    process.wait()
    until(lambda: not nodes(stack), what="the deregistration")
    container.assert_quiet()
    os.kill(int((container.folder / "pid").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_other_signals_that_stop(container, number) -> None:
    process = container.wrap("sh", "-c", "echo ran", SMSSH_WAIT="10m")
    container.wait_for("held")
    process.send_signal(number)
    assert process.wait(GRACE) == 128 + number


def test_the_entry_point_has_the_terminal(container) -> None:
    """As tini has it: the child's group is the foreground group, so that ^C is the child's."""
    code = "import os, time; print('own', os.tcgetpgrp(0) == os.getpgrp() != os.getsid(0), flush=True); time.sleep(60)"
    master, slave = pty.openpty()
    launcher = (
        "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        "os.execv('/bin/sh', ['/bin/sh', *sys.argv[1:]])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", launcher, str(container.bundle / "run.sh"), "python", "-c", code],
        env={**container.environ, **container.on, "SMSSH_HOLD": "failure"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    container.processes.append(process)
    os.close(slave)
    shown = b""
    deadline = time.monotonic() + 40
    while b"\n" not in shown and time.monotonic() < deadline:
        shown += os.read(master, 1024)
    assert b"own True" in shown
    os.write(master, b"\x03")
    # SIGINT went to the child alone; Python ends with KeyboardInterrupt's status, and that is held.
    container.wait_for("held")
    container.hook("release")
    assert process.wait(GRACE) == 128 + signal.SIGINT
    os.close(master)
