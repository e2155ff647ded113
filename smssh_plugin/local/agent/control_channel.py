"""The fake agent's main loop: credentials, pings, the control channel, the sessions that it asks for."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import select
import signal
import socket
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from ...errors import SmsshError
from ...session.wire.frames import FrameError, Message, MessageType
from ...session.wire.websocket import WebSocketClosedError
from .document import task_of
from .identity import RegisteredNode, node_of
from .service_client import Api, CallFailed
from .session_kind import Result
from .setup import AGENT_VERSION
from .tasks import Sessions
from .worker import Worker

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from .service_client import Socket
    from .session_kind import Task
    from .setup import Configuration

__all__ = ["Agent"]

_LOG = logging.getLogger("amazon-ssm-agent")
_SHELL_TOPIC = "aws.ssm.mgs.interactive_shell"
_PING_SECONDS = 300.0
_KEEPALIVE_SECONDS = 54.0
_SILENCE_SECONDS = 60.0
_PAUSE_FIRST = 0.5
_PAUSE_LONGEST = 30.0
"""The real agent starts at 2.5 s, then 10, 18, up to 40 minutes."""
_STOP_SECONDS = 2.0
_COMPLETE_TRIES = 3
_COMPLETE_SECONDS = 1.0
_LOOK_SECONDS = 0.5
_SUBMIT_TRIES = 5
_SUBMIT_SECONDS = 1.0
_INVALID = 1007


class _Completion:
    """An agent_task_complete that has not been acknowledged."""

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.left = _COMPLETE_TRIES
        self.due = 0.0


class Agent:
    """The agent of one node.

    Args:
        configuration: the endpoints, limits, and who it is.
        state: the folder of its registration and its sessions.
        pace: seconds from one message of a session's output to the next.

    Raises:
        SmsshError: it is nobody.
    """

    def __init__(self, configuration: Configuration, state: Path, pace: float = 0.0) -> None:
        self._pace = pace
        self._configuration = configuration
        self._node = node_of(configuration, state)
        self._api = Api(configuration, self._node.region, self._node)
        self._wake, self._waker = os.pipe()
        for fd in (self._wake, self._waker):
            os.set_blocking(fd, False)
        self._stopping = False
        self._socket: Socket | None = None
        self._sessions = Sessions(state / "sessions")
        self._submitted: deque[Task] = deque()
        """Sessions that wait for a worker; each has a place in the worker buffer."""
        self._unsubmitted: deque[Message] = deque()
        """Messages behind one that found no place, and that one first."""
        self._submit_at = 0.0
        self._submit_tries = 0
        self._completions: dict[str, _Completion] = {}
        self._ping_at = 0.0
        self._pinged = 0.0

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT. To be called in the main thread.

        Returns:
            The exit status.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, self._awake)
        pause = _PAUSE_FIRST
        while not self._stopping:
            try:
                self._report()
                self._open()
                pause = _PAUSE_FIRST
                while not self._stopping:
                    self._report()
                    self._step()
            except (CallFailed, WebSocketClosedError) as error:  # noqa: PERF203 - it waits
                self._drop()
                if not self._stopping:
                    _LOG.warning("no control channel: %s; again in %.1f s", error, pause)
                    self._sleep(pause)
                    pause = min(pause * 2, _PAUSE_LONGEST)
        self._shut_down()
        return 0

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True
        self._awake(number, frame)

    def _awake(self, _number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):  # it is awake already
            os.write(self._waker, b"x")

    def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._stopping and (left := deadline - time.monotonic()) > 0:
            select.select([self._wake], [], [], left)
            self._drain()

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake, 512):
                pass

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.abort()
            self._socket = None

    def _report(self) -> None:
        """Refresh the credentials and ping, if it is time."""
        now = time.monotonic()
        if now >= self._node.refresh_at:
            self._node.refresh()
        if now >= self._ping_at and not self._configuration.container:
            if not self._ping_at:
                self._api.call("UpdateInstanceInformation", {"InstanceId": self._node.id})
            self._api.call("UpdateInstanceInformation", {"InstanceId": self._node.id, **_information()})
            self._ping_at = now + _PING_SECONDS

    def _open(self) -> None:
        hello = {"AgentVersion": AGENT_VERSION, "PlatformType": "linux"}
        query = "role=subscribe&stream=input"
        self._socket = self._api.open_channel(f"control-channel/{self._node.id}", {}, query, hello)
        self._socket.flush()
        self._pinged = time.monotonic()
        _LOG.info("control channel of %s is open", self._node.id)

    def _step(self) -> None:
        """Wait for something to do, and do it."""
        assert self._socket is not None
        now = time.monotonic()
        self._complete(now)
        self._submit_again(now)
        self._start_submitted()
        heard = self._socket.last_received
        if now - heard > _KEEPALIVE_SECONDS + _SILENCE_SECONDS:
            raise WebSocketClosedError(None, "nothing was heard for two minutes")
        if now - max(heard, self._pinged) > _KEEPALIVE_SECONDS:
            self._pinged = now
            self._socket.ping()
        self._socket.flush()
        writing = [self._socket.fileno()] if self._socket.pending else []
        reading = [self._socket.fileno(), self._wake]
        readable, _, _ = select.select(reading, writing, [], self._timeout(now))
        if self._wake in readable:
            self._drain()
        if self._socket.fileno() in readable or self._socket.ended:
            self._receive(self._socket)

    def _timeout(self, now: float) -> float:
        assert self._socket is not None
        due = [now + _KEEPALIVE_SECONDS, self._node.refresh_at]
        due += [one.due for one in self._completions.values()]
        if not self._configuration.container:
            due.append(self._ping_at)
        if self._unsubmitted and self._submit_tries < _SUBMIT_TRIES:
            due.append(self._submit_at)
        if self._sessions.inherited:
            due.append(now + _LOOK_SECONDS)
        if self._socket.ended or (self._submitted and self._free):
            due.append(now)
        return max(0.0, min(due) - now)

    def _receive(self, channel: Socket) -> None:
        for data in channel.receive():
            try:
                message = Message.decode(data)
                if message.type in (MessageType.INTERACTIVE_SHELL, MessageType.CHANNEL_CLOSED):
                    self._unsubmitted.append(message)
                elif message.type == MessageType.AGENT_TASK_ACKNOWLEDGE:
                    self._completions.pop(str(message.json().get("TaskId")), None)
            except FrameError as error:  # noqa: PERF203 - it ends the loop
                channel.refuse(_INVALID, str(error))
                raise WebSocketClosedError(_INVALID, f"what is not a message: {error}") from error
        self._submit_all()

    # Sessions.

    @property
    def _free(self) -> bool:
        """Whether there is a worker for another session."""
        return len(self._sessions) < self._configuration.workers

    def _submit_all(self) -> None:
        """Act on what has come, up to a session that finds no place in the worker buffer.

        The real agent tries that one again each second, five times in all, and nothing of its control channel
        is acted on meanwhile; after the fifth, nothing ever is.
        """
        while self._unsubmitted:
            try:
                placed = self._submit(self._unsubmitted[0])
            except FrameError as error:
                _LOG.error("a message that cannot be read: %s", error)
                placed = True
            if not placed:
                self._submit_tries += 1
                self._submit_at = time.monotonic() + _SUBMIT_SECONDS
                _LOG.error("received error code ProcessorBufferFull (%d)", self._submit_tries)
                if self._submit_tries == _SUBMIT_TRIES:
                    _LOG.error("blocking control channel because of error code ProcessorBufferFull")
                return
            self._unsubmitted.popleft()
            self._submit_tries = 0

    def _submit_again(self, now: float) -> None:
        if self._unsubmitted and now >= self._submit_at and self._submit_tries < _SUBMIT_TRIES:
            self._submit_all()

    def _submit(self, message: Message) -> bool:
        """Whether there was a place for it."""
        body = message.json()
        if message.type == MessageType.CHANNEL_CLOSED:
            session_id = str(body.get("SessionId"))
            self._submitted = deque(task for task in self._submitted if task.session_id != session_id)
            self._sessions.cancel(session_id)
            return True
        if len(self._submitted) >= self._configuration.worker_buffer:
            return False
        try:
            session_id, task = task_of(body, self._node.id, self._configuration)
        except (ValueError, RecursionError) as error:
            _LOG.error("a task that cannot be read: %r", error)
            return True
        if isinstance(task, SmsshError):
            self._finish(session_id, Result.failed(task.message))
        elif session_id in self._sessions or any(one.session_id == session_id for one in self._submitted):
            _LOG.warning("session %s runs already", session_id)
        else:
            self._submitted.append(task)
        return True

    def _start_submitted(self) -> None:
        """Give workers to the sessions that wait for one."""
        while self._submitted and self._free:
            task = self._submitted.popleft()
            _LOG.info("session %s (%s) starts", task.session_id, task.session_type)
            try:
                self._sessions.start(task.session_id, partial(self._work, task))
            except OSError as error:
                self._finish(task.session_id, Result.failed(f"no session worker: {error}"))

    def _work(self, task: Task, cancel: int) -> Result:
        """In the process of a session."""
        if isinstance(self._node, RegisteredNode):
            self._node.rotates = False
        return Worker(task, self._api, cancel, self._pace).run()

    def _finish(self, session_id: str, result: Result) -> None:
        """Have the service told that a session is over."""
        _LOG.info("session %s ended: %s %s", session_id, result.status, result.output)
        body = {
            "SchemaVersion": 1,
            "TaskId": session_id,
            "Topic": _SHELL_TOPIC,
            "FinalTaskStatus": result.status,
            "IsRoutingFailure": False,
            "AwsAccountId": "",
            "InstanceId": self._node.id,
            "Output": result.output,
            "S3Bucket": "",
            "S3UrlSuffix": "",
            "CwlGroup": "",
            "CwlStream": "",
            "RetryNumber": 0,
        }
        self._completions[session_id] = _Completion(
            Message.of(MessageType.AGENT_TASK_COMPLETE, body).encode()
        )

    def _complete(self, now: float) -> None:
        """Tell the service of sessions that have ended, up to three times each."""
        assert self._socket is not None
        for session_id, result in self._sessions.ended():
            self._finish(session_id, result)
        for session_id, completion in list(self._completions.items()):
            if now < completion.due:
                continue
            if not completion.left:
                del self._completions[session_id]
                continue
            completion.left -= 1
            completion.due = now + _COMPLETE_SECONDS
            self._socket.send_binary(completion.frame)

    def _shut_down(self) -> None:
        """Tell the service what there is to tell, and go. The sessions go on, as those of the real agent do."""
        deadline = time.monotonic() + _STOP_SECONDS
        if self._socket is None:
            return
        try:
            self._complete(time.monotonic())
            while self._completions and time.monotonic() < deadline:
                self._socket.flush()
                select.select([self._socket.fileno(), self._wake], [], [], 0.1)
                self._drain()
                self._receive(self._socket)
                self._complete(time.monotonic())
        except WebSocketClosedError as error:
            _LOG.info("the control channel ended first: %s", error)
        self._socket.close()


def _information() -> dict[str, Any]:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    return {
        "AgentName": "amazon-ssm-agent",
        "AgentVersion": AGENT_VERSION,
        "AgentStatus": "Active",
        "PlatformType": "Linux",
        "PlatformName": release.get("NAME", "Linux"),
        "PlatformVersion": release.get("VERSION_ID", ""),
        "ComputerName": socket.gethostname(),
        "IPAddress": "127.0.0.1",
        "SSMConnectionChannel": "ssmmessages",
    }
