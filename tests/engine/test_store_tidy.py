"""What the housekeeper forgets, and what it must not: expired runs, dead workers."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from rq import SimpleWorker

from flowlib import App, Event, Step
from flowlib.dispatch import Dispatcher
from flowlib.worker import housekeeping
from flowlib.worker.housekeeping import Housekeeper
from tests.patience import until

from .conftest import LOCATION, Desk


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


def reader(desk: Desk, name: str) -> Dispatcher:
    desk.store.join_events("desk")
    return Dispatcher("desk", {"errand": desk.function}, LOCATION, desk.store, name, idle_ms=0)


def readers(desk: Desk) -> set[str]:
    found: Any = desk.store.client.xinfo_consumers(desk.store.keys.events, "desk")
    return {consumer["name"].decode() for consumer in found}


def send(desk: Desk) -> None:
    App("sender").connect(store=desk.store).send(Event("go", {}))


def test_a_worker_that_is_gone_reads_no_events_any_more_once_what_it_had_read_is_settled(desk: Desk) -> None:
    """I5: what is pending with a dead one is for another to claim; to forget it with its reader would lose it."""
    client, rq = desk.store.client, desk.store.keys.rq
    for name in ("alive", "left", "killed"):
        assert reader(desk, name).fresh() == []
    client.hset(f"{rq}:worker:alive", "birth", "today")
    client.hset(f"{rq}:worker:left", mapping={"birth": "today", "death": "just now"})
    send(desk)
    assert len(reader(desk, "killed").fresh()) == 1
    desk.house.bury()
    assert readers(desk) == {"alive", "killed"}
    heir = reader(desk, "alive")
    assert len(heir.dispatch_abandoned()) == 1
    desk.house.bury()
    assert readers(desk) == {"alive"}


def test_a_reader_that_is_forgotten_while_it_waits_for_events_reads_them_all_the_same(desk: Desk) -> None:
    """I5: one that had been stopped for so long that its worker's key has expired."""
    stopped, heard = reader(desk, "stopped"), list[Any]()
    thread = threading.Thread(target=lambda: heard.extend(stopped.fresh(5000)))
    thread.start()
    until(lambda: readers(desk) == {"stopped"} and blocked(desk))
    desk.house.bury()
    assert readers(desk) == set()
    send(desk)
    thread.join(20)
    assert len(stopped.dispatch(heard)) == 1
    assert desk.faults() == []


def blocked(desk: Desk) -> bool:
    info: Any = desk.store.client.info("clients")
    return info["blocked_clients"] == 1


def handle(event: Event[Any], step: Step) -> None: ...


def deployed(desk: Desk, *names: str, tells: bool = False) -> SimpleWorker:
    """A worker of an app with these functions, which is there from now on."""
    app = App("desk")
    for name in names:
        app.function(on=name, name=name, on_failure=handle if tells else None)(handle)
    worker = SimpleWorker(["q"], connection=desk.store.client)
    worker.register_birth()
    desk.store.register_app("desk", app.functions, worker.name)
    return worker


def known(desk: Desk) -> tuple[set[str], str]:
    functions: Any = desk.store.client.hkeys(desk.store.keys.functions("desk"))
    heard: Any = desk.store.client.hget(desk.store.keys.listeners, "desk")
    return {name.decode() for name in functions}, (heard or b"").decode().strip()


def a_minute_later(desk: Desk, dead: SimpleWorker) -> None:
    """RQ forgets its record of it."""
    assert 0 < desk.store.client.ttl(desk.store.keys.rq_worker(dead.name)) <= 60
    desk.store.client.delete(desk.store.keys.rq_worker(dead.name))


def test_functions_are_known_as_long_as_any_living_worker_of_the_app_has_them_and_a_minute_longer(desk: Desk) -> None:
    """BEHAVIOURS 71, 46: an older version of the app that starts behind a newer one takes nothing away from it."""
    new = deployed(desk, "old", "new", tells=True)
    older = deployed(desk, "old")
    told = "flow/run.failed desk/new\nflow/run.failed desk/old"
    everything = {"old", "new", "old.on-failure", "new.on-failure"}, told
    assert known(desk) == everything
    desk.store.client.delete(desk.store.keys.rq_worker(older.name))
    desk.house.bury()
    assert known(desk) == everything
    deployed(desk, "old", "newest")
    assert known(desk) == ({*everything[0], "newest"}, told)
    new.register_death()
    desk.house.bury()
    assert known(desk) == ({*everything[0], "newest"}, told)  # it may be started again
    a_minute_later(desk, new)
    desk.house.bury()
    assert known(desk) == ({"old", "newest"}, "")
    assert desk.store.client.scard("flow:told:desk") == 1


def test_when_no_worker_is_left_what_they_knew_stays_known(desk: Desk) -> None:
    last = deployed(desk, "old", tells=True)
    before = known(desk)
    last.register_death()
    desk.store.client.delete(desk.store.keys.rq_worker(last.name))
    desk.house.bury()
    assert known(desk) == before != (set(), "")
