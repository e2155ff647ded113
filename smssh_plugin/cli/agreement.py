"""Agree to changes in an account by its id, typed on the terminal."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from .. import streams
from ..errors import SmsshError
from ..terminal import line

if TYPE_CHECKING:
    from ..setup.account import Account

__all__ = ["agree", "place"]


def agree(account_id: str, verb: str, undone: str) -> None:
    """Ask for the account's id on the terminal; stdin itself is /dev/null here, see `streams`.

    Args:
        account_id: the id, of 12 digits.
        verb: what is to be done, as in `apply`.
        undone: what was not done if it is not agreed to, as in `nothing was changed`.

    Raises:
        SmsshError: something else was typed.
    """
    print(line(f"type the account id to {verb} this: "), end="", file=sys.stderr, flush=True)
    answer = b""
    while not answer.endswith(b"\n"):
        piece = os.read(streams.own_stdin(), 1)
        if not piece:  # the terminal is closed
            break
        answer += piece
    if answer.strip() != account_id.encode():
        raise SmsshError(f"that is not the account id: {undone}", reference="not-agreed")


def place(account: Account) -> str:
    """The account as people know it, and the region."""
    alias = account.alias
    return f"account {account.caller.account}{f' ({alias})' if alias else ''}, {account.aws.region}"
