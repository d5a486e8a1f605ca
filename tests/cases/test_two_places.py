"""Two workers between two steps of one run: what either makes up there is what whoever was first has made up."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest

from flowlib import Event
from flowlib.asking import MADE
from flowlib.held import HeldJob
from flowlib.middleware import Encryption
from flowlib.testing import check_invariants
from tests.cases.case import Case, only_sync
from tests.patience import until


def crew(case: Case) -> None:
    for _ in range(2):
        case.start()


@pytest.mark.parametrize("sealed", [False, True], ids=["clear", "sealed"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@only_sync
def test_of_a_value_that_two_workers_ask_for_at_once_there_is_one(
    case: Case, monkeypatch: pytest.MonkeyPatch, is_async: bool, sealed: bool
) -> None:
    """I1, I8: each makes up its own, and what the function does next hangs on it."""
    if sealed:
        case.use_middleware([Encryption({"key": bytes(32)})])
    both = threading.Barrier(2)
    made = iter([0.3, 0.8])
    monkeypatch.setitem(MADE, "random", lambda: next(made))

    def fast() -> None:
        both.wait(timeout=20)

    def slow(run_id: str) -> None:
        both.wait(timeout=20)
        until(lambda: {"x", "y"} & {*case.ledger})  # the value is made, and what hangs on it has begun

    def hangs_on_it(name: str, run_id: str) -> None:
        case.ledger.append(name)
        client, keys = case.app.store.client, case.app.store.keys
        until(lambda: len({*case.ledger}) == 2 or client.hkeys(keys.open(run_id)) == [f"1:{name}".encode()])

    def f(event: Event[Any], step: Any) -> Any:
        one, other = step.submit("fast", fast), step.submit("slow", slow, step.run_id)
        one.result()
        name = "x" if (value := step.random()) < 0.5 else "y"
        step.run(name, hangs_on_it, name, step.run_id)
        other.result()
        return value

    async def g(event: Event[Any], step: Any) -> Any:
        one, other = (asyncio.ensure_future(step.run(*each)) for each in (("fast", fast), ("slow", slow, step.run_id)))
        await one
        name = "x" if (value := step.random()) < 0.5 else "y"
        await step.run(name, hangs_on_it, name, step.run_id)
        await other
        return value

    case.app.function(on="test", retries=0)(g if is_async else f)
    crew(case)
    run = case.run()
    assert (run.status, run.result) == ("completed", 0.3), run.error
    assert case.ledger == ["x"]
    assert check_invariants(case.app.store) == []


@only_sync
def test_of_two_that_end_at_once_one_is_first_for_both_workers(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """I1: the one that knows who has won is held up before it can drop the other, which ends meanwhile."""
    drop = HeldJob.drop

    def late(job: HeldJob, steps: Any) -> bool:
        until(lambda: [said for said in case.ledger if said.startswith("behind")])
        return drop(job, steps)

    monkeypatch.setattr(HeldJob, "drop", late)
    both = threading.Barrier(2)

    def a() -> None:
        both.wait(timeout=20)

    def b(run_id: str) -> None:
        both.wait(timeout=20)
        client, keys = case.app.store.client, case.app.store.keys
        until(lambda: client.hexists(keys.memo(run_id), "=first:1:a:1"))

    @case.app.function(on="test", retries=0)
    def f(event: Event[Any], step: Any) -> str:
        one, other = step.submit("a", a), step.submit("b", b, step.run_id)
        name = "a" if step.first(one, other) is one else "b"
        step.run(f"behind {name}", case.body(f"behind {name}"))
        return name

    crew(case)
    run = case.run()
    assert (run.status, run.result) == ("completed", "a"), run.error
    assert Counter(case.ledger) == {"behind a": 1}
    assert check_invariants(case.app.store) == []
