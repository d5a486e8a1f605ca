"""Sizes: much is carried, too much is refused with the figures, and nobody else suffers."""

from __future__ import annotations

from typing import Any

from flowlib import Event, Limits, StepFailed
from tests.cases.case import Case, in_place

MB = 1024 * 1024


def error_of(case: Case, data: Any = None) -> tuple[str, str]:
    run = case.run(data)
    assert run.status == "failed"
    assert run.error is not None
    return run.error.type, run.error.message


def test_a_run_may_carry_more_than_any_one_request_could(case: Case) -> None:
    """BEHAVIOURS 16: ten steps of a megabyte each."""

    def produce(n: int) -> bytes:
        case.ledger.append(n)
        return bytes([n]) * MB

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        total = 0
        for n in range(10):
            part = yield step.run(f"part-{n}", produce, n)
            total += len(part) if part == bytes([n]) * MB else 0
        return total

    run = case.run()
    assert (run.status, run.result, case.ledger) == ("completed", 10 * MB, list(range(10)))
    assert run.memo_bytes >= 10 * MB


def test_an_output_over_the_limit_fails_its_step_once_and_harms_no_other_run(case: Case) -> None:
    """BEHAVIOURS 18: 4 MB by default."""

    def produce(size: int) -> bytes:
        case.ledger.append(size)
        return b"x" * size

    @case.function(retries=3)
    def f(event: Event[Any], step: Any) -> Any:
        return len((yield step.run("export", produce, event.data["size"])))

    fits = 4 * MB - 5
    assert case.run({"size": fits}).result == fits
    kind, message = error_of(case, {"size": fits + 1})
    assert kind == "PayloadError"
    assert message.startswith(f"step 'export': its result of {4 * MB + 1} bytes is over the limit of {4 * MB} bytes: ")
    assert case.run({"size": 1}).result == 1
    assert case.ledger == [fits, fits + 1, 1]


def test_the_limit_of_an_output_can_be_set_and_its_failure_be_caught(case: Case) -> None:
    """BEHAVIOURS 18."""

    @case.function(limits=Limits(output_bytes=100))
    def f(event: Event[Any], step: Any) -> Any:
        try:
            yield step.run("export", case.body("export", "x" * 99))
        except StepFailed as failed:
            case.ledger.append(failed.message)
        yield step.run("small", case.body("small", "y"))

    assert case.run().status == "completed"
    assert case.ledger.count("export") == case.ledger.count("small") == 1
    assert "step 'export': its result of 101 bytes is over the limit of 100 bytes: " in case.ledger[1]


@in_place
def test_a_result_of_the_run_over_the_limit_fails_it(case: Case) -> None:
    """BEHAVIOURS 18, for what the function itself returns."""

    @case.function(limits=Limits(output_bytes=100), retries=3)
    def f(event: Event[Any], step: Any) -> Any:
        case.ledger.append("called")
        return "x" * 99

    kind, message = error_of(case)
    assert kind == "PayloadError"
    assert message.endswith(
        "its result of 101 bytes is over the limit of 100 bytes: store it elsewhere and return where"
    )
    assert case.ledger == ["called"]


def test_a_run_whose_memos_grow_over_the_limit_fails(case: Case) -> None:
    """BEHAVIOURS 19."""

    @case.function(limits=Limits(state_bytes=1000), retries=3)
    def f(event: Event[Any], step: Any) -> Any:
        try:
            for n in range(9):
                yield step.run(f"part-{n}", case.body(n, "x" * 300))
        except Exception:
            case.ledger.append("caught")

    kind, message = error_of(case)
    assert kind == "PayloadError"
    assert message == "state size: with the 303 bytes of step 'part-3' the run's memos are over the limit of 1000 bytes"
    assert case.ledger == [0, 1, 2, 3]


def test_a_run_with_more_steps_than_the_limit_fails_and_no_further_step_runs(case: Case) -> None:
    """BEHAVIOURS 20."""

    @case.function(limits=Limits(steps=3), retries=3)
    def f(event: Event[Any], step: Any) -> Any:
        try:
            for n in range(9):
                yield step.run("step", case.body(n))
        except Exception:
            case.ledger.append("caught")

    assert error_of(case) == ("ConfigError", "step limit: step 'step' would be over the 3 of a run")
    assert case.ledger == [0, 1, 2]


def test_as_many_steps_as_the_limit_are_fine(case: Case) -> None:
    """BEHAVIOURS 20; sleeps are steps too."""

    @case.function(limits=Limits(steps=3))
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("a", case.body("a"))
        yield step.sleep("pause", 0.01)
        yield step.run("b", case.body("b"))

    run = case.run()
    assert (run.status, run.recorded) == ("completed", 3)


@in_place
def test_hundreds_of_steps_are_each_run_once(case: Case) -> None:
    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        total = 0
        for n in range(400):
            total += yield step.run("add", case.body(n, n))
        return total

    run = case.run()
    assert run.result == sum(range(400))
    assert case.ledger == list(range(400))
    assert run.recorded == 400
    assert len(run.steps) == 400
