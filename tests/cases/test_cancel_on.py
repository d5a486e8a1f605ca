"""Events that cancel the runs that they match, whatever those are doing, and only those."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from flowlib import ConfigError, Event, EventType, NonRetriable, matching, run_failed
from flowlib.dispatch import Dispatcher
from flowlib.testing import check_invariants
from tests.cases.case import Case, in_place, only_sync
from tests.cases.test_cancel import nothing_is_left
from tests.patience import until


@dataclass(frozen=True)
class Order:
    id: int
    customer: str = ""


@dataclass(frozen=True)
class Refusal:
    order: int


ordered, refused = EventType("order.placed", Order), EventType("order.refused", Refusal)


def sleeps(case: Case, **settings: Any) -> None:
    @case.function(on=ordered, **settings)
    def f(event: Event[Order], step: Any) -> Any:
        yield step.run("before", case.body("before"))
        yield step.sleep("nap", 0.5 if event.data.customer == "short" else 3600)
        yield step.run("after", case.body("after"))


def asleep(case: Case, *runs: str) -> None:
    until(lambda: {case.app.runs.get(run).state for run in runs} == {"sleeping"})


@in_place
def test_an_event_cancels_the_runs_that_it_matches_and_no_other(case: Case) -> None:
    """BEHAVIOURS 94, 95."""
    sleeps(case, cancel_on=matching(refused, {"order": "id"}))
    runs = [case.send(event=ordered(Order(n))) for n in (1, 1, 2)]
    short = case.send(event=ordered(Order(3, "short")))
    asleep(case, *runs)
    case.app.send([refused(Refusal(9), id="none"), refused(Refusal(1), id="no-1")])
    ended = [case.ended(run) for run in runs[:2]]
    assert [(run.status, run.reason) for run in ended] == [("cancelled", "event order.refused (no-1)")] * 2
    assert case.ended(short).status == "completed"
    assert case.app.runs.get(runs[2]).status == "running"
    assert case.ledger == ["before"] * 4 + ["after"]
    assert check_invariants(case.app.store) == []
    case.app.runs.cancel(runs[2])
    nothing_is_left(case)
    assert list(case.app.store.client.scan_iter("flow:*:case:order*")) == []


@only_sync
def test_events_that_must_come_again_are_settled_beside_a_run_that_they_may_cancel(case: Case) -> None:
    """I5, I7: in one batch, one that waits are matched by in a way that is new, a run that it may cancel, and one more."""

    @case.function(on="waiting")
    def waiter(event: Event[Any], step: Any) -> Any:
        return (yield step.wait_for_event("refusal", refused, match={"order": event.data["order"]})).id

    sleeps(case, cancel_on=matching(refused, {"order": "id"}))
    waiting = case.send(event=Event("waiting", {"order": 7}))
    until(lambda: case.app.runs.get(waiting).state == "waiting")
    _, placed, _ = case.app.send([refused(Refusal(1)), ordered(Order(7)), refused(Refusal(7), id="last")])
    assert case.ended(waiting).result == "last"
    (run,) = until(lambda: case.app.runs.of_event(placed))
    assert case.ended(run).reason == "event order.refused (last)"
    assert check_invariants(case.app.store) == []


@in_place
def test_without_fields_each_such_event_cancels_all_runs_of_the_function(case: Case) -> None:
    """BEHAVIOURS 94; the body of one that is running is interrupted."""
    sleeps(case, cancel_on=["closed", refused], run_timeout=3600)

    @case.function(on="other")
    def other(event: Event[Any], step: Any) -> Any:
        yield step.sleep("nap", 0.4)

    runs = [case.send(event=ordered(Order(n))) for n in range(3)]
    untouched = case.send(event=Event("other", {}))
    asleep(case, *runs)
    case.app.send(Event("closed", {}))
    assert {case.ended(run).status for run in runs} == {"cancelled"}
    assert case.ended(untouched).status == "completed"
    assert check_invariants(case.app.store) == []


@only_sync
def test_an_event_counts_from_that_of_the_run_on_whoever_is_settled_first(case: Case) -> None:
    """BEHAVIOURS 94: there are many dispatchers, and none knows what the others are at."""
    sleeps(case, cancel_on=matching(refused, {"order": "id"}))
    store = case.app.store
    store.join_events("case")
    case.app.send([refused(Refusal(1), id="early"), ordered(Order(1), id="first"), refused(Refusal(2), id="late")])
    case.app.send([ordered(Order(2), id="second"), ordered(Order(1), id="third"), refused(Refusal(1), id="later")])
    dispatcher = Dispatcher("case", case.app.functions, "nowhere:app", store, "anna", idle_ms=0)
    entries = dispatcher.fresh()
    dispatcher.dispatch([entry for entry in entries if entry[1][b"name"] == b"order.refused"])
    dispatcher.dispatch([entry for entry in entries if entry[1][b"name"] == b"order.placed"])
    ended = {run.event.id: run.reason for run in case.app.runs.list()}
    assert ended == {"first": "event order.refused (later)", "second": "", "third": "event order.refused (later)"}
    assert check_invariants(store) == []
    dispatcher.dispatch(entries)  # as if nobody had heard that they are settled
    assert len(case.app.runs.list()) == 3
    assert check_invariants(store) == []


@only_sync
def test_who_is_overtaken_by_more_events_than_are_looked_at_at_once_begins_all_the_same(case: Case) -> None:
    """I5, BEHAVIOURS 94: the one that cancels is followed by thousands, others of its kind among them, and those settled."""
    sleeps(case, cancel_on=[matching(refused, {"order": "id"}), matching("over", "customer")])

    @case.function(on=ordered, name="other", cancel_on=matching(refused, {"order": "id"}))
    def other(event: Event[Order], step: Any) -> Any:
        yield step.sleep("nap", 3600)

    store = case.app.store
    store.join_events("case")
    case.app.send([ordered(Order(1, "ada"), id="first"), ordered(Order(2, "bob"), id="second")])
    case.app.send([refused(Refusal(1), id="hit"), *(Event("noise", {}) for _ in range(2500)), refused(Refusal(9))])
    case.app.send([Event("over", {"customer": "bob"}, id="over"), *(refused(Refusal(8)) for _ in range(1200))])
    slow, quick = (
        Dispatcher("case", case.app.functions, "nowhere:app", store, name, idle_ms=3_600_000)
        for name in ("anna", "bert")
    )
    entries = slow.fresh()
    held = [entry for entry in entries if entry[1][b"name"] == b"order.placed"]
    slow.dispatch([entry for entry in entries if entry not in held])
    while more := quick.fresh():
        quick.dispatch(more)
    assert len(slow.dispatch(held)) == 4
    ended = {(run.event.id, run.function): run.reason for run in case.app.runs.list()}
    assert ended == {
        ("first", "f"): "event order.refused (hit)",
        ("first", "other"): "event order.refused (hit)",
        ("second", "f"): "event over (over)",
        ("second", "other"): "",
    }
    assert check_invariants(store) == []


@only_sync
def test_one_event_cancels_more_runs_than_fit_into_one_script(case: Case) -> None:
    sleeps(case, cancel_on=matching("over", "customer"))
    store = case.app.store
    store.join_events("case")
    orders = [ordered(Order(n, "ada")) for n in range(151)]
    case.app.send([*orders[:150], Event("over", {"customer": "ada"}), orders[150]])
    dispatcher = Dispatcher("case", case.app.functions, "nowhere:app", store, "anna", idle_ms=0)
    while entries := dispatcher.fresh():
        dispatcher.dispatch(entries)
    statuses = [run.status for run in case.app.runs.list(limit=200)]
    assert (statuses.count("cancelled"), statuses.count("running")) == (150, 1)
    assert check_invariants(store) == []


@in_place
def test_one_event_cancels_a_run_and_its_child_each_once(case: Case) -> None:
    """I6, I7: the child ends with its parent, and is found by the event, too."""
    settings = {"cancel_on": matching("stop", "order")}

    @case.function(on="parent", **settings)
    def parent(event: Event[Any], step: Any) -> Any:
        yield step.invoke("child", "case/child", event.data)

    @case.function(on="child", **settings)
    def child(event: Event[Any], step: Any) -> Any:
        yield step.sleep("nap", 3600)

    run = case.send(event=Event("parent", {"order": 7}))
    (child_run,) = until(lambda: [run.id for run in case.app.runs.list(function="child")])
    asleep(case, child_run)
    case.app.send(Event("stop", {"order": 7}))
    for each in (run, child_run):
        case.ended(each)
        assert [entry.kind for entry in case.app.runs.history(each)].count("cancelled") == 1
    assert case.app.runs.get(run).reason.startswith("event stop")
    nothing_is_left(case)


@only_sync
def test_one_event_wakes_as_many_as_fit_into_one_script_and_cancels_one_more(case: Case) -> None:
    sleeps(case, cancel_on=matching("over", "customer"))

    @case.function(on="waiting")
    def waiter(event: Event[Any], step: Any) -> Any:
        return (yield step.wait_for_event("over", "over", match={"customer": "ada"})).id

    waiting = [case.send(event=Event("waiting", {})) for _ in range(100)]
    doomed = case.send(event=ordered(Order(1, "ada")))
    until(lambda: {run.state for run in case.app.runs.list(limit=200)} == {"waiting", "sleeping"})
    case.app.send(Event("over", {"customer": "ada"}, id="the end"))
    assert case.ended(doomed).reason == "event over (the end)"
    assert {case.ended(run).result for run in waiting} == {"the end"}
    assert check_invariants(case.app.store) == []


@only_sync
def test_of_one_millisecond_those_before_the_event_are_cancelled_and_those_after_it_are_not(case: Case) -> None:
    """All that is sent at once has one millisecond; and another dispatcher may have begun what comes after the event."""
    sleeps(case, cancel_on="over")
    store = case.app.store
    store.join_events("case")
    orders = [ordered(Order(n), id=f"order-{n}") for n in range(310)]
    case.app.send([*orders[:10], Event("over", {}), *orders[10:]])
    dispatcher = Dispatcher("case", case.app.functions, "nowhere:app", store, "anna", idle_ms=3_600_000)
    entries = [entry for _ in range(4) for entry in dispatcher.fresh()]
    assert len({entry.partition(b"-")[0] for entry, _ in entries}) == 1
    dispatcher.dispatch([entry for entry in entries if entry[1][b"name"] == b"order.placed"])
    dispatcher.dispatch([entry for entry in entries if entry[1][b"name"] == b"over"])
    ended = {run.event.id for run in case.app.runs.list(limit=400) if run.status == "cancelled"}
    assert ended == {f"order-{n}" for n in range(10)}
    assert check_invariants(store) == []


@only_sync
def test_a_run_whose_event_lacks_the_field_is_not_cancelled(case: Case) -> None:
    """As BEHAVIOURS 116 has it for all controls."""

    @case.function(cancel_on=matching("stop", "user.id"))
    def f(event: Event[Any], step: Any) -> Any:
        yield step.sleep("nap", 3600)

    runs = [
        case.send(data) for data in ({"user": {"id": 1}}, {"user": {"id": None}}, {"user": 7}, {"user": {"id": "1"}})
    ]
    asleep(case, *runs)
    case.app.send([Event("stop", {"user": {"id": None}}), Event("stop", {}), Event("stop", {"user": {"id": 1}})])
    assert case.ended(runs[0]).status == "cancelled"
    assert [case.app.runs.get(run).status for run in runs[1:]] == ["running"] * 3


WRONG: list[tuple[Any, str]] = [
    (7, "function 'f': cancel_on= takes events and matching(event, fields), got 7"),
    ([""], "function 'f': cancel_on: event name ''"),
    ("flow/invoke", "function 'f': cancel_on: event name 'flow/invoke': of flowlib's own events only the ends of runs"),
    ("order/*", "function 'f': cancel_on: event name 'order/*': all events of a noun can only start functions"),
    (matching("x", [""]), "function 'f': cancel_on: matching takes names of fields"),
    (matching(refused, "id"), "function 'f': cancel_on: match: Refusal has no field 'id' of 'id': it has order"),
    (
        matching(refused, "order"),
        "function 'f': cancel_on: match: Order has no field 'order' of 'order': it has customer, id",
    ),
]


@pytest.mark.parametrize(("cancel_on", "said"), WRONG, ids=str)
@only_sync
def test_what_can_never_match_is_refused(case: Case, cancel_on: Any, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        case.app.function(on=ordered, name="f", cancel_on=cancel_on)(lambda event, step: None)
    assert str(error.value).startswith(said)


@only_sync
def test_a_run_that_is_retried_is_cancelled_by_what_comes_from_then_on_and_others_are_still_found(case: Case) -> None:
    """BEHAVIOURS 94. Ended, retried and ended again, it is forgotten once each time, and not for others."""

    @case.function(on=ordered, retries=0, cancel_on=matching(refused, {"order": "id"}))
    def f(event: Event[Order], step: Any) -> Any:
        if event.data.customer == "fails":
            yield step.run("work", case.body("work", fails=1))
        if event.data.customer != "fails" or event.data.id == 2:
            yield step.sleep("nap", 3600)

    untouched = case.send(event=ordered(Order(9)))
    asleep(case, untouched)
    for number in (1, 2):
        case.ledger.clear()
        run = case.run(event=ordered(Order(number, "fails")))
        assert run.status == "failed"
        case.app.runs.retry(run.id)
        if number == 1:
            assert case.ended(run.id).status == "completed"
        else:
            asleep(case, run.id)
            case.app.send(refused(Refusal(2), id="no"))
            ended = case.ended(run.id)
            assert (ended.status, ended.reason) == ("cancelled", "event order.refused (no)")
        assert check_invariants(case.app.store) == []
    case.app.send(refused(Refusal(9)))
    assert case.ended(untouched).status == "cancelled"


@only_sync
def test_how_another_run_has_ended_cancels_too(case: Case) -> None:
    """It is told, though no function is on it."""

    @case.function(on="other", retries=0)
    def other(event: Event[Any], step: Any) -> Any:
        raise NonRetriable("no")

    @case.function(cancel_on=matching(run_failed, {"function": "function"}))
    def f(event: Event[Any], step: Any) -> Any:
        yield step.sleep("nap", 3600)

    run = case.send({"function": "other"})
    asleep(case, run)
    failed = case.run(event=Event("other", {}))
    assert case.ended(run).reason.startswith(f"event flow/run.failed ({failed.id}.failed.")


@only_sync
def test_a_run_whose_record_is_gone_holds_no_event_up(case: Case) -> None:
    """Somebody has deleted it by hand."""
    sleeps(case, cancel_on=refused)
    run = case.send(event=ordered(Order(1)))
    asleep(case, run)
    case.app.store.client.delete(case.app.store.keys.run(run))
    case.app.send(refused(Refusal(1)))
    assert case.run(event=ordered(Order(2, "short"))).status == "completed"
