"""A TCP relay that cuts websockets at random bytes."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

DATA_CHANNEL = b"GET /v1/data-channel/"


class Scissors:
    """Relays to a port; of the connections that open a data channel, it cuts some, at a random byte of either way.

    Args:
        port: where to.
        chance: the random numbers.
        mean: bytes, both ways together, after which a connection is cut on average.
        spared: bytes of each connection that are never cut.
    """

    def __init__(self, port: int, chance: random.Random, mean: float, spared: int = 0) -> None:
        self.cuts = 0
        self.cutting = True
        """Whether connections are cut that are opened from now on."""
        self._port = port
        self._chance = chance
        self._mean = mean
        self._spared = spared
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def open(self) -> int:
        """Connections that are open."""
        with self._lock:
            return len(self._open)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._relay, args=(connection,), daemon=True).start()

    def _budget(self) -> float:
        with self._lock:
            # Now and then in the first bytes: in the upgrade, or in the handshake.
            mean = self._mean if self._chance.random() < 0.8 else 2000.0
            return self._spared + self._chance.expovariate(1 / mean)

    def _relay(self, near: socket.socket) -> None:
        far = socket.create_connection(("127.0.0.1", self._port))
        with self._lock:
            self._open |= {near, far}
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        left = [float("inf")]
        try:
            first = near.recv(65536)
            if self.cutting and first.startswith(DATA_CHANNEL):
                left[0] = self._budget()
            back = threading.Thread(target=self._copy, args=(far, near, left), daemon=True)
            back.start()
            if self._pass_on(first, far, left):
                self._copy(near, far, left)
            back.join(60)
        except OSError:
            pass
        finally:
            for end in (near, far):
                end.close()
            with self._lock:
                self._open -= {near, far}

    def _copy(self, source: socket.socket, sink: socket.socket, left: list[float]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self._pass_on(data, sink, left):
                    return
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, data: bytes, sink: socket.socket, left: list[float]) -> bool:
        """Send what may be sent; False: the connection was cut with it."""
        with self._lock:
            allowed = int(min(len(data), max(0.0, left[0])))
            left[0] -= len(data)
            cut = left[0] <= 0
        sink.sendall(data[:allowed])
        if not cut:
            return True
        with self._lock:
            self.cuts += 1
            reset = self._chance.random() < 0.5
        if reset:
            sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        raise OSError("cut")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
