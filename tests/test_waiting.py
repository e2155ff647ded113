"""The one way in which tests wait: it ends as soon as what it waits for is there, or says what was not."""

import ast
import itertools
import re
import time
from pathlib import Path

import pytest

from . import waiting
from .waiting import until

TESTS = Path(__file__).parent


def test_it_answers_what_the_condition_did() -> None:
    looks = itertools.chain([0, None, ""], ["found"])
    assert until(lambda: next(looks)) == "found"


def test_it_looks_once_more_when_the_time_is_over_and_then_says_what_did_not_come() -> None:
    seen: list[str] = []
    with pytest.raises(AssertionError, match=r"^not within 0\.05 s: a bus, but 3$"):
        until(lambda: seen.append("look"), lambda: "a bus, but 3", seconds=0.05)
    assert len(seen) > 1
    with pytest.raises(AssertionError, match=r"a bus$"):
        until(lambda: False, "a bus", seconds=0)
    with pytest.raises(AssertionError, match=re.escape("until(lambda: not seen, seconds=0)")):
        until(lambda: not seen, seconds=0)
    with pytest.raises(AssertionError, match="__len__"):
        until([].__len__, seconds=0)


def test_what_takes_long_is_looked_at_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", pause)
    took = iter([0.0, 0.2, 3.0, 0.0])

    def look() -> bool:
        now[0] += next(took)
        return len(pauses) == 3

    assert until(look)
    assert pauses == [waiting.PAUSE, pytest.approx(0.2), waiting.LONGEST_PAUSE]


def test_no_test_has_a_way_of_its_own() -> None:
    """A loop that sleeps until a deadline is `until`, written again."""
    loops = {
        path.relative_to(TESTS).as_posix()
        for path in TESTS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.While) and {"deadline", "sleep"} <= set(re.findall(r"\w+", ast.unparse(node)))
    }
    assert loops == {
        "waiting.py",
        "docker/daemon.py",  # answers whether it came
    }
