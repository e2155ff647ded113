"""The supervisor's Unix socket: messages as `messages` has them, one thread for each connection."""

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
from typing import TYPE_CHECKING, Any, BinaryIO, Iterator, Mapping

from .. import terminal
from ..entrypoints.supervisor_client import TOKEN
from ..errors import ExitStatus, SmsshError
from ..files import write_atomically
from . import protocol

if TYPE_CHECKING:
    from pathlib import Path

    from .hold import Keeper

__all__ = ["Service"]

TOKEN_LIMIT = 5.0
"""Seconds in which a connection has to show the token."""
BEAT_SECONDS = 5.0
"""How often a parent hears that it still waits for somebody."""

_log = logging.getLogger("smssh.service")


class _Peer:
    """One connection; several threads may send.

    Args:
        connection: its socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._lock = threading.Lock()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message; one that cannot be sent becomes the error that says so.

        Raises:
            OSError: the other side has hung up.
        """
        try:
            line = protocol.encode(message)
        except (TypeError, ValueError) as error:
            _log.warning("an answer is not sent: %s", error)
            line = protocol.encode(
                _error(SmsshError(f"The answer cannot be sent: {error}.", reference="bad-answer"))
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
        ValueError: it has more than `messages.LIMIT` bytes; it is read to its end, and what follows is the next one.
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
    """Let a parent that waits for a decision know that this process still works on it."""
    done = threading.Event()

    def beat() -> None:
        with contextlib.suppress(OSError):  # the parent has hung up
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
    """Serves a keeper on `<run>/socket`.

    The run folder is private (mode 0700), but its mode does not keep out a connection that an SSH server makes for
    a client that forwards a Unix socket. So each connection begins with the token that stands in the folder: only
    who can read files as the job's user, and so can do everything anyway, is heard.
    """

    def __init__(self, run_dir: Path, keeper: Keeper) -> None:
        self._keeper = keeper
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
        # Whoever sees the name finds somebody listening behind it.
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

    def _answer(self, line: bytes, peer: _Peer) -> dict[str, Any]:
        try:
            message = json.loads(line.decode())
            op = str(message.get("op"))
        except (ValueError, AttributeError, RecursionError) as error:
            return _misunderstood(error)
        try:
            return self._dispatch(op, message, peer)
        except SmsshError as error:
            return _error(error)
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
            return _misunderstood(error)
        except Exception as error:  # noqa: BLE001 - told, and logged
            # Whoever waits for a decision is told, and says in the job's log that there is none.
            _log.exception("%s", op)
            return _error(
                SmsshError(
                    f"The supervisor failed: {type(error).__name__}: {error}.", reference="supervisor-failed"
                )
            )

    def _dispatch(self, op: str, message: dict[str, Any], peer: _Peer) -> dict[str, Any]:
        keeper = self._keeper
        if op == "attach":
            return {**keeper.attach(message), "beats": True}
        if op == "before":
            return keeper.before(message)
        decide = {"failed": keeper.failed, "succeeded": keeper.succeeded, "point": keeper.point}.get(op)
        if decide is not None:
            # A parent of another version may not know them: it says that it does.
            with _beats(peer) if message.get("beats") else contextlib.nullcontext():
                return decide(message, peer.say, peer.gone)
        if op == "wait_ready":
            return keeper.wait_ready(float(message["seconds"]))
        if op == "end":
            return keeper.end(10.0)
        if op == "status":
            return keeper.status()
        if op == "report":
            return keeper.report()
        if op == "hold":
            return keeper.request_hold()
        if op == "extend":
            return keeper.extend(float(message["seconds"]))
        if op == "retry":
            return keeper.retry(bool(message.get("wait", True)), peer.gone)
        if op == "release":
            chosen = message.get("exit_code")
            return keeper.release(None if chosen is None else int(chosen))
        raise SmsshError(f"No such operation: {op}.", reference="bad-message", status=ExitStatus.USAGE)


def _error(error: SmsshError) -> dict[str, Any]:
    """An error as an answer."""
    return {
        "error": {
            "message": error.message,
            "hint": error.hint,
            "reference": error.reference,
            "status": int(error.status),
        }
    }


def _misunderstood(error: Exception) -> dict[str, Any]:
    _log.warning("a message is not understood: %s", error)
    return _error(
        SmsshError(
            f"The message is not understood: {error}.", reference="bad-message", status=ExitStatus.USAGE
        )
    )
