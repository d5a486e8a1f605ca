"""Workers of ours and of RQ's own on one queue, killed at random: no run is lost, and no recorded step is started again.

What RQ's workers lose or deliver twice (a popped job, an orphaned work-horse, a job that is requeued while it runs) is made
good by the memo, the lease and the reconciler. The ledger is outside Redis.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import SimpleWorker, Worker
from rq.serializers import JSONSerializer

import flowlib.job
from flowlib import App, Event
from flowlib.server import Server
from flowlib.store import Store
from flowlib.testing import check_invariants, run_worker
from tests.crash.fleet import Forked
from tests.crash.ledger import AGAIN, Ledger
from tests.crash.mixture import KINDS

MIXTURE = "tests.crash.mixture:app"
LEASE_MS = 1000
SETTLING = 60.0  # seconds; mostly it takes about ten


class Process(Forked):
    """One worker: `flow`, or `fork` or `simple` as they come with RQ."""

    def __init__(self, kind: str, url: str, notes: Path) -> None:
        self.kind = kind
        super().__init__(_work, notes, kind, url, ledger_url=url)

    def strike(self, chance: random.Random) -> None:
        """Kill a forking worker, its work-horse, or both."""
        horses = _children(self.pid) if self.kind == "fork" else []
        doomed = chance.choice([[self.pid], horses, [self.pid, *horses]]) or [self.pid]
        for each in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        if self.pid in doomed:
            assert self.ends()


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _work(kind: str, url: str) -> None:
    logging.basicConfig(level=logging.WARNING)
    if kind == "flow":
        run_worker(
            MIXTURE, url, lease_ms=LEASE_MS, reconcile_every=1.0, budget=0.0
        )  # each step may go to another worker
        return
    flowlib.job.LEASE_MS = LEASE_MS
    worker: type[Any] = Worker if kind == "fork" else SimpleWorker
    worker(["flow"], f"{kind}-{os.getpid()}", connection=Redis.from_url(url), serializer=JSONSerializer).work(
        logging_level="WARNING"
    )


class Fleet:
    def __init__(self, server: Server, notes: Path, seed: int) -> None:
        print(f"seed {seed}")
        self.server = server
        self.notes = notes
        self.chance = random.Random(seed)
        self.store = Store(server.url)
        self.app = App("mixture").connect(store=self.store)
        self.kills: Counter[str] = Counter()
        self.workers = [Process(kind, server.url, notes) for kind in ("flow", "flow", "fork", "simple")]

    def rage(self, runs: int, seconds: float) -> None:
        began = time.monotonic()
        sent = 0
        while time.monotonic() - began < seconds:
            due = min(runs, round(runs * (time.monotonic() - began) / seconds * 1.5))
            for number in range(sent, due):
                self.app.send(Event(KINDS[number % len(KINDS)], {}, id=f"event-{number}"))
            sent = max(sent, due)
            time.sleep(self.chance.uniform(0.1, 0.6))
            self.kill_one()
        for number in range(sent, runs):
            self.app.send(Event(KINDS[number % len(KINDS)], {}, id=f"event-{number}"))
        self.settle(runs)

    def kill_one(self) -> None:
        place = self.chance.randrange(len(self.workers))
        victim = self.workers[place]
        self.kills[victim.kind] += 1
        victim.strike(self.chance)
        if victim.ends(within=0):
            self.workers[place] = Process(victim.kind, self.server.url, self.notes)

    def settle(self, runs: int) -> None:
        deadline = time.monotonic() + SETTLING
        while time.monotonic() < deadline and sum(run.finished for run in self.app.runs.list(limit=2 * runs)) < runs:
            time.sleep(0.1)

    def faults(self, runs: int) -> Iterator[str]:
        found = self.app.runs.list(limit=2 * runs)
        events = Counter(run.event.id for run in found)
        yield from (f"{event} started {times} runs" for event, times in events.items() if times > 1)
        yield from (f"{event} started nothing" for n in range(runs) if (event := f"event-{n}") not in events)
        for run in found:
            if (run.status, run.result) != ("completed", 4):
                told = [(e.kind, e.step, e.worker) for e in self.app.runs.history(run.id)]
                yield f"run {run.id}: {run.function} is {run.status} ({run.state}) with {run.result}: {run.error}: {told}"
        for line in Ledger(self.notes).lines():
            if line.word == AGAIN:
                yield f"run {line.run}: {line.step} was recorded and was started again"
        yield from check_invariants(self.store)

    def done_by(self) -> Counter[str]:
        """How many steps each kind of worker has recorded."""
        entries = [entry for run in self.app.runs.list(limit=1000) for entry in self.app.runs.history(run.id)]
        workers = [entry.worker.partition("-")[0] for entry in entries if entry.kind == "recorded"]
        return Counter(worker if worker in ("fork", "simple") else "flow" for worker in workers)

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        self.store.close()


@pytest.fixture
def fleet(fresh_server: Server, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(fresh_server, tmp_path / "ledger", seed=random.randrange(2**32))
    yield fleet
    fleet.close()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_mixed_fleet_under_random_kills_loses_no_run(fleet: Fleet) -> None:
    """BEHAVIOURS 142, 143, 145, 147; I1 to I4."""
    fleet.rage(runs=60, seconds=5)
    assert list(fleet.faults(60)) == []
    assert fleet.kills.total() >= 5
    assert all(fleet.done_by()[kind] for kind in ("flow", "fork", "simple")), fleet.done_by()


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("round", range(3))
def test_a_mixed_fleet_in_a_long_storm_loses_no_run(fleet: Fleet, round: int) -> None:
    """BEHAVIOURS 142, 143, 145, 147; I1 to I4."""
    fleet.rage(runs=600, seconds=60)
    assert list(fleet.faults(600)) == []
    assert all(fleet.kills[kind] > 5 for kind in ("flow", "fork", "simple"))
