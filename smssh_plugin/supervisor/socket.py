"""The supervisor's Unix socket: messages as `protocol` has them, one thread for each connection."""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import os
import secrets
import select
import socket
import threading
from typing import TYPE_CHECKING, BinaryIO, Iterator

from .. import terminal
from ..entrypoints.supervisor_client import TOKEN
from ..errors import ExitStatus, SmsshError
from ..files import write_atomically
from . import protocol

if TYPE_CHECKING:
    from pathlib import Path

    from .operations import Operations

__all__ = ["Service"]

TOKEN_LIMIT = 5.0
"""Seconds in which a connection has to show the token."""
BEAT_SECONDS = 5.0
"""How often a process that waits for a decision hears that the supervisor is still there."""

_log = logging.getLogger("smssh.socket")


class _Peer:
    """One connection; several threads may send.

    Args:
        connection: its socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._lock = threading.Lock()

    def send(self, message: protocol.Message) -> None:
        """Send one message; one that cannot be sent becomes the error that says so.

        Raises:
            OSError: the other side has hung up.
        """
        try:
            line = protocol.encode(message)
        except (TypeError, ValueError) as error:
            _log.warning("an answer is not sent: %s", error)
            line = protocol.encode(
                _error(SmsshError(f"the answer cannot be sent: {error}", reference="bad-answer"))
            )
        with self._lock:
            self._socket.sendall(line)

    def say(self, line: str) -> None:
        """Have the other side write a line into the job's log."""
        try:
            self.send({"say": protocol.text(terminal.line(line))})
        except OSError as error:
            _log.debug("not said: %s", error)

    def gone(self) -> bool:
        """Whether the other side has hung up."""
        if not select.select([self._socket], [], [], 0)[0]:
            return False
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except OSError:
            return True


def _next(lines: BinaryIO) -> bytes:
    """The next message, b"" at the end.

    Raises:
        ValueError: it has more than `protocol.LIMIT` bytes; it is read to its end, and what follows is the next one.
    """
    line = lines.readline(protocol.LIMIT)
    if len(line) < protocol.LIMIT or line.endswith(b"\n"):
        return line
    count = len(line)
    while line and not line.endswith(b"\n"):
        line = lines.readline(65536)
        count += len(line)
    raise ValueError(f"it has {count} bytes, and {protocol.LIMIT} are taken")


@contextlib.contextmanager
def _beats(peer: _Peer) -> Iterator[None]:
    """Let a process that waits for a decision know that this one is still there."""
    done = threading.Event()

    def beat() -> None:
        with contextlib.suppress(OSError):  # the other side has hung up
            while not done.wait(BEAT_SECONDS):
                peer.send({"beat": True})

    thread = threading.Thread(target=beat, name="beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class Service:
    """Serves the supervisor's operations on `<run>/socket`.

    The run folder is private (mode 0700), but its mode does not keep out a connection that an SSH server makes for
    a client that forwards a Unix socket. So each connection begins with the token of the folder: only a client
    that can read files as the job's user, and so can do everything anyway, is answered.
    """

    def __init__(self, run_dir: Path, operations: Operations) -> None:
        self._operations = operations
        self._path = run_dir / "socket"
        self._token = secrets.token_hex(32).encode("ascii")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def start(self) -> None:
        """Listen, and serve in threads that end with the process.

        Raises:
            OSError: the socket cannot be made.
        """
        new = self._path.with_name("socket.new")
        for path in (new, self._path):
            if path.exists():
                path.unlink()
        # Bound through a descriptor of the folder: a socket's path is limited to 107 bytes.
        folder = os.open(str(self._path.parent), os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._listener.bind(f"/proc/self/fd/{folder}/{new.name}")
        finally:
            os.close(folder)
        self._listener.listen(64)
        write_atomically(self._path.with_name(TOKEN), self._token)
        # As soon as the name is there, the socket listens.
        new.rename(self._path)
        threading.Thread(target=self._accept, name="accept", daemon=True).start()

    def close(self) -> None:
        """Take no new connections."""
        self._path.unlink()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), name="connection", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        peer = _Peer(connection)
        with connection, connection.makefile("rb") as lines:
            try:
                if not self._knows_token(connection, peer, lines):
                    return
                while True:
                    try:
                        line = _next(lines)
                    except ValueError as error:
                        peer.send(_misunderstood(error))
                        continue
                    if not line:
                        return
                    peer.send(self._answer(line, peer))
            except OSError as error:
                _log.debug("connection ended: %s", error)

    def _knows_token(self, connection: socket.socket, peer: _Peer, lines: BinaryIO) -> bool:
        """Whether the connection begins with the token; said to its other side where it does not.

        Raises:
            OSError: it says nothing in time, or is gone.
        """
        connection.settimeout(TOKEN_LIMIT)
        shown = lines.readline(2 * len(self._token)).rstrip(b"\n")
        connection.settimeout(None)
        if hmac.compare_digest(shown, self._token):
            return True
        error = SmsshError(
            "the connection does not begin with this container's token",
            hint="run smssh-hook in a login of the job's own user; a forwarded socket is not accepted",
            reference="no-token",
            status=ExitStatus.REFUSED,
        )
        _log.warning("a connection was refused: %s", error.message)
        peer.send(_error(error))
        return False

    def _answer(self, line: bytes, peer: _Peer) -> protocol.Answer:
        try:
            request = json.loads(line.decode())
            # A client of another version may not know beats: it says that it does.
            with _beats(peer) if request.get("beats") else contextlib.nullcontext():
                return self._operations.answer(request, peer)
        except SmsshError as error:
            return _error(error)
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError) as error:
            return _misunderstood(error)
        except Exception as error:  # noqa: BLE001 - told, and logged
            # A process that waits for a decision says in the job's log that there is no decision, and why.
            _log.exception("%s", line[:100])
            return _error(
                SmsshError(
                    f"the supervisor failed: {type(error).__name__}: {error}", reference="supervisor-failed"
                )
            )


def _error(error: SmsshError) -> protocol.Error:
    """An error as an answer."""
    return {
        "error": {
            "message": error.message,
            "hint": error.hint,
            "reference": error.reference,
            "status": int(error.status),
        }
    }


def _misunderstood(error: Exception) -> protocol.Error:
    _log.warning("a message is not understood: %s", error)
    return _error(
        SmsshError(
            f"the message is not understood: {error}", reference="bad-message", status=ExitStatus.USAGE
        )
    )
