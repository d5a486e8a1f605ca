"""What a great backlog costs: the bytes of each run that waits or sleeps, and how it slows claims and timers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

from flowlib.keys import Keys
from tests.benchmarks.bench import BATCH, Bench, Process, bench, percentile, rate, used_memory
from tests.benchmarks.roster import System
from tests.benchmarks.timers import GAP, Naps

WAITING = 100_000
SLEEPING = 100_000
MANY = 1_000_000  # what is measured is extrapolated to this
CLAIMS = (
    3000  # runs of one step, so each step is one claim; as many before them are not counted: a worker's start costs
)
LEAST = (
    5  # a small scale still counts so many times its part of the claims: of fewer one sees what else the machine does
)
TURNS = 3
NAPS = 60
AN_HOUR = 3600.0


def measure(system: System, scale: float) -> dict[str, float]:
    return _waiting(system, scale) | _sleeping(system, scale)


def _waiting(system: System, scale: float) -> dict[str, float]:
    waiting, claims = max(100, round(WAITING * scale)), max(50, round(CLAIMS * min(1, LEAST * scale)))
    with bench(system) as few, bench(system) as many:
        _let_wait(many, 0, 10)  # what is written once is no part of what a run takes
        before = used_memory(many.client)
        _let_wait(many, 10, waiting)
        figures = {"waiting": waiting, "waiting_bytes": (used_memory(many.client) - before) / waiting}
        ratios = []
        for turn in range(TURNS):
            _let_wait(few, turn * 2 * claims, 2 * claims)
            ratios.append(_claim_rate(few, claims) / _claim_rate(many, claims))
    return figures | {
        "claim_slowdown": median(ratios),
        "claim_slowdown_least": min(ratios),
        "claim_slowdown_most": max(ratios),
    }


def _let_wait(at: Bench, first: int, runs: int) -> None:
    """The runs are started by a worker that serves a queue without jobs; so each has a job that waits, and nothing else."""
    goal = _unfinished(at) + runs
    for start in range(first, first + runs, BATCH):
        at.call("submit_long", list(range(start, min(start + BATCH, first + runs))), 1)
    with at.workers(1, "--queues", "nobody") as workers:
        at.wait_for(workers, lambda: _unfinished(at), goal, "runs were started")


def _unfinished(at: Bench) -> int:
    return int(at.client.zcard(Keys().active("bench")))


def _claim_rate(at: Bench, claims: int) -> float:
    done = at.marks.count
    with at.workers() as workers:
        at.wait_for_marks(workers, done + 2 * claims)
    return rate([mark.at for mark in at.marks.read(done + claims)][:claims])


def _sleeping(system: System, scale: float) -> dict[str, float]:
    sleeping = max(100, round(SLEEPING * scale))
    with bench(system) as at, at.workers(2, last=True) as workers:
        _fall_asleep(at, workers, 0, 10)
        before = used_memory(at.client)
        _fall_asleep(at, workers, 10, sleeping // 2)
        halfway = used_memory(at.client)
        _fall_asleep(at, workers, 10 + sleeping // 2, sleeping - sleeping // 2)
        after = used_memory(at.client)
        overshoot = Naps(at, workers).late([number * GAP for number in range(max(4, round(NAPS * scale)))])
    return {
        "sleeping": sleeping,
        "sleeping_bytes": (after - before) / sleeping,
        "sleeping_bytes_second_half": (after - halfway) / (sleeping - sleeping // 2),
        "many_sleeping_gb": (after - before) / sleeping * MANY / 1e9,
        "late_p50": percentile(overshoot, 50),
        "late_p99": percentile(overshoot, 99),
    }


def _fall_asleep(at: Bench, workers: Sequence[Process], first: int, runs: int) -> None:
    goal = int(at.client.zcard(Keys().timers)) + runs
    for start in range(first, first + runs, BATCH):
        until = time.time() + AN_HOUR
        at.call("nap", [(run, until + run / 1000) for run in range(start, min(start + BATCH, first + runs))])
    at.wait_for(workers, lambda: int(at.client.zcard(Keys().timers)), goal, "runs fell asleep")
