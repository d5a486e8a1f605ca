"""Runs that have to begin, or to end, in some time: whatever they are doing then, they are cancelled; nothing is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from rq.suspension import resume, suspend

from flowlib import Event
from tests.cases.case import Case, in_place, only_sync
from tests.cases.test_cancel import nothing_is_left
from tests.patience import until

END = "run timeout: it had not ended after 0.4 s"
START = "start timeout: it had not begun after 0.3 s"


def test_a_run_over_its_time_is_cancelled_its_body_interrupted_and_later_steps_never_run(case: Case) -> None:
    """BEHAVIOURS 100."""

    @case.function(run_timeout=0.4)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("a", case.body("a"))
        yield step.run("b", work)
        yield step.run("c", case.body("c"))

    def work() -> None:
        deadline = time.monotonic() + 20
        try:
            case.ledger.append("b")
            while time.monotonic() < deadline:
                time.sleep(0.002)
        except BaseException:
            case.ledger.append("interrupted")
            raise

    run = case.run()
    assert (run.status, run.reason) == ("cancelled", END)
    until(lambda: case.ledger == ["a", "b", "interrupted"])
    assert run.ended is not None
    assert (run.ended - run.created).total_seconds() >= 0.4
    nothing_is_left(case)


def asleep(case: Case, step: Any) -> Any:
    return step.sleep("nap", 3600)


def waiting(case: Case, step: Any) -> Any:
    return step.wait_for_event("answer", "answered")


def backing_off(case: Case, step: Any) -> Any:
    return step.options(backoff=3600).run("flaky", case.body("flaky", fails=1))


@pytest.mark.parametrize("what", [asleep, waiting, backing_off])
@in_place
def test_a_run_that_sleeps_waits_or_backs_off_is_over_when_its_time_is(case: Case, what: Callable[..., Any]) -> None:
    """BEHAVIOURS 100."""

    @case.function(run_timeout=timedelta(milliseconds=400))
    def f(event: Event[Any], step: Any) -> Any:
        yield what(case, step)
        case.ledger.append("after")

    run = case.run()
    assert (run.status, run.reason) == ("cancelled", END)
    assert "after" not in case.ledger
    nothing_is_left(case)
    assert case.app.store.client.hlen("flow:waits:case") == 0


@in_place
def test_runs_that_have_not_begun_in_time_are_cancelled_those_that_have_go_on(case: Case) -> None:
    """BEHAVIOURS 99."""

    @case.function(start_timeout=0.3)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.sleep("nap", 0.5)
        yield step.run("after", case.body("after"))

    begun = case.send()
    until(lambda: case.app.runs.get(begun).state == "sleeping")
    suspend(case.app.store.client)
    late = [case.send() for _ in range(3)]
    assert {case.ended(run).reason for run in late} == {START}
    resume(case.app.store.client)
    assert case.ended(begun).status == "completed"
    assert case.ledger == ["after"]
    nothing_is_left(case)


@in_place
def test_runs_that_wait_behind_a_busy_worker_for_too_long_are_cancelled(case: Case) -> None:
    """BEHAVIOURS 99: the queue is full, and who holds it up goes on."""
    gate, held = threading.Event(), threading.Event()

    def hold() -> str:
        held.set()
        gate.wait(20)
        return "held"

    @case.function(start_timeout=0.3)
    def f(event: Event[Any], step: Any) -> Any:
        return (yield step.run("work", hold if event.data.get("first") else case.body("late")))

    case.start(threads=1)
    first = case.send({"first": True})
    assert held.wait(20)
    late = [case.send() for _ in range(5)]
    assert {case.ended(run).reason for run in late} == {START}
    gate.set()
    assert case.ended(first).result == "held"
    assert case.ledger == []
    nothing_is_left(case)


@only_sync
def test_a_run_that_ends_in_time_leaves_no_timer(case: Case) -> None:
    @case.function(start_timeout=60, run_timeout=3600)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("a", case.body("a"))

    assert case.run().status == "completed"
    nothing_is_left(case)


@only_sync
def test_a_failed_run_that_is_retried_has_as_long_again(case: Case) -> None:
    @case.function(run_timeout=0.4, retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("once", case.body("once", fails=1))
        yield step.sleep("nap", 3600)

    failed = case.run()
    assert failed.status == "failed"
    case.app.runs.retry(failed.id)
    run = case.ended(failed.id)
    assert (run.status, run.reason, case.ledger) == ("cancelled", END, ["once"] * 2)
    assert run.ended is not None
    assert run.ended.timestamp() - case.entries(run.id, "retried")[0].at >= 0.4
    nothing_is_left(case)
