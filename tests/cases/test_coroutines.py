"""Coroutines of an async function side by side: asyncio's own tools over `await step.run(...)` fan out, durably."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from flowlib import AsyncStep, Event, NonRetriable, StepFailed
from flowlib.testing import check_invariants
from tests.cases.case import ASYNC, Case, Way
from tests.cases.test_parallel import Meeting, crew
from tests.patience import until

pytestmark = pytest.mark.parametrize("case", [ASYNC, Way(True, 0.0)], indirect=True, ids=str)


def test_gather_runs_steps_side_by_side_each_once(case: Case) -> None:
    """BEHAVIOURS 83, 85."""
    meeting = Meeting(3)

    @case.function()
    async def f(event: Event[Any], step: AsyncStep) -> Any:
        found = await asyncio.gather(*(step.run(f"s{n}", meeting.body, n) for n in range(3)))
        return [found, await step.run("after", case.body("after", sum(found)))]

    crew(case)
    run = case.run()
    assert run.status == "completed", run.error
    assert run.result == [[0, 1, 2], 3]
    assert case.ledger == ["after"]
    assert check_invariants(case.app.store) == []


def test_branches_run_ahead_of_each_other(case: Case) -> None:
    """BEHAVIOURS 87, 88: no lockstep: the fast one ends while the first step of the slow one still runs."""
    fast_is_done = threading.Event()

    def slow() -> str:
        assert fast_is_done.wait(20)
        return "slow"

    @case.function()
    async def f(event: Event[Any], step: AsyncStep) -> Any:
        async def branch(name: str) -> list[Any]:
            one = await step.run(f"{name}-1", slow if name == "slow" else case.body(f"{name}-1", 1))
            two = await step.run(f"{name}-2", case.body(f"{name}-2", 2))
            if name == "fast":
                await step.run("done", fast_is_done.set)
            return [one, two]

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(branch(name)) for name in ("slow", "fast")]
        return [task.result() for task in tasks]

    crew(case, 2)
    run = case.run()
    assert run.status == "completed", run.error
    assert run.result == [["slow", 2], [1, 2]]
    assert sorted(case.ledger) == ["fast-1", "fast-2", "slow-2"]
    assert check_invariants(case.app.store) == []


def test_many_branches_with_one_id_in_each_get_each_their_own(case: Case) -> None:
    """Whoever plays it, the function goes the same way: the n-th use of an id is the same one in every pass."""

    @case.function()
    async def f(event: Event[Any], step: AsyncStep) -> Any:
        async def branch(n: int) -> list[Any]:
            one = await step.run("double", double, n)
            return [one, await step.run("double", double, one), step.random()]

        return await asyncio.gather(*(branch(n) for n in range(6)))

    def double(n: int) -> int:
        case.ledger.append(n)
        return 2 * n

    crew(case, 4)
    run = case.run()
    assert run.status == "completed", run.error
    assert [row[:2] for row in run.result] == [[2 * n, 4 * n] for n in range(6)]
    assert len({row[2] for row in run.result}) == 6
    assert sorted(case.ledger) == sorted([*range(6), *range(0, 12, 2)])
    assert check_invariants(case.app.store) == []


@pytest.mark.parametrize("late", [False, True])
def test_wait_for_is_as_good_as_a_timeout_that_outlives_every_worker(case: Case, late: bool) -> None:
    release = threading.Event()

    def body() -> str:
        if late:
            until(release.is_set)
        return "value"

    @case.function()
    async def f(event: Event[Any], step: AsyncStep) -> Any:
        try:
            found = await asyncio.wait_for(step.run("body", body), timeout=0.1 if late else 60)
        except TimeoutError:
            found = "late"
        return [found, await step.run("after", case.body("after", 1))]

    crew(case, 2)
    run = case.run()
    release.set()
    assert run.status == "completed", run.error
    assert run.result == ["late" if late else "value", 1]
    assert {step.id: step.status for step in run.steps} == {
        "body": "cancelled" if late else "completed", "timeout": "completed" if late else "cancelled",
        "after": "completed",
    }  # fmt: skip
    assert check_invariants(case.app.store) == []


def test_what_came_first_is_first_in_every_pass(case: Case) -> None:
    """BEHAVIOURS 92: the winner of asyncio.wait is the same in all replays, also when the loser is recorded a moment later."""
    won: list[Any] = []

    @case.function()
    async def f(event: Event[Any], step: AsyncStep) -> Any:
        tasks = {asyncio.create_task(step.run(f"s{n}", case.body(n, n))) for n in range(4)}
        order = []
        while tasks:
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            order += [task.result() for task in done]
        won.append(order)
        await step.run("check", case.body("check", fails=2))
        return order

    crew(case, 3)
    run = case.run()
    assert run.status == "completed", run.error
    assert sorted(run.result) == [0, 1, 2, 3]
    assert {tuple(order) for order in won} == {tuple(run.result)}


def test_a_failed_branch_is_raised_where_it_is_awaited_and_the_others_run_on(case: Case) -> None:
    def bad() -> None:
        raise ValueError("no")

    @case.function(retries=0)
    async def f(event: Event[Any], step: AsyncStep) -> Any:
        found = await asyncio.gather(
            step.run("bad", bad), step.run("good", case.body("good", 1)), return_exceptions=True
        )
        return [isinstance(found[0], StepFailed), found[1]]

    crew(case, 2)
    run = case.run()
    assert run.status == "completed", run.error
    assert run.result == [True, 1]


def test_all_kinds_of_waiting_join(case: Case) -> None:
    """BEHAVIOURS 64, 90."""

    @case.function()
    async def f(event: Event[Any], step: AsyncStep) -> Any:
        answer, _, work, _ = await asyncio.gather(
            step.wait_for_event("answer", "answered", timeout=20), step.sleep("nap", 0.05),
            step.run("work", case.body("work", 5)), step.send_event("tell", Event("told", {})),
        )  # fmt: skip
        assert answer is not None
        return [answer.data["n"], work, await step.map("each", abs, [-1, -2, -3], limit=2)]

    crew(case, 2)
    run_id = case.send()
    until(lambda: any(entry.kind == "waiting" for entry in case.app.runs.history(run_id)))
    case.app.send(Event("answered", {"n": 3}))
    run = case.ended(run_id)
    assert run.status == "completed", run.error
    assert run.result == [3, 5, [1, 2, 3]]
    assert check_invariants(case.app.store) == []


def test_io_outside_a_step_is_refused_and_says_where_it_belongs(case: Case) -> None:
    @case.function(retries=0)
    async def f(event: Event[Any], step: AsyncStep) -> Any:
        await asyncio.to_thread(print)

    run = case.run()
    assert run.status == "failed"
    assert run.error is not None
    assert "do it inside a step" in run.error.message


def test_a_function_that_waits_for_nothing_fails_and_hangs_nobody_up(case: Case) -> None:
    @case.function(retries=0)
    async def f(event: Event[Any], step: AsyncStep) -> Any:
        await step.run("a", case.body("a"))
        await asyncio.Event().wait()

    run = case.run()
    assert run.status == "failed"
    assert run.error is not None
    assert "no step" in run.error.message


def test_sleeping_between_steps_holds_no_worker(case: Case) -> None:
    @case.function()
    async def f(event: Event[Any], step: AsyncStep) -> Any:
        await asyncio.sleep(0.05)
        return await step.run("a", case.body("a", 1))

    run = case.run()
    assert run.status == "completed", run.error
    assert [step.kind for step in run.steps] == ["sleep", "run"]


def test_what_a_function_leaves_behind_finishes_its_steps_and_sleeps_no_more(case: Case) -> None:
    @case.function()
    async def f(event: Event[Any], step: AsyncStep) -> Any:
        async def forever() -> None:
            await asyncio.sleep(3600)
            await forever()

        tasks = [asyncio.create_task(step.run("audit", case.body("audit"))), asyncio.create_task(forever())]
        return len(tasks)

    crew(case, 2)
    run = case.run()
    assert run.status == "completed", run.error
    assert case.ledger == ["audit"]
    assert check_invariants(case.app.store) == []


def test_what_a_retry_does_alone_comes_after_what_was_recorded_before(case: Case) -> None:
    """I8: the one that was first to ask for a value is so in every replay."""

    def fetch(name: str) -> None:
        case.ledger.append(f"fetch {name}")
        if case.ledger.count("fetch a") == 1 and name == "a":
            until(lambda: "pay b" in case.ledger)
            raise NonRetriable("no")

    def pay(name: str, key: str) -> str:
        case.ledger.append(f"pay {name}")
        keys[name].add(key)
        if case.ledger.count("pay a") == 1 and name == "a":
            raise ConnectionError("once more")
        return key

    keys: dict[str, set[str]] = {"a": set(), "b": set()}

    @case.function(backoff=0)
    async def f(event: Event[Any], step: AsyncStep) -> Any:
        async def part(name: str) -> str:
            await step.run(f"fetch-{name}", fetch, name)
            return await step.run(f"pay-{name}", pay, name, str(step.uuid()))

        return await asyncio.gather(part("a"), part("b"))

    crew(case, 2)
    failed = case.run()
    assert (failed.status, failed.error and failed.error.step) == ("failed", "fetch-a"), failed.error
    case.app.runs.retry(failed.id)
    run = case.ended(failed.id)
    assert run.status == "completed", run.error
    assert [len(each) for each in keys.values()] == [1, 1]
    assert keys["a"] != keys["b"]
    assert check_invariants(case.app.store) == []
