"""The supervisor's Unix socket: JSON objects, one a line, one thread for each connection."""

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
from typing import TYPE_CHECKING, Any, BinaryIO, Iterator

from ..errors import ExitStatus, SmsshError
from .parent import TOKEN

if TYPE_CHECKING:
    from pathlib import Path

    from .keeper import Keeper

__all__ = ["Service"]

MESSAGE_LIMIT = 4 << 20
"""Bytes of one message; an environment and 200 lines of log fit many times."""
TOKEN_LIMIT = 5.0
"""Seconds in which a connection has to show the token."""
BEAT_SECONDS = 5.0
"""How often a parent hears that it still waits for somebody."""

_log = logging.getLogger("smssh.service")


@contextlib.contextmanager
def _beats(connection: socket.socket) -> Iterator[None]:
    """Let a parent that waits for a decision know that this process still works on it."""
    done = threading.Event()

    def beat() -> None:
        with contextlib.suppress(OSError):  # the parent has hung up
            while not done.wait(BEAT_SECONDS):
                connection.sendall(b'{"beat": true}\n')

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
        self._write_token()
        # Whoever sees the name finds somebody listening behind it.
        new.rename(self._path)
        threading.Thread(target=self._accept, name="accept", daemon=True).start()

    def _write_token(self) -> None:
        path = self._path.with_name(TOKEN)
        new = path.with_name(TOKEN + ".new")
        handle = os.open(str(new), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(handle, "wb") as file:
            file.write(self._token)
        new.rename(path)

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
        with connection, connection.makefile("rb") as lines:
            try:
                if not self._knows_token(connection, lines):
                    return
                while True:
                    line = lines.readline(MESSAGE_LIMIT)
                    if not line:
                        return
                    answer = self._answer(line, connection)
                    connection.sendall(json.dumps(answer).encode() + b"\n")
            except OSError as error:
                _log.debug("connection ended: %s", error)

    def _knows_token(self, connection: socket.socket, lines: BinaryIO) -> bool:
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
        connection.sendall(json.dumps(_error(error)).encode() + b"\n")
        return False

    def _answer(self, line: bytes, connection: socket.socket) -> dict[str, Any]:
        try:
            message = json.loads(line.decode())
            return self._dispatch(str(message.get("op")), message, connection)
        except SmsshError as error:
            return _error(error)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            _log.debug("message not understood", exc_info=True)
            return {
                "error": {
                    "message": f"The message is not understood: {error}.",
                    "hint": None,
                    "reference": "bad-message",
                    "status": int(ExitStatus.USAGE),
                }
            }

    def _dispatch(self, op: str, message: dict[str, Any], connection: socket.socket) -> dict[str, Any]:
        keeper = self._keeper

        def say(line: str) -> None:
            try:
                connection.sendall(json.dumps({"say": line}).encode() + b"\n")
            except OSError as error:
                _log.debug("not said: %s", error)

        def gone() -> bool:
            if not select.select([connection], [], [], 0)[0]:
                return False
            try:
                return not connection.recv(1, socket.MSG_PEEK)
            except OSError:
                return True

        if op == "attach":
            return {**keeper.attach(message), "beats": True}
        if op == "before":
            return keeper.before(message)
        decide = {"failed": keeper.failed, "succeeded": keeper.succeeded, "point": keeper.point}.get(op)
        if decide is not None:
            # A parent of another version may not know them: it says that it does.
            with _beats(connection) if message.get("beats") else contextlib.nullcontext():
                return decide(message, say, gone)
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
            return keeper.retry(bool(message.get("wait", True)), gone)
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
