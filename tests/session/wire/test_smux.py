"""Several connections in one stream: the frames of smux 1, and the forwarder over a peer that speaks them."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smssh_plugin.errors import SmsshError
from smssh_plugin.session import forward_loop as forwards
from smssh_plugin.session import loop as loops
from smssh_plugin.session.forward_loop import Forwarder
from smssh_plugin.session.loop import Ending
from smssh_plugin.session.mux_pump import MuxPump
from smssh_plugin.session.wire import channel as channels
from smssh_plugin.session.wire import websocket as websockets
from smssh_plugin.session.wire.channel import ClientChannel
from smssh_plugin.session.wire.frames import Flag, FrameError, PayloadType
from smssh_plugin.session.wire.smux import FRAME, Command, Frame, Mux
from tests.session.peer import Clock, Peer, Pipes, scripted
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FORWARDING = {
    "ActionType": "SessionType",
    "ActionParameters": {
        "SessionType": "Port",
        "Properties": {"portNumber": "80", "type": "LocalPortForwarding", "localPortNumber": "0"},
    },
}


def test_the_layout_is_smuxs() -> None:
    """Version, command, length and number, the last two little endian (xtaci/smux's frame.go)."""
    assert Frame(Command.PSH, 0x01020304, b"abc").encode() == b"\x01\x02\x03\x00\x04\x03\x02\x01abc"
    mux = Mux()
    assert [mux.next(), mux.next()] == [3, 5]
    assert mux.open(3) == b"\x01\x00\x00\x00\x03\x00\x00\x00"
    assert mux.finish(5) == b"\x01\x01\x00\x00\x05\x00\x00\x00"


@given(
    frames=st.lists(st.tuples(st.sampled_from(Command), st.integers(0, 2**32 - 1), st.binary(max_size=90))),
    cuts=st.lists(st.integers(1, 50), min_size=1),
)
def test_frames_come_out_as_they_went_in_however_they_are_cut(
    frames: list[tuple[Command, int, bytes]], cuts: list[int]
) -> None:
    sent = [Frame(*one) for one in frames]
    data = b"".join(frame.encode() for frame in sent)
    mux, got, number = Mux(), [], 0
    while data:
        size = cuts[number % len(cuts)]
        got += mux.feed(data[:size])
        data, number = data[size:], number + 1
    assert got == sent


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(FrameError):
        Mux().feed(data)


def test_large_data_is_cut_into_frames() -> None:
    frames = Mux().feed(Mux().data(3, b"z" * (2 * FRAME + 5)))
    assert [len(frame.data) for frame in frames] == [FRAME, FRAME, 5]


def test_another_version_is_refused() -> None:
    with pytest.raises(FrameError, match="version 2"):
        Mux().feed(b"\x02\x00\x00\x00\x03\x00\x00\x00")
    with pytest.raises(FrameError, match="command 4"):
        Mux().feed(b"\x01\x04\x00\x00\x03\x00\x00\x00")


class FarEnd:
    """The agent's side: keeps what each connection sent, and answers as `answer` says."""

    def __init__(self, answer: Callable[[FarEnd, int, bytes], None]) -> None:
        self.got: dict[int, bytes] = {}
        self.finished: set[int] = set()
        self._answer = answer
        self._partial = b""
        self.peer: Peer
        self.channel: ClientChannel
        self.forwarder: Forwarder

    def __call__(self, peer: Peer) -> None:
        self.peer = peer
        peer.handshake(FORWARDING)
        peer.complete()
        for message in peer.inputs():  # the handshake's response was the first
            if message.payload_type == PayloadType.FLAG:
                return
            self._partial += message.payload
            while len(self._partial) >= 8:
                version, command, length, number = struct.unpack("<BBHI", self._partial[:8])
                assert version == 1
                if len(self._partial) < 8 + length:
                    break
                body, self._partial = self._partial[8 : 8 + length], self._partial[8 + length :]
                if command == 0:
                    self.got[number] = b""
                elif command == 1:
                    self.finished.add(number)
                elif command == 2:
                    self.got[number] += body
                    self._answer(self, number, body)

    def send(self, number: int, data: bytes) -> None:
        for start in range(0, len(data), 1024):
            piece = data[start : start + 1024]
            self.peer.send(struct.pack("<BBHI", 1, 2, len(piece), number) + piece)

    def finish(self, number: int) -> None:
        self.peer.send(struct.pack("<BBHI", 1, 1, 0, number))


@contextmanager
def forwarder(
    far: FarEnd, path: Path | None = None, **options: Any
) -> Iterator[tuple[Callable[[], socket.socket], list[Any]]]:
    """A forwarder in a thread, what connects to it, and what its end was.

    Sockets with a path in place of a port: the kernel keeps as much for one that does not read as it did at first.
    """
    listener = socket.create_server(("127.0.0.1", 0)) if path is None else socket.socket(socket.AF_UNIX)
    if path is not None:
        listener.bind(str(path))
        listener.listen()
    listener.setblocking(False)
    wake, waker = os.pipe()
    ended: list[Any] = []
    opened: list[socket.socket] = []

    def connect() -> socket.socket:
        made = socket.socket(listener.family)
        made.settimeout(20)
        made.connect(listener.getsockname())
        opened.append(made)
        return made

    def run() -> None:
        try:
            ended.append(made.run())
        except SmsshError as error:
            ended.append(error)
        channel.terminate(time.monotonic())
        channel.close()

    with scripted(far) as opening:
        channel = far.channel = ClientChannel(opening, resume=lambda: opening)
        made = far.forwarder = Forwarder(channel, listener, wake=wake, **options)
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield connect, ended
        finally:
            os.write(waker, b"x")
            thread.join(20)
            for one in (listener, *opened):
                one.close()
            for fd in (wake, waker):
                os.close(fd)


def read_all(connection: socket.socket) -> bytes:
    got = b""
    while data := connection.recv(65536):
        got += data
    return got


def test_many_connections_at_once_are_kept_apart() -> None:
    far = FarEnd(lambda self, number, body: self.send(number, body))
    ready: list[bool] = []
    with forwarder(far, on_ready=lambda: ready.append(True)) as (connect, ended):
        data = [os.urandom(50_000) for _ in range(8)]
        connections = [connect() for _ in data]
        results: dict[int, bytes] = {}

        def talk(number: int) -> None:
            writer = threading.Thread(target=connections[number].sendall, args=(data[number],))
            writer.start()
            got = b""
            while len(got) < len(data[number]):
                got += connections[number].recv(65536)
            writer.join()
            results[number] = got

        threads = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert [results.get(number) for number in range(8)] == data
        for connection in connections:
            connection.close()
        until(lambda: len(far.finished) == 8, seconds=30, what="the end of all connections")
    assert ready == [True]
    assert ended == [Ending.STOPPED]


def test_the_other_sides_end_reaches_the_program_after_its_last_byte() -> None:
    def answer(self: FarEnd, number: int, body: bytes) -> None:
        if body.endswith(b"\n"):
            self.send(number, b"answer " * 10_000)
            self.finish(number)

    far = FarEnd(answer)
    with forwarder(far) as (connect, _):
        connection = connect()
        connection.sendall(b"question\n")
        assert read_all(connection) == b"answer " * 10_000


def test_a_program_that_shuts_its_writing_side_down_still_gets_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The agent would close the connection to the port at once if it were told."""
    asked = threading.Event()

    def answer(self: FarEnd, number: int, _body: bytes) -> None:
        assert asked.wait(10)
        self.send(number, b"late answer")
        self.finish(number)

    far = FarEnd(answer)
    with forwarder(far) as (connect, _):
        connection = connect()
        connection.sendall(b"question")
        connection.shutdown(socket.SHUT_WR)
        asked.set()
        assert read_all(connection) == b"late answer"


def test_in_the_end_the_other_side_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwards, "QUIET_SECONDS", 0.2)
    far = FarEnd(lambda *_: None)
    with forwarder(far) as (connect, _):
        connection = connect()
        connection.sendall(b"all there is")
        connection.shutdown(socket.SHUT_WR)
        until(lambda: far.finished == {3}, what="the end")
        assert far.got[3] == b"all there is"
        far.finish(3)
        assert read_all(connection) == b""


def test_a_port_where_nothing_listens_ends_the_one_connection() -> None:
    said: list[bool] = []

    def answer(self: FarEnd, number: int, _body: bytes) -> None:
        if number == 3:
            self.peer.send(Flag.CONNECT_TO_PORT_ERROR.payload(), PayloadType.FLAG)
            self.finish(number)
        else:
            self.send(number, b"fine")

    far = FarEnd(answer)
    with forwarder(far, on_unreachable=lambda: said.append(True)) as (connect, _):
        first = connect()
        first.sendall(b"x")
        assert read_all(first) == b""
        second = connect()
        second.sendall(b"x")
        assert second.recv(10) == b"fine"
    assert said == [True]


def test_a_program_that_is_gone_is_told_to_the_other_side() -> None:
    far = FarEnd(lambda self, number, body: self.send(number, b"z" * 100_000))
    with forwarder(far) as (connect, ended):
        connection = connect()
        connection.sendall(b"x")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()  # a reset
        until(lambda: far.finished == {3}, what="the end")
    assert ended == [Ending.STOPPED]


def test_one_that_does_not_read_bounds_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwards, "_WAITING_LIMIT", 100_000)
    total = 12_000_000
    far = FarEnd(lambda self, number, _body: self.send(number, b"z" * total))
    with forwarder(far) as (connect, _):
        connection = connect()
        connection.sendall(b"x")
        time.sleep(0.5)  # the point of the test: it does not read
        got = 0
        while got < total:
            got += len(connection.recv(1 << 20))
        assert got == total


def test_one_that_does_not_read_for_long_cuts_nobody_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A paused download: nothing of the peer is read, its acknowledgements neither."""
    clock = Clock(monkeypatch, channels, loops, websockets)
    pipes = Pipes()

    def answer(self: FarEnd, number: int, body: bytes) -> None:
        if body != b"x":
            return
        frame = Frame(Command.PSH, number, b"z" * FRAME).encode()
        left = self.peer.send_until(lambda: not channel.listening, frame) * FRAME
        for rounds in range(1, 5):
            clock.ahead += 120
            os.write(pipes.writer, b"more")  # which wakes the forwarder
            until(lambda: self.peer.pings == rounds, what="a ping")  # noqa: B023 - called here
        while left:
            left -= len(os.read(pipes.reader, min(left, 65536)))
        self.finish(number)

    far = FarEnd(answer)
    with scripted(far) as opening:
        channel = ClientChannel(opening, resume=lambda: opening)
        made = MuxPump(channel, pipes.source, pipes.sink)
        os.write(pipes.writer, b"x")
        assert made.run() is Ending.CLOSED
        channel.terminate(time.monotonic())
        channel.close()
    assert channel.reconnects == 0
    pipes.close()


def test_the_end_of_the_session_ends_it() -> None:
    far = FarEnd(lambda self, _number, _body: self.peer.close_channel("Session timed out"))
    with forwarder(far) as (connect, ended):
        connection = connect()
        connection.sendall(b"x")
        assert read_all(connection) == b""
        until(lambda: ended, what="the end")
    assert ended == [Ending.CLOSED]


def test_bytes_that_are_no_frames_end_it_with_the_reason() -> None:
    far = FarEnd(lambda self, _number, _body: self.peer.send(b"HTTP/1.1 400 Bad Request"))
    with forwarder(far) as (connect, ended):
        connect().sendall(b"x")
        until(lambda: ended, what="the end")
    assert "not a frame of smux 1" in str(ended[0])


def test_one_pair_of_descriptors_instead_of_a_listener() -> None:
    """How `smssh proxy` reaches a port where SSH's own document is not allowed."""

    def answer(self: FarEnd, number: int, body: bytes) -> None:
        self.send(number, body.upper())
        if body == b"bye":
            self.finish(number)

    pipes = Pipes()
    with scripted(FarEnd(answer)) as opening:
        channel = ClientChannel(opening, resume=lambda: opening)
        made = MuxPump(channel, pipes.source, pipes.sink)
        os.write(pipes.writer, b"bye")
        assert made.run() is Ending.CLOSED
        channel.terminate(time.monotonic())
        channel.close()
    assert os.read(pipes.reader, 10) == b"BYE"
    assert made.received > 3
    pipes.close()
    pipes = Pipes()
    far = FarEnd(lambda *_: None)
    with scripted(far) as opening:
        channel = ClientChannel(opening, resume=lambda: opening)
        made = MuxPump(channel, pipes.source, pipes.sink)
        os.write(pipes.writer, b"the last words")
        os.close(pipes.writer)
        assert made.run() is Ending.SOURCE
        channel.terminate(time.monotonic())
        channel.close()
    assert (far.got, far.finished) == ({3: b"the last words"}, {3})
    pipes.close()


def test_what_was_written_before_a_hangup_arrives_through_a_forward_too() -> None:
    """ssh writes its disconnect message, and sends SIGHUP at once."""
    pipes = Pipes()
    wake, waker = os.pipe()

    def answer(_self: FarEnd, _number: int, body: bytes) -> None:
        if body == b"x":
            os.write(pipes.writer, b"goodbye" * 9000)
            os.write(waker, b"x")

    far = FarEnd(answer)
    with scripted(far) as opening:
        channel = ClientChannel(opening, resume=lambda: opening)
        os.write(pipes.writer, b"x")
        assert MuxPump(channel, pipes.source, pipes.sink, wake=wake).run() is Ending.STOPPED
        channel.terminate(time.monotonic())
        channel.close()
    assert far.got[3] == b"x" + b"goodbye" * 9000
    pipes.close()
    os.close(wake)
    os.close(waker)


def test_a_pair_whose_reader_is_gone_is_over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What still waits for it is waited for no longer."""
    monkeypatch.setattr(loops, "_LINGER", 3600.0)
    pipes = Pipes()
    with scripted(FarEnd(lambda self, number, _body: self.send(number, b"z" * 100_000))) as opening:
        channel = ClientChannel(opening, resume=lambda: opening)
        made = MuxPump(channel, pipes.source, pipes.sink)
        os.close(pipes.reader)
        os.write(pipes.writer, b"x")
        assert made.run() is Ending.SINK
        channel.terminate(time.monotonic())
        channel.close()
    pipes.close()
