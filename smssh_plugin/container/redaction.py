"""Take secrets out of what leaves the container: command lines, tracebacks, the last lines of output.

A name tells: `--api-key hf_...`, `DB_PASSWORD=...`, `"token": "..."`, a variable of the job's called `WANDB_API_KEY`.
What stands behind such a name is replaced, and the value of such a variable wherever it occurs. A secret that no name
gives away stays (docs/holds.md says so).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Mapping, Sequence

__all__ = ["MASK", "Redaction", "is_secret_name"]

MASK = "***"
VALUE_MINIMUM = 6
"""Characters from which on a secret variable's value is looked for everywhere; `1` or `true` is not a secret."""

# The repeats are bounded: output can be one word of megabytes, and a search must not take the square of its length.
_NAME = (
    r"(?<![A-Za-z0-9_.])[A-Za-z0-9_.\-]{0,60}"
    r"(?i:key|token|secret|passw(?:or)?d|passphrase|pwd|credentials?|authorization)[A-Za-z0-9_.\-]{0,60}"
)
_VALUE = (
    r"""(?:"(?:[^"\\]|\\.){0,4000}"|'(?:[^'\\]|\\.){0,4000}'|(?i:bearer|basic)\s+[^\s"',;]+|[^\s"',;)}\]]+)"""
)
_ASSIGNED = re.compile(rf"""(?P<name>{_NAME})(?P<between>["']?\s{{0,8}}[=:]\s{{0,8}})(?P<value>{_VALUE})""")
_OPTION = re.compile(rf"""(?P<name>--?{_NAME})(?P<between>["']?,?[ \t]{{1,8}})(?P<value>(?!-){_VALUE})""")
_ADDRESS = re.compile(
    r"(?<![a-z0-9])(?P<between>[a-z][a-z0-9+.\-]{0,20}://[^\s/:@]{0,200}:)(?P<value>[^\s/@]{1,400})(?=@)"
)
_KNOWN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[opsur]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w\-]{15,200}"
    r"|xox[abeprs]-[\w\-]{10,200}|sk-[\w\-]{20,200}|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w\-]{30,100}"
    r"|eyJ[\w\-]{10,2000}\.[\w\-]{10,2000}\.[\w\-]{0,2000})"
)
"""Tokens of well-known services, which have a form of their own."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ALWAYS = {"secret", "secrets", "password", "passwd", "passphrase", "pwd", "credential", "credentials"}
_LAST = {"key", "apikey", "token", "authtoken", "accesstoken", "authorization", *_ALWAYS}


def is_secret_name(name: str) -> bool:
    """Whether a variable, an option or a field of this name holds a secret: `--api-key`, not `--max-tokens`."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not words:
        return False
    joined = "".join(words)
    if not _ALWAYS.isdisjoint(words) or "password" in joined or "secret" in joined:
        return True
    # AWS_ACCESS_KEY_ID says which key it is, as half of a pair.
    return words[-1] in _LAST or words[-1].endswith(("apikey", "token")) or words[-2:] == ["key", "id"]


class Redaction:
    """What is secret in one job.

    Args:
        environment: the job's variables.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        values = {
            value
            for name, value in environment.items()
            if is_secret_name(name) and len(value) >= VALUE_MINIMUM and not value.startswith("/")
        }
        # The longest first: one may be part of another.
        pattern = "|".join(re.escape(value) for value in sorted(values, key=len, reverse=True))
        self._values = re.compile(pattern) if values else None

    def text(self, text: str) -> str:
        """The text without secrets."""
        if self._values is not None:
            text = self._values.sub(MASK, text)
        text = _ASSIGNED.sub(_masked, text)
        text = _OPTION.sub(_masked, text)
        text = _ADDRESS.sub(lambda found: found["between"] + MASK, text)
        return _KNOWN.sub(MASK, text)

    def command(self, words: Sequence[str]) -> list[str]:
        """A command line without secrets; a word behind an option is its value, whatever it looks like."""
        shown = []
        behind = False
        for word in words:
            shown.append(MASK if behind and not word.startswith("-") else self.text(word))
            behind = word.startswith("-") and "=" not in word and _is_secret_option(word)
        return shown

    def everything(self, value: Any) -> Any:
        """The same of all texts in a JSON value; its keys stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {
                key: MASK
                if isinstance(item, str) and item and is_secret_name(str(key))
                else self.everything(item)
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            if all(isinstance(item, str) for item in value):
                return self.command(value)
            return [self.everything(item) for item in value]
        return value


def _is_secret_option(word: str) -> bool:
    return word == "-code" or is_secret_name(word.lstrip("-"))  # the agent's activation code


def _masked(found: re.Match[str]) -> str:
    name, between = found["name"], found["between"]
    if not is_secret_name(name.lstrip("-")):
        return found[0]
    if name.lower() in ("key", "token") and between[0] == ":":
        return found[0]  # `invalid key: label` is prose
    value = found["value"]
    quote = value[0] if value[0] in "\"'" and value[-1:] == value[0] else ""
    return name + between + quote + MASK + quote
