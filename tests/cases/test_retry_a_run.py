"""`app.runs.retry`: a failed run goes on, in place, from the step that failed; nothing recorded runs again (I3)."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from flowlib import Event, NonRetriable, NotFound, RunNotFailed, StepFailed
from flowlib.store import Store
from flowlib.testing import AFTER, check_invariants, cut, faulty_wire
from tests.cases.case import Case, in_place, only_sync, until


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
