"""What a run of many steps costs per step beside runs of ten: on one worker to its end, and changing workers at each step."""

from __future__ import annotations

from statistics import median

from tests.benchmarks.bench import Bench, bench
from tests.benchmarks.roster import System

SHORT, LONG = 10, 1000
IN_PLACE = 4000  # steps per drain
MOVING = 2000
LEAST = (
    5  # a small scale still counts so many times its part of the steps: of fewer one sees what else the machine does
)
TURNS = 3
BUDGET_0 = ("--budget", "0")  # a run may not stay: its next step is whoever's takes it first


def measure(system: System, scale: float) -> dict[str, float]:
    """Microseconds per step: of the clock, with all workers busy."""
    long = max(20, round(LONG * min(1.0, scale * 10)))
    in_place, moving = (steps * min(1.0, LEAST * scale) for steps in (IN_PLACE, MOVING))
    with bench(system) as at:
        costs: dict[str, list[float]] = {"short": [], "long": [], "moving_short": [], "moving_long": []}
        for _ in range(TURNS):
            costs["short"].append(_cost(at, in_place, SHORT, 1))
            costs["long"].append(_cost(at, in_place, long, 1))
            costs["moving_short"].append(_cost(at, moving, SHORT, 2, *BUDGET_0))
            costs["moving_long"].append(_cost(at, moving, long, 2, *BUDGET_0))
    found = {name: median(values) for name, values in costs.items()}
    return found | {
        "steps_of_long": long,
        "ratio": found["long"] / found["short"],
        "moving_ratio": found["moving_long"] / found["moving_short"],
        "moving_to_in_place": found["moving_long"] / found["short"],
    }


def _cost(at: Bench, steps: float, length: int, count: int, *options: str) -> float:
    """At least two runs, so that two workers have something to do."""
    runs = max(2, round(steps / length))
    at.call("submit_long", list(range(runs)), length)
    return 1e6 / at.drain(runs, length, count, *options)
