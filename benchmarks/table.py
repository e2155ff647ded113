"""Rows of measurements against budgets, and how they are taken: variants interleaved, medians with spread."""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Sample:
    """What several measurements of one thing say."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The first and the third quartile."""
        if len(self.values) == 1:
            return self.values[0], self.values[0]
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high


@dataclass
class Row:
    """One line of the table: a measurement, its reference, and the budget between them."""

    what: str
    unit: str
    sample: Sample | None
    reference_name: str
    reference: Sample | None
    budget: str
    met: bool | None
    """None where the budget cannot be decided here."""
    value: str
    """The figure that the budget is about."""
    note: str = ""
    details: dict[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        def shown(sample: Sample | None) -> dict[str, object] | None:
            if sample is None:
                return None
            return {
                "median": sample.median,
                "quartiles": sample.spread,
                "least": min(sample.values),
                "runs": len(sample.values),
            }

        return {
            "what": self.what,
            "unit": self.unit,
            "measured": shown(self.sample),
            "reference_name": self.reference_name,
            "reference": shown(self.reference),
            "value": self.value,
            "budget": self.budget,
            "met": self.met,
            "note": self.note,
            **self.details,
        }


def interleaved(variants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Sample]:
    """Each variant once in each round, in random order: what else the machine does meets all of them alike."""
    values: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name in random.sample(list(variants), len(variants)):
            values[name].append(variants[name]())
    return {name: Sample(tuple(each)) for name, each in values.items()}


def ratio(
    what: str, unit: str, sample: Sample, name: str, reference: Sample, most: float, note: str = ""
) -> Row:
    """A row whose budget is a ratio that must not be exceeded."""
    found = sample.median / reference.median
    return Row(what, unit, sample, name, reference, f"<= {most:g} x", found <= most, f"{found:.3f} x", note)


def text(rows: list[Row]) -> str:
    """The table as Markdown."""
    lines = ["| what | measured | reference | value | budget | |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        measured = _shown(row.sample, row.unit)
        reference = (
            f"{row.reference_name}: {_shown(row.reference, row.unit)}"
            if row.reference
            else row.reference_name
        )
        verdict = {True: "met", False: "NOT MET", None: "not decided here"}[row.met]
        verdict += f" ({row.note})" if row.note else ""
        lines.append(f"| {row.what} | {measured} | {reference} | {row.value} | {row.budget} | {verdict} |")
    return "\n".join(lines)


def _shown(sample: Sample | None, unit: str) -> str:
    if sample is None:
        return "not measured"
    low, high = sample.spread
    if unit == "instructions":
        return f"{sample.median:,.0f} {unit}"
    form = "{:.1f}" if unit == "ms" else "{:.2f}"
    shown = f"{form} {unit} ({form} to {form}, least {form}, {len(sample.values)} runs)"
    return shown.format(sample.median, low, high, min(sample.values))
