"""Every kind of session through the service to an agent: forwards, shells and commands as processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.errors import ExitStatus
from smssh_plugin.local.service_error import ServiceError
from tests.waiting import until

from .support import Stack, proxy, read_exactly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import World


class Forward:
    """`smssh forward`'s body as a process, and the port that it printed."""

    def __init__(self, world: World, port: int, *more: str, under: tuple[str, ...] = ()) -> None:
        arguments = ", ".join(["AwsSession()", f"lambda _anew: {world.node!r}", str(port), *more])
        code = "import sys; from smssh_plugin.aws.session import AwsSession; "
        code += "from smssh_plugin.session import forward; "
        self.process = subprocess.Popen(
            [*under, sys.executable, "-c", f"{code}sys.exit(forward.run({arguments}))"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=world.stack.environment,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line.startswith("127.0.0.1:"), self.errors()
        self.port = int(line.rpartition(":")[2])

    def connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), 10)
        made.settimeout(30)
        return made

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(15)


@pytest.fixture
def forwards() -> Iterator[Any]:
    made: list[Forward] = []

    def make(*arguments: Any, **options: Any) -> Forward:
        made.append(Forward(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
        for stream in (one.process.stdout, one.process.stderr):
            assert stream is not None
            stream.close()


def echoed(connection: socket.socket, data: bytes) -> bytes:
    writer = threading.Thread(target=connection.sendall, args=(data,))
    writer.start()
    got = b""
    while len(got) < len(data) and (piece := connection.recv(65536)):
        got += piece
    writer.join()
    return got


def test_a_port_is_forwarded_for_many_connections(world: World, forwards: Any) -> None:
    forward = forwards(world, world.echo.port)
    data = [os.urandom(60_000) for _ in range(5)]
    connections = [forward.connect() for _ in data]
    assert [echoed(*pair) for pair in zip(connections, data, strict=True)] == data
    for connection in connections:
        connection.close()
    until(lambda: not world.echo.open, what="the end of all connections")
    again = forward.connect()
    assert echoed(again, b"again") == b"again"
    again.close()
    (session,) = world.stack.service.active_sessions
    assert session.document == "AWS-StartPortForwardingSession"
    assert forward.end() == 0
    until(lambda: not world.stack.service.active_sessions, what="the end of the session")


def test_a_forward_under_nohup_outlives_a_hangup(world: World, forwards: Any) -> None:
    forward = forwards(world, world.echo.port, under=("nohup",))
    forward.process.send_signal(signal.SIGHUP)
    connection = forward.connect()
    assert echoed(connection, b"still here") == b"still here"
    connection.close()
    assert forward.end() == 0
    until(lambda: not world.stack.service.active_sessions, what="the end of the session")


def test_a_port_of_another_host(world: World, forwards: Any) -> None:
    forward = forwards(world, world.echo.port, "host='127.0.0.1'")
    connection = forward.connect()
    assert echoed(connection, b"there") == b"there"
    connection.close()
    (session,) = world.stack.service.active_sessions
    assert session.document == "AWS-StartPortForwardingSessionToRemoteHost"
    assert forward.end() == 0


def test_forwarded_connections_survive_a_cut(world: World, forwards: Any) -> None:
    forward = forwards(world, world.echo.port)
    connection = forward.connect()
    assert echoed(connection, b"before") == b"before"
    (session,) = world.stack.service.active_sessions
    for side in ("client", "agent"):
        world.stack.do(world.stack.service.drop(side, session.id))
        data = os.urandom(100_000)
        assert echoed(connection, data) == data
    connection.close()
    assert forward.end() == 0


def test_a_port_where_nothing_listens_is_said_and_the_rest_goes_on(world: World, forwards: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    forward = forwards(world, port)
    connection = forward.connect()
    assert connection.recv(10) == b""
    assert forward.end() == 0
    assert "the agent cannot connect to the container, port" in forward.errors()


def test_a_port_that_is_taken_here_is_an_error(world: World) -> None:
    code = "import sys; from smssh_plugin.cli import main; sys.exit(main(sys.argv[1:]))"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-c", code, "forward", "job.training.sagemaker", f"{port}:80"],
            capture_output=True,
            env=world.stack.environment,
            timeout=60,
            check=False,
        )
    assert done.returncode == ExitStatus.FAILED
    assert f"port {port} of this machine is taken".encode() in done.stderr


def run_shell(stack: Stack, node: str, *more: str, typed: bytes) -> subprocess.CompletedProcess[bytes]:
    arguments = ", ".join(["AwsSession()", f"lambda _anew: {node!r}", *more])
    code = "import sys; from smssh_plugin.aws.session import AwsSession; from smssh_plugin.session import shell; "
    return subprocess.run(
        [sys.executable, "-c", f"{code}sys.exit(shell.run({arguments}))"],
        input=typed,
        capture_output=True,
        env=stack.environment,
        timeout=60,
        check=False,
    )


def test_a_shell_through_an_agent(world: World) -> None:
    done = run_shell(world.stack, world.node, typed=b"echo $((6 * 7))-seen; exit\n")
    assert b"42-seen" in done.stdout
    assert done.returncode == 0, done.stderr
    until(lambda: not world.stack.service.active_sessions, what="the end of the session")


def test_a_command_through_an_agent(world: World) -> None:
    done = run_shell(world.stack, world.node, "'echo $((6 * 7))-seen'", typed=b"")
    assert b"42-seen" in done.stdout
    assert done.returncode == 0, done.stderr
    until(lambda: not world.stack.service.active_sessions, what="the end of the session")


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("exit 3", 3),
        ("true", 0),
        ("kill -TERM $$", 128 + 15),
        ("kill -KILL $$", 128 + 9),
        ("no-such-program-here", 127),
        ("cat; exit 4", 4),
        ('echo "it\'s"; exit 5', 5),
    ],
)
def test_a_commands_status(world: World, command: str, status: int) -> None:
    done = run_shell(world.stack, world.node, repr(command), typed=b"a line\n")
    assert done.returncode == status, done.stderr
    assert b"\x1b" not in done.stdout
    assert b"7337" not in done.stdout


def test_a_command_that_is_killed_with_its_shell(world: World) -> None:
    done = run_shell(world.stack, world.node, repr("kill -KILL $PPID"), typed=b"")
    assert done.returncode == ExitStatus.FAILED  # an error; `smssh` ends with UNREACHABLE
    assert b"ended without telling its exit status" in done.stderr


def test_a_command_that_writes_on_after_its_own_end(world: World) -> None:
    """What it left behind in the background holds the terminal: all of it is shown, and the status is the command's."""
    done = run_shell(world.stack, world.node, repr("(sleep 0.3; echo later) & exit 6"), typed=b"")
    assert done.returncode == 6
    assert b"\x1b" not in done.stdout


def test_ssh_by_the_port_forwarding_document(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an account does not allow SSH's own document."""
    handle = world.stack.service.handle

    async def picky(operation: str, body: dict[str, Any], access_key: str | None) -> dict[str, Any]:
        if body.get("DocumentName") == "AWS-StartSSHSession":
            raise ServiceError("AccessDeniedException", "not that document")
        return await handle(operation, body, access_key)

    monkeypatch.setattr(world.stack.service, "handle", picky)
    process = proxy(world.stack, world.node, world.echo.port)
    assert process.stdin is not None
    sent = os.urandom(300_000)
    writer = threading.Thread(target=process.stdin.write, args=(sent,))
    writer.start()
    assert read_exactly(process, len(sent)) == sent
    writer.join()
    process.stdin.close()
    assert process.wait(15) == 0
    until(lambda: not world.echo.open, what="the end of the connection")
