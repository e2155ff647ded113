"""What a client sends first: an agent says that the handshake is complete before it takes input.

Until it does, the real one acknowledges input and throws it away (`PerformHandshake` and `processStreamDataMessage`
in its datachannel.go). The fake agent has that moment too, as long as a test wants it.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from smssh_plugin.session.mux_pump import MuxPump
from smssh_plugin.session.pump import Pump
from smssh_plugin.session.wire import channel as channels
from smssh_plugin.session.wire.channel import ClientChannel
from smssh_plugin.session.wire.frames import Message, MessageType, PayloadType
from tests.session.wire.test_smux import FORWARDING

from .peer import PORT, Peer, Pipes, scripted
from .support import Agent, EchoServer, LoopbackServer, Sshd, Stack, proxy_command
from .test_kinds import Forward, echoed, run_shell

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

TIMES = 12
LONG = 0.15
"""Seconds: longer than anything takes here, shorter than a client waits for a sign of the agent."""


class Slow:
    """A world whose agent is slow to take input."""

    def __init__(self, stack: Stack, agent: Agent) -> None:
        self.stack = stack
        self.node = agent.node


@pytest.fixture
def slow(stack: Stack, new_agent: Callable[..., Agent]) -> Slow:
    agent = new_agent(faults={"HandshakeWindowSeconds": LONG})
    agent.register()
    agent.start()
    agent.wait_connected()
    return Slow(stack, agent)


@pytest.mark.e2e
@pytest.mark.parametrize("document", ["AWS-StartSSHSession", "AWS-StartPortForwardingSession"])
def test_ssh(slow: Slow, sshd: Sshd, document: str) -> None:
    only = f"import smssh_plugin.session.proxy as p; p.SSH_DOCUMENT = {document!r}; "
    command = proxy_command(slow.node, sshd.port)
    command[2] = only + command[2]
    done = [
        subprocess.run(
            ["ssh", *sshd.options(command), "job", "exit 7"],
            env=slow.stack.environment,
            capture_output=True,
            timeout=60,
            check=False,
        ).returncode
        for _ in range(TIMES)
    ]
    assert done == [7] * TIMES


class Answering(LoopbackServer):
    """A server that says nothing before it is asked, like one of HTTP."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        super().__init__()

    def serve(self, connection: socket.socket) -> None:
        with connection:
            request = b""
            while b"\n\n" not in request and (data := connection.recv(4096)):
                request += data
            self.asked.append(request)
            connection.sendall(b"answer to " + request)


@pytest.mark.e2e
def test_a_forward_to_a_server_that_speaks_second(slow: Slow) -> None:
    server = Answering()
    try:
        for number in range(TIMES):
            forward = Forward(slow, server.port)  # type: ignore[arg-type]
            with forward.connect() as connection:
                asked = b"GET /%d\n\n" % number
                connection.sendall(asked)
                got = b""
                while data := connection.recv(4096):
                    got += data
            assert got == b"answer to " + asked
            assert forward.end() == 0
            forward.process.communicate()
        assert server.asked == [b"GET /%d\n\n" % number for number in range(TIMES)]
    finally:
        server.close()


@pytest.mark.e2e
def test_a_forward_for_several_who_connect_at_once(slow: Slow, echo: EchoServer) -> None:
    forward = Forward(slow, echo.port)  # type: ignore[arg-type]
    data = [os.urandom(5000) for _ in range(4)]
    connections = [forward.connect() for _ in data]
    assert [echoed(*pair) for pair in zip(connections, data, strict=True)] == data
    for connection in connections:
        connection.close()
    assert len(echo.connections) == len(data)
    assert forward.end() == 0
    forward.process.communicate()


@pytest.mark.e2e
def test_what_is_typed_into_a_shell(slow: Slow) -> None:
    for _ in range(TIMES // 4):
        done = run_shell(slow.stack, slow.node, typed=b"echo $((6 * 7))-seen; exit\n")
        assert b"42-seen" in done.stdout
        assert done.returncode == 0, done.stderr


def acknowledged(peer: Peer, seconds: float) -> set[int]:
    """The numbers of ours that the client acknowledges within that time; fails where it sends input."""
    numbers: set[int] = set()
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            message = Message.decode(peer.socket.recv(timeout=left, decode=False))
        except TimeoutError:
            break
        assert message.type == MessageType.ACKNOWLEDGE, message
        numbers.add(message.json()["AcknowledgedMessageSequenceNumber"])
    return numbers


@contextmanager
def pumping(opening: Any) -> Iterator[None]:
    """A client in a thread that has something to say from the start."""
    pipes = Pipes()
    os.write(pipes.writer, b"the first bytes")
    channel = ClientChannel(opening, resume=lambda: opening)

    def run() -> None:
        Pump(channel, pipes.source, pipes.sink).run()
        channel.close()

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join(20)
    assert not thread.is_alive()
    pipes.close()


@pytest.mark.parametrize("sign", ["output", "again"])
def test_input_waits_for_a_sign_of_the_agent(monkeypatch: pytest.MonkeyPatch, sign: str) -> None:
    monkeypatch.setattr(channels, "SETTLE_SECONDS", 60.0)

    def script(peer: Peer) -> None:
        peer.handshake(PORT)
        peer.complete()
        assert acknowledged(peer, 0.3) == set()
        if sign == "output":
            peer.send(b"SSH-2.0-x\r\n")
        else:
            peer.sequence = 1
            peer.complete()
        assert peer.receive().payload == b"the first bytes"
        peer.close_channel()

    with scripted(script) as opening, pumping(opening):
        pass


def test_input_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "SETTLE_SECONDS", 0.2)

    def script(peer: Peer) -> None:
        peer.handshake(PORT)
        peer.complete()
        numbers: set[int] = set()
        while (
            message := Message.decode(peer.socket.recv(timeout=10, decode=False))
        ).type != MessageType.INPUT:
            numbers.add(message.json()["AcknowledgedMessageSequenceNumber"])
        assert message.payload == b"the first bytes"
        assert numbers == {1}
        peer.close_channel()

    with scripted(script) as opening, pumping(opening):
        pass


def answer_to_hello(script: Callable[[Peer], None]) -> bytes:
    """What comes back when a connection begins with `hello`."""
    with scripted(script) as opening:
        pipes = Pipes()
        channel = ClientChannel(opening, resume=lambda: opening)
        os.write(pipes.writer, b"hello")
        MuxPump(channel, pipes.source, pipes.sink).run()
        channel.close()
        os.set_blocking(pipes.reader, False)
        try:
            return os.read(pipes.reader, 10)
        except BlockingIOError:
            return b""
        finally:
            pipes.close()


def test_a_connection_is_told_of_at_once_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that speaks first is heard without delay; data waits until the agent is sure to take it."""
    monkeypatch.setattr(channels, "SETTLE_SECONDS", 60.0)
    syn = b"\x01\x00\x00\x00\x03\x00\x00\x00"

    def script(peer: Peer) -> None:
        peer.handshake(FORWARDING)
        peer.complete()
        assert peer.receive().payload == syn
        assert acknowledged(peer, 0.3) == set()
        peer.sequence = 1
        peer.complete()
        frames = b""
        while len(frames) < 16 + 5:
            frames += peer.receive().payload
        assert frames == syn + b"\x01\x02\x05\x00\x03\x00\x00\x00hello"
        peer.close_channel()

    assert answer_to_hello(script) == b""


def test_a_connection_that_was_answered_is_not_told_of_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It might be over there already: a second SYN would make another connection to the port."""
    monkeypatch.setattr(channels, "SETTLE_SECONDS", 60.0)

    def script(peer: Peer) -> None:
        peer.handshake(FORWARDING)
        peer.complete()
        peer.receive()
        peer.send(b"\x01\x02\x02\x00\x03\x00\x00\x00hi")
        assert peer.receive().payload == b"\x01\x02\x05\x00\x03\x00\x00\x00hello"
        peer.close_channel()

    assert answer_to_hello(script) == b"hi"


def test_a_shell_is_told_its_size_when_it_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "SETTLE_SECONDS", 60.0)
    kinds = (channels.SHELL,)
    action = {
        "ActionType": "SessionType",
        "ActionParameters": {"SessionType": channels.SHELL, "Properties": {}},
    }

    def script(peer: Peer) -> None:
        peer.handshake(action)
        peer.complete()
        assert acknowledged(peer, 0.3) == set()
        peer.send(b"$ ")
        message = peer.receive()
        assert message.payload_type == PayloadType.SIZE
        peer.close_channel()

    with scripted(script) as opening:
        pipes = Pipes()
        channel = ClientChannel(opening, resume=lambda: opening, kinds=kinds)
        sized: list[bool] = []

        def turn(now: float) -> None:
            if channel.settled and not sized:
                sized.append(True)
                channel.resize(80, 24, now)

        Pump(channel, pipes.source, pipes.sink, turn=turn).run()
        channel.close()
        pipes.close()
