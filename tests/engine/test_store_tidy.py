"""What the housekeeper forgets, and what it must not: expired runs, dead workers."""

from __future__ import annotations

from typing import Any

import pytest

from flowlib.worker import housekeeping
from flowlib.worker.housekeeping import Housekeeper

from .conftest import Desk


def index(desk: Desk) -> list[str]:
    runs: Any = desk.store.client.zrange(desk.store.keys.runs("desk"), 0, -1)
    return [run.decode() for run in runs]


def fill(desk: Desk, living: str) -> None:
    """An index of runs, one for each letter: `x` for one that has expired, `o` for one that has not."""
    keys, client = desk.store.keys, desk.store.client
    client.sadd(keys.apps, "desk")
    for place, letter in enumerate(living):
        client.zadd(keys.runs("desk"), {f"{place:03}{letter}": place})
        if letter == "o":
            client.hset(keys.run(f"{place:03}{letter}"), "status", "running")


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "WINDOW", 3)
    monkeypatch.setattr(housekeeping, "WINDOWS", 2)


@pytest.mark.parametrize(
    "living",
    ["xxxxxxxxxxxxxxxxxxxx", "ooooooooxxxxxxxooooooooo", "xoxooxoxxxooxoxoxoxoxoxx", "oooooooooooooooooooox", "x", ""],
    ids=["all", "behind-sleepers", "mixed", "last", "one", "none"],
)
def test_every_run_that_has_expired_leaves_the_index_in_the_end(desk: Desk, small_windows: None, living: str) -> None:
    fill(desk, living)
    for _ in range(2 * len(living) + 2):
        desk.house.tidy()
    assert "".join(name[-1] for name in index(desk)) == living.replace("x", "")


def test_runs_that_expire_later_are_forgotten_later(desk: Desk, small_windows: None) -> None:
    fill(desk, "ooooxxoooooooo")
    for _ in range(10):
        desk.house.tidy()
    desk.store.client.delete(*(desk.store.keys.run(run) for run in index(desk)[2:7]))
    for _ in range(10):
        desk.house.tidy()
    assert [int(name[:3]) for name in index(desk)] == [0, 1, 9, 10, 11, 12, 13]


def test_a_worker_that_was_killed_leaves_rqs_lists_once_its_own_key_has_expired(desk: Desk) -> None:
    """RQ itself would do it at the maintenance of one of its own workers."""
    client, rq = desk.store.client, desk.store.keys.rq
    for name in ("alive", "dead"):
        for workers in (f"{rq}:workers", f"{rq}:workers:known", f"{rq}:workers:unheard-of"):
            client.sadd(workers, f"{rq}:worker:{name}")
    client.hset(f"{rq}:worker:alive", "birth", "today")
    client.sadd(desk.store.keys.queues, "known")
    Housekeeper(desk.store, "house", ["unheard-of"], event_retention_ms=0).bury()
    for workers in (f"{rq}:workers", f"{rq}:workers:known", f"{rq}:workers:unheard-of"):
        assert client.smembers(workers) == {f"{rq}:worker:alive".encode()}
