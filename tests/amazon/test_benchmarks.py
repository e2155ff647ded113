"""The benchmarks that have Amazon's programs for a reference run with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import rows

from .programs import needs_agent, needs_plugin

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("ready", "Amazon's agent alone, registration to control channel"),
        ("connections", "session-manager-plugin"),
        ("upload", "session-manager-plugin"),
    ],
)
def test_a_row_has_amazons_program_for_its_reference(name: str, reference: str, tmp_path: Path) -> None:
    needs_agent()
    needs_plugin()
    found = [row for row in rows.ROWS[name](tmp_path, 0.0) if row.reference_name == reference]
    assert found
    assert all(row.reference is not None and row.sample is not None for row in found)
