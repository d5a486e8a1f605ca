"""Workers that die around a tick: it is neither lost nor started twice."""

from __future__ import annotations

import itertools
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from flowlib.model import COMPLETED
from flowlib.runs import Runs
from flowlib.server import Server
from flowlib.store import Store
from flowlib.testing import AFTER, BEFORE, check_invariants
from flowlib.wire import script
from tests.patience import until

from . import ticking
from .fleet import Forked, WorkerProcess
from .ledger import END, Ledger

SECOND = timedelta(seconds=1)


def holes(runs: Runs) -> list[str]:
    """Where from one tick's run to the next it is not a second."""
    ticks = sorted(run.event.ts for run in runs.list(limit=1000))
    return [f"{b - a} after {a}" for a, b in itertools.pairwise(ticks) if b - a != SECOND]


@pytest.mark.parametrize("when", [BEFORE, AFTER])
def test_a_process_that_dies_as_it_starts_a_tick_loses_none_and_doubles_none(
    fresh_server: Server, tmp_path: Path, when: str
) -> None:
    store = Store(fresh_server.url)
    store.client.script_load(script("start_ticks").source)
    runs = Runs(lambda: store, "ticking", {})
    heir = ticking.ticks(store, "heir")
    heir.declare()
    doomed = Forked(ticking.tick_and_die, tmp_path / "notes", fresh_server.url, when)
    assert doomed.exit_code == -signal.SIGKILL
    assert len(runs.list()) == (when == AFTER)
    upto = store.client.hget(store.keys.cron("ticking"), f"upto|{ticking.SCHEDULE}")
    heir.look()
    found = runs.list()
    assert len(found) >= 1
    assert len({run.event.ts for run in found}) == len(found)
    assert holes(runs) == []
    first = min(run.event.ts for run in found)
    assert upto is not None
    assert first.timestamp() - float(upto) / 1000 <= 1  # nothing is missing before it
    assert check_invariants(store) == []
    store.close()


def test_workers_that_are_killed_leave_each_tick_to_the_others(fresh_server: Server, tmp_path: Path) -> None:
    """BEHAVIOURS 121; I3."""
    notes = tmp_path / "notes"
    store = Store(fresh_server.url)
    runs = Runs(lambda: store, "ticking", {})
    workers = [WorkerProcess("tests.crash.ticking:app", fresh_server.url, notes, lease_ms=500) for _ in range(3)]
    for killed, worker in enumerate(workers[:2], 1):
        until(lambda n=killed: len(runs.list()) >= n)  # type: ignore[misc]
        worker.kill()
    until(lambda: len(runs.list(status=COMPLETED)) >= 4)
    assert workers[2].stop() == 0
    assert holes(runs) == []
    done = [line.run for line in Ledger(notes).lines() if line.word == END]
    assert set(done) >= {run.id for run in runs.list(status=COMPLETED)}
    assert check_invariants(store) == []
    store.close()
