"""The fake agent's sessions, over the service, by a client of the tests' own."""

# ruff: noqa: F811 - fixtures that are imported

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import struct
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.local.agent.installed import PACE
from smssh_plugin.local.agent.smux_server import FIN, HEADER, NOP, PSH, SYN
from smssh_plugin.local.faults import Fault
from smssh_plugin.local.sessions.channels import Session
from smssh_plugin.session.wire.frames import Message, MessageType, PayloadType
from tests.local.session_client import Client
from tests.session.conftest import echo, shared_world, stack, world  # noqa: F401 - fixtures
from tests.session.support import Agent, Stack
from tests.waiting import LIMIT, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.session.conftest import World

SSH, FORWARD, REMOTE = (
    "AWS-StartSSHSession",
    "AWS-StartPortForwardingSession",
    "AWS-StartPortForwardingSessionToRemoteHost",
)
INTERACTIVE, COMMAND = "AWS-StartInteractiveCommand", "AWS-StartNonInteractiveCommand"


@pytest.fixture
def start(world: World) -> Iterator[Callable[..., Client]]:
    """Starts sessions with a document and its parameters, and what a client is told."""
    made: list[Client] = []

    def begin(document: str = "", client: dict[str, Any] | None = None, **parameters: str) -> Client:
        body: dict[str, Any] = {"Target": world.node}
        if document:
            body["DocumentName"] = document
        opening = world.stack.call(
            "StartSession", **body, Parameters={name: [value] for name, value in parameters.items()}
        )
        made.append(Client(opening, **(client or {})))
        return made[-1]

    yield begin
    for one in made:
        one.close()


@pytest.fixture
def preferences(world: World) -> Iterator[Callable[..., None]]:
    """Sets the account's preferences for a test."""

    def save(**inputs: object) -> None:
        content = {
            "schemaVersion": "1.0",
            "description": "for a test",
            "sessionType": "Standard_Stream",
            "inputs": inputs,
        }
        world.stack.call("UpdateDocument", Name="SSM-SessionManagerRunShell", Content=json.dumps(content))

    yield save
    world.stack.call("DeleteDocument", Name="SSM-SessionManagerRunShell")


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


def opened(world: World, client: Client) -> int:
    """How often the agent opened the session's data channel."""
    return world.stack.events("agent-open").count(client.id)


# One connection.


def test_a_port_session_shakes_hands_and_carries_bytes(world: World, start: Callable[..., Client]) -> None:
    client = start(SSH, portNumber=str(world.echo.port))
    assert client.wait_complete()["CustomerMessage"] == ""
    assert client.request is not None
    assert client.request["AgentVersion"] == "3.3.987.0"
    (action,) = client.request["RequestedClientActions"]
    assert action == {
        "ActionType": "SessionType",
        "ActionParameters": {"SessionType": "Port", "Properties": {"portNumber": str(world.echo.port)}},
    }
    client.send(b"hello")
    client.wait_output(b"hello")
    first = next(one for one in client.messages if one.type == MessageType.OUTPUT)
    assert (first.sequence, first.flags) == (0, 1)
    assert {one.flags for one in client.messages if one.type == MessageType.ACKNOWLEDGE} == {3}
    # The service's business is not the client's.
    assert MessageType.AGENT_SESSION_STATE not in {one.type for one in client.messages}
    client.flag(2)
    assert client.wait_closed() == ""


def test_the_clients_answer_is_acknowledged_before_the_handshake_ends(
    world: World, start: Callable[..., Client]
) -> None:
    client = start(SSH, portNumber=str(world.echo.port))
    client.wait_complete()
    answered = next(i for i, one in enumerate(client.messages) if one.type == MessageType.ACKNOWLEDGE)
    assert client.messages[answered].json()["AcknowledgedMessageSequenceNumber"] == 0
    complete = [one.payload_type for one in client.messages].index(PayloadType.HANDSHAKE_COMPLETE)
    assert answered < complete


@pytest.mark.parametrize(("pace", "least"), [(0.002, 0.9), (0.0, 0.0)])
def test_an_agent_sends_at_its_pace(stack: Stack, tmp_path: Path, pace: float, least: float) -> None:
    content = b"x" * 512_000  # 500 messages
    agent = Agent(stack, tmp_path / "agent", pace=pace)
    try:
        agent.register()
        agent.start()
        agent.wait_connected()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = {"portNumber": [str(listener.getsockname()[1])]}
            opening = stack.call("StartSession", Target=agent.node, DocumentName=SSH, Parameters=port)
            client = Client(opening)
            connection, _ = listener.accept()
            client.wait_complete()
            began = time.monotonic()
            with connection:
                connection.sendall(content)
                client.wait(lambda: len(client.output) == len(content), "all of it")
            assert time.monotonic() - began >= least
        client.close()
    finally:
        agent.kill()
    assert PACE == 0.001, "the default is the real agent's"


def test_the_end_of_the_connection_is_the_end_of_the_session(
    world: World, start: Callable[..., Client]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = start(SSH, portNumber=str(listener.getsockname()[1]))
        connection, _ = listener.accept()
        connection.sendall(b"last words")
        connection.close()
        assert client.wait_closed() == ""
    assert client.output == b"last words"
    (event,) = [e for e in world.stack.service.events if e.kind == "task-complete" and e.subject == client.id]
    assert event.detail.startswith("Success")


def test_a_client_that_cannot_what_is_asked_of_it_gets_no_session(
    world: World, start: Callable[..., Client]
) -> None:
    client = start(SSH, {"status": 3}, portNumber=str(world.echo.port))
    assert "SessionType failed on client with status 3 error: no" in client.wait_closed()
    assert not world.echo.open


def test_input_before_the_end_of_the_handshake_is_acknowledged_and_thrown_away(
    world: World, start: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    shake = Client._shake

    def early(self: Client, request: dict[str, Any]) -> None:
        assert self.send(b"too early") == 0
        shake(self, request)

    monkeypatch.setattr(Client, "_shake", early)
    client = start(SSH, portNumber=str(world.echo.port))
    client.wait_complete()
    client.send(b"in time")
    assert client.wait_output(b"in time") == b"in time"
    assert 0 in client.acknowledged


def test_the_order_is_kept_and_what_is_doubled_is_passed_over(
    world: World, start: Callable[..., Client]
) -> None:
    client = start(SSH, portNumber=str(world.echo.port))
    client.wait_complete()
    frames = [
        Message.new(MessageType.INPUT, payload, payload_type=1, sequence=number).encode()
        for number, payload in ((3, b"c"), (2, b"b"), (2, b"b"), (1, b"a"), (1, b"a"), (4, b"d"))
    ]
    for frame in frames:
        client.put(frame)
    assert client.wait_output(b"d") == b"abcd"
    until(lambda: {1, 2, 3, 4} <= client.acknowledged)


def test_a_session_ends_with_its_client_gone_and_its_time_over(
    world: World, start: Callable[..., Client]
) -> None:
    client = start(SSH, portNumber=str(world.echo.port))
    client.wait_complete()
    client.send(b"x")
    client.wait_output(b"x")
    client.close()
    session = world.stack.service.sessions[client.id]
    until(lambda: session.client is None)
    assert world.echo.open == 1  # as long as nobody ends it
    world.stack.call("TerminateSession", SessionId=client.id)
    until(lambda: not world.echo.open)


def test_a_port_where_nothing_listens_fails_after_the_handshake(start: Callable[..., Client]) -> None:
    client = start(SSH, portNumber=closed_port())
    assert "Unable to connect to specified port: dial tcp" in client.wait_closed()
    assert client.complete is not None


def test_the_disconnect_flag_closes_the_connection(world: World, start: Callable[..., Client]) -> None:
    client = start(SSH, portNumber=str(world.echo.port))
    client.wait_complete()
    client.send(b"x")
    client.wait_output(b"x")
    client.flag(1)
    client.wait_closed()
    until(lambda: not world.echo.open)


@pytest.mark.parametrize("side", ["agent", "client"])
def test_a_cut_costs_no_byte(world: World, start: Callable[..., Client], side: str) -> None:
    client = start(SSH, portNumber=str(world.echo.port))
    client.wait_complete()
    sent = b""
    for number in range(3):
        piece = os.urandom(5000)
        client.send(piece)
        sent += piece
        client.wait_output(piece[-16:])
        world.stack.do(world.stack.service.drop(side, client.id))
        if side == "client":
            client.resume(world.stack.call("ResumeSession", SessionId=client.id))
        else:
            until(lambda number=number: opened(world, client) == number + 2)
    client.send(b"the end")
    client.wait_output(b"the end")
    assert client.output == sent + b"the end"


def test_a_data_channel_that_cannot_be_opened_again_ends_the_session(
    world: World, start: Callable[..., Client]
) -> None:
    client = start(SSH, portNumber=str(world.echo.port))
    client.wait_complete()
    fault = world.stack.service.faults.add(Fault("ssmmessages:CreateDataChannel", "Odd", "not today", 500))
    try:
        world.stack.do(world.stack.service.drop("agent", client.id))
        assert "no other can be opened: 500" in client.wait_closed()
    finally:
        world.stack.service.faults.remove(fault.id)


def test_a_pause_holds_the_output_until_the_client_is_back(
    world: World, start: Callable[..., Client]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = start(SSH, portNumber=str(listener.getsockname()[1]))
        client.wait_complete()
        connection, _ = listener.accept()
        with connection:
            client.close()
            session = world.stack.service.sessions[client.id]
            until(lambda: session.paused, what="the pause")
            received = session.received
            connection.sendall(b"said meanwhile")
            client.resume(world.stack.call("ResumeSession", SessionId=client.id))
            client.wait_output(b"said meanwhile")
            assert session.received > received


def test_what_is_no_message_closes_the_channel_with_a_reason(
    world: World, start: Callable[..., Client]
) -> None:
    """The service passes on what its look at the frame cannot tell from a message."""
    client = start(SSH, portNumber=str(world.echo.port))
    client.wait_complete()
    damaged = bytearray(Message.new(MessageType.INPUT, b"damaged", payload_type=1, sequence=1).encode())
    damaged[-1] ^= 1  # the digest is the agent's to check
    client.put(bytes(damaged))
    until(lambda: opened(world, client) == 2, what="another data channel")
    client.send(b"whole")
    assert client.wait_output(b"whole") == b"whole"
    for _ in range(5):
        before = opened(world, client)
        client.put(bytes(damaged))
        until(lambda before=before: opened(world, client) > before or client.closed is not None)
    assert "does not speak the protocol" in client.wait_closed()


# Many connections.


class Mux:
    """The client's side of smux, as far as a test needs it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.streams: dict[int, bytes] = {}
        self.finished: list[int] = []
        self._rest = b""
        client.on_output = self._take

    def _take(self, data: bytes) -> None:
        self._rest += data
        while len(self._rest) >= HEADER.size:
            version, command, length, stream = HEADER.unpack_from(self._rest)
            if len(self._rest) < HEADER.size + length:
                return
            assert version == 1
            payload, self._rest = (
                self._rest[HEADER.size : HEADER.size + length],
                self._rest[HEADER.size + length :],
            )
            if command == PSH:
                self.streams[stream] = self.streams.get(stream, b"") + payload
            elif command == FIN:
                self.finished.append(stream)

    def frame(self, command: int, stream: int, payload: bytes = b"") -> None:
        data = HEADER.pack(1, command, len(payload), stream) + payload
        for start in range(0, len(data), 1024):
            self.client.send(data[start : start + 1024])


def test_streams_are_connections_of_their_own(world: World, start: Callable[..., Client]) -> None:
    client = start(FORWARD, portNumber=str(world.echo.port))
    assert client.wait_complete()
    mux = Mux(client)
    mux.frame(NOP, 0)
    for stream in (3, 5, 7):
        mux.frame(SYN, stream)
        mux.frame(PSH, stream, b"%d" % stream * 3000)
    until(lambda: mux.streams == {stream: b"%d" % stream * 3000 for stream in (3, 5, 7)}, seconds=LIMIT)
    assert world.echo.open == 3
    mux.frame(FIN, 5)
    until(lambda: world.echo.open == 2)
    mux.frame(PSH, 5, b"too late")
    mux.frame(PSH, 7, b"more")
    until(lambda: mux.streams[7].endswith(b"more"))
    assert mux.streams[5] == b"5" * 3000
    client.flag(2)
    client.wait_closed()
    until(lambda: not world.echo.open)


def test_a_stream_whose_connection_ends_is_finished(start: Callable[..., Client]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = start(FORWARD, portNumber=str(listener.getsockname()[1]))
        client.wait_complete()
        mux = Mux(client)
        mux.frame(SYN, 3)
        connection, _ = listener.accept()
        connection.sendall(b"bye")
        connection.close()
        until(lambda: mux.finished == [3])
        assert mux.streams[3] == b"bye"


def test_a_stream_without_a_destination_is_told_by_a_flag(start: Callable[..., Client]) -> None:
    client = start(FORWARD, portNumber=closed_port())
    client.wait_complete()
    mux = Mux(client)
    mux.frame(SYN, 3)
    until(lambda: client.flags == [3])
    until(lambda: mux.finished == [3])
    mux.frame(SYN, 5)  # and the session goes on
    until(lambda: mux.finished == [3, 5])


def test_what_is_no_smux_ends_the_session(world: World, start: Callable[..., Client]) -> None:
    client = start(FORWARD, portNumber=str(world.echo.port))
    client.wait_complete()
    client.send(b"GET / HTTP/1.1\r\n")
    assert "invalid protocol" in client.wait_closed()


def test_an_old_client_has_one_connection_at_a_time(world: World, start: Callable[..., Client]) -> None:
    client = start(FORWARD, {"version": "1.1.69.0"}, portNumber=str(world.echo.port))
    client.wait_complete()
    for number in range(2):
        client.send(b"raw%d" % number)
        client.wait_output(b"raw%d" % number)
        client.flag(1)
        until(lambda: not world.echo.open)
    assert len(world.echo.connections) >= 2


def test_a_slow_destination_loses_nothing(start: Callable[..., Client]) -> None:
    sent = os.urandom(6 * 1024 * 1024)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = start(FORWARD, portNumber=str(listener.getsockname()[1]))
        client.wait_complete()
        mux = Mux(client)
        mux.frame(SYN, 3)
        connection, _ = listener.accept()

        def send() -> None:
            for begin in range(0, len(sent), 32768):
                until(lambda: len(client._unacknowledged) < 200, seconds=LIMIT)
                mux.frame(PSH, 3, sent[begin : begin + 32768])

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        # More waits now than the agent has room for: it refuses, and is sent it again.
        until(lambda: len(client._unacknowledged) >= 200, seconds=LIMIT)
        received = bytearray()
        connection.settimeout(LIMIT)
        while len(received) < len(sent):
            if client._unacknowledged:
                client.resend()
            received += connection.recv(1 << 20)
        assert received == sent
        sender.join(LIMIT)
        connection.close()


def test_what_came_early_is_not_forgotten_by_a_slow_destination(start: Callable[..., Client]) -> None:
    """Once it is acknowledged nobody sends it again: after a cut, most of what is under way comes early."""
    pieces = [os.urandom(65536) for _ in range(200)]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = start(SSH, portNumber=str(listener.getsockname()[1]))
        client.wait_complete()
        connection, _ = listener.accept()
        frames = [
            Message.new(MessageType.INPUT, piece, payload_type=1, sequence=number).encode()
            for number, piece in enumerate(pieces, 1)
        ]
        for frame in frames[1:]:
            client.put(frame)
        until(lambda: len(pieces) in client.acknowledged, seconds=LIMIT)
        client.put(frames[0])
        until(lambda: 1 in client.acknowledged, seconds=LIMIT)
        connection.settimeout(LIMIT)
        received = bytearray()
        while len(received) < sum(map(len, pieces)):
            received += connection.recv(1 << 20)
        assert received == b"".join(pieces)
        connection.close()


# Other hosts.


def test_another_host_is_reached_by_name(world: World, start: Callable[..., Client]) -> None:
    client = start(REMOTE, host="localhost", portNumber=str(world.echo.port))
    client.wait_complete()
    mux = Mux(client)
    mux.frame(SYN, 3)
    mux.frame(PSH, 3, b"remote")
    until(lambda: mux.streams.get(3) == b"remote")


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "169.254.169.253", "fd00:ec2::254", "fd00:0ec2:0::0254", "::ffff:169.254.169.254"],
)
def test_metadata_and_its_like_are_forbidden(start: Callable[..., Client], host: str) -> None:
    client = start(REMOTE, host=host, portNumber="80")
    assert client.wait_closed() == f"Forwarding to IP address {host} is forbidden."


def test_a_name_that_is_not_known_fails_each_stream(start: Callable[..., Client]) -> None:
    client = start(REMOTE, host="no-such-host.invalid", portNumber="80")
    client.wait_complete()
    mux = Mux(client)
    mux.frame(SYN, 3)
    until(lambda: client.flags == [3])


# Shells.


def test_a_shell_has_no_handshake_a_terminal_and_a_size(start: Callable[..., Client]) -> None:
    client = start()
    client.size(101, 37)
    client.send(b"stty size; tty; echo $TERM\n")
    output = client.wait_output(b"xterm-256color\r\n")
    assert b"37 101\r\n" in output
    assert b"/dev/pts/" in output
    assert client.request is None
    client.size(80, 25)
    client.send(b"stty size\n")
    client.wait_output(b"25 80\r\n")
    client.send(b"exit\n")
    assert client.wait_closed() == ""


def test_ctrl_c_reaches_what_runs_in_the_shell(start: Callable[..., Client]) -> None:
    client = start()
    client.send(b"cat\n")
    client.send(b"meow\n")
    client.wait(lambda: client.output.count(b"meow") == 2, "cat's answer")
    client.send(b"\x03")
    client.wait(lambda: client.output[-2:] in (b"# ", b"$ "), "the prompt, again")
    client.send(b"echo still-$((40 + 2))\n")
    client.wait_output(b"still-42")


def test_terminating_a_shell_ends_what_runs_in_it(world: World, start: Callable[..., Client]) -> None:
    client = start()
    client.send(b"echo pid-$$-dip; exec sleep 1000\n")
    found = client.wait(lambda: re.search(rb"pid-(\d+)-dip", client.output), "the shell's pid")
    pid = int(found[1])
    world.stack.call("TerminateSession", SessionId=client.id)
    until(lambda: not os.path.exists(f"/proc/{pid}"), what="the end of the shell")


def test_the_shell_profile_runs_first(start: Callable[..., Client], preferences: Callable[..., None]) -> None:
    preferences(shellProfile={"linux": "GREETING=from-the-profile"})
    client = start()
    client.send(b"echo [$GREETING]\n")
    client.wait_output(b"[from-the-profile]")


def test_characters_are_not_cut_in_two(start: Callable[..., Client]) -> None:
    text = "\u20ac\u00e4\U0001f600" * 2000
    client = start(INTERACTIVE, command="python3 -c \"print('\u20ac\u00e4\U0001f600' * 2000)\"")
    assert client.wait_closed() == ""
    assert client.output.decode().strip() == text
    for message in client.messages:
        if message.payload_type == PayloadType.OUTPUT and message.type == MessageType.OUTPUT:
            message.payload.decode()


def test_a_user_that_is_not_there_is_named(
    start: Callable[..., Client], preferences: Callable[..., None]
) -> None:
    preferences(runAsEnabled=True, runAsDefaultUser="no-such-user")
    said = start().wait_closed()
    assert "RunAs user no-such-user does not exist" in said or "must run as root" in said


# Commands.


def test_an_interactive_command_runs_in_a_terminal_by_a_shell(start: Callable[..., Client]) -> None:
    client = start(INTERACTIVE, command="test -t 0 && echo in-a-terminal; read name; echo hello $name")
    client.wait_output(b"in-a-terminal")
    client.send(b"you\n")
    assert client.wait_closed() == ""
    assert client.output.endswith(b"hello you\r\n")


def test_a_command_without_a_terminal_sends_its_output_at_its_end(start: Callable[..., Client]) -> None:
    script = "import sys; print('out', flush=True); print('err', file=sys.stderr); print('é' * 3000)"
    client = start(COMMAND, command=shlex.join(["python3", "-c", script]))
    assert client.wait_closed() == ""
    assert client.output.decode() == "out\nerr\n" + "é" * 3000 + "\n"
    assert client.complete is not None
    assert client.exit_code == b""


def test_a_command_is_ended_by_ctrl_c(start: Callable[..., Client]) -> None:
    client = start(COMMAND, command="sleep 1000")
    client.wait_complete()
    client.send(b"no signal")
    client.send(b"\x03")
    assert client.wait_closed() == ""
    assert client.output == b""


def test_separate_outputs_come_with_their_prefixes_and_the_exit_status(
    world: World, start: Callable[..., Client]
) -> None:
    script = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(7)"
    content = {
        "schemaVersion": "1.0",
        "sessionType": "NonInteractiveCommands",
        "properties": {
            "linux": {
                "commands": shlex.join(["python3", "-c", script]),
                "separateOutputStream": "true",
                "stdOutSeparatorPrefix": "OUT:",
                "stdErrSeparatorPrefix": "ERR:",
            }
        },
    }
    call = world.stack.call
    call("CreateDocument", Name="Separate", DocumentType="Session", Content=json.dumps(content))
    try:
        client = start("Separate")
        assert client.wait_closed() == ""
    finally:
        call("DeleteDocument", Name="Separate")
    assert (client.output, client.errors, client.exit_code) == (b"OUT:one\n", b"ERR:two\n", b"EXIT_CODE: 7")


@pytest.mark.parametrize(
    ("document", "command", "words"),
    [
        (COMMAND, "no-such-program --at-all", "no-such-program"),
        (COMMAND, "'no end of the quote", "No closing quotation"),
        (COMMAND, "   ", "Commands cannot be empty for session type NonInteractiveCommands"),
        (INTERACTIVE, " ", "Commands cannot be empty for session type InteractiveCommands"),
    ],
)
def test_a_command_that_does_not_start_is_explained(
    start: Callable[..., Client], document: str, command: str, words: str
) -> None:
    client = start(document, command=command)
    assert words in client.wait_closed()


# What the service asks for, and the agent does not do.


@pytest.mark.parametrize(
    ("document", "parameters", "words"),
    [
        ({"sessionType": "Telepathy"}, {}, "Plugin with name Telepathy is not supported"),
        ({"schemaVersion": "2.0"}, {}, "schema version 2.0 is not supported"),
        ({}, {"portNumber": ["22"]}, "json: cannot unmarshal array into Go struct field portNumber"),
        ({}, {"portNumber": "ssh"}, "invalid port"),
        ({"properties": {}}, {}, "Port number is empty"),
        ("no document", {}, "cannot be read"),
    ],
)
def test_what_cannot_be_served_fails_with_the_reason(
    world: World, document: Any, parameters: dict[str, Any], words: str
) -> None:
    service = world.stack.service
    session = Session(f"test-{uuid.uuid4()}", world.node, SSH, "o", "", time.time(), time.monotonic())
    service.channels.sessions[session.id] = service.channels.active[session.id] = session
    whole = {**service.documents.content_of(SSH), **document} if isinstance(document, dict) else document
    content = {"SessionId": session.id, "DocumentContent": whole, "Parameters": parameters}
    control = service.channels.control[world.node]
    for body in (
        {},
        {"Content": "[]"},
        {"Content": json.dumps({"SessionId": "../../etc/passwd"})},
        {"Content": json.dumps(content), "TaskId": session.id, "Topic": "t", "SchemaVersion": 1},
    ):
        world.stack.do(control.say(Message.of(MessageType.INTERACTIVE_SHELL, body)))
    world.stack.do(control.say(Message.of("from_the_future", {})))
    client = Client(service._stream(session))
    assert words in client.wait_closed()
    client.close()


def test_what_is_not_a_flag_or_a_size_is_ignored(start: Callable[..., Client]) -> None:
    client = start()
    client.send(b"\x00", PayloadType.FLAG)
    client.send(b"[[[", PayloadType.SIZE)
    client.send(struct.pack(">I", 99), PayloadType.FLAG)
    client.send_json({"cols": 10**9, "rows": "x"}, PayloadType.SIZE)
    client.send(b"x", 77)
    client.send(b"echo on-it-goes\n")
    client.wait_output(b"on-it-goes\r\n")
