"""Durations: one parser and one formatter."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smssh_plugin.durations import format_duration, parse_duration


@given(st.integers(0, 10**6), st.sampled_from(["", "s", "m", "h", "d", " s", " M"]))
def test_a_number_and_a_unit_are_seconds(number, unit) -> None:
    factor = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit.strip().lower()]
    assert parse_duration(f" {number}{unit} ") == number * factor


@pytest.mark.parametrize(
    "text", ["", "soon", "90x", "1e3", "-5", "nan", "inf", "1.", ".5h", "1h30m", "٣s", "5s\n5"]
)
def test_anything_else_is_refused_by_name(text) -> None:
    with pytest.raises(ValueError, match="is not a duration; use 90s, 10m or 2h") as caught:
        parse_duration(text)
    assert str(caught.value).startswith(repr(text))


def test_a_duration_without_an_end_is_refused() -> None:
    """As a float it would be infinite, and no whole number of seconds."""
    with pytest.raises(ValueError, match=r"^'9{20}\.\.\.' is too long for a duration$"):
        parse_duration("9" * 400 + "d")


@given(st.text(max_size=10))
def test_no_text_breaks_the_parser(text) -> None:
    with contextlib.suppress(ValueError):
        assert parse_duration(text) >= 0


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-3, "0 s"),
        (0.04, "0 s"),
        (0.44, "0.4 s"),
        (5, "5 s"),
        (9.94, "9.9 s"),
        (9.95, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (185, "3 min 05 s"),
        (600, "10 min"),
        (3599.7, "1 h"),
        (7859, "2 h 10 min"),
        (86400, "1 d"),
        (100800, "1 d 04 h"),
    ],
)
def test_a_duration_is_shown_in_its_two_largest_units(seconds, shown) -> None:
    assert format_duration(seconds) == shown


@given(st.integers(0, 10**7))
def test_what_is_shown_is_what_was_meant(seconds) -> None:
    """Without the spaces it can be typed again; what is lost is less than the smaller of its units."""
    pieces = format_duration(seconds).replace("min", "m").split()
    again = sum(parse_duration(number + unit) for number, unit in zip(pieces[::2], pieces[1::2], strict=True))
    assert 0 <= seconds - again < {"s": 1, "m": 60, "h": 3600, "d": 86400}[pieces[-1]]
