"""Text that others wrote, made safe for a terminal and for the log of a CI run: the one place that does.

What comes from a container, from AWS or from a file may hold anything: sequences that write the clipboard or another
line (`ESC ] 52`, `ESC [ 2 K`), characters that turn the order of a line around, a line end and a forged line after it,
or the commands that a CI system takes from any program's output. `line` and `block` leave none of that; ordinary text
they leave as it is. What was made safe once stays the same.

The standard library only, and that when it is needed: job containers and `smssh proxy` import this.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Match, Pattern

__all__ = ["block", "line", "put"]

_COLOUR = r"\x1b\[[0-9;:]*m"
"""Colours and the like: of no harm and of no use; `\\x1b[31m` in front of each word would be unreadable."""
_UNSAFE = (
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0, DEL, C1
    r"\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # order, line ends, nothing to see
    r"\ud800-\udfff\U000e0000-\U000e007f]"  # halves of characters, tags
)
_CI = r"##(?=\[|[A-Za-z]+\[)"
"""Azure Pipelines, GitHub's older form, TeamCity: anywhere in a line."""
_CI_LINE = r"^(?P<indent>\s*):(?=:[A-Za-z-]+(?:[ ].*)?::)"
"""GitHub Actions: `::set-env name=...::`, at the beginning of a line and after spaces there."""

_compiled: tuple[Pattern[str], Pattern[str]] | None = None


def block(text: object, indent: str = "") -> str:
    """Text of any number of lines; only line ends and tabs are left of its control characters.

    Args:
        text: what is to be shown.
        indent: put in front of each line but the first, so that none passes for a line of ours.
    """
    found = str(text)
    if found.isprintable() and "##" not in found and "::" not in found:
        return found
    unsafe, commands = _patterns()
    found = unsafe.sub(_visible, found.replace("\r\n", "\n").replace("\r", "\n"))
    found = commands.sub(_broken, found)  # after that: what was taken out may have hidden one
    return found.replace("\n", "\n" + indent) if indent else found


def line(text: object) -> str:
    """Text as one line: line ends and tabs become spaces."""
    found = block(text)
    return found if found.isprintable() else found.replace("\n", " ").replace("\t", " ")


def put(text: object, *, error: bool = False) -> None:
    """Print a `block` on stdout, or on stderr."""
    import sys

    print(block(text), file=sys.stderr if error else sys.stdout, flush=True)


def _patterns() -> tuple[Pattern[str], Pattern[str]]:
    global _compiled  # noqa: PLW0603 - `re` is not imported before it is needed
    if _compiled is None:
        import re

        _compiled = re.compile(f"{_COLOUR}|{_UNSAFE}"), re.compile(f"{_CI}|{_CI_LINE}", re.MULTILINE)
    return _compiled


def _visible(found: Match[str]) -> str:
    text = found.group()
    if len(text) > 1:
        return ""
    code = ord(text)
    # All but the first are also escapes of JSON, in which they may stand as they are.
    return f"\\x{code:02x}" if code < 0x20 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _broken(found: Match[str]) -> str:
    return "# #" if found.group() == "##" else f"{found.group('indent')}: "
