"""What an item of a map costs, whose steps are jobs of their own: of maps of a hundred items, and of thousands."""

from __future__ import annotations

from statistics import median

from tests.benchmarks.bench import Bench, bench
from tests.benchmarks.roster import System
from tests.benchmarks.steps import bytes_of

SMALL, LARGE = 100, 3000
ITEMS = 3000  # per drain
LEAST = 100  # of the items of the large ones, at whatever scale
TURNS = 3


def measure(system: System, scale: float) -> dict[str, float]:
    """Microseconds per item: of the clock, with all workers busy."""
    large = max(LEAST, round(LARGE * min(1.0, scale * 10)))
    items = max(large, round(ITEMS * min(1.0, scale * 10)))
    costs: dict[str, list[float]] = {"small_1": [], "large_1": [], "small_2": [], "large_2": []}
    with bench(system) as at:
        for _ in range(TURNS):
            for count in (1, 2):
                costs[f"small_{count}"].append(_cost(at, items, SMALL, count))
                costs[f"large_{count}"].append(_cost(at, items, large, count))
    with bench(system) as at:
        _cost(at, large, large, 1)
        total, kept = bytes_of(at)
    found = {name: median(values) for name, values in costs.items()}
    return found | {
        "items_of_large": large,
        "ratio_1": found["large_1"] / found["small_1"],
        "ratio_2": found["large_2"] / found["small_2"],
        "bytes": total / large,
        "bytes_kept": kept / large,
    }


def _cost(at: Bench, items: int, width: int, count: int) -> float:
    runs = max(count, items // width)
    at.call("submit_wide", list(range(runs)), width)
    return 1e6 / at.drain(runs, width, count)
