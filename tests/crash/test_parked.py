"""Workers that park a run, and those that take it up again, are killed between any two commands: nothing is lost (I4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowlib import App, Event
from flowlib.store import Store
from flowlib.testing import AFTER, BEFORE, check_invariants
from tests.databases import Databases, strides
from tests.patience import until

from .doom import SETTINGS
from .fleet import WorkerProcess
from .ledger import AGAIN, START, Ledger

COMMANDS = 9  # so many a worker of either kind sends, or fewer


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("when", [BEFORE, AFTER])
@strides(2)
def test_a_run_that_nobody_knows_is_parked_and_resumed_whoever_dies_at_that(
    databases: Databases, when: str, stride: int
) -> None:
    """BEHAVIOURS 125."""
    faults = databases.try_each(
        range(1, COMMANDS + 1, stride), lambda url, notes, at: list(faults_of(url, notes, at, when))
    )
    assert {at: found for at, found in faults.items() if found} == {}


def faults_of(url: str, notes: Path, at: int, when: str) -> Iterator[str]:
    store = Store(url)
    app = App("deployed").connect(store=store)
    app.send(Event("crash.deployed", {"seconds": 0.3}, id="once"))
    first = WorkerProcess("tests.crash.known:app", url, notes, **SETTINGS)
    until(lambda: [run for run in app.runs.list() if run.state == "sleeping"])
    (run,) = app.runs.list()
    first.kill()
    store.client.delete(store.keys.housekeeper)
    doomed = WorkerProcess("tests.crash.unknown:app", url, notes, at=at, when=when, **SETTINGS)
    until(lambda: doomed.ends(within=0.05) or parkings(app, run.id) >= 2)
    doomed.kill()
    yield from check_invariants(store)
    store.client.delete(store.keys.housekeeper)
    stranger = WorkerProcess("tests.crash.unknown:app", url, notes, **SETTINGS)
    until(lambda: parkings(app, run.id) >= 2)
    stranger.kill()
    yield from check_invariants(store)
    store.client.delete(store.keys.housekeeper)
    doomed = WorkerProcess("tests.crash.known:app", url, notes, at=at, when=when, any_thread=True, **SETTINGS)
    until(lambda: doomed.ends(within=0.05) or app.runs.get(run.id).finished)
    doomed.kill()
    yield from check_invariants(store)
    if not app.runs.get(run.id).finished:
        store.client.delete(store.keys.housekeeper)
        healthy = WorkerProcess("tests.crash.known:app", url, notes, **SETTINGS)
        until(lambda: app.runs.get(run.id).finished)
        assert healthy.stop() == 0
    ended = app.runs.get(run.id)
    if (ended.status, ended.result) != ("completed", ["first", "last"]):
        yield f"{ended}: {app.runs.history(run.id)}"
    lines = Ledger(notes).lines()
    yield from (f"{line} was recorded" for line in lines if line.word == AGAIN)
    started = Counter(line.step for line in lines if line.word == START)
    if started["first"] != 1 or not 1 <= started["last"] <= 2:
        yield f"started {started}"
    yield from check_invariants(store)
    store.close()


def parkings(app: App, run: str) -> int:
    return sum(entry.kind == "parked" for entry in app.runs.history(run))
