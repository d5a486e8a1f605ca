"""`step.invoke` and `step.start`: another function as a child, once; how it ends is what the step comes to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import pytest

from flowlib import Event, EventType, NonRetriable, NotFound, PayloadError, StepFailed
from flowlib.testing import check_invariants
from tests.cases.beside import Beside
from tests.cases.case import Case, in_place, only_sync
from tests.patience import until


@dataclass(frozen=True)
class Order:
    id: int
    note: str = ""


ordered = EventType("shop/ordered", Order)


def children(case: Case, function: str) -> list[Any]:
    return case.app.runs.list(function=function)


def test_the_parent_gets_what_its_child_returns_typed_and_both_tell_of_each_other(case: Case) -> None:
    """BEHAVIOURS 67; I3: nothing around it is repeated."""
    seen: list[Any] = []

    @case.function(on=ordered, name="bill")
    def bill(event: Event[Order], step: Any) -> Any:
        seen.append((event.name, event.data))
        yield step.run("count", case.body("count"))
        return Order(event.data.id + 1, "billed")

    @case.function()
    def parent(event: Event[Any], step: Any) -> Any:
        yield step.run("before", case.body("before"))
        found = yield step.invoke("bill", "case/bill", Order(7))
        again = yield step.invoke("bill-again", "bill", {"id": 1})
        yield step.run("after", case.body("after"))
        return [found, again]

    run = case.run()
    assert run.result == [{"id": 8, "note": "billed"}, {"id": 2, "note": "billed"}], run.error
    assert case.ledger == ["before", "count", "count", "after"]
    assert set(seen) == {("flow/invoke", Order(7)), ("flow/invoke", Order(1))}
    found = {child.id: child.parent for child in children(case, "bill")}
    assert found == {step.child: run.id for step in run.steps if step.kind == "invoke"}
    assert [(step.id, step.kind, step.status) for step in run.steps][1] == ("bill", "invoke", "completed")
    assert check_invariants(case.app.store) == []


def test_a_declared_function_is_invoked_by_itself_and_its_value_is_rebuilt(case: Case) -> None:
    """BEHAVIOURS 67; sync from async, and the other way round."""

    @case.app.function(on=ordered)
    async def bill(event: Event[Order], step: Any) -> Order:
        return Order(event.data.id, await step.run("count", case.body("count", "x")))

    @case.function()
    def parent(event: Event[Any], step: Any) -> Any:
        found = yield step.invoke("bill", bill, Order(7))
        return [type(found).__name__, found.note]

    assert case.run().result == ["Order", "x"]


@in_place
def test_the_child_of_a_step_that_still_waits_for_it_is_known(case: Case) -> None:
    """BEHAVIOURS 73, 74: from the moment at which it waits; beside other things as well."""

    @case.function(on="child", name="child")
    def child(event: Event[Any], step: Any) -> Any:
        return (yield step.wait_for_event("go", "go", timeout=60)).id

    @case.function()
    def parent(event: Event[Any], step: Any) -> Any:
        beside = Beside(case, step)
        yield beside.all(beside.invoke("one", "child", {}), beside.run("work", case.body("work")))
        return (yield step.invoke("two", "child", {}))

    run_id = case.send()
    known: set[str] = set()
    for step in ("one", "two"):
        until(lambda: [run.state for run in case.app.runs.list(function="child", status="running")] == ["waiting"])
        (begun,) = case.app.runs.list(function="child", status="running")
        shown = {each.id: (each.status, each.child) for each in case.app.runs.get(run_id).steps}
        assert shown[step] == ("waiting", begun.id)
        assert begun.parent == run_id
        known.add(begun.id)
        case.app.send(Event("go", {}, id=step))
        until(lambda: case.app.runs.get(begun.id).finished)  # noqa: B023 - it is called here and now
    assert case.ended(run_id).result == "two"
    assert {run.id for run in case.app.runs.list(function="child")} == known
    assert check_invariants(case.app.store) == []


@in_place
def test_a_child_that_fails_gives_the_parent_its_type_message_and_traceback(case: Case) -> None:
    """BEHAVIOURS 69."""

    @case.function(on="bill")
    def bill(event: Event[Any], step: Any) -> Any:
        yield step.run("pay", case.body("pay", fails=9, error=NonRetriable("no funds")))

    @case.function()
    def parent(event: Event[Any], step: Any) -> Any:
        try:
            yield step.invoke("bill", "bill", {})
        except StepFailed as failed:
            return [failed.step, failed.type, failed.message, "no funds" in failed.traceback]

    run = case.run()
    assert run.result == ["bill", "NonRetriable", "no funds", True], run.error
    assert [step.status for step in run.steps] == ["failed"]
    assert case.ledger == ["pay"]


@in_place
def test_an_unknown_function_fails_the_step_that_invokes_it_at_once(case: Case) -> None:
    """BEHAVIOURS 71."""

    @case.function()
    def parent(event: Event[Any], step: Any) -> Any:
        for name in ("nowhere/bill", "bill"):
            try:
                yield step.invoke(f"bill in {name}", name, {})
            except StepFailed as failed:
                yield step.run("note", case.body((failed.type, failed.message.partition(" does")[0])))

    run = case.run()
    assert run.status == "completed", run.error
    assert case.ledger == [("NotFound", "function nowhere/bill"), ("NotFound", "function case/bill")]
    assert check_invariants(case.app.store) == []


@in_place
@pytest.mark.parametrize("detached", [False, True])
def test_a_child_that_takes_too_long_is_given_up_and_cancelled_unless_detached(case: Case, detached: bool) -> None:
    """BEHAVIOURS 70."""

    @case.function(on="bill")
    def bill(event: Event[Any], step: Any) -> Any:
        yield step.sleep("nap", 3600)

    @case.function()
    def parent(event: Event[Any], step: Any) -> Any:
        try:
            yield step.invoke("bill", "bill", {}, timeout=timedelta(seconds=0.2), detached=detached)
        except StepFailed as failed:
            return failed.type

    assert case.run().result == "WaitTimeout"
    (child,) = children(case, "bill")
    assert child.status == ("running" if detached else "cancelled")
    assert check_invariants(case.app.store) == []


@in_place
def test_children_are_cancelled_with_their_parents_and_their_children_unless_detached(case: Case) -> None:
    """BEHAVIOURS 97."""

    @case.function(on="leaf")
    def leaf(event: Event[Any], step: Any) -> Any:
        yield step.sleep("nap", 3600)

    @case.function(on="middle")
    def middle(event: Event[Any], step: Any) -> Any:
        yield step.invoke("leaf", "leaf", {}, detached=event.data["detached"])

    @case.function()
    def parent(event: Event[Any], step: Any) -> Any:
        yield step.invoke("middle", "middle", event.data)

    runs = [case.send({"detached": detached}) for detached in (False, True)]
    until(lambda: [leaf.state for leaf in children(case, "leaf")] == ["sleeping"] * 2)
    for run in runs:
        case.app.runs.cancel(run)
    by_parent = {child.parent: child for child in children(case, "middle")}
    assert [by_parent[run].status for run in runs] == ["cancelled"] * 2
    assert runs[0] in by_parent[runs[0]].reason
    leaves = {child.parent: child.status for child in children(case, "leaf")}
    assert [leaves[by_parent[run].id] for run in runs] == ["cancelled", "running"]
    assert check_invariants(case.app.store) == []


@in_place
def test_a_cancelled_child_fails_the_step_and_retrying_the_parent_begins_a_new_one(case: Case) -> None:
    """BEHAVIOURS 72 in kind: the reason is told, and nothing hangs."""

    @case.function(on="bill")
    def bill(event: Event[Any], step: Any) -> Any:
        if len(children(case, "bill")) == 1:
            yield step.sleep("nap", 3600)
        return "paid"

    @case.function()
    def parent(event: Event[Any], step: Any) -> Any:
        return (yield step.invoke("bill", "bill", {}))

    run_id = case.send()
    until(lambda: [child.state for child in children(case, "bill")] == ["sleeping"])
    case.app.runs.cancel(children(case, "bill")[0].id, reason="duplicate")
    run = case.ended(run_id)
    assert run.error is not None
    assert (run.error.type, "duplicate" in run.error.message) == ("RunCancelled", True)
    case.app.runs.retry(run_id)
    assert case.ended(run_id).result == "paid"
    assert sorted(child.status for child in children(case, "bill")) == ["cancelled", "completed"]
    assert check_invariants(case.app.store) == []


@only_sync
def test_what_cannot_be_invoked_is_refused_with_the_reason(case: Case) -> None:
    """I10."""

    @case.app.function(on=ordered)
    def bill(event: Event[Order], step: Any) -> None: ...

    def stranger(event: Event[Order], step: Any) -> None: ...

    @case.function(retries=0)
    def parent(event: Event[Any], step: Any) -> Any:
        function, data = {
            "stranger": (stranger, {}), "type": (bill, {"id": "x"}), "name": ("a/b/c", {}), "object": ("bill", object()),
            "much": ("bill", "x" * 600_000),
        }[event.data["what"]]  # fmt: skip
        step.invoke("bill", function, data)

    for what, type, told in (
        ("stranger", "ConfigError", "not declared"), ("type", "PayloadError", "data.id"),
        ("name", "ConfigError", "no function's name"), ("object", "PayloadError", "cannot be stored"),
        ("much", "PayloadError", "step 'bill': data of 600005 bytes is over the limit of 524288 bytes"),
    ):  # fmt: skip
        error = case.run({"what": what}).error
        assert error is not None
        assert error.type == type
        assert told in error.message
    assert children(case, "bill") == []


@pytest.fixture
def warehouse(case: Case, redis_url: str) -> Iterator[Case]:
    """Another app on the same Redis, with workers of its own."""
    warehouse = Case(case.way, redis_url, "warehouse")
    yield warehouse
    warehouse.close()


def test_another_apps_function_is_invoked_by_name(case: Case, warehouse: Case) -> None:
    """BEHAVIOURS 68: as 67, its output, and a link from each to the other."""

    @warehouse.function(on="pack", name="pack")
    def pack(event: Event[Any], step: Any) -> Any:
        yield step.run("wrap", warehouse.body("wrap"))
        return ["packed", event.data]

    @case.function()
    def parent(event: Event[Any], step: Any) -> Any:
        found = yield step.invoke("pack", "warehouse/pack", {"n": 7})
        yield step.run("after", case.body("after"))
        return found

    warehouse.start()
    run = case.run()
    assert run.result == ["packed", {"n": 7}], run.error
    assert (case.ledger, warehouse.ledger) == (["after"], ["wrap"])
    (child,) = children(warehouse, "pack")
    assert (child.app, child.status, child.parent) == ("warehouse", "completed", run.id)
    assert {step.id: step.child for step in run.steps if step.kind == "invoke"} == {"pack": child.id}
    assert check_invariants(case.app.store) == []


@in_place
def test_what_is_asked_of_an_app_whose_first_worker_died_as_it_began_is_done_by_the_next_one(
    case: Case, warehouse: Case
) -> None:
    """I4, BEHAVIOURS 68: whoever knows of its function is heard by it."""

    @warehouse.function(on="pack", name="pack")
    def pack(event: Event[Any], step: Any) -> Any:
        return (yield step.run("wrap", warehouse.body("wrap", "wrapped")))

    @case.function()
    def parent(event: Event[Any], step: Any) -> Any:
        return (yield step.invoke("pack", "warehouse/pack", {}))

    case.start()
    until(lambda: case.app.store.client.exists(case.app.store.keys.events))
    case.app.store.register_app("warehouse", warehouse.app.functions, "the dead one")
    run = case.send()
    until(lambda: [step.child for step in case.app.runs.get(run).steps] != [])
    warehouse.start()
    assert case.ended(run).result == "wrapped"
    assert check_invariants(case.app.store) == []


@in_place
def test_a_child_in_another_app_that_fails_is_raised_in_its_parent(case: Case, warehouse: Case) -> None:
    """BEHAVIOURS 68: as 69."""

    @warehouse.function(on="pack", name="pack", retries=0)
    def pack(event: Event[Any], step: Any) -> Any:
        yield step.run("wrap", warehouse.body("wrap", fails=9, error=ValueError("no box")))

    @case.function()
    def parent(event: Event[Any], step: Any) -> Any:
        try:
            yield step.invoke("pack", "warehouse/pack", {})
        except StepFailed as failed:
            return [failed.step, failed.type, failed.message, "no box" in failed.traceback]

    warehouse.start()
    run = case.run()
    assert run.result == ["pack", "ValueError", "no box", True], run.error
    assert [(step.id, step.status) for step in run.steps] == [("pack", "failed")]
    (child,) = children(warehouse, "pack")
    assert (child.status, child.parent) == ("failed", run.id)
    assert warehouse.ledger == ["wrap"]
    assert check_invariants(case.app.store) == []


@in_place
def test_a_child_in_another_app_is_cancelled_with_its_parent_unless_detached(case: Case, warehouse: Case) -> None:
    """BEHAVIOURS 68: as 97."""

    @warehouse.function(on="pack", name="pack")
    def pack(event: Event[Any], step: Any) -> Any:
        yield step.sleep("nap", 3600)

    @case.function()
    def parent(event: Event[Any], step: Any) -> Any:
        yield step.invoke("pack", "warehouse/pack", {}, detached=event.data["detached"])

    warehouse.start()
    runs = [case.send({"detached": detached}) for detached in (False, True)]
    until(lambda: [child.state for child in children(warehouse, "pack")] == ["sleeping"] * 2)
    for run in runs:
        case.app.runs.cancel(run)
    by_parent = {child.parent: child for child in children(warehouse, "pack")}
    assert [by_parent[run].status for run in runs] == ["cancelled", "running"]
    assert runs[0] in by_parent[runs[0]].reason
    assert check_invariants(case.app.store) == []


@in_place
def test_a_producer_calls_a_function_and_waits_for_what_it_returns(case: Case) -> None:
    """Typed by the function, also asked for before it has begun."""

    @case.app.function(on=ordered)
    def bill(event: Event[Order], step: Any) -> Order:
        return Order(event.data.id + 1)

    case.start()
    called = case.app.call(bill, Order(1))
    assert called.result(timeout=20) == Order(2)
    assert asyncio.run(case.app.call("bill", {"id": 2}).result_async(20)) == Order(3)
    assert case.app.runs.get(called.run_id).parent == ""
    with pytest.raises(NotFound, match="nowhere/bill"):
        case.app.call("nowhere/bill").result(timeout=20)
    with pytest.raises(PayloadError, match=r"data\.id"):
        case.app.call(cast(Any, bill), {"id": "x"})
    with pytest.raises(PayloadError, match="data of 600005 bytes is over the limit"):
        case.app.call("bill", "x" * 600_000)
    assert check_invariants(case.app.store) == []
