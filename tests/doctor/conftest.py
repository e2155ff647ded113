"""The fixtures that the client's tests have."""

from __future__ import annotations

from tests.client.conftest import (  # noqa: F401 - fixtures
    _own_home,
    service,
)
