"""Failures as text files: what is known of each, and what is to be found.

Before `---` come `name: value` lines: `expects` (the id of the cause, and whether it is certain), `error` (a part of
the chosen error), and optionally `sentence`, `place`, `where`, `exit`, `oom_kills`, `service` (with `\\n` for line
ends) and `shape` (the public issue whose shape it has). After it comes the log; `== HOST` begins another host's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from smssh_plugin.debug.causes.find import Facts, Log

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Case:
    """One failure, and what is to be found."""

    expects: str
    certain: bool
    told: dict[str, str]
    facts: Facts


def read(path: Path) -> Case:
    """The case of a file."""
    head, _, body = path.read_text(encoding="utf-8").partition("---\n")
    told = dict(line.split(": ", 1) for line in head.splitlines())
    logs: list[tuple[str, list[tuple[float | None, str]]]] = [("algo-1", [])]
    for line in body.splitlines():
        if line.startswith("== "):
            logs.append((line[3:], []))
        else:
            logs[-1][1].append((None, line))
    expects, _, certain = told["expects"].partition(", ")
    facts = Facts(
        exit_code=int(told["exit"]) if "exit" in told else None,
        logs=[Log(host, lines) for host, lines in logs if lines],
        service=[told["service"].replace("\\n", "\n")] if "service" in told else [],
        oom_kills=int(told["oom_kills"]) if "oom_kills" in told else None,
    )
    return Case(expects, certain == "certain", told, facts)
