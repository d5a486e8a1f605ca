"""Our jobs as RQ 3's own classes and commands see them: an RQ upgrade that changes its schema fails here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from rq import Worker
from rq.job import JobStatus
from rq.results import Result
from rq.worker import WorkerStatus

from flowlib import RunCancelled
from tests.patience import until

from .conftest import Shop


def test_a_queued_job(shop: Shop) -> None:
    run = shop.send("order", amount=2)
    job = shop.job(run)
    assert job.get_status() == JobStatus.QUEUED
    assert (job.origin, job.func_name, job.description) == ("flow", "flowlib.job.run_step", "shop/order: start")
    assert job.args == [run, "", "tests.rq.shop:app"]
    assert job.kwargs == {}
    assert job.timeout == -1
    assert job.is_queued
    assert job.enqueued_at is not None
    assert abs(job.enqueued_at - datetime.now(UTC)) < timedelta(seconds=5)
    assert shop.queue.job_ids == [run]
    assert [each.id for each in shop.queue.jobs] == [run]
    assert job.get_position() == 0


def test_a_step_that_runs_is_started_and_its_worker_busy(shop: Shop) -> None:
    worker = shop.flow_worker()
    run = shop.send("hold")
    registry = shop.queue.started_job_registry
    until(lambda: f"{run}-hold" in registry.get_job_ids(cleanup=False))
    job = shop.job(run, "hold")
    assert job.get_status() == JobStatus.STARTED
    assert job.worker_name == worker.name
    assert job.started_at is not None
    assert abs(job.started_at - datetime.now(UTC)) < timedelta(seconds=5)
    assert job.ended_at is None
    assert job.description == "shop/keep: hold"
    (seen,) = Worker.all(connection=shop.client)
    assert seen.name == worker.name
    assert seen.get_state() == WorkerStatus.BUSY
    assert [execution.job_id for execution in seen.get_current_executions()] == [job.id]
    assert seen.queue_names() == ["flow"]
    shop.open_gate()
    assert shop.app.runs.result(run, 10) == "held"
    until(lambda: Worker.all(connection=shop.client)[0].get_state() == WorkerStatus.IDLE)
    assert registry.get_job_ids() == []
    assert Worker.all(connection=shop.client)[0].get_current_executions() == []


def test_rqs_own_cleanup_takes_no_running_job_of_ours(shop: Shop) -> None:
    """`rq info`, rq-dashboard and every RQ worker clean the registries up: ours is a day ahead, our lease expires."""
    shop.flow_worker()
    run = shop.send("hold")
    until(lambda: shop.queue.started_job_registry.get_job_ids(cleanup=False))
    shop.queue.started_job_registry.cleanup()
    assert shop.job(run, "hold").get_status() == JobStatus.STARTED
    shop.open_gate()
    assert shop.app.runs.result(run, 10) == "held"
    assert shop.diary() == ["hold", "after"]


def test_a_finished_job_has_its_result(shop: Shop) -> None:
    worker = shop.flow_worker()
    run = shop.send("order", amount=2)
    assert shop.app.runs.result(run, 10) == 3
    job = shop.job(run, "reserve")
    assert job.get_status() == JobStatus.FINISHED
    assert job.return_value() == 3
    assert shop.job(run, "charge").return_value() == {"paid": 3}
    assert job.started_at is not None
    assert job.ended_at is not None
    assert job.started_at <= job.ended_at
    result = job.latest_result()
    assert result is not None
    assert (result.type, result.worker_name) == (Result.Type.SUCCESSFUL, worker.name)
    assert {f"{run}-reserve", f"{run}-charge"} <= set(shop.queue.finished_job_registry.get_job_ids())
    assert 0 < shop.client.pttl(f"rq:job:{job.id}") <= 60_000
    assert shop.queue.count == 0


def test_a_failed_job_has_its_traceback(shop: Shop) -> None:
    shop.flow_worker()
    run = shop.send("break")
    until(lambda: shop.get(run).finished)
    job = shop.job(run, "break")
    assert job.get_status() == JobStatus.FAILED
    assert job.is_failed
    result = job.latest_result()
    assert result is not None
    assert result.type == Result.Type.FAILED
    assert result.exc_string is not None
    assert result.exc_string.splitlines()[-1] == "ValueError: it broke"
    assert "break_down" in result.exc_string
    assert f"{run}-break" in shop.queue.failed_job_registry.get_job_ids()


def test_a_sleep_is_a_scheduled_job(shop: Shop) -> None:
    shop.flow_worker()
    run = shop.send("nap", seconds=3600)
    until(lambda: shop.get(run).state == "sleeping")
    job = shop.job(run, "nap")
    assert job.get_status() == JobStatus.SCHEDULED
    registry = shop.queue.scheduled_job_registry
    assert registry.get_job_ids() == [job.id]
    left = registry.get_scheduled_time(job.id) - datetime.now(UTC)
    assert timedelta(seconds=3590) < left <= timedelta(seconds=3601)
    assert job.description == "shop/nap: nap"


def test_a_cancelled_runs_job_is_canceled(shop: Shop) -> None:
    shop.flow_worker()
    run = shop.send("nap", seconds=3600)
    until(lambda: shop.get(run).state == "sleeping")
    shop.app.runs.cancel(run, "no need")
    assert shop.job(run, "nap").get_status() == JobStatus.CANCELED
    assert shop.queue.scheduled_job_registry.get_job_ids() == []
    with pytest.raises(RunCancelled, match="no need"):
        shop.app.runs.result(run, 1)


def test_workers_are_counted_and_those_that_end_are_gone(shop: Shop) -> None:
    workers = [shop.flow_worker() for _ in range(2)]
    assert Worker.count(connection=shop.client) == 2
    assert {seen.name for seen in Worker.all(queue=shop.queue)} == {worker.name for worker in workers}
    shop.send("order", amount=1)
    until(lambda: sum(seen.successful_job_count for seen in Worker.all(connection=shop.client)) == 3)
    shop.stop_workers()
    assert Worker.count(connection=shop.client) == 0


def test_rq_info_shows_queues_and_workers_as_they_are(shop: Shop) -> None:
    worker = shop.flow_worker()
    shop.send("hold")
    until(lambda: shop.queue.started_job_registry.get_job_ids(cleanup=False))
    shop.send("order", amount=1)
    shown = shop.rq("info")
    assert "1 workers, 1 queues" in shown
    (queue,) = [line for line in shown.splitlines() if line.startswith("flow ")]
    assert "1, 1 executing, 1 finished, 0 failed" in " ".join(queue.replace("|", " ").replace("█", " ").split())
    (line,) = [line for line in shown.splitlines() if line.startswith(worker.name)]
    assert "busy" in line
