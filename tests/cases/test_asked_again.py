"""Promises that lost against a time limit and are asked for again, or are asked for by several: they stay as they are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flowlib import Event
from flowlib.testing import check_invariants
from tests.cases.case import Case, only_async, only_sync
from tests.patience import until


def settle(case: Case) -> None:
    """Once it is waited for after the reminder; with that the run completes, and has reminded of it once."""
    run_id = case.send()
    until(lambda: "remind" in case.app.runs.outputs(run_id))
    until(lambda: {s.id: s.status for s in case.app.runs.get(run_id).steps}.get("approval") == "waiting")
    until(lambda: check_invariants(case.app.store) == [])
    case.app.promises.resolve(case.ledger[0], "yes")
    run = case.ended(run_id)
    assert (run.status, run.result) == ("completed", "yes"), run.error
    assert case.ledger.count("remind") == 1
    assert check_invariants(case.app.store) == []


@only_sync
def test_a_promise_that_has_lost_a_race_may_win_the_next_one(case: Case) -> None:
    """I4: a replay that comes to the first race does not drop what the second one waits for."""

    @case.app.function(on="test")
    def f(event: Event[Any], step: Any) -> Any:
        promise = step.promise("approval")
        step.run("tell", case.ledger.append, promise.token)
        if step.first(promise, step.timer("day", 0.05)) is not promise:
            step.run("remind", case.ledger.append, "remind")
        return promise.result() if step.first(promise, step.timer("week", 3600)) is promise else None

    settle(case)


@only_async
def test_a_promise_that_came_too_late_may_be_awaited_anew(case: Case) -> None:
    """I4: as above, by a time limit of asyncio's."""

    @case.app.function(on="test")
    async def f(event: Event[Any], step: Any) -> Any:
        promise = step.promise("approval")
        await step.run("tell", case.ledger.append, promise.token)
        seconds = 0.05
        while True:
            try:
                async with asyncio.timeout(seconds):
                    return await promise.result()
            except TimeoutError:
                await step.run("remind", case.ledger.append, "remind")
                seconds = 3600

    settle(case)


@only_async
def test_of_two_that_await_one_promise_one_may_give_up(case: Case) -> None:
    @case.app.function(on="test")
    async def f(event: Event[Any], step: Any) -> Any:
        promise = step.promise("approval")
        await step.run("tell", case.ledger.append, promise.token)

        async def reminder() -> None:
            try:
                async with asyncio.timeout(0.05):
                    await promise.result()
            except TimeoutError:
                await step.run("remind", case.ledger.append, "remind")

        return (await asyncio.gather(reminder(), promise.result()))[1]

    settle(case)


@pytest.mark.parametrize("unasked", [False, True], ids=["asked again", "left"])
@only_sync
def test_what_has_lost_is_dropped_before_anything_else_is_done(case: Case, unasked: bool) -> None:
    @case.app.function(on="test")
    def f(event: Event[Any], step: Any) -> Any:
        slow = step.timer("slow", 3600)
        won = step.first(step.timer("quick", 0.01), slow) is not slow
        if not unasked:
            step.run("after", case.body("after"))
        return won

    run = case.run()
    assert run.result is True, run.error
    assert "dropped" in [entry.kind for entry in case.app.runs.history(run.id) if entry.step == "1:slow"]
    assert check_invariants(case.app.store) == []
