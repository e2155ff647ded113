"""Many connections over one Port session: the server's side of smux, version 1.

What the real agent uses (github.com/xtaci/smux, in agent/session/plugins/port/port_mux.go). A frame is a
header of 8 bytes, little endian: version, command, length, stream id; and the payload of a PSH. The client
opens streams; there is no window, so that one slow destination holds up all of them once 4 MiB wait for it,
and no half-close: when either end of a stream is done, both directions are.
"""

from __future__ import annotations

import select
import struct
from typing import TYPE_CHECKING

from ...errors import SmsshError
from ...session.wire.frames import Flag, PayloadType
from .agent_stream import CHUNK
from .dial import DialError, Dialing

if TYPE_CHECKING:
    import socket

    from .dial import Destination
    from .session_kind import Output, Result

__all__ = ["MuxServer"]

HEADER = struct.Struct("<BBHI")
VERSION = 1
SYN, FIN, PSH, NOP = range(4)
FRAME_MAX = 32768
"""Bytes of a frame's payload that we send (`MaxFrameSize`); 65,535 are taken."""
BUFFER_MAX = 4 * 1024 * 1024
"""Bytes that may wait for all destinations together (`MaxReceiveBuffer`)."""
STREAMS_MAX = 1024
"""Streams at the same time (`defaultAcceptBacklog`): a stream more is turned away."""
_READ_MAX = 60 * CHUNK
_SENDING_MAX = 64 * CHUNK


class _Stream:
    """One stream, and its connection."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.dialing: Dialing | None = None
        self.socket: socket.socket | None = None
        self.waiting = bytearray()
        self.finished = False
        """The client has closed it: what waits is written, then the connection is closed."""

    def close(self) -> None:
        for part in (self.dialing, self.socket):
            if part is not None:
                part.close()


class MuxServer:
    """The server of a session's streams.

    Args:
        destination: where every stream leads.
        output: the way to the client.
    """

    ready = True

    def __init__(self, destination: Destination, output: Output) -> None:
        self.result: Result | None = None
        self._destination = destination
        self._output = output
        self._streams: dict[int, _Stream] = {}
        self._input = bytearray()
        self._sending = bytearray()
        self._waiting = 0

    @property
    def full(self) -> bool:
        """Whether the destinations, or the client itself, are slower than what the client asks for."""
        return self._waiting >= BUFFER_MAX or len(self._sending) >= BUFFER_MAX

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    def write(self, data: bytes) -> None:
        """Take bytes of the client, in whatever pieces.

        Raises:
            SmsshError: they are not smux.
        """
        self._input += data
        start = 0
        while len(self._input) - start >= HEADER.size:
            version, command, length, number = HEADER.unpack_from(self._input, start)
            if version != VERSION or command > NOP:
                raise SmsshError(f"invalid protocol: version {version}, command {command}")
            end = start + HEADER.size + (length if command == PSH else 0)
            if end > len(self._input):
                break
            self._take(command, number, bytes(self._input[start + HEADER.size : end]))
            start = end
        del self._input[:start]

    def disconnect(self) -> None:
        """A flag for sessions of one connection."""

    def _take(self, command: int, number: int, payload: bytes) -> None:
        stream = self._streams.get(number)
        if command == SYN and stream is None:
            self._open(number)
        elif command == FIN and stream is not None:
            stream.finished = True
            self._settle(stream)
        elif command == PSH and stream is not None and not stream.finished:
            stream.waiting += payload
            self._waiting += len(payload)

    def _open(self, number: int) -> None:
        if len(self._streams) >= STREAMS_MAX:
            self._frame(FIN, number)
            return
        stream = self._streams[number] = _Stream(number)
        try:
            stream.dialing = Dialing(self._destination)
        except DialError:
            self._refuse(stream)

    def _refuse(self, stream: _Stream) -> None:
        self._output.send(PayloadType.FLAG, Flag.CONNECT_TO_PORT_ERROR.payload())
        self._drop(stream)

    def _drop(self, stream: _Stream) -> None:
        """Close a stream from our side."""
        self._frame(FIN, stream.number)
        self._waiting -= len(stream.waiting)
        stream.close()
        del self._streams[stream.number]

    def _settle(self, stream: _Stream) -> None:
        """Close a stream that the client has finished, once nothing waits any more."""
        if stream.finished and not stream.waiting and stream.number in self._streams:
            self._drop(stream)

    def _frame(self, command: int, number: int, payload: bytes = b"") -> None:
        self._sending += HEADER.pack(VERSION, command, len(payload), number) + payload

    @property
    def _reading(self) -> bool:
        return self._output.open and len(self._sending) < _SENDING_MAX

    def watched(self) -> dict[int, int]:
        """The connections."""
        wanted: dict[int, int] = {}
        for stream in self._streams.values():
            if stream.dialing is not None:
                wanted[stream.dialing.fileno()] = select.POLLOUT
            elif stream.socket is not None:
                events = select.POLLIN if self._reading else 0
                wanted[stream.socket.fileno()] = events | (select.POLLOUT if stream.waiting else 0)
        return wanted

    def act(self, ready: dict[int, int]) -> None:
        """Connect, write, read, and send what has come together."""
        for stream in list(self._streams.values()):
            if stream.dialing is not None and not self._connect(stream):
                continue
            connection = stream.socket
            if connection is None:
                continue
            events = ready.get(connection.fileno(), 0)
            if stream.waiting:
                self._flush(stream, connection)
            self._settle(stream)
            if (
                events & (select.POLLIN | select.POLLHUP | select.POLLERR)
                and stream.number in self._streams
                and self._reading
            ):
                self._read(stream, connection)
        while self._sending and self._output.open:
            self._output.send(PayloadType.OUTPUT, bytes(self._sending[:CHUNK]))
            del self._sending[:CHUNK]

    def _connect(self, stream: _Stream) -> bool:
        assert stream.dialing is not None
        try:
            stream.socket = stream.dialing.step()
        except DialError:
            self._refuse(stream)
            return False
        if stream.socket is None:
            return False
        stream.dialing = None
        return True

    def _flush(self, stream: _Stream, connection: socket.socket) -> None:
        try:
            sent = connection.send(stream.waiting)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            sent = len(stream.waiting)
        del stream.waiting[:sent]
        self._waiting -= sent

    def _read(self, stream: _Stream, connection: socket.socket) -> None:
        try:
            data = connection.recv(min(FRAME_MAX, _READ_MAX))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if data:
            self._frame(PSH, stream.number, data)
        else:
            self._drop(stream)

    def close(self) -> None:
        """Close every connection."""
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()
        self._waiting = 0
