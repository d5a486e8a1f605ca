"""`app.runs.retry`: a failed run goes on, in place, from the step that failed; nothing recorded runs again (I3)."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from typing import Any

import pytest

from flowlib import Event, NonRetriable, NotFound, RunNotFailed, StepFailed
from flowlib.store import Store
from flowlib.testing import AFTER, check_invariants, cut, faulty_wire
from tests.cases.beside import Beside
from tests.cases.case import Case, in_place, only_sync
from tests.cases.test_parallel import Meeting, crew
from tests.patience import until


def test_the_failed_step_is_tried_again_with_all_its_attempts_and_what_is_recorded_stays(case: Case) -> None:
    @case.function(retries=1)
    def f(event: Event[Any], step: Any) -> Any:
        first = yield step.run("first", case.body("first", 1))
        charged = yield step.run("charge", case.body("charge", 2, fails=3))
        last = yield step.run("last", case.body("last", 3))
        return [first, charged, last]

    failed = case.run()
    assert (failed.status, failed.error and failed.error.step) == ("failed", "charge")
    assert case.app.runs.retry(failed.id) == "charge"
    run = case.ended(failed.id)
    assert (run.status, run.result, run.error, run.retried) == ("completed", [1, 2, 3], None, 1)
    assert case.ledger == ["first", *["charge"] * 4, "last"]
    (charge,) = [step for step in run.steps if step.id == "charge"]
    assert [(attempt.number, attempt.outcome) for attempt in charge.attempts] == [
        (1, "retry"), (2, "failed"), (1, "retry"), (2, "ok"),
    ]  # fmt: skip
    assert [entry.step for entry in case.entries(run.id, "retried")] == ["1:charge"]
    assert check_invariants(case.app.store) == []


def test_it_may_fail_and_be_retried_again_and_again(case: Case) -> None:
    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        return (yield step.run("charge", case.body("charge", "ok", fails=3)))

    run = case.run()
    for retried in (1, 2, 3):
        assert run.status == "failed"
        case.app.runs.retry(run.id)
        run = case.ended(run.id)
        assert run.retried == retried
        assert check_invariants(case.app.store) == []
    assert (run.status, run.result, case.ledger) == ("completed", "ok", ["charge"] * 4)


def test_after_an_error_between_steps_the_function_is_called_again(case: Case) -> None:
    calls: list[int] = []

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        one = yield step.run("one", case.body("one", 1))
        step.log.info("going on")
        calls.append(step.attempt)
        if len(calls) == 1:
            raise RuntimeError("a bug")
        two = yield step.run("two", case.body("two", 2))
        return one + two

    run = case.run()
    assert (run.status, run.error and run.error.type) == ("failed", "RuntimeError")
    assert case.app.runs.retry(run.id) == ""
    run = case.ended(run.id)
    assert (run.status, run.result, case.ledger) == ("completed", 3, ["one", "two"])
    assert calls[1] == 1
    assert [text for text, _, _ in case.lines(run.id)] == ["going on"] * 2
    assert check_invariants(case.app.store) == []


def test_a_run_that_failed_at_its_very_start_starts_again(case: Case) -> None:
    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        case.body("start", fails=1)()
        return (yield step.run("one", case.body("one", 1)))

    run = case.run()
    assert run.status == "failed"
    assert case.app.runs.retry(run.id) == ""
    assert case.ended(run.id).result == 1
    assert check_invariants(case.app.store) == []


@in_place
def test_compensation_that_was_done_stays_done_and_the_step_before_it_is_tried_again(case: Case) -> None:
    """The error that ended the run says which step failed it, though another was the last."""

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        try:
            return (yield step.run("charge", case.body("charge", "paid", fails=1)))
        except StepFailed:
            yield step.run("release", case.body("release"))
            raise

    run = case.run()
    assert case.ledger == ["charge", "release"]
    assert case.app.runs.retry(run.id) == "charge"
    run = case.ended(run.id)
    assert (run.status, run.result, case.ledger) == ("completed", "paid", ["charge", "release", "charge"])
    assert check_invariants(case.app.store) == []


@in_place
def test_a_failure_that_the_function_had_made_its_peace_with_is_not_tried_again(case: Case) -> None:
    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        with contextlib.suppress(StepFailed):
            yield step.run("optional", case.body("optional", fails=1))
        try:
            return (yield step.run("charge", case.body("charge", "paid", fails=1)))
        except StepFailed as failed:
            raise ValueError("no money") from failed

    run = case.run()
    assert (run.error and run.error.type) == "ValueError"
    assert case.app.runs.retry(run.id) == "charge"
    assert case.ended(run.id).result == "paid"
    assert case.ledger == ["optional", "charge", "charge"]


@in_place
def test_of_a_step_in_a_loop_the_one_that_failed_is_tried_again(case: Case) -> None:
    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        total = 0
        for n in range(3):
            total += yield step.run("pack", case.body(n, n, fails=int(n == 1)))
        return total

    run = case.run()
    assert case.app.runs.retry(run.id) == "pack (2)"
    assert case.ended(run.id).result == 3
    assert case.ledger == [0, 1, 1, 2]


@in_place
def test_a_retry_after_a_deployment_that_has_renamed_the_step_runs_the_new_one(case: Case) -> None:
    name = ["old"]

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("first", case.body("first"))
        return (yield step.run(name[0], case.body(name[0], "ok", fails=int(name[0] == "old"))))

    run = case.run()
    name[0] = "new"
    case.app.runs.retry(run.id)
    run = case.ended(run.id)
    assert (run.status, run.result, case.ledger) == ("completed", "ok", ["first", "old", "new"])
    assert check_invariants(case.app.store) == []


@only_sync
def test_only_a_failed_run_is_retried(case: Case) -> None:
    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        if event.data.get("long"):
            yield step.sleep("night", 3600)
        if event.data.get("bad"):
            raise NonRetriable("bad")

    completed, running, failed = case.run().id, case.send({"long": True}), case.run({"bad": True}).id
    until(lambda: case.app.runs.get(running).state == "sleeping")
    for run_id, status in ((completed, "completed"), (running, "running")):
        with pytest.raises(RunNotFailed, match=f"run {run_id} has not failed, it is {status}"):
            case.app.runs.retry(run_id)
    case.app.runs.cancel(running)
    with pytest.raises(RunNotFailed, match="it is cancelled: `flow replay"):
        case.app.runs.retry(running)
    case.app.store.client.delete(*(f"flow:{kind}:{failed}" for kind in ("run", "memo", "history")))  # as if expired
    for unknown in (failed, "01JUNK", "no such run"):
        with pytest.raises(NotFound, match=f"run '{unknown}' does not exist"):
            case.app.runs.retry(unknown)


@only_sync
def test_a_lost_reply_to_a_retry_is_asked_for_again_and_nothing_is_done_twice(case: Case) -> None:
    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        return (yield step.run("charge", case.body("charge", "paid", fails=1)))

    run = case.run()
    store = Store(case.app.store.url, wire=faulty_wire(cut, 1, AFTER))
    case.app.connect(store=store)
    assert case.app.runs.retry(run.id) == "charge"
    run = case.ended(run.id)
    assert (run.status, run.retried, case.ledger) == ("completed", 1, ["charge"] * 2)
    assert check_invariants(store) == []


# -- of runs that failed while other steps of theirs were open ----------------------------------------------------------


@in_place
def test_what_was_recorded_beside_the_failed_step_stays_and_what_was_open_is_done_anew(case: Case) -> None:
    """BEHAVIOURS 30: it fails at once, with a body of its own still running elsewhere."""
    mended, began = threading.Event(), threading.Semaphore(0)

    def long() -> str:
        case.ledger.append("long")
        began.release()
        until(mended.is_set)
        return "long"

    def bad(run_id: str) -> str:
        case.ledger.append("bad")
        if not mended.is_set():
            until(lambda: "long" in case.ledger and "good" in case.app.runs.outputs(run_id))
            raise ValueError("no")
        return "mended"

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        beside = Beside(case, step)
        begun = [beside.run("bad", bad, step.run_id), beside.run("good", case.body("good", "good"))]
        begun.append(beside.run("long", long))
        found = yield beside.all(*begun)
        return [*found, (yield step.run("after", case.body("after", "after")))]

    crew(case, 3)
    failed = case.run()
    assert (failed.status, failed.error and failed.error.step) == ("failed", "bad"), failed.error
    assert began.acquire(timeout=20)
    until(lambda: check_invariants(case.app.store) == [])
    assert open_places(case) == []
    mended.set()
    assert case.app.runs.retry(failed.id) == "bad"
    run = case.ended(failed.id)
    assert (run.status, run.result, run.retried) == ("completed", ["mended", "good", "long", "after"], 1), run.error
    assert Counter(case.ledger) == {"bad": 2, "good": 1, "long": 2, "after": 1}
    assert check_invariants(case.app.store) == []
    assert open_places(case) == []


@in_place
def test_waits_sleeps_and_children_that_were_open_begin_anew_too(case: Case) -> None:
    @case.function(on="child", name="child")
    def child(event: Event[Any], step: Any) -> Any:
        return (yield step.wait_for_event("go", "go", timeout=3600)).id

    def bad() -> None:
        case.ledger.append("bad")
        if case.ledger.count("bad") == 1:
            until(lambda: [run.state for run in case.app.runs.list(function="child")] == ["waiting"])
            raise ValueError("no")

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        beside = Beside(case, step)
        _, invoked, found, _ = yield beside.all(
            beside.run("bad", bad), beside.invoke("child", "child", {}),
            beside.wait("answer", "go", timeout=3600), beside.sleep("nap", 0.3),
        )  # fmt: skip
        return [invoked, found.id]

    crew(case, 2)
    failed = case.run()
    assert (failed.status, failed.error and failed.error.step) == ("failed", "bad"), failed.error
    assert [run.status for run in case.app.runs.list(function="child")] == ["cancelled"]
    assert check_invariants(case.app.store) == []
    case.app.runs.retry(failed.id)
    until(lambda: [run.state for run in case.app.runs.list(function="child", status="running")] == ["waiting"])
    until(lambda: {step.id: step.status for step in case.app.runs.get(failed.id).steps}["answer"] == "waiting")
    case.app.send(Event("go", {}, "it"))
    run = case.ended(failed.id)
    assert (run.status, run.result) == ("completed", ["it", "it"]), run.error
    assert case.ledger == ["bad", "bad"]
    assert sorted(run.status for run in case.app.runs.list(function="child")) == ["cancelled", "completed"]
    assert check_invariants(case.app.store) == []


@in_place
def test_a_wait_that_nobody_came_to_register_is_waited_for_after_all(case: Case) -> None:
    """The function fails as it is called for that very job, as with a deployment that is broken."""

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        case.ledger.append("call")
        if case.ledger.count("call") == 2:
            raise NonRetriable("broken")
        beside = Beside(case, step)
        _, found = yield beside.all(beside.run("a", case.body("a")), beside.wait("answer", "go", timeout=3600))
        return found.id

    failed = case.run()
    assert (failed.status, failed.error and failed.error.message) == ("failed", "broken"), failed.error
    assert case.app.runs.retry(failed.id) == "answer"
    until(lambda: case.app.runs.get(failed.id).state in ("waiting", ""))
    case.app.send(Event("go", {}, "it"))
    run = case.ended(failed.id)
    assert (run.status, run.result) == ("completed", "it"), run.error
    assert case.ledger.count("a") == 1
    assert check_invariants(case.app.store) == []


@in_place
def test_of_two_that_failed_beside_each_other_a_retry_tries_the_one_that_ended_the_run_and_the_next_the_other(
    case: Case,
) -> None:
    """Each failure that is recorded stays what it is until somebody asks for it to be tried again."""
    meeting = Meeting(2)

    def bad(name: str) -> str:
        case.ledger.append(name)
        if case.ledger.count(name) == 1:
            meeting.body(None)
            raise ValueError(name)
        return name

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        beside = Beside(case, step)
        first, second = yield beside.join(beside.run("a", bad, "a"), beside.run("b", bad, "b"))
        for each in (first, second):
            if isinstance(each, StepFailed):
                raise each
        return [first, second]

    crew(case, 2)
    run = case.run()
    for step in ("a", "b"):
        assert (run.status, run.error and run.error.step) == ("failed", step), run.error
        assert case.app.runs.retry(run.id) == step
        run = case.ended(run.id)
    assert (run.status, run.result, run.retried) == ("completed", ["a", "b"], 2), run.error
    assert Counter(case.ledger) == {"a": 2, "b": 2}
    assert check_invariants(case.app.store) == []


@in_place
def test_of_steps_that_have_failed_alike_the_one_that_ended_the_run_is_tried_again(case: Case) -> None:
    """I3: what the function had dealt with stays as it is, whatever it is called."""

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        declined: dict[str, Any] = {"fails": 1, "error": ValueError("declined")}
        names = [f"{name}-{event.id}" for name in ("card", "wallet", "voucher", "points", "account")]
        for name in names[:-1]:
            try:
                return (yield step.run(name, case.body(name, name, **declined)))
            except StepFailed:
                pass
        return (yield step.run(names[-1], case.body(names[-1], "paid", **declined)))

    for n in range(4):  # the order in which Redis lists memos hangs on their names
        failed = case.run(event=Event("test", {}, id=str(n)))
        assert case.app.runs.retry(failed.id) == f"account-{n}"
        assert case.ended(failed.id).result == "paid"
    assert {case.ledger.count(name) for name in case.ledger if name.startswith("account")} == {2}
    assert {case.ledger.count(name) for name in case.ledger if not name.startswith("account")} == {1}


def open_places(case: Case) -> list[str]:
    keys = [key.decode() for key in case.app.store.client.scan_iter("flow:*")]
    return [key for key in keys if ":branch:" in key or ":open:" in key]


@only_sync
def test_a_run_that_failed_in_one_of_several_places_is_retried_there(case: Case) -> None:
    """Whatever it was at in the others: sleeps, here. These begin anew."""

    def fails_once() -> None:
        case.ledger.append("late")
        if case.ledger.count("late") == 1:
            until(lambda: case.app.runs.get(run_id[0]).step.startswith("nap"))
            raise ValueError("no")

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        naps = [step.timer(f"nap[{n}]", 3600) for n in range(8)]
        early, late = step.submit("early", case.body("early")), step.submit("late", fails_once)
        step.gather(early, late)
        return step.first(*naps, step.timer("no nap", 0)) in naps

    case.start()
    case.start()
    run_id = [""]
    run_id[0] = case.send()
    assert case.ended(run_id[0]).status == "failed"
    assert check_invariants(case.app.store) == []
    assert case.app.runs.retry(run_id[0]) == "late"
    run = case.ended(run_id[0])
    assert (run.status, run.result, sorted(case.ledger)) == ("completed", False, ["early", "late", "late"]), run.error
    assert check_invariants(case.app.store) == []
