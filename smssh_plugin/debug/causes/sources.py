"""The chosen error, out of what the container recorded, the logs of all hosts, and what SageMaker says."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import exits
from .choose import Choice, choose, is_secondary, is_wrapper
from .exits import Exit
from .parse import Parser, tracebacks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .facts import Facts, Log
    from .parse import Error

__all__ = ["Logs", "chosen", "ended", "from_container", "own_words", "read", "reasons"]

AFTER_A_CRASH = 3
"""Lines of other output after an exception from which on a signal is not its end."""
REASON_LIMIT = 20_000

_CONTAINERS = re.compile(
    r"^(?:ClientError: )?AlgorithmError:\s?(?P<text>.*?)(?:, exit code: (?P<code>-?\d{1,3}))?$", re.DOTALL
)
"""A reason that SageMaker took from the container."""
_BOILERPLATE = re.compile(r"\s*Retry not appropriate on execution of step.*", re.DOTALL)
"""What a pipeline appends to the reason of a step, with words that stand for other causes elsewhere."""
_POINTERS = re.compile(
    r"(?i)see job logs for more information|please (?:look|see|check) .{0,80}(?:log|cloudwatch)|ErrorMessage \"\"|^\s*$"
)


@dataclass
class Logs:
    """What the logs of all hosts hold.

    Attributes:
        choice: the chosen error; None where there is no error.
        tail: the last lines.
        exit: how a rank or the script ended, as launchers print it.
    """

    choice: Choice | None
    tail: list[str]
    exit: Exit


def read(logs: Sequence[Log]) -> Logs:
    """Read the logs."""
    streams: list[list[Error]] = []
    tail: list[str] = []
    told: list[tuple[str, int, Exit]] = []
    rank, cut = "", 0
    for log in logs:
        parser = Parser(log.host)
        for time, raw in log.lines:
            parser.feed(raw, time)
        streams += parser.errors()
        texts = [line.text for line in parser.tail]
        summary = parser.summary
        if summary is not None:
            rank = rank or summary.rank
            code = int(summary.exitcode) if re.fullmatch(r"-?[0-9]{1,9}", summary.exitcode) else None
            told.append((log.host, parser.count, exits.of_code(code)))
        for back, text in enumerate(reversed(texts)):
            if (found := exits.of_line(text)).sign:
                told.append((log.host, parser.count - back, found))
                break
        cut += parser.cut
        tail += texts
    choice = choose(streams, rank)
    if choice is not None and cut:
        choice.doubts.append("not every traceback of the log is whole")
    return Logs(choice, tail, _exit(told, choice))


def _exit(told: Sequence[tuple[str, int, Exit]], choice: Choice | None) -> Exit:
    """The first one that is told after the chosen error: what ended before that was survived."""
    for host, position, found in told:
        error = None if choice is None else choice.error
        if found.sign and (error is None or error.host != host or error.position <= position):
            return found
    return Exit()


def reasons(facts: Facts) -> list[str]:
    """What SageMaker says, without what it says of every failure."""
    return [_BOILERPLATE.sub("", text[:REASON_LIMIT]) for text in facts.service if text and text.strip()]


def from_container(reason: str) -> bool:
    """Whether SageMaker took a reason from the container."""
    return _CONTAINERS.match(reason) is not None


def own_words(reason: str) -> str:
    """What a reason says, in one line; "" where it only points elsewhere."""
    found = _CONTAINERS.match(reason)
    if _POINTERS.search(reason if found is None else found["text"]):
        return ""
    return next((part.strip() for part in reason.splitlines() if part.strip()), "")


def ended(facts: Facts, logs: Logs, service: Sequence[str]) -> Exit:
    """How it ended: by a signal, if anything says so."""
    found = [exits.of_code(facts.exit_code), logs.exit]
    found += [
        exits.of_code(int(match["code"]))
        for text in service
        if (match := _CONTAINERS.match(text)) and match["code"]
    ]
    by_signal = next((each for each in found if each.signal is not None), None)
    return by_signal or next((each for each in found if each.sign), Exit())


def chosen(facts: Facts, logs: Logs, service: Sequence[str], end: Exit) -> tuple[Choice | None, str]:
    """The exception that ended it, and where it is from: recorded, parsed or service."""
    recorded, logged = _recorded(facts), _logged(logs, end)
    if recorded is None:
        return (logged, "parsed") if logged is not None else (_from_service(service), "service")
    if logged is not None and _is_weak(recorded) and not _is_weak(logged) and not logged.error.harmless:
        logged.others.insert(0, recorded.error)
        return logged, "parsed"
    if is_wrapper(recorded.error) and end.signal is not None:
        return None, ""
    if logged is not None:
        others = (logged.error, *logged.others)
        recorded.others = [each for each in others if each.title != recorded.error.title]
    return recorded, "recorded"


def _is_weak(choice: Choice) -> bool:
    """Whether an error may be the consequence of another one."""
    return is_wrapper(choice.error) or is_secondary(choice.error.title) or bool(choice.error.thread)


def _recorded(facts: Facts) -> Choice | None:
    choice = choose([tracebacks(facts.traceback)]) if facts.traceback else None
    if choice is None:
        return None
    choice.error.after = 0
    choice.doubts = [each for each in choice.doubts if "follow it" not in each]
    own, *more = facts.error.splitlines() or [""]
    raised = choice.error.chain[-1]
    if own and own.partition(":")[0] == raised.name:
        raised.title, raised.more = own, more  # whole, where the traceback may be shortened
    if facts.thread:
        choice.error.thread = facts.thread
        choice.doubts.append(f"it ended the thread {facts.thread} only")
    return choice


def _logged(logs: Logs, end: Exit) -> Choice | None:
    choice = logs.choice
    if choice is None or end.signal is None:
        return choice
    # A killed process leaves no exception: what is there was survived, or is of those that lost it.
    killed = end.signal in (signal.SIGKILL, signal.SIGTERM)
    return None if killed or choice.error.after > AFTER_A_CRASH or is_wrapper(choice.error) else choice


def _from_service(service: Sequence[str]) -> Choice | None:
    """An exception in what the container told SageMaker."""
    for reason in service:
        found = _CONTAINERS.match(reason)
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
