"""Whoever asks for a retry or a replay, or works on it, is killed between any two commands: nothing is repeated."""

from __future__ import annotations

import signal
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
from .fleet import Forked, WorkerProcess
from .ledger import AGAIN, START, Ledger
from .second_try import STEPS, mended, replay, retry

WORK = "tests.crash.second_try:app"
FURTHEST = 9  # the last command of the run, or one behind it


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("when", [BEFORE, AFTER])
@strides(2)
def test_a_retry_survives_the_death_of_whoever_asks_for_it_and_of_whoever_works_on_it(
    databases: Databases, when: str, stride: int
) -> None:
    """I1, I3, I4, I6."""
    faults = databases.try_each(
        range(1, FURTHEST + 1, stride), lambda url, notes, at: list(faults_of(url, notes, at, when))
    )
    assert {at: found for at, found in faults.items() if found} == {}


def faults_of(url: str, notes: Path, at: int, when: str) -> Iterator[str]:
    store = Store(url)
    app = App("second-try").connect(store=store)
    app.send(Event("crash.pay", {}, id="once"))
    worker = WorkerProcess(WORK, url, notes, **SETTINGS)
    until(lambda: [run for run in app.runs.list() if run.status == "failed"])
    (run,) = app.runs.list()
    assert worker.stop() == 0
    mended(notes).touch()
    asker = Forked(retry, notes, url, run.id, when)
    if asker.exit_code != -signal.SIGKILL:
        yield "whoever asked was not killed"
    yield from check_invariants(store)
    if app.runs.get(run.id).status == "failed":  # it has not come to it; the first time the server knew no such script
        app.runs.retry(run.id)
    doomed = WorkerProcess(WORK, url, notes, at=at, when=when, **SETTINGS)
    until(lambda: doomed.ends(within=0.05) or app.runs.get(run.id).finished)
    doomed.stop()
    yield from check_invariants(store)
    if not app.runs.get(run.id).finished:
        store.client.delete(store.keys.housekeeper)
        healthy = WorkerProcess(WORK, url, notes, **SETTINGS)
        until(lambda: app.runs.get(run.id).finished)
        assert healthy.stop() == 0
    ended = app.runs.get(run.id)
    if (ended.status, ended.result, ended.retried) != ("completed", STEPS, 1):
        yield f"{ended}: {app.runs.history(run.id)}"
    lines = Ledger(notes).lines()
    yield from (f"{line} was recorded" for line in lines if line.word == AGAIN)
    started = Counter(line.step for line in lines if line.word == START)
    if started["first"] != 1 or not 2 <= started["charge"] <= 3 or not 1 <= started["last"] <= 2:
        yield f"started {started}"
    yield from check_invariants(store)
    store.close()


def test_a_replay_is_there_as_a_whole_or_not_at_all_when_whoever_asks_for_it_dies(
    redis_url: str, tmp_path: Path
) -> None:
    """I1, I3, I4."""
    notes = tmp_path / "notes"
    mended(notes).touch()
    store = Store(redis_url)
    app = App("second-try").connect(store=store)
    app.send(Event("crash.pay", {}, id="once"))
    worker = WorkerProcess(WORK, redis_url, notes, **SETTINGS)
    until(lambda: [run for run in app.runs.list() if run.finished])
    (first,) = app.runs.list()
    made = [app.runs.replay(first.id, from_step="charge")]
    for when in (BEFORE, AFTER):
        assert Forked(replay, notes, redis_url, first.id, when).exit_code == -signal.SIGKILL
        assert check_invariants(store) == []
        made += [run.id for run in app.runs.list() if run.id not in (first.id, *made)]
        assert len(made) == {BEFORE: 1, AFTER: 2}[when]
    until(lambda: all(app.runs.get(run).finished for run in made))
    assert worker.stop() == 0
    assert [(app.runs.get(run).result, app.runs.get(run).replay_of) for run in made] == [(STEPS, first.id)] * 2
    assert app.runs.get(first.id).replays == tuple(made)
    started = Counter((line.step, line.run == first.id) for line in Ledger(notes).lines() if line.word == START)
    assert started == {
        ("first", True): 1,
        ("charge", True): 1,
        ("last", True): 1,
        ("charge", False): 2,
        ("last", False): 2,
    }
    assert check_invariants(store) == []
    store.close()
