"""`flow forget APP`: an app that is gone for good no longer keeps events from being forgotten."""

from __future__ import annotations

from typing import Any, cast

import pytest
import redis as redis_py

from flowlib import App, Event
from flowlib.cli import forget
from flowlib.store import Store

from .conftest import Flow, Shop
from .test_doctor import told


@pytest.fixture
def store(redis_url: str) -> Store:
    """With events of an hour ago, of which the app `gone` has read one and `here` all."""
    store = Store(redis_url)
    for app in ("gone", "here"):
        store.join_events(app)
    then = store.client.time()[0] - 3600
    for number in (1, 2, 3):
        store.client.xadd(
            store.keys.events, {"id": "", "name": "go", "data": b"\x80", "ts": "0"}, id=f"{then}000-{number}"
        )
    for app, count in (("gone", 1), ("here", 3)):
        store.client.xack(store.keys.events, app, *(entry for entry, _ in read(store, app, count)))
    return store


def read(store: Store, app: str, count: int = 10) -> list[tuple[bytes, dict[bytes, bytes]]]:
    ((_, entries),) = cast(Any, store.client.xreadgroup(app, "reader", {store.keys.events: ">"}, count))
    return cast(Any, entries)


@pytest.fixture(autouse=True)
def no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forget, "SILENCE", 0.0)


def test_doctor_tells_of_the_app_and_once_it_is_forgotten_the_events_are_too(flow: Flow, store: Store) -> None:
    """I5 says that every app gets every event: only who runs them can say that one has gone."""
    assert "warn  events: 'gone' has not read 2, the first of them sent 1h 0m ago" in told(flow("doctor"), "events")
    assert "`flow forget gone`" in told(flow("doctor"), "events")
    assert store.trim_events(0) == 1
    said = flow("forget", "gone", "--yes")
    assert (said.code, said.out) == (0, "app gone is forgotten; 2 events that it had not read start nothing in it\n")
    assert "ok    events" in told(flow("doctor"), "events")
    assert store.trim_events(0) == 2
    assert store.client.smembers(store.keys.apps) == {b"here"}


def test_it_asks_first(flow: Flow, store: Store) -> None:
    assert flow("forget", "gone").code == 130
    assert store.client.sismember(store.keys.apps, "gone")


def test_nothing_is_left_of_the_app_but_what_expires(flow: Flow, redis: redis_py.Redis, at_work: Shop) -> None:
    at_work.order("o1")
    at_work.stop()
    assert flow("forget", "shop", "--yes", "--json").document == {"app": "shop", "unread": 0}
    left = {key for key in redis.scan_iter("flow:*") if redis.ttl(key) < 0}
    assert left <= {b"flow:events", b"flow:queues", b"flow:tick", b"flow:apps"}
    assert flow("runs").out == ""


def test_it_is_refused_while_a_worker_lives_or_a_run_is_unfinished(
    flow: Flow, redis: redis_py.Redis, at_work: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = at_work.hold()
    monkeypatch.setattr(forget, "SILENCE", 60.0)
    said = flow("forget", "shop", "--yes")
    assert said.code == 1
    assert "a worker of 'shop' has read events" in said.err
    monkeypatch.setattr(forget, "SILENCE", 0.0)
    before = redis.dbsize()
    said = flow("forget", "shop", "--yes")
    assert said.code == 1
    assert "1 runs of 'shop' are unfinished" in said.err
    assert redis.dbsize() == before
    assert at_work.app.runs.get(run).status == "running"


def test_an_app_that_never_was_is_not_found(flow: Flow, redis_url: str) -> None:
    said = flow("forget", "nobody", "--yes")
    assert said.code == 1
    assert "'nobody' has never had a worker here" in said.err


def test_an_app_that_comes_back_begins_with_what_is_sent_then(flow: Flow, store: Store) -> None:
    flow("forget", "gone", "--yes")
    assert store.join_events("gone")
    App("sender").connect(store=store).send(Event("go", {}, id="new"))
    assert [fields[b"id"] for _, fields in read(store, "gone")] == [b"new"]
