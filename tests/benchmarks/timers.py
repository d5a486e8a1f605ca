"""How late runs wake up that sleep until a time: one after the other, many in one second, and many at one instant."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tests.benchmarks.bench import Bench, Process, bench, percentile
from tests.benchmarks.roster import System

ONE_BY_ONE = 80
GAP = 0.04  # seconds between two of those; so their due times are spread over the phases of a second
CROWD = 1000
LEAD = 0.5  # seconds from the sending to the first due time; and twice what handing in takes,
TAKING_IN = 6  # and so many steps of a worker for each: all are to sleep before the first one is due


def measure(system: System, scale: float) -> dict[str, float]:
    alone, crowd = max(4, round(ONE_BY_ONE * scale)), max(10, round(CROWD * scale))
    with bench(system) as at, at.workers(1, *(system.naps or ()), last=True) as workers:
        naps = Naps(at, workers)
        naps.late([0.0] * 2)  # all is imported, all connections are open
        one = naps.late([number * GAP for number in range(alone)])
        figures = {"one_p50": percentile(one, 50), "one_p99": percentile(one, 99), "one_min": min(one)}
        if system.pace > CROWD / 2:  # others have not the speed for so many, on time or not
            second = naps.late([number / crowd for number in range(crowd)])
            instant = naps.late([0.0] * crowd)
            figures |= {"crowd": crowd, "second_p99": percentile(second, 99), "instant_p99": percentile(instant, 99)}
    return figures


class Naps:
    """Sends runs that begin at a time, and sees when they do."""

    def __init__(self, at: Bench, workers: Sequence[Process]) -> None:
        self._at, self._workers = at, workers
        self._cost = 1 / at.system.pace  # seconds to hand one in: a guess at first

    def late(self, offsets: Sequence[float]) -> list[float]:
        """Milliseconds from each due time to the step that follows the sleep; negative if it came too early."""
        at, done = self._at, self._at.marks.count
        now, wall, lead = (
            time.monotonic(),
            time.time(),
            LEAD + len(offsets) * (2 * self._cost + TAKING_IN / at.system.pace),
        )
        call = at.call("nap", [(done + number, wall + lead + offset) for number, offset in enumerate(offsets)])
        self._cost = call.seconds / len(offsets)
        at.wait_for_marks(self._workers, done + len(offsets))
        due = {done + number: now + lead + offset for number, offset in enumerate(offsets)}
        return [(mark.at - due[mark.run]) * 1000 for mark in at.marks.read(done)]
