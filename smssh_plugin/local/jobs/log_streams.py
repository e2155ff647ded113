"""A container's output: to a file, to CloudWatch Logs, to those that watch.

Limits of PutLogEvents: 1,048,576 bytes and 10,000 events a call, 26 bytes counted on top of every event; 256
KiB an event; no empty message; in the order of time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor
    from pathlib import Path
    from typing import IO

__all__ = ["LogStream"]

_log = logging.getLogger(__name__)

_EVENT_OVERHEAD = 26
_EVENT_BYTES = 256 * 1024 - _EVENT_OVERHEAD
_CALL_BYTES = 1024 * 1024
_CALL_EVENTS = 10_000
_QUEUE_EVENTS = 20_000
"""How many lines may wait for CloudWatch before the container has to wait in its turn."""

_PERIOD = 0.25
"""Seconds between two calls of PutLogEvents: far below what a reader notices, far above one call a line."""

_ATTEMPTS = 3


class LogStream:
    """One log stream of CloudWatch Logs with its copy in a file, which ends where the disk is full.

    Args:
        logs: a boto3 CloudWatch Logs client.
        pool: where its calls run.
        group: the log group; made if it is not there.
        stream: the log stream; made by it too.
        path: the file.
        on_line: called with every line, without its end, in the thread of the event loop.
    """

    def __init__(
        self,
        logs: Any,
        pool: Executor,
        group: str,
        stream: str,
        path: Path,
        on_line: Callable[[str], None],
    ) -> None:
        self._logs = logs
        self._pool = pool
        self._group = group
        self._stream = stream
        self._path = path
        self._file: IO[bytes] | None = None
        with self._no_job_fails_for_it():
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - closed by `close`
        self._on_line = on_line
        self._rest = b""
        self._queue: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue(_QUEUE_EVENTS)
        self._closing = asyncio.Event()
        self._last = 0
        self._sender = asyncio.create_task(self._send_all())

    async def follow(self, reader: asyncio.StreamReader) -> None:
        """Take everything that a container writes, to the end of its output."""
        while chunk := await reader.read(64 * 1024):
            await self.write(chunk)

    async def write(self, chunk: bytes) -> None:
        """Take some output, cut anywhere."""
        with self._no_job_fails_for_it():
            if self._file is not None:
                self._file.write(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            await self._line(line)
        while len(self._rest) > _EVENT_BYTES:
            head, self._rest = _cut(self._rest)
            await self._line(head)

    async def close(self) -> None:
        """Take a last line without its end, and wait until CloudWatch has everything."""
        if self._rest:
            await self._line(self._rest)
            self._rest = b""
        self._drop_file()
        self._closing.set()
        await self._queue.put(None)
        await self._sender

    @contextlib.contextmanager
    def _no_job_fails_for_it(self) -> Iterator[None]:
        """Do without the file from the first error on; CloudWatch gets the lines all the same."""
        try:
            yield
        except OSError as error:
            _log.warning("no more of log stream %s is written to %s: %s", self._stream, self._path, error)
            self._drop_file()

    def _drop_file(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    async def _line(self, line: bytes) -> None:
        """One line, as several events if it is too long for one."""
        # A byte that is not UTF-8 becomes a character of three bytes: cut after that, not before.
        rest = line.removesuffix(b"\r").decode("utf-8", "replace").encode()
        while True:
            head, rest = _cut(rest)
            text = head.decode()
            self._on_line(text)
            if text:
                self._last = max(self._last, int(time.time() * 1000))
                await self._queue.put((self._last, text))
            if not rest:
                return

    async def _send_all(self) -> None:
        """Send what is in the queue, some lines at a time, until the end."""
        await self._call(self._make)
        ended = False
        while not ended:
            items = [await self._queue.get()]
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._closing.wait(), _PERIOD)
            while not self._queue.empty():
                items.append(self._queue.get_nowait())
            ended = items[-1] is None
            batch: list[dict[str, Any]] = []
            size = 0
            for item in items:
                if item is None:
                    break
                cost = len(item[1].encode()) + _EVENT_OVERHEAD
                if size + cost > _CALL_BYTES or len(batch) == _CALL_EVENTS:
                    await self._put(batch)
                    batch, size = [], 0
                batch.append({"timestamp": item[0], "message": item[1]})
                size += cost
            if batch:
                await self._put(batch)

    async def _put(self, events: list[dict[str, Any]]) -> None:
        await self._call(
            lambda: self._logs.put_log_events(
                logGroupName=self._group, logStreamName=self._stream, logEvents=events
            )
        )

    async def _call(self, function: Callable[[], Any]) -> None:
        """Call CloudWatch; a job does not fail because its log cannot be delivered."""
        loop = asyncio.get_running_loop()
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await loop.run_in_executor(self._pool, function)
            except Exception as error:  # noqa: BLE001, PERF203 - it is the loop's point
                # Not botocore's errors alone: without its HTTP client, those of the connection come as they are.
                if attempt == _ATTEMPTS:
                    _log.warning("lines lost for log stream %s: %s", self._stream, error)
            else:
                return

    def _make(self) -> None:
        """Make the group and the stream."""
        exists = self._logs.exceptions.ResourceAlreadyExistsException
        with contextlib.suppress(exists):
            self._logs.create_log_group(logGroupName=self._group)
        with contextlib.suppress(exists):
            self._logs.create_log_stream(logGroupName=self._group, logStreamName=self._stream)


def _cut(line: bytes) -> tuple[bytes, bytes]:
    """Cut a line so that the first part is one event, not in the middle of a character of UTF-8."""
    if len(line) <= _EVENT_BYTES:
        return line, b""
    end = _EVENT_BYTES
    while end > _EVENT_BYTES - 4 and line[end] & 0xC0 == 0x80:
        end -= 1
    return line[:end], line[end:]
