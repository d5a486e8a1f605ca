"""Ending a run from outside: nothing of it is left, a running body is interrupted, and what has ended stays as it is."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from rq.job import Job
from rq.registry import BaseRegistry, ScheduledJobRegistry, StartedJobRegistry
from rq.suspension import resume, suspend

from flowlib import App, Event, NotFound, RunCancelled, RunEnded
from tests.cases.case import Case, in_place, only_sync
from tests.patience import until


def nothing_is_left(case: Case) -> None:
    """No job is queued, scheduled or on a worker, neither to us nor to RQ."""
    client, keys = case.app.store.client, case.app.store.keys
    assert client.lrange(keys.rq_queue("flow"), 0, -1) == []
    assert client.zrange(keys.timers, 0, -1) == []
    assert client.zrange(keys.leases, 0, -1) == []
    assert client.zrange(keys.active("case"), 0, -1) == []
    registries: list[type[BaseRegistry]] = [ScheduledJobRegistry, StartedJobRegistry]
    assert [registry("flow", connection=client).get_job_ids() for registry in registries] == [[], []]


def cancelled(case: Case, run_id: str, reason: str = "") -> None:
    run = case.app.runs.get(run_id)
    assert (run.status, run.state, run.reason, run.result, run.error) == ("cancelled", "", reason, None, None)
    with pytest.raises(RunCancelled, match=f"run {run_id} was cancelled: {reason}" if reason else "was cancelled$"):
        case.app.runs.result(run_id, timeout=20)


def test_a_running_body_is_interrupted_and_its_result_dropped(case: Case) -> None:
    """BEHAVIOURS 97."""

    def work() -> str:
        case.ledger.append("begin")
        try:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                time.sleep(0.002)
        except BaseException as error:
            case.ledger.append(type(error).__name__)
            raise
        return "too late"

    async def work_async() -> str:
        case.ledger.append("begin")
        try:
            await asyncio.sleep(20)
        except BaseException as error:
            case.ledger.append(type(error).__name__)
            raise
        return "too late"

    @case.function(retries=5)
    def f(event: Event[Any], step: Any) -> Any:
        if event.data.get("idle"):
            return "idle"
        yield step.run("work", work_async if case.way.is_async else work)
        yield step.run("never", case.body("never"))

    run_id = case.send()
    until(lambda: case.ledger == ["begin"])
    until(lambda: case.app.runs.get(run_id).step == "work")  # in place, Redis hears of a step a moment later
    case.app.runs.cancel(run_id, reason="not wanted")
    cancelled(case, run_id, "not wanted")
    until(lambda: len(case.ledger) == 2)
    assert case.run({"idle": True}).result == "idle"  # the worker is free again
    assert case.ledger == ["begin", "CancelledError" if case.way.is_async else "BodyStopped"]
    nothing_is_left(case)
    assert case.app.runs.outputs(run_id) == {}
    (work_record,) = case.app.runs.get(run_id).steps
    assert (work_record.status, work_record.attempts[-1].outcome) == ("cancelled", "cancelled")


def test_a_body_that_will_not_be_stopped_has_its_result_dropped(case: Case) -> None:
    """BEHAVIOURS 97: it is fenced, whatever it returns."""

    over = threading.Event()

    def stubborn() -> str:
        case.ledger.append("begin")
        while not over.is_set():
            with contextlib.suppress(BaseException):
                time.sleep(0.002)
        return "too late"

    async def stubborn_async() -> str:
        return stubborn()

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        if event.data.get("idle"):
            return "idle"
        yield step.run("work", stubborn_async if case.way.is_async else stubborn)
        yield step.run("never", case.body("never"))

    run_id = case.send()
    until(lambda: case.ledger)
    case.app.runs.cancel(run_id)
    cancelled(case, run_id)
    over.set()
    assert case.run({"idle": True}).result == "idle"
    assert case.ledger == ["begin"]
    assert case.app.runs.outputs(run_id) == {}
    nothing_is_left(case)


def asleep(case: Case) -> str:
    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("before", case.body("before", 1))
        yield step.sleep("night", timedelta(hours=8))
        yield step.run("after", case.body("after"))

    run_id = case.send()
    until(lambda: case.app.runs.get(run_id).state == "sleeping")
    return run_id


def backing_off(case: Case) -> str:
    @case.function(backoff=timedelta(hours=8))
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("flaky", case.body("before", fails=1))
        yield step.run("after", case.body("after"))

    run_id = case.send()
    until(lambda: case.app.runs.get(run_id).state == "retrying")
    return run_id


def queued(case: Case) -> str:
    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("after", case.body("after"))

    case.start()
    suspend(case.app.store.client)
    run_id = case.send()
    assert case.app.runs.get(run_id).state == "queued"
    case.ledger.append("before")
    return run_id


@pytest.mark.parametrize("waiting", [asleep, backing_off, queued])
@in_place
def test_of_a_waiting_run_nothing_is_left(case: Case, waiting: Callable[[Case], str]) -> None:
    """BEHAVIOURS 98: in a sleep, in a back-off, in a queue."""
    run_id = waiting(case)
    (job,) = [job.id for job in case.jobs() if job.get_status() != "finished"]
    case.app.runs.cancel(run_id)
    cancelled(case, run_id)
    nothing_is_left(case)
    assert Job.fetch(job, connection=case.app.store.client).get_status() == "canceled"
    resume(case.app.store.client)
    case.app.store.client.publish(case.app.store.keys.timers_channel, "")
    assert case.ended(run_id).status == "cancelled"
    assert case.ledger == ["before"]


@only_sync
def test_cancelling_one_run_leaves_its_neighbours_alone(case: Case) -> None:
    """BEHAVIOURS 98."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.sleep("nap", 0.3)
        case.ledger.append(event.data["n"])

    runs = [case.send({"n": n}) for n in range(3)]
    case.app.runs.cancel(runs[1])
    assert [case.ended(run_id).status for run_id in runs] == ["completed", "cancelled", "completed"]
    assert sorted(case.ledger) == [0, 2]


@only_sync
def test_a_run_that_has_ended_cannot_be_cancelled_and_does_not_change(case: Case) -> None:
    """BEHAVIOURS 101, and I6."""

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        if event.data["fail"]:
            raise ValueError("no")
        yield step.sleep("nap", event.data["nap"])
        return "done"

    completed = case.run({"fail": False, "nap": 0})
    failed = case.run({"fail": True})
    sleeping = case.send({"fail": False, "nap": 3600})
    case.app.runs.cancel(sleeping, reason="first")
    for run in (completed, failed, case.app.runs.get(sleeping)):
        with pytest.raises(RunEnded, match=rf"run {run.id} has ended already \({run.status}\): nothing was changed"):
            case.app.runs.cancel(run.id, reason="second")
        assert case.app.runs.get(run.id) == run
    assert case.app.runs.result(completed.id) == "done"


@pytest.mark.parametrize("run_id", ["01M82BJXPGV4FEK3F121HJKX05", "", "*", "no\nsuch run", "\ud800"], ids=ascii)
@only_sync
def test_a_run_that_does_not_exist_is_not_found(case: Case, run_id: str) -> None:
    """BEHAVIOURS 101."""
    asked: list[Callable[[str], Any]] = [case.app.runs.cancel, case.app.runs.get, case.app.runs.result]
    for ask in asked:
        with pytest.raises(NotFound, match=r"run .* does not exist: `flow runs` lists those that do"):
            ask(run_id)
    assert case.app.store.client.dbsize() == 0


@only_sync
def test_the_run_of_another_app_is_not_found(case: Case, redis_url: str) -> None:
    """BEHAVIOURS 101: an app's runs are its own."""

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.sleep("nap", 3600)

    run_id = case.send()
    stranger = App("stranger", redis_url=redis_url)
    with pytest.raises(NotFound):
        stranger.runs.cancel(run_id)
    assert case.app.runs.get(run_id).status == "running"
    stranger.store.close()
