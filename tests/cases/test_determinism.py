"""`step.now`, `step.uuid` and `step.random`: chance and time, decided once and remembered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from flowlib import Event, Limits
from flowlib.testing import check_invariants
from tests.cases.case import Case, only_sync


def asked(step: Any) -> tuple[datetime, UUID, float]:
    return step.now(), step.uuid(), step.random()


def test_each_is_the_same_in_every_replay_and_another_at_every_place(case: Case) -> None:
    """What the code between steps asks for is decided when it first comes there; errors and sleeps change nothing."""
    passes: list[list[tuple[datetime, UUID, float]]] = []

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        told = [asked(step)]
        passes.append(told)
        yield step.run("a", case.body("a", fails=1))
        told.append(asked(step))
        yield step.sleep("pause", 0.05)
        told.append(asked(step))
        if len(passes) < 5:
            raise ValueError("between steps")
        return [list(each) for each in told]

    began = datetime.now(UTC)
    run = case.run()
    assert run.status == "completed", run.error
    assert case.ledger == ["a", "a"]
    for told in passes:
        assert told == passes[-1][: len(told)]
    (now, first, number), (later, second, _), (last, third, _) = passes[-1]
    assert began <= now <= later <= last - timedelta(seconds=0.05)
    assert now.tzinfo is UTC
    assert len({first, second, third}) == 3
    assert [first.version, 0.0 <= number < 1.0] == [4, True]
    assert run.recorded == 2
    assert list(case.app.runs.outputs(run.id)) == ["a", "pause"]
    assert check_invariants(case.app.store) == []


def test_they_have_no_job_and_no_attempts_of_their_own(case: Case) -> None:
    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("a", case.body("a"))
        for _ in range(40):
            step.random()
        yield step.run("b", case.body("b"))

    run = case.run()
    assert run.status == "completed"
    assert [step.id for step in run.steps] == ["a", "b"]
    assert len(case.jobs()) == 3


def test_a_step_may_have_the_same_name(case: Case) -> None:
    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        now = step.now()
        got = yield step.run("now", case.body("a", "of the step"))
        return [got, step.now() > now]

    assert case.run().result == ["of the step", True]


def test_inside_a_step_they_are_refused(case: Case) -> None:
    """As any step inside a step is (BEHAVIOURS 15): its body may be tried again, and would see the first try's."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("outer", lambda: step.uuid())

    run = case.run()
    assert run.status == "failed"
    assert run.error is not None
    assert "nested steps" in run.error.message


@only_sync
@pytest.mark.parametrize("ending", ["chain", "finish", "sleep"])
def test_a_value_is_recorded_before_anything_that_was_made_of_it(case: Case, ending: str) -> None:
    """I9: also where Redis has lost it on the way."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("a", case.body("a"))
        if not case.ledger.count("flushed"):
            case.ledger.append("flushed")
            case.app.store.client.script_flush()
        token = step.uuid()
        case.ledger.append(token)
        if ending == "chain":
            yield step.options(queue="case-2").run("b", case.body("b"))
        elif ending == "sleep":
            yield step.sleep("pause", 0.02)
        return str(token)

    case.start(queues=("flow", "case-2"))
    run = case.run()
    tokens = {each for each in case.ledger if isinstance(each, UUID)}
    assert {str(token) for token in tokens} == {run.result}
    assert case.app.store.client.hexists(case.app.store.keys.memo(run.id), "=uuid:1")


@only_sync
def test_their_bytes_count_for_the_limit_of_a_runs_state(case: Case) -> None:
    """BEHAVIOURS 19."""

    @case.function(limits=Limits(state_bytes=2000))
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("a", case.body("a"))
        for _ in range(1000):
            step.uuid()

    run = case.run()
    assert run.status == "failed"
    assert run.error is not None
    assert "state size" in run.error.message
    assert "step.uuid()" in run.error.message
