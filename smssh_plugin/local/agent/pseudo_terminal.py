"""Sessions in a terminal: a shell (Standard_Stream), or a document's commands (InteractiveCommands).

After agent/session/shell/shell.go of the real agent, which waits a second before it sends the first output;
the fake agent does not.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import struct
import subprocess  # noqa: TC003 - of a value, which is no more than its type to linters
import termios

from ...session.wire.frames import PayloadType
from .agent_stream import CHUNK
from .session_kind import Output, Plugin, Result, Task
from .session_programs import commands_of, kill, linux, split, start
from .utf8 import Utf8Cutter

__all__ = ["TerminalSession"]

_WAITING_MAX = 1 << 20
_SIZE_MAX = 0xFFFF


class TerminalSession(Plugin):
    """A shell, or the document's commands, in a terminal."""

    handshake = False

    def __init__(self, task: Task, output: Output) -> None:
        super().__init__(task, output)
        self._argv = self._command()
        self._process: subprocess.Popen[bytes] | None = None
        self._terminal = -1
        self._waiting = bytearray()
        self._cutter = Utf8Cutter()

    def _command(self) -> list[str]:
        settings = linux(self.task)
        commands = str(settings.get("commands") or "")
        if self.task.session_type != "Standard_Stream":
            commands = commands_of(settings, self.task)
        elif not commands.strip():
            return ["sh"]
        return split(commands) if self.task.configuration.container else ["sh", "-c", commands]

    def start(self, client_version: str) -> None:
        """Start it."""
        del client_version
        self._terminal, slave = pty.openpty()
        try:
            self._process = start(
                self._argv,
                self.task,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                preexec=lambda: _take_terminal(0),
            )
        finally:
            os.close(slave)
        os.set_blocking(self._terminal, False)
        profile = self.task.inputs.get("shellProfile")
        text = str(profile.get("linux") or "") if isinstance(profile, dict) else ""
        if self.task.session_type == "Standard_Stream" and text.strip():
            self._waiting += text.encode() + b"\n"

    @property
    def ready(self) -> bool:
        """Whether the terminal is there."""
        return self._process is not None

    @property
    def full(self) -> bool:
        """Whether nothing reads what is typed."""
        return len(self._waiting) >= _WAITING_MAX

    def take(self, payload_type: int, payload: bytes) -> None:
        """What is typed, and the terminal's size."""
        if payload_type == PayloadType.OUTPUT:
            self._waiting += payload
        elif payload_type == PayloadType.SIZE:
            self._resize(payload)

    def _resize(self, payload: bytes) -> None:
        """Set the size; what is not a size is ignored."""
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            size = json.loads(payload)
            rows, columns = int(size["rows"]), int(size["cols"])
            if 0 <= rows <= _SIZE_MAX and 0 <= columns <= _SIZE_MAX:
                fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def watched(self) -> dict[int, int]:
        """The terminal."""
        if self._terminal < 0:
            return {}
        wanted = select.POLLIN if self.output.open else 0
        return {self._terminal: wanted | (select.POLLOUT if self._waiting else 0)}

    def act(self, ready: dict[int, int]) -> None:
        """Write what was typed, read what was printed."""
        if self._terminal < 0:
            return
        if self._waiting:
            with contextlib.suppress(OSError):
                del self._waiting[: os.write(self._terminal, self._waiting)]
        if ready.get(self._terminal, 0) & ~select.POLLOUT and self.output.open:
            self._read()

    def _read(self) -> None:
        try:
            data = os.read(self._terminal, 16 * CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # EIO: nobody has the terminal open any more
            data = b""
        for piece in self._cutter.messages(data):
            self.output.send(PayloadType.OUTPUT, piece)
        if not data:
            self.result = Result.success()

    def close(self) -> None:
        """Hang up, which ends what runs in the foreground, and kill the shell."""
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1
        if self._process is not None:
            kill(self._process)


def _take_terminal(descriptor: int) -> None:
    """Make it the controlling terminal of this session."""
    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)
