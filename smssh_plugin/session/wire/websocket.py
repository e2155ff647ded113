"""A websocket client on a plain non-blocking socket: the protocol by `websockets` (sans-IO), the rest here.

No asyncio: its import alone costs what the rest of `smssh proxy` does, and a proxy has one connection.
"""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import CONNECTING, OPEN, State
from websockets.uri import parse_uri

from ...aws import transport

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

__all__ = ["WebSocket", "WebSocketClosedError", "WebSocketRefusedError"]

MAX_MESSAGE = 16 * 1024 * 1024 + 4096
_READ = 128 * 1024
_READ_ROUNDS = 8


class WebSocketRefusedError(Exception):
    """No websocket came to be. `status` is the HTTP status, 0 where there was no answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class WebSocketClosedError(Exception):
    """The connection ended, in whatever way. `code` is the close code, None if it was cut."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f"closed with {code} {reason}".rstrip() if code else reason or "cut")
        self.code = code


class WebSocket:
    """One open websocket. Nothing blocks: poll `fileno()`, for writing too while `pending` is not 0.

    Args:
        url: `ws://` or `wss://`.
        headers: sent with the upgrade, besides the protocol's own.
        timeout: seconds for connecting and upgrading, in all.
        ca_bundle: a PEM file that replaces the trusted certificates; see `aws.transport`.

    Raises:
        WebSocketRefusedError: no connection, no trust, or no upgrade, with the reason.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = 20.0,
        ca_bundle: str | None = None,
    ) -> None:
        self._out = bytearray()
        self._fragments: list[bytes] = []
        self._text = False
        self._ready: list[bytes] = []
        self._ended: WebSocketClosedError | None = None
        self.last_received = time.monotonic()
        """When the peer was last heard of, on the monotonic clock."""
        deadline = time.monotonic() + timeout
        self._protocol = ClientProtocol(parse_uri(url), max_size=MAX_MESSAGE)
        try:
            self._socket = _connect(url, timeout, ca_bundle)
        except OSError as error:  # ssl.SSLError and timeouts are OSErrors
            raise WebSocketRefusedError(f"cannot connect to {urlsplit(url).netloc}: {error}") from error
        try:
            self._upgrade(headers or {}, deadline)
        except BaseException:
            self._socket.close()
            raise
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """The socket's descriptor; -1 after `close`."""
        return self._socket.fileno()

    @property
    def pending(self) -> int:
        """Bytes that wait to be written."""
        return len(self._out)

    def send_binary(self, data: bytes) -> None:
        """Queue a binary message; `flush` puts it out."""
        if self._protocol.state is OPEN:
            self._protocol.send_binary(data)
            self._collect()

    def send_text(self, text: str) -> None:
        """Queue a text message."""
        if self._protocol.state is OPEN:
            self._protocol.send_text(text.encode())
            self._collect()

    def ping(self) -> None:
        """Queue a ping, as the agent and the plugin do ("keepalive")."""
        if self._protocol.state is OPEN:
            self._protocol.send_ping(b"keepalive")
            self._collect()

    def flush(self) -> None:
        """Write what the socket takes.

        Raises:
            WebSocketClosedError: the connection is cut.
        """
        while self._out:
            try:
                written = self._socket.send(self._out)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError, InterruptedError):
                return
            except OSError as error:
                raise WebSocketClosedError(None, str(error)) from error
            del self._out[:written]

    def receive(self) -> list[bytes]:
        """The binary messages that have arrived whole. Text messages are passed over: nobody sends us any.

        Raises:
            WebSocketClosedError: the connection has ended, and everything before that has been returned.
        """
        if self._ended is not None:
            raise self._ended
        messages, self._ready = self._ready, []
        for _ in range(_READ_ROUNDS):
            try:
                data = self._socket.recv(_READ)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError, InterruptedError):
                break
            except OSError as error:
                self._ended = WebSocketClosedError(None, str(error))
                break
            if data:
                self.last_received = time.monotonic()
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
            for event in self._protocol.events_received():
                if isinstance(event, Frame):
                    self._take(event, messages)
            self._collect()
            if self._ended is None and (not data or self._protocol.close_expected()):
                self._ended = WebSocketClosedError(
                    self._protocol.close_code, self._protocol.close_reason or ""
                )
            if self._ended is not None or (len(data) < _READ and not _buffered(self._socket)):
                break
        if self._ended is not None and not messages:
            raise self._ended
        return messages

    @property
    def ended(self) -> bool:
        """Whether the next `receive` will raise: it needs no readable socket then."""
        return self._ended is not None

    def close(self, timeout: float = 0.2) -> None:
        """Send what is queued and a close frame, as far as that goes within `timeout` seconds, and close."""
        if self._socket.fileno() < 0:
            return
        if self._protocol.state is OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._collect()
        try:
            self._socket.settimeout(timeout)
            if self._out:
                self._socket.sendall(self._out)
        except OSError:
            pass  # it is over anyway
        finally:
            self._out.clear()
            self._socket.close()

    def abort(self) -> None:
        """Close without a close frame."""
        self._out.clear()
        self._socket.close()

    def _collect(self) -> None:
        for chunk in self._protocol.data_to_send():
            self._out += chunk

    def _take(self, frame: Frame, messages: list[bytes]) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._text = frame.opcode is Opcode.TEXT
        elif frame.opcode is not Opcode.CONT:
            return
        self._fragments.append(bytes(frame.data))
        if frame.fin:
            if not self._text:
                messages.append(b"".join(self._fragments))
            self._fragments.clear()

    def _upgrade(self, headers: Mapping[str, str], deadline: float) -> None:
        request = self._protocol.connect()
        for name, value in headers.items():
            if name.lower() != "host":
                request.headers[name] = value
        self._protocol.send_request(request)
        self._collect()
        try:
            self._socket.settimeout(max(0.1, deadline - time.monotonic()))
            self._socket.sendall(self._out)
            self._out.clear()
            while _state(self._protocol) is CONNECTING and self._protocol.handshake_exc is None:
                self._socket.settimeout(max(0.1, deadline - time.monotonic()))
                data = self._socket.recv(_READ)
                if data:
                    self._protocol.receive_data(data)
                else:
                    self._protocol.receive_eof()
                    break
        except TimeoutError:
            raise WebSocketRefusedError("no answer to the websocket upgrade") from None
        except OSError as error:
            raise WebSocketRefusedError(f"the websocket upgrade failed: {error}") from error
        for event in self._protocol.events_received():
            if isinstance(event, Frame):  # it came in one packet with the answer
                self._take(event, self._ready)
        failure = self._protocol.handshake_exc
        if isinstance(failure, InvalidStatus):
            response = failure.response
            body = bytes(response.body or b"")[:300].decode("utf-8", "replace").strip()
            raise WebSocketRefusedError(
                f"HTTP {response.status_code} {response.reason_phrase} {body}".rstrip(), response.status_code
            )
        if failure is not None:
            raise WebSocketRefusedError(f"the answer is not a websocket: {failure}")
        if _state(self._protocol) is not OPEN:
            raise WebSocketRefusedError("the connection was closed during the upgrade")


def _state(protocol: ClientProtocol) -> State:
    # A call, so that type checkers do not take the state for what it was at the last look.
    return protocol.state


def _buffered(sock: socket.socket) -> int:
    return sock.pending() if isinstance(sock, ssl.SSLSocket) else 0


def _connect(url: str, timeout: float, ca_bundle: str | None) -> socket.socket:
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise WebSocketRefusedError(f"not a websocket address: {url!r}")
    secure = parts.scheme == "wss"
    port = parts.port or (443 if secure else 80)
    sock = transport.open_socket(parts.hostname, port, timeout, secure=secure, ca_bundle=ca_bundle)
    return transport.wrap(sock, parts.hostname, ca_bundle) if secure else sock
