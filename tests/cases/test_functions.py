"""Functions and their steps: each body once, its value kept, whoever carries the run on."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Any

import pytest
from rq.registry import FinishedJobRegistry

from flowlib import Event, Step, step_options
from flowlib.journal import id_of
from tests.cases.case import Case, in_place, only_async, only_sync
from tests.patience import until


def test_a_function_without_steps_completes_with_what_it_returned(case: Case) -> None:
    """BEHAVIOURS 1."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        return {"double": event.data["n"] * 2}

    run = case.run({"n": 21})
    assert (run.status, run.result, run.error, run.steps) == ("completed", {"double": 42}, None, ())


def test_steps_one_after_the_other_run_once_each(case: Case) -> None:
    """BEHAVIOURS 2."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        first = yield step.run("first", case.body("first", 1))
        second = yield step.run("second", case.body("second", first + 1))
        return [first, second]

    run = case.run()
    assert (run.status, run.result) == ("completed", [1, 2])
    assert case.ledger == ["first", "second"]
    assert [(step.id, step.status, len(step.attempts)) for step in run.steps] == [
        ("first", "completed", 1), ("second", "completed", 1),
    ]  # fmt: skip


def test_a_run_that_moves_from_worker_to_worker_runs_each_step_once(case: Case) -> None:
    """BEHAVIOURS 2: here every job is done by another worker."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        a = yield step.run("a", case.body("a", 1))
        b = yield step.run("b", case.body("b", a + 1))
        return (yield step.run("c", case.body("c", b + 1)))

    case.start(max_jobs=1, budget=0, threads=1)
    run_id = case.send()
    for _ in "abc":
        case.join()
        case.start(max_jobs=1, budget=0, threads=1)
    run = case.ended(run_id)
    assert (run.status, run.result, case.ledger) == ("completed", 3, ["a", "b", "c"])
    assert len({entry.worker for entry in case.entries(run_id, "claimed")}) == 4


def test_a_function_gets_its_event_and_knows_its_run(case: Case) -> None:
    """BEHAVIOURS 3."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        inside = yield step.run("attempt", lambda: step.attempt)
        return [event.id, event.name, event.data, event.ts, step.run_id, step.attempt, inside]

    ts = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    run = case.run(event=Event("test", {"a": 1}, "my-id", ts))
    assert run.result == ["my-id", "test", {"a": 1}, ts, run.id, 1, 1]


STRANGE_IDS = [
    "Prüfung", "名前", "🎉 party", "it's \"quoted\"", "a/b/../c", "with blanks ", "\ttab\nline\0", "1:a", "a", "A", ":",
    "{}", "x" * 256, "é" * 256, "\ud800", "-", "_", "résumé", "re\u0301sume\u0301", "step[17]", "0",
]  # fmt: skip


def test_any_text_is_a_step_id(case: Case) -> None:
    """BEHAVIOURS 6; to RQ each is a job with an id that it takes."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        values = {}
        for place, step_id in enumerate(STRANGE_IDS):
            values[step_id] = yield step.run(step_id, case.body(step_id, place))
        return list(values.values())

    run = case.run()
    assert run.result == list(range(len(STRANGE_IDS)))
    assert case.ledger == STRANGE_IDS
    assert [step.id for step in run.steps] == STRANGE_IDS
    jobs = set(FinishedJobRegistry("flow", connection=case.app.store.client).get_job_ids()) - {run.id}
    assert len(jobs) == len(STRANGE_IDS)
    assert all(job.replace("-", "").replace("_", "").isalnum() and job.isascii() for job in jobs)


def test_a_step_id_in_a_loop_has_a_memo_for_each_time(case: Case) -> None:
    """BEHAVIOURS 7."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        total = 0
        for n in range(5):
            total = total * 10 + (yield step.run("charge", case.body(n, n)))
        return total

    run = case.run()
    assert run.result == 1234
    assert case.ledger == [0, 1, 2, 3, 4]
    assert [step.id for step in run.steps] == ["charge", *(f"charge ({n})" for n in (2, 3, 4, 5))]


def test_arguments_reach_the_step_whatever_their_names(case: Case) -> None:
    """BEHAVIOURS 10 and 11."""

    def take(*args: Any, **kwargs: Any) -> Any:
        return [list(args), kwargs]

    named = dict.fromkeys(["id", "fn", "self", "step", "retries", "timeout", "queue", "options", "event", "args"], 1)

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        positional = yield step.run("positional", take, 1, "two", None)
        keyword = yield step.run("keyword", take, **named)
        return [positional, keyword]

    assert case.run().result == [[[1, "two", None], {}], [[], named]]


def test_steps_in_another_order_at_each_pass_run_once_each(case: Case) -> None:
    """BEHAVIOURS 14; each body fails once, so that a run in place has several passes too."""
    chance = Random(14)

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        values = {}
        for name in chance.sample("abcd", 4):
            values[name] = yield step.run(name, case.body(name, f"value of {name}", fails=1))
        return values

    run = case.run()
    assert run.result == {name: f"value of {name}" for name in "abcd"}
    assert Counter(case.ledger) == dict.fromkeys("abcd", 2)
    assert {step.status for step in run.steps} == {"completed"}
    assert "running" not in {attempt.outcome for step in run.steps for attempt in step.attempts}


def test_a_step_inside_a_step_fails_the_run_for_good(case: Case) -> None:
    """BEHAVIOURS 15."""

    @case.function(retries=3)
    def f(event: Event[Any], step: Any) -> Any:
        inner = case.body("inner")

        def outer() -> None:
            case.ledger.append("outer")
            step.run("inner", inner)
            case.ledger.append("after inner")

        async def outer_async() -> None:
            case.ledger.append("outer")
            await step.run("inner", inner)
            case.ledger.append("after inner")

        try:
            yield step.run("outer", outer_async if case.way.is_async else outer)
        except Exception:
            case.ledger.append("caught")
        yield step.run("next", case.body("next"))

    run = case.run()
    assert run.status == "failed"
    assert run.error is not None
    assert run.error.type == "ConfigError"
    assert "nested steps: step 'inner' was called inside step 'outer'" in run.error.message
    assert case.ledger == ["outer"]
    assert [(step.id, step.status, step.attempts[-1].outcome) for step in run.steps] == [("outer", "failed", "failed")]


def test_one_id_for_two_steps_fails_the_run_and_names_both(case: Case) -> None:
    """Bad input: a duplicate step id."""

    def charge() -> int:
        return 1

    def refund() -> int:
        return 2

    @case.function(retries=3)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("pay", charge)
        yield step.run("pay", refund)

    run = case.run()
    assert run.error is not None
    assert run.error.type == "ConfigError"
    assert "duplicate step id 'pay'" in run.error.message
    assert ".charge" in run.error.message
    assert ".refund" in run.error.message


def test_default_options_of_a_step_function_hold_in_every_function_and_a_call_overrides_them(case: Case) -> None:
    """BEHAVIOURS 22."""

    @step_options(retries=2, backoff=0)
    def flaky(who: str) -> None:
        case.ledger.append(who)
        raise ValueError(who)

    class Flaky:
        @step_options(retries=2, backoff=0)
        def __call__(self, who: str) -> None:
            flaky(who)

    @case.function(on="one", retries=0)
    def one(event: Event[Any], step: Any) -> Any:
        yield step.run("flaky", flaky, "one")

    @case.function(on="object", retries=0)
    def of_object(event: Event[Any], step: Any) -> Any:
        yield step.run("flaky", Flaky(), "object")

    @case.function(on="partial", retries=0)
    def of_partial(event: Event[Any], step: Any) -> Any:
        yield step.run("flaky", partial(flaky, "partial"))

    @case.function(on="two", retries=9)
    def two(event: Event[Any], step: Any) -> Any:
        yield step.run("flaky", flaky, "two")

    @case.function(on="three", retries=9)
    def three(event: Event[Any], step: Any) -> Any:
        yield step.options(retries=1).run("flaky", flaky, "three")

    for name in ("one", "two", "three", "object", "partial"):
        assert case.run(event=Event(name, {})).status == "failed"
    assert case.ledger == ["one"] * 3 + ["two"] * 3 + ["three"] * 2 + ["object"] * 3 + ["partial"] * 3


def test_options_of_one_call_are_of_no_other(case: Case) -> None:
    """BEHAVIOURS 22: `step.options` gives another face; the one that the function got stays as it was."""

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        patient = step.options(retries=5).options(timeout=30)
        yield patient.run("patient", case.body("patient", fails=3))
        yield step.run("plain", case.body("plain", fails=1))

    run = case.run()
    assert run.error is not None
    assert run.error.step == "plain"
    assert case.ledger == ["patient"] * 4 + ["plain"]


def test_a_step_goes_to_the_queue_that_it_is_told(case: Case) -> None:
    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.options(queue="high").run("urgent", case.body("urgent"))
        yield step.run("usual", case.body("usual"))

    case.start(queues=("high", "flow"))
    run = case.run()
    assert case.ledger == ["urgent", "usual"]
    claimed = [(id_of(entry.step), entry.detail["queue"]) for entry in case.entries(run.id, "claimed")]
    assert claimed == [("", "flow"), ("urgent", "high"), ("usual", "flow")]


def test_a_step_that_returned_nothing_is_not_run_again(case: Case) -> None:
    """BEHAVIOURS 23."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        nothing = yield step.run("nothing", case.body("nothing"))
        yield step.sleep("pause", 0.01)
        again = yield step.run("again", case.body("again"))
        return [nothing, again]

    assert case.run().result == [None, None]
    assert case.ledger == ["nothing", "again"]


def test_bodies_may_be_sync_or_async_in_either_kind_of_function(case: Case) -> None:
    async def later(value: int) -> int:
        await asyncio.sleep(0.001)
        return value + 1

    def now(value: int) -> int:
        return value + 1

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        one = yield step.run("later", later, 0)
        return (yield step.run("now", now, one))

    assert case.run().result == 2


@pytest.mark.parametrize("budget", [10, 0])
@only_async
def test_coroutines_side_by_side_run_their_steps_once_each(case: Case, budget: float) -> None:
    async def work(name: str) -> str:
        case.ledger.append(name)
        await asyncio.sleep(0.001)
        return name.upper()

    @case.function()
    async def gathered(event: Event[Any], step: Any) -> Any:
        return await asyncio.gather(*(step.run(name, work, name) for name in "abc"))

    @case.function(on="group")
    async def grouped(event: Event[Any], step: Any) -> Any:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(step.run(name, work, name)) for name in "abc"]
        return [task.result() for task in tasks]

    case.start(budget=budget)
    for name in ("test", "group"):
        run = case.run(event=Event(name, {}))
        assert (run.status, run.result) == ("completed", ["A", "B", "C"])
        assert sorted(case.ledger) == ["a", "b", "c"]
        case.ledger.clear()


@only_sync
def test_except_exception_does_not_eat_what_unwinds_the_function(case: Case) -> None:
    """Control flow is a BaseException."""

    @case.app.function(on="test", retries=0)
    def f(event: Event[Any], step: Step) -> str:
        for name in "ab":
            try:
                step.run(name, case.body(name))
            except Exception as error:
                case.ledger.append(error)
        return "done"

    case.start(budget=0)
    assert case.run().result == "done"
    assert case.ledger == ["a", "b"]


@in_place
def test_each_function_of_an_event_has_a_run_of_its_own(case: Case) -> None:
    for name in ("one", "two"):

        @case.function(name=name)
        def f(event: Event[Any], step: Any, name: str = name) -> Any:
            yield step.run("step", case.body(name))

    case.start()
    event_id = case.app.send(Event("test", {}))
    runs = until(lambda: found if len(found := case.app.runs.of_event(event_id)) == 2 else None)
    assert {case.ended(run_id).function for run_id in runs} == {"one", "two"}
    assert sorted(case.ledger) == ["one", "two"]
