"""A line of a log as its process wrote it: without colours, overwritten text, and what launchers put before it."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["LIMIT", "Line", "read"]

LIMIT = 4000
"""Characters of a line that are looked at: most from its beginning, some from its end."""
_HEAD, _TAIL = 3000, 900
_PREFIXES = 4
"""How many launchers may each put something before a line."""

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
_PREFIX = re.compile(
    r"\[\d{1,6},mpirank:(?P<mpi>\d{1,6}),(?P<host>[\w.-]{1,100})\](?:<std(?:err|out)>)?:? ?"  # the training toolkit
    r"|\[\d{1,6},(?P<rank>\d{1,6})\]<std(?:err|out)>: ?"  # mpirun --tag-output
    r"|\[rank(?P<torch>\d{1,6})\]: ?"  # torch.distributed
    r"|\[(?P<local>(?:default|worker)?\d{1,6})\]: ?"  # torchrun --tee
    r"|\((?P<actor>[\w.:<>-]{1,100}(?:\([^()]{0,60}\))?) pid=\d{1,9}(?:, ip=[\d.]{1,40})?\) ?"  # Ray
    r"|(?P<compose>(?:[\w]{1,60}-)?algo-\d{1,4}(?:-[\w]{1,20})?) {1,4}\| ?"  # docker compose, in local mode
)
_OTHERS = re.compile(
    r"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d [\w.-]{1,100} )?(?P<syslog>[\w./-]{1,60}\[\d{1,9}\]): ?"
    r"|\[(?:INFO|WARN|ERROR) ?\] (?P<torchserve>[\w.:-]{1,120}?)-std(?:out|err) (?:[\w.]{1,60}\.)?MODEL_LOG - "
)
"""What syslog and TorchServe put before a line."""
_STAMP = re.compile(
    r"\[?\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?\]?(?: |\t|: ?|$)"
)


class Line(NamedTuple):
    """One line.

    Attributes:
        stream: which of the processes that share the log wrote it, as in `rank 3`; "" where it does not say.
        text: what it wrote. Indentation is kept.
    """

    stream: str
    text: str


def read(raw: str) -> Line:
    """A line of a log, with or without its line end."""
    text = raw.rstrip("\r\n")
    if "\r" in text:  # a progress bar draws over itself
        text = text[text.rfind("\r") + 1 :]
    if len(text) > 4 * LIMIT:
        text = f"{text[: 2 * LIMIT]} {text[-2 * LIMIT :]}"
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    if len(text) > LIMIT:
        text = f"{text[:_HEAD]} ... {text[-_TAIL:]}"
    stream = ""
    for _ in range(_PREFIXES):
        if not text or (text[0] not in "[(0123456789" and "algo-" not in text[:80]):
            break
        if (stamp := _STAMP.match(text)) is not None:
            text = text[stamp.end() :]
        elif (found := _PREFIX.match(text)) is not None:
            stream = _stream(found) or stream
            text = text[found.end() :]
        elif (found := _OTHERS.match(text)) is not None:
            stream = found["torchserve"] or found["syslog"] or stream
            text = text[found.end() :]
        else:
            break
    return Line(stream, text)


def _stream(found: re.Match[str]) -> str:
    parts = found.groupdict()
    for name in ("mpi", "rank", "torch", "local"):
        if parts[name] is not None:
            return f"rank {parts[name].removeprefix('default').removeprefix('worker')}"
    return parts["actor"] or parts["compose"] or ""
