"""Whether a worker's memory is flat: its resident bytes over very many steps, after those that warm it up."""

from __future__ import annotations

import subprocess
from statistics import linear_regression

from tests.benchmarks.bench import Process, bench
from tests.benchmarks.chain import STEPS
from tests.benchmarks.roster import System

STEPS_IN_ALL = 120_000
WARM_UP = 0.2  # of them
SAMPLES = 40
PER = 100_000  # steps that growth is told for
MANY = 1_000_000  # what is measured is extrapolated to this


def measure(system: System, scale: float) -> dict[str, float]:
    runs = max(50, round(STEPS_IN_ALL * scale / STEPS))
    samples: list[tuple[float, float]] = []
    with bench(system) as at, at.workers(last=True) as workers:
        at.submit_together(range(runs))
        for sample in range(1, SAMPLES + 1):
            goal = runs * STEPS * sample // SAMPLES
            at.wait_for_marks(workers, goal)
            samples.append((at.marks.count, _resident(workers[0])))
    warm = [(steps, size) for steps, size in samples if steps >= WARM_UP * runs * STEPS]
    slope, _ = linear_regression([steps for steps, _ in warm], [size for _, size in warm])
    return {
        "steps": runs * STEPS, "warm_mb": warm[0][1] / 1e6, "end_mb": warm[-1][1] / 1e6,
        "growth_mb": slope * PER / 1e6, "many_mb": slope * MANY / 1e6,
    }  # fmt: skip


def _resident(process: Process) -> float:
    told = subprocess.run(["ps", "-o", "rss=", "-p", str(process.pid)], capture_output=True, text=True, check=True)
    return int(told.stdout) * 1024
