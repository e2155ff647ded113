"""Every message of the supervisor's Unix socket, who sends it, and what bounds it: JSON objects, one a line.

A connection begins with the token of the run folder. Then it carries requests, each with an `op`, and for each one
answer: the one that the request's docstring names, or `Error`. Before the answer to a request for a decision, the
supervisor may send any number of `Say` and `Beat`. The receiver may be of another version: it takes what it knows of
a message, with a default for each value that is missing.

Messages are bounded by their bytes as they are sent: a character takes up to 12 bytes there, so a bound on characters
or lines would not do. The sender makes its messages fit: what a decision needs is never left out for the sake of what
only a person may want to read. The receiver takes LIMIT bytes and no more.

CPython 3.7 and later, standard library only: the job's own interpreter imports this. The messages are types for type
checkers only, because each job would wait for them; a test compares them with all that is sent.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False  # typing itself is not imported in the job's interpreters
if TYPE_CHECKING:
    from typing import Any, Dict, Literal, Mapping, Sequence, TypedDict, Union

    # --------------------------------------------------------------------------------------------------- requests

    class Attach(TypedDict):
        """Sent first by what runs the entry point: init, the toolkit's import hook, or a wait before a script.

        Answer: `Attached`.
        """

        op: Literal["attach"]
        role: Literal["init", "toolkit", "script"]
        """`init` and `toolkit` are there when an attempt ends, and can hold it."""
        command: list[str]
        """The entry point's command line, see `command`."""
        cwd: str
        code_dir: str | None
        """The folder of the user's code, if the sender knows it."""
        entry: str
        """The SMSSH_ENTRY of the entry point's processes; empty if they have none."""

    class Before(TypedDict):
        """Sent by init and the toolkit's import hook when an attempt starts; by both where init runs a toolkit.

        Answer: `Began`.
        """

        op: Literal["before"]
        started: float
        """Seconds since the epoch."""
        environment: dict[str, str]
        """The entry point's variables, see `environment`."""
        left_out: list[str]
        """The names of variables that are too large to be sent."""

    class Failed(TypedDict):
        """Sent by init and the toolkit's import hook when an attempt failed; they wait for a decision.

        Answer: `Decision`.
        """

        op: Literal["failed"]
        exit_code: int
        error: str | None
        log_tail: list[str] | None
        """The last lines of the output, see `lines`."""
        environment: dict[str, str]
        left_out: list[str]
        beats: bool
        """Whether the sender understands `Beat`."""

    class Succeeded(TypedDict):
        """Sent by init and the toolkit's import hook when an attempt succeeded; they wait for a decision.

        Answer: `Decision`.
        """

        op: Literal["succeeded"]
        exit_code: int
        beats: bool

    class Point(TypedDict):
        """Sent before the entry point starts for the first time, by all that send `Attach`; they wait for a decision.

        Answer: `Decision`.
        """

        op: Literal["point"]
        point: Literal["start"]
        beats: bool

    class WaitReady(TypedDict):
        """Sent by all that send `Attach` and by `smssh-hook placeholder`, to wait until a login is possible.

        Answer: `Readiness`.
        """

        op: Literal["wait_ready"]
        seconds: float
        """How long at most."""

    class End(TypedDict):
        """Sent by init and by the exit handler of boot when the job is over: the supervisor stops, then answers.

        Answer: `Done`.
        """

        op: Literal["end"]

    class AskStatus(TypedDict):
        """Sent by `smssh-hook status`, `smssh-hook placeholder`, `is_last_session_timeout` and remote installations.

        Answer: `Status`.
        """

        op: Literal["status"]

    class AskReport(TypedDict):
        """Sent by `smssh-hook report`.

        Answer: `Report`.
        """

        op: Literal["report"]

    class LoggedIn(TypedDict):
        """Sent by `smssh-hook logged-in`, which a login runs before anything of its own: it may change the code.

        Answer: `Done`.
        """

        op: Literal["logged_in"]

    class RequestHold(TypedDict):
        """Sent by `smssh-hook hold`: hold at the next failure or at the end.

        Answer: `HoldRequested`.
        """

        op: Literal["hold"]

    class Note(TypedDict):
        """Sent by `smssh-hook note`: keep a text until the job ends; the status shows it.

        Answer: `Done`.
        """

        op: Literal["note"]
        text: str
        """At most `NOTE_LIMIT` characters."""

    class Extend(TypedDict):
        """Sent by `smssh-hook extend`.

        Answer: `Extended`.
        """

        op: Literal["extend"]
        seconds: float
        """How long the hold lasts from now on, at least."""

    class Retry(TypedDict):
        """Sent by `smssh-hook retry`.

        Answer: `Retried`.
        """

        op: Literal["retry"]
        wait: bool
        """Whether the answer waits for the end of the attempt."""

    class Release(TypedDict):
        """Sent by `smssh-hook release`.

        Answer: `Released`.
        """

        op: Literal["release"]
        exit_code: int | None
        """What the job ends with; None for the entry point's own status."""

    Request = Union[
        Attach,
        Before,
        Failed,
        Succeeded,
        Point,
        WaitReady,
        End,
        AskStatus,
        AskReport,
        LoggedIn,
        RequestHold,
        Note,
        Extend,
        Retry,
        Release,
    ]

    # ----------------------------------------------------------------------------- what the supervisor sends

    class Done(TypedDict):
        """The request is carried out."""

        ok: Literal[True]

    class Attached(TypedDict):
        """The sender is known from now on."""

        ok: Literal[True]
        beats: bool
        """Whether the supervisor sends `Beat`."""

    class Began(TypedDict):
        """The attempt is on record."""

        ok: Literal[True]
        attempt: int

    class Decision(TypedDict):
        """What the sender does next: run the entry point once more, or go on without that."""

        action: Literal["retry", "release"]
        exit_code: int | None
        """With `release`, what the job ends with; None for the entry point's own status."""

    class Readiness(TypedDict):
        """Whether a login is possible."""

        ready: bool
        error: str | None
        wanted: bool
        """False if the settings want no login on this host."""

    class HoldRequested(TypedDict):
        """The job will be held."""

        ok: Literal[True]
        state: str

    class Extended(TypedDict):
        """The new end of the hold."""

        ok: Literal[True]
        deadline: float
        """Seconds since the epoch."""
        seconds: float
        """From now."""

    class Retried(TypedDict):
        """The new attempt, and how it ended if the request waited for that."""

        attempt: int
        exit_code: int | None
        seconds: float | None
        state: str

    class Released(TypedDict):
        """The hold is over."""

        ok: Literal[True]
        point: str
        exit_code: int | None

    class AttemptResult(TypedDict):
        """An attempt that has ended."""

        attempt: int
        exit_code: int
        seconds: float

    class HoldTimes(TypedDict):
        """The fields of `hookspecs.Hold` except its point."""

        since: float
        deadline: float
        max_deadline: float
        connected: int
        ends: float
        extended: float

    class ServerStatus(TypedDict):
        """The SSH server; each field is None until it runs."""

        port: int | None
        control_port: int | None
        host_key: str | None
        user: str | None
        server: str | None

    class TransportStatus(TypedDict):
        """The transport; each field is None until it runs."""

        name: str | None
        target: str | None

    class Status(TypedDict):
        """What `smssh-hook status --json` prints."""

        version: int
        state: str
        """starting, ready, running, held or ended."""
        point: str | None
        job: str
        kind: str
        host: str
        step: str
        attempt: int
        exit_code: int | None
        attempts: list[AttemptResult]
        hold: HoldTimes | None
        ssh: ServerStatus
        transport: TransportStatus
        code_dir: str
        report: str | None
        holds_end: float | None
        """When every hold must be over because of the job's own limit, in seconds since the epoch."""
        error: str | None
        note: str
        """What `smssh-hook note` was told last; "" before."""
        connect: str
        connected: int
        hosts: dict[str, dict[str, Any]]
        """The fields of `hookspecs.HostState`, by host."""
        plugin_version: str
        hooks: list[str]

    Report = Dict[str, Any]
    """What `smssh-hook report --json` prints: sections by name, some of them from plugins."""

    class ErrorDetail(TypedDict):
        """The fields of an SmsshError."""

        message: str
        hint: str | None
        reference: str | None
        status: int

    class Error(TypedDict):
        """The answer to any request that was refused or not understood, or that failed."""

        error: ErrorDetail

    class Say(TypedDict):
        """Before a `Decision`: a line for the job's log."""

        say: str

    class Beat(TypedDict):
        """Before a `Decision`: the supervisor is still there."""

        beat: Literal[True]

    Answer = Union[
        Done,
        Attached,
        Began,
        Decision,
        Readiness,
        HoldRequested,
        Extended,
        Retried,
        Released,
        Status,
        Report,
        Error,
    ]
    Message = Union[Request, Answer, Say, Beat]


__all__ = ["LIMIT", "command", "encode", "environment", "lines", "size", "text"]

LIMIT = 4 << 20
"""Bytes of one message, its newline among them."""
ENVIRONMENT_LIMIT = 2 << 20
"""Bytes of the variables in a message."""
COMMAND_LIMIT = 256 << 10
"""Bytes of a command line in a message."""
LINE_LIMIT = 8000
"""Bytes of one line of a job's output in a message; 200 of them are 1.6 MB."""
TEXT_LIMIT = 64 << 10
"""Bytes of any other text in a message."""
NOTE_LIMIT = 4000
"""Characters of a note."""
CUT = "..."


def size(value: Any) -> int:
    """How many bytes a value takes in a message."""
    return len(json.dumps(value))  # ASCII


def encode(message: Message) -> bytes:
    """The line of a message.

    Raises:
        ValueError: it takes more than LIMIT bytes, or has NaN or an infinite number.
        TypeError: it is not JSON.
    """
    line = json.dumps(message, allow_nan=False).encode() + b"\n"
    if len(line) > LIMIT:
        raise ValueError(f"a message of {len(line)} bytes is more than the {LIMIT} that are taken")
    return line


def text(value: str, limit: int = TEXT_LIMIT, *, last: bool = False) -> str:
    """The first part of a text, or the last one, that takes at most `limit` bytes in a message."""
    while size(value) > limit:
        # What is left may have more bytes a character than the whole: until it fits.
        count = min(len(value) - 1, len(value) * limit // size(value))
        value = value[len(value) - count :] if last else value[:count]
    return value


def lines(values: Sequence[str]) -> list[str]:
    """Lines of output, each cut to LINE_LIMIT bytes."""
    return [text(value, LINE_LIMIT) for value in values]


def command(words: Sequence[str]) -> list[str]:
    """The first words of a command line that take COMMAND_LIMIT bytes; `...` in place of what is left out."""
    kept: list[str] = []
    left = COMMAND_LIMIT
    for word in words:
        cut = text(word, min(left, TEXT_LIMIT))
        kept.append(cut)
        left -= size(cut) + 2
        if cut != word:
            kept[-1] += CUT
        if left <= 2:
            kept.append(CUT)
            break
    return kept


def environment(variables: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Variables that take at most ENVIRONMENT_LIMIT bytes, and the names of those that are left out: the largest."""
    kept = dict(variables)
    if size(kept) <= ENVIRONMENT_LIMIT:
        return kept, []
    sizes = {name: size({name: value}) for name, value in kept.items()}
    total, left_out = sum(sizes.values()), []
    for name in sorted(sizes, key=lambda each: (-sizes[each], each)):
        if total <= ENVIRONMENT_LIMIT:
            break
        total -= sizes[name]
        left_out.append(name)
        del kept[name]
    return kept, left_out
