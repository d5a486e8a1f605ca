"""What people do to our jobs with RQ's tools: whatever it is, no recorded step runs again, and no run is stranded (I3, I4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rq import Worker
from rq.command import send_command, send_stop_execution_command
from rq.job import Job, JobStatus

from flowlib import RunCancelled
from tests.patience import until

from .conftest import Shop

# -- put back ----------------------------------------------------------------------------------------------------------

REQUEUES: dict[str, Callable[[Shop, Job], Any]] = {
    "rq requeue": lambda shop, _: shop.rq("requeue", "--queue", "flow", "--all", "--serializer", "json"),
    "job.requeue": lambda _, job: job.requeue(),
    "registry.requeue": lambda shop, job: shop.queue.failed_job_registry.requeue(job.id, at_front=True),
    "queue.enqueue_job": lambda shop, job: shop.queue.enqueue_job(job),
}


@pytest.mark.parametrize("requeue", REQUEUES.values(), ids=REQUEUES)
def test_a_failed_step_that_is_requeued_does_not_run_again(shop: Shop, requeue: Callable[[Shop, Job], Any]) -> None:
    """I3, I6: its failure is recorded; its run has ended with it, or has gone on."""
    shop.flow_worker()
    run = shop.send("break")
    until(lambda: shop.get(run).finished)
    before = shop.app.runs.history(run)
    requeue(shop, shop.job(run, "break"))
    until(lambda: not shop.queue.count and shop.job(run, "break").get_status() == JobStatus.CANCELED)
    assert shop.app.runs.result(shop.send("order", amount=1), 10) == 2
    assert shop.diary() == ["break", "reserve", "charge"]
    assert shop.app.runs.history(run) == before
    assert shop.faults() == []


def test_a_failure_that_was_caught_is_not_tried_again_when_it_is_requeued_on_the_way(shop: Shop) -> None:
    run = shop.send("journey")
    shop.flow_worker()
    until(lambda: "doomed" in [step.id for step in shop.get(run).steps])
    until(lambda: shop.get(run).finished or shop.get(run).state == "sleeping")
    shop.job(run, "doomed").requeue()
    assert shop.app.runs.result(run, 10) == ["worked", "never", "last"]
    assert shop.diary() == ["try 1", "try 2", "refuse", "last"]
    until(lambda: not shop.queue.count)
    assert shop.faults() == []


# -- taken away --------------------------------------------------------------------------------------------------------

REMOVALS: dict[str, Callable[[Shop, Job], Any]] = {
    "job.cancel": lambda _, job: job.cancel(),
    "job.delete": lambda _, job: job.delete(),
    "queue.empty": lambda shop, _: shop.queue.empty(),
    "rq empty": lambda shop, _: shop.rq("empty", "flow"),
    "queue.delete": lambda shop, _: shop.queue.delete(delete_jobs=True),
    "queue.remove": lambda shop, job: shop.queue.remove(job),
}
of_one = pytest.mark.parametrize("remove", [REMOVALS["job.cancel"], REMOVALS["job.delete"]], ids=["cancel", "delete"])


@pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS)
def test_a_queued_step_that_is_taken_away_comes_back(shop: Shop, remove: Callable[[Shop, Job], Any]) -> None:
    """I4: whoever wants the run to end cancels the run."""
    run = shop.send("order", amount=1)
    remove(shop, shop.job(run))
    assert shop.queue.job_ids == []
    assert shop.house.reconcile(suspicion=0.0) == [run]
    assert shop.job(run).get_status() == JobStatus.QUEUED
    assert shop.queue.canceled_job_registry.get_job_ids() == []
    shop.flow_worker()
    assert shop.app.runs.result(run, 10) == 2
    assert shop.diary() == ["reserve", "charge"]
    assert shop.faults() == []


@of_one
def test_a_sleep_whose_job_is_taken_away_ends_when_it_would_have(
    shop: Shop, remove: Callable[[Shop, Job], Any]
) -> None:
    shop.flow_worker(reconcile_every=3600.0)
    run = shop.send("nap", seconds=2)
    until(lambda: shop.get(run).state == "sleeping")
    remove(shop, shop.job(run, "nap"))
    assert shop.house.reconcile(suspicion=0.0) == [run]
    assert shop.job(run, "nap").get_status() == JobStatus.SCHEDULED
    assert shop.queue.scheduled_job_registry.get_job_ids() == [f"{run}-nap"]
    assert shop.app.runs.result(run, 10) == "awake"
    assert shop.faults() == []


@of_one
def test_a_step_whose_job_is_taken_away_while_it_runs_is_recorded_all_the_same(
    shop: Shop, remove: Callable[[Shop, Job], Any]
) -> None:
    """As RQ's own workers go on with a job that was cancelled under them."""
    shop.flow_worker()
    run = shop.send("hold")
    until(lambda: f"{run}-hold" in shop.queue.started_job_registry.get_job_ids(cleanup=False))
    remove(shop, shop.job(run, "hold"))
    shop.open_gate()
    assert shop.app.runs.result(run, 10) == "held"
    assert shop.diary() == ["hold", "after"]
    assert shop.faults() == []


@of_one
def test_a_step_whose_job_is_taken_away_while_it_fails_is_tried_again(
    shop: Shop, remove: Callable[[Shop, Job], Any]
) -> None:
    shop.flow_worker()
    run = shop.send("hold and fail once")
    until(lambda: f"{run}-fickle" in shop.queue.started_job_registry.get_job_ids(cleanup=False))
    remove(shop, shop.job(run, "fickle"))
    shop.open_gate()
    until(lambda: shop.house.reconcile(suspicion=0.0) or shop.get(run).finished)
    assert shop.app.runs.result(run, 10) == "held"
    assert shop.faults() == []


# -- looked at ---------------------------------------------------------------------------------------------------------


def test_rq_info_tells_the_truth_in_all_its_forms_and_takes_nothing(shop: Shop) -> None:
    worker = shop.flow_worker()
    run = shop.send("hold")
    until(lambda: shop.queue.started_job_registry.get_job_ids(cleanup=False))
    shop.send("order", amount=1)
    queues = shop.rq("info", "--only-queues", "--raw")
    assert "queue flow 1" in queues
    workers = shop.rq("info", "--only-workers", "--raw")
    assert [line.split()[:2] for line in workers.splitlines() if worker.name in line] == [["worker", worker.name]]
    assert "busy" in workers
    by_queue = shop.rq("info", "--by-queue")
    (line,) = [line for line in by_queue.splitlines() if line.startswith("flow:")]
    assert f"{worker.name} (busy)" in line
    assert Worker.count(queue=shop.queue) == 1
    shop.queue.finished_job_registry.cleanup()
    shop.queue.failed_job_registry.cleanup()
    shop.open_gate()
    assert shop.app.runs.result(run, 10) == "held"
    assert shop.diary().count("hold") == 1
    assert [entry.kind for entry in shop.app.runs.history(run)].count("lost") == 0


# -- told to stop ------------------------------------------------------------------------------------------------------


def test_the_stop_execution_command_cancels_the_run(shop: Shop) -> None:
    shop.flow_worker()
    run = shop.send("hold")
    until(lambda: shop.queue.started_job_registry.get_job_ids(cleanup=False))
    (execution,) = shop.job(run, "hold").get_executions()
    send_stop_execution_command(shop.client, execution.job_id, execution.id)
    with pytest.raises(RunCancelled):
        shop.app.runs.result(run, 10)
    assert shop.faults() == []


def test_there_is_no_horse_to_be_killed(shop: Shop) -> None:
    """A command of RQ's that means nothing here does nothing."""
    worker = shop.flow_worker()
    run = shop.send("hold")
    until(lambda: shop.diary() == ["hold"])
    send_command(shop.client, worker.name, "kill-horse")
    shop.open_gate()
    assert shop.app.runs.result(run, 10) == "held"
