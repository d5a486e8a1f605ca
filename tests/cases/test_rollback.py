"""What a run has registered to undo its steps: done when it fails or is cancelled, the newest first, each as a step of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from flowlib import Ending, Event, NonRetriable, NotFound, RunEnded, RunNotFailed
from flowlib.dispatch import Dispatcher
from flowlib.testing import check_invariants
from tests.cases.case import Case, in_place, only_async, only_sync
from tests.cases.test_cancel import nothing_is_left
from tests.patience import until


def journey(case: Case, then: Callable[[Any], Any], **settings: Any) -> None:
    """Three bookings, each with what undoes it, and then this."""

    def refund(what: str, paid: int) -> None:
        case.ledger.append(f"undo {what} {paid}")

    @case.function(retries=0, **settings)
    def f(event: Event[Any], step: Any) -> Any:
        for n, what in enumerate(("flight", "hotel", "car")):
            paid = yield step.run(f"book {what}", case.body(what, n))
            step.on_rollback(refund, what, paid=paid)
        yield then(step)
        return "booked"


BOOKED = ["flight", "hotel", "car"]
UNDONE = ["undo car 2", "undo hotel 1", "undo flight 0"]


def test_a_run_that_fails_undoes_its_steps_the_newest_first_and_fails_with_its_own_error(case: Case) -> None:
    """DESIGN §3; the undo of a step is a step."""

    def handler(event: Event[Ending], step: Any) -> None:
        case.ledger.append(event.data.error and event.data.error.message)

    journey(case, lambda step: step.run("pay", case.body("pay", fails=1)), on_failure=handler)
    run = case.run()
    assert (run.status, run.error and run.error.step, run.error and run.error.message) == (
        "failed",
        "pay",
        "pay failed",
    )
    until(lambda: case.ledger[-1] == "pay failed")
    assert case.ledger[:-1] == [*BOOKED, "pay", *UNDONE]
    assert [step.id for step in run.steps][4:] == ["undo refund #3", "undo refund #2", "undo refund"]
    assert {step.status for step in run.steps if step.id != "pay"} == {"completed"}
    assert check_invariants(case.app.store) == []


def test_an_error_between_steps_that_is_gone_on_the_next_call_does_not_stop_the_undoing(case: Case) -> None:
    tries: list[int] = []

    def fail_once(step: Any) -> Any:
        tries.append(1)
        if len(tries) <= 3:
            raise ValueError("odd")
        return step.run("pay", case.body("pay"))

    journey(case, fail_once)
    run = case.run()
    assert (run.status, run.error and run.error.message) == ("failed", "odd")
    assert case.ledger == [*BOOKED, *UNDONE]


def test_a_run_that_undoes_its_steps_has_no_time_limits_any_more(case: Case) -> None:
    """I4: nothing of them is left, neither as a timer nor in its record."""

    def look() -> None:
        case.ledger.append(check_invariants(case.app.store))

    @case.function(retries=0, run_timeout=60)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("book", case.body("book"))
        step.on_rollback(look)
        yield step.run("pay", case.body("pay", fails=1))

    assert case.run().status == "failed"
    assert case.ledger == ["book", "pay", []]


@only_sync
def test_a_run_whose_steps_are_undone_is_not_retried_from_where_it_failed(case: Case) -> None:
    journey(case, lambda step: step.run("pay", case.body("pay", fails=1)))
    run = case.run()
    with pytest.raises(RunNotFailed, match=f"it is undone: `flow replay {run.id}` makes a new run of its event"):
        case.app.runs.retry(run.id)
    again = case.ended(case.app.runs.replay(run.id))
    assert (again.status, case.ledger.count("flight")) == ("completed", 2)


@pytest.mark.parametrize("what", ["sleep", "wait", "body", "timeout"])
@in_place
def test_a_run_that_is_cancelled_undoes_its_steps_before_it_is_over(case: Case, what: str) -> None:
    """BEHAVIOURS 97, 98: whatever it is doing then."""

    def work() -> None:
        case.ledger.append("work")
        until(lambda: False)

    async def work_async() -> None:
        case.ledger.append("work")
        await asyncio.sleep(60)

    ways: dict[str, Callable[[Any], Any]] = {
        "sleep": lambda step: step.sleep("nap", 3600),
        "wait": lambda step: step.wait_for_event("answer", "answered"),
        "body": lambda step: step.run("work", work_async if case.way.is_async else work),
        "timeout": lambda step: step.sleep("nap", 3600),
    }
    journey(case, ways[what], run_timeout=0.6 if what == "timeout" else None)
    run = case.send()
    until(lambda: case.ledger[-1:] == ["work"] or case.app.runs.get(run).state in ("sleeping", "waiting"))
    if what != "timeout":
        case.app.runs.cancel(run, "not wanted")
    ended = case.ended(run)
    reason = "run timeout: it had not ended after 0.6 s" if what == "timeout" else "not wanted"
    assert (ended.status, ended.reason, ended.error) == ("cancelled", reason, None)
    assert [line for line in case.ledger if line != "work"] == [*BOOKED, *UNDONE]
    nothing_is_left(case)
    assert check_invariants(case.app.store) == []


@only_sync
def test_an_undo_has_retries_and_one_that_fails_for_good_keeps_no_other_from_being_done(case: Case) -> None:
    @case.function(retries=1)
    def f(event: Event[Any], step: Any) -> Any:
        step.on_rollback(case.body("first"))
        step.options(retries=3).on_rollback(case.body("second", fails=3))
        step.on_rollback(case.body("third", fails=9))
        raise NonRetriable("no")

    run = case.run()
    assert (run.status, run.error and run.error.message) == ("failed", "no")
    assert case.ledger == ["third"] * 2 + ["second"] * 4 + ["first"]
    assert [(step.id, step.status) for step in run.steps] == [
        ("undo body #3", "failed"), ("undo body #2", "completed"), ("undo body", "completed"),
    ]  # fmt: skip


@only_sync
def test_a_run_that_undoes_cannot_be_cancelled_and_says_why_it_does(case: Case) -> None:
    """BEHAVIOURS 101."""
    journey(case, lambda step: step.sleep("nap", 3600))
    run = case.send()
    until(lambda: case.app.runs.get(run).state == "sleeping")
    case.app.store.client.set(case.app.store.keys.rq_suspended, 1)
    case.app.runs.cancel(run, "not wanted")
    assert (case.app.runs.get(run).status, case.app.runs.get(run).reason) == ("running", "not wanted")
    assert check_invariants(case.app.store) == []
    with pytest.raises(RunEnded, match="undoing"):
        case.app.runs.cancel(run)
    case.app.store.client.delete(case.app.store.keys.rq_suspended)
    assert case.ended(run).status == "cancelled"
    assert case.ledger == [*BOOKED, *UNDONE]


@only_sync
def test_what_completes_undoes_nothing_and_what_has_nothing_to_undo_ends_at_once(case: Case) -> None:
    journey(case, lambda step: step.run("pay", case.body("pay")))
    assert case.run().status == "completed"
    assert case.ledger == [*BOOKED, "pay"]
    case.app.store.client.set(case.app.store.keys.rq_suspended, 1)
    fresh = case.send()
    case.app.runs.cancel(fresh)
    assert case.app.runs.get(fresh).status == "cancelled"


@only_sync
def test_a_step_recorded_by_a_worker_that_died_before_it_registered_its_undo_is_undone(case: Case) -> None:
    """I3: the function says what it registers, and a replay tells."""

    @case.app.function(on="test", backoff=3600)
    def f(event: Event[Any], step: Any) -> None:
        step.run("book", case.body("book"))
        if not case.ledger[1:]:
            case.ledger.append("gone")
            raise OSError("as if the worker had died here")
        step.on_rollback(case.body("undo"))
        step.sleep("nap", 3600)

    run = case.send()
    until(lambda: case.app.runs.get(run).state == "retrying")
    case.app.runs.cancel(run)
    assert case.ended(run).status == "cancelled"
    assert case.ledger == ["book", "gone", "undo"]


@pytest.mark.parametrize("how", ["fails", "cancelled"])
@only_sync
def test_steps_side_by_side_are_undone_as_far_as_they_are_recorded(case: Case, how: str) -> None:
    """The one that is still at work is interrupted, and none goes on beside the undoing."""

    def slow() -> None:
        case.ledger.append("slow")
        until(lambda: False)

    def once_slow_is_on() -> int:
        until(lambda: "slow" in case.ledger)
        case.ledger.append("first")
        return 1

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        first, beside = step.submit("first", once_slow_is_on), step.submit("beside", slow)
        step.on_rollback(case.body(f"undo {first.result()}"))
        if how == "fails":
            raise NonRetriable("no")
        beside.result()

    case.start()
    case.start()
    run = case.send()
    if how == "cancelled":
        until(lambda: set(case.ledger) == {"first", "slow"} and "first" in case.app.runs.outputs(run))
        case.app.runs.cancel(run)
    ended = case.ended(run)
    assert ended.status == ("failed" if how == "fails" else "cancelled")
    assert sorted(case.ledger) == ["first", "slow", "undo 1"]
    nothing_is_left(case)
    assert check_invariants(case.app.store) == []


def test_an_error_on_the_way_back_is_tried_again_so_that_nothing_is_left_undone(case: Case) -> None:
    """The function is called again to learn what it registers: what it does between its steps may fail for a moment."""
    faults: list[int] = []

    def refund(what: str) -> None:
        case.ledger.append(f"undo {what}")

    @case.function(retries=2)
    def f(event: Event[Any], step: Any) -> Any:
        for what in ("flight", "hotel"):
            yield step.run(what, case.body(what))
            step.on_rollback(refund, what)
            if faults:
                faults.pop()
                raise OSError("the settings cannot be read")
        yield step.sleep("nap", 3600)

    run = case.send()
    until(lambda: case.app.runs.get(run).state == "sleeping")
    faults += [1, 1]
    case.app.runs.cancel(run, "not wanted")
    ended = case.ended(run)
    assert (ended.status, ended.reason, faults) == ("cancelled", "not wanted", [])
    assert case.ledger == ["flight", "hotel", "undo hotel", "undo flight"]
    assert check_invariants(case.app.store) == []


@only_sync
def test_an_error_on_the_way_back_that_does_not_go_away_leaves_undone_what_is_behind_it_and_says_so(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    faults: list[int] = []

    @case.function(retries=1)
    def f(event: Event[Any], step: Any) -> Any:
        step.on_rollback(case.body("undo first"))
        if faults:
            raise OSError("the settings cannot be read")
        step.on_rollback(case.body("undo second"))
        step.sleep("nap", 3600)

    run = case.send()
    until(lambda: case.app.runs.get(run).state == "sleeping")
    faults.append(1)
    case.app.runs.cancel(run)
    assert case.ended(run).status == "cancelled"
    assert case.ledger == ["undo first"]
    assert f"run {run}: 1 steps are not undone" in caplog.text


@only_sync
def test_a_step_that_the_function_has_named_as_we_do_keeps_nothing_from_being_undone(case: Case) -> None:
    def refund() -> None:
        case.ledger.append("refund")

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        step.on_rollback(case.body("first"))
        step.on_rollback(refund)
        step.run("undo refund", case.body("its own"))
        raise NonRetriable("no")

    run = case.run()
    assert (run.error and run.error.message, case.ledger) == ("no", ["its own", "refund", "first"])
    assert [step.id for step in run.steps][1:] == ["undo refund (rollback)", "undo body"]


@only_sync
def test_what_a_step_has_used_up_before_its_run_failed_is_not_counted_against_its_undoing(case: Case) -> None:
    """BEHAVIOURS 37: a step whose worker was lost again and again fails; what the run had done is undone all the same."""

    def dies() -> None:
        run = case.app.runs.list()[0].id
        case.app.store.client.hset(case.app.store.keys.rq_job(f"{run}-pay"), "flow_losses", 9)
        raise NonRetriable("lost")

    journey(case, lambda step: step.run("pay", dies))
    run = case.run()
    assert (run.error and run.error.message, case.ledger) == ("lost", [*BOOKED, *UNDONE])


@only_sync
def test_a_child_that_undoes_is_not_disturbed_by_the_cancel_of_its_parent(case: Case) -> None:
    """BEHAVIOURS 97; I3."""

    def undo() -> None:
        case.ledger.append("undo")
        until(lambda: "cancelled" in case.ledger)
        case.ledger.append("undone")

    @case.function(on="child", name="child", retries=0)
    def child(event: Event[Any], step: Any) -> Any:
        step.on_rollback(undo)
        raise NonRetriable("no")

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        step.invoke("child", "child", {})

    case.start()
    run = case.send()
    until(lambda: case.ledger == ["undo"])
    case.app.runs.cancel(run)
    case.ledger.append("cancelled")
    (found,) = case.app.runs.list(function="child")
    ended = case.ended(found.id)
    assert (ended.status, ended.error and ended.error.message) == ("failed", "no")
    assert case.ledger == ["undo", "cancelled", "undone"]
    assert check_invariants(case.app.store) == []


@only_sync
def test_a_replay_of_a_run_that_was_undone_keeps_nothing_of_it_and_can_be_undone_as_it_could(case: Case) -> None:
    """BEHAVIOURS 139."""
    going = False

    def then(step: Any) -> Any:
        return step.sleep("nap", 3600) if going else step.run("pay", case.body("pay", fails=1))

    journey(case, then, cancel_on="withdrawn")
    run = case.run()
    assert case.ledger == [*BOOKED, "pay", *UNDONE]
    with pytest.raises(NotFound, match=f"run {run.id} has undone what it did before step 'pay'"):
        case.app.runs.replay(run.id, from_step="pay")
    going = True
    case.ledger.clear()
    again = case.app.runs.replay(run.id)
    until(lambda: case.app.runs.get(again).state == "sleeping")
    case.app.send(Event("withdrawn", {}))
    assert (case.ended(again).status, case.ledger) == ("cancelled", [*BOOKED, *UNDONE])
    assert check_invariants(case.app.store) == []
    for each in (run.id, again):
        assert case.app.store.client.hget(case.app.store.keys.run(each), "undoes") == b"1"


@only_async
def test_what_was_recorded_beside_a_value_that_nobody_has_asked_for_yet_is_undone(case: Case) -> None:
    """Two events have come, nobody was there to see them, and the run is cancelled."""

    @case.app.function(on="test")
    async def f(event: Event[Any], step: Any) -> None:
        async def first() -> str:
            await step.wait_for_event("a", "a", timeout=3600)
            return str(step.now())

        async def second() -> None:
            await step.wait_for_event("b", "b", timeout=3600)
            step.on_rollback(case.body("undone"))

        await asyncio.gather(first(), second())
        await step.sleep("night", 3600)

    run_id = case.send()
    until(lambda: {s.status for s in case.app.runs.get(run_id).steps} == {"waiting"})
    until(lambda: len(case.app.runs.get(run_id).steps) == 2)
    for worker, _ in case._workers:
        worker.stop()
    case.join()
    case.app.send([Event("a", {}), Event("b", {})])
    store = case.app.store
    dispatcher = Dispatcher("case", case.app.functions, "nowhere:app", store, "tests", idle_ms=0)
    dispatcher.dispatch(dispatcher.fresh())
    case.app.runs.cancel(run_id)
    case.start()
    assert case.ended(run_id).status == "cancelled"
    assert case.ledger == ["undone"]
    assert check_invariants(store) == []
