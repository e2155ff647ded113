"""Who counts as a person: real logins over both SSH servers, and sessions of an agent without SSH."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from smssh_plugin.entrypoints import connections, people, workers
from smssh_plugin.entrypoints.connections import Logins
from smssh_plugin.entrypoints.workers import Workers
from smssh_plugin.hookspecs import Context, Job, Server
from smssh_plugin.settings import load
from tests.waiting import LIMIT, until

FAIL = "import sys\nsys.exit(3)\n"


@pytest.fixture
def held(container, server):
    """A container that is held, and the status of then."""
    container.wrap(sys.executable, container.script(FAIL), SMSSH_HOLD="failure", SMSSH_SSH_SERVER=server)
    return container, container.wait_for("held")


def by_control(status):
    """The status as who comes by the control port needs it."""
    return {**status, "ssh": {**status["ssh"], "port": status["ssh"]["control_port"]}}


def looks(container, seconds=4.0):
    """What was seen of the hold for a while, while the supervisor goes on looking: `connected` and the deadline."""
    seen = set()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        status = container.status()
        seen.add((status["connected"], status["hold"]["connected"], status["hold"]["deadline"]))
    return seen


def background(container, status, *words, **options):
    return container.start(
        "ssh", *container.ssh_options(status, **options), *words, on=False, PATH="/usr/bin:/bin"
    )


def until_connected(container, count):
    return until(
        lambda: (
            (status := container.status())["connected"] == status["hold"]["connected"] == count and status
        ),
        what=f"{count} people",
    )


def test_what_asks_again_and_again_is_nobody(held) -> None:
    container, status = held
    control = by_control(status)
    # Without a pause: there is always one, in every state that a login goes through.
    script = 'while :; do ssh "$@" 127.0.0.1 smssh-hook status --json || exit; done'
    asking = [
        container.start(
            "sh", "-c", script, "sh", *container.ssh_options(control), on=False, PATH="/usr/bin:/bin"
        )
        for _ in range(2)
    ]
    until(
        lambda: all(log.text().count('"connected": 0') > 1 for log in container.logs[-2:]),
        seconds=120,
        what="two looks each",
    )
    assert looks(container) == {(0, 0, status["hold"]["deadline"])}
    assert all('"connected": 1' not in log.text() for log in container.logs[-2:])
    # A person, while they go on.
    person = background(container, status, "-N", "127.0.0.1")
    assert until_connected(container, 1)["hold"]["deadline"] > status["hold"]["deadline"]
    person.terminate()
    left = until_connected(container, 0)["hold"]["deadline"]
    assert looks(container, 2.5) == {(0, 0, left)}
    ended = [
        log.text()[-500:]
        for each, log in zip(asking, container.logs[1:3], strict=True)
        if each.poll() is not None
    ]
    assert not ended


def test_a_connection_that_has_not_logged_in_is_nobody(held, tmp_path) -> None:
    container, status = held
    stranger = tmp_path / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(stranger)], check=True)
    with contextlib.ExitStack() as stack:
        for port in (status["ssh"]["port"], status["ssh"]["control_port"]):
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            assert silent.recv(4) == b"SSH-"
            # As far as a key exchange without a client goes.
            half = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            half.sendall(b"SSH-2.0-Accepted publickey for root from 127.0.0.1 port 1 ssh2\r\n")
        assert container.ssh(status, "true", key=stranger).returncode == 255
        nobody = {**status, "ssh": {**status["ssh"], "user": "Accepted publickey for root"}}
        assert container.ssh(nobody, "true").returncode == 255
        assert looks(container) == {(0, 0, status["hold"]["deadline"])}


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("-N", "-L", "{free}:127.0.0.1:1", "127.0.0.1"), id="forward"),
        pytest.param(("-N", "-D", "{free}", "127.0.0.1"), id="socks"),
        pytest.param(("-N", "-R", "0:127.0.0.1:1", "127.0.0.1"), id="remote-forward"),
        pytest.param(("127.0.0.1", "sleep 60"), id="command"),
        pytest.param(("-tt", "127.0.0.1"), id="shell"),
        pytest.param(("-s", "127.0.0.1", "sftp"), id="sftp"),
        # By hand it is a login like any other: what it is for cannot be known before it has ended.
        pytest.param(("127.0.0.1", "while :; do smssh-hook status >/dev/null; done"), id="status-by-hand"),
    ],
)
def test_a_login_is_a_person_whatever_for(held, words) -> None:
    container, status = held
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    # A client whose input ended would end by itself.
    keep, given = os.pipe()
    command = ["ssh", *container.ssh_options(status), *(word.format(free=number) for word in words)]
    with open(given, "wb"), open(keep, "rb") as standard_input:
        client = subprocess.Popen(
            command, stdin=standard_input, stdout=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]}
        )
        container.processes.insert(0, client)
        assert until_connected(container, 1)["hold"]["deadline"] > status["hold"]["deadline"]
        client.terminate()
        client.wait()
    until_connected(container, 0)


def test_a_persons_connection_that_many_share_is_one(held) -> None:
    container, status = held
    socket_path = container.folder / "s"
    master = background(container, status, "-M", "-S", socket_path, "-N", "127.0.0.1")
    until_connected(container, 1)
    for _ in range(3):
        shown = container.ssh(status, "smssh-hook status --json", options=("-S", socket_path)).stdout
        assert '"connected": 1' in shown
    assert {connected for connected, *_ in looks(container, 2)} == {1}
    master.terminate()
    until_connected(container, 0)


def test_a_hold_ends_under_looks_and_not_under_a_person(held, container, server) -> None:
    """The whole of it: nobody but looks, and the job ends in time."""
    first = held[0]
    first.hook("release")
    assert first.processes[-1].wait(LIMIT) == 3
    process = container.wrap(
        sys.executable,
        container.script(FAIL),
        SMSSH_HOLD="failure",
        SMSSH_HOLD_SECONDS="8",
        SMSSH_SSH_SERVER=server,
    )
    log = container.logs[-1]
    control = by_control(container.wait_for("held"))
    began = time.monotonic()
    count = 0
    while process.poll() is None:
        count += container.ssh(control, "smssh-hook", "status").returncode == 0
        assert time.monotonic() < began + 90, "a look has kept it up"
    assert count > 1
    assert "nobody was connected for 8 s" in log.text()


# ---------------------------------------------------------------------------------------------------- the log


def connected_to(listener, stack):
    client = stack.enter_context(socket.create_connection(listener.getsockname()))
    stack.enter_context(listener.accept()[0])
    return client, client.getsockname()[1]


def test_logins_by_the_words_of_a_log(tmp_path, monkeypatch) -> None:
    log = tmp_path / "sshd.log"
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        (first, one), (_, two) = (connected_to(listener, stack) for _ in range(2))
        logins = Logins(log)
        assert logins.count(port) == 0
        log.write_text(
            f"Server listening on 127.0.0.1 port {port}.\r\nAccepted publickey for ann from 127.0.0.1 "
        )
        assert logins.count(port) == 0
        with log.open("a") as file:
            file.write(f"port {one} ssh2: ED25519 SHA256:x\r\n")
        assert logins.count(port) == 1
        # Whatever somebody calls himself, the line begins with sshd's own words.
        with log.open("a") as file:
            file.write(f"Invalid user Accepted publickey for ann from 127.0.0.1 port {two}\n")
            file.write(f"Failed publickey for ann from 127.0.0.1 port {two} ssh2: ED25519 SHA256:x\n")
        assert logins.count(port) == 1
        # A program that looks for the first time later sees the same, whether the log was cut meanwhile or not.
        assert Logins(log).count(port) == 1
        log.replace(f"{log}.old")
        log.write_text("")
        assert Logins(log).count(port) == 1
        assert logins.count(port) == 1
        # It was cut, and says less than was read already.
        log.write_text(f"Accepted publickey for ann from 127.0.0.1 port {two} ssh2\n")
        assert logins.count(port) == 2
        first.close()
        until(lambda: logins.count(port) == 1)
        with log.open("a") as file:
            file.write(f"Disconnected from user ann 127.0.0.1 port {two}\n")
        assert logins.count(port) == 0
        # A server that could not say it (a full disk) would have ended it by now.
        monkeypatch.setattr(connections, "LOGIN_SECONDS", 0.0)
        assert logins.count(port) == 1
        # One that never says it.
        assert Logins(None).count(port) == 1


def test_a_server_of_a_plugin_counts_all(tmp_path) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        connected_to(listener, stack)
        context = Context(load({}), Job("job", "training", "algo-1"), tmp_path, {}, "/", "")
        assert people.sessions(context) == 0
        context.server = Server("theirs", listener.getsockname()[1], "root", "key")
        assert people.sessions(context) == 1


# ------------------------------------------------------------------------------------------ Session Manager


WORKER = """\
import socket, subprocess, sys, time
ports, command = sys.argv[1].split(","), sys.argv[2:]
held = [socket.create_connection(("127.0.0.1", int(port))) for port in ports if port]
if command: subprocess.Popen(command)
print("up", flush=True)
for line in sys.stdin:
    for each in held: each.close()
    print("closed", flush=True)
"""


@pytest.fixture
def session(tmp_path):
    """Starts what looks like a process of the agent: its name, its connections, its shell."""
    program = tmp_path / "ssm-session-worker"
    program.symlink_to(sys.executable) if sys.prefix == sys.base_prefix else shutil.copy(
        os.path.realpath(sys.executable), program
    )
    started = []

    def start(*ports, shell=()):
        process = subprocess.Popen(
            [str(program), "-c", WORKER, ",".join(map(str, ports)), *shell],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHOME": sys.base_prefix},
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout.readline() == "up\n"
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.communicate()


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made.getsockname()[1]


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(workers, "SETTLE_SECONDS", 0.0)


def test_a_session_without_ssh_counts_once_it_lasts(session, listener, monkeypatch) -> None:
    process = session(shell=("sleep", "60"))
    counted = Workers()
    assert counted.count((listener,), os.getpid()) == 0
    monkeypatch.setattr(workers, "SETTLE_SECONDS", 1.0)
    until(lambda: counted.count((listener,), os.getpid()) == 1)
    assert counted.count((listener,)) >= 1
    assert counted.count((listener,), process.pid + 1) == 0


@pytest.mark.usefixtures("at_once")
def test_a_forward_counts_and_what_carries_ssh_does_not(session, listener) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        counted = Workers()
        session(other.getsockname()[1])
        session()  # a forward that nobody uses at the moment
        assert counted.count((listener, 0), os.getpid()) == 2
        ssh = session(listener)
        assert counted.count((listener, 0), os.getpid()) == 2
        ssh.stdin.write("\n")
        ssh.stdin.flush()
        assert ssh.stdout.readline() == "closed\n"
        # It carried SSH, and that counts by itself or not at all.
        assert counted.count((listener, 0), os.getpid()) == 2


@pytest.mark.usefixtures("at_once")
def test_a_shell_that_a_program_of_ours_uses_is_nobody(session, listener) -> None:
    """`smssh remote-debug --install`."""
    session(shell=("sh", "-c", "sleep 60; :", workers.CONTROL.decode()))
    assert Workers().count((listener,), os.getpid()) == 0
    session(shell=("sh", "-c", "sleep 60; :"))
    assert Workers().count((listener,), os.getpid()) == 1
