"""The workers that come with RQ run our jobs too, slower, and whatever they lose or deliver twice is made good."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from rq.job import JobStatus

import flowlib.job
from tests.patience import PATIENCE, until

from .conftest import Shop

WORKERS: dict[str, Callable[[Shop], Any]] = {"fork": Shop.fork_worker, "simple": Shop.simple_worker}
workers = pytest.mark.parametrize("work", WORKERS.values(), ids=WORKERS)


def work_until_ended(shop: Shop, run: str, work: Callable[[Shop], Any]) -> None:
    """RQ's workers without its scheduler: somebody else fires what is due and finds what is stranded."""
    deadline = time.monotonic() + PATIENCE
    while not shop.get(run).finished:
        assert time.monotonic() < deadline, f"{shop.get(run)}\n{shop.app.runs.history(run)}"
        if shop.queue.count:
            work(shop)
        shop.house.reconcile(suspicion=0.0)
        shop.house.fire()


def expire_leases(shop: Shop) -> None:
    """As if a lease's time had passed."""
    key = shop.store.keys.leases
    leases: Any = shop.client.zrange(key, 0, -1)
    shop.client.zadd(key, dict.fromkeys(leases, 0))


@workers
def test_a_run_is_completed_by_rqs_own_worker(shop: Shop, work: Callable[[Shop], Any]) -> None:
    """DESIGN §6: a retry after its back-off, a failure that is caught, a sleep."""
    run = shop.send("journey")
    work_until_ended(shop, run, work)
    assert shop.get(run).result == ["worked", "never", "last"]
    assert shop.diary() == ["try 1", "try 2", "refuse", "last"]
    tries = {step.id: [a.outcome for a in step.attempts] for step in shop.get(run).steps}
    assert tries == {"flaky": ["retry", "ok"], "doomed": ["failed"], "nap": ["ok"], "last": ["ok"]}
    assert shop.job(run, "last").return_value() == "last"
    assert shop.job(run, "last").get_status() == JobStatus.FINISHED
    assert shop.job(run, "doomed").get_status() == JobStatus.FAILED
    assert shop.faults() == []


def test_a_back_off_lasts_as_long_with_rqs_own_worker(shop: Shop) -> None:
    run = shop.send("journey")
    work_until_ended(shop, run, Shop.simple_worker)
    first, second = shop.get(run).steps[0].attempts
    assert first.ended is not None
    assert second.started - first.ended >= 1.0


@workers
def test_a_back_off_needs_neither_rqs_scheduler_nor_the_reconciler(shop: Shop, work: Callable[[Shop], Any]) -> None:
    """The timer is ours, also when it is a worker of RQ's that has run the attempt."""
    run = shop.send("journey")
    work(shop)
    assert shop.get(run).state == "retrying"
    assert shop.faults() == []
    until(lambda: shop.house.fire() and shop.queue.job_ids == [f"{run}-flaky"])
    assert shop.queue.scheduled_job_registry.get_job_ids() == []
    work(shop)
    first, second = shop.get(run).steps[0].attempts
    assert first.ended is not None
    assert second.started - first.ended >= 1.0
    assert shop.faults() == []


def test_what_rqs_own_worker_does_not_know_is_parked_for_one_that_does(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BEHAVIOURS 125: its code is older than the run. The lease is given back, or it would only be lost again and again."""
    run = shop.send("order", amount=1)
    with monkeypatch.context() as older:
        older.delitem(flowlib.job.load("tests.rq.shop:app").functions, "order")
        shop.simple_worker()
        assert shop.get(run).state == "parked"
        assert shop.faults() == []
    work_until_ended(shop, run, Shop.simple_worker)
    assert shop.get(run).result == 2
    assert [entry.kind for entry in shop.app.runs.history(run)].count("lost") == 0
    assert shop.faults() == []


def test_both_kinds_of_worker_side_by_side_run_every_step_once(shop: Shop) -> None:
    shop.flow_worker(budget=0.0)
    runs = [shop.send("order", amount=n) for n in range(20)]
    deadline = time.monotonic() + PATIENCE
    while not all(shop.get(run).finished for run in runs):
        assert time.monotonic() < deadline
        shop.simple_worker()
    assert [shop.get(run).result for run in runs] == [n + 1 for n in range(20)]
    assert Counter(shop.diary()) == {"reserve": 20, "charge": 20}
    until(lambda: shop.faults() == [])


def test_a_callback_that_raises_keeps_the_memo_and_one_successor_comes(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BEHAVIOURS 144: RQ calls the job failed; its lease runs out, and the replay finds the memo."""
    run = shop.send("order", amount=1)
    chains = [flowlib.job.chain, flowlib.job.chain_failed]

    def broken(job: Any, *_: Any) -> None:
        if job.id == f"{run}-reserve":
            raise RuntimeError("the callback broke")
        chains[0](job, *_)

    monkeypatch.setattr(flowlib.job, "chain", broken)
    monkeypatch.setattr(flowlib.job, "chain_failed", broken)
    shop.simple_worker()
    assert shop.job(run, "reserve").get_status() == JobStatus.FAILED
    assert shop.queue.job_ids == []
    monkeypatch.undo()
    expire_leases(shop)
    assert shop.house.reap() == 1
    work_until_ended(shop, run, Shop.simple_worker)
    assert shop.get(run).result == 2
    assert shop.diary() == ["reserve", "charge"]
    assert shop.kinds(run, "charge").count("queued") == 1
    assert shop.faults() == []


def test_a_callback_that_comes_twice_makes_one_successor(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """BEHAVIOURS 145: RQ put the job back after the callback, or called it again."""
    run = shop.send("order", amount=1)
    chain = flowlib.job.chain

    def twice(*arguments: Any) -> None:
        chain(*arguments)
        chain(*arguments)

    monkeypatch.setattr(flowlib.job, "chain", twice)
    work_until_ended(shop, run, Shop.simple_worker)
    assert shop.diary() == ["reserve", "charge"]
    assert shop.kinds(run, "charge").count("queued") == 1
    assert shop.faults() == []


def test_a_job_that_rq_puts_back_after_its_end_runs_nothing(shop: Shop) -> None:
    """BEHAVIOURS 145: its run has gone on; the late job finds that out."""
    run = shop.send("hold")
    shop.open_gate()
    work_until_ended(shop, run, Shop.simple_worker)
    for step in ("", "hold", "after"):
        shop.queue.enqueue_job(shop.job(run, step))
    before = shop.app.runs.history(run)
    shop.simple_worker()
    assert shop.queue.count == 0
    assert shop.app.runs.history(run) == before
    assert shop.diary() == ["hold", "after"]


def test_a_horse_killed_before_the_memo_runs_its_step_again(shop: Shop) -> None:
    """BEHAVIOURS 142: at least once, and the loss is shown."""
    run = shop.send("die in the body")
    assert "Work-horse terminated unexpectedly" in shop.fork_worker()
    expire_leases(shop)
    assert shop.house.reap() == 1
    work_until_ended(shop, run, Shop.fork_worker)
    assert shop.get(run).result == "alive"
    assert shop.diary() == ["side effect", "side effect"]
    (step,) = shop.get(run).steps
    assert [(attempt.number, attempt.outcome) for attempt in step.attempts] == [(1, "lost"), (1, "ok")]
    assert shop.faults() == []


def test_a_horse_killed_after_the_memo_does_not_run_its_step_again(shop: Shop) -> None:
    """BEHAVIOURS 143: in the callback, before the next step has its job."""
    run = shop.send("die after the memo")
    assert "Work-horse terminated unexpectedly" in shop.fork_worker()
    assert shop.kinds(run, "said").count("recorded") == 1
    assert shop.kinds(run, "last") == []
    expire_leases(shop)
    assert shop.house.reap() == 1
    work_until_ended(shop, run, Shop.fork_worker)
    assert shop.get(run).result == "said and done"
    assert shop.diary() == ["said", "said and done"]
    assert shop.faults() == []


def test_our_worker_takes_over_what_a_killed_horse_has_left(shop: Shop) -> None:
    """BEHAVIOURS 142, 143."""
    runs = [shop.send("die in the body"), shop.send("die after the memo")]
    shop.fork_worker()
    expire_leases(shop)
    shop.flow_worker()
    assert [shop.app.runs.result(run, 10) for run in runs] == ["alive", "said and done"]
    assert Counter(shop.diary()) == {"side effect": 2, "said": 1, "said and done": 1}
    assert shop.faults() == []


@pytest.mark.parametrize("ours", [True, False], ids=["flow", "simple"])
def test_a_run_outlives_the_jobs_of_its_steps(shop: Shop, ours: bool) -> None:
    """BEHAVIOURS 149: RQ keeps results for a while, the memo is ours. No reconciler mends anything here."""
    run = shop.send("order for later", amount=1)
    if ours:
        shop.flow_worker(reconcile_every=3600.0)
    else:
        shop.simple_worker()
    until(lambda: shop.get(run).state == "sleeping")
    kept = [f"rq:{kind}:{job}" for kind in ("job", "results") for job in (run, f"{run}-reserve")]
    assert shop.client.delete(*kept) == len(kept)
    assert shop.client.zadd(shop.store.keys.timers, {f"{run}-hour": 1}, xx=True, ch=True) == 1
    shop.client.publish(shop.store.keys.timers_channel, "")
    if not ours:
        until(lambda: shop.house.fire() and shop.queue.count)
        shop.simple_worker()
    assert shop.app.runs.result(run, PATIENCE) == 2
    assert shop.diary() == ["reserve", "charge"]
    assert shop.faults() == []
