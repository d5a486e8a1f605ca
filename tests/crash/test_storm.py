"""Redis and the workers killed at random moments under load: every run ends right, and no recorded step is started again.

Redis writes its append-only file at every command here. With `everysec` a kill in the moment of an fsync may lose what
was acknowledged, which is Redis's promise and not ours; see deploy/redis.conf.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowlib import App, Event, ServerError
from flowlib.server import Server
from flowlib.store import Store
from flowlib.testing import check_invariants
from tests import access

from .fleet import WorkerProcess
from .ledger import AGAIN, Ledger
from .mixture import KINDS

SETTLING = 40.0  # seconds that the runs get to end once nobody is killed any more


@pytest.fixture
def durable_server(tmp_path: Path) -> Iterator[Server]:
    with Server.start(tmp_path / "server", config={"appendfsync": "always", **access.config(tmp_path)}) as server:
        yield server


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_no_run_is_lost_when_redis_and_workers_are_killed_under_load(durable_server: Server, tmp_path: Path) -> None:
    """BEHAVIOURS 146, 142, 143; I3, I4, I5."""
    Storm(durable_server, tmp_path / "ledger", seed=random.randrange(2**32)).rage(runs=250, seconds=11)


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("round", range(3))
def test_no_run_is_lost_in_a_long_storm(durable_server: Server, tmp_path: Path, round: int) -> None:
    """BEHAVIOURS 146, 142, 143; I3, I4, I5."""
    Storm(durable_server, tmp_path / "ledger", seed=random.randrange(2**32)).rage(runs=1000, seconds=60)


class Storm:
    def __init__(self, server: Server, notes: Path, seed: int) -> None:
        print(f"seed {seed}")
        self.server = server
        self.notes = notes
        self.chance = random.Random(seed)
        self.store = Store(server.url)
        self.app = App("mixture").connect(store=self.store)
        self.kills: Counter[str] = Counter()

    def rage(self, runs: int, seconds: float) -> None:
        workers = [self._worker() for _ in range(2)]
        feeder = threading.Thread(target=self._feed, args=(runs, seconds * 0.8))
        feeder.start()
        faults = self._kill_until(time.monotonic() + seconds, workers)
        feeder.join()
        self._settle(runs)
        for worker in workers:
            assert worker.stop() == 0
        print(f"killed {dict(self.kills)}")
        assert min(self.kills["worker"], 3 * self.kills["redis"]) >= seconds / 3, f"too calm: killed {self.kills}"
        assert [*faults, *check_invariants(self.store), *self._faults(runs)] == []

    def _worker(self) -> WorkerProcess:
        return WorkerProcess("tests.crash.mixture:app", self.server.url, self.notes, lease_ms=1000)

    def _feed(self, runs: int, seconds: float) -> None:
        """Each event until Redis has confirmed it: sending it again with its id is safe."""
        for number in range(runs):
            began = time.monotonic()
            while True:
                try:
                    self.app.send(Event(KINDS[number % len(KINDS)], {}, id=f"event-{number}"))
                    break
                except ServerError:
                    continue
            time.sleep(max(0.0, seconds / runs - (time.monotonic() - began)))

    def _kill_until(self, end: float, workers: list[WorkerProcess]) -> list[str]:
        faults = []
        while time.monotonic() < end:
            time.sleep(self.chance.uniform(0.1, 0.9))
            if self.chance.random() < 0.3:
                self.kills["redis"] += 1
                self.server.kill()
                time.sleep(self.chance.uniform(0.0, 0.4))
                self.server.restart()
            else:
                self.kills["worker"] += 1
                victim = self.chance.randrange(len(workers))
                workers[victim].kill()
                workers[victim] = self._worker()
            faults += check_invariants(self.store)
        return faults

    def _settle(self, runs: int) -> None:
        deadline = time.monotonic() + SETTLING
        while time.monotonic() < deadline and sum(run.finished for run in self.app.runs.list(limit=2 * runs)) < runs:
            time.sleep(0.1)

    def _faults(self, runs: int) -> Iterator[str]:
        found = self.app.runs.list(limit=2 * runs)
        events = Counter(run.event.id for run in found)
        yield from (f"{event} started {times} runs" for event, times in events.items() if times > 1)
        yield from (f"{event} started nothing" for n in range(runs) if (event := f"event-{n}") not in events)
        for run in found:
            if (run.status, run.result) != ("completed", 4):
                yield f"run {run.id}: {run.function} is {run.status} ({run.state}) with {run.result}: {run.error}"
        for line in Ledger(self.notes).lines():
            if line.word == AGAIN:
                yield f"run {line.run}: {line.step} was recorded and was started again"
