"""How fast one producer hands work in while nobody works: by a call for each run, and by one call for many."""

from __future__ import annotations

from tests.benchmarks.bench import BATCH, bench
from tests.benchmarks.roster import System

ONE_BY_ONE = 2000
TOGETHER = 20_000


def measure(system: System, scale: float) -> dict[str, float]:
    one, many = max(4, round(ONE_BY_ONE * scale)), max(BATCH, round(TOGETHER * scale))
    with bench(system) as at:
        at.submit(range(10))  # opens its connection
        figures = {"one": one / at.submit(range(one)).seconds}
        if system.together:
            at.submit_together(range(BATCH))
            seconds = sum(at.submit_together(range(start, start + BATCH)).seconds for start in range(0, many, BATCH))
            figures["together"] = len(range(0, many, BATCH)) * BATCH / seconds
    return figures
