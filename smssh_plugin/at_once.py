"""Several calls at once, which Ctrl-C does not wait for."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["THREADS", "at_once"]

THREADS = 8
"""Calls at once, at most."""

Value = TypeVar("Value")
Answer = TypeVar("Answer")


def at_once(function: Callable[[Value], Answer], values: Sequence[Value]) -> list[Answer]:
    """The answers for all values, in their order.

    Ctrl-C does not wait for the calls that are under way, as it would with the threads of an executor.

    Raises:
        Exception: the first that a call raised; no further one is begun then.
    """
    answers: dict[int, Answer] = {}
    todo = deque(range(len(values)))
    errors: list[BaseException] = []

    def work() -> None:
        while todo and not errors:
            with contextlib.suppress(IndexError):  # another thread took the last one
                index = todo.popleft()
                try:
                    answers[index] = function(values[index])
                except BaseException as error:  # noqa: BLE001 - raised below
                    errors.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(THREADS, len(values)))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        todo.clear()
    if errors:
        raise errors[0]
    return [answers[index] for index in range(len(values))]
