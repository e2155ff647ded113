"""One websocket of an agent or a client, as the session service has it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from ...session.wire.frames import MAX_PAYLOAD, FrameError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ...session.wire.frames import Message

__all__ = ["INVALID", "POLICY", "ChannelEnd", "kind_of", "sequence_of"]

INVALID = 1007
"""Close code for a malformed message (RFC 6455, 7.4.1)."""
POLICY = 1008
"""Close code for a channel that somebody may not open."""
GOING_AWAY = 1001

_HELLO_SECONDS = 10.0
_CLOSE_SECONDS = 1.0
_SEND_SECONDS = 5.0
"""For what the service itself has to say, to somebody who may not be reading."""
_REASON_MAX = 123
_HEADER = struct.Struct(">I32s")
_SIZE = struct.Struct(">I")
_HEADER_LENGTH = 116
_SEQUENCE = struct.Struct(">q")
_SEQUENCE_AT = 48
_UNDER_WAY_MAX = 64
"""Messages that are under way on one connection before the sender has to wait."""
_MESSAGE_MAX = MAX_PAYLOAD + 4096


def kind_of(data: bytes) -> str:
    """The type of a binary message, with no more than a look at its frame.

    Raises:
        FrameError: it is not a message.
    """
    if len(data) < _HEADER_LENGTH + _SIZE.size:
        raise FrameError(f"a message has at least {_HEADER_LENGTH + _SIZE.size} bytes, not {len(data)}")
    length, name = _HEADER.unpack_from(data)
    if not _HEADER_LENGTH <= length <= len(data) - _SIZE.size:
        raise FrameError(f"the header's length is {_HEADER_LENGTH}, not {length}")
    (size,) = _SIZE.unpack_from(data, _HEADER_LENGTH)
    if size != len(data) - length - _SIZE.size:
        raise FrameError(f"{size} bytes of payload were announced, {len(data) - length - 4} are there")
    text: bytes = name.rstrip(b" \0")
    if not text.isascii() or not text:
        raise FrameError(f"the message type is not ASCII: {name!r}")
    return text.decode()


def sequence_of(data: bytes) -> int:
    """The sequence number of a binary message that `kind_of` took."""
    number: int
    (number,) = _SEQUENCE.unpack_from(data, _SEQUENCE_AT)
    return number


@dataclass(eq=False)
class ChannelEnd:
    """A websocket.

    Args:
        socket: the websocket, open.
        request: its upgrade.
        side: `client`, `agent` or `control`.
        subject: the session's id; the node's for `control`.
    """

    socket: web.WebSocketResponse
    request: web.Request
    side: str
    subject: str
    moved: int = 0
    """Bytes of messages, both ways together."""
    cut_at: int | None = None
    """How many of them are the last before the connection is cut."""
    latency: float = 0.0
    """Seconds that each message to the other end is under way."""
    _closing: asyncio.Task[None] | None = None
    _way: asyncio.Queue[tuple[float, bytes, asyncio.Future[None] | None]] | None = None
    _carrying: asyncio.Task[None] | None = None

    @classmethod
    async def accept(cls, request: web.Request, side: str, subject: str) -> ChannelEnd:
        """Upgrade a request."""
        socket = web.WebSocketResponse(timeout=_CLOSE_SECONDS, max_msg_size=_MESSAGE_MAX, compress=False)
        await socket.prepare(request)
        return cls(socket, request, side, subject)

    async def hello(self) -> dict[str, Any]:
        """The first message: text, with the token. Anything else is as good as no token."""
        with contextlib.suppress(asyncio.TimeoutError, ValueError, TypeError, RecursionError):
            body = json.loads(await self.socket.receive_str(timeout=_HELLO_SECONDS))
            if isinstance(body, dict):
                return body
        return {}

    async def messages(self) -> AsyncIterator[bytes]:
        """The binary messages, up to the end of the connection or its cut.

        Raises:
            FrameError: a message of text.
        """
        async for message in self.socket:
            if message.type is WSMsgType.BINARY:
                if self._cut(len(message.data)):
                    return
                yield message.data
            elif message.type is WSMsgType.TEXT:
                raise FrameError("a message of text where messages are binary")

    async def forward(self, data: bytes) -> None:
        """Send what somebody else sent. One who reads slowly holds up the one who writes."""
        if self.latency > 0 or self._way is not None:
            await self._set_out(data, None)
        else:
            await self._send(data)

    async def _set_out(self, data: bytes, arrived: asyncio.Future[None] | None) -> None:
        """Put a message on its way: in order, `latency` later at the other end."""
        if self._way is None:
            self._way = asyncio.Queue(_UNDER_WAY_MAX)
            self._carrying = asyncio.create_task(self._carry(self._way))
        assert self._carrying is not None
        if self._carrying.done():  # the connection is over
            if arrived is not None:
                arrived.set_result(None)
            return
        await self._way.put((time.monotonic() + self.latency, data, arrived))

    async def _carry(self, way: asyncio.Queue[tuple[float, bytes, asyncio.Future[None] | None]]) -> None:
        arrived: asyncio.Future[None] | None = None
        try:
            while True:
                due, data, arrived = await way.get()
                wait = due - time.monotonic()
                if wait > 0:
                    await asyncio.sleep(wait)
                await self._send(data)
                _settle(arrived)
                way.task_done()
        finally:
            # Nobody is to wait for what goes nowhere any more.
            _settle(arrived)
            while not way.empty():
                _settle(way.get_nowait()[2])

    async def _send(self, data: bytes) -> None:
        if self.socket.closed:
            return  # lost, as far as the sender can tell: it will send again
        if self._cut(len(data), data):
            return
        with contextlib.suppress(ConnectionError):
            await self.socket.send_bytes(data)

    async def say(self, message: Message) -> bool:
        """Send a message of the service's own; whether it went out. One who does not read is cut off."""
        try:
            await asyncio.wait_for(self._arrive(message.encode()), _SEND_SECONDS)
        except asyncio.TimeoutError:
            self.abort()
        return not self.socket.closed

    async def _arrive(self, data: bytes) -> None:
        """Send a message behind those that are under way; return when it went out."""
        if self.latency > 0 or self._way is not None:
            arrived = asyncio.get_running_loop().create_future()
            await self._set_out(data, arrived)
            await arrived
        else:
            await self._send(data)

    async def close(self, code: int, reason: str = "") -> None:
        """Close it, with the reason; returns when the other end has closed it too, or did not in time."""
        if self._closing is None:
            text = reason.encode("ascii", "replace")[:_REASON_MAX]
            self._closing = asyncio.create_task(self._close(code, text))
        await self.settle()

    async def settle(self) -> None:
        """Wait until a `close` that somebody else called is done.

        The request's handler has to: when it returns, the connection ends, and what the other end was sent
        and has not read may be lost with it.
        """
        if self._closing is not None:
            await asyncio.wait({self._closing})
        if self._carrying is not None:
            self._carrying.cancel()

    async def _close(self, code: int, text: bytes) -> None:
        if self.request.transport is None or self.request.transport.is_closing():
            return
        try:
            if self._way is not None:  # what was sent before goes first
                await asyncio.wait_for(self._way.join(), _SEND_SECONDS)
            await asyncio.wait_for(self.socket.close(code=code, message=text), _SEND_SECONDS)
        except (ConnectionError, RuntimeError):
            return
        except asyncio.TimeoutError:
            self.abort()

    def abort(self) -> None:
        """Cut it, with no closing handshake."""
        if self.request.transport is not None:
            self.request.transport.abort()

    def _cut(self, size: int, sending: bytes = b"") -> bool:
        """Reckon with bytes that move; whether they are too many, and the connection is cut.

        What is being sent when it happens arrives in part.
        """
        before, self.moved = self.moved, self.moved + size
        if self.cut_at is None or self.moved <= self.cut_at:
            return False
        transport = self.request.transport
        if sending and transport is not None and not self.socket.closed:
            transport.write(_frame(sending)[: max(0, self.cut_at - before)])
            transport.close()
        else:
            self.abort()
        return True


def _settle(arrived: asyncio.Future[None] | None) -> None:
    if arrived is not None and not arrived.done():
        arrived.set_result(None)


def _frame(data: bytes) -> bytes:
    """A websocket frame of a server, binary and whole (RFC 6455, 5.2)."""
    size = len(data)
    if size < 126:
        return struct.pack(">BB", 0x82, size) + data
    if size < 1 << 16:
        return struct.pack(">BBH", 0x82, 126, size) + data
    return struct.pack(">BBQ", 0x82, 127, size) + data
