"""Malformed frames against client, service and fake agent: no crash, no hang, no growth.

`make test-fuzz` sends a million; by default it is a few thousand. SMSSH_TEST_SEED repeats a run's choices.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import threading
import time
import urllib.request
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from smssh_plugin.errors import SmsshError
from smssh_plugin.session.wire import channel as channels
from smssh_plugin.session.wire.channel import COMMANDS, PORT, SHELL, ClientChannel, Opening
from smssh_plugin.session.wire.encryption import DataKey
from smssh_plugin.session.wire.websocket import WebSocket, WebSocketClosedError, WebSocketRefusedError
from tests.waiting import until

from .malformed import malformed
from .support import EchoServer, Stack, closing, proxy, read_exactly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import World

FRAMES = int(os.environ.get("SMSSH_TEST_FRAMES", "6000"))
"""A third of them for each of the three."""
GROWTH = 32 * 1024 * 1024
"""Bytes that a process may have grown by in the end: an allocator keeps some."""

pytestmark = pytest.mark.timeout(120 + FRAMES // 200)


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("SMSSH_TEST_SEED", random.SystemRandom().randrange(2**32)))
    print(f"SMSSH_TEST_SEED={seed}")
    return random.Random(seed)


class Wire:
    """What a channel sees of a websocket, without one: the frames come from here."""

    def __init__(self) -> None:
        self.last_received = time.monotonic()
        self.pending = 0
        self.arrived: deque[bytes] = deque()

    def receive(self) -> list[bytes]:
        return [self.arrived.popleft()] if self.arrived else []

    def nothing(self, *_: Any) -> None:
        pass

    send_binary = send_text = ping = flush = close = abort = nothing


def fed(channel: channels.Channel, wire: Wire, chance: random.Random, frames: int) -> int:
    """Give a channel up to so many frames; answers how many it took before it was over."""
    for number in range(frames):
        wire.arrived.append(malformed(chance))
        try:
            channel.receive(time.monotonic())
            channel.tick(time.monotonic())
            if channel.ready and channel.stream.window and chance.random() < 0.1:
                channel.send(b"x", time.monotonic())
        except SmsshError:
            return number + 1
        if channel.closed is not None:
            return number + 1
    return frames


def settled(run: Any, frames: int) -> None:
    """Run in two halves: the second must not need more memory than the first has left."""
    run(frames // 2)
    before = psutil.Process().memory_info().rss
    run(frames // 2)
    assert psutil.Process().memory_info().rss - before < GROWTH


def test_the_client_survives(chance: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire()
    monkeypatch.setattr(channels, "open_websocket", lambda *_, **__: wire)
    opening = Opening("s", "t", "ws://nowhere")
    key = DataKey(os.urandom(64), b"encrypted")

    def run(frames: int) -> None:
        while frames > 0:
            wire.arrived.clear()
            channel = ClientChannel(
                opening, resume=lambda: opening, kinds=(PORT, SHELL, COMMANDS), data_key=lambda _name: key
            )
            # Some begin where the handshake is over.
            channel.ready = chance.random() < 0.5
            frames -= fed(channel, wire, chance, frames)

    settled(run, FRAMES // 3)


def flood(
    stack: Stack, path: str, hello: dict[str, str], chance: random.Random, frames: int, **more: Any
) -> int:
    """Send up to so many frames on a channel; answers how many were sent before it was closed."""
    with connect(f"ws{stack.url[4:]}{path}", compression=None, max_size=None, **more) as connection:
        connection.send(json.dumps({"MessageSchemaVersion": "1.0", "RequestId": "r", **hello}))
        reader = threading.Thread(target=lambda: deque(read(connection), maxlen=0))
        reader.start()
        sent = 0
        with suppress(ConnectionClosed):
            while sent < frames:
                connection.send(malformed(chance))
                sent += 1
        connection.close()
        reader.join(30)
    return sent


def read(connection: ClientConnection) -> Iterator[object]:
    with suppress(ConnectionClosed, OSError):
        yield from connection


def start(stack: Stack, target: str, port: int) -> dict[str, Any]:
    return stack.call(
        "StartSession",
        Target=target,
        DocumentName="AWS-StartSSHSession",
        Parameters={"portNumber": [str(port)]},
    )


def test_the_service_survives_its_agents(stack: Stack, chance: random.Random) -> None:
    """Over real websockets, on control and data channels of a node."""
    activation = stack.call("CreateActivation", IamRole="role")
    node = stack.call(
        "RegisterManagedInstance",
        ActivationId=activation["ActivationId"],
        ActivationCode=activation["ActivationCode"],
        PublicKey="key",
        Fingerprint="print",
    )["InstanceId"]
    token = stack.call("RequestManagedInstanceRoleToken", node, Fingerprint="print")
    signed = {"Authorization": f"AWS4-HMAC-SHA256 Credential={token['AccessKeyId']}/x"}

    def channel(path: str) -> str:
        request = urllib.request.Request(f"{stack.url}{path}", b"{}", signed, method="POST")
        with urllib.request.urlopen(request) as answer:
            return re.search("<TokenValue>(.*)</TokenValue>", answer.read().decode()).group(1)  # type: ignore[union-attr]

    def run(frames: int) -> None:
        while frames > 0:
            path = f"/v1/control-channel/{node}"
            hello = {"TokenValue": channel(path)}
            with connect(f"ws{stack.url[4:]}{path}", compression=None, additional_headers=signed) as control:
                control.send(json.dumps(hello))
                until(lambda: stack.call("GetConnectionStatus", Target=node)["Status"] == "connected")
                session = start(stack, node, 22)["SessionId"]
                path = f"/v1/data-channel/{session}"
                hello = {"TokenValue": channel(path)}
                frames -= flood(stack, path, hello, chance, min(frames, 5000), additional_headers=signed)
            path = f"/v1/control-channel/{node}"
            hello = {"TokenValue": channel(path)}
            frames -= flood(stack, path, hello, chance, min(frames, 5000), additional_headers=signed)
            stack.call("TerminateSession", SessionId=session)

    settled(run, FRAMES // 3)
    assert stack.call("DescribeSessions", State="Active")["Sessions"] == []


def test_the_service_and_the_agents_process_survive_a_client(world: World, chance: random.Random) -> None:
    """Over real websockets: the service passes on to the agent what looks like input."""
    assert world.agent.process is not None
    agent = psutil.Process(world.agent.process.pid)

    def run(frames: int) -> None:
        while frames > 0:  # an agent ends a session that does not keep to the protocol
            answer = start(world.stack, world.node, echo.port)
            path = f"/v1/data-channel/{answer['SessionId']}?role=publish_subscribe"
            hello = {"TokenValue": answer["TokenValue"], "ClientId": "c"}
            frames -= max(1, flood(world.stack, path, hello, chance, min(frames, 2000)))
            world.stack.call("TerminateSession", SessionId=answer["SessionId"])

    with closing(EchoServer()) as echo:
        run(FRAMES // 6)
        before = agent.memory_info().rss
        run(FRAMES // 6)
        assert agent.memory_info().rss - before < GROWTH
        # All is as before: a session works from end to end, and nothing is left of the others.
        process = proxy(world.stack, world.node, echo.port)
        assert process.stdin is not None
        process.stdin.write(b"still here")
        assert read_exactly(process, 10) == b"still here"
        process.stdin.close()
        assert process.wait(20) == 0
        until(lambda: not world.stack.service.active_sessions, what="the end of all sessions")
        until(lambda: not echo.open, what="the end of all connections")


def test_bytes_that_are_no_websocket_end_in_an_error(chance: random.Random) -> None:
    """Before, in and after the upgrade: the client's own side of the connection."""
    rounds = min(FRAMES // 60, 2000)
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            for _ in range(rounds):
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    request = connection.recv(4096)
                    answer = chance.randbytes(chance.randrange(300))
                    way = chance.random()
                    if way < 0.3:
                        answer = head + b"Sec-WebSocket-Accept: wrong\r\n\r\n" + answer
                    elif way < 0.8:
                        answer = head + accept(request) + answer
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        for _ in range(rounds):
            try:
                made = WebSocket(f"ws://127.0.0.1:{port}/", timeout=5)
            except WebSocketRefusedError:
                continue
            with pytest.raises(WebSocketClosedError):  # noqa: PT012 - however many reads it takes
                while True:
                    made.receive()
                    made.flush()
                    time.sleep(0.001)
            made.close()
        thread.join(20)


def accept(request: bytes) -> bytes:
    """The header by which a server shows that it has understood a websocket upgrade (RFC 6455, 4.2.2)."""
    import base64
    import hashlib

    key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
    digest = hashlib.sha1(key.split(b":")[1].strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
