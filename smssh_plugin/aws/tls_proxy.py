"""TLS within TLS: through a proxy that is itself reached by TLS (`HTTPS_PROXY=https://...`).

Python's ssl wraps sockets of the kernel only. Here a thread moves bytes between the proxy's TLS and one end of a pair
of such sockets; the other end is wrapped, polled and closed like any connection.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading

__all__ = ["relayed"]

CHUNK = 128 * 1024
BUFFER = 1024 * 1024
"""Bytes that wait in each direction, at most, before no more are read."""


def relayed(tunnel: ssl.SSLSocket) -> socket.socket:
    """A socket of the kernel whose bytes go through a TLS connection, which is closed with it.

    Args:
        tunnel: connected; it may have received bytes already. It belongs to the relay from now on.

    Raises:
        OSError: there can be no more sockets or threads; `tunnel` is as it was then.
    """
    ours, theirs = socket.socketpair()
    try:
        threading.Thread(target=_Relay(tunnel, ours).run, name="tls-proxy", daemon=True).start()
    except RuntimeError as error:
        ours.close()
        theirs.close()
        raise OSError(str(error)) from error
    return theirs


class _Relay:
    """Moves bytes until one of both sides has ended."""

    def __init__(self, tunnel: ssl.SSLSocket, near: socket.socket) -> None:
        self._tunnel = tunnel
        self._near = near
        self._up = bytearray()
        self._down = bytearray()
        self._far_open = True
        self._near_open = True
        self._read_wants_write = False
        self._write_wants_read = False

    def run(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._near, self._tunnel:
            self._tunnel.setblocking(False)
            self._near.setblocking(False)
            with selectors.DefaultSelector() as selector:
                selector.register(self._near, selectors.EVENT_READ)
                selector.register(self._tunnel, selectors.EVENT_READ)
                while self._move():
                    self._wait(selector)

    def _move(self) -> bool:
        """Move what can be moved at once; False: there is nothing to move any more.

        Who closes the near side is gone altogether, as programs that speak TLS do; what they wrote before still goes
        out. What the far side wrote before its end is still delivered.
        """
        self._receive()
        self._deliver()
        self._take()
        self._send()
        return bool(self._down or self._far_open) and bool(self._up or self._near_open)

    def _wait(self, selector: selectors.BaseSelector) -> None:
        near = selectors.EVENT_READ if self._near_open and len(self._up) < BUFFER else 0
        near |= selectors.EVENT_WRITE if self._down else 0
        room = self._far_open and len(self._down) < BUFFER
        far = selectors.EVENT_READ if room or self._write_wants_read else 0
        far |= selectors.EVENT_WRITE if self._read_wants_write else 0
        far |= selectors.EVENT_WRITE if self._up and not self._write_wants_read else 0
        for side, events in ((self._near, near), (self._tunnel, far)):
            known = side in selector.get_map()
            if known and not events:
                selector.unregister(side)
            elif known:
                selector.modify(side, events)
            elif events:
                selector.register(side, events)
        # What TLS has decrypted already makes no socket readable.
        selector.select(0 if room and self._tunnel.pending() else None)

    def _receive(self) -> None:
        """From the proxy."""
        self._read_wants_write = False
        while self._far_open and len(self._down) < BUFFER:
            try:
                data = self._tunnel.recv(CHUNK)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLWantWriteError:
                self._read_wants_write = True
                return
            except OSError:
                data = b""
            self._down += data
            self._far_open = bool(data)

    def _send(self) -> None:
        """To the proxy."""
        self._write_wants_read = False
        while self._up:
            try:
                # What had to wait is offered again from the same byte, never less of it, as OpenSSL demands.
                sent = self._tunnel.send(memoryview(self._up)[:CHUNK])
            except ssl.SSLWantWriteError:
                return
            except ssl.SSLWantReadError:
                self._write_wants_read = True
                return
            except OSError:
                self._up = bytearray()  # not `clear`: the error's traceback holds a view of it
                self._far_open = False
                return
            del self._up[:sent]

    def _take(self) -> None:
        """From who uses the near socket."""
        while self._near_open and len(self._up) < BUFFER:
            try:
                data = self._near.recv(CHUNK)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            self._up += data
            self._near_open = bool(data)

    def _deliver(self) -> None:
        """To who uses the near socket."""
        while self._down:
            try:
                sent = self._near.send(memoryview(self._down)[:CHUNK])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # it was closed
                self._down = bytearray()
                self._near_open = False
                return
            del self._down[:sent]
