"""Events to runs: dispatched by every app, once per event id, whatever becomes of the dispatcher on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from flowlib import App, Event
from flowlib.dispatch import Dispatcher
from flowlib.store import Store
from tests.patience import until

from .conftest import LOCATION, Desk

HOUR_MS = 3_600_000


def dispatcher(desk: Desk, consumer: str, app: str = "desk") -> Dispatcher:
    desk.store.join_events(app)
    return Dispatcher(app, {"errand": desk.function}, LOCATION, desk.store, consumer, idle_ms=0)


def send(desk: Desk, *ids: str) -> None:
    App("sender").connect(store=desk.store).send([Event("go", {}, id=id) for id in ids])


def counted(desk: Desk) -> dict[str, int]:
    metrics: Any = desk.store.client.hgetall(desk.store.keys.metrics("desk"))
    return {key.decode(): int(value) for key, value in metrics.items() if key.startswith((b"runs_started", b"events"))}


def idle_ms(desk: Desk) -> int:
    """For how long the one event that is not settled has been with its reader."""
    (entry,) = cast(Any, desk.store.client.xpending_range(desk.store.keys.events, "desk", "-", "+", 10))
    return int(entry["time_since_delivered"])


def test_a_dispatcher_that_dies_with_what_it_has_read_is_replaced(desk: Desk) -> None:
    """I5: another claims what was read and not settled."""
    dead, heir = dispatcher(desk, "dead"), dispatcher(desk, "heir")
    send(desk, "one", "two")
    assert len(dead.fresh()) == 2
    assert heir.fresh() == []
    assert len(heir.dispatch_abandoned()) == 2
    assert counted(desk) == {"runs_started|errand||": 2, "events_received|||go": 2}
    assert heir.abandoned()[1] == []
    assert desk.faults() == []


def test_on_a_machine_that_has_just_booted_the_first_look_is_at_what_is_abandoned(
    desk: Desk, just_booted: Callable[[], None]
) -> None:
    """I5."""
    dead, heir = dispatcher(desk, "dead"), dispatcher(desk, "heir")
    dead._idle_ms = heir._idle_ms = 100
    send(desk, "one")
    assert len(dead.fresh()) == 1
    until(lambda: idle_ms(desk) > heir._idle_ms)
    send(desk, "two")
    just_booted()
    looks = iter([False])
    heir.run(lambda: next(looks, True))
    assert {run.event.id for run in desk.runs.list()} == {"one", "two"}
    assert desk.faults() == []


def test_a_dispatcher_that_never_heard_what_it_has_read_reads_it_again(desk: Desk) -> None:
    """I5: only the reply was lost. It waits for nobody to find the events abandoned."""
    reader = dispatcher(desk, "reader")
    reader._idle_ms = HOUR_MS
    send(desk, "one", "two")
    assert len(reader.fresh()) == 2
    thread = threading.Thread(target=reader.run, args=[lambda: len(desk.runs.list()) == 2])
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    pending: Any = desk.store.client.xpending(desk.store.keys.events, "desk")
    assert pending["pending"] == 0
    assert counted(desk) == {"runs_started|errand||": 2, "events_received|||go": 2}
    assert desk.faults() == []


def test_an_event_whose_runs_have_started_and_that_is_not_settled_starts_nothing_twice(desk: Desk) -> None:
    """I5; BEHAVIOURS 118."""
    dead, heir = dispatcher(desk, "dead"), dispatcher(desk, "heir")
    send(desk, "one")
    ((entry, fields),) = dead.fresh()
    told = ("0-1", *dead._told(entry.decode(), fields)[1:])
    (((_, run),),) = desk.store.send_all([desk.store.dispatch_events("desk", [told])])
    assert heir.dispatch_abandoned() == []
    assert [each.id for each in desk.runs.list()] == [run.decode()]
    assert counted(desk) == {"runs_started|errand||": 1, "events_received|||go": 1}
    assert desk.faults() == []


def test_an_event_that_is_redelivered_after_its_window_starts_nothing(desk: Desk) -> None:
    """I5: the run's id follows from the event's place in the stream."""
    first, second = dispatcher(desk, "first"), dispatcher(desk, "second")
    send(desk, "one")
    entries = first.fresh()
    (run,) = first.dispatch(entries)
    assert desk.store.client.delete(desk.store.keys.once("desk", "errand", "one")) == 1
    before = desk.stored()
    assert second.dispatch(entries) == []
    assert desk.stored() == before
    lease = desk.claim().lease
    assert desk.finish(lease, recorded="") == "finished"
    assert second.dispatch(entries) == []
    assert desk.runs.get(run).status == "completed"
    assert desk.faults() == []


def test_an_id_that_is_sent_twice_starts_one_run_and_two_ids_two(desk: Desk) -> None:
    """BEHAVIOURS 117."""
    one = dispatcher(desk, "one")
    send(desk, "same")
    send(desk, "same", "other")
    assert len(one.dispatch(one.fresh())) == 2
    assert sorted(run.event.id for run in desk.runs.list()) == ["other", "same"]


def test_dispatchers_that_race_on_one_event_start_one_run(desk: Desk, redis_url: str) -> None:
    """BEHAVIOURS 118: all have the same entries; all name the same run."""
    racers = [dispatcher(desk, f"racer-{n}") for n in range(4)]
    send(desk, *(f"event-{n}" for n in range(20)))
    entries = racers[0].fresh()
    line, started = threading.Barrier(len(racers)), list[str]()

    def race(racer: Dispatcher) -> None:
        line.wait(15)
        started.extend(racer.dispatch(entries))

    threads = [threading.Thread(target=race, args=(racer,)) for racer in racers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(started) == sorted(run.id for run in desk.runs.list())
    assert len(started) == 20
    assert counted(desk) == {"runs_started|errand||": 20, "events_received|||go": 20}
    assert desk.faults() == []


def test_the_first_app_reads_from_the_beginning_and_later_ones_from_the_end(desk: Desk) -> None:
    """A producer may come before any worker."""
    send(desk, "early")
    first = dispatcher(desk, "a", "desk")
    second = dispatcher(desk, "b", "latecomer")
    send(desk, "late")
    assert [fields[b"id"] for _, fields in first.fresh()] == [b"early", b"late"]
    assert [fields[b"id"] for _, fields in second.fresh()] == [b"late"]


def test_an_app_that_joins_again_keeps_its_place(desk: Desk) -> None:
    reader = dispatcher(desk, "reader")
    send(desk, "read")
    reader.dispatch(reader.fresh())
    assert desk.store.join_events("desk") is False
    assert reader.fresh() == []


def test_an_event_that_starts_nothing_is_settled_all_the_same(desk: Desk) -> None:
    reader = dispatcher(desk, "reader")
    App("sender").connect(store=desk.store).send(Event("unheard", {}, id="one"))
    assert reader.dispatch(reader.fresh()) == []
    assert reader.abandoned()[1] == []
    assert counted(desk) == {"events_received|||_other": 1}


def test_an_entry_that_no_app_can_read_blocks_nothing(desk: Desk) -> None:
    reader = dispatcher(desk, "reader")
    desk.store.client.xadd(desk.store.keys.events, {"nonsense": "x"})
    send(desk, "good")
    assert len(reader.dispatch(reader.fresh())) == 1
    assert reader.abandoned()[1] == []


# -- trimming --------------------------------------------------------------------------------------------------------


@pytest.fixture
def old(desk: Desk) -> Desk:
    """Three events from long ago in the stream."""
    for sequence in (1, 2, 3):
        fields = {"id": f"old-{sequence}", "name": "go", "data": b"\x80", "ts": "0"}
        desk.store.client.xadd(desk.store.keys.events, fields, id=f"1000-{sequence}")  # type: ignore[arg-type]
    return desk


def left(store: Store) -> int:
    return int(store.client.xlen(store.keys.events))


def test_what_no_app_has_read_is_never_trimmed(old: Desk) -> None:
    """I5."""
    assert old.store.trim_events(0) == 0
    dispatcher(old, "reader")
    assert old.store.trim_events(0) == 0
    assert left(old.store) == 3


def test_what_was_read_and_not_settled_is_never_trimmed(old: Desk) -> None:
    """I5."""
    reader = dispatcher(old, "reader")
    entries = reader.fresh()
    reader.dispatch(entries[:1])
    assert old.store.trim_events(0) == 1
    assert left(old.store) == 2
    assert len(reader.abandoned()[1]) == 2


def test_what_one_app_has_settled_stays_for_another(old: Desk) -> None:
    """I5."""
    quick, slow = dispatcher(old, "quick"), dispatcher(old, "slow", "other")
    old.store.client.xgroup_setid(old.store.keys.events, "other", "1000-1")
    quick.dispatch(quick.fresh())
    assert old.store.trim_events(0) == 1
    assert len(slow.fresh()) == 2


def test_what_all_have_settled_is_forgotten_after_the_retention_and_not_before(old: Desk) -> None:
    reader = dispatcher(old, "reader")
    send(old, "new")
    reader.dispatch(reader.fresh())
    assert old.store.trim_events(HOUR_MS) == 3
    assert left(old.store) == 1
    assert old.store.trim_events(HOUR_MS) == 0
