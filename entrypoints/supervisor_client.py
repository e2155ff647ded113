"""The other side of the supervisor's socket: tells it what the entry point does, asks it what to do next.

Used by init (`run.sh`, `smssh-hook run`) and by the toolkit's import hook, so it also runs inside the job's
own interpreter: CPython 3.7 and later, standard library only, and every failure of ours means "go on as if
we were not there". `protocol` has the messages.
"""

from __future__ import annotations

import collections
import json
import os
import select
import socket
import threading
import time

from ..errors import SmsshError
from ..settings import WAIT_READY_LIMIT, Settings, load
from ..supervisor import protocol
from . import boot, job_log

TYPE_CHECKING = False  # typing itself is not imported in the job's interpreters
if TYPE_CHECKING:
    from typing import Any, Callable, Literal, Mapping, Sequence

START_LIMIT = 30.0
"""Seconds that a failed job which asked for a hold waits for a supervisor that is still starting."""
END_LIMIT = 12.0
"""Seconds that the end of a job waits for the supervisor to deregister."""
REPLY_LIMIT = 5.0
"""Seconds for an answer that needs no thought."""
SILENCE_LIMIT = 30.0
"""Seconds without a sign of life after which a supervisor that was asked for a decision is given up."""
TAIL_SECONDS = 2.0
"""Seconds that a report waits for the last lines, where the job's log is not taken."""
TAIL_LINES = 200
LINE_LIMIT = 2000
"""Characters kept of one line of output."""
BYTE_LIMIT = 4 * LINE_LIMIT
"""Bytes kept of one line until then; a character has four at most."""

TOKEN = "token"  # noqa: S105 - the name of a file
"""The file beside the socket whose content each connection to it begins with: proof that one can read the folder."""

RELEASE: protocol.Decision = {"action": "release", "exit_code": None}


class Connection:
    """A connection to the supervisor."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._rest = b""

    @classmethod
    def open(cls, seconds: float = 0.0, interrupted: Callable[[], bool] = lambda: False) -> Connection | None:
        """Connect; None if nothing answers within `seconds`, or ever will.

        Args:
            seconds: how long a supervisor that is still starting is waited for.
            interrupted: called in between; True gives up.
        """
        deadline = time.monotonic() + seconds
        while True:
            run = boot.run_dir()
            if run is None:  # it is made before a supervisor is started
                return None
            try:
                return cls(connect(run))
            except OSError:
                if not supervisor_alive(run):
                    return None
            if time.monotonic() >= deadline or interrupted():
                return None
            time.sleep(0.02)

    def send(self, request: protocol.Request, seconds: float = REPLY_LIMIT) -> None:
        """Send one request.

        Args:
            request: what is asked.
            seconds: for the supervisor to take it.

        Raises:
            OSError: the supervisor is gone, or does not take it.
            ValueError: the request is too large.
        """
        self._socket.settimeout(seconds)
        self._socket.sendall(protocol.encode(request))

    def receive(self, seconds: float) -> Any:
        """The next message, a JSON object as the protocol has it; None if nothing came within `seconds`.

        Raises:
            OSError: the supervisor is gone.
            ValueError: what it says is not a message.
        """
        deadline = time.monotonic() + seconds
        while b"\n" not in self._rest:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._socket], [], [], left)[0]:
                return None
            part = self._socket.recv(65536)
            if not part:
                raise ConnectionError("the supervisor is gone")
            self._rest += part
            if len(self._rest) > protocol.LIMIT and b"\n" not in self._rest:
                raise ConnectionError(f"an answer has more than {protocol.LIMIT} bytes")
        line, self._rest = self._rest.split(b"\n", 1)
        message = json.loads(line.decode())
        if not isinstance(message, dict):
            raise ValueError("an answer is not an object")
        return message

    def ask(self, request: protocol.Request, seconds: float = REPLY_LIMIT) -> Any:
        """Send a request and return its answer; None if it does not come in time."""
        self.send(request)
        return self.receive(seconds)

    def close(self) -> None:
        """Hang up; the supervisor ends the hold that this connection waits for."""
        self._socket.close()


def connect(run: str) -> socket.socket:
    """A socket connected to the supervisor of a run folder, which has been shown the folder's token.

    The path goes through a descriptor of the folder: a socket's path is limited to 107 bytes, a TMPDIR is not.

    Raises:
        OSError: no supervisor listens, or its token cannot be read.
    """
    folder = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(REPLY_LIMIT)
        connection.connect(f"/proc/self/fd/{folder}/socket")
        with open(f"/proc/self/fd/{folder}/{TOKEN}", "rb") as file:
            connection.sendall(file.read() + b"\n")
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(folder)
    return connection


def supervisor_alive(run: str) -> bool:
    """Whether a supervisor holds the lock: one that is starting does from its first moment on."""
    import fcntl

    try:
        handle = os.open(os.path.join(run, "lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def read_options(bundle: str | None) -> dict[str, Any]:
    """What the bundle's options.json holds; {} if it does not exist or is not readable."""
    if not bundle:
        return {}
    try:
        with open(os.path.join(bundle, "options.json"), encoding="utf-8") as file:
            options = json.load(file)
    except (OSError, ValueError) as error:
        if not isinstance(error, FileNotFoundError):
            boot.note(f"options.json is not readable: {error}")
        return {}
    return options if isinstance(options, dict) else {}


def job_settings() -> Settings:
    """The job's settings; the defaults where they are not usable (the supervisor says so in its log)."""
    try:
        return load(os.environ, read_options(boot.bundle_dir()))
    except SmsshError as error:
        boot.note(str(error))
        return Settings()


class Reporter:
    """Tells the supervisor what the entry point does, and asks what to do next.

    Args:
        role: `init`, `toolkit` or `script`.
        command: the entry point's command line.
        settings: the job's settings.
        say: writes one line into the job's log.
        interrupted: True as soon as a hold must end, because the job is being stopped.
        code_dir: the folder of the user's code, if the caller knows it.
        entry: the SMSSH_ENTRY of the entry point's processes; see `orphans`.
    """

    def __init__(
        self,
        role: Literal["init", "toolkit", "script"],
        command: Sequence[str],
        settings: Settings,
        say: Callable[[str], None],
        interrupted: Callable[[], bool] = lambda: False,
        code_dir: str | None = None,
        entry: str = "",
    ) -> None:
        self.settings = settings
        self._entry = entry
        self._role = role
        self._command = list(command)
        self._say = say
        self._interrupted = interrupted
        self._code_dir = code_dir
        self._connection: Connection | None = None
        self._beats = False

    def at_start(self) -> None:
        """Before the first attempt: wait or hold if the settings say so.

        Raises:
            SmsshError: SMSSH_STRICT is set and no login is possible.
        """
        settings = self.settings
        if settings.strict or settings.wait == "ready":
            self._wait_for_ready()
        if "start" in settings.hold or settings.wait_seconds is not None:
            self._decide({"op": "point", "point": "start", "beats": True}, "start")

    def _wait_for_ready(self) -> None:
        answer = None
        deadline = time.monotonic() + WAIT_READY_LIMIT
        try:
            connection = self._attach(START_LIMIT)
            if connection is not None:
                connection.send({"op": "wait_ready", "seconds": WAIT_READY_LIMIT})
                while answer is None and time.monotonic() < deadline and not self._interrupted():
                    answer = connection.receive(0.2)
        except (OSError, ValueError) as error:
            boot.note(f"not ready: {error}")
        if answer is None:
            self._hang_up()
        if answer is not None and not answer.get("wanted", True):
            return
        if self.settings.strict and not (answer or {}).get("ready"):
            raise SmsshError(
                "no SSH login is possible in this job, and SMSSH_STRICT is set: {}".format(
                    (answer or {}).get("error") or "the supervisor does not answer"
                ),
                hint="unset SMSSH_STRICT to run the job all the same",
                reference="no-login",
            )

    def before(self, variables: Mapping[str, Any] | None = None, started: float | None = None) -> None:
        """An attempt starts; never waits for a supervisor that is still starting.

        Args:
            variables: what the entry point's environment gets beside this process's own.
            started: when it started, in seconds since the epoch; now when left out.
        """
        started = time.time() if started is None else started
        environment, left_out = _environment(variables)
        self._tell({"op": "before", "started": started, "environment": environment, "left_out": left_out})

    def failed(
        self, exit_code: int, error: str | None = None, log_tail: list[str] | None = None
    ) -> protocol.Decision:
        """An attempt failed: what to do.

        Args:
            exit_code: how it ended.
            error: the text of its error, if the caller knows it.
            log_tail: the last lines of its output, if the caller knows them.
        """
        environment, left_out = _environment()  # the toolkit has put SM_* there meanwhile
        request: protocol.Failed = {
            "op": "failed",
            "exit_code": exit_code,
            "error": None if error is None else protocol.text(error, last=True),
            "log_tail": None if log_tail is None else protocol.lines(log_tail),
            "environment": environment,
            "left_out": left_out,
            "beats": True,
        }
        return self._decide(request, "failure")

    def succeeded(self, exit_code: int = 0) -> protocol.Decision:
        """An attempt succeeded: what to do, as for `failed`."""
        return self._decide({"op": "succeeded", "exit_code": exit_code, "beats": True}, "end")

    def _attach(self, seconds: float) -> Connection | None:
        if self._connection is None:
            self._connection = Connection.open(seconds, self._interrupted)
            if self._connection is not None:
                self._connection.send(
                    {
                        "op": "attach",
                        "role": self._role,
                        "command": protocol.command(self._command),
                        "cwd": os.getcwd(),
                        "code_dir": self._code_dir,
                        "entry": self._entry,
                    }
                )
                answer = self._connection.receive(max(seconds, REPLY_LIMIT))
                if answer is None:
                    raise ConnectionError("the supervisor does not answer")
                self._beats = bool(answer.get("beats"))
        return self._connection

    def _tell(self, request: protocol.Before) -> None:
        try:
            connection = self._attach(0.0)
            answer = None if connection is None else connection.ask(request)
            if answer is None:
                self._hang_up()  # the late answer would be taken for that of the next message
            elif "error" in answer:
                boot.note(f"{request['op']}: {_said(answer)}")
        except (OSError, ValueError) as error:
            boot.note(f"{request['op']}: {error}")
            self._hang_up()

    def _decide(
        self, request: protocol.Failed | protocol.Succeeded | protocol.Point, point: str
    ) -> protocol.Decision:
        """Ask, print what the supervisor wants in the job's log meanwhile, and return its decision.

        Args:
            request: what the supervisor is asked.
            point: the point of a hold that this is.
        """
        if self._interrupted():
            return RELEASE
        wanted = point in self.settings.hold or (point == "start" and self.settings.wait_seconds is not None)
        try:
            connection = self._attach(START_LIMIT if wanted else 0.0)
            if connection is None:
                return self._undecided("no supervisor runs here", wanted and not self._interrupted())
            connection.send(request, SILENCE_LIMIT)
            return self._receive_decision(connection)
        except (OSError, ValueError) as error:
            self._hang_up()
            return self._undecided(str(error), wanted)

    def _receive_decision(self, connection: Connection) -> protocol.Decision:
        silent = 0.0
        while not self._beats or silent < SILENCE_LIMIT:
            answer = connection.receive(0.2)
            # Counted, not timed: a machine that is suspended suspends both sides.
            silent = 0.0 if answer else silent + 0.2
            if answer is None and self._interrupted():
                self._hang_up()
                return RELEASE
            if answer is None or "beat" in answer:
                continue
            if "say" in answer:
                self._say(str(answer["say"]))
                continue
            if not answer.get("action"):
                raise ValueError(f"an answer without an action: {_said(answer)}")
            decision: protocol.Decision = answer
            return decision
        raise ConnectionError(f"nothing was heard for {SILENCE_LIMIT:g} s")

    def _undecided(self, why: str, wanted: bool) -> protocol.Decision:
        """Nothing decides: the job goes on as without us, and says so where a hold was asked for."""
        boot.note(f"no decision: {why}")
        if wanted:
            self._say(f"smssh: nothing is held here: {why}")
        return RELEASE

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _environment(variables: Mapping[str, Any] | None = None) -> tuple[dict[str, str], list[str]]:
    """The entry point's environment as it is sent, and the names of variables that are too large for that.

    Args:
        variables: what it gets beside this process's own.
    """
    whole = {name: str(value) for name, value in dict(os.environ, **(variables or {})).items()}
    kept, left_out = protocol.environment(whole)
    return kept, protocol.command(left_out)


def _said(answer: Mapping[str, Any]) -> str:
    """An answer that was not expected, for a log."""
    error = answer.get("error")
    return protocol.text(str(error.get("message") if isinstance(error, dict) else dict(answer)), 1000)


def wait_at_start(command: Sequence[str]) -> None:
    """Hold or wait before the job's first script, where init does not do it."""
    settings = job_settings()
    if settings.wait or "start" in settings.hold:
        Reporter("script", command, settings, job_log.say).at_start()


def status(seconds: float = REPLY_LIMIT) -> protocol.Status | None:
    """The supervisor's status; None if it does not answer within `seconds`, or with an error."""
    connection = Connection.open()
    if connection is None:
        return None
    try:
        answer: protocol.Status | None = connection.ask({"op": "status"}, seconds)
    except (OSError, ValueError):
        return None
    finally:
        connection.close()
    return answer if answer and "state" in answer else None


def end() -> None:
    """The job is over: let the supervisor deregister, and wait for it, within END_LIMIT."""
    connection = Connection.open()
    if connection is not None:
        try:
            connection.ask({"op": "end"}, END_LIMIT)
        except (OSError, ValueError):
            pass  # it is gone, which is what was wanted
        finally:
            connection.close()


class Tee:
    """Two pipes that pass output on to this process's stdout and stderr and keep its last lines.

    Never waits for the end of a pipe: a grandchild may keep it open for ever.

    Args:
        targets: where stdout and stderr go; descriptors.
        pipes: reader and writer for each, where they exist already.
    """

    def __init__(
        self, targets: Sequence[int] = (1, 2), pipes: Sequence[tuple[int, int]] | None = None
    ) -> None:
        self._targets: dict[int, int] = {}
        self.writers: list[int] = []
        """The descriptors to write stdout and stderr to."""
        self._lines: collections.deque[bytes] = collections.deque(maxlen=TAIL_LINES)
        self._partial: dict[int, bytes] = {}
        self._taken: dict[int, int] = {}
        self._passed: dict[int, int] = {}
        """Bytes that were read from each pipe, and how many of them were written."""
        self._moved = threading.Condition()
        if pipes is None:
            first = os.pipe()
            # What goes to one place goes through one pipe: two would not keep the order.
            pipes = [first, first if os.path.sameopenfile(*targets) else os.pipe()]
        for target, (reader, writer) in zip(targets, pipes):
            self._targets.setdefault(reader, target)
            self._partial[reader] = b""
            self._taken[reader] = self._passed[reader] = 0
            self.writers.append(writer)
        thread = threading.Thread(target=self._pump, name="smssh-tee")
        thread.daemon = True
        thread.start()

    def forget(self) -> None:
        """A new attempt starts: its last lines are its own."""
        self._lines.clear()

    def tail(self) -> list[str]:
        """The last lines, oldest first; call `settle` before."""
        rest = [line for line in self._partial.values() if line]
        return [_text(line) for line in list(self._lines) + rest][-TAIL_LINES:]

    def settle(self, seconds: float | None = None, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Wait until what has been written to the pipes is passed on.

        Args:
            seconds: how long at most. None: without end, as the writer would have waited without us, when nobody
                takes the job's log.
            interrupted: called in between; True gives up.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        with self._moved:
            # Of this moment: a process that has inherited a pipe may write to it for ever.
            goals = {reader: self._taken[reader] + _waiting(reader) for reader in self._targets}
            while any(reader in self._targets and self._passed[reader] < goals[reader] for reader in goals):
                if interrupted() or (deadline is not None and time.monotonic() >= deadline):
                    return
                self._moved.wait(0.05)

    def _pump(self) -> None:
        while self._targets:
            try:
                ready = select.select(list(self._targets), [], [])[0]
            except OSError:
                return
            for reader in ready:
                self._pass_on(reader)

    def _pass_on(self, reader: int) -> None:
        with self._moved:
            data = os.read(reader, 65536)
            self._taken[reader] += len(data)
        target = self._targets[reader]
        gone = False
        try:
            rest = data
            while rest:
                try:
                    rest = rest[os.write(target, rest) :]
                except BlockingIOError:  # noqa: PERF203 - a log that is full for a moment
                    select.select([], [target], [], 1.0)
        except OSError:
            gone = True
        lines = (self._partial[reader] + data).split(b"\n")
        self._partial[reader] = lines.pop()[-BYTE_LIMIT:]
        self._lines.extend(line[-BYTE_LIMIT:] for line in lines[-TAIL_LINES:])
        with self._moved:
            self._passed[reader] += len(data)
            if gone:
                # Nobody reads the job's log: let the writer find that out, as it would without us.
                os.close(reader)
                del self._targets[reader]
            self._moved.notify_all()


def _waiting(reader: int) -> int:
    """How many bytes are in a pipe."""
    import array
    import fcntl
    import termios

    found = array.array("i", [0])
    fcntl.ioctl(reader, termios.FIONREAD, found)
    return found[0]


def _text(line: bytes) -> str:
    """A line as a terminal would show it at the end: after the last carriage return of a progress bar."""
    return line.rstrip(b"\r").rsplit(b"\r", 1)[-1].decode("utf-8", "replace")[:LINE_LIMIT]
