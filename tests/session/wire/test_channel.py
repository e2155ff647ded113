"""The client's channel against a peer that follows a script, over a real websocket."""

from __future__ import annotations

import base64
import os
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from botocore.credentials import ReadOnlyCredentials
from websockets.exceptions import ConnectionClosed

from smssh_plugin.errors import ExitStatus, SmsshError
from smssh_plugin.session import loop as loops
from smssh_plugin.session.loop import Ending
from smssh_plugin.session.pump import Pump
from smssh_plugin.session.shell import Escape
from smssh_plugin.session.wire import channel as channels
from smssh_plugin.session.wire import stream as streams
from smssh_plugin.session.wire import websocket as websockets
from smssh_plugin.session.wire.channel import SHELL, ClientChannel, Opening, _newer, signed_headers
from smssh_plugin.session.wire.client_version import CLIENT_VERSION
from smssh_plugin.session.wire.encryption import DataKey, Encryption
from smssh_plugin.session.wire.frames import Flag, Message, MessageType, PayloadType
from tests.session.peer import Clock, Peer, Pipes, scripted
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    made = Pipes()
    yield made
    made.close()


def never() -> Opening:
    raise AssertionError("nothing was cut")


def pump(opening: Opening, pipes: Pipes, **options: Any) -> tuple[Ending, ClientChannel]:
    channel = ClientChannel(opening, resume=options.pop("resume", never), **options)
    try:
        return Pump(channel, pipes.source, pipes.sink).run(), channel
    finally:
        channel.close()


def test_the_first_message_is_text_with_the_token_and_the_version(pipes: Pipes) -> None:
    def script(peer: Peer) -> None:
        assert peer.hello["TokenValue"] == "token"
        assert peer.hello["MessageSchemaVersion"] == "1.0"
        assert peer.hello["ClientVersion"] == CLIENT_VERSION
        assert peer.hello["RequestId"]
        assert peer.hello["ClientId"]
        peer.close_channel()

    with scripted(script) as opening:
        assert pump(opening, pipes)[0] is Ending.CLOSED


def test_nothing_is_output_before_the_handshake_is_complete(pipes: Pipes) -> None:
    """The agent acknowledges such output and throws it away: an SSH banner would be lost."""
    os.write(pipes.writer, b"SSH-2.0-banner\r\n")

    def script(peer: Peer) -> None:
        response = peer.handshake()
        assert response["ProcessedClientActions"] == [
            {"ActionType": "SessionType", "ActionStatus": 1, "ActionResult": None, "Error": ""}
        ]
        assert response["Errors"] is None
        peer.hears_no_input()
        peer.complete()
        first = peer.receive()
        assert (first.payload, first.payload_type, first.sequence) == (b"SSH-2.0-banner\r\n", 1, 1)
        peer.send(b"welcome")
        peer.close_channel()

    with scripted(script) as opening:
        ending, channel = pump(opening, pipes)
    assert ending is Ending.CLOSED
    assert channel.customer_message == "be kind"
    assert os.read(pipes.reader, 100) == b"welcome"


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ({"ActionType": "KMSEncryption", "ActionParameters": {"KMSKeyId": "k"}}, "KMS"),
        (
            {"ActionType": "SessionType", "ActionParameters": {"SessionType": "Standard_Stream"}},
            "Standard_Stream",
        ),
        ({"ActionType": "SessionType", "ActionParameters": ["Port"]}, "session of type None"),
        ({"ActionType": "Dance"}, "Dance"),
    ],
)
def test_what_we_cannot_do_is_refused_on_both_sides(pipes: Pipes, action: dict[str, Any], words: str) -> None:
    def script(peer: Peer) -> None:
        response = peer.handshake(action)
        assert [one["ActionStatus"] for one in response["ProcessedClientActions"]] == [3]
        assert words in response["Errors"][0]

    with scripted(script) as opening, pytest.raises(SmsshError, match=words) as caught:
        pump(opening, pipes)
    assert caught.value.reference == "session-unsupported"


def test_an_old_agent_without_multiplexing_is_refused_and_named(pipes: Pipes) -> None:
    forwarding = {
        "ActionType": "SessionType",
        "ActionParameters": {"SessionType": "Port", "Properties": {"type": "LocalPortForwarding"}},
    }

    def script(peer: Peer) -> None:
        peer.send_json({"AgentVersion": "3.0.196.0", "RequestedClientActions": [forwarding]}, 5)
        assert peer.receive().json()["ProcessedClientActions"][0]["ActionStatus"] == 3

    with scripted(script) as opening, pytest.raises(SmsshError, match=r"of version 3\.0\.196\.0"):
        pump(opening, pipes)


@pytest.mark.parametrize("version", ["9" * 5000, "\u00b2.\u00b2", "3.3.987.0-beta", ""])
def test_an_agent_of_an_odd_version_is_taken_for_a_new_one(version: str) -> None:
    """What it says of itself can be anything, and Python makes no number of 5,000 digits."""
    assert _newer(version, (3, 1))


ENCRYPTED = {"ActionType": "KMSEncryption", "ActionParameters": {"KMSKeyId": "arn:key"}}
STREAM = {"ActionType": "SessionType", "ActionParameters": {"SessionType": SHELL, "Properties": {}}}


def test_a_session_is_encrypted_with_the_accounts_key(pipes: Pipes) -> None:
    """The agent encrypts with the first half of the data key, and decrypts with the second."""
    key = os.urandom(64)
    mirrored = Encryption(key[32:] + key[:32])
    asked: list[str] = []
    os.write(pipes.writer, b"to the agent")

    def data_key(name: str) -> DataKey:
        asked.append(name)
        return DataKey(key, b"the key, encrypted")

    def script(peer: Peer) -> None:
        response = peer.handshake(ENCRYPTED, STREAM)
        assert response["Errors"] is None
        result = response["ProcessedClientActions"][0]["ActionResult"]
        assert base64.b64decode(result["KMSCipherTextKey"]) == b"the key, encrypted"
        challenge = b"c" * 64
        body = {"Challenge": base64.b64encode(mirrored.encrypt(challenge)).decode()}
        peer.send_json(body, PayloadType.ENCRYPTION_CHALLENGE_REQUEST)
        answer = peer.receive()
        assert answer.payload_type == PayloadType.ENCRYPTION_CHALLENGE_RESPONSE
        assert mirrored.decrypt(base64.b64decode(answer.json()["Challenge"])) == challenge
        peer.complete()
        assert mirrored.decrypt(peer.receive().payload) == b"to the agent"
        peer.send(mirrored.encrypt(b"to the client"))
        peer.send(mirrored.encrypt(b"oops"), PayloadType.STANDARD_ERROR)
        peer.send(mirrored.encrypt(b"7"), PayloadType.EXIT_CODE)
        peer.close_channel()

    errors: list[bytes] = []
    with scripted(script) as opening:
        channel = ClientChannel(opening, resume=never, kinds=(SHELL,), data_key=data_key)
        channel.on_error = errors.append
        Pump(channel, pipes.source, pipes.sink).run()
        channel.close()
    assert os.read(pipes.reader, 100) == b"to the client"
    assert (asked, errors, channel.exit_code) == (["arn:key"], [b"oops"], 7)


def test_a_data_key_that_is_denied_fails_the_handshake_on_both_sides(pipes: Pipes) -> None:
    def denied(_name: str) -> DataKey:
        raise SmsshError("access denied: GenerateDataKey", reference="access-denied")

    def script(peer: Peer) -> None:
        action = peer.handshake(ENCRYPTED, STREAM)["ProcessedClientActions"][0]
        assert (action["ActionStatus"], action["Error"]) == (2, "access denied: GenerateDataKey")

    with scripted(script) as opening, pytest.raises(SmsshError, match="access denied"):
        pump(opening, pipes, kinds=(SHELL,), data_key=denied)


def test_what_is_not_encrypted_in_an_encrypted_session_is_a_breach(pipes: Pipes) -> None:
    def script(peer: Peer) -> None:
        peer.handshake(ENCRYPTED, STREAM)
        peer.complete()
        peer.send(b"in clear, by somebody in between")

    key = DataKey(os.urandom(64), b"")
    with scripted(script) as opening, pytest.raises(SmsshError, match="not encrypted with the session's key"):
        pump(opening, pipes, kinds=(SHELL,), data_key=lambda _name: key)


def test_a_network_that_comes_back_late_is_waited_for(pipes: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    """ResumeSession itself fails while the network is away; what is written meanwhile goes out after that."""
    assert sum(channels._RECONNECT_PAUSES) > 100
    monkeypatch.setattr(channels, "_RECONNECT_PAUSES", [pause / 100 for pause in channels._RECONNECT_PAUSES])
    calls: list[int] = []

    def first(peer: Peer) -> None:
        peer.handshake()
        peer.complete()
        peer.socket.socket.close()

    def second(peer: Peer) -> None:
        peer.sequence = 2
        assert peer.receive().payload == b"meanwhile"
        peer.send(b"back")
        peer.close_channel()

    with scripted(first, second) as opening:

        def resume() -> Opening:
            calls.append(1)
            if len(calls) == 1:
                os.write(pipes.writer, b"meanwhile")
            if len(calls) < 8:
                error = SmsshError("AWS cannot be reached")
                error.passing = True
                raise error
            return opening

        _, channel = pump(opening, pipes, resume=resume)
    assert os.read(pipes.reader, 100) == b"back"
    assert (channel.reconnects, len(calls)) == (1, 8)


def test_a_session_that_has_ended_meanwhile_is_not_waited_for(pipes: Pipes) -> None:
    def script(peer: Peer) -> None:
        peer.handshake()
        peer.complete()
        peer.socket.socket.close()

    def resume() -> Opening:
        raise SmsshError("the session ended while the connection was cut", reference="session-ended")

    with scripted(script) as opening, pytest.raises(SmsshError, match="ended while"):
        pump(opening, pipes, resume=resume)


def test_a_peer_that_sends_and_never_reads_is_not_answered_without_end(
    pipes: Pipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each message costs an acknowledgement: those that wait to be written are bounded."""
    limit = 50_000
    monkeypatch.setattr(loops, "_ANSWERS_LIMIT", limit)
    monkeypatch.setattr(loops, "_LINGER", 0.2)

    def script(peer: Peer) -> None:
        peer.handshake()
        peer.complete()
        message = Message.new(MessageType.OUTPUT, b"x" * 900, payload_type=PayloadType.OUTPUT)
        frame = message.encode()
        head = bytes([0x82, 126]) + len(frame).to_bytes(2, "big")
        raw = peer.socket.socket
        raw.settimeout(1)
        with suppress(OSError):
            while True:  # until the client reads no more
                raw.sendall((head + frame) * 50)
        os.close(pipes.writer)

    sizes = [0]
    with scripted(script) as opening:
        channel = ClientChannel(opening, resume=never)
        tick = channel.tick

        def watched(now: float) -> None:
            tick(now)
            sizes.append(channel.socket.pending)

        monkeypatch.setattr(channel, "tick", watched)
        assert Pump(channel, pipes.source, pipes.sink).run() is Ending.SOURCE
        channel.close()
    # One turn reads 1 MiB at most, and answers each KiB with 0.4 of one.
    assert limit <= max(sizes) < limit + 600_000


def test_data_before_the_handshake_is_a_breach(pipes: Pipes) -> None:
    with scripted(lambda peer: peer.send(b"early")) as opening, pytest.raises(SmsshError, match="too old"):
        pump(opening, pipes)


def test_a_damaged_message_ends_the_session_with_the_reason(pipes: Pipes) -> None:
    def script(peer: Peer) -> None:
        frame = bytearray(Message.new(MessageType.OUTPUT, b"abc").encode())
        frame[-1] ^= 1
        peer.socket.send(bytes(frame))

    with scripted(script) as opening, pytest.raises(SmsshError, match="SHA-256") as caught:
        pump(opening, pipes)
    assert caught.value.status == ExitStatus.UNREACHABLE


def test_output_before_channel_closed_is_written_and_what_follows_is_not(pipes: Pipes) -> None:
    def script(peer: Peer) -> None:
        peer.handshake()
        peer.complete()
        peer.send(b"last words")
        peer.close_channel("Session timed out")
        peer.send(b"after the end")

    with scripted(script) as opening:
        ending, channel = pump(opening, pipes)
    assert ending is Ending.CLOSED
    assert channel.closed == "Session timed out"
    assert os.read(pipes.reader, 100) == b"last words"


def test_a_port_error_flag_is_the_end(pipes: Pipes) -> None:
    def script(peer: Peer) -> None:
        peer.handshake()
        peer.complete()
        peer.send(Flag.CONNECT_TO_PORT_ERROR.payload(), PayloadType.FLAG)

    with scripted(script) as opening:
        _, channel = pump(opening, pipes)
    assert channel.closed is not None
    assert "cannot connect to the port" in channel.closed


def test_messages_for_others_are_passed_over(pipes: Pipes) -> None:
    def script(peer: Peer) -> None:
        peer.socket.send(Message.of("agent_session_state", {"SessionState": "Connected"}).encode())
        peer.socket.send(Message.of("from_the_future", {}).encode())
        peer.socket.send("text")
        peer.handshake()
        peer.complete()
        peer.send(b"99", PayloadType.EXIT_CODE)
        peer.send(b"ok")
        peer.close_channel()

    with scripted(script) as opening:
        pump(opening, pipes)
    assert os.read(pipes.reader, 100) == b"ok"


def test_a_handshake_that_never_comes_ends(pipes: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def silent(_peer: Peer) -> None:
        over.wait(10)

    with scripted(silent) as opening:
        channel = ClientChannel(opening, resume=never)
        monkeypatch.setattr(channel, "_handshake_deadline", time.monotonic() + 0.1)
        with pytest.raises(SmsshError) as caught:
            Pump(channel, pipes.source, pipes.sink).run()
        channel.close()
        over.set()
    assert caught.value.status == ExitStatus.TIMEOUT


def test_pause_holds_the_source_and_start_lets_it_go(pipes: Pipes) -> None:
    def script(peer: Peer) -> None:
        peer.handshake()
        peer.socket.send(Message.new(MessageType.PAUSE_PUBLICATION).encode())
        peer.complete()
        # Data of the peer would lift the pause: HandshakeComplete has done so, therefore a second one.
        peer.socket.send(Message.new(MessageType.PAUSE_PUBLICATION).encode())
        peer.receive(MessageType.ACKNOWLEDGE)
        os.write(pipes.writer, b"held")
        peer.hears_no_input()
        peer.socket.send(Message.new(MessageType.START_PUBLICATION).encode())
        assert peer.receive().payload == b"held"
        peer.close_channel()

    with scripted(script) as opening:
        pump(opening, pipes)


def test_the_way_out_is_seen_behind_what_cannot_be_sent(
    pipes: Pipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "WINDOW", 2)
    os.write(pipes.writer, b"x" * 5000 + b"\r~.")

    def script(peer: Peer) -> None:
        peer.handshake()
        peer.complete()
        with suppress(ConnectionClosed):
            while True:
                peer.socket.recv(timeout=30)  # and acknowledges nothing

    with scripted(script) as opening:
        channel = ClientChannel(opening, resume=never)
        made = Pump(channel, pipes.source, pipes.sink, edit=Escape(), ahead=10_000)
        assert made.run() is Ending.STOPPED
        channel.close()


def test_what_is_not_acknowledged_comes_again(pipes: Pipes) -> None:
    """The agent acknowledges nothing while its own connection to the port is not up."""
    os.write(pipes.writer, b"again")

    def script(peer: Peer) -> None:
        peer.handshake()
        peer.complete()
        seen: list[Message] = []
        while len(seen) < 2:
            message = Message.decode(peer.socket.recv(timeout=10, decode=False))
            if message.type == MessageType.INPUT:
                seen.append(message)
        assert seen[0] == seen[1]  # to the bit: the same id and date
        peer.acknowledge(seen[0])
        peer.close_channel()

    with scripted(script) as opening:
        pump(opening, pipes)


def test_a_cut_is_resumed_and_nothing_is_lost(pipes: Pipes) -> None:
    os.write(pipes.writer, b"one")
    client_ids = []

    def first(peer: Peer) -> None:
        client_ids.append(peer.hello["ClientId"])
        peer.handshake()
        peer.complete()
        while Message.decode(peer.socket.recv(timeout=10, decode=False)).type != MessageType.INPUT:
            pass  # the input is not acknowledged: it was on its way when the connection was cut
        peer.socket.socket.close()

    def second(peer: Peer) -> None:
        client_ids.append(peer.hello["ClientId"])
        assert peer.hello["TokenValue"] == "second token"
        message = peer.receive()
        assert (message.payload, message.sequence) == (b"one", 1)
        peer.sequence = 2
        peer.send(b"two")
        peer.close_channel()

    with scripted(first, second) as opening:
        ending, channel = pump(
            opening, pipes, resume=lambda: Opening(opening.session_id, "second token", opening.url)
        )
    assert ending is Ending.CLOSED
    assert channel.reconnects == 1
    assert os.read(pipes.reader, 100) == b"two"
    assert client_ids[0] == client_ids[1]


def test_a_cut_that_cannot_be_resumed_is_an_error(pipes: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "_RECONNECT_PAUSES", (0.0, 0.01, 0.01))

    def script(peer: Peer) -> None:
        peer.handshake()
        peer.complete()
        peer.socket.socket.close()

    with scripted(script) as opening:
        nowhere = Opening("s-1", "t", "ws://127.0.0.1:9/")
        with pytest.raises(SmsshError, match="cannot connect") as caught:
            pump(opening, pipes, resume=lambda: nowhere)
    assert caught.value.reference == "session-cut"


def test_a_refused_upgrade_says_why() -> None:
    with pytest.raises(SmsshError, match="cannot be opened") as caught:
        ClientChannel(Opening("s", "t", "ws://127.0.0.1:9/x"), resume=never)
    assert caught.value.status == ExitStatus.UNREACHABLE


def test_the_end_of_the_source_waits_for_the_rest_to_be_acknowledged(pipes: Pipes) -> None:
    sent = os.urandom(50_000)
    os.write(pipes.writer, sent)
    os.close(pipes.writer)
    got = bytearray()

    def script(peer: Peer) -> None:
        peer.handshake()
        peer.complete()
        while len(got) < len(sent):
            message = peer.receive()
            assert len(message.payload) <= 1024
            got.extend(message.payload)

    with scripted(script) as opening:
        assert pump(opening, pipes)[0] is Ending.SOURCE
    assert got == sent


def test_a_sink_that_nobody_reads_is_an_end(pipes: Pipes) -> None:
    os.close(pipes.reader)

    def script(peer: Peer) -> None:
        peer.handshake()
        peer.complete()
        peer.send(b"to nobody")

    with scripted(script) as opening:
        assert pump(opening, pipes)[0] is Ending.SINK


def test_a_slow_sink_holds_the_peer_back_and_loses_nothing(pipes: Pipes) -> None:
    """Nothing is read from the websocket while a megabyte waits to be written."""
    total = 6 * 1024 * 1024
    got = bytearray()

    def script(peer: Peer) -> None:
        peer.handshake()
        peer.complete()
        for _ in range(total // 16384):
            peer.send(b"z" * 16384)
        peer.close_channel()
        for _ in peer.socket:  # the acknowledgements, without which its end would not be seen
            pass

    def read() -> None:
        time.sleep(0.3)  # the point of the test: the reader is slow
        while len(got) < total and (data := os.read(pipes.reader, 65536)):
            got.extend(data)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with scripted(script) as opening:
        pump(opening, pipes)
    os.close(pipes.sink)
    reader.join(10)
    assert len(got) == total


def test_an_idle_connection_is_pinged_and_a_silent_one_is_cut(
    pipes: Pipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "_KEEPALIVE", 0.1)
    monkeypatch.setattr(channels, "_SILENCE", 0.2)
    resumed = threading.Event()

    def deaf(peer: Peer) -> None:
        peer.handshake()
        peer.complete()
        peer.socket.recv_bufsize = 0
        peer.socket.socket.setblocking(True)
        monkeypatch.setattr(
            peer.socket.protocol, "receive_data", lambda _data: None
        )  # hears, and does not answer
        assert resumed.wait(10)

    def second(peer: Peer) -> None:
        resumed.set()
        peer.sequence = 2
        time.sleep(1)  # pings are answered, so that this one lasts
        peer.close_channel()

    with scripted(deaf, second) as opening:
        ending, channel = pump(opening, pipes, resume=lambda: opening)
    assert ending is Ending.CLOSED
    assert channel.reconnects == 1


CHUNK = b"z" * 16384


def test_a_reader_that_stalls_is_no_peer_that_is_gone(pipes: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    """`smssh shell ADDRESS 'cat big' | less`, left open for longer than a peer may be silent."""
    clock = Clock(monkeypatch, channels, loops, websockets)
    total: list[int] = []
    typed, got = bytearray(), bytearray()

    def script(peer: Peer) -> None:
        peer.handshake()
        peer.complete()
        total.append(peer.send_until(lambda: not channel.listening, CHUNK) * len(CHUNK))
        for rounds in range(1, 5):
            clock.ahead += 120
            os.write(pipes.writer, b"x")  # which wakes the pump
            until(lambda: peer.pings == rounds, what="a ping")  # noqa: B023 - called here
        for message in peer.inputs():
            typed.extend(message.payload)
            if len(typed) == 4:
                break
        reader.start()
        peer.close_channel()
        for _ in peer.socket:  # the acknowledgements, without which its end would not be seen
            pass

    def read() -> None:
        while len(got) < total[0] and (data := os.read(pipes.reader, 65536)):
            got.extend(data)

    reader = threading.Thread(target=read, daemon=True)
    with scripted(script) as opening:
        channel = ClientChannel(opening, resume=never)
        assert Pump(channel, pipes.source, pipes.sink).run() is Ending.CLOSED
        channel.close()
    reader.join(10)
    assert (len(got), typed) == (total[0], b"xxxx")


def test_silence_counts_again_once_the_reader_reads(pipes: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, channels, loops, websockets)
    resumed = threading.Event()
    total: list[int] = []

    def first(peer: Peer) -> None:
        peer.handshake()
        peer.complete()
        total.append(peer.send_until(lambda: not channel.listening, CHUNK))
        clock.ahead += 1000
        left = total[0] * len(CHUNK)
        while left:
            left -= len(os.read(pipes.reader, min(left, 65536)))
        until(lambda: channel.listening, what="its listening")
        assert channel.reconnects == 0
        peer.socket.protocol.receive_data = lambda _data: None  # type: ignore[method-assign] # says nothing more
        clock.ahead += 120
        os.write(pipes.writer, b"x")  # which wakes the pump
        assert resumed.wait(30)

    def second(peer: Peer) -> None:
        resumed.set()
        peer.sequence = 2 + total[0]
        peer.close_channel()

    with scripted(first, second) as opening:
        channel = ClientChannel(opening, resume=lambda: opening)
        assert Pump(channel, pipes.source, pipes.sink).run() is Ending.CLOSED
        channel.close()
    assert channel.reconnects == 1


def test_a_cut_is_noticed_though_the_reader_stalls(pipes: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the pings: nothing is read that could tell."""
    monkeypatch.setattr(channels, "_KEEPALIVE", 0.1)
    total: list[int] = []
    got = bytearray()

    def first(peer: Peer) -> None:
        peer.handshake()
        peer.complete()
        total.append(peer.send_until(lambda: not channel.listening, CHUNK))
        raw = peer.socket.socket
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.shutdown(socket.SHUT_RDWR)

    def second(peer: Peer) -> None:
        reader.start()
        peer.sequence = 2
        for _ in range(total[0]):
            peer.send(CHUNK)
        peer.close_channel()
        for _ in peer.socket:
            pass

    def read() -> None:
        while len(got) < total[0] * len(CHUNK) and (data := os.read(pipes.reader, 65536)):
            got.extend(data)

    reader = threading.Thread(target=read, daemon=True)
    with scripted(first, second) as opening:
        channel = ClientChannel(opening, resume=lambda: opening)
        Pump(channel, pipes.source, pipes.sink).run()
        channel.close()
    reader.join(10)
    assert (len(got), channel.reconnects) == (total[0] * len(CHUNK), 1)


def test_the_upgrade_is_signed_for_ssmmessages() -> None:
    credentials = ReadOnlyCredentials("AKIAEXAMPLE", "secret", "session-token")
    url = "wss://ssmmessages.eu-west-1.amazonaws.com/v1/data-channel/s-1?role=publish_subscribe&cell-number=AAE=="
    headers = signed_headers(url, credentials, "eu-west-1")
    assert headers["X-Amz-Security-Token"] == "session-token"
    assert "/eu-west-1/ssmmessages/aws4_request" in headers["Authorization"]
    # The signature is over the canonical query, where the padding of cell-number is %3D%3D.
    canonical = signed_headers(url.replace("==", "%3D%3D"), credentials, "eu-west-1")
    if canonical["X-Amz-Date"] == headers["X-Amz-Date"]:
        assert canonical["Authorization"] == headers["Authorization"]
    assert signed_headers(url, None, "eu-west-1") == {}
