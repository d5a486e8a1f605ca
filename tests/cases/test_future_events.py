"""Events that lie ahead: their runs start then, by Redis' clock, and are there before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from flowlib import Event
from flowlib.testing import check_invariants
from tests.cases.case import Case, in_place, only_sync
from tests.cases.test_cancel import nothing_is_left
from tests.patience import until


def ahead(**time: float) -> datetime:
    return datetime.now(UTC) + timedelta(**time)


@in_place
def test_runs_of_an_event_that_lies_ahead_start_then_and_once(case: Case) -> None:
    """DESIGN §3: an event's ts is when it happens."""

    @case.function(start_timeout=30, run_timeout=30)
    def f(event: Event[Any], step: Any) -> Any:
        case.ledger.append(datetime.now(UTC))
        yield step.run("a", case.body("a"))
        return event.ts

    when = ahead(seconds=0.5)
    run = case.send(event=Event("test", {}, id="later", ts=when))
    case.app.send(Event("test", {}, id="later", ts=when))
    assert case.app.runs.get(run).state == "sleeping"
    assert check_invariants(case.app.store) == []
    ended = case.ended(run)
    assert abs(ended.result - when) < timedelta(milliseconds=2)
    assert case.ledger[0] >= ended.result
    assert case.ledger.count("a") == 1
    assert [each.id for each in case.app.runs.list()] == [run]
    nothing_is_left(case)


@only_sync
def test_until_then_it_can_be_cancelled_and_its_bounds_do_not_count(case: Case) -> None:
    """BEHAVIOURS 98, 99."""

    @case.function(start_timeout=0.2, run_timeout=0.2, cancel_on="never mind")
    def f(event: Event[Any], step: Any) -> Any:
        case.ledger.append("f")

    runs = [case.send(event=Event("test", {}, ts=ahead(days=400 * n))) for n in (1, 2)]
    late = case.send(event=Event("test", {}, ts=ahead(seconds=0.4)))
    assert case.ended(late).status == "completed"
    assert [case.app.runs.get(run).state for run in runs] == ["sleeping"] * 2
    case.app.runs.cancel(runs[0])
    case.app.send(Event("never mind", {}))
    assert case.ended(runs[1]).status == "cancelled"
    assert case.ledger == ["f"]
    nothing_is_left(case)
    assert check_invariants(case.app.store) == []


@only_sync
def test_a_time_that_is_past_is_no_reason_to_wait(case: Case) -> None:
    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        case.ledger.append("f")

    run = case.send(event=Event("test", {}, ts=ahead(days=-1)))
    assert case.ended(run).status == "completed"
    until(lambda: case.ledger == ["f"])
