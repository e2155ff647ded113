"""NonInteractiveCommands: a command without a terminal.

After agent/session/shell/shell.go of the real agent: the output comes when the command has ended, standard
error in it; or, where the document says `separateOutputStream`, both come as they are written, and at the end
the exit status.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from typing import IO

from ...errors import SmsshError
from ...session.wire.frames import PayloadType
from .agent_stream import CHUNK
from .session_kind import Output, Plugin, Result, Task
from .session_programs import boolean, commands_of, kill, linux, split, start
from .utf8 import Utf8Cutter

__all__ = ["CommandSession"]

_SIGNALS = {0x03: signal.SIGINT, 0x1C: signal.SIGQUIT}
"""Characters of the client's terminal that are signals here."""
_PREFIX = re.compile(r"[0-9a-zA-Z\r\n_:-]{0,30}")
_LOOK_SECONDS = 0.02


@dataclass
class _Pipe:
    """One output of the command, where they are separate."""

    kind: PayloadType
    prefix: bytes
    cutter: Utf8Cutter = field(default_factory=lambda: Utf8Cutter(CHUNK - 32))
    line_start: bool = True


class CommandSession(Plugin):
    """A document's command."""

    def __init__(self, task: Task, output: Output) -> None:
        super().__init__(task, output)
        settings = linux(task)
        self._argv = split(commands_of(settings, task))
        self._separate = boolean(settings.get("separateOutputStream"))
        self._prefixes = [str(settings.get(f"{name}SeparatorPrefix") or "") for name in ("stdOut", "stdErr")]
        for prefix in self._prefixes:
            if self._separate and not _PREFIX.fullmatch(prefix):
                raise SmsshError(f"invalid separator prefix {prefix!r}")
        self._process: subprocess.Popen[bytes] | None = None
        self._file: IO[bytes] | None = None
        self._cutter = Utf8Cutter()
        self._read = 0
        self._pipes: dict[int, _Pipe] = {}

    def start(self, client_version: str) -> None:
        """Start it; where it does not start, the client is told on its standard error too."""
        del client_version
        try:
            if self._separate:
                self._start_separate()
            else:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
                both = self._file.fileno()
                self._process = start(
                    self._argv, self.task, stdin=subprocess.DEVNULL, stdout=both, stderr=both
                )
        except SmsshError as error:
            self.output.send(PayloadType.STANDARD_ERROR, error.message.encode())
            raise

    def _start_separate(self) -> None:
        pipe = subprocess.PIPE
        self._process = start(self._argv, self.task, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
        kinds = (PayloadType.OUTPUT, PayloadType.STANDARD_ERROR)
        ends = (self._process.stdout, self._process.stderr)
        for end, kind, prefix in zip(ends, kinds, self._prefixes, strict=True):
            assert end is not None
            os.set_blocking(end.fileno(), False)
            self._pipes[end.fileno()] = _Pipe(kind, prefix.encode())

    @property
    def ready(self) -> bool:
        """It takes signals only, and those at any time."""
        return True

    def take(self, payload_type: int, payload: bytes) -> None:
        """Ctrl-C and Ctrl-backslash; nothing else is input."""
        if payload_type != PayloadType.OUTPUT or self._process is None:
            return
        found = next((_SIGNALS[byte] for byte in payload if byte in _SIGNALS), None)
        if found is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(found)

    def watched(self) -> dict[int, int]:
        """The pipes, where they are separate."""
        return dict.fromkeys(self._pipes, select.POLLIN if self.output.open else 0)

    def timeout(self) -> float | None:
        """A command's end makes nothing readable."""
        return None if self._process is None or self._pipes else _LOOK_SECONDS

    def act(self, ready: dict[int, int]) -> None:
        """Send what there is."""
        if self._process is None or self.result is not None:
            return
        for fd in [fd for fd in self._pipes if ready.get(fd)]:
            if self.output.open:
                self._pump(fd)
        if self._pipes or self._process.poll() is None or not self.output.open:
            return
        if self._separate:
            status = max(-1, self._process.returncode)  # -1 after a signal, as Go has it
            self.output.send(PayloadType.EXIT_CODE, f"EXIT_CODE: {status}".encode())
            self.result = Result.success()
        else:
            self._send_file()

    def _pump(self, fd: int) -> None:
        pipe = self._pipes[fd]
        try:
            data = os.read(fd, CHUNK - 32)
        except (BlockingIOError, InterruptedError):
            return
        for piece in pipe.cutter.messages(data):
            self.output.send(pipe.kind, (pipe.prefix if pipe.line_start else b"") + piece)
            pipe.line_start = piece.endswith(b"\n")
        if not data:
            del self._pipes[fd]

    def _send_file(self) -> None:
        assert self._file is not None
        # The command wrote through the same open file, so that its position is the command's.
        data = os.pread(self._file.fileno(), 16 * CHUNK, self._read)
        self._read += len(data)
        for piece in self._cutter.messages(data):
            self.output.send(PayloadType.OUTPUT, piece)
        if not data:
            self.result = Result.success()

    def close(self) -> None:
        """Kill it."""
        if self._process is not None:
            kill(self._process)
            for pipe in (self._process.stdout, self._process.stderr):
                if pipe is not None:
                    pipe.close()
        if self._file is not None:
            self._file.close()
