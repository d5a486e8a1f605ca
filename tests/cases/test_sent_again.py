"""Events that are sent again, by `send` itself or by a producer that has heard nothing: each is stored once."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ConnectionError

from flowlib import App, Event, ServerError
from flowlib.store import Store
from flowlib.testing import BEFORE, check_invariants, cut, faulty_wire
from flowlib.wire import Wire
from tests.cases.case import Case, only_sync
from tests.patience import until


class FirstReplyLost(Wire):
    """Redis has done what it was told first, and its connection breaks before it can say so."""

    lost = 0

    def _read(self, expected: int) -> list[Any]:
        replies = super()._read(expected)
        self.lost += 1
        if self.lost == 1:
            raise ConnectionError("the reply is lost")
        return replies


@pytest.mark.parametrize("arrives", [False, True])
@pytest.mark.parametrize("how_many", [1, 350])
@only_sync
def test_events_whose_first_try_had_no_answer_are_stored_once_and_start_once(
    case: Case, arrives: bool, how_many: int
) -> None:
    """BEHAVIOURS 79: `send` itself tries again."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any: ...

    case.app.send([Event("other", {"n": n}) for n in range(120)])
    wire = FirstReplyLost if arrives else faulty_wire(cut, 1, BEFORE)
    case.app.connect(store=Store(case.app.store.url, wire=wire))
    events = [Event("test", {"n": n}, id=f"event-{n}") for n in range(how_many)]
    ids = case.app.send(events) if how_many > 1 else [case.app.send(events[0])]
    assert ids == [event.id for event in events]
    stored: Any = case.app.store.client.xrange(case.app.store.keys.events)
    assert [fields[b"id"].decode() for _, fields in stored[120:]] == ids
    case.start()
    until(lambda: len(case.app.runs.list(limit=None, status="completed")) == how_many)
    assert check_invariants(case.app.store) == []


@only_sync
def test_what_a_server_that_stood_still_hears_late_is_stored_once(case: Case) -> None:
    """BEHAVIOURS 79: the first reply is lost, and what is sent in its place waits there for longer than the patience."""
    client = case.app.store.client

    class StandsStill(FirstReplyLost):
        def _read(self, expected: int) -> list[Any]:
            try:
                return super()._read(expected)
            except ConnectionError:
                if self.lost == 1:
                    client.client_pause(3000)
                raise

    producer = App("producer").connect(store=Store(case.app.store.url, wire=StandsStill, patience=0.5))
    for _ in range(100):
        try:
            producer.send(Event("said", {}, id="said"))
            break
        except ServerError:
            pass
    else:
        pytest.fail("it could not be sent")
    entries: Any = client.xrange(case.app.store.keys.events)
    assert [fields[b"id"] for _, fields in entries] == [b"said"]
    producer.store.close()


class NoReplyHeard(Wire):
    """Redis does what it is told, and cannot say so while `deaf`."""

    deaf = True

    def _read(self, expected: int) -> list[Any]:
        replies = super()._read(expected)
        if self.deaf:
            raise ConnectionError("the reply is lost")
        return replies


@only_sync
def test_what_a_producer_sends_again_because_it_heard_nothing_is_stored_once(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BEHAVIOURS 79: whoever waits for one such event after the other gets it once; what else is sent is not held up."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        first = yield step.wait_for_event("first", "said", timeout=60)
        second = yield step.wait_for_event("second", "said", timeout=60)
        return [first.id, second.id]

    case.start()
    run_id = case.send()
    until(lambda: case.app.runs.get(run_id).state == "waiting")
    producer = App("producer").connect(store=Store(case.app.store.url, wire=NoReplyHeard, patience=0))
    said = [Event("said", {"n": n}, id=f"said-{n}") for n in range(2)]
    for _ in range(2):
        with pytest.raises(ServerError):
            producer.send(said[0])
        until(lambda: [step.id for step in case.app.runs.get(run_id).steps] == ["first", "second"])
    monkeypatch.setattr(NoReplyHeard, "deaf", False)
    producer.send(Event("other", {}, id="other"))
    assert producer.send(said) == ["said-0", "said-1"]
    assert producer.store._doubted == {}
    assert case.ended(run_id).result == ["said-0", "said-1"]
    entries: Any = case.app.store.client.xrange(case.app.store.keys.events)
    assert [fields[b"id"] for _, fields in entries[1:]] == [b"said-0", b"other", b"said-1"]
    producer.store.close()
    assert check_invariants(case.app.store) == []


def test_what_is_not_sent_again_for_long_is_in_doubt_no_more_when_there_is_more_of_it(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is sent meanwhile does not look through it."""
    monkeypatch.setattr("flowlib.store.events.LONGEST_DOUBT", 0.0)
    store = Store(redis_url, wire=NoReplyHeard, patience=0)
    for id, doubted in (("1", {"1"}), ("2", {"2"}), ("2", {"2"})):
        with pytest.raises(ServerError):
            store.send_events([(id, "said", b"\x80", 0, "")])
        assert {name for name, _ in store._doubted} == doubted
    monkeypatch.setattr(NoReplyHeard, "deaf", False)
    store.send_events([("3", "said", b"\x80", 0, "")])
    assert store._doubted.keys() == {("2", "said")}
    store.send_events([("2", "said", b"\x80", 0, "")])
    assert store._doubted == {}
    store.close()
