"""docs/costs.md: its examples are what the code makes of the numbers that they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from smssh_plugin.costs.jobs import SpentJob
from smssh_plugin.costs.prices import Price
from smssh_plugin.costs.spent import spent, sums

PAGE = (Path(__file__).parents[2] / "docs" / "costs.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.partition("## Worked examples")[2].splitlines()
    if line.startswith("| ") and " USD |" in line
]
NODES = re.compile(r"(\d+) x (\d+) h at ([\d.]+) USD")
HOLDS = re.compile(r"(\d+) x (\d+) min at ([\d.]+) USD")


class Said:
    """The prices that an example names."""

    def __init__(self, node: float, instance: float) -> None:
        self._node, self._instance = node, instance

    def node(self) -> Price:
        return Price(self._node, "USD")

    def instance(self, _kind: str, _instance_type: str) -> Price:
        return Price(self._instance, "USD")


def test_there_are_examples() -> None:
    assert len(ROWS) >= 6


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_an_example_is_what_its_numbers_make(row: list[str]) -> None:
    example, nodes, holds, hours, minutes, cost = row
    found = NODES.fullmatch(nodes)
    assert found, nodes
    count, each, node_price = int(found[1]), int(found[2]), float(found[3])
    held, instances, price = 0.0, 1, 0.0
    if holds != "none":
        hold = HOLDS.fullmatch(holds)
        assert hold, holds
        instances, held, price = int(hold[1]), float(hold[2]), float(hold[3])
        assert instances == count
    job = SpentJob("training", example, (("ml.example", instances),), 0.0, each * 3600.0, count)
    (whole,) = sums([spent(job, held, Said(node_price, price), 0.0, 1e9)], ())  # type: ignore[arg-type]
    assert whole.node_hours == float(hours)
    assert whole.hold_minutes == float(minutes)
    assert whole.cost is not None
    assert f"{whole.cost.amount:.2f} {whole.cost.currency}" == cost


def test_the_counts_are_those_of_the_words() -> None:
    said = {row[0]: int(row[3]) for row in ROWS}
    assert said["5 people, 3 jobs of 2 hours a day each, 21 days"] == 5 * 3 * 2 * 21
    assert said["nightly pipeline: 20 jobs of 1 hour, 30 nights"] == 20 * 30
    node = float(re.findall(r"([\d.]+) USD an hour for a managed node", PAGE)[0])
    assert f"{40 * 730 * node:.2f} USD a month" in " ".join(PAGE.split())
    assert pytest.approx(100 * node) == 10 / 60 * 6.00
    assert "**examples, not today's**" in PAGE
