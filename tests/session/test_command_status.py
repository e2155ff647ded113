"""A command's status in its output: found however it is cut, never in what a command happens to write."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smssh_plugin.session.command_status import CommandStatus

TOKEN = "0123456789abcdef"
START = b"\x1b]7337;0123456789abcdef;\x07"
MARKER = b"\x1b]7337;0123456789abcdef;%d\x07"
pieces = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from(
            [
                b"\x1b",
                b"\x1b]7337;",
                b"\x1b]7337;0123456789abcdef;",
                b"\x1b]7337;0123456789abcdef;12",
                b"\x1b]7337;0123456789abcdef;1234\x07",
                b"\x1b]7337;ffffffffffffffff;0\x07",
                b"\x1b[31mred\x1b[0m",
            ]
        ),
    ),
    max_size=12,
).filter(lambda parts: not re.search(rb"\x1b\]7337;0123456789abcdef;\d{0,3}\x07", b"".join(parts)))
"""What a command writes: anything but a whole marker, whose token it cannot know."""


def taken(data: bytes, cuts: list[int]) -> tuple[bytes, int | None]:
    status, shown, number = CommandStatus(TOKEN), b"", 0
    while data:
        size = cuts[number % len(cuts)]
        shown += status.take(data[:size])
        data, number = data[size:], number + 1
    return shown + status.rest(), status.status


@given(before=pieces, after=pieces, code=st.integers(0, 255), cuts=st.lists(st.integers(1, 30), min_size=1))
def test_it_is_taken_out_and_nothing_else(
    before: list[bytes], after: list[bytes], code: int, cuts: list[int]
) -> None:
    first, last = b"".join(before), b"".join(after)
    whole = START + first + MARKER % code + last
    assert taken(whole, cuts) == (first + last, code)


@given(data=pieces, cuts=st.lists(st.integers(1, 30), min_size=1))
def test_without_one_everything_is_shown(data: list[bytes], cuts: list[int]) -> None:
    assert taken(b"".join(data), cuts) == (b"".join(data), None)


def test_a_prompt_is_shown_at_once() -> None:
    status = CommandStatus(TOKEN)
    assert status.take(b"Continue? [y/N] ") == b"Continue? [y/N] "
    assert status.take(b"\x1b[1mbold") == b"\x1b[1mbold"


@pytest.mark.parametrize("shell", [True, False])
@pytest.mark.parametrize(
    ("command", "status", "shown"),
    [
        ("exit 3", 3, b""),
        ("printf 'it''s %s' \"$0\"", 0, b"its sh"),
        ("kill -INT $$", 130, b""),
        ("kill -INT 0; exit 9", 130, b""),
        ("trap", 0, b""),
        ("# nothing", 0, b""),
    ],
)
def test_the_words_run_the_command(shell: bool, command: str, status: int, shown: bytes) -> None:
    wrapped = CommandStatus(TOKEN)
    words = wrapped.wrap(command)
    done = subprocess.run(
        ["sh", "-c", words] if shell else shlex.split(words),
        stdout=subprocess.PIPE,
        start_new_session=True,
        timeout=30,
        check=False,
    )
    assert (wrapped.take(done.stdout), wrapped.status) == (shown, status)


def test_each_session_has_its_own() -> None:
    assert CommandStatus().wrap("true") != CommandStatus().wrap("true")
