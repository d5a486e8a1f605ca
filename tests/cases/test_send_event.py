"""`step.send_event`: a function sends events, each exactly once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from flowlib import Event, EventType
from flowlib.testing import check_invariants
from tests.cases.case import Case, only_sync
from tests.patience import until


@dataclass(frozen=True)
class Payment:
    order: str
    amount: int


paid = EventType("payment.received", Payment)


def sent(case: Case) -> list[bytes]:
    stream: Any = case.app.store.client.xrange(case.app.store.keys.events)
    return [fields[b"name"] for _, fields in stream]


def test_it_is_sent_once_and_its_id_remembered_whatever_is_repeated_around_it(case: Case) -> None:
    """BEHAVIOURS 78, 21."""
    seen: list[Any] = []

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("before", case.body("before"))
        one = yield step.send_event("tell", paid(Payment("o1", 42)))
        seen.append(one)
        yield step.run("after", case.body("after", fails=1))
        if len(seen) < 4:
            raise ValueError("between steps")
        return one

    @case.function(on=paid, name="booked")
    def g(event: Event[Payment], step: Any) -> Any:
        yield step.run("book", case.body(event.data))

    run = case.run()
    assert run.status == "completed", run.error
    assert len(seen) >= 4
    assert set(seen) == {run.result}
    (booked,) = case.app.runs.of_event(run.result)
    assert case.ended(booked).event.data == Payment("o1", 42)
    assert case.ledger.count(Payment("o1", 42)) == 1
    assert sent(case).count(b"payment.received") == 1
    assert [step.id for step in run.steps] == ["before", "tell", "after"]
    assert check_invariants(case.app.store) == []


def test_several_are_sent_together_and_keep_their_order_and_their_ids(case: Case) -> None:
    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        made = [paid(Payment("o1", 1), id="first"), Event("other", {"n": 2}, "second"), Event("other", {"n": 3})]
        ids = yield step.send_event("tell", made)
        none = yield step.send_event("nothing", [])
        return [ids, none]

    run = case.run()
    ids, none = run.result
    assert ids[:2] == ["first", "second"]
    assert len(ids[2]) == 26
    assert none == []
    assert sent(case)[-3:] == [b"payment.received", b"other", b"other"]


def test_a_bad_event_fails_the_step_without_retries_and_nothing_is_sent(case: Case) -> None:
    """BEHAVIOURS 81; I10."""

    @case.function(retries=3)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.send_event("tell", [Event("good", {}), Event("", {}), Event("bad", {"x": object()})])

    run = case.run()
    assert run.status == "failed"
    assert run.error is not None
    assert [part in run.error.message for part in ("event 1", "event 2", "nothing was sent")] == [True] * 3
    assert run.steps[0].attempts[-1].number == 1
    assert sent(case) == [b"test"]


@pytest.mark.parametrize("wrong", [None, "name", {"name": "x"}, 7])
@only_sync
def test_what_is_no_event_is_refused(case: Case, wrong: Any) -> None:
    @case.function(retries=3)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.send_event("tell", wrong)

    run = case.run()
    assert run.status == "failed"
    assert run.error is not None
    assert "is no Event" in run.error.message
    assert sent(case) == [b"test"]


@pytest.mark.parametrize("where", ["in a step", "between steps"])
def test_a_function_may_send_with_its_app_too(case: Case, where: str) -> None:
    """BEHAVIOURS 21: what stands between steps is sent at every replay, and starts one run by its id."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        told = paid(Payment("o1", 42), id="paid-1")
        yield step.run("before", case.body("before"))
        if where == "in a step":
            sent_id = yield step.run("tell", case.app.send, told)
        else:
            sent_id = case.app.send(told)
        yield step.run("after", case.body("after", fails=1))
        return sent_id

    @case.function(on=paid, name="booked")
    def g(event: Event[Payment], step: Any) -> Any:
        yield step.run("book", case.body(event.data))

    run = case.run()
    assert (run.status, run.result) == ("completed", "paid-1"), run.error
    (booked,) = until(lambda: case.app.runs.of_event("paid-1"))
    assert case.ended(booked).status == "completed"
    assert case.ledger.count(Payment("o1", 42)) == 1
    assert [each.id for each in case.app.runs.list(function="booked")] == [booked]
    assert check_invariants(case.app.store) == []
