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
    """`among`: how many there were while it was measured, and how many there have to be."""

    what: str
    figure: _Figure
    better: str
    bound: float
    among: tuple[_Figure, int] | None = None

    def reached(self, value: float) -> bool:
        return value >= self.bound if self.better == MORE else value <= self.bound


def _times(peer: str, figure: str = "steps_1") -> _Figure:
    return lambda results: results.advantage("steps", figure, peer, MORE)


def _own(part: str, figure: str) -> _Figure:
    return lambda results: results.median(part, FLOWLIB.name, figure)


_LONG = (_own("growth", "steps_of_long"), 1000)

AIMS = (
    Aim("steps/s, one process, as a multiple of rq SimpleWorker's", _times("rq SimpleWorker"), MORE, 14),
    Aim("  of huey's", _times("huey"), MORE, 2),
    Aim("  of SAQ's", _times("SAQ"), MORE, 2),
    Aim("  of Restate's", _times("Restate"), MORE, 2),
    Aim("steps/s, one process", _own("steps", "steps_1"), MORE, 5000),
    Aim("steps/s, two processes", _own("steps", "steps_2"), MORE, 9000),
    Aim("one run of ten steps, idle worker, p50 ms", _own("latency", "run_p50"), LESS, 3),
    Aim("  p99 ms", _own("latency", "run_p99"), LESS, 8),
    Aim("event to first step, p50 ms", _own("latency", "start_p50"), LESS, 3),
    Aim("timers, one by one, p50 ms late", _own("timers", "one_p50"), LESS, 3),
    Aim("  p99 ms late", _own("timers", "one_p99"), LESS, 10),
    Aim("  1,000 in one second, p99 ms late", _own("timers", "second_p99"), LESS, 50, (_own("timers", "crowd"), 1000)),
    Aim("a step of a run of 1,000 beside one of ten, in place", _own("growth", "ratio"), LESS, 1.3, _LONG),
    Aim("  changing workers at each step", _own("growth", "moving_ratio"), LESS, 3, _LONG),
    Aim(
        "claims while 100,000 runs wait, slower by the factor", _own("backlog", "claim_slowdown"), LESS, 1.1,
        (_own("backlog", "waiting"), 100_000),
    ),
    Aim("events sent per second, in batches", _own("sending", "together"), MORE, 20_000),
    Aim("  one by one", _own("sending", "one"), MORE, 3000),
)  # fmt: skip


def judged(results: Results) -> Iterator[tuple[Aim, float, str]]:
    """Those that were measured, each with its figure, and what is to be said of it."""
    for aim in AIMS:
        value = aim.figure(results)
        if value is not None:
            said = [] if aim.reached(value) else ["not here"]
            if aim.among is not None and (many := aim.among[0](results) or 0) < aim.among[1]:
                said.append(f"measured with {many:,.0f}")
            yield aim, value, ", ".join(said)
