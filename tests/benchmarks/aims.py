"""What flowlib aims at, and whether these results reach it. It is said, never asserted: machines differ, ratios less so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.benchmarks.parts import LESS, MORE
from tests.benchmarks.results import Results
from tests.benchmarks.roster import FLOWLIB

_Figure = Callable[[Results], float | None]


@dataclass(frozen=True)
class Aim:
    what: str
    figure: _Figure
    better: str
    bound: float

    def reached(self, value: float) -> bool:
        return value >= self.bound if self.better == MORE else value <= self.bound


def _times(peer: str, figure: str = "steps_1") -> _Figure:
    return lambda results: results.advantage("steps", figure, peer, MORE)


def _own(part: str, figure: str) -> _Figure:
    return lambda results: results.median(part, FLOWLIB.name, figure)


AIMS = (
    Aim("steps/s, one process, as a multiple of rq SimpleWorker's", _times("rq SimpleWorker"), MORE, 14),
    Aim("  of huey's", _times("huey"), MORE, 2),
    Aim("  of SAQ's", _times("SAQ"), MORE, 2),
    Aim("steps/s, one process", _own("steps", "steps_1"), MORE, 5000),
    Aim("steps/s, two processes", _own("steps", "steps_2"), MORE, 9000),
    Aim("one run of ten steps, idle worker, p50 ms", _own("latency", "run_p50"), LESS, 3),
    Aim("  p99 ms", _own("latency", "run_p99"), LESS, 8),
    Aim("event to first step, p50 ms", _own("latency", "start_p50"), LESS, 3),
    Aim("timers, one by one, p50 ms late", _own("timers", "one_p50"), LESS, 3),
    Aim("  p99 ms late", _own("timers", "one_p99"), LESS, 10),
    Aim("  1,000 in one second, p99 ms late", _own("timers", "second_p99"), LESS, 50),
    Aim("a step of a long run beside one of a short run, in place", _own("growth", "ratio"), LESS, 1.3),
    Aim("  changing workers at each step", _own("growth", "moving_ratio"), LESS, 3),
    Aim("claims with a great backlog, slower by the factor", _own("backlog", "claim_slowdown"), LESS, 1.1),
    Aim("events sent per second, in batches", _own("sending", "together"), MORE, 20_000),
    Aim("  one by one", _own("sending", "one"), MORE, 3000),
)


def judged(results: Results) -> Iterator[tuple[Aim, float]]:
    """Those that were measured, each with its figure."""
    for aim in AIMS:
        value = aim.figure(results)
        if value is not None:
            yield aim, value
