"""Every cell of the table: `make test-containers`."""

import time

import pytest

from tests import needs

from . import rows_processing, rows_serving, rows_training, table
from .harness import LAUNCHERS, SCENARIOS, Row
from .images import UnavailableError

ROWS: list[Row] = [*rows_training.ROWS, *rows_processing.ROWS, *rows_serving.ROWS]


def test_every_cell_is_run_or_says_why_not() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        for scenario in SCENARIOS:
            assert row.reason("", scenario) or scenario == "hold" or scenario in row.sources, (
                row.name,
                scenario,
            )
        unknown = {part for key in row.not_here for part in key.split("/")} - {*LAUNCHERS, *SCENARIOS}
        assert not unknown, (row.name, unknown)


@pytest.mark.docker
@pytest.mark.timeout(1800)  # the first run makes the images
@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_cell(lab, request, row, launcher) -> None:
    made = request.config.stash[table.KEY]
    missing = [f"{name} {made.note(row.reason('', name))}" for name in SCENARIOS if row.reason("", name)]
    made.scenarios[row.name] = missing
    reason = row.reason(launcher)
    if reason:
        made.cells[row.name, launcher] = f"n/a {made.note(reason)}"
        needs.does_not_apply(reason)
    for name in row.needs:
        if needs.look(name) is None:
            made.cells[row.name, launcher] = f"n/a {made.note(f'{name} is missing')}"
            needs.missing(name)
    made.cells[row.name, launcher] = "FAIL"
    began = time.monotonic()
    try:
        problems = lab.cell(row, launcher)
    except UnavailableError as error:
        made.cells[row.name, launcher] = f"n/a {made.note(str(error))}"
        needs.missing("torch without CUDA", str(error))
    assert not problems, "\n\n".join(problems)
    parts = [made.note(row.not_here[key]) for key in row.not_here if key.startswith(f"{launcher}/")]
    made.cells[row.name, launcher] = " ".join(["ok", f"{time.monotonic() - began:.0f}s", *parts])
