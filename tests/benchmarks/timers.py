"""How late runs wake up that sleep until a time: one after the other, many in one second, and many at one instant."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tests.benchmarks.bench import Bench, Process, bench, percentile
from tests.benchmarks.roster import System

ONE_BY_ONE = 80
GAP = 0.04  # seconds between two of those; so their due times are spread over the phases of a second
CROWD = 1000
LEAD = 0.5  # seconds from the sending to the first due time; and what handing in takes


def measure(system: System, scale: float) -> dict[str, float]:
    alone, crowd = max(4, round(ONE_BY_ONE * scale)), max(10, round(CROWD * scale))
    with bench(system) as at, at.workers(1, *(system.naps or ()), last=True) as workers:
        _late(at, workers, [0.0] * 2)  # all is imported, all connections are open
        one = _late(at, workers, [number * GAP for number in range(alone)])
        second = _late(at, workers, [number / crowd for number in range(crowd)])
        instant = _late(at, workers, [0.0] * crowd)
    return {
        "one_p50": percentile(one, 50), "one_p99": percentile(one, 99), "one_min": min(one),
        "second_p99": percentile(second, 99), "instant_p99": percentile(instant, 99), "crowd": crowd,
    }  # fmt: skip


def late(at: Bench, workers: Sequence[Process], count: int) -> list[float]:
    """For other parts: how late `count` runs are, one by one, beside all that is there already."""
    return _late(at, workers, [number * GAP for number in range(count)])


def _late(at: Bench, workers: Sequence[Process], offsets: Sequence[float]) -> list[float]:
    """Milliseconds from each due time to the step that follows the sleep; negative if it came too early."""
    done, lead = at.marks.count, LEAD + len(offsets) / at.system.pace
    now, wall = time.monotonic(), time.time()
    at.call("nap", [(done + number, wall + lead + offset) for number, offset in enumerate(offsets)])
    at.wait_for_marks(workers, done + len(offsets))
    due = {done + number: now + lead + offset for number, offset in enumerate(offsets)}
    return [(mark.at - due[mark.run]) * 1000 for mark in at.marks.read(done)]
