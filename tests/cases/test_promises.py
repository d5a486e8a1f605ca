"""`step.promise`: settled once, by whoever has the token, before or after the run waits for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import pytest

from flowlib import Event, NotFound, PayloadError, PromiseSettled, RunEnded, StepFailed
from flowlib.testing import check_invariants
from tests.cases.case import Case, in_place, only_async, only_sync
from tests.patience import until


@dataclass(frozen=True)
class Verdict:
    ok: bool
    by: str = "nobody"


def waiting(case: Case, run_id: str) -> str:
    until(lambda: case.app.runs.get(run_id).state == "waiting")
    assert check_invariants(case.app.store) == []
    return run_id


def test_a_run_waits_for_its_promise_without_a_worker_and_goes_on_once_resolved(case: Case) -> None:
    """The token is known before the run waits, and stays the same in each replay."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        promise = step.promise("approval", as_=Verdict)
        yield step.run("mail", lambda: case.ledger.append(promise.token))
        found = yield promise.result()
        yield step.run("after", case.body(promise.token))
        return found

    run_id = waiting(case, case.send())
    (token,) = case.ledger
    case.app.promises.resolve(token, Verdict(True, "ada"))
    run = case.ended(run_id)
    assert run.result == {"ok": True, "by": "ada"}, run.error
    assert case.ledger == [token, token]
    assert [(step.id, step.kind, step.status) for step in run.steps] == [
        ("mail", "run", "completed"), ("approval", "promise", "completed"), ("after", "run", "completed"),
    ]  # fmt: skip
    assert check_invariants(case.app.store) == []


def test_a_promise_that_is_settled_before_it_is_waited_for_holds_nothing_up(case: Case) -> None:
    """Whoever was given the token may be fast."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        ok, no = step.promise("ok"), step.promise("no")
        yield step.run("mail", lambda: case.app.promises.resolve(ok.token, [1, 2]))
        yield step.run("mail-no", lambda: case.app.promises.reject(no.token, "over budget"))
        try:
            yield no.result()
        except StepFailed as failed:
            found = yield ok.result()
            return [found, failed.step, failed.type, failed.message]

    run = case.run()
    assert run.result == [[1, 2], "no", "Rejected", "over budget"], run.error
    assert check_invariants(case.app.store) == []


@in_place
def test_a_promise_is_settled_once_and_what_comes_later_is_told_so(case: Case) -> None:
    """Second, late, after the end, with no such token, with no such value."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        promise = step.promise("approval", timeout=timedelta(seconds=0.2))
        yield step.run("mail", lambda: case.ledger.append(promise.token))
        try:
            found = yield promise.result()
        except StepFailed as failed:
            found = failed.type
        yield step.wait_for_event("go", "go", timeout=60, since=event.ts)
        return found

    run_id = case.send()
    until(lambda: case.app.runs.get(run_id).recorded == 2)
    (token,) = case.ledger
    with pytest.raises(PromiseSettled, match="time was over"):
        case.app.promises.resolve(token, 1)
    case.app.send(Event("go", {}))
    assert case.ended(run_id).result == "WaitTimeout"
    with pytest.raises(RunEnded):
        case.app.promises.resolve(token, 1)
    with pytest.raises(PayloadError, match="value"):
        case.app.promises.resolve(token, object())
    with pytest.raises(
        PayloadError, match=r"promise of step 'approval' of run .*: value of 600005 bytes is over the limit"
    ):
        case.app.promises.resolve(token, "x" * 600_000)
    with pytest.raises(PayloadError, match="a reason must be a string, got 7"):
        case.app.promises.reject(token, cast(Any, 7))
    for wrong in (
        "",
        "x",
        cast(Any, None),
        cast(Any, b"x.y.z"),
        f"{token}x",
        token.replace(".", "-"),
        f"{'0' * 26}.{token.split('.', 1)[1]}",
        "é.ü.ß",
    ):
        with pytest.raises(NotFound, match="promise"):
            case.app.promises.resolve(wrong, 1)


@in_place
def test_of_two_who_settle_a_promise_the_second_is_refused(case: Case) -> None:
    """I1."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        promise = step.promise("approval")
        yield step.run("mail", lambda: case.ledger.append(promise.token))
        yield step.wait_for_event("go", "go", timeout=60)
        return (yield promise.result())

    run_id = waiting(case, case.send())
    (token,) = case.ledger
    case.app.promises.resolve(token, "first")
    with pytest.raises(PromiseSettled, match="settled before"):
        case.app.promises.reject(token, "second")
    case.app.send(Event("go", {}))
    assert case.ended(run_id).result == "first"
    assert check_invariants(case.app.store) == []


@in_place
def test_a_retried_run_waits_anew_for_the_promise_that_was_rejected(case: Case) -> None:
    """The token stays good."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        promise = step.promise("approval")
        yield step.run("mail", lambda: case.ledger.append(promise.token))
        return (yield promise.result())

    run_id = waiting(case, case.send())
    case.app.promises.reject(case.ledger[0], "no")
    error = case.ended(run_id).error
    assert error is not None
    assert (error.type, error.message, error.step) == ("Rejected", "no", "approval")
    case.app.runs.retry(run_id)
    waiting(case, run_id)
    case.app.promises.resolve(case.ledger[0], "yes")
    assert case.ended(run_id).result == "yes"
    assert check_invariants(case.app.store) == []


@only_sync
def test_all_kinds_of_steps_join_side_by_side(case: Case) -> None:
    """BEHAVIOURS 83, 90, 75, 76: children, promises, events, sleeps and bodies; one that fails leaves the others."""

    @case.function(on="double")
    def double(event: Event[Any], step: Any) -> Any:
        yield step.run("note", case.body(event.data["n"]))
        return 2 * event.data["n"]

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        promise = step.promise("approval")
        begun = [step.start(f"double[{n}]", "double", {"n": n}) for n in range(3)]
        bad = step.submit("bad", case.body("bad", fails=9, error=ValueError("bad")))
        told = step.submit("mail", lambda: case.app.promises.resolve(promise.token, "yes"))
        found = step.expect_event("told", "told", since=event.ts, timeout=60)
        nap = step.timer("nap", 0.05)
        step.send_event("tell", Event("told", 5))
        joined = step.gather(*begun, promise, told, found, nap)
        step.run("after", case.body("after"))
        try:
            bad.result()
        except StepFailed as failed:
            return [*joined[:4], joined[5].data, failed.type]

    run = case.run()
    assert run.result == [0, 2, 4, "yes", 5, "ValueError"], run.error
    assert [case.ledger.count(each) for each in (0, 1, 2, "after")] == [1, 1, 1, 1]
    assert len(case.app.runs.list(function="double")) == 3
    assert check_invariants(case.app.store) == []


@only_sync
def test_of_a_child_and_a_promise_the_first_wins_and_the_loser_is_dropped(case: Case) -> None:
    """BEHAVIOURS 92: the child that lost is cancelled."""

    @case.function(on="slow")
    def slow(event: Event[Any], step: Any) -> Any:
        yield step.sleep("nap", 3600)

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        promise = step.promise("approval")
        child = step.start("slow", "slow", {})
        step.run("mail", lambda: case.ledger.append(promise.token))
        return step.first(child, promise) is promise

    run_id = case.send()
    until(lambda: [child.state for child in case.app.runs.list(function="slow")] == ["sleeping"])
    until(lambda: case.ledger)
    case.app.promises.resolve(case.ledger[0])
    assert case.ended(run_id).result is True
    assert [child.status for child in case.app.runs.list(function="slow")] == ["cancelled"]
    assert check_invariants(case.app.store) == []


@only_async
def test_coroutines_wait_for_children_and_promises_side_by_side(case: Case) -> None:
    """BEHAVIOURS 83, 90."""
    import asyncio

    @case.function(on="double")
    async def double(event: Event[Any], step: Any) -> Any:
        return 2 * event.data["n"]

    @case.function()
    async def f(event: Event[Any], step: Any) -> Any:
        promise = step.promise("approval")

        async def mail() -> None:
            await step.run("mail", lambda: case.app.promises.resolve(promise.token, "yes"))

        return await asyncio.gather(
            step.invoke("a", "double", {"n": 1}), step.invoke("b", "double", {"n": 2}), promise.result(), mail()
        )

    run = case.run()
    assert run.result == [2, 4, "yes", None], run.error
    assert check_invariants(case.app.store) == []
