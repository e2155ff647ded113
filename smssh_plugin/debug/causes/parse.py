"""The exceptions in a log: a parser that is fed line by line, in bounded memory.

It needs no indentation, which the SageMaker SDK's version 3 strips from each line of a script's output. Each process
that names itself at the beginning of its lines is parsed alone, since ranks write at the same time.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from . import lines

__all__ = ["Error", "Frame", "Parser", "Raised", "Summary", "tracebacks"]

STREAMS_LIMIT = 128
ERRORS_LIMIT = 16
"""Errors that are kept of one stream: the last ones."""
LINKS_LIMIT = 20
FRAMES_LIMIT = 60
LEAVES_LIMIT = 50
MESSAGE_LINES = 12
TAIL_LINES = 200
FOREIGN_LINES = 6
"""Lines of others between the frames of a traceback, after which it is given up."""
SOURCE_LINES = 15
"""Lines of source that follow one frame: from Python 3.13 on, a whole statement."""

FAR = 100
"""Lines after an error that are told from those of toolkits."""

_HEADER = "Traceback (most recent call last)"
_FRAME = re.compile(r'\s*File "([^"]{1,1000})", line (\d{1,9})(?:, in (.{0,200}))?')
_NAME = r"(?:[A-Za-z_]\w*\.(?:<locals>\.)?){0,12}[A-Za-z_]\w*"
_EXCEPTION = re.compile(rf"(?P<name>{_NAME})(?:: ?(?P<message>.*)|\s*)$")
_USUAL = re.compile(
    r"(?:.*\.)?(?:[A-Z_]\w*(?:Error|Exception|Warning|Interrupt|Exit|Iteration|Failed|Failure|Timeout|Exhausted|NotFound"
    r"|Denied|Group|Exceeded|Unavailable|Argument|Refused|Aborted)|timeout|gaierror|herror|[Ee]rror)$"
)
_LEVELS = frozenset(
    [
        "DEBUG",
        "INFO",
        "WARNING",
        "WARN",
        "ERROR",
        "CRITICAL",
        "FATAL",
        "NOTE",
        "NOTICE",
        "TRACE",
        "Epoch",
        "Step",
        "Loss",
        "Traceback",
    ]
)
_MARKS = re.compile(r"[\s~^]+$")
_REPEATED = re.compile(r"\s*(?:\[Previous line repeated \d+ more times?\]|\.\.\.<\d+ lines>\.\.\.)")
_CAUSE = "The above exception was the direct cause of the following exception"
_CONTEXT = "During handling of the above exception, another exception occurred"
_BOUNDARY = re.compile(r"\+-(?P<opens>\+-)?-{6,}(?: (?P<number>\d{1,6}|\.\.\.) -{6,})?$")
_HARMLESS = re.compile(
    r"Exception ignored in|Error in atexit\._run_exitfuncs|--- Logging error ---|Task exception was never retrieved"
    r"|Exception in callback |Error in sys\.excepthook"
)
_THREAD = re.compile(r"Exception in thread (?P<thread>.{1,100}?):?$")
_NOISE = re.compile(
    r"(?i)\s*$|.*sagemaker.{0,3}(?:training|containers)|.*Reporting training (?:FAILURE|SUCCESS)"
    r"|ExecuteUserScriptError|ExitCode -?\d+|ErrorMessage|Command \"|\s*\"$"
    r"|.*torch[./]distributed[./](?:elastic|run|launch)|.*sending process \d+ closing signal"
    r"|wandb:|\s+at [\w.$]+\(|srun:|-{8,}|={8,}|\*{8,}|Primary job +terminated|mpirun |Encountered exit_code|smssh:"
)
"""Lines that others than the script write once it has failed."""
_ROOT_CAUSE = re.compile(r"\s*Root Cause \(first observed failure\)")
_SUMMARY_FIELD = re.compile(r"\s*(?P<name>rank|exitcode|host|error_file)\s{0,6}: (?P<value>.{0,300})")


class Frame(NamedTuple):
    """One level of a traceback."""

    path: str
    line: int
    function: str


@dataclass
class Raised:
    """One exception of a chain.

    Attributes:
        title: the line that names it, as in `KeyError: 'label'`.
        more: lines that follow it, and may belong to its message.
        frames: the last ones, outermost first.
        leads: how it led to the next one of the chain: cause (`raise B from A`), context (B while A was handled), or
            "" for the last one.
    """

    title: str
    more: list[str] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    leads: str = ""

    @property
    def name(self) -> str:
        """The exception's name, as printed: with its module unless that is builtins."""
        return self.title.partition(":")[0].strip()


@dataclass
class Error:
    """A whole traceback: a chain of exceptions, oldest first.

    Attributes:
        stream: the process that printed it; "" where it does not say.
        chain: at least one exception.
        host: whose log it is in.
        time: of its last line, in seconds since the epoch; None where unknown.
        position: the number of its last line in the log.
        after: how many lines of other output followed it.
        thread: the name of the thread that it ended; "" for others.
        harmless: whether Python itself says that it ended nothing (an exception of a destructor, of a logger).
        of: how many exceptions the group had that this one was taken out of; 1 where there is no group.
    """

    stream: str
    chain: list[Raised]
    host: str = ""
    time: float | None = None
    position: int = 0
    began: int = 0
    after: int = 0
    thread: str = ""
    harmless: bool = False
    of: int = 1

    @property
    def title(self) -> str:
        """The line that names the last exception."""
        return self.chain[-1].title


@dataclass
class Summary:
    """What torchrun says of the rank that failed first; "" where it does not say."""

    rank: str = ""
    exitcode: str = ""
    host: str = ""


@dataclass
class _Open:
    """A traceback that is being read."""

    frames: deque[Frame] = field(default_factory=lambda: deque(maxlen=FRAMES_LIMIT))
    began: int = 0
    indented: bool = False
    since_frame: int = 0
    foreign: int = 0
    thread: str = ""
    harmless: bool = False
    headless: bool = False


@dataclass
class _Group:
    """An exception group that is being read: the deepest of its exceptions, and how many there were."""

    depth: int = 0
    count: int = 0
    deepest: int = -1
    leaf: Error | None = None
    expects: bool = False


class _Stream:
    """One process's part of a log."""

    def __init__(self, name: str, host: str) -> None:
        self.name = name
        self.host = host
        self.errors: deque[Error] = deque(maxlen=ERRORS_LIMIT)
        self.cut = 0
        """How many tracebacks were begun and not finished: others wrote between their lines."""
        self._open: _Open | None = None
        self._joins = ""
        self._message: Raised | None = None
        self._before = ""
        self._group: _Group | None = None
        self._after = 0

    def feed(self, text: str, number: int, time: float | None) -> None:
        """Take one line."""
        if self._group is not None or "Exception Group Traceback" in text:
            text = self._in_group(text)
        header = text.find(_HEADER)
        if header >= 0:
            self._begin(text[:header], number)
        elif self._open is not None:
            self._inside(self._open, text, number, time)
        else:
            self._outside(text, number, time)
        if text and not text.isspace():
            self._before = text

    def close(self) -> list[Error]:
        """The errors that were found, oldest first."""
        if self._open is not None:
            self.cut += 1
            self._open = None
        self._end_group()
        for error in self.errors:
            error.after = self._after - error.after
        return list(self.errors)

    def _begin(self, before: str, number: int) -> None:
        if self._open is not None:
            self.cut += 1
        thread = _THREAD.match(self._before)
        self._open = _Open(
            began=number,
            thread=thread["thread"] if thread else "",
            harmless=bool(_HARMLESS.match(self._before) or _HARMLESS.match(before)),
        )
        self._message = None

    def _outside(self, text: str, number: int, time: float | None) -> None:
        if text.startswith(_CAUSE):
            self._joins = "cause"
        elif text.startswith(_CONTEXT):
            self._joins = "context"
        elif (frame := _FRAME.match(text)) and frame[3] is None and text.rstrip().endswith(frame[2]):
            # A script that Python cannot compile: there is no header.
            self._open = _Open(began=number, headless=True, indented=text[:1].isspace())
            self._open.frames.append(Frame(frame[1], int(frame[2]), ""))
            self._message = None
        elif self._group is not None and self._group.expects and (found := _exception(text, sure=False)):
            self._group.expects = False
            self._finish(_Open(began=number), found, number, time)
        else:
            self._other(text, number)

    def _other(self, text: str, number: int) -> None:
        """Take a line outside of tracebacks; it may belong to the message of the last one."""
        message = self._message
        # `Error(s) in loading state_dict:`, `Graph execution error:` and then a blank line.
        goes_on = message is not None and (text.strip() or message.title.endswith(":"))
        if message is not None and goes_on and len(message.more) < MESSAGE_LINES:
            message.more.append(text)
        else:
            self._message = None
        if not self.errors or not text.strip() or text.strip() == '"""':
            return
        # Far from the last error nobody asks what the lines are; and a log may have a hundred million.
        last = self.errors[-1]
        if self._after - last.after > FAR or not _NOISE.match(text):
            self._after += 1
        if number - last.position > MESSAGE_LINES:
            self._joins = ""

    def _inside(self, group: _Open, text: str, number: int, time: float | None) -> None:
        frame = _FRAME.match(text)
        if frame is not None:
            group.indented = group.indented or text[:1].isspace()
            group.frames.append(Frame(frame[1], int(frame[2]), frame[3] or ""))
            group.since_frame = 0
            return
        if not text.strip() or _MARKS.match(text) or _REPEATED.match(text):
            return
        if group.indented and text[:1].isspace():
            return  # source
        certain = group.indented or (group.since_frame > 0 and not group.headless) or not group.frames
        found = _exception(text, sure=not certain)
        if found:
            self._open = None
            self._finish(group, found, number, time)
            return
        group.since_frame += 1
        group.foreign += group.indented
        if group.foreign > FOREIGN_LINES or group.since_frame > SOURCE_LINES:
            self._open = None
            self.cut += 1

    def _finish(self, group: _Open, title: str, number: int, time: float | None) -> None:
        raised = Raised(title, frames=list(group.frames))
        self._message = raised
        error = Error(
            self.name,
            [raised],
            host=self.host,
            time=time,
            position=number,
            began=group.began,
            after=self._after,
            thread=group.thread,
            harmless=group.harmless,
        )
        joins, self._joins = self._joins, ""
        if self._group is not None:
            self._leaf(self._group, error)
            return
        if joins and self.errors:
            earlier = self.errors.pop()
            earlier.chain[-1].leads = joins
            error.chain = [*earlier.chain, raised][-LINKS_LIMIT:]
            error.began, error.thread, error.harmless = earlier.began, earlier.thread, earlier.harmless
        self.errors.append(error)

    # ------------------------------------------------------------------------------ exception groups

    def _in_group(self, text: str) -> str:
        """The line without the drawing that Python puts before those of an exception group."""
        bare = text.lstrip()
        if self._group is None:
            self._group = _Group(depth=1)
            return bare.removeprefix("+ ")
        boundary = _BOUNDARY.match(bare.rstrip())
        if boundary is not None:
            if self._open is not None:
                self._open = None
                self.cut += 1
            if boundary["opens"]:
                self._group.depth += 1
            elif boundary["number"] is None:
                self._group.depth -= 1
            self._group.expects = boundary["number"] is not None
            if self._group.depth <= 1 and boundary["number"] is None:
                self._end_group()
            return ""
        if bare.startswith("|"):
            return bare[1:].removeprefix(" ")
        if bare.startswith("+ ") and _HEADER in bare:
            return bare[2:]
        if bare:
            self._end_group()  # cut off, or over
        return text

    def _leaf(self, group: _Group, error: Error) -> None:
        """Take an exception of a group; the group's own line counts where nothing is inside of it."""
        is_group = error.chain[-1].name.rpartition(".")[2] in ("ExceptionGroup", "BaseExceptionGroup")
        depth = -1 if is_group else group.depth
        group.count += not is_group
        if group.leaf is None or depth > group.deepest:
            group.leaf, group.deepest = error, depth

    def _end_group(self) -> None:
        group, self._group = self._group, None
        if group is not None and group.leaf is not None:
            group.leaf.of = max(1, group.count)
            self.errors.append(group.leaf)


def _exception(text: str, *, sure: bool) -> str:
    """The line if it names an exception, else "".

    Args:
        text: the line.
        sure: whether a line of source may stand here: then only names that no source has are taken.
    """
    bare = text.strip()
    found = _EXCEPTION.match(bare)
    if found is None or found["name"] in _LEVELS:
        return ""
    name = found["name"]
    usual = _USUAL.match(name) is not None
    if sure:
        return bare if usual and (found["message"] is None or ": " in bare or bare.endswith(":")) else ""
    if usual:
        return bare
    last = name.rpartition(".")[2]
    named = found["message"] is not None and (last[:1].isupper() or "." in name)
    return bare if named or (found["message"] is None and last[:1].isupper() and last != last.upper()) else ""


class Parser:
    """Reads a log of any size.

    Args:
        host: whose log it is.
    """

    def __init__(self, host: str = "") -> None:
        self._host = host
        self._streams: OrderedDict[str, _Stream] = OrderedDict()
        self.count = 0
        """How many lines were read."""
        self.tail: deque[lines.Line] = deque(maxlen=TAIL_LINES)
        """The last lines, of all streams."""
        self.summary: Summary | None = None
        self._in_summary = 0

    def feed(self, raw: str, time: float | None = None) -> None:
        """Take what was written, of one line or several.

        Args:
            raw: the text.
            time: when, in seconds since the epoch.
        """
        for one in raw.rstrip("\n").split("\n") if "\n" in raw else (raw,):
            self._take(lines.read(one), time)

    def _take(self, line: lines.Line, time: float | None) -> None:
        self.count += 1
        self.tail.append(line)
        stream = self._streams.get(line.stream)
        if stream is None:
            stream = self._streams[line.stream] = _Stream(line.stream, self._host)
            if len(self._streams) > STREAMS_LIMIT:
                idle = next((name for name, each in self._streams.items() if not each.errors), None)
                self._streams.pop(next(iter(self._streams)) if idle in (None, line.stream) else idle)
        if self._in_summary:
            self._summarize(line.text)
        elif "Root Cause" in line.text and _ROOT_CAUSE.match(line.text):
            self.summary, self._in_summary = Summary(), 12
        stream.feed(line.text, self.count, time)

    def _summarize(self, text: str) -> None:
        self._in_summary -= 1
        found = _SUMMARY_FIELD.match(text)
        if found is not None and self.summary is not None and found["name"] != "error_file":
            value = found["value"].split()
            setattr(self.summary, found["name"], value[0] if value else "")

    def errors(self) -> list[list[Error]]:
        """The errors of each stream that has some, oldest first; the parser is at its end then."""
        found = [stream.close() for stream in self._streams.values()]
        return [each for each in found if each]

    @property
    def cut(self) -> int:
        """How many tracebacks were not finished."""
        return sum(stream.cut for stream in self._streams.values())


def tracebacks(text: str) -> list[Error]:
    """The errors in the text of one traceback, oldest first: more than one where it has that of another in it."""
    parser = Parser()
    parser.feed(text)
    return [error for stream in parser.errors() for error in stream]
