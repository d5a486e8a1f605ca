"""What failures do: attempts, retries, what the function sees of them, and what is told when a run fails."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta
from typing import Any

import pytest

from flowlib import Event, NonRetriable, RetryAfter, RunFailed, StepFailed
from flowlib.model import Run
from tests.cases.case import Case, in_place, only_async, only_sync
from tests.patience import until

AN_HOUR = timedelta(hours=1)


def failure(run: Run) -> tuple[str, str, str | None, int | None]:
    assert run.status == "failed"
    assert run.error is not None
    return run.error.type, run.error.message, run.error.step, run.error.attempt


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_step_that_always_fails_has_its_attempts_and_then_the_run_fails_at_once(case: Case, retries: int) -> None:
    """BEHAVIOURS 25, 26, 30: the function is not tried again on top of the step's attempts."""

    @case.function(retries=retries)
    def f(event: Event[Any], step: Any) -> Any:
        try:
            yield step.run("pay", case.body("pay", fails=99))
        except StepFailed:
            case.ledger.append("raised")
            raise

    run = case.run()
    assert failure(run) == ("ValueError", "pay failed", "pay", retries + 1)
    assert case.ledger == ["pay"] * (retries + 1) + ["raised"]
    assert [attempt.number for attempt in run.steps[0].attempts] == list(range(1, retries + 2))


@pytest.mark.parametrize("between", [False, True], ids=["in-a-step", "between-steps"])
def test_what_is_not_retriable_is_tried_once(case: Case, between: bool) -> None:
    """BEHAVIOURS 27 and 28."""

    @case.function(retries=3)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("first", case.body("first"))
        if between:
            case.ledger.append("between")
            raise NonRetriable("the card has expired")
        yield step.run("pay", case.body("pay", fails=9, error=NonRetriable("the card has expired")))

    run = case.run()
    expected = (None, 1) if between else ("pay", 1)
    assert failure(run) == ("NonRetriable", "the card has expired", *expected)
    assert case.ledger == ["first", "between" if between else "pay"]


@pytest.mark.parametrize("retries", [0, 2])
def test_an_error_between_steps_is_tried_as_often_as_the_function_says(case: Case, retries: int) -> None:
    """BEHAVIOURS 28; the step before it is not run again."""

    @case.function(retries=retries)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("first", case.body("first"))
        case.ledger.append(step.attempt)
        raise ValueError("between")

    run = case.run()
    assert failure(run) == ("ValueError", "between", None, retries + 1)
    assert case.ledger == ["first", *range(1, retries + 2)]


def test_an_error_before_the_first_step_is_tried_again_too(case: Case) -> None:
    """BEHAVIOURS 28."""

    @case.function(retries=1)
    def f(event: Event[Any], step: Any) -> Any:
        case.ledger.append(step.attempt)
        if step.attempt == 1:
            raise ValueError("at once")
        return "done"

    assert case.run().result == "done"
    assert case.ledger == [1, 2]


def test_a_function_that_catches_a_step_s_failure_completes(case: Case) -> None:
    """BEHAVIOURS 29; the failure says all that is known of it."""

    @case.function(retries=1)
    def f(event: Event[Any], step: Any) -> Any:
        facts: list[Any] = []
        try:
            yield step.run("pay", case.body("pay", fails=9))
        except StepFailed as failed:
            facts = [failed.step, failed.type, failed.message, failed.attempt, "pay failed" in failed.traceback]
        yield step.run("after", case.body("after"))
        return facts

    run = case.run()
    assert (run.status, run.error) == ("completed", None)
    assert run.result == ["pay", "ValueError", "pay failed", 2, True]
    assert case.ledger == ["pay", "pay", "after"]
    assert [step.status for step in run.steps] == ["failed", "completed"]


def test_an_error_of_the_handler_is_the_error_of_the_run(case: Case) -> None:
    """BEHAVIOURS 31."""

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        try:
            yield step.run("pay", case.body("pay", fails=9))
        except StepFailed:
            raise LookupError("no compensation known") from None

    assert failure(case.run()) == ("LookupError", "no compensation known", None, 1)


def test_attempts_of_steps_and_of_the_function_are_counted_apart(case: Case) -> None:
    """BEHAVIOURS 32."""

    @case.function(retries=1)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("pay", case.body("pay", fails=1))
        if step.attempt == 1:
            raise ValueError("between")
        return step.attempt

    run = case.run()
    assert (run.status, run.result) == ("completed", 2)
    assert case.ledger == ["pay", "pay"]
    (pay,) = run.steps
    assert [(attempt.number, attempt.outcome) for attempt in pay.attempts if attempt.outcome != "replay"][:2] == [
        (1, "retry"), (2, "ok"),
    ]  # fmt: skip
    failed = [(entry.detail["level"], entry.attempt) for entry in case.entries(run.id, "failed")]
    assert failed == [("step", 1), ("function", 1)]


@pytest.mark.parametrize("between", [False, True], ids=["in-a-step", "between-steps"])
def test_retry_after_uses_up_attempts_like_any_error(case: Case, between: bool) -> None:
    """BEHAVIOURS 33."""

    @case.function(retries=20, backoff=AN_HOUR)
    def f(event: Event[Any], step: Any) -> Any:
        if between:
            case.ledger.append("between")
            raise RetryAfter(0)
        yield step.run("pay", case.body("pay", fails=99, error=RetryAfter(0, "busy")))

    run = case.run()
    assert failure(run)[0] == "RetryAfter"
    assert len(case.ledger) == 21


def test_each_step_has_attempts_of_its_own(case: Case) -> None:
    """BEHAVIOURS 34."""

    @case.function(retries=2)
    def f(event: Event[Any], step: Any) -> Any:
        def tell(name: str, fails: int) -> int:
            case.ledger.append((name, step.attempt))
            if step.attempt <= fails:
                raise ValueError(name)
            return int(step.attempt)

        a = yield step.run("a", tell, "a", 1)
        b = yield step.run("b", tell, "b", 2)
        return [a, b, step.attempt]

    assert case.run().result == [2, 3, 1]
    assert case.ledger == [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 3)]


@pytest.mark.parametrize("between", [False, True], ids=["in-a-step", "between-steps"])
def test_retry_after_says_when_and_not_the_back_off(case: Case, between: bool) -> None:
    """BEHAVIOURS 35."""
    wait = 0.3

    def work(attempt: int) -> float:
        case.ledger.append(time.monotonic())
        if attempt == 1:
            raise RetryAfter(wait)
        return attempt

    @case.function(backoff=AN_HOUR)
    def f(event: Event[Any], step: Any) -> Any:
        if between:
            return work(step.attempt)
        return (yield step.run("work", lambda: work(step.attempt)))

    assert case.run().result == 2
    first, second = case.ledger
    assert second - first >= wait


def test_a_caught_failure_stays_caught_and_the_step_is_not_run_again(case: Case) -> None:
    """BEHAVIOURS 36."""

    @case.function(retries=3)
    def f(event: Event[Any], step: Any) -> Any:
        told = ""
        try:
            yield step.run("pay", case.body("pay", fails=9, error=NonRetriable("expired")))
        except StepFailed as failed:
            told = failed.message
        yield step.run("a", case.body("a"))
        yield step.sleep("pause", 0.01)
        yield step.run("b", case.body("b"))
        return told

    assert case.run().result == "expired"
    assert case.ledger == ["pay", "a", "b"]


def deeper(what: str) -> None:
    try:
        int(what)
    except ValueError as error:
        raise LookupError(f"cannot read {what}") from error


async def deeper_async(what: str) -> None:
    await asyncio.sleep(0)
    deeper(what)


def lines_of(traceback: str) -> str:
    assert "flowlib" not in traceback.replace("flowlib.errors", "")
    assert "asyncio" not in traceback
    return traceback


@in_place
def test_the_error_of_a_run_tells_where_in_the_user_s_code_it_came_from(case: Case) -> None:
    """BEHAVIOURS 38: type, message, traceback without engine frames, step and attempt."""

    @case.function(retries=1)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("read", deeper_async if case.way.is_async else deeper, "seven")

    run = case.run()
    assert failure(run) == ("LookupError", "cannot read seven", "read", 2)
    assert run.error is not None
    told = lines_of(run.error.traceback)
    assert "in deeper\n" in told
    assert "int(what)" in told
    assert "direct cause" in told
    with pytest.raises(RunFailed) as failed:
        case.app.runs.result(run.id)
    assert (failed.value.type, failed.value.step, failed.value.attempt) == ("LookupError", "read", 2)
    assert failed.value.traceback == told
    assert f"run {run.id} failed in step 'read' (attempt 2): LookupError: cannot read seven" in str(failed.value)


@only_sync
def test_an_error_between_steps_tells_where_it_came_from(case: Case) -> None:
    """BEHAVIOURS 38."""

    @case.app.function(on="test", retries=0)
    def f(event: Event[Any], step: Any) -> None:
        deeper("eight")

    run = case.run()
    assert failure(run) == ("LookupError", "cannot read eight", None, 1)
    assert run.error is not None
    assert "in f\n" in lines_of(run.error.traceback)


@only_async
def test_an_error_between_steps_of_an_async_function_tells_where_it_came_from(case: Case) -> None:
    """BEHAVIOURS 38."""

    @case.app.function(on="test", retries=0)
    async def f(event: Event[Any], step: Any) -> None:
        await deeper_async("nine")

    run = case.run()
    assert failure(run) == ("LookupError", "cannot read nine", None, 1)
    assert run.error is not None
    assert "in f\n" in lines_of(run.error.traceback)


@only_async
def test_a_step_s_failure_in_a_task_group_fails_the_run_at_once_too(case: Case) -> None:
    """BEHAVIOURS 30 and 38."""

    @case.app.function(on="test", retries=3)
    async def f(event: Event[Any], step: Any) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(step.options(retries=0).run("pay", case.body("pay", fails=9)))

    run = case.run()
    assert failure(run) == ("ExceptionGroup", "unhandled errors in a TaskGroup (1 sub-exception)", None, 1)
    assert case.ledger == ["pay"]
    assert run.error is not None
    assert "flowlib/" not in run.error.traceback
    assert "StepFailed: step 'pay' failed: ValueError: pay failed" in run.error.traceback


def test_a_run_with_a_failing_step_is_running_and_shows_its_attempts(case: Case) -> None:
    """BEHAVIOURS 41."""

    @case.function(retries=2, backoff=AN_HOUR)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("pay", case.body("pay", fails=9))

    run_id = case.send()
    run = until(lambda: run if (run := case.app.runs.get(run_id)).state == "retrying" else None)
    assert (run.status, run.finished, run.step, run.attempt) == ("running", False, "pay", 2)
    (pay,) = run.steps
    assert pay.status == "retrying"
    (attempt,) = pay.attempts
    assert (attempt.number, attempt.outcome) == (1, "retry")
    assert attempt.error is not None
    assert (attempt.error.type, attempt.error.message) == ("ValueError", "pay failed")
    assert attempt.ended is not None
    assert attempt.retry_at == pytest.approx(attempt.ended + AN_HOUR.total_seconds(), abs=1)
    assert [listed.id for listed in case.app.runs.list(status="retrying")] == [run_id]


class Nasty(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words for it")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Nasty(), "<its __str__ raised RuntimeError>"),
        (ValueError("\ud800"), "\ud800"),
        (ValueError("x" * 100_000), "x" * 4096),
        (ValueError(), ""),
        (SystemExit(3), "3"),
        (ExceptionGroup("two", [ValueError(1), KeyError(2)]), "two (2 sub-exceptions)"),
    ],
    ids=["str-raises", "surrogate", "long", "empty", "exit", "group"],
)
@in_place
def test_any_error_is_told(case: Case, error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("flowlib.engine"), "disabled", True)  # xdist cannot report a surrogate

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("pay", case.body("pay", fails=9, error=error))

    run = case.run()
    assert failure(run) == (type(error).__name__, message, "pay", 1)
    assert run.error is not None
    assert len(run.error.traceback) < 20_000


def test_a_step_that_outlives_its_timeout_is_interrupted_and_tried_again(case: Case) -> None:
    def slow() -> str:
        case.ledger.append("begin")
        if len(case.ledger) == 1:
            while True:
                time.sleep(0.005)
        return "fast"

    async def slow_async() -> str:
        case.ledger.append("begin")
        if len(case.ledger) == 1:
            await asyncio.sleep(60)
        return "fast"

    @case.function(retries=1)
    def f(event: Event[Any], step: Any) -> Any:
        return (yield step.options(timeout=0.1).run("slow", slow_async if case.way.is_async else slow))

    run = case.run()
    assert run.result == "fast"
    (step,) = run.steps
    assert [attempt.outcome for attempt in step.attempts] == ["timeout", "ok"]
    error = step.attempts[0].error
    assert error is not None
    assert (error.type, error.message) == (
        "StepTimeout",
        "step 'slow' ran longer than its timeout of 0.1 s: make it shorter or raise timeout=",
    )


@in_place
def test_a_step_that_ends_at_its_own_cancellation_or_timeout_fails_like_any_other(case: Case) -> None:
    """`asyncio.timeout` inside a body is the body's own business."""

    async def impatient() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)

    async def gives_up() -> None:
        raise asyncio.CancelledError("by itself")

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        types = []
        for name, body in (("impatient", impatient), ("gives-up", gives_up)):
            try:
                yield step.run(name, body)
            except StepFailed as failed:
                types.append(failed.type)
        return types

    assert case.run().result == ["TimeoutError", "CancelledError"]
