"""A stored result as the table that the README shows."""

from __future__ import annotations

from tests.benchmarks.report import describe, number
from tests.benchmarks.results import Results
from tests.benchmarks.roster import FLOWLIB, SYSTEMS, System

COLUMNS = {
    "steps/s, 1 process": ("steps", "steps_1"),
    "2 processes": ("steps", "steps_2"),
    "a run of ten, p50 ms": ("latency", "run_p50"),
    "p99": ("latency", "run_p99"),
    "first step, p50 ms": ("latency", "start_p50"),
    "timer late, p50 ms": ("timers", "one_p50"),
    "its p99": ("timers", "one_p99"),
}


def markdown(results: Results) -> str:
    """A row for each system that was measured, and below what its figures do not pay for."""
    systems = [system for system in SYSTEMS if system.name in results.figures.get("steps", {})]
    return "\n".join([
        f"| | {' | '.join(COLUMNS)} |",
        f"|---|{'---:|' * len(COLUMNS)}",
        *(_row(results, system) for system in systems),
        "",
        "What the figures do not pay for:",
        "",
        *(f"- {system.name}: {system.lacks}" for system in systems),
        "",
        describe(results).replace("\n", "; "),
    ])  # fmt: skip


def _row(results: Results, system: System) -> str:
    values = [results.median(part, system.name, figure) for part, figure in COLUMNS.values()]
    cells = [system.name, *("–" if value is None else number(value) for value in values)]
    if system == FLOWLIB:
        cells = [f"**{cell}**" for cell in cells]
    return f"| {' | '.join(cells)} |"
