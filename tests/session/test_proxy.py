"""`smssh proxy`'s body as a process, through the service and an agent, to a TCP server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.aws.session import AwsSession
from smssh_plugin.errors import ExitStatus, SmsshError
from smssh_plugin.local.faults import Fault
from smssh_plugin.local.service_error import ServiceError
from smssh_plugin.session import proxy as proxies
from tests.waiting import until

from .support import KEYS, Agent, EchoServer, Stack, closing, proxy, proxy_command, read_exactly

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import World


def end(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """The exit status and stderr of a proxy that is about to end."""
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.close()
    errors = process.stderr.read().decode()
    return process.wait(15), errors


def route(resolve: Callable[..., Any], **options: Any) -> proxies.Route:
    return proxies.Route(AwsSession(), "job.training.sagemaker", resolve, **options)


def nothing_is_left(stack: Stack, echo: EchoServer) -> None:
    until(lambda: not stack.service.active_sessions, what="the end of the session")
    until(lambda: not echo.open, what="the end of the connection to the port")
    until(
        lambda: all(one.client is None and one.agent is None for one in stack.service.sessions.values()),
        what="the end of the websockets",
    )


def test_bytes_go_both_ways_and_stdout_carries_nothing_else(world: World) -> None:
    sent = os.urandom(3_000_000)
    process = proxy(world.stack, world.node, world.echo.port)
    writer = threading.Thread(target=process.stdin.write, args=(sent,))  # type: ignore[union-attr]
    writer.start()
    assert read_exactly(process, len(sent)) == sent
    writer.join()
    assert end(process) == (0, "")
    assert process.stdout is not None
    assert process.stdout.read() == b""
    nothing_is_left(world.stack, world.echo)


def test_single_newlines_stay_newlines(world: World) -> None:
    """session-manager-plugin turns an input of one 0x0a into 0x0d."""
    process = proxy(world.stack, world.node, world.echo.port)
    assert process.stdin is not None
    for _ in range(3):
        process.stdin.write(b"\n")
        assert read_exactly(process, 1) == b"\n"
    assert end(process)[0] == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_session(world: World, number: signal.Signals) -> None:
    process = proxy(world.stack, world.node, world.echo.port)
    assert process.stdin is not None
    process.stdin.write(b"x")
    read_exactly(process, 1)
    terminated = len(world.stack.events("TerminateSession"))
    process.send_signal(number)
    assert process.wait(10) == 128 + number
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert len(world.stack.events("TerminateSession")) == terminated + 1
    nothing_is_left(world.stack, world.echo)


def test_a_hangup_ends_the_session_under_nohup_too(world: World) -> None:
    """ssh has no other word for its proxy."""

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = proxy(world.stack, world.node, world.echo.port, preexec_fn=ignore)
    assert process.stdin is not None
    process.stdin.write(b"x")
    read_exactly(process, 1)
    process.send_signal(signal.SIGHUP)
    assert process.wait(10) == 128 + signal.SIGHUP
    nothing_is_left(world.stack, world.echo)


def test_what_was_written_before_a_hangup_still_arrives(world: World) -> None:
    """ssh writes its disconnect message, and sends SIGHUP at once."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        process = proxy(world.stack, world.node, listener.getsockname()[1])
        connection, _ = listener.accept()
        connection.settimeout(10)
        assert process.stdin is not None
        process.stdin.write(b"hello")
        assert connection.recv(5) == b"hello"
        process.stdin.write(b"goodbye" * 1000)
        process.send_signal(signal.SIGHUP)
        got = b""
        while data := connection.recv(65536):
            got += data
        connection.close()
        assert got == b"goodbye" * 1000
        assert process.wait(10) == 128 + signal.SIGHUP


def test_a_broken_stdout_ends_the_session(world: World) -> None:
    process = proxy(world.stack, world.node, world.echo.port)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"x")
    read_exactly(process, 1)
    process.stdout.close()
    process.stdin.write(b"y")
    assert process.wait(10) == 0
    nothing_is_left(world.stack, world.echo)


def test_the_end_of_the_server_is_the_end_of_the_proxy(world: World) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        process = proxy(world.stack, world.node, listener.getsockname()[1])
        connection, _ = listener.accept()
        last = os.urandom(400_000)
        connection.sendall(last)
        connection.close()
        assert read_exactly(process, len(last)) == last
        assert process.wait(10) == 0
    nothing_is_left(world.stack, world.echo)


def test_a_killed_proxy_leaves_the_session_as_on_aws(world: World) -> None:
    """Why TerminateSession is worth so much care: nothing else ends it before the idle time-out."""
    process = proxy(world.stack, world.node, world.echo.port)
    assert process.stdin is not None
    process.stdin.write(b"x")
    read_exactly(process, 1)
    process.kill()
    process.wait()
    (session,) = world.stack.service.active_sessions
    until(lambda: session.client is None)
    assert session.status == "Disconnected"
    assert world.echo.open == 1
    world.stack.call("TerminateSession", SessionId=session.id)
    nothing_is_left(world.stack, world.echo)


def test_a_port_where_nothing_listens_is_named(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = proxy(world.stack, world.node, port)
    # An agent connects after the handshake only: who leaves at once does not hear of it.
    assert process.wait(15) == ExitStatus.UNREACHABLE
    _, errors = end(process)
    assert errors.count("\n") == 1
    assert "Unable to connect to specified port: dial tcp" in errors
    assert f":{port}: connect: connection refused" in errors
    until(lambda: not world.stack.service.active_sessions)


def test_a_target_that_is_not_connected_is_named_after_the_deadline(stack: Stack) -> None:
    process = proxy(stack, "mi-01234567890abcdef", 22, "wait=0.5")
    status, errors = end(process)
    assert status == ExitStatus.UNREACHABLE
    assert "waiting for the agent of mi-01234567890abcdef" in errors
    assert "mi-01234567890abcdef is not connected after" in errors
    assert stack.calls.count("StartSession") > 1


def test_a_slow_first_call_takes_nothing_from_the_wait(stack: Stack) -> None:
    """It is asked once more and said what is waited for, though the call took longer than the wait."""
    process = proxy(stack, "mi-01234567890abcdef", 22, "wait=0.001")
    status, errors = end(process)
    assert status == ExitStatus.UNREACHABLE
    assert errors.index("waiting for the agent of") < errors.index("is not connected after")
    assert stack.calls.count("StartSession") > 1


def test_a_target_that_connects_meanwhile_is_waited_for(
    stack: Stack, new_agent: Callable[..., Agent], echo: EchoServer
) -> None:
    agent = new_agent()
    agent.register()
    process = proxy(stack, agent.node, echo.port)
    until(lambda: "StartSession" in stack.calls)
    agent.start()
    assert process.stdin is not None
    process.stdin.write(b"late")
    assert read_exactly(process, 4) == b"late"
    status, errors = end(process)
    assert status == 0
    assert errors.startswith("smssh: waiting for the agent of ")
    assert errors.count("\n") == 1


def test_a_signal_ends_the_waiting(stack: Stack) -> None:
    process = proxy(stack, "mi-01234567890abcdef", 22)
    until(lambda: "StartSession" in stack.calls)
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 128 + signal.SIGTERM


def test_a_cut_connection_is_resumed(world: World) -> None:
    process = proxy(world.stack, world.node, world.echo.port)
    assert process.stdin is not None
    process.stdin.write(b"before")
    assert read_exactly(process, 6) == b"before"
    (session,) = world.stack.service.active_sessions
    world.stack.do(world.stack.service.drop("client", session.id))
    sent = os.urandom(300_000)
    writer = threading.Thread(target=process.stdin.write, args=(sent,))
    writer.start()
    assert read_exactly(process, len(sent)) == sent
    writer.join()
    assert end(process) == (0, "smssh: the connection was cut; resuming the session\n")
    nothing_is_left(world.stack, world.echo)


def test_a_session_that_was_ended_by_others_is_explained(world: World) -> None:
    process = proxy(world.stack, world.node, world.echo.port)
    assert process.stdin is not None
    process.stdin.write(b"x")
    read_exactly(process, 1)
    (session,) = world.stack.service.active_sessions
    world.stack.do(world.stack.service.end(session, "Your session timed out due to inactivity."))
    assert process.stderr is not None
    assert process.wait(10) == ExitStatus.UNREACHABLE
    assert b"the session ended: Your session timed out due to inactivity." in process.stderr.read()


def test_an_agent_that_stops_and_comes_back_leaves_its_sessions_alone(
    agent: Agent, stack: Stack, echo: EchoServer
) -> None:
    process = proxy(stack, agent.node, echo.port)
    assert process.stdin is not None
    for number in range(2):
        process.stdin.write(b"x")
        assert read_exactly(process, 1) == b"x"
        if not number:
            assert agent.stop() == 0
    agent.start()
    agent.wait_connected()
    assert end(process) == (0, "")
    nothing_is_left(stack, echo)


def test_a_dead_agent_does_not_keep_the_proxy_from_ending(
    agent: Agent, stack: Stack, echo: EchoServer
) -> None:
    process = proxy(stack, agent.node, echo.port)
    assert process.stdin is not None
    process.stdin.write(b"x")
    read_exactly(process, 1)
    agent.kill()
    process.stdin.write(b"into the void")
    process.send_signal(signal.SIGHUP)
    assert process.wait(10) == 128 + signal.SIGHUP
    nothing_is_left(stack, echo)


def test_refusals_are_explained_with_a_remedy(stack: Stack) -> None:
    stack.service.faults["StartSession"] = ServiceError("AccessDeniedException", "you may not")
    status, errors = end(proxy(stack, "mi-01234567890abcdef", 22))
    assert status == ExitStatus.REFUSED
    assert "you may not" in errors
    assert errors.count("\n") == 1
    stack.service.faults["StartSession"] = ServiceError("BadRequest", "Enable advanced-instances tier")
    status, errors = end(proxy(stack, "mi-01234567890abcdef", 22))
    assert status == ExitStatus.UNREACHABLE
    assert "update-service-setting" in errors


def test_where_sshs_document_is_not_allowed_port_forwarding_will_do(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    handle = world.stack.service.handle

    async def picky(operation: str, body: dict[str, Any], access_key: str | None) -> dict[str, Any]:
        if operation == "StartSession":
            asked.append(body["DocumentName"])
            if body["DocumentName"] == "AWS-StartSSHSession":
                raise ServiceError("AccessDeniedException", "not that document")
            # This agent's port forwarding is not multiplexed: it is refused at the handshake, which is enough here.
        return await handle(operation, body, access_key)

    monkeypatch.setattr(world.stack.service, "handle", picky)
    end(proxy(world.stack, world.node, world.echo.port))
    assert asked == ["AWS-StartSSHSession", "AWS-StartPortForwardingSession"]
    nothing_is_left(world.stack, world.echo)


def test_port_forwarding_will_not_do_for_amazons_plugin(world: World) -> None:
    """With its document the plugin listens on a port, and copies nothing: ssh would wait in vain."""
    refusal = Fault("ssm:StartSession", "AccessDeniedException", "not that document", times=1)
    world.stack.service.faults.add(refusal)
    before = world.stack.calls.count("StartSession")
    status, errors = end(proxy(world.stack, world.node, world.echo.port, "via='plugin'"))
    assert status == ExitStatus.REFUSED
    assert errors.startswith("smssh: access denied: StartSession: not that document (")
    assert world.stack.calls.count("StartSession") == before + 1


def test_the_first_refusal_is_the_one_that_is_told(stack: Stack) -> None:
    stack.service.faults["StartSession"] = ServiceError("AccessDeniedException", "you may not")
    status, errors = end(proxy(stack, "mi-01234567890abcdef", 22))
    assert (status, stack.calls.count("StartSession")) == (ExitStatus.REFUSED, 2)
    assert errors == (
        "smssh: access denied: StartSession: you may not (ask for the permission ssm:StartSession)\n"
    )


def test_a_target_that_was_remembered_and_is_gone_is_looked_up_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**world.stack.environment, **KEYS}.items():
        monkeypatch.setenv(name, value)
    asked = []

    def resolve(_address: str, _session: object, *, cached: bool, **_: object) -> object:
        asked.append(cached)
        target = "mi-0gone0gone0gone00" if cached else world.node
        return SimpleNamespace(target=target, port=world.echo.port, user="root")

    source, writer = os.pipe()
    reader, sink = os.pipe()
    os.write(writer, b"found")
    os.close(writer)
    before = len(world.stack.calls)
    assert proxies.run(route(resolve), source=source, sink=sink) == 0
    assert asked == [True, False]
    assert world.stack.calls[before:] == ["StartSession", "StartSession", "TerminateSession"]
    for fd in (source, reader, sink):
        os.close(fd)


def test_what_the_lookup_knows_of_a_target_that_does_not_connect_is_told(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**stack.environment, **KEYS}.items():
        monkeypatch.setenv(name, value)
    waits = []

    def resolve(_address: str, _session: object, *, wait: float, **_: object) -> object:
        waits.append(wait)
        if len(waits) == 3:
            raise SmsshError("training job 'job' has ended (Failed)", status=ExitStatus.NOT_FOUND)
        return SimpleNamespace(target="mi-01234567890abcdef", port=22, user="root")

    status = proxies.run(route(resolve, wait=0.3))
    assert status == ExitStatus.NOT_FOUND
    assert waits == [0.3, 0.3, 0.0]
    assert capfd.readouterr().err.splitlines()[-1] == "smssh: training job 'job' has ended (Failed)"


BANNER = b"\nStarting session with SessionId: x\n"
PLUGIN = """#!{python}
import json, os, signal, sys
hup = signal.getsignal(signal.SIGHUP)
signal.signal(signal.SIGINT, lambda *_: (os.write(2, b"interrupted\\n"), os._exit(0)))
print(json.dumps([sys.argv, os.environ[sys.argv[1]]]), file=sys.stderr, flush=True)
sys.stdout.write("\\nStarting session with SessionId: x\\n"); sys.stdout.flush()
while data := os.read(0, 100):
    os.write(1, data.upper())
    if data == b"fail": os._exit(3)
    if data == b"stay":
        while True: signal.pause()
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the place of session-manager-plugin, first on PATH."""
    program = tmp_path / "programs" / "session-manager-plugin"
    program.parent.mkdir()
    program.write_text(PLUGIN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program


def test_amazons_plugin_gets_the_session_by_a_variable_and_is_cleaned_up_after(
    world: World, plugin: Path
) -> None:
    process = proxy(world.stack, world.node, world.echo.port, "via='plugin'")
    assert process.stdin is not None
    assert process.stderr is not None
    argv, answer = json.loads(process.stderr.readline())
    assert argv[:5] == [str(plugin), "AWS_SSM_START_SESSION_RESPONSE", "us-east-1", "StartSession", ""]
    assert json.loads(argv[5])["Target"] == world.node
    assert json.loads(argv[5])["Parameters"] == {"portNumber": [str(world.echo.port)]}
    assert argv[6] == world.stack.url
    (session,) = world.stack.service.active_sessions
    assert json.loads(answer)["SessionId"] == session.id
    assert json.loads(answer)["TokenValue"] == session.client_token
    assert session.client_token not in " ".join(argv)
    process.stdin.write(b"hello")
    assert read_exactly(process, len(BANNER) + 5) == BANNER + b"HELLO"
    assert end(process)[0] == 0
    assert world.stack.events("TerminateSession")[-1] == session.id


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_ends_amazons_plugin_and_the_session(
    world: World, plugin: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = proxy(world.stack, world.node, world.echo.port, "via='plugin'")
    assert process.stdin is not None
    process.stdin.write(b"stay")
    read_exactly(process, len(BANNER) + 4)
    process.send_signal(number)
    assert process.wait(15) == 128 + number
    assert process.stderr is not None
    assert process.stderr.read().endswith(b"interrupted\n")
    assert not world.stack.service.active_sessions


def test_a_plugin_that_fails_or_is_not_there_is_an_error(
    world: World, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = proxy(world.stack, world.node, world.echo.port, "via='plugin'")
    assert process.stdin is not None
    process.stdin.write(b"fail")
    status, errors = end(process)
    assert status == ExitStatus.UNREACHABLE
    assert "session-manager-plugin ended with status 3" in errors
    plugin.unlink()
    status, errors = end(proxy(world.stack, world.node, world.echo.port, "via='plugin'"))
    if "is not installed" in errors:  # unless this machine has it
        assert status == ExitStatus.USAGE
    assert not world.stack.service.active_sessions


def test_a_session_that_cannot_be_terminated_is_named(world: World) -> None:
    process = proxy(world.stack, world.node, world.echo.port)
    assert process.stdin is not None
    process.stdin.write(b"x")
    read_exactly(process, 1)
    (session,) = world.stack.service.active_sessions
    world.stack.service.faults["TerminateSession"] = ServiceError("AccessDeniedException", "not you")
    try:
        status, errors = end(process)
    finally:
        del world.stack.service.faults["TerminateSession"]
    assert status == 0
    assert f"session {session.id} could not be ended" in errors
    # The agent was told through the channel too, and ends the session by itself.
    nothing_is_left(world.stack, world.echo)


def test_an_unreachable_endpoint_is_an_error_not_a_stack_trace(stack: Stack, tmp_path: Path) -> None:
    environment = {**stack.environment, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    done = subprocess.run(
        proxy_command("mi-01234567890abcdef", 22),
        env=environment,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == ExitStatus.UNREACHABLE
    assert done.stdout == b""
    assert done.stderr.startswith(b"smssh: ")
    assert b"Traceback" not in done.stderr


def test_an_unsigned_data_channel_is_refused_where_signing_is_asked_for(
    new_agent: Callable[..., Agent], stack: Stack, echo: EchoServer
) -> None:
    """The proxy signs: session-manager-plugin does since 1.2.688, so that AWS may want it."""
    stack.service.channels.signed_clients = True
    agent = new_agent()
    agent.register()
    agent.start()
    agent.wait_connected()
    process = proxy(stack, agent.node, echo.port)
    assert process.stdin is not None
    process.stdin.write(b"signed")
    assert read_exactly(process, 6) == b"signed"
    assert end(process)[0] == 0


def test_the_address_is_resolved_to_target_and_port(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**world.stack.environment, **KEYS}.items():
        monkeypatch.setenv(name, value)
    asked = []

    def resolve(address: str, session: object, **_: object) -> object:
        asked.append((address, type(session).__name__))
        return SimpleNamespace(target=world.node, port=world.echo.port, user="root")

    source, writer = os.pipe()
    reader, sink = os.pipe()
    os.write(writer, b"found")
    os.close(writer)
    status = proxies.run(route(resolve), source=source, sink=sink)
    assert status == 0
    assert asked == [("job.training.sagemaker", "AwsSession")]
    assert os.get_blocking(source)
    for fd in (source, reader, sink):
        os.close(fd)

    def nowhere(_address: str, _session: object, **_: object) -> object:
        raise SmsshError("no such job", hint="look again", status=ExitStatus.NOT_FOUND)

    assert proxies.run(route(nowhere)) == ExitStatus.NOT_FOUND
    assert capfd.readouterr() == ("", "smssh: no such job (look again)\n")


def test_the_proxy_is_one_process_with_neither_asyncio_nor_boto3() -> None:
    program = (
        "import sys, json, smssh_plugin.session.proxy, smssh_plugin.session.wire.channel, "
        "smssh_plugin.session.pump, "
        "smssh_plugin.aws, smssh_plugin.client.lookup; print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = set(json.loads(done.stdout))
    heavy = {
        "asyncio",
        "boto3",
        "botocore",
        "urllib3",
        "aiohttp",
        "click",
        "rich",
        "paramiko",
        "cryptography",
    }
    assert not loaded & heavy
    # Python's own, of which these are dear, too.
    assert not loaded & {"concurrent.futures", "multiprocessing", "unittest", "sqlite3", "xml.etree"}


def test_stdin_may_be_a_file(world: World, tmp_path: Path) -> None:
    """epoll cannot wait for regular files."""
    (tmp_path / "in").write_bytes(b"from a file")
    with (tmp_path / "in").open("rb") as source:
        done = subprocess.run(
            proxy_command(world.node, world.echo.port),
            env=world.stack.environment,
            stdin=source,
            capture_output=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 0
    assert done.stderr == b""
    nothing_is_left(world.stack, world.echo)


def test_many_at_once(world: World) -> None:
    processes = [proxy(world.stack, world.node, world.echo.port) for _ in range(6)]
    for number, process in enumerate(processes):
        assert process.stdin is not None
        process.stdin.write(b"%d" % number)
    for number, process in enumerate(processes):
        assert read_exactly(process, 1) == b"%d" % number
    assert {end(process)[0] for process in processes} == {0}
    nothing_is_left(world.stack, world.echo)
    assert world.agent.process is not None
    process_folder = Path(f"/proc/{world.agent.process.pid}/task")
    until(lambda: len(list(process_folder.iterdir())) == 1, what="the end of the agent's threads")
