"""Events: what arrives is what was sent, what is wrong is refused at the door, and each id starts a function once."""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pydantic
import pytest

from flowlib import App, Event, EventType, PayloadError, ServerError
from flowlib.dispatch import Dispatcher
from tests.cases.case import Case, in_place, only_sync
from tests.patience import until


@dataclass(frozen=True)
class Address:
    street: str
    zip: int


@dataclass(frozen=True)
class Upload:
    key: str
    at: datetime
    addresses: tuple[Address, ...]


class Order(pydantic.BaseModel):
    id: int
    address: dict[str, Any]


class Row(msgspec.Struct):
    id: int
    tags: set[str]


VALID = [
    EventType("upload", Upload)(Upload("list.csv", datetime(2026, 1, 1, tzinfo=UTC), (Address("Main St", 12345),))),
    EventType("order", Order)(Order(id=1, address={"zip": None})),
    EventType("row", Row)(Row(1, {"a", "b"})),
    EventType("numbers", list[int])([1, 2**80]),
]

INVALID: list[tuple[EventType[Any], Any, str]] = [
    (EventType("upload", Upload), {"key": "list.csv"}, "data"),
    (EventType("upload", Upload), Upload("k", "today", ()), "data.at"),  # type: ignore[arg-type]
    (EventType("order", Order), {"id": "x", "address": {}}, "data"),
    (EventType("row", Row), {"id": 1, "tags": 7}, "data"),
    (EventType("numbers", list[int]), [1, "2"], r"data\[1\]"),
    (EventType("upload", Upload), None, "data"),
]


def test_a_function_gets_the_event_as_it_was_sent(case: Case) -> None:
    """BEHAVIOURS 4."""
    data = {
        "nested": [{"a": [1, {"b": None}]}, (1, 2), {"x"}],
        "naïve 🎉": b"\x00\xff",
        "when": datetime(2026, 7, 1, tzinfo=timezone(timedelta(hours=2))),
        7: 2**100,
    }

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("pause", case.body("pause"))
        case.ledger.append(event)

    sent = Event("test", data, "id / with 🎉", datetime(1999, 12, 31, 23, 59, 59, 999000, UTC))
    assert case.run(event=sent).status == "completed"
    assert case.ledger[-1] == sent
    assert case.app.runs.list(event="id / with 🎉")[0].event.id == sent.id


def test_an_event_without_id_and_time_gets_both(case: Case) -> None:
    """BEHAVIOURS 3 and 4."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("pause", case.body("pause"))
        case.ledger.append((event.id, event.ts))

    before = datetime.now(UTC)
    event_id = case.app.send(Event("test", {}))
    case.start()
    (run_id,) = until(lambda: case.app.runs.of_event(event_id))
    case.ended(run_id)
    *_, (seen, ts) = case.ledger
    assert seen == event_id
    assert len(event_id) == 26
    assert before - timedelta(seconds=1) <= ts <= datetime.now(UTC) + timedelta(seconds=1)


@pytest.mark.parametrize("event", VALID, ids=lambda event: event.name)
def test_typed_data_arrives_as_its_type(case: Case, event: Event[Any]) -> None:
    """BEHAVIOURS 5."""

    @case.function(on=EventType(event.name, event.type))
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("pause", case.body("pause"))
        case.ledger.append(event.data)

    case.run(event=event)
    assert case.ledger == ["pause", event.data]
    assert type(case.ledger[-1]) is type(event.data)


@pytest.mark.parametrize(("type", "data", "path"), INVALID)
@only_sync
def test_data_that_does_not_fit_its_type_is_refused_and_nothing_is_stored(
    case: Case, type: EventType[Any], data: Any, path: str
) -> None:
    """BEHAVIOURS 5; the same when only the function knows the type."""

    @case.function(on=type)
    def f(event: Event[Any], step: Any) -> Any: ...

    for wrong in (type(data), Event(type.name, data)):
        with pytest.raises(PayloadError, match=rf"event '{type.name}': {path}"):
            case.app.send(wrong)
    assert case.app.store.client.dbsize() == 0


@only_sync
def test_data_of_another_app_that_does_not_fit_fails_the_run_and_says_why(case: Case, redis_url: str) -> None:
    """A producer that does not know the type cannot be stopped at its door."""

    @case.function(on=EventType("upload", Upload), retries=5)
    def f(event: Event[Any], step: Any) -> Any: ...

    case.start()
    stranger = App("stranger", redis_url=redis_url)
    event_id = stranger.send(Event("upload", {"key": 7}))
    stranger.store.close()
    (run_id,) = until(lambda: case.app.runs.of_event(event_id))
    run = case.ended(run_id)
    assert run.error is not None
    assert run.error.type == "PayloadError"
    assert run.event.data == {"key": 7}


NO_EVENTS: list[tuple[Any, str]] = [
    (Event("", {}), "event name"),
    (Event("x" * 257, {}), r"event name .* \(257 characters\): must be a string of 1 to 256"),
    (Event("a\nb", {}), "event name"),
    (Event(7, {}), "event name"),  # type: ignore[arg-type]
    (Event("a", {}, id="x" * 257), "event id"),
    (Event("a", {}, id=7), "event id"),  # type: ignore[arg-type]
    (Event("a", {"when": object()}), r"data\.when: <class 'object'> cannot be stored"),
    (Event("a", b"x" * (512 * 1024 + 1)), "over the limit of 524288 bytes"),
    (Event("a", {}, ts=datetime(2026, 1, 1)), "aware datetime"),
    (Event("a", {}, ts=1700000000), "aware datetime"),  # type: ignore[arg-type]
    (Event("a", {}, ts=datetime.max.replace(tzinfo=UTC)), "years 1 to 9999"),
    (Event("a", {}, ts=datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))), "years 1 to 9999"),
    ("a", "is no Event"),
    ({"name": "a", "data": {}}, "is no Event"),
    (None, "is no Event"),
]


@pytest.mark.parametrize(("wrong", "message"), NO_EVENTS)
@only_sync
def test_a_bad_event_is_refused_alone_and_among_good_ones_and_nothing_is_stored(
    case: Case, wrong: Any, message: str
) -> None:
    """I10, and BEHAVIOURS 81: the message lists each bad one by its index."""
    with pytest.raises(PayloadError, match=message):
        case.app.send([wrong])
    with pytest.raises(PayloadError, match=message):
        case.app.send(wrong)
    good = Event("a", None)
    with pytest.raises(PayloadError, match=r"nothing was sent: event 1: .*; event 3: "):
        case.app.send([good, wrong, good, wrong])
    assert case.app.store.client.dbsize() == 0


@only_sync
def test_the_largest_event_is_taken(case: Case) -> None:
    case.app.send(Event("x" * 256, b"x" * (512 * 1024 - 5), id="é" * 256))
    assert case.app.store.client.xlen(case.app.store.keys.events) == 1


@in_place
def test_one_event_id_starts_a_function_once_and_two_ids_twice(case: Case) -> None:
    """BEHAVIOURS 117; also BEHAVIOURS 79, for a producer that sends an id again: it starts nothing twice."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("pay", case.body(event.id))

    case.start()
    events = [Event("test", {"of": "test"}, id=id) for id in ("one", "two", "one", "one")]
    assert case.app.send(events) == ["one", "two", "one", "one"]
    assert case.app.send(Event("test", {"other": "data"}, id="one")) == "one"
    last = case.run(event=Event("test", {}, id="last"))
    for run in case.app.runs.list():
        case.ended(run.id)
    assert last.status == "completed"
    assert sorted(case.ledger) == ["last", "one", "two"]
    assert len(case.app.runs.list()) == 3
    assert case.app.runs.of_event("one") == [run.id for run in case.app.runs.list(event="one")]


@only_sync
def test_dispatchers_that_race_on_events_start_one_run_each(case: Case) -> None:
    """BEHAVIOURS 118: two workers take their share, and a redelivered event finds the run that it started."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        case.ledger.append(event.id)

    case.start()
    case.start()
    ids = [f"event-{n}" for n in range(60)]
    for event_id in ids:
        case.app.send(Event("test", {}, id=event_id))
    until(lambda: len(case.ledger) >= len(ids))
    entries: Any = case.app.store.client.xrange(case.app.store.keys.events)
    runs = {run.event.id: run.id for run in case.app.runs.list()}
    again = Dispatcher("case", case.app.functions, case.app.location, case.app.store, "another", idle_ms=1)
    assert again.dispatch(entries) == []
    assert again.dispatch(entries + entries) == []
    assert sorted(case.ledger) == sorted(ids)
    assert {run.event.id: run.id for run in case.app.runs.list()} == runs
    assert len(runs) == len(ids)


@only_sync
def test_events_sent_from_a_coroutine_arrive_too(case: Case) -> None:
    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        case.ledger.append(event.id)

    async def produce() -> list[str]:
        one = await case.app.send_async(Event("test", {}))
        return [one, *await case.app.send_async([Event("test", {}), Event("test", {})])]

    case.start()
    ids = asyncio.run(produce())
    until(lambda: len(case.ledger) == 3)
    assert sorted(case.ledger) == sorted(ids)


async def by_coroutines(app: App, events: list[Event[Any]]) -> list[str]:
    return await asyncio.gather(*(app.send_async(event) for event in events))


@pytest.mark.parametrize("is_async", [False, True], ids=["threads", "coroutines"])
@only_sync
def test_one_producer_sends_five_hundred_events_at_once(case: Case, is_async: bool) -> None:
    """BEHAVIOURS 82."""
    events = [Event("test", {"n": n}, id=f"event-{n}") for n in range(500)]
    if is_async:
        ids = asyncio.run(by_coroutines(case.app, events))
    else:
        with ThreadPoolExecutor(100) as pool:
            ids = list(pool.map(case.app.send, events))
    assert ids == [event.id for event in events]
    stored: Any = case.app.store.client.xrange(case.app.store.keys.events)
    assert sorted(fields[b"id"].decode() for _, fields in stored) == sorted(ids)


@in_place
def test_a_run_tells_of_its_events_and_an_event_of_its_runs(case: Case) -> None:
    """BEHAVIOURS 137, of a run: what started it, what it has waited for, what it has sent; and whom an event has started."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.send_event("tell", [Event("told", {"n": n}, id=f"told-{n}") for n in range(2)])
        yield step.wait_for_event("answer", "answer", timeout=20)

    @case.function(on="told", name="heard")
    def heard(event: Event[Any], step: Any) -> Any: ...

    @case.function(on="told", name="heard-too")
    def heard_too(event: Event[Any], step: Any) -> Any: ...

    run_id = case.send(event=Event("test", {"a": 1}, id="first"))
    until(lambda: case.app.runs.get(run_id).state == "waiting")
    case.app.send(Event("answer", {}, id="answer-1"))
    run = case.ended(run_id)
    tell, answer = run.steps
    assert (run.event.name, run.event.id, run.event.data) == ("test", "first", {"a": 1})
    assert (tell.kind, case.app.runs.outputs(run_id)["tell"]) == ("send", ["told-0", "told-1"])
    assert answer.wait is not None
    assert (answer.wait.event, answer.wait.found) == ("answer", "answer-1")
    for n in range(2):
        started = until(lambda: len(found := case.app.runs.of_event(f"told-{n}")) == 2 and found)  # noqa: B023
        assert {case.app.runs.get(each).function for each in started} == {"heard", "heard-too"}
        assert {each.id for each in case.app.runs.list(event=f"told-{n}")} == set(started)
    assert len(case.app.runs.list(event="told")) == 4
    assert case.app.runs.of_event("answer-1") == []


@only_sync
def test_events_sent_before_any_worker_was_there_are_not_lost(case: Case) -> None:
    """I5: the first app reads the stream from its beginning."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        case.ledger.append(event.data["n"])

    case.app.send([Event("test", {"n": n}) for n in range(250)])
    case.start()
    until(lambda: len(case.ledger) == 250)
    assert sorted(case.ledger) == list(range(250))


def test_without_redis_nothing_is_sent_and_the_error_says_what_to_do() -> None:
    app = App("case", redis_url="unix:///nowhere.sock")
    app.store._patience = 0.1
    with pytest.raises(ServerError, match=r"no Redis at unix:///nowhere.sock .*: start one, or set FLOW_REDIS_URL"):
        app.send(Event("test", {}))
    app.store.close()


@pytest.mark.parametrize("data", [math.nan, [], "", None, {"": ""}], ids=repr)
@only_sync
def test_data_may_be_any_value(case: Case, data: Any) -> None:
    @case.function(on=EventType("any", object))
    def f(event: Event[Any], step: Any) -> Any:
        return repr(event.data)

    assert case.run(event=Event("any", data)).result == repr(data)
