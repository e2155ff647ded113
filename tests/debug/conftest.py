"""The parts a debugger meets: the local emulator's service and an SSH server."""

from __future__ import annotations

from tests.client.conftest import (  # noqa: F401 - fixtures
    _own_home,
    any_server,
    service,
)
