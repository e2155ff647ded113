"""Draw a Mermaid sequence diagram as SVG, for pages that load no script from elsewhere.

GitHub draws the same text by itself. Mermaid is a JavaScript program that wants a browser, so the part of its language
that the pages of docs/ use is read here: participants, messages (`->>`, `-->>`), `par ... end`. Anything else is an
error, so that no page loses a line.
"""

from __future__ import annotations

import re
import textwrap
from html import escape

COLUMN = 164
"""Pixels between two participants."""
BOX = (144, 46)
LINE = 17
"""Pixels of a line of text."""
_PARTICIPANT = re.compile(r"participant (\w+) as (.+)")
_MESSAGE = re.compile(r"(\w+)(--?>>)(\w+): (.+)")


def svg(text: str) -> str:
    """The picture of a diagram.

    Raises:
        ValueError: a line is not understood, or names a participant that was not declared.
    """
    head, *lines = [line.strip() for line in text.strip().splitlines()]
    if head != "sequenceDiagram":
        raise ValueError(f"{head!r} is not a sequence diagram")
    names: dict[str, str] = {}
    rows: list[str] = []
    opened: list[tuple[float, str]] = []
    y = BOX[1] + 30.0
    for line in lines:
        participant, message = _PARTICIPANT.fullmatch(line), _MESSAGE.fullmatch(line)
        if participant:
            names[participant[1]] = participant[2]
        elif message and {message[1], message[3]} <= set(names):
            order = list(names)
            drawn, y = _message(order.index(message[1]), order.index(message[3]), message[2], message[4], y)
            rows.append(drawn)
        elif line.startswith("par "):
            opened.append((y - 8, line[len("par ") :]))
            y += LINE + 10
        elif line == "end" and opened:
            top, label = opened.pop()
            rows.append(_frame(len(names), top, y - top, label))
            y += 18
        else:
            raise ValueError(f"{line!r} is not understood")
    width = COLUMN * len(names)
    parts = [_participant(column, name, y) for column, name in enumerate(names.values())]
    label = "; ".join(line for line in lines if _MESSAGE.fullmatch(line))
    return (
        f'<svg class="sequence" xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(label)}" '
        f'width="{width}" height="{y + 10:g}" viewBox="0 0 {width} {y + 10:g}">\n'
        '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0L10 5L0 10z"/></marker></defs>\n'
        + "\n".join([*parts, *rows])
        + "\n</svg>\n"
    )


def _middle(column: int) -> float:
    """The x of a participant's line."""
    return COLUMN * (column + 0.5)


def _words(text: str, x: float, y: float, *, width: int, anchor: str = "middle") -> tuple[str, float]:
    """Wrapped text from y down, and the y below it."""
    lines = _lines(text, width)
    spans = "".join(
        f'<text x="{x:g}" y="{y + LINE * (number + 0.8):g}" text-anchor="{anchor}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )
    return spans, y + LINE * len(lines)


def _lines(text: str, width: int) -> list[str]:
    """The text in lines of so many characters; a path is broken after a slash."""
    whole = textwrap.wrap(text.replace("/", "/\u200b "), width, break_long_words=False)
    return [line.replace("/\u200b ", "/").rstrip("\u200b") for line in whole]


def _participant(column: int, name: str, bottom: float) -> str:
    """A participant's box and the line below it."""
    x = _middle(column)
    text, _ = _words(name, x, (BOX[1] - LINE * len(_lines(name, 20))) / 2, width=20)
    return (
        f'<line class="life" x1="{x:g}" y1="{BOX[1]}" x2="{x:g}" y2="{bottom:g}"/>'
        f'<rect class="box" x="{x - BOX[0] / 2:g}" y="1" width="{BOX[0]}" height="{BOX[1] - 2}" rx="6"/>{text}'
    )


def _message(source: int, target: int, kind: str, text: str, y: float) -> tuple[str, float]:
    """An arrow with its text above, and the y below it."""
    first, last = _middle(source), _middle(target)
    style = "message answer" if kind.startswith("--") else "message"
    if source == target:
        words, below = _words(text, first + 12, y, width=22, anchor="start")
        loop = f"M{first:g} {below + 4:g}h36v14h-34"
        return f'{words}<path class="{style}" d="{loop}" marker-end="url(#arrow)"/>', below + 34
    span = abs(source - target)
    words, below = _words(text, (first + last) / 2, y, width=int(span * COLUMN / 7) - 2)
    end = last - 2 if last > first else last + 2
    arrow = f'<line class="{style}" x1="{first:g}" y1="{below + 5:g}" x2="{end:g}" y2="{below + 5:g}"'
    return f'{words}{arrow} marker-end="url(#arrow)"/>', below + 20


def _frame(columns: int, top: float, height: float, label: str) -> str:
    """The frame around what happens in parallel."""
    text, _ = _words(label, 14, top + 3, width=60, anchor="start")
    return f'<rect class="frame" x="4" y="{top:g}" width="{COLUMN * columns - 8}" height="{height:g}" rx="4"/>{text}'
