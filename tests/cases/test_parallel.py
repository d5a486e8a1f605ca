"""Steps side by side: submit, map, gather, first, timers and expected events."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from flowlib import Event, Step, StepFailed
from flowlib.testing import check_invariants
from flowlib.worker.housekeeping import Housekeeper
from tests.cases.case import Case, only_sync
from tests.patience import until

pytestmark = only_sync


def crew(case: Case, count: int = 3) -> None:
    for _ in range(count):
        case.start()


class Meeting:
    """Bodies that go on only when so many are there at once: proof that they run side by side."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count)

    def body(self, returns: Any) -> Any:
        self._barrier.wait(timeout=20)
        return returns


def test_submitted_steps_run_side_by_side_each_once_and_give_their_own_results(case: Case) -> None:
    """BEHAVIOURS 83, 85: the code after them runs once."""
    meeting = Meeting(3)

    def work(n: int) -> int:
        case.ledger.append(n)
        meeting.body(None)
        return n * 10

    @case.function()
    def f(event: Event[Any], step: Step) -> Any:
        futures = [step.submit(f"s{n}", work, n) for n in range(3)]
        found = [future.result() for future in futures]
        total = step.run("after", case.body("after", sum(found)))
        return [found, total]

    crew(case)
    run = case.run()
    assert run.status == "completed", run.error
    assert run.result == [[0, 10, 20], 30]
    assert sorted(case.ledger[:3]) == [0, 1, 2]
    assert case.ledger[3:] == ["after"]
    assert {step.id: step.status for step in run.steps} == dict.fromkeys(["s0", "s1", "s2", "after"], "completed")
    assert check_invariants(case.app.store) == []


def test_one_worker_alone_gets_through(case: Case) -> None:
    """BEHAVIOURS 86: groups one after the other."""

    @case.function()
    def f(event: Event[Any], step: Step) -> Any:
        found = []
        for group in range(3):
            futures = [step.submit(f"{group}-{n}", case.body((group, n), n)) for n in range(3)]
            found.append(step.gather(*futures))
            found.append([step.run(f"then-{group}", case.body(("then", group), group))])
        return found

    crew(case, 1)
    run = case.run()
    assert run.status == "completed", run.error
    assert run.result == [[0, 1, 2], [0], [0, 1, 2], [1], [0, 1, 2], [2]]
    assert len(case.ledger) == len(set(case.ledger)) == 12
    assert check_invariants(case.app.store) == []


def test_a_branch_that_fails_leaves_the_others_running_and_is_raised_where_its_result_is_asked_for(case: Case) -> None:
    meeting = Meeting(2)

    def bad() -> None:
        meeting.body(None)
        raise ValueError("no")

    @case.function(retries=0)
    def f(event: Event[Any], step: Step) -> Any:
        good, wrong = step.submit("good", meeting.body, 7), step.submit("wrong", bad)
        with pytest.raises(StepFailed) as failed:
            wrong.result()
        error = failed.value
        return [good.result(), (error.step, error.type, error.message)]

    crew(case)
    run = case.run()
    assert run.status == "completed", run.error
    assert run.result == [7, ("wrong", "ValueError", "no")]


def test_attempts_of_a_branch_are_its_own(case: Case) -> None:

    @case.function(retries=3)
    def f(event: Event[Any], step: Step) -> Any:
        a, b = step.submit("a", case.body("a", 1, fails=2)), step.submit("b", case.body("b", 2))
        return step.gather(a, b)

    crew(case, 2)
    run = case.run()
    assert run.status == "completed", run.error
    assert run.result == [1, 2]
    assert {step.id: len(step.attempts) for step in run.steps} == {"a": 3, "b": 1}
    assert case.ledger.count("a") == 3
    assert check_invariants(case.app.store) == []


def test_a_function_that_returns_waits_for_what_it_has_submitted(case: Case) -> None:

    @case.function()
    def f(event: Event[Any], step: Step) -> Any:
        step.submit("a", case.body("a"))
        step.submit("b", case.body("b"))
        return "done"

    crew(case, 2)
    run = case.run()
    assert (run.status, run.result) == ("completed", "done")
    assert sorted(case.ledger) == ["a", "b"]


def test_a_map_keeps_the_order_and_its_limit(case: Case) -> None:
    """BEHAVIOURS 84, for maps."""
    lock, now, most = threading.Lock(), [0], [0]

    def work(item: int) -> int:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        case.ledger.append(item)
        with lock:
            now[0] -= 1
        return item * item

    @case.function()
    def f(event: Event[Any], step: Step) -> Any:
        return step.map("square", work, range(40), limit=2)

    crew(case, 4)
    run = case.run()
    assert run.status == "completed", run.error
    assert run.result == [n * n for n in range(40)]
    assert sorted(case.ledger) == list(range(40))
    assert most[0] <= 2
    assert [step.id for step in run.steps][:2] == ["square[0]", "square[1]"]
    assert check_invariants(case.app.store) == []


def test_of_a_race_one_wins_for_good_and_the_loser_is_dropped(case: Case) -> None:
    """BEHAVIOURS 92."""
    slow_is_on, interrupted = threading.Event(), threading.Event()

    def slow() -> None:
        slow_is_on.set()
        try:
            until(lambda: False)
        finally:
            interrupted.set()

    @case.function()
    def f(event: Event[Any], step: Step) -> Any:
        a, b = step.submit("slow", slow), step.submit("quick", slow_is_on.wait, 20)
        won = step.first(a, b)
        return [won is b, won.result(), step.run("after", case.body("after", 1))]

    crew(case)
    run = case.run()
    assert run.status == "completed", run.error
    assert run.result == [True, True, 1]
    assert interrupted.wait(20)
    assert {step.id: step.status for step in run.steps} == {
        "slow": "cancelled",
        "quick": "completed",
        "after": "completed",
    }
    assert check_invariants(case.app.store) == []


@pytest.mark.parametrize("comes", [True, False])
def test_a_wait_beside_a_timer_and_a_step_all_join(case: Case, comes: bool) -> None:
    """BEHAVIOURS 64, 90."""

    @case.function()
    def f(event: Event[Any], step: Step) -> Any:
        answer = step.expect_event("answer", "answered", timeout=20 if comes else 0.05)
        nap, work = step.timer("nap", 0.05), step.submit("work", case.body("work", 5))
        nap.result()
        found = answer.result()
        return [work.result(), None if found is None else found.data["n"]]

    crew(case, 2)
    run_id = case.send()
    if comes:
        until(lambda: any(entry.kind == "waiting" for entry in case.app.runs.history(run_id)))
        case.app.send(Event("answered", {"n": 3}))
    run = case.ended(run_id)
    assert run.status == "completed", run.error
    assert run.result == [5, 3 if comes else None]
    assert check_invariants(case.app.store) == []


def test_a_cancelled_run_leaves_no_branch_behind(case: Case) -> None:
    on = threading.Semaphore(0)

    def long() -> None:
        on.release()
        until(lambda: False)

    @case.function()
    def f(event: Event[Any], step: Step) -> Any:
        futures = [step.submit(f"s{n}", long) for n in range(4)]
        step.timer("nap", 3600)
        step.expect_event("never", "nothing")
        return step.gather(*futures)

    crew(case, 2)
    run_id = case.send()
    for _ in range(2):
        assert on.acquire(timeout=20)
    case.app.runs.cancel(run_id)
    assert case.ended(run_id).status == "cancelled"
    until(lambda: check_invariants(case.app.store) == [])
    left = [key.decode() for key in case.app.store.client.scan_iter("*") if b":branch:" in key or b":open:" in key]
    assert left == []


def test_a_submitted_step_that_vanished_from_the_code_fails_the_run_and_is_named(case: Case) -> None:
    """BEHAVIOURS 91."""
    changed: list[bool] = []

    def first() -> None:
        changed.append(True)

    @case.function(retries=0)
    def f(event: Event[Any], step: Step) -> Any:
        a = step.submit("a", first)
        b = step.submit("new" if changed else "old", case.body("b"))
        return step.gather(a, b)

    crew(case, 1)
    run = case.run()
    assert run.status == "failed"
    assert run.error is not None
    assert run.error.type == "NondeterminismError"
    assert "'old'" in run.error.message


@pytest.mark.parametrize("lost", ["queue", "job"])
def test_a_branch_that_nothing_would_move_is_put_back(case: Case, lost: str) -> None:
    """I4: somebody has emptied its queue, or deleted its job."""

    @case.function()
    def f(event: Event[Any], step: Step) -> Any:
        here = step.submit("here", case.body("here", 1))
        there = step.options(queue="elsewhere").submit("there", case.body("there", 2))
        return step.gather(here, there)

    case.start(queues=("flow",), reconcile_every=3600.0)
    run_id = case.send()
    until(lambda: case.app.runs.outputs(run_id) == {"here": 1})
    store = case.app.store
    assert check_invariants(store) == []
    store.client.delete(store.keys.rq_queue("elsewhere"))
    if lost == "job":
        store.client.delete(store.keys.rq_job(f"{run_id}-there"))
    assert any("I4" in fault for fault in check_invariants(store))
    house = Housekeeper(store, "house", event_retention_ms=1000)
    assert house.stranded() != set()
    assert [found[:26] for found in house.reconcile(suspicion=0.0)] in ([], [run_id])
    assert [found[:26] for found in house.reconcile(suspicion=0.0)] in ([], [run_id])
    assert check_invariants(store) == []
    case.start(queues=("elsewhere",))
    run = case.ended(run_id)
    assert run.status == "completed", run.error
    assert run.result == [1, 2]
    assert sorted(case.ledger) == ["here", "there"]
