"""The one base error, its diagnosis, and the exit statuses of `smssh` and `smssh-hook`.

This module imports the standard library only, and of the package what imports nothing else: everything may import it.
"""

from __future__ import annotations

import enum

from .terminal import block

__all__ = ["ExitStatus", "SmsshError"]


class ExitStatus(enum.IntEnum):
    """What `smssh` and `smssh-hook` end with. 128 + N means: ended by signal N."""

    OK = 0
    FAILED = 1
    """The command was tried and did not succeed."""
    USAGE = 2
    """The command line or a setting is wrong; nothing was tried."""
    NOT_FOUND = 3
    """No such job, step, execution or host."""
    UNREACHABLE = 4
    """It exists, but a session or login is not possible."""
    REFUSED = 5
    """Access denied: IAM, the SSH key or the host key."""
    TIMEOUT = 6
    """A deadline passed."""
    PIPELINE_FAILED = 7
    """`smssh debug`: the pipeline execution ended, with another status than Succeeded."""
    UNKNOWN = 8
    """`smssh doctor`: no problem was found, and a check cannot tell."""
    INTERRUPTED = 130
    """Ctrl-C."""


class SmsshError(Exception):
    """An error that a person can act on; printed without a stack trace.

    Args:
        message: what is wrong, in one sentence, naming the thing.
        hint: what to do about it.
        reference: a kebab-case name of the error that stays the same over versions, for scripts and searches.
        status: the exit status a command ends with.
        check: what `smssh doctor` is to be called with to look for the cause: the id of a check or a subject, and the
            job; "" where no check is about it.
    """

    reference = "error"
    passing = False
    """Whether the same may succeed in a moment: no way to the service now, or too much for it to do."""
    status = ExitStatus.FAILED

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        reference: str | None = None,
        status: ExitStatus | None = None,
        check: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.check = check
        if reference is not None:
            self.reference = reference
        if status is not None:
            self.status = status

    @property
    def further(self) -> str:
        """Which check looks for the cause, as a sentence; "" where no check does."""
        return f"`smssh doctor {self.check}` looks for the cause" if self.check else ""

    def __str__(self) -> str:
        """The message, and the hint and the check on lines of their own, safe for a terminal: a traceback shows it."""
        text = self.message if self.hint is None else f"{self.message}\n  hint: {self.hint}"
        return block(f"{text}\n  see: {self.further}" if self.check else text)
