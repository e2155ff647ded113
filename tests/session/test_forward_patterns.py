"""Connections in the patterns that browsers, scripts and tools have: short, many, half closed; and descriptors."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from smssh_plugin.session import forward_loop as forwards
from smssh_plugin.session import loop as loops
from smssh_plugin.session.local_peer import LocalPeers
from smssh_plugin.session.wire import channel as channels
from smssh_plugin.session.wire import websocket as websockets
from smssh_plugin.session.wire.smux import FRAME, Command, Frame
from tests.session.wire.test_smux import FarEnd, forwarder, read_all
from tests.waiting import until

from .peer import Clock
from .test_kinds import Forward, echoed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import World

linux = pytest.mark.applies(sys.platform == "linux", "asks Linux's kernel")


@pytest.fixture
def for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing ends because it is quiet."""
    monkeypatch.setattr(forwards, "QUIET_SECONDS", 3600.0)


@linux
def test_short_connections_one_after_another(for_ever: None) -> None:
    """Each is told to the other side when its program closes it: they do not add up."""
    far = FarEnd(lambda self, number, body: self.send(number, body))
    with forwarder(far) as (connect, _):
        for number in range(230):
            with connect() as connection:
                connection.sendall(b"%d" % number)
                assert connection.recv(10) == b"%d" % number
        until(lambda: len(far.finished) == 230, seconds=30, what="the end of all connections")


@linux
def test_what_is_sent_before_a_close_arrives(for_ever: None) -> None:
    far = FarEnd(lambda *_: None)
    with forwarder(far) as (connect, _):
        with connect() as connection:
            connection.sendall(b"fire and forget")
        until(lambda: far.finished == {3}, what="the end")
        assert far.got[3] == b"fire and forget"


@linux
def test_one_that_is_half_closed_first_and_then_gone(for_ever: None) -> None:
    far = FarEnd(lambda *_: None)
    with forwarder(far) as (connect, _):
        connection = connect()
        connection.sendall(b"question")
        connection.shutdown(socket.SHUT_WR)
        until(lambda: far.got.get(3) == b"question", what="the question")
        far.send(3, b"part")
        assert connection.recv(10) == b"part"  # half closed is not closed
        assert not far.finished
        connection.close()
        until(lambda: far.finished == {3}, what="the end")


def test_more_connections_at_once_than_a_fixed_number(for_ever: None) -> None:
    far = FarEnd(lambda self, number, body: self.send(number, body))
    with forwarder(far) as (connect, _):
        connections = [connect() for _ in range(250)]
        for connection in reversed(connections):
            connection.sendall(b"x")
        assert [connection.recv(1) for connection in connections] == [b"x"] * 250


def test_where_the_kernel_does_not_say_who_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalPeers, "closed", lambda *_: None)
    monkeypatch.setattr(forwards, "QUIET_SECONDS", 0.3)
    far = FarEnd(lambda self, number, body: self.send(number, body))
    with forwarder(far) as (connect, _):
        with connect() as connection:
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
        until(lambda: far.finished == {3}, what="the end")


def test_a_slow_reader_gets_everything_after_it_has_said_its_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is finished, and even old: what waits for it is kept."""
    total = 8_000_000
    monkeypatch.setattr(forwards, "QUIET_SECONDS", 0.1)
    monkeypatch.setattr(forwards, "_WAITING_LIMIT", 2 * total)
    far = FarEnd(lambda self, number, _body: self.send(number, b"z" * total))
    with forwarder(far) as (connect, _):
        connection = connect()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # most of it waits in the forwarder
        connection.sendall(b"x")
        connection.shutdown(socket.SHUT_WR)
        until(lambda: far.forwarder.received > total, seconds=60, what="all that was sent")
        until(lambda: far.finished == {3}, seconds=60, what="the end of what it says")
        monkeypatch.setattr(forwards, "GONE_SECONDS", 0.0)
        assert len(read_all(connection)) == total


def test_one_that_does_not_read_costs_another_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """While it keeps the channel from being read, the answer to another is not missing, however long that takes."""
    monkeypatch.setattr(forwards, "QUIET_SECONDS", 60.0)  # of which filling it takes none that is noticed
    monkeypatch.setattr(forwards, "_WAITING_LIMIT", 1_000_000)
    clock = Clock(monkeypatch, channels, loops, websockets)
    asked = threading.Event()
    read = threading.Event()

    def answer(self: FarEnd, number: int, _body: bytes) -> None:
        if number == 3:
            assert asked.wait(30)
            return
        frame = Frame(Command.PSH, number, b"z" * FRAME).encode()
        self.peer.send_until(lambda: not self.channel.listening, frame)
        for rounds in range(1, 4):
            clock.ahead += 120
            connect()  # which wakes the forwarder
            until(lambda: self.peer.pings == rounds, what="a ping")  # noqa: B023 - called here
        read.set()
        self.send(3, b"late answer")
        self.finish(3)

    far = FarEnd(answer)
    with forwarder(far, tmp_path / "port") as (connect, _):
        quiet = connect()
        quiet.sendall(b"question")
        quiet.shutdown(socket.SHUT_WR)
        asked.set()
        paused = connect()
        paused.sendall(b"x")
        assert read.wait(60)
        reading = threading.Thread(target=read_all, args=(paused,))
        reading.start()
        assert read_all(quiet) == b"late answer"
        paused.shutdown(socket.SHUT_RDWR)
        reading.join(20)


@linux
def test_the_kernel_tells_a_close_from_a_half_close() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, LocalPeers() as peers:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            assert peers.closed(accepted) is False
            client.shutdown(socket.SHUT_WR)
            assert accepted.recv(1) == b""
            assert peers.closed(accepted) is False
            client.close()
            until(lambda: peers.closed(accepted), what="the close")
        left, right = socket.socketpair()
        with left, right:
            assert peers.closed(left) is None


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def forwarding(world: World, *under: str) -> Iterator[Forward]:
    forward = Forward(world, world.echo.port, under=under)
    try:
        yield forward
        assert forward.end() == 0
    finally:
        forward.process.kill()
        forward.process.communicate()


@linux
@pytest.mark.e2e
def test_no_descriptor_is_left(world: World) -> None:
    with forwarding(world) as forward:
        pid = forward.process.pid
        with forward.connect() as connection:  # the descriptor that asks the kernel is made now
            assert echoed(connection, b"x") == b"x"
        until(lambda: not world.echo.open, what="the end of the first")
        before = until(lambda: _descriptors(pid), what="its descriptors")
        data = [b"%d" % number for number in range(60)]
        for one in data:
            with forward.connect() as connection:
                assert echoed(connection, one) == one
        at_once = [forward.connect() for _ in data]
        assert [echoed(*pair) for pair in zip(at_once, data, strict=True)] == data
        for number, connection in enumerate(at_once):
            if number % 2:
                connection.shutdown(socket.SHUT_WR)
            connection.close()
        until(lambda: _descriptors(pid) <= before, seconds=30, what="the end of its descriptors")
        until(lambda: not world.echo.open, seconds=30, what="the end of the server's connections")


@linux
@pytest.mark.e2e
def test_out_of_descriptors_it_waits_and_does_not_spin(world: World) -> None:
    limit = 40
    with forwarding(world, "prlimit", f"--nofile={limit}:{limit}") as forward:
        pid = forward.process.pid
        connections = [forward.connect() for _ in range(limit + 20)]
        for connection in connections:
            connection.sendall(b"x")
        until(lambda: _descriptors(pid) >= limit - 1, what="the last descriptor")
        spent = _processor_seconds(pid)
        waited = threading.Event()
        waited.wait(2.0)  # the point of the test: what it does while nothing can be done
        assert _processor_seconds(pid) - spent < 0.5
        served = 0
        while connections:  # each that ends makes room for another
            connection = connections.pop(0)
            assert connection.recv(1) == b"x"
            connection.close()
            served += 1
        assert served == limit + 20
