"""How long one run takes on an idle worker: from the call that sends it to the body of its first step, and of its last."""

from __future__ import annotations

import time

from tests.benchmarks.bench import bench, percentile
from tests.benchmarks.chain import STEPS
from tests.benchmarks.roster import System

RUNS = 150
SECONDS = 5.0  # a slow system makes fewer runs, but at least FEWEST
FEWEST = 20
WARM_UP = 3
PAUSE = 0.02  # seconds between two runs: the worker is idle again


def measure(system: System, scale: float) -> dict[str, float]:
    first, last = [], []
    runs, fewest, until = max(4, round(RUNS * scale)), max(4, round(FEWEST * scale)), 0.0
    with bench(system) as at, at.workers(last=True) as workers:
        for run in range(WARM_UP + runs):
            done = run * STEPS
            began = at.submit([run]).began
            at.wait_for_marks(workers, done + STEPS)
            if run < WARM_UP:
                until = time.monotonic() + SECONDS * scale
                continue
            times = [mark.at for mark in at.marks.read(done)]
            first.append((min(times) - began) * 1000)
            last.append((max(times) - began) * 1000)
            if time.monotonic() > until and len(last) >= fewest:
                break
            time.sleep(PAUSE)
    return {
        "run_p50": percentile(last, 50), "run_p99": percentile(last, 99),
        "start_p50": percentile(first, 50), "start_p99": percentile(first, 99), "runs": len(last),
    }  # fmt: skip
