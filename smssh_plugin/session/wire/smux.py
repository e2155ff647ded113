"""smux version 1, the client's side: several connections in the one stream of a port forwarding session.

By hand: xtaci/smux, which the agent has, is a Go library, and the client's half of it is one page.

The agent's side is github.com/xtaci/smux with its defaults (`agent/session/plugins/port/port_mux.go`). A frame has a
header of 8 bytes, little endian: version (1), command, length of the data, number of the connection. No input or
output here, and no keep-alive: the agent does without since 3.1.1511, and NOPs would defeat the idle time-out.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from .frames import FrameError

__all__ = ["FRAME", "Command", "Frame", "Mux"]

FRAME = 32768
"""Bytes of data in a frame at most (`MaxFrameSize`)."""
_HEADER = struct.Struct("<BBHI")
_VERSION = 1


class Command(enum.IntEnum):
    """What a frame says."""

    SYN = 0
    """A new connection."""
    FIN = 1
    """The sender sends no more. The agent closes the connection to the port when it hears it."""
    PSH = 2
    """Data."""
    NOP = 3


class Frame(NamedTuple):
    """One frame."""

    command: Command
    connection: int
    data: bytes = b""

    def encode(self) -> bytes:
        """The bytes on the wire."""
        return _HEADER.pack(_VERSION, self.command, len(self.data), self.connection) + self.data


class Mux:
    """Makes frames of connections, and of bytes that come in whatever pieces frames again."""

    def __init__(self) -> None:
        self._last = 1
        self._partial = bytearray()

    def next(self) -> int:
        """The number of a new connection. Numbers are odd on a client's side."""
        self._last += 2
        return self._last

    def open(self, connection: int) -> bytes:
        """The bytes that begin a connection."""
        return Frame(Command.SYN, connection).encode()

    def data(self, connection: int, data: bytes) -> bytes:
        """The bytes that carry `data`."""
        return b"".join(
            Frame(Command.PSH, connection, data[start : start + FRAME]).encode()
            for start in range(0, len(data), FRAME)
        )

    def finish(self, connection: int) -> bytes:
        """The bytes that end a connection."""
        return Frame(Command.FIN, connection).encode()

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes of the peer; the frames that are whole by now.

        Raises:
            FrameError: they are not of this protocol.
        """
        self._partial += data
        frames: list[Frame] = []
        start = 0
        while len(self._partial) - start >= _HEADER.size:
            version, command, length, connection = _HEADER.unpack_from(self._partial, start)
            if version != _VERSION or command > Command.NOP:
                raise FrameError(f"not a frame of smux 1: version {version}, command {command}")
            end = start + _HEADER.size + length
            if len(self._partial) < end:
                break
            body = bytes(self._partial[start + _HEADER.size : end])
            frames.append(Frame(Command(command), connection, body))
            start = end
        del self._partial[:start]
        return frames
