"""The cause of a failure, out of everything that is known of it."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from . import lines as cleaned
from .choose import Choice, choose, is_secondary, is_wrapper, order
from .parse import Parser, tracebacks
from .table import CAUSES, UNKNOWN, Cause

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .parse import Error, Frame, Raised
    from .table import Sign

__all__ = ["Facts", "Finding", "Log", "find"]

AFTER_A_CRASH = 3
"""Lines of other output after an exception from which on a signal is not its end."""
AFTER_A_LINE = 12
"""Lines of other output after which a line of a log proves nothing any more."""
ERROR_LIMIT = 2000
TEXT_LIMIT = 20_000
"""Characters of a text in which signs are searched for."""
OTHERS_LIMIT = 5
SURE_WEIGHT = 3
LIKELY_WEIGHT = 2

_NUMBERS = {one.value: one.name for one in signal.Signals}
_STATUS = (
    re.compile(r"died with <Signals\.SIG\w{1,10}: (?P<signal>\d{1,2})>"),
    re.compile(r"Signal (?P<signal>\d{1,2}) \(SIG\w{1,10}\) received"),
    re.compile(r"^ExitCode (?P<code>-?\d{1,3})\b"),
    re.compile(r"exit(?:ed)?(?: with)?(?: status| code|code)\s{0,8}:? ?(?P<code>-?\d{1,3})\b(?! \(pid)"),
    re.compile(r"exitcode\s{0,6}: (?P<code>-?\d{1,3})\b"),
    re.compile(r"exited on signal (?P<signal>\d{1,2})\b"),
    re.compile(r"return(?: |ed )code\s{0,3}[:=]? ?(?P<code>-?\d{1,3})\b"),
    re.compile(r"Received (?P<code>-?\d{1,3}) from exiting process"),
    re.compile(r"returned non-zero exit status (?P<code>-?\d{1,3})\b"),
)
_GROUP = re.compile(r"\{(\w+)(?:\|([^}]*))?\}")
_NO_ERROR = re.compile(
    r"(?i)\s*$|.*(?:sagemaker.{0,3}(?:training|containers)|Reporting training|\bINFO\b|\bDEBUG\b)|ExitCode|ErrorMessage"
    r"|Command \"|smssh:|\s*\"$|ExecuteUserScriptError"
)
_FAULTHANDLER = re.compile(r"Fatal Python error|Current thread 0x|Thread 0x|  File |Extension modules:")
_SERVICE_WRAP = re.compile(
    r"^(?:ClientError: )?AlgorithmError:\s?(?P<text>.*?)(?:, exit code: (?P<code>-?\d{1,3}))?$", re.DOTALL
)
_BOILERPLATE = re.compile(r"\s*Retry not appropriate on execution of step.*", re.DOTALL)
"""What a pipeline appends to the reason of a step, with words that stand for other causes elsewhere."""
_POINTERS = re.compile(
    r"(?i)see job logs for more information|please (?:look|see|check) .{0,80}(?:log|cloudwatch)|ErrorMessage \"\"|^\s*$"
)
_LIBRARY = re.compile(r"site-packages/|dist-packages/|/lib/python\d|^<|/sm_drivers/|/sagemaker_training/")


class Log(NamedTuple):
    """The log of one host.

    Attributes:
        host: as in algo-1; "" where unknown.
        lines: (seconds since the epoch or None, text) of each line, oldest first.
    """

    host: str
    lines: Iterable[tuple[float | None, str]]


@dataclass(frozen=True)
class Facts:
    """What is known of a failure.

    Attributes:
        error: what the container recorded as the exception that ended the entry point, in one line; "" if nothing.
        traceback: its text; "" if nothing.
        thread: the thread that it ended; "" if it ended the process.
        exit_code: of the entry point, as a shell tells it (128 and the signal), or negative for a signal; None if
            unknown.
        logs: of the hosts, the one that failed first first.
        service: what SageMaker says: FailureReason, ExitMessage, SecondaryStatus; most telling first.
        code_dir: the folder of the script in the container; "" if unknown.
        oom_kills: how many processes the kernel has ended for want of memory; None if unknown.
        peak_bytes: the most memory that the container has had; None if unknown.
        limit_bytes: how much it may have; None if unknown.
    """

    error: str = ""
    traceback: str = ""
    thread: str = ""
    exit_code: int | None = None
    logs: Sequence[Log] = ()
    service: Sequence[str] = ()
    code_dir: str = ""
    oom_kills: int | None = None
    peak_bytes: int | None = None
    limit_bytes: int | None = None


@dataclass
class Finding:
    """Why something failed.

    Attributes:
        id: of the cause, see `table`; unknown where none fits.
        sentence: the cause in one sentence, without a period.
        certain: whether the sources say so themselves; else it is what they most often mean.
        advice: what to do; "" if unknown.
        hold: whether a hold helps: y, part, n or "".
        sure: where the error is from: recorded (by the container, as it happened), parsed (out of logs), service (what
            SageMaker says), or "" where nothing was found.
        error: the chosen error, in one line.
        place: the last line of the user's own code that it went through, as in `train.py:12`; "" if unknown.
        where: whose error it is, as in `algo-2, rank 3`; "" where that is not said.
        evidence: what else speaks for it, in sentences.
        doubts: why the error may be another one.
        others: errors that were not chosen, one line each.
        count: how many errors were not chosen.
        possible: ids of other causes whose signs were there.
    """

    id: str = UNKNOWN.id
    sentence: str = UNKNOWN.sentence
    certain: bool = False
    advice: str = ""
    hold: str = ""
    sure: str = ""
    error: str = ""
    place: str = ""
    where: str = ""
    evidence: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    count: int = 0
    possible: list[str] = field(default_factory=list)

    @property
    def line(self) -> str:
        """The cause and how sure it is, in one line."""
        if self.id == UNKNOWN.id:
            return self.sentence
        return self.sentence if self.certain else f"probably: {self.sentence}"


class _Match(NamedTuple):
    cause: Cause
    sign: Sign
    sentence: str
    weight: int
    text: str = ""
    """The line that has the sign, of a log."""


@dataclass
class _Logs:
    """What the logs of all hosts hold."""

    choice: Choice | None
    tail: list[str]
    signal: int | None
    """By which a rank or the script ended, as launchers say."""
    code: int | None
    cut: int


def find(facts: Facts) -> Finding:
    """The chosen error and its cause; `unknown` where none of the known ones fits."""
    read = _read(facts.logs)
    service = [_BOILERPLATE.sub("", text[:TEXT_LIMIT]) for text in facts.service if text and text.strip()]
    own = [text for text in service if _SERVICE_WRAP.match(text) is None]
    told = [match for text in own if (match := _best("service", text))]
    said = next((match for match in told if match.weight >= SURE_WEIGHT), None)
    if said is not None:
        # What SageMaker itself could not do: the script's log knows nothing of it.
        return _with_others(_finding(said, "service", _first_line(_text_of(own, said))), read)
    number, status = _exit(facts, read, service)
    choice, sure = _chosen(facts, read, number)
    if choice is None:
        choice, sure = _from_service(service), "service"
    if choice is not None:
        return _explain(facts, read, choice, sure, number)
    return _without_exception(facts, read, service, number, status, told)


# ---------------------------------------------------------------------------------------------- the sources


def _read(logs: Sequence[Log]) -> _Logs:
    streams: list[list[Error]] = []
    tail: list[str] = []
    rank, number, code, cut = "", None, None, 0
    for log in logs:
        parser = Parser(log.host)
        for time, raw in log.lines:
            parser.feed(raw, time)
        streams += parser.errors()
        texts = [line.text for line in parser.tail]
        if parser.summary is not None:
            rank = rank or parser.summary.rank
            number = number or _signal(_whole(parser.summary.exitcode))
        for text in reversed(texts):
            if number is not None or code is not None:
                break
            number, code = _status(text)
        cut += parser.cut
        tail += texts
    return _Logs(choose(streams, rank), tail, number, code, cut)


def _status(text: str) -> tuple[int | None, int | None]:
    """The signal or the status that a line tells."""
    for pattern in _STATUS:
        found = pattern.search(text)
        if found is None:
            continue
        parts = found.groupdict()
        if parts.get("signal"):
            return int(parts["signal"]), None
        code = int(parts["code"])
        number = _signal(code)
        if number is not None or code:
            return number, (None if number is not None else code)
    return None, None


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else None


def _signal(code: int | None) -> int | None:
    if code is None:
        return None
    number = -code if code < 0 else code - 128
    return number if number in _NUMBERS else None


def _exit(facts: Facts, read: _Logs, service: Sequence[str]) -> tuple[int | None, int | None]:
    """By which signal, or else with which status, it ended."""
    number = _signal(facts.exit_code)
    if number is not None:
        return number, None
    if read.signal is not None:
        return read.signal, None
    codes = [facts.exit_code, read.code]
    for text in service:
        found = _SERVICE_WRAP.match(text)
        if found is not None and found["code"]:
            code = int(found["code"])
            if _signal(code) is not None:
                return _signal(code), None
            codes.append(code)
    return None, next((code for code in codes if code), None)


def _chosen(facts: Facts, read: _Logs, number: int | None) -> tuple[Choice | None, str]:
    """The exception that ended it, from the record or the logs."""
    recorded = _recorded(facts)
    logged = read.choice
    if (
        logged is not None
        and number is not None
        and (
            logged.error.after > AFTER_A_CRASH
            or is_wrapper(logged.error)
            or number in (signal.SIGKILL, signal.SIGTERM)
        )
    ):
        # A killed process leaves no exception: what is there was survived, or is of those that lost it.
        logged = None
    if recorded is None:
        return logged, "parsed"
    weak = is_wrapper(recorded.error) or is_secondary(recorded.error.title) or recorded.error.thread
    if weak and logged is not None and not is_wrapper(logged.error):
        better = logged.error
        if not is_secondary(better.title) and not better.thread and not better.harmless:
            logged.others.insert(0, recorded.error)
            return logged, "parsed"
    if is_wrapper(recorded.error) and number is not None:
        return None, ""
    if logged is not None:
        recorded.others = [
            each for each in (logged.error, *logged.others) if each.title != recorded.error.title
        ]
    return recorded, "recorded"


def _recorded(facts: Facts) -> Choice | None:
    found = tracebacks(facts.traceback) if facts.traceback else []
    choice = choose([found]) if found else None
    if choice is not None:
        choice.doubts = [each for each in choice.doubts if "follow it" not in each]
        own, *more = facts.error.splitlines() or [""]
        raised = choice.error.chain[-1]
        if own and own.partition(":")[0] == raised.name:
            raised.title, raised.more = own, more  # whole, where the traceback may be shortened
        if facts.thread:
            choice.error.thread = facts.thread
            choice.doubts.append(f"it ended the thread {facts.thread} only")
    return choice


def _from_service(service: Sequence[str]) -> Choice | None:
    """An exception in what the container told SageMaker."""
    for text in service:
        found = _SERVICE_WRAP.match(text)
        inner = found["text"].strip() if found is not None else ""
        if not inner or _POINTERS.search(inner):
            continue
        choice = choose([tracebacks(inner)])
        if choice is None:
            bare = inner.partition('ErrorMessage "')[2] or inner
            choice = choose([tracebacks(f"Traceback (most recent call last):\n{bare}")])
        if choice is not None and not is_wrapper(choice.error):
            choice.doubts.append(
                "SageMaker tells the first error that was printed, which may have been survived"
            )
            return choice
    return None


# ---------------------------------------------------------------------------------------------- the cause


def _explain(facts: Facts, read: _Logs, choice: Choice, sure: str, number: int | None) -> Finding:
    error = choice.error
    best: _Match | None = None
    matches: list[_Match] = []
    doubts = list(choice.doubts)
    evidence: list[str] = []
    for position, raised in enumerate(order(error.chain)):
        found = _of_raised(raised, recorded=sure == "recorded")
        matches += found
        strong = [match for match in found if match.weight >= LIKELY_WEIGHT]
        if best is not None:
            # The same cause, said plainly by an exception that led to this one.
            plain = next(
                (match for match in strong if match.cause is best.cause and match.weight > best.weight), None
            )
            if plain is not None:
                best = plain
                evidence.append(f"before it: {raised.title[:ERROR_LIMIT]}")
        elif strong:
            best = max(strong, key=lambda match: match.weight)
            if position and raised is not error.chain[-1] and raised.leads != "cause":
                doubts.append(
                    "the sign is in an exception that was being handled when the last one was raised"
                )
    if best is None:
        # A launcher's exception says nothing of its own; what the program that failed printed may.
        logged = _of_tail(read) if is_wrapper(error) or _is_command(error) else []
        best = next((match for match in logged if match.weight >= LIKELY_WEIGHT), None)
        matches += logged
        if best is not None:
            doubts.clear()
    if best is None and (number is not None and is_wrapper(error)):
        best = _best("exit", f"signal {number}")
    if is_secondary(error.title) and not doubts:
        doubts.append("it may be for the failure of another process")
    finding = Finding() if best is None else _finding(best, sure, "")
    finding.sure = sure
    finding.error = (best.text if best is not None and best.text else error.title)[:ERROR_LIMIT]
    finding.doubts = doubts
    finding.place = _place(error, facts.code_dir)
    finding.where = ", ".join(part for part in (error.host, error.stream) if part)
    finding.certain = finding.certain and not doubts
    finding.evidence += evidence
    finding.possible = _ids(matches, finding.id)
    _weigh(finding, facts)
    finding.count = len(choice.others)
    finding.others = list(dict.fromkeys(each.title[:ERROR_LIMIT] for each in choice.others))[:OTHERS_LIMIT]
    return finding


def _without_exception(
    facts: Facts,
    read: _Logs,
    service: Sequence[str],
    number: int | None,
    status: int | None,
    told: Sequence[_Match],
) -> Finding:
    """A failure of which no exception is known: exit facts, the last lines of the log, texts of the service."""
    matches = _of_tail(read)
    if number is not None:
        exits = _best("exit", f"signal {number}")
        # What a crash prints says more than its number, if it fits.
        least = LIKELY_WEIGHT if number == signal.SIGABRT else SURE_WEIGHT  # so libraries give up
        same = [
            match for match in matches if exits is None or match.cause is exits.cause or match.weight >= least
        ]
        matches = [*same, *([exits] if exits else [])]
    elif status is not None and (match := _best("exit", f"status {status}")):
        matches.append(match)
    matches += told
    for text in service:
        if _SERVICE_WRAP.match(text) and (match := _best("service", text)):
            matches.append(match)
    best = max(
        (match for match in matches if match.weight >= LIKELY_WEIGHT),
        key=lambda match: match.weight,
        default=None,
    )
    last = _last_line(read.tail)
    if best is not None:
        counted = best.sign.where == "exit" and _signal(facts.exit_code) is not None
        sure = (
            "service"
            if best.sign.where == "service"
            else "parsed"
            if read.tail and not counted
            else "recorded"
        )
        finding = _finding(best, sure, "")
    else:
        finding = Finding(sure="parsed" if last else "service" if service else "")
    ended = _ended(number, status)
    if best is not None and best.text:
        finding.error = best.text
    elif number is not None:
        finding.error = ended
    elif best is not None and best.sign.where == "service":
        finding.error = _first_line(_text_of(service, best))
    else:
        known = next((_first_line(text) for text in service if not _POINTERS.search(_inner(text))), "")
        finding.error = (
            _first_line(facts.error) or last or known or ended or (_first_line(service[0]) if service else "")
        )
        if finding.error == last and last:
            finding.doubts.append("there is no exception; it is the last line that was written")
        finding.certain = False
    finding.error = finding.error.strip()[:ERROR_LIMIT]
    finding.possible = _ids(matches, finding.id)
    if ended and ended not in finding.error:
        finding.evidence.append(ended)
    if read.choice is not None:
        finding.count = 1 + len(read.choice.others)
        others = (read.choice.error, *read.choice.others)
        finding.others = list(dict.fromkeys(each.title[:ERROR_LIMIT] for each in others))[:OTHERS_LIMIT]
    _weigh(finding, facts)
    return finding


def _of_raised(raised: Raised, *, recorded: bool) -> list[_Match]:
    """The causes that fit an exception; what follows it in a log may be other output, and proves less."""
    found = _all("error", raised.title[:TEXT_LIMIT])
    if raised.more:
        whole = "\n".join([raised.title, *raised.more])[:TEXT_LIMIT]
        more = [match for match in _all("error", whole) if match.cause not in {one.cause for one in found}]
        found += [
            match if recorded else match._replace(weight=min(match.weight, LIKELY_WEIGHT)) for match in more
        ]
    return found


def _of_tail(read: _Logs) -> list[_Match]:
    """The causes that fit one of the last lines, the strongest first, of those the first one of the table.

    What other output follows was survived, as far as can be told.
    """
    found: dict[str, _Match] = {}
    after = 0
    for text in reversed(read.tail):
        if not text.strip():
            continue
        for match in _all("log", text):
            weight = match.weight if after <= AFTER_A_LINE else min(match.weight, LIKELY_WEIGHT)
            if match.cause.id not in found or found[match.cause.id].weight < weight:
                found[match.cause.id] = match._replace(weight=weight, text=text.strip())
        after += _NO_ERROR.match(text) is None
    places = [cause.id for cause in CAUSES]
    return sorted(found.values(), key=lambda match: (-match.weight, places.index(match.cause.id)))


def _all(where: str, text: str) -> list[_Match]:
    """Each cause that fits, with its best sign there, in the order of the table."""
    found = []
    for cause in CAUSES:
        best: _Match | None = None
        for sign in cause.signs:
            if sign.where == where and (best is None or sign.weight > best.weight):
                at = sign.regex.search(text)
                if at is not None:
                    sentence = _filled(sign.sentence or cause.sentence, at.groupdict(), cause.sentence)
                    best = _Match(cause, sign, sentence, sign.weight)
        if best is not None:
            found.append(best)
    return found


def _best(where: str, text: str) -> _Match | None:
    return max(_all(where, text), key=lambda match: match.weight, default=None)


def _filled(sentence: str, groups: dict[str, str | None], otherwise: str) -> str:
    """A sentence with its groups; the cause's own sentence where one is missing that has no other word."""
    words = {name: (value or "").strip(" ,.;:") for name, value in groups.items()}
    for name, default in _GROUP.findall(sentence):
        if not words.get(name) and not default:
            return otherwise
    return _GROUP.sub(lambda found: words.get(found[1]) or found[2] or "", sentence)


def _finding(match: _Match, sure: str, error: str) -> Finding:
    return Finding(
        id=match.cause.id,
        sentence=match.sentence,
        certain=match.weight >= SURE_WEIGHT,
        advice=match.cause.advice,
        hold=match.cause.hold,
        sure=sure,
        error=error[:ERROR_LIMIT],
    )


def _with_others(finding: Finding, read: _Logs) -> Finding:
    if read.choice is not None:
        finding.count = 1 + len(read.choice.others)
        others = (read.choice.error, *read.choice.others)
        finding.others = list(dict.fromkeys(each.title[:ERROR_LIMIT] for each in others))[:OTHERS_LIMIT]
    return finding


def _weigh(finding: Finding, facts: Facts) -> None:
    """Add what was measured: it turns a likely cause into a certain one, and nothing else does."""
    if finding.id != "out-of-memory":
        return
    if facts.oom_kills:
        many = "a process" if facts.oom_kills == 1 else f"{facts.oom_kills} processes"
        finding.evidence.append(f"the kernel ended {many} for want of memory")
        finding.sentence, finding.certain = "out of memory: the kernel ended a process", not finding.doubts
    elif facts.oom_kills == 0:
        finding.evidence.append(
            "the kernel of the container counted no process that it ended for want of memory"
        )
    if facts.peak_bytes and facts.limit_bytes:
        finding.evidence.append(
            f"at most {facts.peak_bytes / 2**30:.1f} of {facts.limit_bytes / 2**30:.1f} GiB of memory"
            " were in use, files in the cache included"
        )


# ---------------------------------------------------------------------------------------------- words


def _ids(matches: Sequence[_Match], chosen: str) -> list[str]:
    return [each for each in dict.fromkeys(match.cause.id for match in matches) if each != chosen]


def _is_command(error: Error) -> bool:
    return "CalledProcessError" in error.title or "InstallRequirementsError" in error.title


def _ended(number: int | None, status: int | None) -> str:
    if number is not None:
        return f"ended by {_NUMBERS.get(number, f'signal {number}')}"
    return f"ended with status {status}" if status else ""


def _text_of(texts: Sequence[str], match: _Match) -> str:
    return next((text for text in texts if match.sign.regex.search(text)), "")


def _first_line(text: str) -> str:
    return next((part.strip() for part in text.splitlines() if part.strip()), "")


def _inner(text: str) -> str:
    found = _SERVICE_WRAP.match(text)
    return text if found is None else found["text"]


def _last_line(tail: Sequence[str]) -> str:
    return next(
        (
            text.strip()
            for text in reversed(tail)
            if not _NO_ERROR.match(text) and not _FAULTHANDLER.match(text)
        ),
        "",
    )


def _place(error: Error, code_dir: str) -> str:
    """The last line of the user's own code, of the newest exception that has one."""
    for raised in reversed(error.chain):
        own = [frame for frame in raised.frames if _is_own(frame, code_dir)]
        if own:
            path = own[-1].path
            root = f"{code_dir.rstrip('/')}/"
            short = path[len(root) :] if code_dir and path.startswith(root) else path.rpartition("/")[2]
            return cleaned.read(f"{short}:{own[-1].line}").text
    return ""


def _is_own(frame: Frame, code_dir: str) -> bool:
    if code_dir and frame.path.startswith(f"{code_dir.rstrip('/')}/"):
        return "site-packages/" not in frame.path
    return _LIBRARY.search(frame.path) is None
