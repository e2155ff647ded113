"""Probes of plugins (the hook `smssh_probes`): each looks at a held container, and what it finds is reported."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

from ..plugins import within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..client.connection import Connection

__all__ = ["LIMIT", "Probe", "look"]

LIMIT = 60.0
"""Seconds for one probe; the fix waits for it."""


class Probe(Protocol):
    """What a plugin gives."""

    name: str

    def run(self, host: Connection) -> Any:
        """Look at the host; any value that JSON can hold."""


def look(probes: Iterable[Probe], host: Connection, complain: Callable[[str], None]) -> dict[str, Any]:
    """What each probe finds, by its name; one that fails is complained of and left out.

    Args:
        probes: the probes, in order.
        host: a login to the container.
        complain: takes one line for each probe that fails.
    """
    found: dict[str, Any] = {}
    for probe in probes:
        name = str(getattr(probe, "name", None) or type(probe).__qualname__)
        try:
            answer = within(LIMIT, probe.run, (host,))
            json.dumps(answer)
        except Exception as error:  # noqa: BLE001 - somebody else's code: it must not end the repair
            complain(f"the probe {name} failed: {type(error).__name__}: {error}")
            continue
        found[name] = answer
    return found
