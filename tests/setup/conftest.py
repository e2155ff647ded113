"""The fixtures that the client's tests have."""

from __future__ import annotations

from tests.client.conftest import service  # noqa: F401 - a fixture
