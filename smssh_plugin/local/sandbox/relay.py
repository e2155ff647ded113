"""Ways between the local emulator and a container that is in another network.

A listening socket of the container's loopback, got from within, is served here: every connection is passed on to
an endpoint of this machine. A packet never leaves either network; nothing else can be reached.
"""

from __future__ import annotations

import asyncio
import logging
import socket

__all__ = ["Relay", "SocketSource"]

_log = logging.getLogger(__name__)

_HIGH_WATER = 256 * 1024


class Relay:
    """Serves one listening socket until it is closed.

    Args:
        listener: the socket; closed at the end.
        host: where its connections lead.
        port: the port there.
    """

    def __init__(self, listener: socket.socket, host: str, port: int) -> None:
        self._listener = listener
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Serve it."""
        self._listener.setblocking(False)
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _End(self), sock=self._listener, backlog=128
        )

    def close(self) -> None:
        """Take no more connections: the container is gone. What it has sent before still arrives."""
        if self._server is not None:
            self._server.close()

    def lead_on(self, end: _End) -> None:
        """Connect the other side of a new connection."""
        task = asyncio.get_running_loop().create_task(self._connect(end))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, end: _End) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: _End(self, end), *self._target)
        except OSError as error:
            _log.info("a job's connection to %s:%s: %s", *self._target, error)
            end.abort()


class _End(asyncio.Protocol):
    """One side of a connection; what it gets goes out on the other.

    Args:
        relay: whose it is.
        other: the other side; None for the side that came first.
    """

    def __init__(self, relay: Relay, other: _End | None = None) -> None:
        self._relay = relay
        self.other = other
        self.transport: asyncio.Transport | None = None
        self.ended = False
        # Not by pause_reading: before Python 3.11.5, one that is paused in connection_made reads all the same.
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        first = self.other
        if first is None:
            self._relay.lead_on(self)
            return
        if first.transport is None or first.transport.is_closing():
            transport.abort()
            return
        first.other = self
        transport.writelines(first.early)
        first.early.clear()
        if first.ended:
            transport.write_eof()

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
        elif self.other.transport is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        other = self.other
        if other is None or other.transport is None:
            return True
        if other.ended:
            # Both have said all they had: flushed and closed.
            other.transport.close()
            return False
        other.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        other = self.other
        if other is not None and other.transport is not None:
            if error is None:
                other.transport.close()
            else:
                other.abort()

    def abort(self) -> None:
        """Cut it, as the other side was."""
        if self.transport is not None:
            self.transport.abort()


class SocketSource:
    """Sockets of a container's network.

    Args:
        control: the socket on which one is asked for; closed by `close`.
    """

    def __init__(self, control: socket.socket) -> None:
        control.setblocking(False)
        self._control = control
        self._turn = asyncio.Lock()

    async def connect(self, port: int) -> socket.socket:
        """Connect to a port of the container's loopback.

        Raises:
            OSError: nobody listens there, or the container has ended.
        """
        async with self._turn:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(self._control, b".")
            await _readable(self._control)
            _, descriptors, _, _ = socket.recv_fds(self._control, 1, 1)
        if not descriptors:
            raise ConnectionResetError("the container has ended")
        made = socket.socket(fileno=descriptors[0])
        try:
            made.setblocking(False)
            await loop.sock_connect(made, ("127.0.0.1", port))
        except BaseException:
            made.close()
            raise
        return made

    def listeners(self) -> list[socket.socket]:
        """The listening sockets that the container has sent already."""
        _, descriptors, _, _ = socket.recv_fds(self._control, 1, 16)
        return [socket.socket(fileno=descriptor) for descriptor in descriptors]

    def close(self) -> None:
        """Ask for no more."""
        self._control.close()


async def _readable(item: socket.socket) -> None:
    """Wait until something can be read."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(item, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(item)
