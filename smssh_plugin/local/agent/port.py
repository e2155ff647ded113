"""Port sessions that carry the bytes of one connection, as AWS-StartSSHSession does."""

from __future__ import annotations

import re
import select
from typing import TYPE_CHECKING, Any

from ...errors import SmsshError
from ...session.wire.frames import Flag, PayloadType
from .agent_stream import CHUNK
from .dial import Destination, DialError, Dialing
from .session_kind import Output, Plugin, Result, Task
from .smux_server import MuxServer

if TYPE_CHECKING:
    import socket

__all__ = ["PortSession"]

FORWARDING = "LocalPortForwarding"
MUX_VERSION = (1, 1, 70)
"""The first version of the plugin that speaks smux; older ones get one connection at a time."""
_WAITING_MAX = 1 << 20
_READ = 64 * CHUNK


class PortSession(Plugin):
    """The Port plugin: chooses between one connection and many when it knows the client."""

    def __init__(self, task: Task, output: Output) -> None:
        super().__init__(task, output)
        given = task.properties if isinstance(task.properties, dict) else {}
        self._type = str(given.get("type") or "")
        self._destination = Destination(
            str(given.get("host") or ""), str(given.get("portNumber") or ""), task.configuration.denied
        )
        self._inner: MuxServer | _Connection | None = None

    @staticmethod
    def properties(task: Task) -> Any:
        """The document's own."""
        return task.properties

    def start(self, client_version: str) -> None:
        """Connect, or wait for streams to connect for."""
        if self._type == FORWARDING and _version(client_version) >= MUX_VERSION:
            self._inner = MuxServer(self._destination, self.output)
        else:
            self._inner = _Connection(self._destination, self.output, again=self._type == FORWARDING)

    @property
    def ready(self) -> bool:
        """Whether there is something to write to."""
        return self._inner is not None and self._inner.ready

    @property
    def full(self) -> bool:
        """Whether the destination is slower than the client."""
        return self._inner is not None and self._inner.full

    def take(self, payload_type: int, payload: bytes) -> None:
        """Bytes, or a flag."""
        assert self._inner is not None
        if payload_type == PayloadType.OUTPUT:
            self._inner.write(payload)
        elif payload_type == PayloadType.FLAG:
            flag = int.from_bytes(payload[:4], "big")
            if flag == Flag.TERMINATE_SESSION:
                self.result = Result.success()
            elif flag == Flag.DISCONNECT_TO_PORT:
                self._inner.disconnect()

    def watched(self) -> dict[int, int]:
        """The connections."""
        return self._inner.watched() if self._inner is not None else {}

    def act(self, ready: dict[int, int]) -> None:
        """Move bytes."""
        if self._inner is not None:
            self._inner.act(ready)
            self.result = self.result or self._inner.result

    def close(self) -> None:
        """Close the connections."""
        if self._inner is not None:
            self._inner.close()


class _Connection:
    """One connection. With `again` it is made anew for what the client sends after the other end closed it."""

    def __init__(self, destination: Destination, output: Output, *, again: bool) -> None:
        self.result: Result | None = None
        self._destination = destination
        self._output = output
        self._again = again
        self._socket: socket.socket | None = None
        self._dialing: Dialing | None = self._dial()
        self._lost = False
        self._waiting = bytearray()

    def _dial(self) -> Dialing:
        try:
            return Dialing(self._destination)
        except DialError as error:
            raise SmsshError(f"Unable to connect to specified port: {error}") from error

    @property
    def ready(self) -> bool:
        return self._socket is not None or self._lost

    @property
    def full(self) -> bool:
        return len(self._waiting) >= _WAITING_MAX

    def write(self, data: bytes) -> None:
        self._waiting += data
        if self._lost:
            self._lost = False
            self._dialing = self._dial()

    def disconnect(self) -> None:
        if self._socket is not None:
            self._end("use of closed network connection")

    def watched(self) -> dict[int, int]:
        if self._dialing is not None:
            return {self._dialing.fileno(): select.POLLOUT}
        if self._socket is None:
            return {}
        wanted = select.POLLIN if self._output.open else 0
        return {self._socket.fileno(): wanted | (select.POLLOUT if self._waiting else 0)}

    def act(self, ready: dict[int, int]) -> None:
        if self._dialing is not None:
            try:
                self._socket = self._dialing.step()
            except DialError as error:
                raise SmsshError(f"Unable to connect to specified port: {error}") from error
            if self._socket is None:
                return
            self._dialing = None
        if self._socket is None:
            return
        events = ready.get(self._socket.fileno(), 0)
        if self._waiting:
            self._flush(self._socket)
        if events & (select.POLLIN | select.POLLHUP | select.POLLERR) and self._output.open:
            self._read(self._socket)

    def _flush(self, connection: socket.socket) -> None:
        try:
            sent = connection.send(self._waiting)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            sent = len(self._waiting)  # the end of reading says how it ended
        del self._waiting[:sent]

    def _read(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(str(error.strerror))
            return
        if not data:
            self._end("")
            return
        for start in range(0, len(data), CHUNK):
            self._output.send(PayloadType.OUTPUT, data[start : start + CHUNK])

    def _end(self, trouble: str) -> None:
        self.close()
        if self._again:
            self._lost = True
        else:
            # The real agent fails without a word to the user; its log has the reason.
            self.result = Result.failed("") if trouble else Result.success()

    def close(self) -> None:
        if self._dialing is not None:
            self._dialing.close()
        if self._socket is not None:
            self._socket.close()
        self._dialing = self._socket = None
        self._waiting.clear()


def _version(text: str) -> tuple[int, ...]:
    """A version's numbers; () if it is not a version."""
    return tuple(map(int, text.split("."))) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})*", text) else ()
