"""Samples on a page that show a change: blocks in the language `diff`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


@dataclass(frozen=True)
class Sample:
    """One change.

    Attributes:
        title: the heading above it.
        before: the code that is replaced.
        after: what replaces it.
    """

    title: str
    before: str
    after: str

    @property
    def in_container(self) -> bool:
        """Whether it is of a script that a job runs, not of the code that submits the job."""
        return "setup_and_start_ssh" in self.before


def samples(page: str) -> list[Sample]:
    """The changes that a page shows, in its order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found, title = [], ""
    for heading, block in re.findall(r"^#+ ([^\n]+)$|^```diff\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        title = heading or title
        if block:
            lines = block.splitlines()
            assert all(line[:1] in ("", " ", "+", "-") for line in lines)
            before = [line[1:] for line in lines if line[:1] != "+"]
            after = [line[1:] for line in lines if line[:1] != "-"]
            found.append(Sample(title, "\n".join(before), "\n".join(after)))
    return found
