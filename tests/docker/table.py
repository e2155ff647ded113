"""The table of rows and launchers, as Markdown."""

import time
from dataclasses import dataclass, field

import pytest

from .harness import LAUNCHERS, SCENARIOS


@dataclass
class Table:
    """What the cells came to."""

    began: float
    cells: dict[tuple[str, str], str] = field(default_factory=dict)
    scenarios: dict[str, list[str]] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    """Why something is not run; a note's number is its place plus one."""

    def note(self, reason: str) -> str:
        """The mark of a reason."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        return f"[{self.reasons.index(reason) + 1}]"

    def text(self) -> str:
        """The whole of it."""
        rows = list(dict.fromkeys(row for row, _ in self.cells))
        lines = [["", *LAUNCHERS, "not run"]]
        for row in sorted(rows):
            missing = self.scenarios.get(row, [])
            lines.append(
                [row, *(self.cells.get((row, launcher), "-") for launcher in LAUNCHERS), " ".join(missing)]
            )
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        rule = ["-" * width for width in widths]
        padded = [
            [cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in [*lines, rule]
        ]
        shown = ["| " + " | ".join(line) + " |" for line in [padded[0], padded[-1], *padded[1:-1]]]
        words = [cell.split()[0] for cell in self.cells.values()]
        head = "Each cell runs, with and without us: {}.\n".format(", ".join(SCENARIOS))
        head += "{} cells ok, {} cannot exist, {} failed; {:.0f} s.\n\n".format(
            *(words.count(word) for word in ("ok", "n/a", "FAIL")), time.monotonic() - self.began
        )
        notes = "".join(f"[{number}] {reason}\n" for number, reason in enumerate(self.reasons, 1))
        return head + "\n".join(shown) + "\n\n" + notes


KEY: pytest.StashKey[Table] = pytest.StashKey()
