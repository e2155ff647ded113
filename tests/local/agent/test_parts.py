"""The fake agent's parts without a process around them: streams, smux, text, documents, limits."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smssh_plugin.errors import SmsshError
from smssh_plugin.local.agent import worker as workers
from smssh_plugin.local.agent.agent_stream import WINDOW, Stream
from smssh_plugin.local.agent.dial import Destination, DialError, Dialing
from smssh_plugin.local.agent.document import task_of
from smssh_plugin.local.agent.port import PortSession
from smssh_plugin.local.agent.service_client import Api
from smssh_plugin.local.agent.session_kind import Task
from smssh_plugin.local.agent.setup import Configuration, CustomIdentity
from smssh_plugin.local.agent.smux_server import BUFFER_MAX, HEADER, NOP, PSH, STREAMS_MAX, SYN, MuxServer
from smssh_plugin.local.agent.tasks import valid_id
from smssh_plugin.local.agent.utf8 import Utf8Cutter
from smssh_plugin.session.wire.frames import Flag, FrameError, Message, MessageType, PayloadType
from tests.session.support import EchoServer, Stack, closing

settings.register_profile("smssh", deadline=None)
settings.load_profile("smssh")

NOWHERE = Configuration(ssm="http://127.0.0.1:9", mgs="http://127.0.0.1:9")


def incoming(sequence: int, payload: bytes = b"x") -> Message:
    return Message.new(MessageType.INPUT, payload, payload_type=PayloadType.OUTPUT, sequence=sequence)


def acknowledgement(sequence: Any) -> Message:
    return Message.of(MessageType.ACKNOWLEDGE, {"AcknowledgedMessageSequenceNumber": sequence})


def acknowledged(stream: Stream) -> list[int]:
    found = [Message.decode(frame) for frame in stream.outgoing]
    stream.outgoing.clear()
    return [one.json()["AcknowledgedMessageSequenceNumber"] for one in found if one.type == "acknowledge"]


# The stream.


@given(st.permutations(range(12)), st.data())
def test_whatever_the_order_each_message_is_taken_once_and_in_turn(order: list[int], data: Any) -> None:
    taken: list[int] = []
    stream = Stream(lambda message: taken.append(message.sequence) or True)  # type: ignore[func-returns-value]
    for sequence in order:
        for _ in range(data.draw(st.integers(1, 3))):
            stream.receive(incoming(sequence), 0.0)
    assert taken == list(range(12))
    assert set(acknowledged(stream)) == set(range(12))


@given(st.lists(st.booleans(), max_size=40))
def test_what_nobody_takes_is_not_acknowledged_and_comes_again(ready: list[bool]) -> None:
    answers = iter(ready)
    taken: list[int] = []

    def take(message: Message) -> bool:
        if next(answers, True):
            taken.append(message.sequence)
            return True
        return False

    stream = Stream(take)
    for _ in range(len(ready) + 1):
        before = len(taken)
        stream.receive(incoming(before), 0.0)
        assert acknowledged(stream) == ([before] if len(taken) > before else [])
    assert taken == list(range(len(taken)))


def test_what_waited_for_its_turn_is_offered_again() -> None:
    room = 1
    taken: list[int] = []

    def take(message: Message) -> bool:
        if len(taken) < room:
            taken.append(message.sequence)
            return True
        return False

    stream = Stream(take)
    for sequence in (2, 1, 0):
        stream.receive(incoming(sequence), 0.0)
    # All are acknowledged, so that none of them is sent again.
    assert (sorted(acknowledged(stream)), taken) == ([0, 1, 2], [0])
    room = 2
    stream.take_early()
    assert taken == [0, 1]
    room = 9
    stream.take_early()
    stream.take_early()
    assert taken == [0, 1, 2]


def test_a_message_ahead_is_acknowledged_and_waits_for_its_turn() -> None:
    ready = False
    taken: list[int] = []
    stream = Stream(lambda message: ready and not taken.append(message.sequence))  # type: ignore[func-returns-value]
    stream.receive(incoming(1), 0.0)
    assert acknowledged(stream) == [1]
    stream.receive(incoming(0), 0.0)
    assert (acknowledged(stream), taken) == ([], [])
    ready = True
    stream.receive(incoming(0), 0.0)
    assert taken == [0, 1]


def test_only_the_oldest_is_sent_again_and_never_is_it_given_up() -> None:
    stream = Stream(lambda _message: True)
    for _ in range(3):
        stream.send(PayloadType.OUTPUT, b"x", 0.0)
    first = stream.outgoing[0]
    stream.outgoing.clear()
    now = 0.0
    for _ in range(2000):  # more than half an hour
        now += 1.0
        stream.resend_due(now)
    assert set(stream.outgoing) == {first}
    assert len(stream.outgoing) == 2000
    stream.receive(acknowledgement(0), now)
    assert not stream.idle
    stream.receive(acknowledgement(1), now)
    stream.receive(acknowledgement(2), now)
    assert stream.idle
    assert stream.timeout(now) is None


@given(st.lists(st.floats(0, 30), min_size=1, max_size=60))
def test_the_time_to_a_resend_follows_the_answers_and_stays_within_a_second(delays: list[float]) -> None:
    stream = Stream(lambda _message: True)
    now = 0.0
    for number, delay in enumerate(delays):
        stream.send(PayloadType.OUTPUT, b"x", now)
        assert 0 < (stream.timeout(now) or 0) <= 1.0 + 1e-6
        now += delay
        stream.receive(acknowledgement(number), now)


def test_output_waits_while_paused_and_goes_on_with_any_sign_of_the_client() -> None:
    for sign in (
        incoming(0),
        acknowledgement(7),
        Message.new(MessageType.START_PUBLICATION),
    ):
        stream = Stream(lambda _message: True)
        stream.receive(Message.new(MessageType.PAUSE_PUBLICATION, b"whatever"), 0.0)
        assert not stream.open
        stream.send(PayloadType.OUTPUT, b"held", 0.0)
        stream.resend_due(10.0)
        assert not stream.outgoing
        stream.receive(sign, 10.0)
        assert stream.open
        stream.outgoing.clear()
        stream.resend_due(10.0)
        assert Message.decode(stream.outgoing[0]).payload == b"held"


def test_no_more_is_read_than_may_be_under_way() -> None:
    stream = Stream(lambda _message: True)
    for _ in range(WINDOW):
        assert stream.open
        stream.send(PayloadType.OUTPUT, b"x", 0.0)
    assert not stream.open
    stream.receive(acknowledgement(0), 0.0)
    assert stream.open


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"AcknowledgedMessageSequenceNumber": [1]}', b"[" * 9999]
)
def test_what_is_not_an_acknowledgement_is_refused(body: bytes) -> None:
    stream = Stream(lambda _message: True)
    with pytest.raises(FrameError, match="not an acknowledgement"):
        stream.receive(Message.new(MessageType.ACKNOWLEDGE, body), 0.0)


def test_the_messages_that_are_kept_for_later_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smssh_plugin.local.agent.agent_stream.EARLY_MAX", 5)
    monkeypatch.setattr("smssh_plugin.local.agent.agent_stream.EARLY_BYTES_MAX", 1000)
    stream = Stream(lambda _message: True)
    for sequence in range(1, 20):
        stream.receive(incoming(sequence), 0.0)
    assert acknowledged(stream) == [1, 2, 3, 4, 5]
    stream = Stream(lambda _message: True)
    stream.receive(incoming(1, b"x" * 900), 0.0)
    stream.receive(incoming(2, b"x" * 200), 0.0)
    assert acknowledged(stream) == [1]


# smux.


class Collected:
    """An output that keeps everything."""

    def __init__(self) -> None:
        self.open = True
        self.sent: list[tuple[int, bytes]] = []

    def send(self, payload_type: int, payload: bytes) -> None:
        assert len(payload) <= 1024
        self.sent.append((payload_type, payload))

    def frames(self) -> list[tuple[int, int, bytes]]:
        data = b"".join(payload for kind, payload in self.sent if kind == PayloadType.OUTPUT)
        found = []
        while data:
            version, command, length, stream = HEADER.unpack_from(data)
            assert version == 1
            found.append((command, stream, data[HEADER.size : HEADER.size + length]))
            data = data[HEADER.size + length :]
        return found


def act(plugin: Any, milliseconds: int = 20) -> None:
    """One turn of a worker's loop."""
    poll = select.poll()
    for fd, events in plugin.watched().items():
        if events:
            poll.register(fd, events)
    plugin.act(dict(poll.poll(milliseconds)))


def frame(command: int, stream: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(1, command, len(payload), stream) + payload


@given(
    st.lists(st.tuples(st.integers(0, 4), st.binary(max_size=3000)), max_size=12),
    st.lists(st.integers(1, 500), min_size=1, max_size=20),
)
@settings(max_examples=30)
def test_streams_come_out_as_they_went_in_however_they_are_cut(
    pieces: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    with closing(EchoServer()) as echo:
        output = Collected()
        server = MuxServer(Destination("", str(echo.port), ()), output)
        wanted: dict[int, bytes] = {}
        data = b""
        for number, payload in pieces:
            stream = 3 + 2 * number
            if stream not in wanted:
                data += frame(SYN, stream)
            wanted[stream] = wanted.get(stream, b"") + payload
            data += frame(PSH, stream, payload) + frame(NOP, 0)
        position = 0
        for cut in cuts * (len(data) // sum(cuts) + 1):
            server.write(data[position : position + cut])
            position += cut
            act(server, 0)
        for _ in range(500):
            got: dict[int, bytes] = dict.fromkeys(wanted, b"")
            for command, stream, payload in output.frames():
                assert command == PSH
                got[stream] += payload
            if got == wanted:
                break
            act(server)
        assert got == wanted
        server.close()


@given(st.binary(min_size=8, max_size=200))
@settings(max_examples=300)
def test_bytes_that_are_no_smux_are_refused_or_wait_for_more(data: bytes) -> None:
    server = MuxServer(Destination("", "9", ()), Collected())
    with contextlib.suppress(SmsshError):
        server.write(data)
    assert len(server._input) < HEADER.size + 65535
    server.close()


def test_there_is_room_for_so_much_and_for_so_many() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1100) as listener:
        output = Collected()
        server = MuxServer(Destination("", str(listener.getsockname()[1]), ()), output)
        server.write(frame(SYN, 3))
        for _ in range(100):
            if server.full:
                break
            server.write(frame(PSH, 3, b"x" * 65535))
        assert server.full
        assert server._waiting < BUFFER_MAX + 65536
        server.close()


def test_a_client_that_asks_and_does_not_listen_is_not_taken_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smssh_plugin.local.agent.smux_server.BUFFER_MAX", 10_000)
    with socket.create_server(("127.0.0.1", 0), backlog=STREAMS_MAX) as listener:
        output = Collected()
        output.open = False
        server = MuxServer(Destination("", str(listener.getsockname()[1]), ()), output)
        asked = 0
        while not server.full:
            server.write(frame(SYN, asked))
            asked += 1
        assert server.streams == STREAMS_MAX
        assert asked < STREAMS_MAX + 2000
        server.close()


# Destinations.


@pytest.mark.parametrize("port", ["0", "65536", "ssh", "-1", "\u0661", "22 "])
def test_what_is_not_a_port_is_refused(port: str) -> None:
    with pytest.raises(SmsshError, match="invalid port"):
        Destination("", port, ())


def dial(destination: Destination) -> socket.socket:
    dialing = Dialing(destination)
    while (found := dialing.step()) is None:
        select.select([], [dialing.fileno()], [], 5)
    return found


def test_every_address_is_tried_and_the_first_error_told() -> None:
    with closing(EchoServer()) as echo:
        destination = Destination("127.0.0.1", str(echo.port), ())
        destination._addresses = [
            (socket.AF_INET, ("127.0.0.1", 9)),
            (socket.AF_INET, ("127.0.0.1", echo.port)),
        ]
        dial(destination).close()
        destination._addresses = [(socket.AF_INET, ("127.0.0.1", 9)), (socket.AF_INET, ("127.0.0.2", 9))]
        with pytest.raises(DialError, match=r"dial tcp 127.0.0.1:9: connect: connection refused"):
            dial(destination)
    destination._addresses = []
    with pytest.raises(DialError, match="missing address"):
        Dialing(destination)


def test_input_is_refused_until_the_connection_is_there_and_while_too_much_waits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        task = Task("s", "t", "Port", {"portNumber": port}, {}, NOWHERE)
        plugin = PortSession(task, Collected())
        assert not plugin.ready
        plugin.start("1.2.677.0")
        assert not plugin.ready
        while not plugin.ready:
            act(plugin)
        for _ in range(20_000):
            if plugin.full:
                break
            plugin.take(PayloadType.OUTPUT, b"x" * 1024)
        assert plugin.full
        plugin.take(PayloadType.FLAG, Flag.TERMINATE_SESSION.payload())
        assert plugin.result is not None
        plugin.close()


# Text.


@given(st.lists(st.text(max_size=50)), st.integers(4, 40), st.lists(st.integers(1, 30), min_size=1))
def test_text_is_cut_between_characters(parts: list[str], limit: int, cuts: list[int]) -> None:
    whole = "".join(parts).encode()
    cutter = Utf8Cutter(limit)
    pieces: list[bytes] = []
    position = 0
    while position < len(whole):
        size = cuts[position % len(cuts)]
        pieces += cutter.feed(whole[position : position + size])
        position += size
    assert cutter.finish() == b""
    assert b"".join(pieces) == whole
    for piece in pieces:
        assert 0 < len(piece) <= limit
        piece.decode()


@given(st.lists(st.binary(max_size=60)))
def test_what_is_no_text_goes_through_as_it_is(parts: list[bytes]) -> None:
    cutter = Utf8Cutter(16)
    out = b"".join(piece for part in parts for piece in cutter.feed(part)) + cutter.finish()
    assert out == b"".join(parts)


# Documents.


def content(**more: Any) -> dict[str, Any]:
    document = {
        "schemaVersion": "1.0",
        "sessionType": "Port",
        "parameters": {"portNumber": {"type": "String", "default": "22"}},
        "properties": {"portNumber": "{{ portNumber }}", "n": 5, "list": ["{{portNumber}}x", None]},
        **more,
    }
    body = {"SessionId": "s-1", "DocumentContent": document, "Parameters": {}, "RunAsUser": "me"}
    return {"Content": json.dumps(body)}


def test_parameters_and_their_defaults_are_filled_in_everywhere() -> None:
    session, task = task_of(content(inputs={"kmsKeyId": "k"}), "t", NOWHERE)
    assert session == "s-1"
    assert isinstance(task, Task)
    assert task.properties == {"portNumber": "22", "n": 5, "list": ["22x", None]}
    assert task.inputs == {"kmsKeyId": "k", "runAsDefaultUser": "me"}
    assert task.key_id == ""  # a Port session is never encrypted
    _, task = task_of(content(inputs={"kmsKeyId": "k"}, sessionType="Standard_Stream"), "t", NOWHERE)
    assert isinstance(task, Task)
    assert task.key_id == "k"


def test_a_document_without_bottom_is_refused() -> None:
    deep: Any = "x"
    for _ in range(40):
        deep = [deep]
    _, trouble = task_of(content(properties=deep), "t", NOWHERE)
    assert "too deep" in str(trouble)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_a_task_of_any_shape_is_a_session_an_explanation_or_no_task(body: Any) -> None:
    for shape in (body, {"SessionId": "s", "DocumentContent": body, "Parameters": body}):
        try:
            session, task = task_of({"Content": json.dumps(shape)}, "t", NOWHERE)
        except ValueError:
            continue
        assert valid_id(session)
        assert isinstance(task, (Task, SmsshError))


@pytest.mark.parametrize("text", ["", ".hidden", "a/b", "..", "x" * 161, "a\n"])
def test_an_id_names_a_file_in_its_folder(text: str) -> None:
    assert not valid_id(text)


# A worker.


class Keys:
    """Credentials of nobody."""

    def get_frozen_credentials(self) -> Any:
        from botocore.credentials import ReadOnlyCredentials

        return ReadOnlyCredentials("ASIAJOB", "secret", "token")


def test_a_client_that_never_comes_costs_the_handshakes_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, since the time is a constant: 15 s."""
    monkeypatch.setattr(workers, "HANDSHAKE_SECONDS", 0.3)
    with closing(Stack()) as stack:
        target = "sagemaker-training-job:job_algo-1"
        session = stack.service.sessions["s-1"] = _session("s-1", target)
        configuration = Configuration(
            ssm=stack.url, mgs=stack.url, custom=CustomIdentity(target, "us-east-1"), container=True
        )
        task = Task("s-1", target, "Port", {"portNumber": "9"}, {}, configuration)
        cancel, waker = os.pipe()
        result = workers.Worker(task, Api(configuration, "us-east-1", Keys()), cancel).run()
        assert result.status == "Failed"
        assert "Handshake timed out" in result.output
        assert session.held
        # One that is cancelled ends as if nothing had been.
        os.write(waker, b"x")
        result = workers.Worker(task, Api(configuration, "us-east-1", Keys()), cancel).run()
        assert (result.status, result.output) == ("Success", "")
        for fd in (cancel, waker):
            os.close(fd)


def test_a_session_that_is_over_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.random, "uniform", lambda *_: 60.0)  # a pause would be noticed
    with closing(Stack()) as stack:
        target = "sagemaker-training-job:job_algo-1"
        session = stack.service.sessions["s-1"] = _session("s-1", target)
        session.ended = 1.0
        configuration = Configuration(ssm=stack.url, mgs=stack.url)
        task = Task("s-1", target, "Port", {"portNumber": "9"}, {}, configuration)
        cancel, waker = os.pipe()
        result = workers.Worker(task, Api(configuration, "us-east-1", Keys()), cancel).run()
        assert "Session is already terminated" in result.output
        for fd in (cancel, waker):
            os.close(fd)


def _session(session: str, target: str) -> Any:
    import time

    from smssh_plugin.local.sessions.channels import Session

    return Session(session, target, "d", "o", "", time.time(), time.monotonic())
