"""The cause of a failure, out of everything that is known of it."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

from . import lines, signs, sources
from .choose import is_secondary, is_wrapper, order
from .exits import Exit, of_code
from .facts import Facts, Finding, Log
from .signs import SURE, TOOLKIT, Match

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .choose import Choice
    from .parse import Error, Frame
    from .sources import Logs

__all__ = ["Facts", "Finding", "Log", "find"]

ERROR_LIMIT = 2000
OTHERS_LIMIT = 5

_FAULTHANDLER = re.compile(r"Fatal Python error|Current thread 0x|Thread 0x|  File |Extension modules:")
_LIBRARY = re.compile(r"site-packages/|dist-packages/|/lib/python\d|^<|/sm_drivers/|/sagemaker_training/")


def find(facts: Facts) -> Finding:
    """The chosen error and its cause; `unknown` where none of the known ones fits."""
    logs = sources.read(facts.logs)
    service = sources.reasons(facts)
    end = sources.ended(facts, logs, service)
    found = _by_service(service, sure=True)
    if found is not None:
        # What SageMaker itself could not do: the script's log knows nothing of it.
        _others(found, [] if logs.choice is None else [logs.choice.error, *logs.choice.others])
        return found
    choice, source = sources.chosen(facts, logs, service, end)
    if choice is not None:
        found = _by_exception(facts, logs, choice, source, end)
        _others(found, choice.others)
    else:
        found = _by_signs(facts, logs, service, end)
        _others(found, [] if logs.choice is None else [logs.choice.error, *logs.choice.others])
    _weigh(found, facts)
    return found


def _by_service(service: Sequence[str], *, sure: bool) -> Finding | None:
    """What SageMaker says in its own words, if that names a cause.

    Args:
        service: its reasons.
        sure: whether the cause has to be certain.
    """
    for reason in service:
        match = None if sources.from_container(reason) else signs.best("service", reason)
        if match is not None and match.weight >= (SURE if sure else signs.LIKELY):
            return _finding(match, "service", sources.own_words(reason))
    return None


def _by_exception(facts: Facts, logs: Logs, choice: Choice, source: str, end: Exit) -> Finding:
    """The cause of an exception; that it is one does not depend on whether its cause is known."""
    error = choice.error
    best, matches, notes = _of_chain(error, whole=source == "recorded")
    doubts = [*choice.doubts, *notes["doubts"]]
    if best is None and (is_wrapper(error) or _is_command(error)):
        # It says nothing of its own; what the program that failed printed may, or how that ended.
        matches += signs.of_tail(logs.tail)
        best = signs.strongest(matches)
        if best is not None:
            doubts.clear()
        elif is_wrapper(error):
            best = signs.best("exit", end.sign)
    if is_secondary(error.title) and not doubts:
        doubts.append("it may be for the failure of another process")
    finding = _finding(best, source, error.title)
    finding.error = finding.error if best is None else best.text[:ERROR_LIMIT] or finding.error
    finding.doubts, finding.evidence = doubts, notes["evidence"]
    finding.certain = finding.certain and not doubts
    finding.place = _place(error, facts.code_dir)
    finding.where = ", ".join(part for part in (error.host, error.stream) if part)
    finding.possible = _ids(matches, finding.id)
    return finding


def _of_chain(error: Error, *, whole: bool) -> tuple[Match | None, list[Match], dict[str, list[str]]]:
    """The cause that a chain of exceptions tells, all that fit, and what to say of it."""
    best: Match | None = None
    matches: list[Match] = []
    notes: dict[str, list[str]] = {"doubts": [], "evidence": []}
    for raised in order(error.chain):
        found = signs.of_exception(raised, whole=whole)
        matches += found
        if best is None:
            best = signs.strongest(found)
            if best is not None and raised.leads == "context":
                notes["doubts"].append(
                    "its sign is in an exception that was handled when this one was raised"
                )
            continue
        # The same cause, said plainly by an exception that led to this one.
        plain = [match for match in found if match.cause.id == best.cause.id and match.weight > best.weight]
        if plain:
            best = plain[0]
            notes["evidence"].append(f"before it: {raised.title[:ERROR_LIMIT]}")
    return best, matches, notes


def _by_signs(facts: Facts, logs: Logs, service: Sequence[str], end: Exit) -> Finding:
    """A failure of which no exception is known: exit facts, the last lines of the log, texts of SageMaker."""
    matches = _of_end(logs, end)
    for reason in service:
        matches += signs.everything("service", reason)
    best = signs.strongest(matches)
    last = _last_line(logs.tail)
    known = next((words for text in service if (words := sources.own_words(text))), "")
    if best is None:
        source = "recorded" if facts.error else "parsed" if last else "service" if service else ""
        told = facts.error.strip() or end.sentence if end.signal else facts.error.strip() or last or known
        finding = _finding(None, source, told or end.sentence or next(iter(service), ""))
        if last and finding.error == last[:ERROR_LIMIT]:
            finding.doubts.append("there is no exception; it is the last line that was written")
    elif best.sign.where == "service":
        finding = _finding(best, "service", known)
    else:
        counted = best.sign.where == "exit" and of_code(facts.exit_code).signal is not None
        source = "parsed" if logs.tail and not counted else "recorded"
        finding = _finding(best, source, best.text or end.sentence)
    finding.possible = _ids(matches, finding.id)
    if end.sentence and end.sentence not in finding.error:
        finding.evidence.append(end.sentence)
    return finding


def _of_end(logs: Logs, end: Exit) -> list[Match]:
    """The causes that fit the last lines and how it ended."""
    matches = signs.of_tail(logs.tail)
    told = signs.best("exit", end.sign)
    if told is None:
        return matches
    # What a crash prints says more than its number, if it fits; libraries give up by an abort.
    least = signs.LIKELY if end.signal == signal.SIGABRT else SURE
    return [*(match for match in matches if match.cause.id == told.cause.id or match.weight >= least), told]


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


def _finding(match: Match | None, source: str, error: str) -> Finding:
    first = next((part.strip() for part in error.splitlines() if part.strip()), "")[:ERROR_LIMIT]
    if match is None:
        return Finding(sure=source, error=first)
    return Finding(
        id=match.cause.id,
        sentence=match.sentence,
        certain=match.weight >= SURE,
        advice=match.cause.advice,
        hold=match.cause.hold,
        sure=source,
        error=first,
    )


def _others(finding: Finding, errors: Sequence[Error]) -> None:
    finding.count = len(errors)
    finding.others = list(dict.fromkeys(each.title[:ERROR_LIMIT] for each in errors))[:OTHERS_LIMIT]


def _ids(matches: Sequence[Match], chosen: str) -> list[str]:
    return [each for each in dict.fromkeys(match.cause.id for match in matches) if each != chosen]


def _is_command(error: Error) -> bool:
    return "CalledProcessError" in error.title or "InstallRequirementsError" in error.title


def _last_line(tail: Sequence[str]) -> str:
    own = (text for text in reversed(tail) if not TOOLKIT.match(text) and not _FAULTHANDLER.match(text))
    return next(own, "").strip()


def _place(error: Error, code_dir: str) -> str:
    """The last line of the user's own code, of the newest exception that has one."""
    for raised in reversed(error.chain):
        own = [frame for frame in raised.frames if _is_own(frame, code_dir)]
        if own:
            path = own[-1].path
            root = f"{code_dir.rstrip('/')}/"
            short = path[len(root) :] if code_dir and path.startswith(root) else path.rpartition("/")[2]
            return lines.read(f"{short}:{own[-1].line}").text
    return ""


def _is_own(frame: Frame, code_dir: str) -> bool:
    if code_dir and frame.path.startswith(f"{code_dir.rstrip('/')}/"):
        return "site-packages/" not in frame.path
    return _LIBRARY.search(frame.path) is None
